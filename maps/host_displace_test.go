package maps

import "testing"

// TestHostsDisplacement follows one displacement from grace period to grace period: at each moment every host
// must be where a reader finds it that began a grace period ago.
func TestHostsDisplacement(t *testing.T) {
	g := newGrace(t)
	for _, v6 := range []bool{false, true} {
		m, h := createHosts(t, g, 1000)
		twin := make(map[host]uint32)
		for i := 0; h.Waiting() == 0; i++ {
			k := testHost(v6, i)
			twin[k] = uint32(i + 1)
			mustPut(t, h, k, twin[k])
		}
		if len(h.cur.started) != 1 {
			t.Fatalf("%d displacements have begun", len(h.cur.started))
		}
		w := h.cur.started[0]
		s := h.cur.family(&w.key)
		for step := 0; ; step++ {
			compare(t, h, m, twin)
			if newReader(t, m).overflow(&w.key) != h.cur.get(&w.key) {
				t.Fatalf("step %d: the overflow no longer holds the waiting host", step)
			}
			last, at := w.path[w.at], w.at
			cleared := s.word[last] == vacated // where IPv6 hosts were, who is next waits for another grace period
			if !w.placed && !cleared {         // path[at] was copied to path[at+1], and readers may need both
				one, _ := s.key(last)
				two, _ := s.key(w.path[at+1])
				if !s.taken(last) || one != two || s.value(last) != s.value(w.path[at+1]) {
					t.Fatalf("step %d: slots %x and %x should hold the same host", step, s.word[last], s.word[w.path[at+1]])
				}
			}
			beside := [2]uint64{}
			if v6 {
				beside = *s.address(last)
			}
			if !h.rest() {
				t.Fatal("nothing waits for a grace period")
			}
			before := s.word[last]
			compare(t, h, m, twin)
			if s.word[last] != before || v6 && *s.address(last) != beside {
				t.Fatalf("step %d: a slot was overwritten before the grace period", step)
			}
			if err := g.Wait(); err != nil {
				t.Fatal(err)
			}
			if err := h.ripen(); err != nil {
				t.Fatal(err)
			}
			if h.Waiting() == 0 {
				periods := len(w.path) // one for each host that moves over, one for the overflow
				if v6 {
					periods += len(w.path) - 1 // and one for each slot that was left
				}
				if step+1 != periods {
					t.Fatalf("%d grace periods for a chain of %d positions", step+1, len(w.path))
				}
				break
			}
		}
		mustSettle(t, h)
		checkSettled(t, h)
		compare(t, h, m, twin)
	}
}

// TestHostsDisplacementDisturbed deletes or moves each host that a displacement has to do with, at each of its steps.
func TestHostsDisplacementDisturbed(t *testing.T) {
	r := seeded(t)
	g := newGrace(t)
	for _, v6 := range []bool{false, true} {
		longest := 0
		for round := range 60 {
			m, h := createHosts(t, g, 100)
			twin := make(map[host]uint32)
			s := &h.cur.v4
			if v6 {
				s = &h.cur.v6
			}
			for i := 0; len(twin) < s.room()*95/100 || h.Waiting() == 0; i++ {
				k := testHost(v6, round*1000+i)
				twin[k] = 1 + r.Uint32N(maxValue)
				mustPut(t, h, k, twin[k])
			}
			for h.Pending() > 0 {
				for _, w := range append(h.cur.started, h.cur.resting...) {
					longest = max(longest, len(w.path))
					victim := w.key
					if at := w.path[r.IntN(len(w.path))]; s.taken(at) && r.IntN(4) > 0 {
						victim, _ = s.key(at)
					}
					k := host{uint16(victim.space), victim.addr()}
					switch _, there := twin[k]; {
					case !there:
					case r.IntN(2) == 0:
						twin[k] = 1 + r.Uint32N(maxValue)
						mustPut(t, h, k, twin[k])
					default:
						delete(twin, k)
						if !h.Delete(k.space, k.addr) {
							t.Fatalf("Delete(%v) found nothing", k)
						}
						if r.IntN(2) == 0 { // and it comes back at once
							twin[k] = 1 + r.Uint32N(maxValue)
							mustPut(t, h, k, twin[k])
						}
					}
				}
				compare(t, h, m, twin)
				h.rest()
				if err := g.Wait(); err != nil {
					t.Fatal(err)
				}
				if err := h.ripen(); err != nil {
					t.Fatal(err)
				}
				compare(t, h, m, twin)
			}
			checkSettled(t, h)
			_ = h.Close()
			_ = m.Close()
		}
		if longest < 3 {
			t.Errorf("the longest displacement had %d positions: this tested little", longest)
		}
	}
}

// TestHostsAddressKept sees that a deleted host's address stays as it is while a reader may be looking at it: in the buckets, in front and
// in the waiting room.
func TestHostsAddressKept(t *testing.T) {
	g := newGrace(t)
	_, h := createHosts(t, g, 10)
	s := &h.cur.v6
	i := 0
	come := func() {
		for range 2 * s.room() { // of two hosts, one is the gateway's own
			mustPut(t, h, host{SpaceLocator, testHost(true, 4*i).addr}, 2)
			mustPut(t, h, testHost(true, 4*i), 2)
			i++
		}
	}
	come()
	var at []int
	var was [][2]uint64
	for i := range s.word {
		if i%s.stride < s.size && s.word[i]>>spaceShift == uint64(SpaceLocator) {
			at, was = append(at, i), append(was, *s.address(i))
		}
	}
	if len(at) < 2*s.room() {
		t.Fatalf("only %d slots hold hosts", len(at))
	}
	for j := range i {
		h.Delete(SpaceLocator, testHost(true, 4*j).addr)
	}
	kept := func() (n int) {
		for i, at := range at {
			if *s.address(at) == was[i] {
				n++
			}
		}
		return n
	}
	come()
	h.rest()
	come()
	if n := kept(); n != len(at) {
		t.Fatalf("%d of %d slots were used again before a grace period", len(at)-n, len(at))
	}
	mustSettle(t, h)
	h.cur.room.next = 0
	come()
	if kept() == len(at) {
		t.Error("no slot was used again after a grace period")
	}
}

// TestHostsGrowWhileHostsCome has hosts come that need displacements between the chunks of a copy to a bigger table: a host that
// moved over to a slot whose chunk was copied before must not be missed.
func TestHostsGrowWhileHostsCome(t *testing.T) {
	g := newGrace(t)
	for _, v6 := range []bool{false, true} {
		_, h := createHosts(t, g, 64*fillChunk)
		twin := make(map[host]uint32)
		s := h.cur.family(&hostKey{v6: v6})
		come := func(n int) {
			for range n {
				k := testHost(v6, len(twin))
				twin[k] = uint32(len(twin) + 1)
				mustPut(t, h, k, twin[k])
			}
		}
		come(s.room() * 94 / 100)
		mustSettle(t, h)
		next, err := CreateHostMaps(128 * fillChunk)
		if err != nil {
			t.Fatal(err)
		}
		defer next.Close()
		table, err := openHostTable(next)
		if err != nil {
			t.Fatal(err)
		}
		if err := h.startGrow(table); err != nil {
			t.Fatal(err)
		}
		for from := uint32(0); from < s.buckets; from += fillChunk {
			err := h.copyWith(func(yield func(hostKey, uint32) bool) {
				h.cur.eachSlot(s, from, min(from+fillChunk, s.buckets), yield)
			})
			if err != nil {
				t.Fatal(err)
			}
			come(50)
		}
		if err := h.copyWith(func(yield func(hostKey, uint32) bool) { h.cur.eachWaiting(yield) }); err != nil {
			t.Fatal(err)
		}
		lost := 0
		for k, value := range twin {
			key, err := newHostKey(k.space, k.addr)
			if err != nil {
				t.Fatal(err)
			}
			if table.get(&key) != value {
				lost++
			}
		}
		if lost > 0 || h.Waiting() == 0 {
			t.Errorf("IPv6 %v: %d of %d hosts are not in the bigger table; %d waited meanwhile", v6, lost, len(twin), h.Waiting())
		}
		h.endFill()
		mustSettle(t, h)
		if err := h.AbortGrow(); err != nil {
			t.Fatal(err)
		}
	}
}
