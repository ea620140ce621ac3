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
	memory6 *memory[datapathBucket6]
	v4, v6  slots
	room    waitingRoom
	waiting map[hostKey]*waiter // who is in the overflow
	started []*waiter           // made a step since the last grace period began
	resting []*waiter           // made a step before that
	retry   bool                // room appeared: who waits without a path may find one
	copying bool                // to a bigger table, slot by slot: no host may get a second slot, which may have been passed
	nodes   []node              // of the path search, kept to be reused
	touched uint64              // see slots.touch
}

// errResting says that there is room, but that it has to wait for readers.
var errResting = errors.New("every free slot is resting")

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
	t.v4, t.v6 = newSlots4(t.memory4.entries, &h4), newSlots6(t.memory6.entries, &h6)
	t.room = newWaitingRoom(&t.v6)
	return t, nil
}

func (t *hostTable) mapMemory() (err error) {
	if t.memory4, err = mapArray[datapathBucket](t.maps.Buckets4); err != nil {
		return err
	}
	t.memory6, err = mapArray[datapathBucket6](t.maps.Buckets6)
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
	return err
}

func (t *hostTable) family(k *hostKey) *slots {
	if k.v6 {
		return &t.v6
	}
	return &t.v4
}

func (t *hostTable) get(k *hostKey) uint32 {
	s := t.family(k)
	if f := s.scan(k, s.place(k)); f.hits > 0 {
		return s.value(f.hit[0])
	}
	if w := t.waiting[*k]; w != nil {
		return t.v6.value(w.slot)
	}
	return 0
}

// put inserts or replaces. On any error nothing has changed.
func (t *hostTable) put(k *hostKey, value uint32) error {
	s := t.family(k)
	return t.putAt(s, k, s.place(k), value)
}

func (t *hostTable) putAt(s *slots, k *hostKey, p place, value uint32) error {
	err := t.putSlot(s, k, p, value)
	if err == nil && inFront(k) {
		s.putFront(k, value)
	}
	return err
}

func (t *hostTable) putSlot(s *slots, k *hostKey, p place, value uint32) error {
	f := s.scan(k, p)
	w := t.waiting[*k]
	if f.hits > 0 || w != nil {
		t.replace(s, &f, w, value)
		return nil
	}
	at := s.choose(&f)
	if at < 0 {
		return t.wait(k, value)
	}
	s.write(at, k, p.tag, value)
	s.hosts++
	return nil
}

// replace writes every copy there is.
func (t *hostTable) replace(s *slots, f *scan, w *waiter, value uint32) {
	for _, at := range f.hit[:f.hits] {
		s.setValue(at, value)
	}
	if w != nil {
		t.v6.setValue(w.slot, value)
	}
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
		s.removeFront(k)
	}
	for _, at := range f.hit[:f.hits] {
		s.clear(at)
	}
	if w != nil {
		t.leave(w)
	}
	s.hosts--
	t.retry = len(t.waiting) > 0
	return true
}

// each calls yield for every host once until it returns false.
func (t *hostTable) each(yield func(k hostKey, value uint32) bool) bool {
	for _, s := range []*slots{&t.v4, &t.v6} {
		if !t.eachSlot(s, 0, s.buckets, yield) {
			return false
		}
	}
	return t.eachWaiting(yield)
}

// eachSlot goes over buckets from..to-1. Where a host has two copies, readers' first one counts.
func (t *hostTable) eachSlot(s *slots, from, to uint32, yield func(k hostKey, value uint32) bool) bool {
	for at := range s.in(from, to) {
		if !s.taken(at) {
			continue
		}
		k, _ := s.key(at)
		if s.busy[at] != nil {
			if f := s.scan(&k, s.place(&k)); f.hit[0] != at {
				continue
			}
		}
		if !yield(k, s.value(at)) {
			return false
		}
	}
	return true
}

func (t *hostTable) eachWaiting(yield func(k hostKey, value uint32) bool) bool {
	for k, w := range t.waiting {
		if !w.placed && !yield(k, t.v6.value(w.slot)) {
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
