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
			if !w.placed { // path[at] was copied to path[at+1], and readers may need both
				if s.word[last] == 0 || s.word[last] != s.word[w.path[at+1]] {
					t.Fatalf("step %d: slots %x and %x should hold the same host", step, s.word[last], s.word[w.path[at+1]])
				}
			}
			if !h.rest() {
				t.Fatal("nothing waits for a grace period")
			}
			before := s.word[last]
			compare(t, h, m, twin)
			if s.word[last] != before {
				t.Fatalf("step %d: a slot was overwritten before the grace period", step)
			}
			if err := g.Wait(); err != nil {
				t.Fatal(err)
			}
			if err := h.ripen(); err != nil {
				t.Fatal(err)
			}
			if h.Waiting() == 0 {
				if step+1 != len(w.path) { // one for each host that moves over, one for the overflow
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
			for i := 0; len(twin) < len(s.word)*95/100 || h.Waiting() == 0; i++ {
				k := testHost(v6, round*1000+i)
				twin[k] = 1 + r.Uint32N(maxValue)
				mustPut(t, h, k, twin[k])
			}
			for h.Pending() > 0 {
				for _, w := range append(h.cur.started, h.cur.resting...) {
					longest = max(longest, len(w.path))
					victim := w.key
					if at := w.path[r.IntN(len(w.path))]; s.word[at] != 0 && r.IntN(4) > 0 {
						victim, _ = s.key(s.word[at])
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

// TestHostsRecordKept sees that a deleted host's record stays as it is while a reader may be looking at it.
func TestHostsRecordKept(t *testing.T) {
	g := newGrace(t)
	_, h := createHosts(t, g, 100)
	k := testHost(true, 0)
	mustPut(t, h, k, 1)
	key, _ := newHostKey(k.space, k.addr)
	s := &h.cur.v6
	f := s.scan(&key, s.place(&key))
	rec := s.low(s.word[f.hit[0]])
	h.Delete(k.space, k.addr)
	kept := func() bool { return h.cur.records.is(rec, &key) && h.cur.records.value(rec) == 1 }
	for i := 1; i < 10; i++ {
		mustPut(t, h, testHost(true, i), 2)
	}
	h.rest()
	for i := 10; i < 20; i++ {
		mustPut(t, h, testHost(true, i), 2)
	}
	if !kept() {
		t.Fatal("the record was used again before a grace period")
	}
	mustSettle(t, h)
	for i := 20; i < 30; i++ {
		mustPut(t, h, testHost(true, i), 2)
	}
	if kept() {
		t.Error("the record was not used again after a grace period")
	}
}

// TestHostsGrowWhileHostsCome has hosts come that need displacements between the chunks of a copy to a bigger table: a host that
// moved over to a slot whose chunk was copied before must not be missed.
func TestHostsGrowWhileHostsCome(t *testing.T) {
	g := newGrace(t)
	for _, v6 := range []bool{false, true} {
		_, h := createHosts(t, g, 8*fillChunk)
		twin := make(map[host]uint32)
		s := h.cur.family(&hostKey{v6: v6})
		come := func(n int) {
			for range n {
				k := testHost(v6, len(twin))
				twin[k] = uint32(len(twin) + 1)
				mustPut(t, h, k, twin[k])
			}
		}
		come(len(s.word) * 94 / 100)
		mustSettle(t, h)
		next, err := CreateHostMaps(16 * fillChunk)
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
		for from := 0; from < len(s.word); from += fillChunk {
			err := h.copyWith(func(yield func(hostKey, uint32) bool) {
				h.cur.eachSlot(s, from, min(from+fillChunk, len(s.word)), yield)
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
