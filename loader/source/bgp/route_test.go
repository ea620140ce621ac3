package bgp

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"roam/loader/route"
	"roam/loader/source/bgp/bgptest"
)

// Host routes over plain BGP, through a reflector that knows nothing of hosts: next hop, sequence, site and tenant
// arrive.
func TestUnicast(t *testing.T) {
	t.Parallel()
	port := freePort(t)
	reflector(t, 9, port, 1, 2)
	var gw []*gateway
	for n := 1; n <= 2; n++ {
		c := client(n, port, 9)
		c.Neighbors[0].Families = []Family{IPv4, IPv6}
		c.Tenants = append(c.Tenants, Tenant{ID: 2, VNI: 7002})
		gw = append(gw, start(t, c))
	}
	gw[0].lives(host("10.1.0.7"), mac(macA), 3)
	gw[0].lives(host("2001:db8:1::7"), mac(macA), 3)
	gw[0].lives(route.Key{Tenant: 1, Prefix: prefix("10.9.0.0/16")}, route.MAC{}, 0) // unicast carries hosts only
	gw[0].lives(route.KeyOf(2, addr("10.2.0.7")), mac(macB), 0)
	gw[1].hears("10.1.0.7/32 via 192.0.2.1 dc1 seq 3", "2001:db8:1::7/128 via 2001:db8:ff::1 dc1 seq 3",
		"10.2.0.7/32 via 192.0.2.1 dc1 tenant 2")
	// It moves. The reflector hands on one of the two that announce it, and that must be the new one.
	gw[1].lives(host("10.1.0.7"), mac(macA), 4)
	gw[0].hears("10.1.0.7/32 via 192.0.2.2 dc2 seq 4")
	gw[0].leaves(host("10.1.0.7"))
	gw[1].hears("2001:db8:1::7/128 via 2001:db8:ff::1 dc1 seq 3", "10.2.0.7/32 via 192.0.2.1 dc1 tenant 2")
	for _, key := range []route.Key{host("2001:db8:1::7"), route.KeyOf(2, addr("10.2.0.7"))} {
		gw[0].leaves(key)
	}
	gw[1].hears()
}

// A plain router as neighbour: its host routes with whatever communities it sends, and what it is sent.
func TestPlainRouter(t *testing.T) {
	t.Parallel()
	port := freePort(t)
	n := passive(to(5, port, IPv4, IPv6))
	n.NextHops = []netip.Addr{addr("203.0.113.1"), addr("2001:db8:3::1")}
	n.Export = Policy{Prefixes: []netip.Prefix{prefix("10.1.0.0/25"), prefix("2001:db8:1::/64")}, Communities: []string{"65000:100", "65000:1:2"}}
	g := start(t, configOf(1, port, n))
	g.lives(host("10.1.0.7"), mac(macA), 3)
	g.lives(host("2001:db8:1::7"), mac(macA), 3)
	g.lives(host("10.1.0.200"), mac(macB), 0) // the policy refuses it
	p := raw(t, 5, port, true)
	found := make(map[string]*bgp.BGPUpdate)
	if err := p.Await(limit, "both routes and the end marks", func(m *bgp.BGPMessage) bool {
		u, ok := m.Body.(*bgp.BGPUpdate)
		if !ok {
			return false
		}
		for _, r := range u.NLRI {
			found[r.NLRI.String()] = u
		}
		for _, a := range u.PathAttributes {
			if reach, ok := a.(*bgp.PathAttributeMpReachNLRI); ok {
				for _, r := range reach.Value {
					found[r.NLRI.String()] = u
				}
			}
		}
		return len(found) == 2
	}); err != nil {
		t.Fatalf("%v; got %v", err, found)
	}
	for text, hop := range map[string]string{"10.1.0.7/32": "203.0.113.1", "2001:db8:1::7/128": "2001:db8:3::1"} {
		u := found[text]
		if u == nil {
			t.Fatalf("no %s in %v", text, found)
		}
		a := decodeAttributes(u.PathAttributes)
		slices.Sort(a.communities)
		if a.nextHop != addr(hop) || !slices.Equal(a.communities, []string{"65000:100", "65000:1:2"}) ||
			a.color != 7001 || !a.encapUsable || a.sequence != 3 || a.routerMAC != mac("02:00:00:00:00:01") {
			t.Errorf("%s: %+v", text, a)
		}
	}

	// And the other way round.
	v4 := func(s string) bgp.NLRI {
		r, err := bgp.NewIPAddrPrefix(prefix(s))
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	update := func(f bgp.Family, hop string, communities [][8]byte, nlri ...bgp.NLRI) {
		t.Helper()
		m, err := bgptest.Update(65005, addr(hop), f, communities, nlri...)
		if err != nil {
			t.Fatal(err)
		}
		send(t, p, m)
	}
	update(bgp.RF_IPv4_UC, "192.0.2.5", nil, v4("10.1.0.70/32"), v4("0.0.0.0/0"), v4("10.1.0.1/32"), v4("127.0.0.1/32"))
	update(bgp.RF_IPv6_UC, "2001:db8:ff::5", [][8]byte{encapsulation(route.VXLAN), color(99)}, v4("2001:db8:1::70/128"))
	update(bgp.RF_IPv6_UC, "::ffff:192.0.2.5", nil, v4("2001:db8:1::71/128"))
	update(bgp.RF_IPv4_UC, "192.0.2.5", [][8]byte{{3, 0x0c, 0, 0, 0, 0, 0, 10}}, v4("10.1.0.72/32")) // MPLS only
	g.hears("10.1.0.70/32 via 192.0.2.5", "2001:db8:1::70/128 via 2001:db8:ff::5", "2001:db8:1::71/128 via 192.0.2.5")
	for deadline := time.Now().Add(5 * time.Second); g.Ignored()[badEncap] == 0 && time.Now().Before(deadline); {
		time.Sleep(5 * time.Millisecond) // nothing announces what is not taken, and this update was the last
	}
	for _, why := range []string{notHostRoute, ownAddress, badEncap} {
		if g.Ignored()[why] == 0 {
			t.Errorf("nothing was ignored because of %s: %v", why, g.Ignored())
		}
	}
	// What was taken and is refused now is gone.
	update(bgp.RF_IPv6_UC, "2001:db8:ff::5", [][8]byte{{3, 0x0c, 0, 0, 0, 0, 0, 10}}, v4("2001:db8:1::70/128"))
	g.hears("10.1.0.70/32 via 192.0.2.5", "2001:db8:1::71/128 via 192.0.2.5")
}

// Policies of EVPN neighbours: each hears and is heard only as far as its own say.
func TestPolicies(t *testing.T) {
	t.Parallel()
	port := freePort(t)
	two, three := to(2, port), to(3, port)
	two.Export.Prefixes = []netip.Prefix{prefix("10.1.0.0/25")}
	three.Export.Communities = []string{"65000:7"}
	a := start(t, configOf(1, port, two, three, passive(to(5, port))))
	import2, import3 := to(1, port), to(1, port)
	import3.Import = Policy{Communities: []string{"65000:8", "65000:7"}, Prefixes: []netip.Prefix{prefix("10.1.0.0/24")}}
	b, c := start(t, configOf(2, port, import2)), start(t, configOf(3, port, import3))
	a.lives(host("10.1.0.7"), mac(macA), 0)
	a.lives(host("10.1.0.200"), mac(macB), 0)
	a.lives(host("2001:db8:1::7"), mac(macA), 0)
	b.hears("10.1.0.7/32 via 192.0.2.1 dc1 " + macA)
	c.hears("10.1.0.7/32 via 192.0.2.1 dc1 "+macA, "10.1.0.200/32 via 192.0.2.1 dc1 "+macB)
	// The marks that tell who must not hear of it stay here.
	p := raw(t, 5, port, true)
	if err := p.Await(limit, "routes", func(m *bgp.BGPMessage) bool {
		u, ok := m.Body.(*bgp.BGPUpdate)
		if !ok || len(u.PathAttributes) == 0 {
			return false
		}
		if a := decodeAttributes(u.PathAttributes); len(a.communities) > 0 {
			t.Errorf("it hears of %v", a.communities)
		}
		return true
	}); err != nil {
		t.Error(err)
	}
}

// What FRR sends: two labels, the target of the bridge and that of the tenant, from another AS; and a MAC alone.
func TestBridgedRoutes(t *testing.T) {
	t.Parallel()
	port := freePort(t)
	c := configOf(1, port, passive(to(5, port)))
	c.Tenants[0].Segments[0].L2VNI = 10
	g := start(t, c)
	p := raw(t, 5, port, true)
	bridge := derivedTarget(65005, 10)
	announce(t, p, 5, [][8]byte{bridge, encapsulation(route.VXLAN), routerMAC(mac(macB)), mobility(2, false)}, macIP(5, macA, "10.1.0.7", 10, 7001))
	announce(t, p, 5, [][8]byte{bridge, mobility(6, false)}, macIP(5, macA, "", 10))
	announce(t, p, 5, nil, macIP(5, macB, "10.1.0.8", 10))                        // no label of the tenant's
	announce(t, p, 5, [][8]byte{{3, 0x0d}}, macIP(5, macB, "10.1.0.9", 10, 7001)) // a default gateway
	announce(t, p, 5, nil, macIP(5, "01:00:5e:00:00:01", "10.1.0.10"), macIP(5, macA, "10.1.0.1"), macIP(5, macA, "192.0.2.1"))
	g.hears("10.1.0.7/32 via 192.0.2.5 " + macA + " seq 2")
	if got := g.claims[host("10.1.0.7")].Via.Locators[0].RouterMAC; got != mac(macB) {
		t.Errorf("router MAC %s", got)
	}
	g.until("the MAC's sequence", func() error {
		if sequence, _, ok := g.Sequence(host("10.1.0.99"), mac(macA)); sequence != 6 || !ok {
			return errStillUp
		}
		return nil
	})
	g.until("what is only bridged there is named", func() error {
		if g.Ignored()[bridgedOnly] != 1 {
			return fmt.Errorf("ignored: %v", g.Ignored())
		}
		return nil
	})
	withdraw(t, p, macIP(5, macA, "10.1.0.7", 0), macIP(5, macA, "", 0)) // withdrawals carry no label
	g.hears()
	if _, _, ok := g.Sequence(host("10.1.0.7"), mac(macA)); ok {
		t.Error("the MAC is remembered")
	}
	// We are told of such a host by both labels, and that its bridge ends here.
	g.lives(host("10.1.0.70"), mac(macB), 1)
	var seen [4]bool
	if err := p.Await(limit, "types 2 and 3", func(m *bgp.BGPMessage) bool {
		u, ok := m.Body.(*bgp.BGPUpdate)
		if !ok {
			return false
		}
		for _, attr := range u.PathAttributes {
			reach, ok := attr.(*bgp.PathAttributeMpReachNLRI)
			for i := 0; ok && i < len(reach.Value); i++ {
				a := decodeAttributes(u.PathAttributes)
				n := reach.Value[i].NLRI.(*bgp.EVPNNLRI)
				switch r := n.RouteTypeData.(type) {
				case *bgp.EVPNMacIPAdvertisementRoute:
					seen[2] = slices.Equal(r.Labels, []uint32{10, 7001}) && a.nextHop == addr("192.0.2.1") &&
						slices.Equal(a.targets, []community{derivedTarget(65001, 7001), derivedTarget(65001, 10)})
				case *bgp.EVPNMulticastEthernetTagRoute:
					seen[3] = r.IPAddress == addr("192.0.2.1") && slices.Equal(a.targets, []community{derivedTarget(65001, 10)})
				}
			}
		}
		return seen[2] && seen[3]
	}); err != nil {
		t.Error(err)
	}
}

// The library's index of MACs grows with every route it hears, and is emptied.
func TestIndexIsEmptied(t *testing.T) {
	t.Parallel()
	port := freePort(t)
	g := start(t, configOf(1, port, passive(to(5, port))))
	p := raw(t, 5, port, true)
	g.lives(host("10.1.0.70"), mac(macB), 1)
	for n := range 1200 {
		var list []bgp.NLRI
		for i := range 60 {
			list = append(list, macIP(5, fmt.Sprintf("02:00:00:00:%02x:%02x", n%8, i), fmt.Sprintf("10.2.%d.%d", n%8, i)))
		}
		announce(t, p, 5, [][8]byte{mobility(uint32(n), false)}, list...)
	}
	g.await(t, "the last announcements", func() bool {
		return len(g.claims) == 8*60 && g.claims[host("10.2.7.59")].Sequence == 1199
	})
	g.Source.mu.Lock()
	index := g.speaking.index
	g.Source.mu.Unlock()
	g.until("the index to have been emptied", func() error {
		if n := index.len(); n == 0 || n > 1200*60/2 { // it may have been emptied a little earlier than it must
			return fmt.Errorf("it has %d entries", n)
		}
		return nil
	})
}

// Gateways of one site share a host: their locators are merged. Others contend by sequence, then by locator.
func TestMerge(t *testing.T) {
	t.Parallel()
	port := freePort(t)
	rr := []int{9}
	reflector(t, 9, port, 1, 2, 3, 4)
	g := start(t, client(1, port, rr...))
	site := func(n int, name string) *gateway {
		c := client(n, port, rr...)
		c.Site = name
		return start(t, c)
	}
	two, three, four := site(2, "dc2"), site(3, "dc2"), site(4, "dc3")
	key := host("10.1.0.7")
	two.lives(key, mac(macA), 1)
	three.lives(key, mac(macA), 1)
	g.hears("10.1.0.7/32 via 192.0.2.2 192.0.2.3 dc2 " + macA + " seq 1")
	four.lives(key, mac(macA), 1) // equal: the lowest locator, with its site
	four.lives(host("10.1.0.8"), mac(macB), 0)
	g.hears("10.1.0.7/32 via 192.0.2.2 192.0.2.3 dc2 "+macA+" seq 1", "10.1.0.8/32 via 192.0.2.4 dc3 "+macB)
	two.leaves(key)
	g.hears("10.1.0.7/32 via 192.0.2.3 dc2 "+macA+" seq 1", "10.1.0.8/32 via 192.0.2.4 dc3 "+macB)
	three.leaves(key)
	g.hears("10.1.0.7/32 via 192.0.2.4 dc3 "+macA+" seq 1", "10.1.0.8/32 via 192.0.2.4 dc3 "+macB)
	// A neighbour of the same site is no other place for a host to be at.
	two.until("only the other site to have it", func() error {
		if sequence, elsewhere, ok := two.Sequence(key, mac(macA)); sequence != 1 || !elsewhere || !ok {
			return fmt.Errorf("%d %v %v", sequence, elsewhere, ok)
		}
		return nil
	})
	three.lives(host("10.1.0.9"), mac(macB), 2)
	two.until("the neighbour's host", func() error {
		if sequence, elsewhere, ok := two.Sequence(host("10.1.0.9"), mac(macB)); sequence != 2 || elsewhere || !ok {
			return errStillUp
		}
		return nil
	})
	// Pinned outranks any sequence.
	pinned := route.Claim{Key: key, Local: &route.Local{Link: 7}, MAC: mac(macB), Pinned: true}
	two.decide(route.Decision{Claim: pinned, Source: "api"})
	g.await(t, "the pinned one", func() bool {
		return slices.Contains(g.words(), "10.1.0.7/32 via 192.0.2.2 dc2 "+macB+" pinned")
	})
}
