package host

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"roam/loader/route"
)

// pair is two gateways, each with a RIB of the least kind: of its own claim and of what it has heard from the other the higher sequence wins, and
// the first gateway on a tie, as the lower locator. What wins at home is announced, in order, and takes its time on the wire.
type pair struct {
	t  *rapid.T
	gw [2]*model

	announced [2]map[route.Key]route.Claim
	wire      [2][]news // from this one to the other
	decided   [2]map[route.Key]route.Decision

	at      map[machine]int // where each is plugged in
	settled map[string]int  // hosts that have not been touched since all was at rest, and where they are
	pause   time.Duration   // since the last tick
}

// machine has an address; two of them with the same one are one too many.
type machine struct {
	addr string
	mac  route.MAC
}

// news is an announcement, or (a zero claim) that one is withdrawn.
type news struct {
	key   route.Key
	claim route.Claim
}

var macC = route.MAC{2, 0, 0, 0, 0, 0x0c}

// homes are the hosts of the walk: two addresses of one MAC, and one of another.
var homes = []machine{{"10.1.0.7", macA}, {"2001:db8:1::7", macA}, {"10.1.0.8", macB}}

func newPair(t *rapid.T, seg Segment) *pair {
	p := &pair{t: t, at: make(map[machine]int), settled: make(map[string]int)}
	for i := range p.gw {
		p.gw[i] = newModel(t, seg)
		p.gw[i].apart = true
		p.gw[i].at = locatorOf(i)
		p.announced[i], p.decided[i] = make(map[route.Key]route.Claim), make(map[route.Key]route.Decision)
	}
	return p
}

func locatorOf(i int) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)}) }

// home says which gateway has a host, as one of them sees it; -1 for neither.
func (p *pair) home(i int, key route.Key) int {
	ours, local := p.gw[i].claims[key]
	theirs, away := p.gw[i].away[key]
	switch {
	case local && (!away || ours.Sequence > theirs.Sequence || ours.Sequence == theirs.Sequence && i == 0):
		return i
	case away:
		return 1 - i
	}
	return -1
}

// update has both gateways act on what they know, until nothing changes by itself.
func (p *pair) update() {
	for changed := true; changed; {
		changed = false
		for i, m := range p.gw {
			m.tb = p.t
			p.kernel(m, i)
			for _, host := range homes {
				key := hostKey(1, netip.MustParseAddr(host.addr))
				changed = p.announce(i, key) || p.follow(i, key) || changed
			}
		}
	}
}

// kernel answers for the neighbours that are to be resolved: machines that are plugged in answer, the first of two.
func (p *pair) kernel(m *model, i int) {
	for len(m.asked) > 0 {
		e := m.asked[0]
		m.asked = m.asked[1:]
		list := p.present(e.addr.String(), i)
		if mac, known := m.table[e]; known && slices.ContainsFunc(list, func(at machine) bool { return at.mac == mac }) {
			m.found(e.addr.String(), mac)
		} else if len(list) > 0 {
			m.found(e.addr.String(), list[0].mac)
		} else {
			m.gone(e.addr.String())
		}
	}
}

func (p *pair) present(addr string, site int) (list []machine) {
	for at, where := range p.at {
		if at.addr == addr && where == site {
			list = append(list, at)
		}
	}
	slices.SortFunc(list, func(a, b machine) int { return int(a.mac[5]) - int(b.mac[5]) })
	return list
}

func (p *pair) announce(i int, key route.Key) bool {
	claim, is := p.gw[i].claims[key], p.home(i, key) == i
	before, was := p.announced[i][key]
	if !is {
		claim = route.Claim{}
	}
	if is == was && before.Sequence == claim.Sequence && before.MAC == claim.MAC {
		return false
	}
	p.announced[i][key] = claim
	if !is {
		delete(p.announced[i], key)
	}
	p.wire[i] = append(p.wire[i], news{key, claim})
	return true
}

// follow tells the source what its RIB has decided, if that is another site and news.
func (p *pair) follow(i int, key route.Key) bool {
	d := p.gw[i].away[key]
	if p.home(i, key) != 1-i {
		delete(p.decided[i], key)
		return false
	}
	if before, told := p.decided[i][key]; told && before.Sequence == d.Sequence && before.MAC == d.MAC {
		return false
	}
	p.decided[i][key] = d
	if err := p.gw[i].Apply(context.Background(), []route.Decision{d}); err != nil {
		p.t.Fatalf("%v", err)
	}
	p.gw[i].take(p.gw[i].attend())
	return true
}

// deliver brings the next announcement of a gateway to the other.
func (p *pair) deliver(from int) {
	if len(p.wire[from]) == 0 {
		return
	}
	n := p.wire[from][0]
	p.wire[from] = p.wire[from][1:]
	to := p.gw[1-from]
	if n.claim.Key == (route.Key{}) {
		delete(to.away, n.key)
	} else {
		d := decision(n.key.Prefix.Addr().String(), true, false)
		d.Via = &route.Via{Locators: []route.Locator{{Address: locatorOf(from)}}}
		d.Source, d.Site, d.MAC, d.Sequence = "bgp", "dc2", n.claim.MAC, n.claim.Sequence // whoever it is, the other one
		to.away[n.key] = d
	}
	p.update()
}

// plug moves a machine: the tables of the gateways know nothing of it.
func (p *pair) plug(at machine, site int) {
	if where, is := p.at[at]; is {
		delete(p.gw[where].alive, answer{p.gw[where].entry(at.addr), at.mac})
	}
	delete(p.at, at)
	if site >= 0 {
		p.at[at] = site
		p.gw[site].alive[answer{p.gw[site].entry(at.addr), at.mac}] = true
	}
	for _, host := range homes { // what a host's neighbour on its MAC does concerns it, too
		if host.mac == at.mac || host.addr == at.addr {
			delete(p.settled, host.addr)
		}
	}
}

// move plugs a host, with all its addresses, in elsewhere.
func (p *pair) move(mac route.MAC, site int) {
	for _, host := range homes {
		if host.mac == mac {
			p.plug(host, site)
		}
	}
}

func (p *pair) show(at machine, kind SignKind) {
	if site, is := p.at[at]; is {
		p.gw[site].shows(at.addr, at.mac, kind)
		p.update()
	}
}

func (p *pair) arrive(mac route.MAC) {
	for at, site := range p.at {
		if at.mac == mac {
			p.gw[site].heed(Sign{Kind: SignRARP, Tenant: 1, Link: "lan0", MAC: mac})
		}
	}
	p.update()
}

// pass lets time go by at both gateways alike, and their tickers tick.
func (p *pair) pass(d time.Duration) {
	for ; d > 0; d -= 100 * time.Millisecond {
		step := min(d, 100*time.Millisecond)
		p.pause += step
		for _, m := range p.gw {
			m.pass(step)
			if p.pause >= tick {
				m.askAgain()
				m.askHints()
				m.take(m.compare(m.findLost()))
			}
		}
		if p.pause >= tick {
			p.pause = 0
		}
		p.update()
	}
}

// rest delivers everything and lets hosts speak until nothing is left to be decided.
func (p *pair) rest() {
	for i := range 60 {
		for len(p.wire[0])+len(p.wire[1]) > 0 {
			p.deliver(0)
			p.deliver(1)
		}
		p.pass(500 * time.Millisecond)
		if i%25 == 0 { // once at the start, and when the last quarantine is over
			for _, at := range slices.SortedFunc(maps.Keys(p.at), func(a, b machine) int { return int(a.mac[5]) - int(b.mac[5]) }) {
				p.show(at, SignClaim)
			}
		}
	}
}

// converged checks that each host has one home, the same for both gateways: where it is, unless it is frozen or there are two of it.
func (p *pair) converged() {
	for _, host := range homes {
		key := hostKey(1, netip.MustParseAddr(host.addr))
		first, second := p.home(0, key), p.home(1, key)
		if first != second {
			p.t.Fatalf("%s is at %d for the first gateway, at %d for the second: %s", host.addr, first, second, p.state(key))
		}
		sites := map[int]bool{}
		for at, site := range p.at {
			if at.addr == host.addr {
				sites[site] = true
			}
		}
		_, frozen0 := p.gw[0].freezer.of(key)
		_, frozen1 := p.gw[1].freezer.of(key)
		switch {
		case frozen0 || frozen1:
			continue
		case len(sites) == 0 && first >= 0, len(sites) > 0 && (first < 0 || !sites[first]):
			p.t.Fatalf("%s is at %v, and its home is %d: %s", host.addr, sites, first, p.state(key))
		case len(sites) == 1:
			p.settled[host.addr] = first
		}
	}
}

func (p *pair) state(key route.Key) (s string) {
	for _, m := range p.gw {
		c, d := m.claims[key], m.away[key]
		s += c.MAC.String() + " " + time.Duration(c.Sequence).String() + " here, " + d.MAC.String() + " " + time.Duration(d.Sequence).String() + " there; "
	}
	return s
}

// check is what holds at each step: who has not been touched since all was at rest is where it was, for both gateways.
func (p *pair) check(t *rapid.T) {
	p.t = t
	for addr, site := range p.settled {
		key := hostKey(1, netip.MustParseAddr(addr))
		for i := range p.gw {
			if got := p.home(i, key); got != site {
				t.Fatalf("%s rests at %d, and gateway %d has it at %d: %s", addr, site, i, got, p.state(key))
			}
		}
	}
}

// Two gateways, hosts that move between them, say so in any way or not at all, and others that claim their addresses; announcements take their
// time. In the end both agree on one home for each, which is where it is; who stays is never disturbed by what others do.
func TestPair(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seg := statesSegment()
		seg.Freeze.Moves = rapid.SampledFrom([]int{3, 1000}).Draw(t, "moves")
		p := newPair(t, seg)
		step := func(f func()) func(*rapid.T) {
			return func(t *rapid.T) { p.t = t; f() }
		}
		mac := func() route.MAC { return rapid.SampledFrom([]route.MAC{macA, macB}).Draw(p.t, "mac") }
		site := func() int { return rapid.IntRange(-1, 1).Draw(p.t, "site") }
		one := func() machine { return rapid.SampledFrom(homes).Draw(p.t, "host") }
		kind := func() SignKind { return SignKind(rapid.IntRange(0, 2).Draw(p.t, "kind")) }
		t.Repeat(map[string]func(*rapid.T){
			"":         p.check,
			"moves":    step(func() { p.move(mac(), site()) }),
			"moves on": step(func() { m := mac(); p.move(m, rapid.IntRange(0, 1).Draw(p.t, "to")); p.arrive(m) }),
			"shows":    step(func() { p.show(one(), kind()) }),
			"arrives":  step(func() { p.arrive(mac()) }),
			"liar":     step(func() { p.plug(machine{one().addr, macC}, site()) }),
			"lies":     step(func() { p.show(machine{one().addr, macC}, kind()) }),
			"wanted": step(func() {
				p.gw[rapid.IntRange(0, 1).Draw(p.t, "by")].search(Sign{Tenant: 1, Addr: netip.MustParseAddr(one().addr)})
				p.update()
			}),
			"first speaks":  step(func() { p.deliver(0) }),
			"second speaks": step(func() { p.deliver(1) }),
			"pass":          step(func() { p.pass(time.Duration(rapid.IntRange(0, 1500).Draw(p.t, "ms")) * time.Millisecond) }),
			"rest":          step(func() { p.rest(); p.converged() }),
		})
		p.t = t
		p.rest()
		p.converged()
	})
}
