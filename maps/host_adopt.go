package maps

import (
	"fmt"
	"unsafe"
)

// adopt takes over a table that another process wrote and may have left at any point, and brings it to a state
// from which this writer can go on. No program may have been running since before the other process ended: the
// caller waits for a grace period first, so that whatever is in two places may be in one.
//
// What readers would find is the truth. A host in both of its buckets was being displaced: the copy that
// readers meet first stays. A host in a bucket and in the overflow had been placed: it leaves the overflow. A
// host in the overflow only is still waiting. Everything else that is not empty cannot be found by anybody and
// is removed. None of it may hold readers up: what they may be looking at rests for another grace period.
func (t *hostTable) adopt() error {
	t.adoptSlots(&t.v4)
	t.adoptSlots(&t.v6)
	if err := t.adoptOverflow(); err != nil {
		return err
	}
	t.adoptFront(&t.v4)
	t.adoptFront(&t.v6)
	t.retry = len(t.waiting) > 0
	return nil
}

func (t *hostTable) adoptSlots(s *slots) {
	for at := range s.in(0, s.buckets) {
		if s.word[at] == 0 {
			continue
		}
		k, ok := s.key(at)
		if ok {
			f := s.scan(&k, s.place(&k))
			ok = f.hits > 0 && f.hit[0] == at
		}
		if !ok {
			s.clear(at)
			continue
		}
		s.hosts++
		if inFront(&k) {
			s.putFront(&k, s.value(at))
		}
	}
}

func (t *hostTable) adoptOverflow() error {
	var (
		key   datapathOverflowKey
		at    uint32
		leave []datapathOverflowKey
		used  = make(map[int]bool)
	)
	for it := t.maps.Overflow.Iterate(); it.Next(&key, &at); {
		k, ok := waitingKey(&key)
		s, slot := t.family(&k), int(at)
		f := s.scan(&k, s.place(&k))
		if !ok || f.hits > 0 || !t.room.has(slot) || used[slot] || !t.room.holds(slot, &k) {
			leave = append(leave, key)
			continue
		}
		t.waiting[k] = &waiter{key: k, slot: slot}
		s.hosts++
		used[slot] = true
	}
	t.room.adopt(used)
	if n := uint32(len(t.waiting) + len(leave)); n > waitingMax {
		return fmt.Errorf("map host_overflow changed while it was read: another daemon is writing to it, stop that one")
	}
	for i := range leave {
		if err := t.maps.Overflow.Delete(&leave[i]); err != nil {
			return fmt.Errorf("remove a placed host from map host_overflow: %w", err)
		}
	}
	return nil
}

// waitingKey reads a key of the overflow hash; ok is false where the writer never wrote such a one.
func waitingKey(o *datapathOverflowKey) (hostKey, bool) {
	w := (*[2]uint64)(unsafe.Pointer(&o.Addr))
	k := hostKey{hi: w[0], lo: w[1], space: o.Space}
	k.v6 = k.hi != 0 || uint32(k.lo) != mapped
	return k, k.space != 0 && k.space <= maxSpace
}
