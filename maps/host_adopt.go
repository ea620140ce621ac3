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
// is removed.
func (t *hostTable) adopt() error {
	used := make([]uint64, len(t.records.list)/64+1)
	t.v4.front.clear()
	t.v6.front.clear()
	t.adoptSlots(&t.v4, nil)
	t.adoptSlots(&t.v6, used)
	if err := t.adoptOverflow(used); err != nil {
		return err
	}
	t.records.adopt(used)
	t.retry = len(t.waiting) > 0
	return nil
}

func (t *hostTable) adoptSlots(s *slots, used []uint64) {
	for at, word := range s.word {
		if word == 0 {
			continue
		}
		k, ok := s.key(word)
		if ok {
			f := s.scan(&k, s.place(&k))
			ok = f.hits > 0 && f.hit[0] == at
		}
		if !ok {
			s.store(at, 0)
			continue
		}
		s.hosts++
		if inFront(&k) {
			s.front.put(&k, s.low(word))
		}
		if used != nil {
			setBit(used, s.low(word))
		}
	}
}

func (t *hostTable) adoptOverflow(used []uint64) error {
	var (
		key   datapathOverflowKey
		rec   uint32
		leave []datapathOverflowKey
	)
	for it := t.maps.Overflow.Iterate(); it.Next(&key, &rec); {
		k, ok := waitingKey(&key)
		s := t.family(&k)
		f := s.scan(&k, s.place(&k))
		if !ok || f.hits > 0 || rec == 0 || !t.records.is(rec, &k) || t.records.value(rec) == 0 {
			leave = append(leave, key)
			continue
		}
		t.waiting[k] = &waiter{key: k, record: rec}
		s.hosts++
		setBit(used, rec)
	}
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

// adopt makes a free record of each that is not used.
func (r *records) adopt(used []uint64) {
	r.unused = 1
	for i := uint32(len(r.list)) - 1; i > 0; i-- {
		switch {
		case used[i/64]>>(i%64)&1 == 0:
			if r.unused > 1 {
				r.giveBack(i)
			}
		case r.unused == 1:
			r.unused = i + 1
		}
	}
}

func setBit(set []uint64, i uint32) { set[i/64] |= 1 << (i % 64) }
