package host

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"roam/loader/route"
)

var macA, macB = route.MAC{2, 0, 0, 0, 0, 0xa}, route.MAC{2, 0, 0, 0, 0, 0xb}

func frozenSegment() Segment {
	seg := segment()
	seg.Freeze = Freeze{Moves: 3, Window: time.Minute, Recover: 10 * time.Minute}
	return seg
}

var bothFamilies = []string{"10.1.0.7", "2001:db8:1::7"}

// A host that moves between two sites once too often is refused here, and stays where it was until it recovers.
func TestFreezeBetweenSites(t *testing.T) {
	for _, addr := range bothFamilies {
		m := newModel(t, frozenSegment())
		e := entry{modelLink, netip.MustParseAddr(addr)}
		m.found(addr, macA)
		m.leaves(addr, macA) // 1
		m.has(addr, route.MAC{})
		m.found(addr, macA) // 2
		m.has(addr, macA)
		m.leaves(addr, macA) // 3
		m.found(addr, macA)  // one too many
		m.has(addr, route.MAC{})
		if _, kept := m.table[e]; kept || !slices.Equal(m.kinds(), []NoticeKind{NoticeFrozen}) {
			t.Errorf("kernel keeps the refused claimant: %v", kept)
		}
		asked := len(m.asked)
		m.confirm(Sign{Tenant: 1, Link: "lan0", MAC: macA, Addr: e.addr})
		m.found(addr, macA)
		m.has(addr, route.MAC{})
		if st := m.Status(); len(m.asked) != asked || len(m.kinds()) != 0 || st.Frozen != 1 || st.Claims[OutcomeFrozen] != 3 {
			t.Errorf("asked %d times more, %+v", len(m.asked)-asked, st)
		}
		if doing, z := m.Doing(hostKey(1, e.addr)); doing != IsFrozen || z.Here || z.Moves != 4 {
			t.Errorf("%s %+v", doing, z)
		}

		m.pass(10*time.Minute - time.Second)
		m.found(addr, macA)
		m.has(addr, route.MAC{})
		m.pass(time.Second)
		if !slices.Equal(m.kinds(), []NoticeKind{NoticeThawed}) || !slices.Contains(m.asked[asked:], e) {
			t.Errorf("a host that has recovered is not looked for: %v", m.asked[asked:])
		}
		m.found(addr, macA)
		m.has(addr, macA)
	}
}

// A host whose MAC has another address that was quicker is withdrawn at the other site before it is found here: it has moved all the same.
func TestFreezeOfAStation(t *testing.T) {
	for _, addr := range bothFamilies {
		m := newModel(t, frozenSegment())
		m.found(addr, macA)
		for range 2 {
			m.leaves(addr, macA)
			m.has(addr, route.MAC{})
			clear(m.away)
			m.found(addr, macA)
		}
		if !slices.Equal(m.kinds(), []NoticeKind{NoticeFrozen}) {
			t.Errorf("%s: four moves froze nobody", addr)
		}
	}
}

// Moves that are spread over more than the window freeze nobody, and a limit of none never does.
func TestNotFrozen(t *testing.T) {
	slow := newModel(t, frozenSegment())
	never := newModel(t, segment())
	slow.found("10.1.0.7", macA)
	never.found("10.1.0.7", macA)
	for range 20 {
		slow.leaves("10.1.0.7", macA)
		never.leaves("10.1.0.7", macA)
		slow.pass(20 * time.Second)
		slow.found("10.1.0.7", macA)
		never.found("10.1.0.7", macA)
		slow.has("10.1.0.7", macA)
		never.has("10.1.0.7", macA)
		slow.pass(20 * time.Second)
	}
	for range 1000 { // the same again is no move
		slow.found("10.1.0.7", macA)
	}
	slow.pass(time.Hour)
	if len(slow.freezer.moves) != 0 {
		t.Error("moves of an hour ago are kept")
	}
	// A host that is found again and again before the other site has let go has moved once.
	for range 20 {
		slow.leaves("10.1.0.7", macA)
		for range 20 {
			slow.found("10.1.0.7", macA)
			away := decision("10.1.0.7", true, false)
			away.Sequence = 1
			slow.gone("10.1.0.7")
			slow.away[away.Key] = away
		}
		slow.found("10.1.0.7", macA)
		slow.has("10.1.0.7", macA)
		slow.pass(time.Hour)
	}
	// Somebody who moves it by hand is not told to stop.
	for range 20 {
		if err := slow.Apply(t.Context(), []route.Decision{decision("10.1.0.7", true, false)}); err != nil {
			t.Fatal(err)
		}
		slow.take(slow.attend())
		slow.has("10.1.0.7", route.MAC{})
		slow.found("10.1.0.7", macA)
		slow.has("10.1.0.7", macA)
	}
}

// Which hosts are frozen, and where, outlives the daemon; a clear does, too.
func TestFreezeOutlivesRestart(t *testing.T) {
	m := newModel(t, frozenSegment())
	state := filepath.Join(t.TempDir(), "new", "frozen")
	m.start(frozenSegment(), state)
	for _, addr := range bothFamilies {
		m.found(addr, macA)
		m.leaves(addr, macA)
		m.found(addr, macA)
		m.leaves(addr, macA)
		m.found(addr, macA)
		m.keep()
	}
	m.start(frozenSegment(), state)
	for _, addr := range bothFamilies {
		m.found(addr, macA)
		m.has(addr, route.MAC{})
	}
	if n := m.Status().Frozen; n != 2 {
		t.Fatalf("%d frozen after a restart", n)
	}
	key := hostKey(1, netip.MustParseAddr(bothFamilies[1]))
	if !m.Clear(key) || m.Clear(key) {
		t.Error("what was cleared is not what was frozen")
	}
	m.take(m.attend())
	m.keep()
	m.start(frozenSegment(), state)
	m.found(bothFamilies[0], macA)
	m.has(bothFamilies[0], route.MAC{})
	m.found(bothFamilies[1], macA)
	m.has(bothFamilies[1], macA)

	text, err := os.ReadFile(state)
	if err != nil || strings.Count(string(text), "\n") != 1 {
		t.Errorf("%s, %v", text, err)
	}
	for _, bad := range []string{"nonsense", `{"address":"10.1.0.7","tenant":"one","mac":"x"}`, `{"tenant":"one"}`} {
		if err := os.WriteFile(state, append(text, bad+"\n"...), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := newFreezer().load(state, m); err == nil || !strings.Contains(err.Error(), state+":2: ") {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

// Two stations that take an address from each other are a flapping host as well: the one that had it keeps it.
func TestFreezeOnOneSegment(t *testing.T) {
	for _, addr := range bothFamilies {
		m := newModel(t, frozenSegment())
		e := entry{modelLink, netip.MustParseAddr(addr)}
		for i := range 4 {
			mac := []route.MAC{macA, macB}[i%2]
			m.found(addr, mac)
			m.pass(verdict) // the other one is silent
			m.has(addr, mac)
		}
		m.found(addr, macA)
		m.pass(verdict)
		m.has(addr, macB)
		if m.table[e] != macB {
			t.Errorf("the kernel has %s", m.table[e])
		}
		if doing, z := m.Doing(hostKey(1, e.addr)); doing != IsFrozen || !z.Here || z.MAC != macB {
			t.Errorf("%s %+v", doing, z)
		}
		m.gone(addr) // and when it comes back, it is where it was
		m.has(addr, route.MAC{})
		m.found(addr, macA)
		m.has(addr, route.MAC{})
		m.found(addr, macB)
		m.has(addr, macB)
	}
}

// Many hosts that move at once are a site that fails over: what is remembered of them stays bounded.
func TestManyMovers(t *testing.T) {
	f := newFreezer()
	limit := Freeze{Moves: 3, Window: time.Minute}
	flapping := hostKey(1, netip.MustParseAddr("10.1.0.7"))
	a, now := netip.MustParseAddr("10.2.0.0"), time.Unix(1e9, 0)
	f.moved(limit, Frozen{Key: flapping}, place{}, now)
	f.moved(limit, Frozen{Key: flapping}, place{macA}, now)
	for range 3 * maxMovers {
		f.moved(limit, Frozen{Key: hostKey(1, a)}, place{}, now)
		a = a.Next()
	}
	if len(f.moves) > maxMovers || len(f.moves[flapping].at) != 2 {
		t.Errorf("%d are remembered, of the one that flaps %v", len(f.moves), f.moves[flapping])
	}
}
