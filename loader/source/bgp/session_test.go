package bgp

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"roam/loader/route"
)

const (
	macA = "02:00:00:00:0a:07"
	macB = "02:00:00:00:0b:08"
)

// Two gateways peer directly: who lives at one is heard of at the other, with everything that belongs to it.
func TestDirect(t *testing.T) {
	t.Parallel()
	port := freePort(t)
	a, b := start(t, configOf(1, port, to(2, port))), start(t, configOf(2, port, to(1, port)))
	begun := time.Now()
	a.lives(host("10.1.0.7"), mac(macA), 3)
	a.lives(host("2001:db8:1::7"), mac(macA), 3)
	a.lives(host("10.1.0.8"), route.MAC{}, 0)                                    // its MAC is not known yet
	a.lives(route.Key{Tenant: 1, Prefix: prefix("10.9.0.0/16")}, route.MAC{}, 0) // behind this gateway
	a.lives(route.Key{Tenant: 1, Prefix: prefix("2001:db8:9::/48")}, route.MAC{}, 0)
	a.lives(host("10.1.0.1"), mac(macA), 0) // the gateway's own: never announced
	pinned := route.Claim{Key: host("10.1.0.9"), Local: &route.Local{Link: 7}, MAC: mac(macB), Pinned: true}
	a.decide(route.Decision{Claim: pinned, Source: "api"})
	b.hears(
		"10.1.0.7/32 via 192.0.2.1 dc1 "+macA+" seq 3", "2001:db8:1::7/128 via 192.0.2.1 dc1 "+macA+" seq 3",
		"10.1.0.8/32 via 192.0.2.1 dc1", "10.9.0.0/16 via 192.0.2.1 dc1", "2001:db8:9::/48 via 192.0.2.1 dc1",
		"10.1.0.9/32 via 192.0.2.1 dc1 "+macB+" pinned")
	a.until("what was announced to be told of", func() error {
		told := 0
		a.told.Range(func(key, at any) bool {
			told++
			if key == host("10.1.0.1") || at.(time.Time).Before(begun) {
				t.Errorf("%v was announced at %v", key, at)
			}
			return true
		})
		if told != 6 {
			return fmt.Errorf("%d are", told)
		}
		return nil
	})
	for _, c := range b.claims {
		want := route.Locator{Address: addr("192.0.2.1"), Priority: 1, Weight: 100, RouterMAC: mac("02:00:00:00:00:01")}
		if got := c.Via.Locators[0]; got != want {
			t.Errorf("%s leads to %+v, want %+v", c.Prefix, got, want)
		}
	}
	a.hears()
	a.awaitSynced()
	b.awaitSynced()

	a.lives(host("10.1.0.7"), mac(macA), 4)      // it came back from somewhere
	a.lives(host("10.1.0.8"), mac(macB), 0)      // now it is: another route type
	a.lives(host("2001:db8:1::7"), mac(macB), 4) // another MAC
	a.leaves(route.Key{Tenant: 1, Prefix: prefix("10.9.0.0/16")})
	a.leaves(route.Key{Tenant: 1, Prefix: prefix("2001:db8:9::/48")})
	elsewhere := route.Decision{Claim: route.Claim{Key: host("10.1.0.9"), Via: &route.Via{}}, Source: "api"}
	a.decide(elsewhere)
	b.hears(
		"10.1.0.7/32 via 192.0.2.1 dc1 "+macA+" seq 4", "2001:db8:1::7/128 via 192.0.2.1 dc1 "+macB+" seq 4",
		"10.1.0.8/32 via 192.0.2.1 dc1 "+macB)
	if got := len(a.announced()); got != 3 {
		t.Errorf("%d routes are left in the library's table, want 3: %v", got, a.announced())
	}
}

// A route reflector in the middle: the next hop stays the gateway's locator, and a move is known everywhere.
func TestReflector(t *testing.T) {
	t.Parallel()
	port := freePort(t)
	reflector(t, 9, port, 1, 2, 3)
	var gw []*gateway
	for n := 1; n <= 3; n++ {
		gw = append(gw, start(t, client(n, port, 9)))
	}
	gw[0].lives(host("10.1.0.7"), mac(macA), 0)
	gw[1].hears("10.1.0.7/32 via 192.0.2.1 dc1 " + macA)
	gw[2].hears("10.1.0.7/32 via 192.0.2.1 dc1 " + macA)

	// The host moves: for a moment two announce it, and the sequence decides, at everybody alike.
	gw[1].lives(host("10.1.0.7"), mac(macA), 1)
	gw[0].hears("10.1.0.7/32 via 192.0.2.2 dc2 " + macA + " seq 1")
	gw[2].hears("10.1.0.7/32 via 192.0.2.2 dc2 " + macA + " seq 1")
	gw[0].leaves(host("10.1.0.7"))
	gw[0].lives(host("10.1.0.8"), mac(macB), 0)
	gw[2].hears("10.1.0.7/32 via 192.0.2.2 dc2 "+macA+" seq 1", "10.1.0.8/32 via 192.0.2.1 dc1 "+macB)

	if sequence, elsewhere, ok := gw[2].Sequence(host("10.1.0.7"), mac(macB)); sequence != 1 || !elsewhere || !ok {
		t.Errorf("the address counts: %d %v %v", sequence, elsewhere, ok)
	}
	if sequence, elsewhere, ok := gw[2].Sequence(host("10.1.0.99"), mac(macA)); sequence != 1 || !elsewhere || !ok {
		t.Errorf("the MAC counts: %d %v %v", sequence, elsewhere, ok)
	}
	if _, _, ok := gw[2].Sequence(host("10.1.0.99"), mac("02:00:00:00:00:99")); ok {
		t.Error("nobody announces it")
	}
}

// A neighbour that drops the connection keeps its routes for a while; what it does not repeat goes at its End-of-RIB,
// and all of it when it does not come back. One that says goodbye takes them along.
func TestLostSession(t *testing.T) {
	t.Parallel()
	port := freePort(t)
	n := passive(to(5, port))
	n.GracefulRestart = 8 * time.Second // the library rests for five after a session
	g := start(t, configOf(1, port, n))
	seven, eight := macIP(5, macA, "10.1.0.7"), macIP(5, macB, "10.1.0.8")
	words7, words8 := "10.1.0.7/32 via 192.0.2.5 "+macA, "10.1.0.8/32 via 192.0.2.5 "+macB

	p := raw(t, 5, port, true)
	announce(t, p, 5, nil, seven, eight)
	g.hears(words7, words8)
	send(t, p, endOfRIBs()...)
	g.awaitSynced()
	p.Close()
	g.until("the session to be down", g.down(5))
	g.hears(words7, words8)
	if _, _, ok := g.Sequence(host("10.1.0.7"), mac(macA)); !ok {
		t.Error("a stale route is forgotten")
	}

	p = raw(t, 5, port, true)
	announce(t, p, 5, nil, eight)
	g.hears(words7, words8)
	send(t, p, endOfRIBs()...)
	g.hears(words8)

	p.Close()
	lost := time.Now()
	g.hears()
	if stayed := time.Since(lost); stayed < 7*time.Second {
		t.Errorf("routes of a lost session stayed %v, want 8 s", stayed)
	}

	p = raw(t, 5, port, false) // one that never marks the end
	announce(t, p, 5, nil, seven)
	g.hears(words7)
	send(t, p, bgp.NewBGPNotificationMessage(bgp.BGP_ERROR_CEASE, bgp.BGP_ERROR_SUB_ADMINISTRATIVE_SHUTDOWN, nil))
	said := time.Now()
	g.hears()
	if stayed := time.Since(said); stayed > 2*time.Second {
		t.Errorf("routes of a neighbour that said goodbye stayed %v", stayed)
	}
	list, err := g.Sessions(context.Background())
	if err != nil || len(list) != 1 || list[0].Flaps != 3 || !strings.Contains(list[0].Why, "notification") {
		t.Errorf("sessions: %+v %v", list, err)
	}
	if got := g.Standings(); !slices.Equal(got, []Standing{{Neighbor: loop(5), Flaps: 3}}) {
		t.Errorf("standings: %+v", got)
	}
}

func endOfRIBs() []*bgp.BGPMessage {
	return []*bgp.BGPMessage{bgp.NewEndOfRib(bgp.RF_EVPN)}
}

// A first report that nothing marks as complete is when nothing has come for a while, and then it is.
func TestSyncedWithoutMark(t *testing.T) {
	t.Parallel()
	port := freePort(t)
	g := start(t, configOf(1, port, passive(to(5, port))))
	p := raw(t, 5, port, false)
	announce(t, p, 5, nil, macIP(5, macA, "10.1.0.7"))
	g.hears("10.1.0.7/32 via 192.0.2.5 " + macA)
	if got := g.Standings(); !slices.Equal(got, []Standing{{Neighbor: loop(5), Up: true}}) {
		t.Errorf("standings: %+v", got)
	}
	began := time.Now()
	g.awaitSynced()
	if took := time.Since(began); took < patience/2 {
		t.Errorf("synced after %v", took)
	}
}

// More routes than max_prefix end the session and take its routes; after a while it is tried again.
func TestMaxPrefix(t *testing.T) {
	t.Parallel()
	port := freePort(t)
	n := passive(to(5, port))
	n.MaxPrefix = 2
	c := configOf(1, port, n)
	c.Reopen = 2 * time.Second
	g := start(t, c)
	p := raw(t, 5, port, true)
	announce(t, p, 5, nil, macIP(5, macA, "10.1.0.7"), macIP(5, macB, "10.1.0.8"))
	g.hears("10.1.0.7/32 via 192.0.2.5 "+macA, "10.1.0.8/32 via 192.0.2.5 "+macB)
	announce(t, p, 5, nil, macIP(5, macA, "10.1.0.9"))
	if err := p.Await(limit, "the reason", func(m *bgp.BGPMessage) bool {
		n, ok := m.Body.(*bgp.BGPNotification)
		return ok && n.ErrorCode == bgp.BGP_ERROR_CEASE && n.ErrorSubcode == bgp.BGP_ERROR_SUB_MAXIMUM_NUMBER_OF_PREFIXES_REACHED
	}); err != nil {
		t.Fatal(err)
	}
	g.hears()
	if list, err := g.Sessions(context.Background()); err != nil || !strings.Contains(list[0].Why, "max_prefix") {
		t.Errorf("sessions: %+v %v", list, err)
	}
	p = raw(t, 5, port, true)
	announce(t, p, 5, nil, macIP(5, macB, "10.1.0.8"))
	g.hears("10.1.0.8/32 via 192.0.2.5 " + macB)
}

// Both ends must have the same key (RFC 2385), also after a reload.
func TestPassword(t *testing.T) {
	t.Parallel()
	port := freePort(t)
	one, other := configOf(1, port, to(2, port)), configOf(2, port, to(1, port))
	one.Neighbors[0].Password, other.Neighbors[0].Password = "alike", "different"
	a, b := start(t, one), start(t, other)
	b.lives(host("10.1.0.7"), mac(macA), 0)
	time.Sleep(3 * time.Second) // nothing is to happen, and that cannot be awaited
	for _, g := range []*gateway{a, b} {
		if list, err := g.Sessions(context.Background()); err != nil || list[0].State == "established" {
			t.Fatalf("with different keys: %+v %v", list, err)
		}
	}
	right := other
	right.Neighbors = []Neighbor{other.Neighbors[0]}
	right.Neighbors[0].Password = "alike"
	b.SetConfig(&right)
	a.hears("10.1.0.7/32 via 192.0.2.2 dc2 " + macA)
}

// With ttl_security packets go out with TTL 255, and only those that come with it count (RFC 5082).
func TestTTLSecurity(t *testing.T) {
	t.Parallel()
	port := freePort(t)
	one, other := configOf(1, port, to(2, port)), configOf(2, port, to(1, port))
	one.Neighbors[0].TTLSecurity, other.Neighbors[0].TTLSecurity = 1, 1
	a, b := start(t, one), start(t, other)
	b.lives(host("10.1.0.7"), mac(macA), 0)
	a.hears("10.1.0.7/32 via 192.0.2.2 dc2 " + macA)

	far := other
	far.Neighbors = []Neighbor{other.Neighbors[0]}
	far.Neighbors[0].TTLSecurity, far.Neighbors[0].Multihop = 0, 64 // sends with TTL 64: as if it were elsewhere
	far.Neighbors[0].GracefulRestart = 0
	b.SetConfig(&far)
	a.until("the session to be down", a.down(2))
	time.Sleep(3 * time.Second)
	if list, err := a.Sessions(context.Background()); err != nil || list[0].State == "established" {
		t.Errorf("from further away: %+v %v", list, err)
	}
}

func (g *gateway) down(n int) func() error {
	return func() error {
		list, err := g.Sessions(context.Background())
		for _, s := range list {
			if s.Neighbor == loop(n) && s.State != "established" {
				return err
			}
		}
		return errStillUp
	}
}

// Neighbours come and go without disturbing others; any other change starts the speaker anew, and what it said stays.
func TestReconfigure(t *testing.T) {
	t.Parallel()
	port := freePort(t)
	one := configOf(1, port, to(2, port))
	a, b, c := start(t, one), start(t, configOf(2, port, to(1, port))), start(t, configOf(3, port, to(1, port)))
	b.lives(host("10.1.0.7"), mac(macA), 0)
	c.lives(host("10.1.0.8"), mac(macB), 0)
	a.hears("10.1.0.7/32 via 192.0.2.2 dc2 " + macA)

	more := one
	more.Neighbors = []Neighbor{one.Neighbors[0], local(to(3, port), 1)}
	a.SetConfig(&more)
	a.hears("10.1.0.7/32 via 192.0.2.2 dc2 "+macA, "10.1.0.8/32 via 192.0.2.3 dc3 "+macB)
	if list, err := a.Sessions(context.Background()); err != nil || list[0].Flaps != 0 {
		t.Errorf("the other session was disturbed: %+v %v", list, err)
	}
	less := one
	less.Neighbors = []Neighbor{more.Neighbors[1]}
	a.SetConfig(&less)
	a.hears("10.1.0.8/32 via 192.0.2.3 dc3 " + macB)

	// Another locator: everything that is announced changes.
	a.lives(host("10.1.0.9"), mac(macA), 0)
	c.hears("10.1.0.9/32 via 192.0.2.1 dc1 " + macA)
	moved := less
	moved.Locators = []netip.Addr{addr("192.0.2.101")}
	a.SetConfig(&moved)
	c.hears("10.1.0.9/32 via 192.0.2.101 dc1 " + macA)
	a.hears("10.1.0.8/32 via 192.0.2.3 dc3 " + macB)

	a.SetConfig(nil)
	a.hears()
	again := moved
	a.SetConfig(&again)
	a.hears("10.1.0.8/32 via 192.0.2.3 dc3 " + macB)
}

func local(n Neighbor, at int) Neighbor {
	n.Local = loop(at)
	return n
}

// A restart of the process: the neighbour keeps what it knew, hears everything again, and forgets what went meanwhile.
func TestRestart(t *testing.T) {
	t.Parallel()
	port := freePort(t)
	a, b := start(t, configOf(1, port, to(2, port))), start(t, configOf(2, port, to(1, port)))
	a.lives(host("10.1.0.7"), mac(macA), 0)
	a.lives(host("10.1.0.8"), mac(macB), 0)
	words := []string{"10.1.0.7/32 via 192.0.2.1 dc1 " + macA, "10.1.0.8/32 via 192.0.2.1 dc1 " + macB}
	b.hears(words...)
	b.awaitSynced()
	gone := make(chan string, 10)
	watch, unwatch := context.WithCancel(context.Background())
	go b.lostAny(watch, words[0], gone)
	a.stop()
	b.state("active", 1)

	after := a.config
	c := New(Options{Config: &after, Restarted: true})
	a.Source = c
	a.lives(host("10.1.0.7"), mac(macA), 0) // 10.1.0.8 left while nobody looked
	a.run()
	b.hears(words[0])
	unwatch()
	select {
	case text := <-gone:
		t.Errorf("for a moment the host that stayed was gone: %s", text)
	default:
	}
}

// lostAny reports every state in which a claim is missing.
func (g *gateway) lostAny(ctx context.Context, word string, gone chan<- string) {
	for {
		g.twin.mu.Lock()
		words, changed := strings.Join(g.words(), "; "), g.twin.changed
		g.twin.mu.Unlock()
		if !strings.Contains(words, word) {
			select {
			case gone <- words:
			default:
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}
