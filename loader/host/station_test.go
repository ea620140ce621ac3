package host

import (
	"net/netip"
	"slices"
	"testing"

	"roam/loader/route"
)

// A station that says by RARP that it is here is asked for the addresses that it had here, and for those that others announce with its MAC.
func TestArrival(t *testing.T) {
	m := newModel(t, frozenSegment())
	m.known = func(_ route.TenantID, mac route.MAC) []netip.Addr {
		if mac == macA {
			return addrs("2001:db8:1::7", "10.1.0.9", "192.0.2.1") // one of them is no host of this segment
		}
		return nil
	}
	m.found("10.1.0.7", macA)
	m.found("10.1.0.8", macA)
	m.found("10.1.0.8", macB)
	m.pass(verdict)
	m.has("10.1.0.8", macB)
	m.gone("10.1.0.7")
	arrive := func(mac route.MAC) (list []netip.Addr) {
		m.asked = nil
		m.heed(Sign{Kind: SignRARP, Tenant: 1, Link: "lan0", MAC: mac})
		for _, e := range m.asked {
			list = append(list, e.addr)
		}
		slices.SortFunc(list, netip.Addr.Compare)
		return list
	}
	if got := arrive(macA); !slices.Equal(got, addrs("10.1.0.7", "10.1.0.9", "2001:db8:1::7")) {
		t.Errorf("asked for %v", got)
	}
	if got := arrive(macB); len(got) != 0 || len(m.contests) != 0 {
		t.Errorf("asked for %v", got)
	}
	if got := arrive(segment().NotHost[0]); len(got) != 0 {
		t.Errorf("asked for %v", got)
	}

	for i := range 2 * maxBound {
		st := station{3, route.MAC{6, 0, byte(i >> 24), byte(i >> 16), byte(i >> 8), byte(i)}}
		m.unbind(told{sighting: sighting{station: st, key: hostKey(1, netip.MustParseAddr("10.1.0.7"))}})
	}
	a, st := netip.MustParseAddr("2001:db8:1::1:0"), station{3, macA}
	for range 2 * maxAddresses {
		m.unbind(told{sighting: sighting{station: st, key: hostKey(1, a)}})
		m.unbind(told{sighting: sighting{station: st, key: hostKey(1, a)}})
		a = a.Next()
	}
	if last := m.bound[st]; len(m.bound) != maxBound || len(last) != maxAddresses || last[maxAddresses-1].Next() != a {
		t.Errorf("%d stations are remembered, of one %v", len(m.bound), last)
	}
}

// One address of a station has moved here: its others, which the site that it left lets go with it, are looked for at once.
func TestSiblingsAreLookedFor(t *testing.T) {
	m := newModel(t, segment())
	m.known = func(route.TenantID, route.MAC) []netip.Addr { return addrs("10.1.0.7", "10.1.0.8", "2001:db8:1::7") }
	for _, addr := range m.known(1, macA) {
		m.elsewhere(addr.String(), macA, 3)
	}
	m.found("10.1.0.7", macA)
	var asked []netip.Addr
	for _, e := range m.asked {
		asked = append(asked, e.addr)
	}
	slices.SortFunc(asked, netip.Addr.Compare)
	if !slices.Equal(asked, addrs("10.1.0.8", "2001:db8:1::7")) {
		t.Errorf("asked for %v", asked)
	}
	m.asked = nil
	m.found("10.1.0.7", macA) // is no news
	m.found("10.1.0.9", macB) // has not moved
	if len(m.asked) != 0 {
		t.Errorf("asked for %v", m.asked)
	}
}
