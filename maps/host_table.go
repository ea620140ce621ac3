package maps

import (
	"errors"
	"unsafe"
)

// hostTable is the writer's view of one set of maps. It is not safe for concurrent use.
//
// What it keeps per host is in the maps; what it keeps here is per waiting host, at most OVERFLOW_ENTRIES of them.
type hostTable struct {
	maps    HostMaps // our own descriptors
	memory4 *memory[datapathBucket]
	memory6 *memory[datapathBucket]
	memoryR *memory[datapathRecord6]
	v4, v6  slots
	records *records
	waiting map[hostKey]*waiter // who is in the overflow
	started []*waiter           // made a step since the last grace period began
	resting []*waiter           // made a step before that
	retry   bool                // room appeared: who waits without a path may find one
	copying bool                // to a bigger table, slot by slot: no host may get a second slot, which may have been passed
	nodes   []node              // of the path search, kept to be reused
	touched uint64              // see slots.touch
}

// errResting says that there is room, but that readers may still look at it.
var errResting = errors.New("every free record is resting")

// openHostTable maps the memory of maps. The descriptors are duplicated, the caller keeps its own.
func openHostTable(maps HostMaps) (*hostTable, error) {
	h4, h6, err := maps.Headers()
	if err != nil {
		return nil, err
	}
	t := &hostTable{waiting: make(map[hostKey]*waiter)}
	if t.maps, err = maps.Clone(); err != nil {
		return nil, err
	}
	if err := t.mapMemory(); err != nil {
		_ = t.close()
		return nil, err
	}
	t.records = &records{list: t.memoryR.entries, unused: 1}
	t.v4 = newSlots(t.memory4.entries, &h4, nil)
	t.v6 = newSlots(t.memory6.entries, &h6, t.records)
	return t, nil
}

func (t *hostTable) mapMemory() (err error) {
	if t.memory4, err = mapArray[datapathBucket](t.maps.Buckets4); err != nil {
		return err
	}
	if t.memory6, err = mapArray[datapathBucket](t.maps.Buckets6); err != nil {
		return err
	}
	t.memoryR, err = mapArray[datapathRecord6](t.maps.Records6)
	return err
}

func (t *hostTable) close() error {
	err := t.maps.Close()
	if t.memory4 != nil {
		err = errors.Join(err, t.memory4.close())
	}
	if t.memory6 != nil {
		err = errors.Join(err, t.memory6.close())
	}
	if t.memoryR != nil {
		err = errors.Join(err, t.memoryR.close())
	}
	return err
}

func (t *hostTable) family(k *hostKey) *slots {
	if k.v6 {
		return &t.v6
	}
	return &t.v4
}

// word is the slot of a host whose key and value are in record rec.
func (t *hostTable) word(k *hostKey, p place, rec uint32) uint64 {
	if k.v6 {
		return p.tag<<recordBits | uint64(rec)
	}
	return p.tag<<valueBits | uint64(t.records.value(rec))
}

func (t *hostTable) get(k *hostKey) uint32 {
	s := t.family(k)
	if f := s.scan(k, s.place(k)); f.hits > 0 {
		return t.valueAt(s, f.hit[0])
	}
	if w := t.waiting[*k]; w != nil {
		return t.records.value(w.record)
	}
	return 0
}

func (t *hostTable) valueAt(s *slots, at int) uint32 {
	low := s.low(s.word[at])
	if s.records == nil {
		return low
	}
	return t.records.value(low)
}

// put inserts or replaces. On any error nothing has changed.
func (t *hostTable) put(k *hostKey, value uint32) error {
	s := t.family(k)
	return t.putAt(s, k, s.place(k), value)
}

func (t *hostTable) putAt(s *slots, k *hostKey, p place, value uint32) error {
	err := t.putSlot(s, k, p, value)
	if err == nil && inFront(k) {
		s.front.put(k, t.low(s, k))
	}
	return err
}

// low is what a slot of a host that is there has below its tag, or would have.
func (t *hostTable) low(s *slots, k *hostKey) uint32 {
	if f := s.scan(k, s.place(k)); f.hits > 0 {
		return s.low(s.word[f.hit[0]])
	}
	rec := t.waiting[*k].record
	if k.v6 {
		return rec
	}
	return t.records.value(rec)
}

func (t *hostTable) putSlot(s *slots, k *hostKey, p place, value uint32) error {
	f := s.scan(k, p)
	w := t.waiting[*k]
	switch {
	case f.hits > 0 || w != nil:
		t.replace(s, &f, w, p, value)
		return nil
	case k.v6:
		return t.insert6(s, k, p, &f, value)
	}
	if at := f.choose(); at >= 0 {
		s.store(at, p.tag<<valueBits|uint64(value))
		s.hosts++
		return nil
	}
	rec, err := t.take()
	if err != nil {
		return err
	}
	return t.wait(k, rec, value)
}

// replace writes every copy there is.
func (t *hostTable) replace(s *slots, f *scan, w *waiter, p place, value uint32) {
	for _, at := range f.hit[:f.hits] {
		if s.records == nil {
			s.store(at, p.tag<<valueBits|uint64(value))
		} else {
			t.records.setValue(s.low(s.word[at]), value) // both slots of a displaced host name one record
		}
	}
	if w != nil {
		t.records.setValue(w.record, value)
	}
}

func (t *hostTable) insert6(s *slots, k *hostKey, p place, f *scan, value uint32) error {
	rec, err := t.take()
	if err != nil {
		return err
	}
	at := f.choose()
	if at < 0 {
		return t.wait(k, rec, value)
	}
	t.records.write(rec, k, value)
	s.store(at, p.tag<<recordBits|uint64(rec))
	s.hosts++
	return nil
}

func (t *hostTable) take() (uint32, error) {
	rec := t.records.take()
	switch {
	case rec != 0:
		return rec, nil
	case t.records.retired.len+t.records.resting.len > 0:
		return 0, errResting
	}
	return 0, errHostsFull
}

// delete reports whether the host was there.
func (t *hostTable) delete(k *hostKey) bool {
	s := t.family(k)
	f := s.scan(k, s.place(k))
	w := t.waiting[*k]
	if f.hits == 0 && w == nil {
		return false
	}
	if inFront(k) {
		s.front.remove(k, t.low(s, k))
	}
	var rec uint32
	for _, at := range f.hit[:f.hits] {
		if k.v6 {
			rec = s.low(s.word[at])
		}
		s.store(at, 0)
	}
	if w != nil {
		rec = w.record
		t.leave(w)
	}
	if rec != 0 {
		t.records.retire(rec)
	}
	s.hosts--
	t.retry = len(t.waiting) > 0
	return true
}

// each calls yield for every host once until it returns false.
func (t *hostTable) each(yield func(k hostKey, value uint32) bool) bool {
	for _, s := range []*slots{&t.v4, &t.v6} {
		if !t.eachSlot(s, 0, len(s.word), yield) {
			return false
		}
	}
	return t.eachWaiting(yield)
}

// eachSlot goes over the positions from..to-1. Where a host has two copies, readers' first one counts.
func (t *hostTable) eachSlot(s *slots, from, to int, yield func(k hostKey, value uint32) bool) bool {
	for at := from; at < to; at++ {
		if s.word[at] == 0 {
			continue
		}
		k, _ := s.key(s.word[at])
		if s.busy[at] != nil {
			if f := s.scan(&k, s.place(&k)); f.hit[0] != at {
				continue
			}
		}
		if !yield(k, t.valueAt(s, at)) {
			return false
		}
	}
	return true
}

func (t *hostTable) eachWaiting(yield func(k hostKey, value uint32) bool) bool {
	for k, w := range t.waiting {
		if !w.placed && !yield(k, t.records.value(w.record)) {
			return false
		}
	}
	return true
}

// overflowKey is how the overflow hash spells a host.
func overflowKey(k *hostKey) (o datapathOverflowKey) {
	*(*[2]uint64)(unsafe.Pointer(&o.Addr)) = [2]uint64{k.hi, k.lo}
	o.Space = k.space
	return o
}
