package maps

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
)

// errHostsFull means that a new host fits nowhere: both of its buckets are full, no chain of displacements was
// found, and the overflow holds as many hosts as it can. The time to grow is long before, when Len4 or Len6
// passes Cap.
var errHostsFull = fmt.Errorf("host table: %w, grow it", ErrFull)

// Hosts writes the host table: exact addresses, each in a space (a tenant, or one of enum space in bpf/abi.h),
// to values of 20 bits (next-hop ids). It is the table's only writer; programs read it all the while, and never
// miss a host that is there, see another host's value, or a value that was not written. What Put and Delete did
// holds for every packet that arrives after they returned.
//
// What has to wait until no program looks any more, a second phase of displacements and the reuse of IPv6 slots,
// is left to Settle, which its owner calls when Work says so. Until then the hosts concerned are served from a
// hash table that costs their packets about as much again.
//
// All methods are safe for concurrent use. Those that take long (Each, Grow) say for how long they keep others
// waiting. A process keeps no memory per host: the table itself, mapped, is all there is.
type Hosts struct {
	grace    *Grace
	work     chan struct{}
	settling sync.Mutex // one Settle at a time
	growing  sync.Mutex // one of Grow, CommitGrow, AbortGrow, Close at a time

	mu      sync.Mutex
	cur     *hostTable // nil once closed
	next    *hostTable // while growing: written too
	filling bool       // cur is being copied to next: no host may leave a slot
}

// OpenHosts becomes the writer of maps, which it duplicates, and adopts what is in them, whatever state a
// killed writer left them in. It waits for one grace period and then reads the table: 0.6 s on a busy machine for a million
// hosts. The caller sees to it that no other writer lives, and closes grace after the Hosts.
func OpenHosts(maps HostMaps, grace *Grace) (*Hosts, error) {
	t, err := openHostTable(maps)
	if err != nil {
		return nil, err
	}
	if err = grace.Wait(); err == nil {
		err = t.adopt()
	}
	if err != nil {
		_ = t.close()
		return nil, err
	}
	h := &Hosts{grace: grace, cur: t, work: make(chan struct{}, 1)}
	h.notify()
	return h, nil
}

// Close stops writing. The maps keep what they hold.
func (h *Hosts) Close() error {
	h.growing.Lock()
	defer h.growing.Unlock()
	h.mu.Lock()
	defer h.mu.Unlock()
	var err error
	for _, t := range h.tables() {
		err = errors.Join(err, t.close())
	}
	h.cur, h.next = nil, nil
	return err
}

// Put makes value the answer for addr in space: a new host, or another value for one that is there, with
// nothing in between. space is 1..4095, value 1..1<<20-1, addr neither zoned nor IPv4-mapped. An error, which
// may wrap ErrFull, has changed nothing. Put never waits for programs to end, with one exception: when so many
// hosts came, or came and went, since the last Settle that the overflow is full of them, it settles first.
func (h *Hosts) Put(space uint16, addr netip.Addr, value uint32) error {
	k, err := checkHostValue(space, addr, value)
	if err != nil {
		return err
	}
	for {
		if err = h.putOne(&k, value); err != errResting {
			return err
		}
		if err := h.Settle(); err != nil {
			return err
		}
	}
}

func (h *Hosts) putOne(k *hostKey, value uint32) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.cur == nil {
		return os.ErrClosed
	}
	defer h.notify()
	return h.put(k, h.cur.family(k).place(k), value)
}

// HostValue is a host and its answer, as Put takes them.
type HostValue struct {
	Space uint16
	Addr  netip.Addr
	Value uint32
}

// putChunk is how many hosts PutAll handles at a time: as many cache misses overlap, and other callers get
// their turn in between.
const putChunk = 32

// PutAll is Put for many hosts, in order, at half the price or less: their buckets are fetched from memory side by
// side. It returns how many were put, which is less than all of them only with the error of the one after.
func (h *Hosts) PutAll(list []HostValue) (done int, err error) {
	for done < len(list) {
		chunk := list[done:min(done+putChunk, len(list))]
		n, err := h.putChunk(chunk)
		done += n
		switch {
		case err == errResting:
			if err := h.Settle(); err != nil {
				return done, err
			}
		case err != nil:
			return done, err
		}
	}
	return done, nil
}

func (h *Hosts) putChunk(chunk []HostValue) (done int, err error) {
	var (
		keys   [putChunk]hostKey
		places [putChunk]place
		bad    error
	)
	for i := range chunk {
		if keys[i], bad = checkHostValue(chunk[i].Space, chunk[i].Addr, chunk[i].Value); bad != nil {
			chunk = chunk[:i]
			break
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.cur == nil {
		return 0, os.ErrClosed
	}
	defer h.notify()
	for i := range chunk {
		places[i] = h.cur.family(&keys[i]).place(&keys[i])
	}
	sum := uint64(0)
	for i := range chunk {
		sum += h.cur.family(&keys[i]).touch(&places[i])
	}
	h.cur.touched = sum
	for i := range chunk {
		if err := h.put(&keys[i], places[i], chunk[i].Value); err != nil {
			return i, err
		}
	}
	return len(chunk), bad
}

// put changes all tables or none; p is the host's place in cur.
func (h *Hosts) put(k *hostKey, p place, value uint32) error {
	s := h.cur.family(k)
	if h.next == nil {
		return h.cur.putAt(s, k, p, value)
	}
	old := h.cur.get(k)
	if err := h.cur.putAt(s, k, p, value); err != nil {
		return err
	}
	err := h.next.put(k, value)
	if err == nil {
		return nil
	}
	if old == 0 {
		h.cur.delete(k)
	} else if undo := h.cur.put(k, old); undo != nil {
		err = errors.Join(err, undo)
	}
	return err
}

func checkHostValue(space uint16, addr netip.Addr, value uint32) (hostKey, error) {
	k, err := newHostKey(space, addr)
	if err == nil && (value == 0 || value > maxValue) {
		err = fmt.Errorf("value %d of host %s is outside 1..%d", value, addr, maxValue)
	}
	return k, err
}

// Delete forgets a host and reports whether it was there.
func (h *Hosts) Delete(space uint16, addr netip.Addr) bool {
	k, err := newHostKey(space, addr)
	if err != nil {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	there := false
	for _, t := range h.tables() {
		if t.delete(&k) {
			there = true
		}
	}
	h.notify()
	return there
}

// Get returns a host's value; ok is false where there is no such host.
func (h *Hosts) Get(space uint16, addr netip.Addr) (value uint32, ok bool) {
	k, err := newHostKey(space, addr)
	if err != nil {
		return 0, false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.cur == nil {
		return 0, false
	}
	value = h.cur.get(&k)
	return value, value != 0
}

// Each calls yield for every host, in no order, until it returns false. Other methods wait meanwhile (about
// 0.1 s for a million hosts), and yield must not call any.
func (h *Hosts) Each(yield func(space uint16, addr netip.Addr, value uint32) bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.cur == nil {
		return
	}
	h.cur.each(func(k hostKey, value uint32) bool { return yield(uint16(k.space), k.addr(), value) })
}

// Len4 is the number of IPv4 hosts.
func (h *Hosts) Len4() int { return h.count(func(t *hostTable) int { return t.v4.hosts }) }

// Len6 is the number of IPv6 hosts.
func (h *Hosts) Len6() int { return h.count(func(t *hostTable) int { return t.v6.hosts }) }

// Cap is how many hosts of each family the table is meant for: four fifths of its slots.
func (h *Hosts) Cap() int {
	return h.count(func(t *hostTable) int { return t.v4.room() * 4 / 5 })
}

// Waiting is how many hosts are served from the overflow at the moment.
func (h *Hosts) Waiting() int { return h.count(func(t *hostTable) int { return len(t.waiting) }) }

func (h *Hosts) count(of func(*hostTable) int) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.cur == nil {
		return 0
	}
	return of(h.cur)
}

// Work receives when there is something for Settle to do.
func (h *Hosts) Work() <-chan struct{} { return h.work }

// Pending counts what Settle would do now.
func (h *Hosts) Pending() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.pending()
}

func (h *Hosts) pending() int {
	n := 0
	for _, t := range h.tables() {
		n += t.pending()
	}
	return n
}

// notify is called with mu held.
func (h *Hosts) notify() {
	if len(h.work) == 0 && h.pending() > 0 {
		select {
		case h.work <- struct{}{}:
		default:
		}
	}
}

// Settle finishes what waits for grace periods, all of it together: one for the IPv6 slots given up, and one for
// each step of the longest displacement, two for IPv6: three to seven in all. Other methods go on meanwhile. It returns when
// nothing is left to do; after an error it can be called again.
func (h *Hosts) Settle() error {
	h.settling.Lock()
	defer h.settling.Unlock()
	for h.rest() {
		if err := h.grace.Wait(); err != nil {
			return err
		}
		if err := h.ripen(); err != nil {
			return err
		}
	}
	return nil
}

func (h *Hosts) rest() (needed bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, t := range h.tables() {
		if t.rest(h.holds(t)) {
			needed = true
		}
	}
	return needed
}

func (h *Hosts) ripen() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	var err error
	for _, t := range h.tables() {
		err = errors.Join(err, t.ripen(h.holds(t)))
	}
	return err
}

// tables are all that are written. Called with mu held.
func (h *Hosts) tables() []*hostTable {
	switch {
	case h.cur == nil:
		return nil
	case h.next == nil:
		return []*hostTable{h.cur}
	}
	return []*hostTable{h.cur, h.next}
}

func (h *Hosts) holds(t *hostTable) bool { return h.filling && t == h.cur }
