package lab

import "fmt"

// Sibling gives dc1 a second gateway, gw1b, on the same segment, before Up:
//
//	   h11 .11   h12 .12
//	     |         |
//	=====+====+====+====+===== lan1
//	          |         |
//	     ( lan1-a ) ( lan1-b )    each gateway has a switch of its own: when it dies, no port of lan1 goes down
//	      lan0|         |lan0
//	        [gw1]    [gw1b]
//	     wan0|           |wan0    192.0.2.1 and 192.0.2.11
//	         ( wan ... gw2 )
//
// All three speak BGP with each other, in one AS.
func (s *Sites) Sibling(bins Binaries) *Gateway {
	s.Helper()
	g := s.Gateway("gw1b", bins)
	routes := g.Config.RouteFile
	first := s.GW[DC1].Config
	first.Socket, first.Pin, first.Metrics, first.RouteFile = g.Config.Socket, g.Config.Pin, g.Config.Metrics, routes
	g.Config = first
	g.Config.RouterMAC = "02:00:00:00:00:0b"
	g.Config.Locators = []string{"192.0.2.11"}
	g.Config.Own = []string{"10.1.0.4", "2001:db8:1::4"}
	s.Cable(End{In: g.Namespace, Name: "lan0"}, End{In: s.Switch, Name: "gw1b-lan", Bridge: "lan1"}, hostMTU, 1)
	s.Cable(End{In: g.Namespace, Name: "wan0"}, End{In: s.Switch, Name: "gw1b-wan", Bridge: "wan"}, s.underlayMTU(), 1)
	g.Addresses("wan0", "192.0.2.11/24", "2001:db8:ff::11/64")

	for gateway, own := range map[string]string{"gw1": "lan1-a", "gw1b": "lan1-b"} {
		s.Switch.Bridge(own, hostMTU)
		s.Cable(End{In: s.Switch, Name: gateway + "-up", Bridge: own}, End{In: s.Switch, Name: gateway + "-down", Bridge: "lan1"}, hostMTU, 1)
		s.Switch.Plug(gateway+"-lan", own)
	}

	if s.FRR != nil {
		s.siblingOfFRR(g)
		return g
	}
	far := &s.GW[DC2].Config.Peers[0]
	far.Locators = append(far.Locators, PeerLocator{Address: "192.0.2.11", RouterMAC: g.Config.RouterMAC, Priority: 1})
	mesh := map[string]*Gateway{"192.0.2.1": s.GW[DC1], "192.0.2.2": s.GW[DC2], "192.0.2.11": g}
	for own, gateway := range mesh {
		gateway.Config.BGP = &BGP{ASN: 65000}
		for other := range mesh {
			if other != own {
				gateway.Config.BGP.Neighbors = append(gateway.Config.BGP.Neighbors, "{address: "+other+", timers: {connect_retry: 1s}}")
			}
		}
	}
	return g
}

// siblingOfFRR has both gateways speak to each other and to FRR at dc2, of another AS. What FRR is to know of the second one is the test's to say.
func (s *Sites) siblingOfFRR(g *Gateway) {
	for c, sibling := range map[*Config]string{&s.GW[DC1].Config: "192.0.2.11", &g.Config: "192.0.2.1"} {
		c.BGP = &BGP{ASN: firstASN, Neighbors: []string{
			fmt.Sprintf("{address: %s, asn: %d}", locators4[DC2], firstASN+DC2), "{address: " + sibling + ", timers: {connect_retry: 1s}}",
		}}
	}
}
