package host

import (
	"net/netip"
	"os/exec"
	"slices"
	"testing"
	"time"

	"roam/loader/route"
)

func (m *model) entry(addr string) entry { return entry{modelLink, netip.MustParseAddr(addr)} }

func (m *model) shows(addr string, mac route.MAC, kind SignKind) {
	m.confirm(Sign{Kind: kind, Tenant: 1, Link: "lan0", MAC: mac, Addr: netip.MustParseAddr(addr)})
}

func (m *model) outcome(o Outcome) uint64 { return m.Status().Claims[o] }

// Whoever claims the address of a host that answers gets nothing, however often: the holder is asked twice a second at most, and one event
// tells of it. It makes no difference whether the kernel believed the claimant.
func TestHolderAnswers(t *testing.T) {
	for _, addr := range bothFamilies {
		for name, claim := range map[string]func(*model){
			"kernel": func(m *model) { m.found(addr, macB) },
			"sign":   func(m *model) { m.shows(addr, macB, SignClaim) },
		} {
			m := newModel(t, frozenSegment())
			e := m.entry(addr)
			m.alive[answer{e, macA}], m.alive[answer{e, macB}] = true, true
			m.found(addr, macA)
			asked := 0
			for range 1000 {
				claim(m)
				asked += len(m.questions)
				m.has(addr, macA)
				m.pass(10 * time.Millisecond)
			}
			m.pass(contestRest)
			m.pass(0)
			m.has(addr, macA)
			if kinds := m.kinds(); m.table[e] != macA || asked > 21 || asked < 15 || !slices.Equal(kinds, []NoticeKind{NoticeConflict}) {
				t.Errorf("%s %s: asked %d times, the kernel has %s, told %v", addr, name, asked, m.table[e], kinds)
			}
			if doing, _ := m.Doing(hostKey(1, e.addr)); doing != InConflict || m.outcome(OutcomeKept) < 15 {
				t.Errorf("%s %s: %q, %+v", addr, name, doing, m.Status())
			}
			m.pass(quarantineTime)
			if doing, _ := m.Doing(hostKey(1, e.addr)); doing != Settled || len(m.contests) != 0 {
				t.Errorf("%s %s: %q ten seconds later", addr, name, doing)
			}
		}
	}
}

// The address of a host that is silent goes to who claims it, a fifth of a second later; a proxy that answers for it changes nothing,
// nor does the claimant's own answer.
func TestHolderIsSilent(t *testing.T) {
	for _, addr := range bothFamilies {
		m := newModel(t, frozenSegment())
		e := m.entry(addr)
		m.alive[answer{e, macB}] = true
		m.found(addr, macA)
		m.shows(addr, macB, SignClaim)
		m.take(m.hear(heard{answer: answer{e, route.MAC{2, 9}}, at: m.clock}))
		m.take(m.hear(heard{answer: answer{e, macB}, at: m.clock}))
		m.take(m.hear(heard{answer: answer{e, macA}, at: m.clock.Add(-time.Millisecond)}))
		m.pass(verdict - time.Millisecond)
		m.has(addr, macA)
		m.pass(time.Millisecond)
		m.has(addr, macB)
		c := m.claims[hostKey(1, e.addr)]
		if kinds := m.kinds(); c.Sequence != 1 || m.table[e] != macB || !slices.Equal(kinds, []NoticeKind{NoticeFailover}) || m.outcome(OutcomeFailover) != 1 {
			t.Errorf("%+v, the kernel has %s, told %v", c, m.table[e], kinds)
		}

		// One that answers a liar and dies then loses the address all the same.
		m.found(addr, macA)
		m.pass(0)
		m.has(addr, macB)
		delete(m.alive, answer{e, macB})
		m.found(addr, macA)
		m.pass(contestRest)
		m.pass(verdict)
		m.has(addr, macA)
	}
}

// Who sends with an address that another site announces for another station claims nothing; the same station may have moved, and of one whose MAC
// is not told nobody knows.
func TestDataOfAnother(t *testing.T) {
	for _, addr := range bothFamilies {
		for name, test := range map[string]struct {
			holder route.MAC
			kind   SignKind
			asks   bool
		}{
			"data of another":       {macA, SignData, false},
			"a claim of another":    {macA, SignClaim, true},
			"data of the station":   {macB, SignData, true},
			"nobody knows whose":    {route.MAC{}, SignData, true},
			"a search of another":   {macA, SignProbe, true},
			"a claim of the same":   {macB, SignClaim, true},
			"a claim, of who knows": {route.MAC{}, SignClaim, true},
		} {
			m := newModel(t, segment())
			m.elsewhere(addr, test.holder, 4)
			if m.shows(addr, macB, test.kind); (len(m.asked) > 0) != test.asks {
				t.Errorf("%s, %s: asked for %v", addr, name, m.asked)
			}
			m.withdrawn(addr)
			if m.shows(addr, macB, test.kind); len(m.asked) == 0 {
				t.Errorf("%s, %s: nobody is asked when nobody has it", addr, name)
			}
		}
	}
}

// Who probes whether an address is free claims nothing, nor does who sends for somebody else; and where nobody can be asked, the kernel
// is believed.
func TestNoContest(t *testing.T) {
	m := newModel(t, frozenSegment())
	m.found("10.1.0.7", macA)
	for _, kind := range []SignKind{SignProbe, SignData} {
		m.shows("10.1.0.7", macB, kind)
	}
	m.shows("10.1.0.7", macA, SignClaim)
	if len(m.contests) != 0 || len(m.questions) != 0 {
		t.Errorf("%d contests", len(m.contests))
	}
	m.mute = true
	m.shows("10.1.0.7", macB, SignClaim)
	m.has("10.1.0.7", macA)
	m.found("10.1.0.7", macB)
	m.has("10.1.0.7", macB)
	m.leaves("10.1.0.7", macA)
	m.has("10.1.0.7", route.MAC{})
}

// A host that came back at once answers for one of its addresses first: with it, all of them are here.
func TestContestOfAStation(t *testing.T) {
	m := newModel(t, frozenSegment())
	for _, addr := range bothFamilies {
		m.found(addr, macA)
	}
	m.pass(time.Minute)
	for _, addr := range bothFamilies {
		m.elsewhere(addr, macA, 1)
	}
	m.alive[answer{m.entry(bothFamilies[0]), macA}] = true
	m.pass(verdict)
	for _, addr := range bothFamilies {
		m.has(addr, macA)
		if c := m.claims[hostKey(1, m.entry(addr).addr)]; c.Sequence != 2 {
			t.Errorf("%s is claimed with %d", addr, c.Sequence)
		}
	}
	if !m.seen[station{3, macA}] {
		t.Error("its MAC does not count")
	}
}

// Another site's claim to a host that answers here is answered with a higher sequence; to one that does not, it is a move.
func TestContestBetweenSites(t *testing.T) {
	for _, addr := range bothFamilies {
		m := newModel(t, frozenSegment())
		e := m.entry(addr)
		m.found(addr, macA)
		m.pass(time.Minute)
		m.alive[answer{e, macA}] = true
		for sequence := uint32(1); sequence < 9; sequence += 2 {
			m.elsewhere(addr, macB, sequence)
			if m.seen[station{3, macA}] {
				t.Error("those who send to its MAC wait for the verdict")
			}
			m.pass(0)
			if !m.seen[station{3, macA}] {
				t.Error("it answered, and does not count")
			}
			m.has(addr, macA)
			if c := m.claims[hostKey(1, e.addr)]; c.Sequence != sequence+1 {
				t.Fatalf("answered with %d to %d", c.Sequence, sequence)
			}
			m.pass(contestRest)
		}
		if kinds := m.kinds(); !slices.Equal(kinds, []NoticeKind{NoticeConflict}) || m.outcome(OutcomeDefended) != 4 {
			t.Errorf("told %v, %+v", kinds, m.Status())
		}
		delete(m.alive, answer{e, macA})
		m.leaves(addr, macB)
		m.has(addr, route.MAC{})

		pinned := decision(addr, true, false)
		pinned.Source, pinned.Sequence, pinned.Pinned = "bgp", 99, true
		m.alive[answer{e, macA}] = true
		m.pass(time.Hour)
		m.away = map[route.Key]route.Decision{}
		m.found(addr, macA)
		if err := m.Apply(t.Context(), []route.Decision{pinned}); err != nil {
			t.Fatal(err)
		}
		m.take(m.attend())
		m.has(addr, route.MAC{})
	}
}

// The site whose claim is answered believes it: it lets go, and does not claim the address for that station again for a while. The same
// station back at its old place is a move.
func TestClaimIsAnswered(t *testing.T) {
	for _, addr := range bothFamilies {
		m := newModel(t, segment())
		e := m.entry(addr)
		m.alive[answer{e, macB}] = true
		m.elsewhere(addr, macA, 4)
		m.found(addr, macB)
		m.has(addr, macB)
		m.elsewhere(addr, macA, 6)
		m.has(addr, route.MAC{})
		m.answers()
		m.shows(addr, macB, SignClaim)
		m.found(addr, macB)
		m.has(addr, route.MAC{})
		m.pass(lasting)
		if !slices.Equal(m.kinds(), []NoticeKind{NoticeConflict}) ||
			m.outcome(OutcomeYielded) != 1 || m.outcome(OutcomeQuarantined) != 2 {
			t.Errorf("asked %v, %+v", m.questions, m.Status())
		}
		m.pass(quarantineTime)
		m.found(addr, macB)
		m.has(addr, macB)

		for i, mac := range []route.MAC{macB, {}} { // moved on at once, by the word of one who knows the MAC or does not, and back
			m.elsewhere(addr, mac, uint32(8+2*i))
			m.has(addr, route.MAC{})
			m.found(addr, macB)
			m.has(addr, macB)
		}
	}
}

// A machine that hands an address over answers once more while the next one announces it already, here or at another site. It is asked again, and nobody is
// told of a conflict; nor is one where the other site takes its answer back.
func TestHandedOver(t *testing.T) {
	for _, addr := range bothFamilies {
		here := newModel(t, segment())
		here.alive[answer{here.entry(addr), macA}] = true
		here.found(addr, macA)
		here.pass(time.Minute)
		here.shows(addr, macB, SignClaim)
		here.answers()
		delete(here.alive, answer{here.entry(addr), macA})
		here.has(addr, macA)
		here.pass(verdict)
		here.pass(verdict)
		here.has(addr, macB)

		away := newModel(t, segment())
		away.alive[answer{away.entry(addr), macA}] = true
		away.found(addr, macA)
		away.pass(time.Minute)
		away.elsewhere(addr, macB, 1)
		away.answers()
		delete(away.alive, answer{away.entry(addr), macA})
		if c := away.claims[hostKey(1, away.entry(addr).addr)]; c.Sequence != 2 {
			t.Errorf("answered with %+v", c)
		}
		away.pass(verdict)
		away.pass(verdict)
		away.has(addr, route.MAC{})
		away.elsewhere(addr, macB, 3)
		if want := []netip.Addr{away.entry(addr).addr}; !slices.Equal(away.moved, want) || len(here.moved) != 0 {
			t.Errorf("neighbours hear that %v moved, want %v, and that %v did", away.moved, want, here.moved)
		}

		models := map[string]*model{"here": here, "away": away}
		for _, mac := range []route.MAC{macA, macB} { // the group's, or each machine's own
			taker := newModel(t, segment())
			taker.alive[answer{taker.entry(addr), mac}] = true
			taker.elsewhere(addr, macA, 1)
			taker.found(addr, mac)
			taker.elsewhere(addr, macA, 3)
			taker.answers()
			taker.has(addr, route.MAC{})
			taker.withdrawn(addr)
			taker.asked = nil
			if err := taker.Apply(t.Context(), []route.Decision{{Claim: route.Claim{Key: hostKey(1, taker.entry(addr).addr)}, Gone: true}}); err != nil {
				t.Fatal(err)
			}
			taker.take(taker.attend())
			if len(taker.asked) != 1 {
				t.Errorf("asked for %v", taker.asked)
			}
			taker.found(addr, mac)
			taker.has(addr, mac)
			models["the next one, "+mac.String()] = taker
		}

		for name, m := range models {
			m.pass(time.Minute)
			if doing, _ := m.Doing(hostKey(1, m.entry(addr).addr)); doing != Settled || slices.Contains(m.kinds(), NoticeConflict) || len(m.contests) != 0 {
				t.Errorf("%s, %s: %q, told %v", addr, name, doing, m.kinds())
			}
		}
	}
}

// Who announces itself several times in a moment and cannot answer yet is asked once more, and not again by that.
func TestEager(t *testing.T) {
	for _, addr := range bothFamilies {
		m := newModel(t, segment())
		for range 5 {
			m.shows(addr, macA, SignClaim)
		}
		m.askEager()
		m.shows(addr, macA, SignClaim)
		m.askEager()
		if len(m.asked) != 2 {
			t.Errorf("asked for %v", m.asked)
		}
		m.found(addr, macA)
		m.shows(addr, macA, SignClaim)
		m.askEager()
		if len(m.asked) != 2 || len(m.eager) != 0 {
			t.Errorf("one that has answered is asked: %v", m.asked)
		}
	}
}

// Who has an address with a virtual router's MAC speaks with its own MAC as well: that is no conflict, unless its own MAC has the address, too.
func TestVirtualMAC(t *testing.T) {
	for _, addr := range bothFamilies {
		for _, both := range []bool{false, true} {
			m := newModel(t, segment())
			group := route.MAC{0, 0, 0x5e, 0, 2, 0x50}
			m.alive[answer{m.entry(addr), group}], m.alive[answer{m.entry(addr), macB}] = true, both
			m.found(addr, group)
			m.pass(time.Minute)
			for range 4 {
				m.shows(addr, macB, SignClaim)
				m.answers()
				m.answers()
				m.has(addr, group)
				m.pass(lasting)
			}
			if told := slices.Contains(m.kinds(), NoticeConflict); told != both || m.outcome(OutcomeYielded) != 0 {
				t.Errorf("%s: it answers %t, a conflict is told of %t, %+v", addr, both, told, m.Status())
			}
		}
	}
}

// A virtual address goes to and fro between stations of two sites within moments. Who took it and lost it again is a liar if it still has it, and has
// handed it back if it is silent: then it may have it again at once.
func TestTakenBackAtOnce(t *testing.T) {
	type step func(m *model, addr string)
	takes := func(m *model, addr string) { m.found(addr, macB); m.has(addr, macB); m.pass(100 * time.Millisecond) }
	var sequence uint32
	loses := func(m *model, addr string) {
		sequence += 2
		m.elsewhere(addr, macA, sequence)
		m.has(addr, route.MAC{})
	}
	is := func(alive bool) step {
		return func(m *model, addr string) { m.alive[answer{m.entry(addr), macB}] = alive }
	}
	wait := func(d time.Duration) step { return func(m *model, _ string) { m.pass(d) } }
	for name, test := range map[string]struct {
		steps    []step
		again    bool // it may have it after that
		yielded  uint64
		conflict bool
	}{
		"handed back":              {[]step{is(false), takes, loses, wait(verdict)}, true, 0, false},
		"handed back twice":        {[]step{is(false), takes, loses, wait(verdict), takes, loses, wait(verdict)}, true, 0, false},
		"still answers":            {[]step{is(true), takes, loses, wait(0)}, false, 1, true},
		"answers too late":         {[]step{is(false), takes, loses, wait(verdict), is(true), (*model).tells}, true, 0, false},
		"answers in time":          {[]step{is(false), takes, loses, wait(verdict / 2), is(true), (*model).tells}, false, 1, true},
		"another answers for it":   {[]step{is(false), takes, loses, (*model).proxied}, true, 0, false},
		"nobody can be asked":      {[]step{takes, func(m *model, _ string) { m.mute = true }, loses}, false, 1, true},
		"the holder is gone since": {[]step{is(true), takes, loses, wait(0), (*model).withdrawn}, true, 1, true},
	} {
		for _, addr := range bothFamilies {
			m := newModel(t, segment())
			sequence = 4
			m.elsewhere(addr, macA, sequence)
			for _, s := range test.steps {
				s(m, addr)
			}
			doing, _ := m.Doing(hostKey(1, m.entry(addr).addr))
			if m.outcome(OutcomeYielded) != test.yielded || (doing == InConflict) != test.conflict {
				t.Errorf("%s, %s: %q, %+v", name, addr, doing, m.Status())
			}
			want := route.MAC{}
			if test.again {
				want = macB
			}
			m.asked = nil
			if m.shows(addr, macB, SignClaim); (len(m.asked) > 0) != test.again {
				t.Errorf("%s, %s: asked for %v", name, addr, m.asked)
			}
			m.found(addr, macB)
			m.has(addr, want)
		}
	}
}

// tells has a station's answer arrive that it was not asked for again, proxied another station's, and withdrawn has the other site let go.
func (m *model) tells(addr string) {
	m.take(m.hear(heard{answer: answer{m.entry(addr), macB}, at: m.clock}))
}

func (m *model) proxied(addr string) {
	m.take(m.hear(heard{answer: answer{m.entry(addr), macA}, at: m.clock}))
}

func (m *model) withdrawn(addr string) {
	delete(m.away, hostKey(1, netip.MustParseAddr(addr)))
}

// A sign of a host that is about to be let go has it asked again, and looked for once it is gone.
func TestSignOfOneThatLeaves(t *testing.T) {
	m := newModel(t, frozenSegment())
	e := m.entry("10.1.0.7")
	m.found("10.1.0.7", macA)
	m.pass(time.Minute)
	m.elsewhere("10.1.0.7", macA, 1)
	m.answers() // it is on its way
	m.alive[answer{e, macA}] = true
	m.shows("10.1.0.7", macA, SignClaim)
	m.pass(0)
	m.has("10.1.0.7", macA)

	// It is asked again at once, and aloud if it shows itself.
	m.questions = nil
	m.elsewhere("10.1.0.7", macA, 3)
	if want := []answer{{e, macA}}; !slices.Equal(m.questions, want) {
		t.Errorf("asked %v", m.questions)
	}
	m.shows("10.1.0.7", macA, SignClaim)
	m.answers()
	if c := m.claims[hostKey(1, e.addr)]; c.Sequence != 4 {
		t.Errorf("%+v", c)
	}

	m.leaving[e] = struct{}{}
	m.shows("10.1.0.7", macA, SignClaim)
	asked := len(m.asked)
	m.gone("10.1.0.7")
	if len(m.asked) == asked {
		t.Error("nobody looks for it")
	}
}

// A flood of claims to more addresses than can be disputed at once gets none of them.
func TestTooManyContests(t *testing.T) {
	seg := segment()
	seg.Subnets = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	m := newModel(t, seg)
	list := make([]string, 0, maxContests+9)
	for a := netip.MustParseAddr("10.2.0.0"); len(list) < cap(list); a = a.Next() {
		list = append(list, a.String())
		m.alive[answer{m.entry(a.String()), macA}] = true
		m.found(a.String(), macA)
	}
	for _, addr := range list {
		m.found(addr, macB)
	}
	m.pass(verdict)
	for _, addr := range list {
		m.has(addr, macA)
	}
	if n := m.Status().Unheeded; n != 9 {
		t.Errorf("%d were not disputed", n)
	}
}

// A contest is about one holder, and ends with it: who comes after it is asked anew.
func TestContestEndsWithItsHolder(t *testing.T) {
	m := newModel(t, frozenSegment())
	e := m.entry("10.1.0.7")
	m.found("10.1.0.7", macB)
	m.shows("10.1.0.7", macA, SignClaim)
	m.answers() // it is dead
	m.gone("10.1.0.7")
	m.found("10.1.0.7", macB)
	m.alive[answer{e, macB}] = true
	m.pass(verdict)
	m.has("10.1.0.7", macB)
}

// The wire: a station is asked by its MAC from the gateway's own address, and only its own answer is heard.
func TestAsk(t *testing.T) {
	l := newLAN(t)
	p := &port{Segment: segment()}
	a := newAsker(New(Options{}).log)
	defer a.close()
	link := l.index("lan0")
	for _, addr := range []string{"10.1.0.7/24", "2001:db8:1::7/64"} {
		l.has(addr)
		prefix := netip.MustParsePrefix(addr)
		e := entry{link, prefix.Addr()}
		for range 3 { // to a MAC that nobody has
			if err := a.ask(p, e, macA); err != nil {
				t.Fatal(err)
			}
		}
		got := heard{}
		for deadline := time.Now().Add(10 * time.Second); got.at.IsZero(); { // a link that has just come up takes its time
			if err := a.ask(p, e, mac(t, farMAC)); err != nil || time.Now().After(deadline) {
				t.Fatalf("%s does not answer: %v", addr, err)
			}
			select {
			case got = <-a.answers:
			case <-time.After(time.Second):
			}
		}
		if got.answer != (answer{e, mac(t, farMAC)}) || !got.solicited {
			t.Errorf("%+v", got)
		}
		for len(a.answers) > 0 {
			<-a.answers
		}
		if err := a.ask(p, e, broadcast); err != nil {
			t.Fatal(err)
		}
		select {
		case got = <-a.answers:
			if got.answer != (answer{e, mac(t, farMAC)}) {
				t.Errorf("of all it was %+v who answered", got)
			}
		case <-time.After(10 * time.Second):
			t.Errorf("%s does not answer who asks everybody", addr)
		}
	}
	l.inFar(func() {
		if out := l.neighbours("10.1.0.2"); len(out) == 0 {
			t.Error("the question was not from the own address")
		}
	})
	l.ip("link set lan0 down")
	for range 2 { // a socket that fails is opened anew
		if err := a.ask(p, entry{link, netip.MustParseAddr("10.1.0.7")}, macA); err == nil {
			t.Error("asked on a link that is down")
		}
	}
	p.Own = nil
	if err := a.ask(p, entry{link, netip.MustParseAddr("10.1.0.7")}, macA); err != errNoOwnAddress {
		t.Errorf("%v", err)
	}
	for _, short := range [][]byte{nil, make([]byte, arpLen-1), make([]byte, ndLen-1)} {
		_, arp := arpAnswer(short)
		_, nd := ndAnswer(short)
		if arp || nd {
			t.Errorf("%d bytes are an answer", len(short))
		}
	}
	for len(a.answers) > 0 {
		if more := <-a.answers; more.mac != mac(t, farMAC) {
			t.Errorf("another answer: %+v", more)
		}
	}
}

func (l *lan) neighbours(addr string) string {
	l.Helper()
	out, err := exec.Command("ip", "neigh", "show", addr).Output()
	if err != nil {
		l.Fatal(err)
	}
	return string(out)
}

// Two sites have a host each before they hear of the other's: both answer, and then the one with the higher locator gives in. Against another
// station's claim it defends its host again.
func TestBothAnswer(t *testing.T) {
	for _, addr := range bothFamilies {
		for _, ours := range []string{"192.0.2.1", "192.0.2.9"} {
			m := newModel(t, segment())
			m.at = netip.MustParseAddr(ours) // the other site's is 192.0.2.2
			e := m.entry(addr)
			m.alive[answer{e, macA}] = true
			m.found(addr, macA)
			m.pass(time.Minute)
			m.elsewhere(addr, macB, 1)
			m.questions = nil
			m.take(m.hear(heard{answer: answer{e, macA}, at: m.clock}))
			m.has(addr, macA)
			if asked := m.questions; len(asked) != 1 || asked[0] != (answer{e, broadcast}) {
				t.Errorf("%s: a switch may believe that it left: asked %v", ours, asked)
			}
			m.pass(contestRest)
			m.elsewhere(addr, route.MAC{2, 9}, 3)
			m.answers()
			m.has(addr, macA)
			m.pass(contestRest)
			m.elsewhere(addr, route.MAC{2, 9}, 5)
			m.answers()
			if ours == "192.0.2.1" {
				m.has(addr, macA)
			} else {
				m.has(addr, route.MAC{})
				if m.outcome(OutcomeYielded) != 1 || m.outcome(OutcomeDefended) != 2 {
					t.Errorf("%+v", m.Status())
				}
			}
			m.pass(time.Minute)
			if len(m.defences) != 0 {
				t.Errorf("%v are left", m.defences)
			}
		}
	}
}

// The MAC of a host is at another site, too (each has a virtual router of one number), but not its address: it stays, and nobody is outbid.
func TestMACAtBothSites(t *testing.T) {
	m := newModel(t, segment())
	m.alive[answer{m.entry("10.1.0.7"), macA}] = true
	m.found("10.1.0.7", macA)
	m.elsewhere("10.1.0.8", macA, 5)
	m.pass(time.Minute)
	m.has("10.1.0.7", macA)
	if c := m.claims[hostKey(1, netip.MustParseAddr("10.1.0.7"))]; c.Sequence != 0 || m.outcome(OutcomeDefended) != 0 || len(m.suspended) != 0 {
		t.Errorf("%+v, %+v", c, m.Status())
	}
}

// Who answers what the holder alone was asked answers for anybody: it does not get the address of one that is dead, whatever is heard of it first.
// An announcement is no such answer.
func TestProxyGetsNothing(t *testing.T) {
	for _, addr := range bothFamilies {
		for _, kernel := range []bool{false, true} {
			m := newModel(t, statesSegment())
			e := m.entry(addr)
			proxy := func() { m.take(m.hear(heard{answer: answer{e, macB}, at: m.clock, solicited: true})) }
			m.found(addr, macA)
			for range 2 {
				if kernel {
					m.found(addr, macB)
				} else {
					m.shows(addr, macB, SignClaim)
				}
				proxy()
				m.shows(addr, macB, SignClaim) // its answer, as the data path sees it
				m.pass(verdict)
				m.has(addr, macA)
				if m.table[e] != macA || len(m.contests) != 0 {
					t.Errorf("the kernel has %s, %d contests", m.table[e], len(m.contests))
				}
				m.pass(time.Second)
			}
			m.pass(3 * time.Second)
			m.has(addr, route.MAC{}) // it has not answered, that is all

			m.found(addr, macA)
			m.shows(addr, macB, SignClaim)
			m.take(m.hear(heard{answer: answer{e, macB}, at: m.clock}))
			m.pass(verdict)
			m.has(addr, macB)
		}
	}
}
