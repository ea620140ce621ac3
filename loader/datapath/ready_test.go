package datapath

import (
	"net/netip"
	"strings"
	"testing"

	"roam/loader/route"
	"roam/maps"
)

// The first route to a locator forwards from its first packet on, where the way there is known: nobody looks at the underlay in between
// here, because nobody runs the gateway. Where the way is not known, packets are counted as unresolved until it is.
func TestFirstRouteToALocatorForwards(t *testing.T) {
	s := newSite(t)
	for _, far := range []string{"10.2.0.8", "10.2.0.9"} {
		s.gw.IP("neighbour add " + far + " lladdr 02:00:00:00:00:99 dev wan0 nud permanent")
	}
	lan := SegmentSpec{
		Name: "lan", Access: PortRef{Name: "lan0"}, Subnets: prefixes("10.1.0.0/24"), Own: addresses("10.1.0.1"), MAC: route.MAC{2, 0, 0, 0, 1, 1},
	}
	g := s.gateway(Spec{
		Mode: Native, Underlay: []string{"wan0"}, Own: addresses("10.2.0.1"), Tenants: []TenantSpec{{ID: 1, VNI: 1, Segments: []SegmentSpec{lan}}},
	})
	defer s.closeGateway(g)
	kind := func(host string) uint8 {
		return g.table.nexthops.Kind(g.table.get(entryKey{testSpace, netip.MustParsePrefix(host)}))
	}
	for _, test := range []struct {
		host string
		via  *route.Via
		want uint8
	}{
		{"10.1.0.7/32", via("10.2.0.9"), maps.KindAdjacency},
		{"10.1.0.7/32", via("10.2.0.8"), maps.KindAdjacency}, // a move to where nobody is
		{"10.1.0.8/32", via("10.2.0.77"), maps.KindUnresolved},
		{"10.1.0.9/32", via("10.2.0.77"), maps.KindUnresolved}, // the second does not look again
	} {
		s.in("apply", func() error { return g.Apply(t.Context(), []route.Decision{decision(1, test.host, test.via)}) })
		if got := kind(test.host); got != test.want {
			t.Errorf("%s by %v: next hop of kind %d instead of %d", test.host, test.via.Locators[0].Address, got, test.want)
		}
	}
	s.in("confirm", func() error { _, err := g.refresh(true); return err })
	if n := s.gw.Run("ip", "neigh", "show", "10.2.0.8"); !strings.Contains(n, "PERMANENT") {
		t.Errorf("a neighbour that was set by hand is asked for: %s", n)
	}
}
