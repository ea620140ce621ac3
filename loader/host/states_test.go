package host

import (
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"roam/loader/route"
)

// state is what roamctl says a host is doing, but for what only the RIB knows: held and sticky.
func (m *model) stateOf(addr string) string {
	key := hostKey(1, netip.MustParseAddr(addr))
	doing, _ := m.Doing(key)
	_, here := m.claims[key]
	_, away := m.away[key]
	switch {
	case doing != Settled:
		return string(doing)
	case here:
		return "here"
	case away:
		return "away"
	}
	return "unknown"
}

func statesSegment() Segment {
	seg := frozenSegment()
	seg.Probe = Probe{Interval: time.Second, Lost: 3}
	return seg
}

// prepare brings a host into a state.
var prepare = map[string]func(m *model, addr string){
	"unknown":  func(*model, string) {},
	"learning": func(m *model, addr string) { m.shows(addr, macA, SignClaim) },
	"here": func(m *model, addr string) {
		m.alive[answer{m.entry(addr), macA}] = true
		m.found(addr, macA)
		m.pass(time.Minute)
	},
	"probing": func(m *model, addr string) {
		m.found(addr, macA)
		m.pass(2500 * time.Millisecond)
	},
	"conflict": func(m *model, addr string) {
		m.found(addr, macA)
		m.shows(addr, macB, SignClaim)
	},
	"leaving": func(m *model, addr string) {
		m.found(addr, macA)
		m.elsewhere(addr, macB, 1)
	},
	"away": func(m *model, addr string) { m.elsewhere(addr, macB, 1) },
	"frozen": func(m *model, addr string) {
		for range 2 {
			m.found(addr, macA)
			m.leaves(addr, macA)
		}
		m.found(addr, macA)
	},
}

// events are what happens to a host, in the words of the manual.
var events = map[string]func(m *model, addr string){
	"it shows itself":            func(m *model, addr string) { m.shows(addr, macA, SignClaim) },
	"it answers":                 func(m *model, addr string) { m.found(addr, macA) },
	"it answers, once too often": func(m *model, addr string) { m.moves(addr, 3); m.found(addr, macA) },
	"it does not answer": func(m *model, _ string) {
		for range hintTicks {
			m.askHints()
		}
	},
	"two questions stay open":  func(m *model, addr string) { m.die(addr); m.pass(2500 * time.Millisecond) },
	"lost questions stay open": func(m *model, addr string) { m.die(addr); m.pass(3 * time.Second) },
	"it answers a question": func(m *model, addr string) {
		m.alive[answer{m.entry(addr), macA}] = true
		m.pass(1500 * time.Millisecond)
	},
	"another station claims it": func(m *model, addr string) { m.shows(addr, macB, SignClaim) },
	"another site claims it":    func(m *model, addr string) { m.elsewhere(addr, macB, 1) },
	"the holder answers":        (*model).holderAnswers,
	"the holder is silent":      func(m *model, _ string) { m.pass(verdict) },
	"the other site withdraws":  func(m *model, addr string) { delete(m.away, hostKey(1, netip.MustParseAddr(addr))) },
	"10 s pass after that": func(m *model, addr string) {
		m.holderAnswers(addr)
		m.pass(quarantineTime)
	},
	"recover passes, or a clear": func(m *model, _ string) { m.pass(10 * time.Minute) },
}

func (m *model) holderAnswers(addr string) {
	m.questions = append(m.questions, answer{m.entry(addr), macA})
	m.alive[answer{m.entry(addr), macA}] = true
	m.pass(0)
	m.pass(verdict)
}

func (m *model) die(addr string) { delete(m.alive, answer{m.entry(addr), macA}) }

// moves makes the freezer believe that a host has moved so often.
func (m *model) moves(addr string, n int) {
	for i := range n {
		m.freezer.moved(Freeze{Moves: 100, Window: time.Minute}, Frozen{Key: hostKey(1, netip.MustParseAddr(addr))}, place{route.MAC{4, byte(i)}}, m.clock)
	}
}

// The manual's table is the state machine: each of its lines is played, and no state and no event is missing in it.
func TestStateMachine(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "mobility.md"))
	if err != nil {
		t.Fatal(err)
	}
	seen, happened := map[string]bool{"held": true, "sticky": true}, map[string]bool{}
	lines := regexp.MustCompile(`(?m)^\| ([a-z]+) \| ([^|]+) \| ([a-z]+) \|`).FindAllStringSubmatch(string(text), -1)
	for _, line := range lines[1:] { // the first is its head
		from, event, to := line[1], line[2], line[3]
		if prepare[from] == nil || events[event] == nil {
			t.Errorf("no state %q or no event %q", from, event)
			continue
		}
		seen[from], happened[event] = true, true
		for _, addr := range bothFamilies {
			m := newModel(t, statesSegment())
			prepare[from](m, addr)
			if got := m.stateOf(addr); got != from {
				t.Errorf("%s is %s, to begin with", from, got)
			}
			events[event](m, addr)
			if got := m.stateOf(addr); got != to {
				t.Errorf("%s, %s: %s becomes %s, want %s", addr, event, from, got, to)
			}
		}
	}
	for _, missing := range [][2]int{{len(seen) - 2, len(prepare)}, {len(happened), len(events)}} {
		if missing[0] != missing[1] {
			t.Errorf("the manual has %v and %v", slices.Sorted(maps.Keys(seen)), slices.Sorted(maps.Keys(happened)))
		}
	}
}

// walk checks a source at each step of a random story.
type walk struct {
	*model
	t *rapid.T
}

var walkers = []string{"10.1.0.7", "10.1.0.8", "2001:db8:1::7"}

func (w *walk) host() string           { return rapid.SampledFrom(walkers).Draw(w.t, "host") }
func (w *walk) mac() route.MAC         { return rapid.SampledFrom([]route.MAC{macA, macB}).Draw(w.t, "mac") }
func (w *walk) key(a string) route.Key { return hostKey(1, netip.MustParseAddr(a)) }

// step lets something happen, and compares before and after: a holder that answers is not robbed by another station.
func (w *walk) step(f func()) func(*rapid.T) {
	return func(t *rapid.T) {
		w.t, w.tb = t, t
		before := maps.Clone(w.claims)
		f()
		for key, c := range w.claims {
			was, held := before[key]
			e := entry{modelLink, key.Prefix.Addr()}
			if held && was.MAC != c.MAC && w.Source.contests[e] == nil && w.model.alive[answer{e, was.MAC}] {
				t.Fatalf("%s was taken from %s, which answers", e.addr, was.MAC)
			}
		}
	}
}

// check is what holds at all times.
func (w *walk) check(t *rapid.T) {
	claimed := 0
	stations := make(map[station]int)
	for e, told := range w.Source.told {
		stations[told.station]++
		c, ok := w.claims[told.key]
		if !ok || c.MAC != told.mac || c.Sequence != told.sequence {
			t.Fatalf("%s: told %+v, claimed %+v", e.addr, told, c)
		}
		claimed++
		if d, away := w.away[told.key]; away && w.contests[e] == nil {
			t.Fatalf("%s is here with %d and at another site with %d, and nothing decides", e.addr, c.Sequence, d.Sequence)
		}
		if w.watches.of[e] == nil {
			t.Fatalf("nobody asks whether %s is still here", e.addr)
		}
	}
	if claimed != len(w.claims) || len(stations) != len(w.stations) || len(w.watches.of) != len(w.watches.queue) {
		t.Fatalf("%d told, %d claimed; %v, %v; %d and %d watched",
			claimed, len(w.claims), stations, w.stations, len(w.watches.of), len(w.watches.queue))
	}
	for st, n := range stations {
		if p := w.stations[st]; p.addresses != n || w.seen[st] != (p.addresses > p.suspended) {
			t.Fatalf("%v has %d addresses, not %d", st, n, w.stations[st].addresses)
		}
	}
	for _, z := range w.freezer.all() {
		if c, ok := w.claims[z.Key]; ok && !(z.Here && z.MAC == c.MAC) {
			t.Fatalf("%s is frozen as %+v, and claimed for %s", z.Key, z, c.MAC)
		}
	}
}

// However hosts, claimants, sites and time come together: what is claimed is what was told, a host that answers is not robbed, a frozen one
// does not move, and in the end everything comes to rest.
func TestRandomWalk(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &walk{t: t, model: newModel(t, statesSegment())}
		t.Repeat(map[string]func(*rapid.T){
			"":          w.check,
			"found":     w.step(func() { w.found(w.host(), w.mac()) }),
			"gone":      w.step(func() { w.gone(w.host()) }),
			"shows":     w.step(func() { w.shows(w.host(), w.mac(), SignKind(rapid.IntRange(0, 2).Draw(w.t, "kind"))) }),
			"arrives":   w.step(func() { w.heed(Sign{Kind: SignRARP, Tenant: 1, Link: "lan0", MAC: w.mac()}) }),
			"wanted":    w.step(func() { w.search(Sign{Tenant: 1, Addr: netip.MustParseAddr(w.host())}) }),
			"elsewhere": w.step(func() { w.takes(w.host(), w.mac()) }),
			"withdrawn": w.step(func() { delete(w.away, w.key(w.host())) }),
			"born": w.step(func() {
				addr, mac := w.host(), w.mac()
				w.model.alive[answer{w.entry(addr), mac}] = true
				w.shows(addr, mac, SignClaim)
				w.answers()
			}),
			"dies":  w.step(func() { delete(w.model.alive, answer{w.entry(w.host()), w.mac()}) }),
			"clear": w.step(func() { w.Clear(w.key(w.host())); w.take(w.attend()) }),
			"tick":  w.step(func() { w.askAgain(); w.askHints() }),
			"pass":  w.step(func() { w.pass(time.Duration(rapid.IntRange(0, 1500).Draw(w.t, "ms")) * time.Millisecond) }),
			"wait":  w.step(func() { w.pass(11 * time.Minute) }),
		})
		w.pass(time.Hour)
		w.pass(time.Hour)
		w.check(t)
		frozen := w.freezer.all()
		if len(w.contests)+len(w.quarantines)+len(w.young)+len(w.leaving)+len(w.suspended)+len(frozen)+len(w.freezer.moves) != 0 {
			t.Fatalf("no rest: contests %v, quarantines %v, young %v, leaving %v, frozen %v, moves %v",
				w.contests, w.quarantines, w.young, w.leaving, frozen, w.freezer.moves)
		}
	})
}

// takes has the other site announce a host with a sequence that wins.
func (w *walk) takes(addr string, mac route.MAC) {
	sequence := max(w.claims[w.key(addr)].Sequence, w.away[w.key(addr)].Sequence)
	w.elsewhere(addr, mac, sequence+1)
}
