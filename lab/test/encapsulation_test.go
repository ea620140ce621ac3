package lab_test

import (
	"fmt"
	"testing"

	"roam/lab"
	"roam/loader/route"
)

// dissector is how tshark names what an encapsulation puts behind the outer IP header; GUE it does not know.
var dissector = map[route.Encap]string{
	route.VXLAN: "vxlan", route.VXLANGPE: "vxlan", route.Geneve: "geneve", route.GeneveL2: "geneve",
	route.GRE: "gre", route.GRENoKey: "gre", route.IPIP: "ip", route.GUE: "udp.port == 6080", route.LISP: "lisp-data",
}

// TestEncapsulations changes the encapsulation between two gateways under way, through all of them and over both underlays: hosts
// reach each other in both families, each gateway takes one hop, and tshark finds nothing malformed and no wrong checksum.
func TestEncapsulations(t *testing.T) {
	t.Parallel()
	for _, underlay6 := range []bool{false, true} {
		t.Run(fmt.Sprintf("underlay6=%v", underlay6), func(t *testing.T) {
			s := up(t, lab.Options{NoRoutes: true, Underlay6: underlay6})
			for e := route.VXLAN; e.Valid() == nil; e++ {
				speak(t, s, e)
			}
		})
	}
}

// speak has both gateways reach each other by an encapsulation, and looks at traffic that does.
func speak(t *testing.T, s *lab.Sites, e route.Encap) {
	t.Helper()
	for _, g := range s.GW {
		g.Config.Peers[0].Locators[0].Encap = e.String()
		g.WriteConfig()
		g.MustCtl("reload")
	}
	for _, h := range s.Hosts {
		for _, ip := range h.IPs() {
			s.GW[1-h.Site].MustCtl("route", "add", ip.String(), "--site", lab.SiteNames[h.Site])
		}
	}
	h11, h21 := s.H("h11"), s.H("h21")
	reach(t, s, [2]*lab.Host{h11, h21}, [2]*lab.Host{h21, h11})
	c := s.Switch.Capture("gw1-wan", "not arp and not icmp6")
	list := flows(s, h11, h21, 400)
	progress(list, 50) // a hundred each: in a tunnel over IPv6 the IPv4 half is all that tshark finds as "ip"
	lossless(t, s, list, 62, e.String())
	c.Stop()
	if faults := c.Faults(); len(faults) > 0 {
		t.Errorf("%s: %d broken packets, such as %q", e, len(faults), faults[:min(3, len(faults))])
	}
	if rows := c.Fields(dissector[e], "frame.number"); len(rows) < 200 {
		t.Errorf("%s: tshark knows only %d packets as %s", e, len(rows), dissector[e])
	}
}
