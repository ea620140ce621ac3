package datapath

import (
	"net/netip"
	"testing"

	"roam/loader/route"
	"roam/maps"
)

// wayOf is what the tries say of a host of a tenant and a destination, as the program reads them: by the longest prefixes.
func (w *tableWorld) wayOf(tenant route.TenantID, host, other string) uint32 {
	w.Helper()
	longest := func(space uint16, text string) (value uint32) {
		a, best := netip.MustParseAddr(text), -1
		must(w.T, w.table.prefixes.Each(func(s uint16, p netip.Prefix, v uint32) bool {
			if s == space && p.Contains(a) && p.Bits() > best {
				best, value = p.Bits(), v
			}
			return true
		}))
		return value
	}
	list := longest(maps.SpaceEgress+w.table.tenants.ids[tenant], host)
	if list == 0 {
		return 0
	}
	return longest(uint16(list), other)
}

func tunnelEnds(addresses ...string) (list []route.Locator) {
	for _, a := range addresses {
		list = append(list, route.Locator{Address: netip.MustParseAddr(a), Priority: 1, Weight: 100})
	}
	return list
}

// Policies lie in the tries as the program looks for them, survive a restart in place, and give back their next hops.
func TestEgress(t *testing.T) {
	w := newTableWorld(t)
	must(t, w.table.setOwn([]netip.Addr{netip.MustParseAddr("192.0.2.1")}))
	p := func(s string) netip.Prefix { return netip.MustParsePrefix(s) }
	spec := []TenantSpec{
		{ID: 1, Egress: []EgressSpec{
			{From: p("10.1.0.0/24"), Ways: []WaySpec{{Prefix: p("0.0.0.0/0"), Via: tunnelEnds("192.0.2.2")}, {Prefix: p("10.1.0.0/24"), Subnet: true}, {Prefix: p("198.51.100.9/32"), Via: tunnelEnds("192.0.2.1")}}},
			{From: p("10.1.0.66/32"), Ways: []WaySpec{{Prefix: p("0.0.0.0/0")}}},
			{From: p("2001:db8:1::/64"), Ways: []WaySpec{{Prefix: p("::/0"), Via: tunnelEnds("192.0.2.2", "192.0.2.3")}}},
		}},
		{ID: 2, Egress: []EgressSpec{{From: p("10.1.0.0/24"), Ways: []WaySpec{{Prefix: p("0.0.0.0/0"), Via: tunnelEnds("192.0.2.2")}}}}},
	}
	check := func(during string) {
		t.Helper()
		for _, c := range []struct {
			host, other string
			kind        uint8
			word        uint32
		}{
			{host: "10.1.0.7", other: "203.0.113.7", kind: maps.KindAdjacency},
			{host: "10.1.0.7", other: "10.1.0.8", word: maps.WaySubnet},
			{host: "10.1.0.7", other: "198.51.100.9", word: maps.WayHere},
			{host: "10.1.0.66", other: "203.0.113.7", word: maps.WayLocal},
			{host: "2001:db8:1::7", other: "2001:db8:9::9", kind: maps.KindSet},
			{host: "10.2.0.7", other: "203.0.113.7"},
		} {
			way := w.wayOf(1, c.host, c.other)
			target, _ := w.table.nexthops.Target(way)
			if target.Kind != c.kind || c.kind == 0 && way != c.word {
				t.Errorf("%s: %s with %s: way %d, %+v", during, c.host, c.other, way, target)
			}
		}
		if a, b := w.wayOf(1, "10.1.0.7", "203.0.113.7"), w.wayOf(2, "10.1.0.7", "203.0.113.7"); a == b || b == 0 {
			t.Errorf("%s: two tenants go by %d and %d", during, a, b)
		}
	}
	must(t, w.table.setEgress(spec))
	check("set")
	before := w.table.nexthops.Len()
	must(t, w.table.setEgress(spec))
	check("set again")
	way, list := w.wayOf(1, "10.1.0.7", "203.0.113.7"), w.table.egress[entryKey{maps.SpaceEgress + w.table.tenants.ids[1], p("10.1.0.0/24")}]

	w.restart()
	w.settle()
	check("restarted")
	must(t, w.table.setOwn([]netip.Addr{netip.MustParseAddr("192.0.2.1")}))
	must(t, w.table.setEgress(spec))
	w.settle()
	check("restarted and set")
	if now := w.wayOf(1, "10.1.0.7", "203.0.113.7"); now != way {
		t.Errorf("after a restart way %d, before it %d", now, way)
	}
	if now := w.table.egress[entryKey{maps.SpaceEgress + w.table.tenants.ids[1], p("10.1.0.0/24")}]; now != list {
		t.Errorf("after a restart list %d, before it %d", now, list)
	}

	spec[0].Egress = spec[0].Egress[1:] // the subnet's goes, the exception stays
	must(t, w.table.setEgress(spec))
	if way := w.wayOf(1, "10.1.0.7", "203.0.113.7"); way != 0 {
		t.Errorf("without the policy by %d", way)
	}
	if way := w.wayOf(1, "10.1.0.66", "203.0.113.7"); way != maps.WayLocal {
		t.Errorf("the exception is %d", way)
	}
	must(t, w.table.setEgress(nil))
	w.settle()
	if n := len(w.table.egress); n != 0 {
		t.Errorf("%d entries are left", n)
	}
	left := 0
	must(t, w.table.prefixes.Each(func(uint16, netip.Prefix, uint32) bool { left++; return true }))
	if n := w.table.nexthops.Len(); left != 0 || n != 0 {
		t.Errorf("%d prefixes and %d of %d next hops are left", left, n, before)
	}
}

// A way of a site none of whose locators may be used is no way, and never another one.
func TestEgressWithoutALocator(t *testing.T) {
	w := newTableWorld(t)
	unusable := tunnelEnds("192.0.2.2")
	unusable[0].Priority = route.Unusable
	must(t, w.table.setEgress([]TenantSpec{{ID: 1, Egress: []EgressSpec{{
		From: netip.MustParsePrefix("10.1.0.0/24"), Ways: []WaySpec{{Prefix: netip.MustParsePrefix("0.0.0.0/0"), Via: unusable}},
	}}}}))
	if way := w.wayOf(1, "10.1.0.7", "203.0.113.7"); way != maps.IDBlackhole {
		t.Errorf("way %d", way)
	}
}
