package maps

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
)

// waiter is a host whose two buckets were full when it came. The overflow hash serves it, through a record,
// until a chain of other hosts has moved over by one slot each and left one of its own free.
//
// A reader meets bucket one, bucket two, the overflow, in this order, and may be anywhere in between whenever
// we store. So a host is copied to where it goes first, stays where it was for a grace period, and only then is
// its old slot overwritten, by the next host of the chain. The chain therefore moves from its far end: path[0]
// is a slot of the waiting host, its occupant goes to path[1], and so on; the last position was free. What is
// in path[at] is not needed by any reader a grace period after the last step. All positions are reserved in
// slots.busy until the end: nobody else stores a host there or moves one from there, so the only thing that can
// happen to them in between is that a host is deleted (its slots become 0) or that its value is replaced (in
// both copies).
type waiter struct {
	key    hostKey
	record uint32 // holds key and value while the overflow names it
	path   []int  // nil: there was none; it is served from the overflow until room appears
	at     int
	placed bool // is in path[0] too
	gone   bool // was deleted: only the path is left to clear
}

// wait puts a host into the overflow and starts to make room for it. It takes over the record.
func (t *hostTable) wait(k *hostKey, rec, value uint32) error {
	if uint32(len(t.waiting)) >= waitingMax {
		t.records.giveBack(rec)
		return errHostsFull
	}
	t.records.write(rec, k, value)
	o := overflowKey(k)
	if err := t.maps.Overflow.Update(&o, rec, ebpf.UpdateAny); err != nil {
		t.records.giveBack(rec)
		return fmt.Errorf("add host %s to map host_overflow: %w", k.addr(), err)
	}
	w := &waiter{key: *k, record: rec}
	t.waiting[*k] = w
	t.family(k).hosts++
	if t.copying {
		t.retry = true
	} else {
		t.begin(w)
	}
	return nil
}

// leave takes a deleted host out of the overflow; its record is the caller's again.
//
// The kernel may reuse a hash element at once, under a reader that has just found it. That is why the element holds a
// record and not the value: the reader sees that the record belongs to somebody else. For the same reason an
// element that the kernel refuses to delete does no harm; the next start removes it.
func (t *hostTable) leave(w *waiter) {
	t.records.setValue(w.record, 0)
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

// step overwrites path[at], which no reader needs any more, with the next host of the chain, or in the end with the
// waiting host itself.
func (t *hostTable) step(w *waiter) {
	s := t.family(&w.key)
	for w.at > 0 {
		word := s.word[w.path[w.at-1]]
		s.store(w.path[w.at], word)
		w.at--
		if word != 0 {
			return
		}
		// It was deleted meanwhile, so its slot needs no grace period.
	}
	s.store(w.path[0], t.word(&w.key, s.place(&w.key), w.record))
	w.placed = true
}

// advance makes w's next step, a grace period after its last one, and reports whether there are more.
func (t *hostTable) advance(w *waiter) (more bool, err error) {
	s := t.family(&w.key)
	switch {
	case w.gone:
		s.store(w.path[w.at], 0) // the old copy of the host that moved last, or nothing
	case w.placed:
		o := overflowKey(&w.key)
		if err := t.maps.Overflow.Delete(&o); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return true, fmt.Errorf("remove host %s from map host_overflow: %w", w.key.addr(), err)
		}
		delete(t.waiting, w.key)
		if !w.key.v6 {
			t.records.retire(w.record) // an IPv6 slot goes on naming it
		}
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
	return t.records.rest() || len(t.resting) > 0 && !hold
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
	t.records.ripen()
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
	n := len(t.started) + len(t.resting) + t.records.retired.len + t.records.resting.len
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
		base := int(nodes[n].bucket) * bucketSize
		for i, word := range s.word[base : base+bucketSize] {
			switch {
			case s.busy[base+i] != nil:
			case word == 0:
				return unwind(nodes, n, base+i)
			case len(nodes) < maxNodes:
				if to, ok := s.other(word, nodes[n].bucket); ok {
					nodes = append(nodes, node{bucket: to, parent: int16(n), slot: uint8(i)})
				}
			}
		}
	}
	return nil
}

// other is the bucket to which the host of a slot could move.
func (s *slots) other(word uint64, bucket uint32) (uint32, bool) {
	k, _ := s.key(word)
	p := s.place(&k)
	to := p.bucket[0]
	if to == bucket {
		to = p.bucket[1]
	}
	return to, to != bucket
}

func unwind(nodes []node, n int, free int) []int {
	path := []int{free}
	for nodes[n].parent >= 0 {
		at := nodes[n]
		n = int(at.parent)
		path = append(path, int(nodes[n].bucket)*bucketSize+int(at.slot))
	}
	slices.Reverse(path)
	return path
}
