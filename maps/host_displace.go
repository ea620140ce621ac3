package maps

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
)

// waiter is a host whose two buckets were full when it came. The overflow hash serves it, through a slot of the waiting room,
// until a chain of other hosts has moved over by one slot each and left one of its own free.
//
// A reader meets bucket one, bucket two, the overflow, in this order, and may be anywhere in between whenever
// we store. So a host is copied to where it goes first, stays where it was for a grace period, and only then is
// its old slot overwritten, by the next host of the chain. The chain therefore moves from its far end: path[0]
// is a slot of the waiting host, its occupant goes to path[1], and so on; the last position was free. What is
// in path[at] is not needed by any reader a grace period after the last step. All positions are reserved in
// slots.busy until the end: nobody else stores a host there or moves one from there, so the only thing that can
// happen to them in between is that a host is deleted (its slots are cleared) or that its value is replaced (in
// both copies).
//
// The next host of the chain overwrites an IPv4 slot, which is one word. An IPv6 slot has an address beside it, two words more, of
// which a reader that found the old slot could see half: so the slot is cleared first, and its next host comes a grace period
// later.
type waiter struct {
	key    hostKey
	slot   int   // position in the waiting room; the overflow names it
	path   []int // nil: there was none; it is served from the overflow until room appears
	at     int
	placed bool // is in path[0] too
	gone   bool // was deleted: only the path is left to clear
}

// wait puts a host into the overflow and starts to make room for it.
func (t *hostTable) wait(k *hostKey, value uint32) error {
	if uint32(len(t.waiting)) >= waitingMax {
		return t.full()
	}
	at := t.room.take(k, value)
	if at < 0 {
		return t.full()
	}
	o := overflowKey(k)
	if err := t.maps.Overflow.Update(&o, uint32(at), ebpf.UpdateAny); err != nil {
		t.v6.clear(at)
		return fmt.Errorf("add host %s to map host_overflow: %w", k.addr(), err)
	}
	w := &waiter{key: *k, slot: at}
	t.waiting[*k] = w
	t.family(k).hosts++
	if t.copying {
		t.retry = true
	} else {
		t.begin(w)
	}
	return nil
}

// full says whether Settle would make room.
func (t *hostTable) full() error {
	if len(t.v6.left)+len(t.v6.resting) > 0 || !t.copying && len(t.started)+len(t.resting) > 0 {
		return errResting
	}
	return errHostsFull
}

// leave takes a deleted host out of the overflow.
//
// The kernel may reuse a hash element at once, under a reader that has just found it. That is why the element holds a
// place and not the value: the reader sees that the slot there belongs to somebody else. For the same reason an
// element that the kernel refuses to delete does no harm; the next start removes it.
func (t *hostTable) leave(w *waiter) {
	t.v6.clear(w.slot)
	o := overflowKey(&w.key)
	_ = t.maps.Overflow.Delete(&o)
	delete(t.waiting, w.key)
	w.gone = true
}

// begin looks for a path and makes its first step.
func (t *hostTable) begin(w *waiter) {
	s := t.family(&w.key)
	w.path = t.findPath(s, s.place(&w.key))
	if w.path == nil {
		return
	}
	for _, at := range w.path {
		s.busy[at] = w
	}
	w.at = len(w.path) - 1
	t.step(w)
	t.started = append(t.started, w)
}

// step fills path[at], which no reader needs any more, with the next host of the chain, or in the end with the
// waiting host itself.
func (t *hostTable) step(w *waiter) {
	s := t.family(&w.key)
	for w.at > 0 {
		to, from := w.path[w.at], w.path[w.at-1]
		w.at--
		if s.taken(from) {
			k, _ := s.key(from)
			s.write(to, &k, s.word[from]>>s.shift, s.value(from))
			return
		}
		s.store(to, 0)
		if s.word[from] != 0 {
			return // it was deleted just now
		}
		// It was deleted meanwhile, so its slot needs no grace period.
	}
	s.write(w.path[0], &w.key, s.place(&w.key).tag, t.v6.value(w.slot))
	w.placed = true
}

// advance makes w's next step, a grace period after its last one, and reports whether there are more.
func (t *hostTable) advance(w *waiter) (more bool, err error) {
	s, last := t.family(&w.key), w.path[w.at]
	switch {
	case w.gone:
		if s.taken(last) {
			s.clear(last) // the old copy of the host that moved last
		}
	case w.placed:
		o := overflowKey(&w.key)
		if err := t.maps.Overflow.Delete(&o); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return true, fmt.Errorf("remove host %s from map host_overflow: %w", w.key.addr(), err)
		}
		delete(t.waiting, w.key)
		t.v6.clear(w.slot)
	case s.v6 && s.word[last] != 0:
		if s.taken(last) {
			s.clear(last)
		}
		return true, nil
	default:
		t.step(w)
		return true, nil
	}
	for _, at := range w.path {
		delete(s.busy, at)
	}
	t.retry = len(t.waiting) > 0
	return false, nil
}

// rest notes that a grace period begins and reports whether anything needs it. With hold, displacements do not count.
func (t *hostTable) rest(hold bool) bool {
	if t.retry && !hold {
		t.retry = false
		t.retryWaiting()
	}
	t.resting = append(t.resting, t.started...)
	t.started = nil
	return t.v6.rest() || len(t.resting) > 0 && !hold
}

// retryWaiting looks again for hosts that found no path. Where the table is so full that a row of searches fails, the
// rest would fail too, at a few microseconds each: they are left for the next time, when others will come first (the
// order of a Go map is random).
func (t *hostTable) retryWaiting() {
	failed := 0
	for _, w := range t.waiting {
		if w.path != nil {
			continue
		}
		if t.begin(w); w.path != nil {
			failed = 0
		} else if failed++; failed == 64 {
			return
		}
	}
}

// ripen does what had to wait for the grace period that has now ended.
func (t *hostTable) ripen(hold bool) error {
	if t.v6.ripen() && len(t.waiting) > 0 {
		t.retry = true
	}
	if hold {
		return nil
	}
	var failed error
	resting := t.resting
	t.resting = nil
	for _, w := range resting {
		more, err := t.advance(w)
		failed = errors.Join(failed, err)
		if more {
			t.started = append(t.started, w)
		}
	}
	return failed
}

// pending counts what rest and ripen have to do.
func (t *hostTable) pending() int {
	n := len(t.started) + len(t.resting) + len(t.v6.left) + len(t.v6.resting)
	if t.retry {
		n++
	}
	return n
}

// node is a bucket that the path search has reached, and the slot whose host could move there.
type node struct {
	bucket uint32
	parent int16 // -1 for the waiting host's own buckets
	slot   uint8 // of parent
}

// maxNodes bounds the search. At 95% of the slots in use 50 nodes are looked at on average; 400 find a path in
// practically every case up to 99%, and in nine of ten between there and 99.5%.
const maxNodes = 400

// findPath looks, breadth first, for the shortest chain of moves that frees a slot in one of p's buckets: positions
// in the order of waiter.path, or nil.
func (t *hostTable) findPath(s *slots, p place) []int {
	nodes := append(t.nodes[:0], node{bucket: p.bucket[0], parent: -1})
	if p.bucket[0] != p.bucket[1] {
		nodes = append(nodes, node{bucket: p.bucket[1], parent: -1})
	}
	defer func() { t.nodes = nodes }()
	for n := 0; n < len(nodes); n++ {
		base := s.base(nodes[n].bucket)
		for i, word := range s.word[base : base+s.size] {
			switch {
			case s.busy[base+i] != nil || word == vacated:
			case word == 0:
				return s.unwind(nodes, n, base+i)
			case len(nodes) < maxNodes:
				if to, ok := s.other(base+i, nodes[n].bucket); ok {
					nodes = append(nodes, node{bucket: to, parent: int16(n), slot: uint8(i)})
				}
			}
		}
	}
	return nil
}

// other is the bucket to which the host of a slot could move.
func (s *slots) other(at int, bucket uint32) (uint32, bool) {
	k, _ := s.key(at)
	p := s.place(&k)
	to := p.bucket[0]
	if to == bucket {
		to = p.bucket[1]
	}
	return to, to != bucket
}

func (s *slots) unwind(nodes []node, n int, free int) []int {
	path := []int{free}
	for nodes[n].parent >= 0 {
		at := nodes[n]
		n = int(at.parent)
		path = append(path, s.base(nodes[n].bucket)+int(at.slot))
	}
	slices.Reverse(path)
	return path
}
