package rib

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"roam/loader/route"
)

// naive is the RIB as one would write it without a thought for memory: maps, and a search for the best each time.
type naive struct {
	names   []string
	claims  map[route.Key]map[string]route.Claim
	stale   map[string]map[route.Key]bool // of a source in the middle of a full report: what it was not heard to say
	synced  map[string]bool
	holds   map[route.Key]naiveHold // hosts that left or moved
	gaps    map[route.Key]naiveGap  // hosts that are nowhere
	now     time.Time
	decided map[route.Key]route.Decision
}

type naiveHold struct {
	until   time.Time
	left    bool
	awaited bool // it has a new home, and nobody says that its first packet was seen
}

type naiveGap struct {
	since time.Time
	home  string
}

var preferences = map[string]int{"api": 40, "file": 30, "fib": 20, "host": 10, "also": 20}

func newNaive(now time.Time) *naive {
	return &naive{
		claims: make(map[route.Key]map[string]route.Claim), stale: make(map[string]map[route.Key]bool),
		synced: make(map[string]bool), now: now,
		holds: make(map[route.Key]naiveHold), gaps: make(map[route.Key]naiveGap),
		decided: make(map[route.Key]route.Decision),
	}
}

func (n *naive) best(k route.Key) (string, route.Claim, bool) {
	var names []string
	for name := range n.claims[k] {
		names = append(names, name)
	}
	if len(names) == 0 {
		return "", route.Claim{}, false
	}
	lowest := func(c route.Claim) netip.Addr {
		if c.Via == nil {
			return netip.Addr{}
		}
		return slices.MinFunc(c.Via.Locators, func(a, b route.Locator) int { return a.Address.Compare(b.Address) }).Address
	}
	slices.SortFunc(names, func(x, y string) int {
		a, b := n.claims[k][x], n.claims[k][y]
		switch {
		case a.Pinned != b.Pinned:
			return map[bool]int{true: -1, false: 1}[a.Pinned]
		case a.Sequence != b.Sequence:
			return int(int64(b.Sequence) - int64(a.Sequence))
		case preferences[x] != preferences[y]:
			return preferences[y] - preferences[x]
		case lowest(a) != lowest(b):
			return lowest(a).Compare(lowest(b))
		}
		return map[bool]int{true: -1, false: 1}[x < y]
	})
	c := n.claims[k][names[0]]
	if c.Local != nil && c.Local.Link == 0 {
		for _, other := range names[1:] {
			if o := n.claims[k][other]; o.Local != nil && o.Local.Link != 0 {
				if c.Local = o.Local; c.MAC.IsZero() {
					c.MAC = o.MAC
				}
				break
			}
		}
	}
	return names[0], c, true
}

// decide works out the decision for a key after source did something to it.
func (n *naive) decide(k route.Key, source string) {
	before := n.decided[k]
	name, c, ok := n.best(k)
	if k.Host() {
		n.remember(k, before.Claim, c, n.synced[source])
	}
	if !ok {
		delete(n.decided, k)
		return
	}
	n.decided[k] = n.held(route.Decision{Claim: c, Source: name})
}

// remember notes what a change of a host's home is to be known by for a while.
func (n *naive) remember(k route.Key, before, after route.Claim, real bool) {
	from, to := home(before), home(after)
	moved := false
	switch gap, open := n.gaps[k]; {
	case !real:
	case from != "" && to == "" && !open:
		n.gaps[k] = naiveGap{n.now, from}
	case from != "" && to != "":
		moved = from != to && !oneSite(from, to)
	case from == "" && to != "" && open:
		delete(n.gaps, k)
		moved = n.now.Sub(gap.since) < longGap && siteless(gap.home) != siteless(to) && !oneSite(gap.home, to)
	}
	h, known := n.holds[k]
	h.left = h.left && after.Local == nil
	home := moved
	if real && before.Local != nil && after.Local == nil {
		h.left, moved = true, true
	}
	if moved {
		h.awaited = home
		h.until = n.now.Add(DefaultHold)
	}
	if moved || known {
		n.holds[k] = h
	}
}

// home spells where packets for a host go, "" for nowhere.
func home(c route.Claim) string {
	switch {
	case c.Via != nil:
		return fmt.Sprintf("%#v@%s", c.Via.Locators, c.Site)
	case c.Local != nil && c.Local.Link == 0:
		return ""
	case c.Local != nil:
		return "here"
	case c.Reject:
		return "reject@" + c.Site
	}
	return ""
}

// oneSite tells whether two homes are behind gateways of one site.
func oneSite(a, b string) bool {
	a, first, _ := strings.Cut(a, "@")
	b, second, _ := strings.Cut(b, "@")
	return first != "" && first == second && a != "reject" && b != "reject"
}

func siteless(home string) string {
	home, _, _ = strings.Cut(home, "@")
	return home
}

func (n *naive) held(d route.Decision) route.Decision {
	h, ok := n.holds[d.Key]
	d.Held = ok && h.left && d.Via != nil
	d.Moved = ok && !d.Held
	d.Awaited = ok && h.awaited
	return d
}

func (n *naive) report(source string, changes []route.Change) {
	touched := make(map[route.Key]bool)
	for _, c := range changes {
		touched[c.Key] = true
		delete(n.stale[source], c.Key)
		if c.Withdraw {
			delete(n.claims[c.Key], source)
			continue
		}
		if n.claims[c.Key] == nil {
			n.claims[c.Key] = make(map[string]route.Claim)
		}
		n.claims[c.Key][source] = c.Claim
	}
	for k := range touched {
		n.decide(k, source)
	}
}

func (n *naive) begin(source string) {
	n.stale[source] = make(map[route.Key]bool)
	for k, claims := range n.claims {
		if _, ok := claims[source]; ok {
			n.stale[source][k] = true
		}
	}
}

func (n *naive) end(source string) {
	for k := range n.stale[source] {
		delete(n.claims[k], source)
		n.decide(k, source)
	}
	delete(n.stale, source)
	n.synced[source] = true
}

func (n *naive) pass(d time.Duration) {
	n.now = n.now.Add(d)
	for k, h := range n.holds {
		if !h.until.After(n.now) {
			delete(n.holds, k)
			if d, ok := n.decided[k]; ok {
				n.decided[k] = n.held(d)
			}
		}
	}
}

// Whatever sources do, in any order, sinks hold what the naive twin decides.
func TestRandom(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for range 20 {
		randomRun(t, random)
	}
}

func randomRun(t *testing.T, random *rand.Rand) {
	b := newBench(t, Options{})
	b.mirror.same = true // a window may end where the twin does not see one
	twin := newNaive(b.clock.Now())
	to := make(map[string]route.Reporter)
	for name, preference := range preferences {
		to[name] = b.Reporter(name, preference)
		twin.names = append(twin.names, name)
	}
	slices.Sort(twin.names)
	b.start()
	keys := 1 + random.IntN(200)
	for step := range 300 {
		name := twin.names[random.IntN(len(twin.names))]
		var err error
		switch random.IntN(8) {
		case 0:
			err = to[name].Begin(b.ctx)
			twin.begin(name)
		case 1:
			err = to[name].Synced(b.ctx)
			twin.end(name)
		case 2:
			d := time.Duration(random.IntN(15)) * time.Second
			b.pass(d)
			twin.pass(d)
		default:
			changes := make([]route.Change, random.IntN(20))
			for i := range changes {
				changes[i] = randomChange(random, keys)
			}
			err = to[name].Report(b.ctx, changes)
			twin.report(name, changes)
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := same(b.mirror.held, twin.decided); err != nil {
			t.Fatalf("step %d: %v", step, err)
		}
	}
	checkTotals(t, b, twin)
}

func same(got, want map[route.Key]route.Decision) error {
	for k, w := range want {
		if g, ok := got[k]; !ok || !reflect.DeepEqual(g, w) {
			return fmt.Errorf("%s: %s, want %s", k, spell(g), spell(w))
		}
	}
	for k, g := range got {
		if _, ok := want[k]; !ok {
			return fmt.Errorf("%s: %s, want nothing", k, spell(g))
		}
	}
	return nil
}

// checkTotals compares everything that queries tell with the twin, and looks for leaks.
func checkTotals(t *testing.T, b *bench, twin *naive) {
	t.Helper()
	walked := make(map[route.Key]route.Decision)
	claims := 0
	err := b.Walk(b.ctx, Filter{}, func(e Entry) error {
		walked[e.Key] = e.Decision
		for _, c := range e.Claims {
			claims++
			if !reflect.DeepEqual(c.Claim, twin.claims[e.Key][c.Source]) {
				t.Errorf("%s of %s: %+v, want %+v", e.Key, c.Source, c.Claim, twin.claims[e.Key][c.Source])
			}
		}
		return nil
	})
	if err == nil {
		err = same(walked, twin.decided)
	}
	if err != nil {
		t.Error(err)
	}
	routes, hosts, err := b.Counts(b.ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range routes {
		held, best := 0, 0
		for k, m := range twin.claims {
			if _, ok := m[c.Source]; ok && k.Tenant == c.Tenant {
				held++
				claims--
			}
			if twin.decided[k].Source == c.Source && k.Tenant == c.Tenant {
				best++
			}
		}
		if c.Claims != held || c.Best != best {
			t.Errorf("counted %+v, want %d and %d", c, held, best)
		}
	}
	if claims != 0 {
		t.Errorf("%d claims walked, but not counted", claims)
	}
	for _, h := range hosts {
		want := Hosts{Tenant: h.Tenant, Moves: h.Moves}
		for k, d := range twin.decided {
			if k.Tenant != h.Tenant || !k.Host() {
				continue
			}
			switch {
			case d.Local != nil:
				want.Here++
			case d.Via != nil:
				want.Away++
			default:
				want.Reject++
			}
			if d.Held {
				want.Held++
			}
		}
		if h != want {
			t.Errorf("counted %+v, want %+v", h, want)
		}
	}
	for _, to := range b.sources[1:] {
		b.sync(to)
	}
	b.pass(time.Hour)
	err = b.do(b.ctx, func() {
		free := 0
		for i := b.table.freeExtra; i != 0; i = b.table.extra[i].next {
			free++
		}
		if b.table.len != 0 || len(b.table.free) != int(b.table.end)-1 || free != len(b.table.extra)-1 ||
			len(b.targets.ids) != 0 || len(b.targets.free) != len(b.targets.list)-1 ||
			len(b.holds.until) != 0 || len(b.holds.queue) != 0 || len(b.holds.awaited) != 0 {
			t.Errorf("something is left: %d records, %d of %d free, %d targets", b.table.len, len(b.table.free), b.table.end-1,
				len(b.targets.ids))
		}
		for tenant, lengths := range b.table.lengths {
			if lengths != nil && *lengths != [129]uint32{} {
				t.Errorf("tenant %d is thought to have prefixes", tenant)
			}
		}
	})
	if err != nil {
		t.Error(err)
	}
}

func randomChange(r *rand.Rand, keys int) route.Change {
	n := r.IntN(keys)
	var p netip.Prefix
	switch n % 4 {
	case 0, 1:
		p = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1, byte(n >> 8), byte(n)}), 32)
	case 2:
		p = netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 14: byte(n >> 8), 15: byte(n)}), 128)
	default:
		p = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(n), 0, 0}), 16)
	}
	c := route.Change{Claim: route.Claim{Key: route.Key{Tenant: 1 + route.TenantID(n%3), Prefix: p}}}
	if r.IntN(4) == 0 {
		c.Withdraw = true
		return c
	}
	if r.IntN(3) == 0 {
		c.Sequence = uint32(r.IntN(3))
	}
	c.Pinned = r.IntN(10) == 0
	if r.IntN(3) == 0 {
		c.MAC = route.MAC{2, 0, 0, 0, 0, byte(r.IntN(3))}
	}
	c.Site = []string{"", "dc1", "dc2"}[r.IntN(3)]
	switch r.IntN(7) {
	case 0:
		c.Reject = true
	case 1, 2, 3:
		link := r.IntN(4)
		c.Local = &route.Local{Link: link, VLAN: uint16(r.IntN(2))}
	default:
		c.Via = randomVia(r)
	}
	return c
}

// lists are the locator lists of random changes, as a source would intern them.
var lists route.Interner

// randomVia returns an interned list, or a copy of one.
func randomVia(r *rand.Rand) *route.Via {
	var locators []route.Locator
	first := r.IntN(5)
	for i := range 1 + r.IntN(3) {
		locators = append(locators, route.Locator{
			Address: netip.AddrFrom4([4]byte{192, 0, 2, byte(1 + (first+i)%5)}), Priority: uint8(r.IntN(2)), Weight: 100,
		})
	}
	if r.IntN(2) == 0 {
		return &route.Via{Locators: locators}
	}
	return lists.Via(locators)
}
