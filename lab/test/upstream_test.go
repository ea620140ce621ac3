package lab_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"roam/lab"
)

const birdUpstream = `
router id 203.0.113.2;
log stderr all;
protocol device { scan time 1; }
protocol direct { ipv4; ipv6; interface "down"; }
protocol kernel { ipv4 { import none; export where source = RTS_BGP; }; }
protocol kernel { ipv6 { import none; export where source = RTS_BGP; }; }
protocol static { ipv4; route 10.1.0.77/32 via 198.51.100.10; route 10.99.0.77/32 via 198.51.100.10; }
protocol bgp gw1 {
	local 203.0.113.2 as 64999; neighbor 203.0.113.1 as 65001; password "secret";
	connect delay time 1; connect retry time 1; error wait time 1, 1;
	ipv4 { import all; export where source = RTS_STATIC; next hop self; };
	ipv6 { import all; export none; };
}
`

const frrUpstream = `
router bgp 64999
 bgp router-id 203.0.113.2
 no bgp default ipv4-unicast
 no bgp ebgp-requires-policy
 neighbor 203.0.113.1 remote-as 65001
 neighbor 203.0.113.1 password secret
 neighbor 203.0.113.1 timers 3 9
 neighbor 203.0.113.1 timers connect 1
 address-family ipv4 unicast
  network 10.1.0.77/32
  network 10.99.0.77/32
  neighbor 203.0.113.1 activate
 exit-address-family
 address-family ipv6 unicast
  neighbor 203.0.113.1 activate
 exit-address-family
`

// TestUpstream: a plain router beyond the uplink is told who lives here, packet by packet current: local ingress follows a
// move. What it says of hosts is taken only as far as the policy goes.
func TestUpstream(t *testing.T) {
	for name, start := range map[string]func(s *lab.Sites){
		"BIRD": func(s *lab.Sites) { startBIRDWith(s, s.R1, birdUpstream) },
		"FRR": func(s *lab.Sites) {
			s.R1.IP("route add 10.1.0.77/32 via 198.51.100.10", "route add 10.99.0.77/32 via 198.51.100.10")
			s.R1.FRR("", frrUpstream)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := lab.NewSites(t, bins, lab.Options{NoRoutes: true, Outside: true})
			gw1, gw2 := s.GW[lab.DC1], s.GW[lab.DC2]
			start(s)
			gw1.Config.BGP = &lab.BGP{ASN: 65001, Neighbors: []string{
				"{address: 192.0.2.2, asn: 65002}",
				`{address: 203.0.113.2, asn: 64999, password: secret, families: [ipv4, ipv6], next_hops: [203.0.113.1, "2001:db8:3::1"],
         import: {prefixes: [10.99.0.0/16]}}`,
			}}
			gw2.Config.BGP = &lab.BGP{ASN: 65002, Neighbors: []string{"{address: 192.0.2.1, asn: 65001}"}}
			startAll(s)
			h11, h21 := s.H("h11"), s.H("h21")
			found(s, h11, h21)
			ingress(s, h11, true)
			ingress(s, h21, false) // lives elsewhere
			reach(t, s, [2]*lab.Host{s.Out, h11})
			s.Replug(h11, lab.DC2)
			found(s, h11)
			ingress(s, h11, false)
			s.Replug(h11, lab.DC1)
			found(s, h11)
			ingress(s, h11, true)
			reach(t, s, [2]*lab.Host{s.Out, h11})
			s.Until(10*time.Second, "the host that the policy takes", func() error {
				_, err := winner(gw1, "10.99.0.77")
				return err
			})
			if c, err := winner(gw1, "10.1.0.77"); err == nil {
				t.Errorf("the policy refuses it, and it is taken: %+v", c)
			}
		})
	}
}

// ingress waits until the router has, or has not, a host's own routes, by way of the uplink.
func ingress(s *lab.Sites, h *lab.Host, want bool) {
	s.Helper()
	for i, ip := range h.IPs() {
		s.Until(20*time.Second, fmt.Sprintf("r1 routes %s by itself: %v", ip, want), func() error {
			out := s.R1.Run("ip", []string{"-4", "-6"}[i], "route", "show", ip.String())
			if strings.Contains(out, []string{"203.0.113.1", "2001:db8:3::1"}[i]) != want {
				return fmt.Errorf("it has %q\n%s", out, s.GW[lab.DC1].MustCtl("session", "list"))
			}
			return nil
		})
	}
}
