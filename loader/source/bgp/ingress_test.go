package bgp

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// Where packets for a host are to come in at another site, a router here does not hear of it; other gateways and reflectors do.
func TestIngressElsewhere(t *testing.T) {
	t.Parallel()
	port := freePort(t)
	router := passive(to(5, port, IPv4))
	router.NextHops = []netip.Addr{addr("203.0.113.1")}
	c := configOf(1, port, to(2, port, EVPN, IPv4), router)
	c.Tenants[0].Ingress = []Ingress{
		{Hosts: prefix("10.1.0.0/24"), Elsewhere: true}, {Hosts: prefix("10.1.0.8/30"), Elsewhere: false}, {Hosts: prefix("10.1.0.11/32"), Elsewhere: true},
	}
	sender, err := newTranslator(&c)
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string][]uint32{"10.1.0.7": {1}, "10.1.0.9": nil, "10.1.0.11": {1}, "10.9.0.1": nil} {
		paths, err := newAnnouncer(&c, sender).routes(host(text), lodger{mac: mac(macA)})
		if err != nil || len(paths) != 2 {
			t.Fatalf("%s: %d paths, %v", text, len(paths), err)
		}
		for _, p := range paths {
			var marks []uint32
			for _, a := range p.Attrs {
				if large, ok := a.(*bgp.PathAttributeLargeCommunities); ok {
					for _, m := range large.Values {
						marks = append(marks, m.LocalData2)
					}
				}
			}
			if p.Family == bgp.RF_EVPN && marks != nil || p.Family != bgp.RF_EVPN && !slices.Equal(marks, want) {
				t.Errorf("%s, %s: kept from neighbours %v, want %v", text, p.Family, marks, want)
			}
		}
	}

	c.Neighbors = c.Neighbors[1:]
	g := start(t, c)
	p := raw(t, 5, port, true)
	heard := map[string]bool{}
	for _, text := range []string{"10.1.0.7", "10.1.0.9", "10.1.0.10"} { // what is announced later is heard later
		g.lives(host(text), mac(macA), 0)
		if text == "10.1.0.7" {
			continue
		}
		if err := p.Await(limit, text, func(m *bgp.BGPMessage) bool {
			if u, ok := m.Body.(*bgp.BGPUpdate); ok {
				for _, r := range u.NLRI {
					heard[r.NLRI.String()] = true
				}
			}
			return heard[text+"/32"]
		}); err != nil {
			t.Fatalf("%v; heard %v", err, heard)
		}
	}
	if heard["10.1.0.7/32"] {
		t.Errorf("the router heard of a host whose packets come in elsewhere: %v", heard)
	}
}
