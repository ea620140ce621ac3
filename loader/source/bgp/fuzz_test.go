package bgp

import (
	"context"
	"fmt"
	"net/netip"
	"testing"

	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"roam/loader/rib"
	"roam/loader/route"
	"roam/loader/source/bgp/bgptest"
)

// updates are honest messages of what there is.
func updates(tb testing.TB) (list [][]byte) {
	tb.Helper()
	add := func(m *bgp.BGPMessage, err error) {
		raw, err2 := m.Serialize()
		if err != nil || err2 != nil {
			tb.Fatal(err, err2)
		}
		list = append(list, raw)
	}
	hop := addr("192.0.2.5")
	all := [][8]byte{
		derivedTarget(65005, 7001), encapsulation(route.VXLAN), routerMAC(mac(macB)), siteOfOrigin("dc2"),
		mobility(7, true), color(7001),
	}
	rd := bgp.NewRouteDistinguisherTwoOctetAS(65005, 7001)
	esi := bgp.EthernetSegmentIdentifier{Type: bgp.ESI_ARBITRARY, Value: []byte{1, 2, 3, 4, 5, 6, 7, 8, 9}}
	esiRoute, err := bgp.NewEVPNMacIPAdvertisementRoute(rd, esi, 3, macA, addr("10.1.0.7"), []uint32{10, 7001})
	if err != nil {
		tb.Fatal(err)
	}
	add(bgptest.Update(65005, hop, bgp.RF_EVPN, all, macIP(5, macA, "10.1.0.7"), macIP(5, macA, "2001:db8:1::7", 10, 7001),
		macIP(5, macA, ""), esiRoute))
	for p, gw := range map[string]string{"10.9.0.0/16": "0.0.0.0", "2001:db8:9::/48": "::", "10.8.0.0/16": "10.1.0.9", "0.0.0.0/0": "0.0.0.0"} {
		r, err := bgp.NewEVPNIPPrefixRoute(rd, bgp.EthernetSegmentIdentifier{}, 0, uint8(prefix(p).Bits()), prefix(p).Addr(), addr(gw), 7001)
		if err != nil {
			tb.Fatal(err)
		}
		add(bgptest.Update(65005, hop, bgp.RF_EVPN, all, r))
	}
	for p, f := range map[string]bgp.Family{"10.1.0.7/32": bgp.RF_IPv4_UC, "2001:db8:1::7/128": bgp.RF_IPv6_UC} {
		r, err := bgp.NewIPAddrPrefix(prefix(p))
		if err != nil {
			tb.Fatal(err)
		}
		add(bgptest.Update(65005, hop, f, all, r))
		add(bgptest.Withdraw(f, r))
	}
	add(bgptest.Withdraw(bgp.RF_EVPN, macIP(5, macA, "10.1.0.7", 0)))
	return list
}

// FuzzUpdate has the translation read whatever the library lets through: no panic, no claim that the RIB would
// refuse, and a table that is empty again once everything is withdrawn.
func FuzzUpdate(f *testing.F) {
	for _, raw := range updates(f) {
		f.Add(raw[bgp.BGP_HEADER_LENGTH:])
	}
	r := rib.New(rib.Options{})
	ctx, cancel := context.WithCancel(context.Background())
	f.Cleanup(cancel)
	to := r.Reporter("bgp", 100)
	go r.Run(ctx)
	c := configOf(1, 1790, to2)
	f.Fuzz(func(t *testing.T, body []byte) {
		u := new(bgp.BGPUpdate)
		if err := u.DecodeFromBytes(body); err != nil {
			return
		}
		sp := fuzzSpeaker(t, &c)
		touched := make(map[hostKey]struct{})
		for _, p := range pathsOf(u) {
			sp.pathEvent(p, sp.byPeer[0].since, touched)
		}
		changes := sp.changes(touched)
		if err := to.Report(ctx, changes); err != nil {
			t.Fatalf("the RIB refuses %+v: %v", changes, err)
		}
		for _, c := range changes {
			if !c.Withdraw && c.Host() && (sp.translate.reserved[1][c.Prefix.Addr()] || sp.translate.own[c.Prefix.Addr()]) {
				t.Fatalf("an own address was accepted: %s", c.Prefix)
			}
		}
		for _, p := range pathsOf(u) {
			sp.pathEvent(&apiutil.Path{PeerAddress: p.PeerAddress, Nlri: p.Nlri, Withdrawal: true}, sp.byPeer[0].since, touched)
		}
		if n := sp.table.len(); n != 0 || len(sp.table.hosts) != 0 || len(sp.table.macs) != 0 {
			t.Fatalf("%d paths, %d hosts, %d MACs are left", n, len(sp.table.hosts), len(sp.table.macs))
		}
	})
}

var to2 = to(5, 1790, EVPN, IPv4, IPv6)

// fuzzSpeaker is one without a library behind it, and a session that is up.
func fuzzSpeaker(t *testing.T, c *Config) *speaker {
	t.Helper()
	sp, err := newSpeaker(New(Options{Config: c}), c, nil)
	if err != nil {
		t.Fatal(err)
	}
	s := &session{Neighbor: &c.Neighbors[0], up: true}
	sp.byPeer, sp.sessions[c.Neighbors[0].Address] = []*session{s}, s
	return sp
}

// pathsOf is what the library makes of a message.
func pathsOf(u *bgp.BGPUpdate) (list []*apiutil.Path) {
	add := func(routes []bgp.PathNLRI, attrs []bgp.PathAttributeInterface, withdraw bool) {
		for _, r := range routes {
			list = append(list, &apiutil.Path{PeerAddress: to2.Address, Nlri: r.NLRI, Attrs: attrs, Withdrawal: withdraw})
		}
	}
	for _, a := range u.PathAttributes {
		switch a := a.(type) {
		case *bgp.PathAttributeMpReachNLRI:
			add(a.Value, u.PathAttributes, false)
		case *bgp.PathAttributeMpUnreachNLRI:
			add(a.Value, nil, true)
		}
	}
	add(u.NLRI, u.PathAttributes, false)
	add(u.WithdrawnRoutes, nil, true)
	return list
}

// Everything that is announced comes back as it went out, through bytes.
func TestRoundTrip(t *testing.T) {
	for _, l2vni := range []uint32{0, 10} {
		c := configOf(1, 1790, to(2, 1790, EVPN, IPv4, IPv6))
		c.Tenants[0].Segments[0].L2VNI = l2vni
		far := configOf(5, 1790, to2)
		sender, err := newTranslator(&c)
		if err != nil {
			t.Fatal(err)
		}
		announcer := newAnnouncer(&c, sender)
		for key, l := range map[route.Key]lodger{
			host("10.1.0.7"):                           {mac: mac(macA), sequence: 3},
			host("2001:db8:1::7"):                      {mac: mac(macA), sequence: 1<<32 - 1},
			host("10.99.0.7"):                          {mac: mac(macA), pinned: true},
			host("10.1.0.8"):                           {sequence: 5},
			{Tenant: 1, Prefix: prefix("10.9.0.0/16")}: {},
			{Tenant: 1, Prefix: prefix("::/0")}:        {},
			{Tenant: 1, Prefix: prefix("0.0.0.0/0")}:   {},
		} {
			paths, err := announcer.routes(key, l)
			if err != nil {
				t.Fatal(err)
			}
			sp := fuzzSpeaker(t, &far)
			touched := make(map[hostKey]struct{})
			for _, p := range paths {
				raw, err := bgp.NewBGPUpdateMessage(nil, p.Attrs, nil).Serialize()
				if err != nil {
					t.Fatal(err)
				}
				m, err := bgp.ParseBGPMessage(raw)
				if err != nil {
					t.Fatal(err)
				}
				for _, q := range pathsOf(m.Body.(*bgp.BGPUpdate)) {
					sp.pathEvent(q, sp.byPeer[0].since, touched)
				}
			}
			got, ok := sp.table.claim(keyOf(key))
			want := route.Claim{Key: key, MAC: l.mac, Sequence: l.sequence, Pinned: l.pinned, Site: "dc1", Via: got.Via}
			via := []route.Locator{{Address: addr("192.0.2.1"), Priority: 1, Weight: 100, RouterMAC: c.RouterMAC}}
			if key.Prefix.Addr().Is6() && key.Host() {
				via = append(via, via[0]) // the unicast route has the locator of its family
				via[1].Address = addr("2001:db8:ff::1")
			}
			if !ok || got != want || fmt.Sprint(got.Via.Locators) != fmt.Sprint(via) || len(touched) != 1 {
				t.Errorf("%s: got %+v %v, want %+v %v", key, got, got.Via, want, via)
			}
		}
	}
}

// The encapsulation is the configuration's where the locator is configured, else the first of those named that we carry.
func TestEncapsulation(t *testing.T) {
	c := configOf(1, 1790)
	geneve := community{3, 0x0c, 7: 19}
	mpls := community{3, 0x0c, 7: 10}
	c.Sites = append(c.Sites, Site{"dc9", []route.Locator{{Address: addr("192.0.2.99"), Encap: route.GUE, Priority: 3, Weight: 7}}})
	tr, err := newTranslator(&c)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		hop   string
		named []community
		want  route.Encap
		why   string
	}{
		{"192.0.2.5", nil, route.VXLAN, ""},
		{"192.0.2.5", []community{mpls, geneve, encapsulation(route.VXLAN)}, route.Geneve, ""},
		{"192.0.2.5", []community{mpls}, 0, badEncap},
		{"192.0.2.99", []community{geneve}, route.GUE, ""},
		{"192.0.2.99", []community{mpls}, route.GUE, ""},
		{"192.0.2.1", nil, 0, ownNextHop},
		{"224.0.0.1", nil, 0, badNextHop},
	} {
		a := attributes{nextHop: addr(test.hop)}
		for _, e := range test.named {
			a.add(e)
		}
		from, why := tr.origin(nil, a)
		if why != test.why || why == "" && (from.locator.Encap != test.want || from.locator.Address != addr(test.hop)) {
			t.Errorf("%s %x: %+v %q, want %s %q", test.hop, test.named, from, why, test.want, test.why)
		}
	}
}

// Route targets as they are written and as they travel.
func TestTargets(t *testing.T) {
	for text, want := range map[string]community{
		"65000:7001":       {0, 2, 0xfd, 0xe8, 0, 0, 0x1b, 0x59},
		"192.0.2.1:7001":   {1, 2, 192, 0, 2, 1, 0x1b, 0x59},
		"4200000000:7001":  {2, 2, 0xfa, 0x56, 0xea, 0, 0x1b, 0x59},
		"65000:4294967295": {0, 2, 0xfd, 0xe8, 0xff, 0xff, 0xff, 0xff},
	} {
		if got, err := parseTarget(text); got != want || err != nil {
			t.Errorf("%s: %x %v, want %x", text, got, err, want)
		}
	}
	c := configOf(1, 1790)
	c.Tenants = []Tenant{
		{ID: 1, VNI: 7001, RouteTargets: []string{"65000:1"}},
		{ID: 2, VNI: 7002},
		{ID: 3, VNI: 7003, Segments: []Segment{{L2VNI: 30}}},
	}
	tr, err := newTranslator(&c)
	if err != nil {
		t.Fatal(err)
	}
	for want, targets := range map[route.TenantID][]community{
		0: {derivedTarget(65009, 7001), derivedTarget(65009, 99)}, // the tenant has its own, so derived ones do not count
		1: {derivedTarget(65009, 7002), twoOctet(subRouteTarget, 65000, 1)},
		2: {derivedTarget(65009, 7002)},
		3: {derivedTarget(4200000000, 30)},
	} {
		got := route.TenantID(0)
		if tenant := tr.byTarget(targets); tenant != nil {
			got = tenant.ID
		}
		if got != want {
			t.Errorf("%x: tenant %d, want %d", targets, got, want)
		}
	}
}

// The table against one that looks at everything, over random announcements, withdrawals and sessions.
func TestTableRandom(t *testing.T) {
	const peers, steps = 4, 20000
	random, seed := newRandom(t)
	epochs, up := make([]uint32, peers), make([]bool, peers)
	tab := newTable(func(peer uint16, epoch uint32) bool { return up[peer] && epochs[peer] == epoch })
	all := make(map[pathID]path)
	for step := range steps {
		peer := uint16(random.IntN(peers))
		id := pathID{peer: peer, kind: kind(random.IntN(4)), mac: route.MAC{2, 0, 0, 0, 0, byte(1 + random.IntN(3))}, rd: [8]byte{byte(random.IntN(2))}}
		if id.kind != kindMAC {
			id.addr, id.bits = flatten(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(random.IntN(4))}), 32))
		}
		touched := make(map[hostKey]struct{})
		switch random.IntN(6) {
		case 0:
			epochs[peer]++
			up[peer] = true
		case 1:
			up[peer] = false
		case 2:
			tab.remove(id, touched)
			delete(all, id)
		default:
			p := path{pathID: id, tenant: route.TenantID(1 + random.IntN(2)), sequence: uint32(random.IntN(3)), epoch: epochs[peer], sticky: random.IntN(9) == 0}
			n := random.IntN(4)
			p.origin = tab.origin(origin{
				locator: route.Locator{Address: netip.AddrFrom4([4]byte{192, 0, 2, byte(n)})}, soo: siteOfOrigin(fmt.Sprint(n / 2)),
			})
			tab.put(p, touched)
			all[id] = p
		}
		for tenant := route.TenantID(1); tenant <= 2; tenant++ {
			key := hostKey{tenant: tenant}
			key.addr, key.bits = flatten(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(random.IntN(4))}), 32))
			var best *path
			for _, p := range all {
				if k, ok := p.key(); ok && k == key && (best == nil || tab.compare(&p, best) > 0) {
					best = &p
				}
			}
			got := tab.best(key)
			if (got == nil) != (best == nil) || best != nil && tab.compare(got, best) != 0 {
				t.Fatalf("seed %d, step %d: %+v, want %+v", seed, step, got, best)
			}
			c, ok := tab.claim(key)
			if ok != (best != nil) || ok && !viaRight(tab, all, key, best, c.Via) {
				t.Fatalf("seed %d, step %d: claim %+v of %+v", seed, step, c, best)
			}
		}
		if tab.len() != len(all) {
			t.Fatalf("seed %d, step %d: %d paths, want %d", seed, step, tab.len(), len(all))
		}
		n := 0
		tab.each(func(*path) { n++ })
		if n != len(all) {
			t.Fatalf("seed %d, step %d: each shows %d paths of %d", seed, step, n, len(all))
		}
	}
}

// viaRight checks that a claim's locators are those of all that rank with the best and are at its place.
func viaRight(tab *table, all map[pathID]path, key hostKey, best *path, via *route.Via) bool {
	want := make(map[netip.Addr]bool)
	for _, p := range all {
		if k, ok := p.key(); ok && k == key && tab.equal(&p, best) && tab.origins[p.origin].same(&tab.origins[best.origin]) {
			want[tab.origins[p.origin].locator.Address] = true
		}
	}
	for _, l := range via.Locators {
		if !want[l.Address] {
			return false
		}
	}
	return len(via.Locators) == len(want)
}
