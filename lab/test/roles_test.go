package lab_test

import (
	"fmt"
	"testing"
	"time"

	"roam/lab"
)

// TestRoles runs the sites with Roam as the hosts' default router and on a stick beside another one.
func TestRoles(t *testing.T) {
	for _, role := range []string{"default", "stick"} {
		t.Run(role, func(t *testing.T) {
			s := up(t, lab.Options{Role: role, Outside: true})
			h11, h12, h21, h22 := s.H("h11"), s.H("h12"), s.H("h21"), s.H("h22")

			t.Run("every host reaches every host", func(t *testing.T) {
				for _, a := range s.Hosts {
					for _, b := range s.Hosts {
						if a != b {
							reach(t, s, [2]*lab.Host{a, b})
						}
					}
				}
			})
			t.Run("neighbours talk directly", func(t *testing.T) { direct(t, s, h11, h12) })
			t.Run("outside before a move", func(t *testing.T) {
				reach(t, s, [2]*lab.Host{s.Out, h12}, [2]*lab.Host{h12, s.Out}, [2]*lab.Host{s.Out, h22}, [2]*lab.Host{h22, s.Out})
			})
			t.Run("outside after a move", func(t *testing.T) {
				s.Move(h11, lab.DC2)
				reach(t, s, [2]*lab.Host{s.Out, h11}, [2]*lab.Host{h11, s.Out}, [2]*lab.Host{h12, h11}, [2]*lab.Host{h11, h21})
				lossless(t, s, flows(s, s.Out, h11, 400), 0, "outside and moved host")
			})
			t.Run("neighbours after a move talk directly", func(t *testing.T) {
				h11.IP("neigh flush dev eth0")
				h22.IP("neigh flush dev eth0")
				direct(t, s, h11, h22)
			})
			t.Run("unknown host", func(t *testing.T) { unknown(t, s, h11) })
		})
	}
}

// direct checks that two hosts at one site exchange packets that no gateway handles.
func direct(t *testing.T, s *lab.Sites, a, b *lab.Host) {
	reach(t, s, [2]*lab.Host{a, b}, [2]*lab.Host{b, a})
	g := s.GW[a.Site]
	before := g.Counters()
	lossless(t, s, flows(s, a, b, 1000), 64, "neighbours")
	moved := g.Counters().Since(before)
	for reason, packets := range moved {
		// ARP and ND of hosts that look each other up again is the only thing a gateway may hear.
		if packets > 20 || reason == "fwd_encap" || reason == "fwd_deliver" {
			t.Errorf("%s handled packets of neighbours: %v", g.Name, moved)
		}
	}
}

// unknown sends packets to addresses of the subnet that nobody has, from a host and through a tunnel: they must
// end, not circle.
func unknown(t *testing.T, s *lab.Sites, from *lab.Host) {
	t.Helper()
	nobody := []string{"10.1.0.99", "2001:db8:1::99"}
	// Both gateways believe that the other one has it.
	for site, g := range s.GW {
		for _, ip := range nobody {
			g.MustCtl("route", "add", ip, "--site", lab.SiteNames[1-site])
		}
	}
	c := s.Switch.Capture("gw1-wan", "udp port 4789")
	before := [2]lab.Counters{s.GW[0].Counters(), s.GW[1].Counters()}
	const sent = 5
	for _, ip := range nobody {
		_, _ = from.Try("ping", "-n", "-c", fmt.Sprint(sent), "-i", "0.01", "-W", "0.2", ip)
	}
	s.Until(5*time.Second, "the packets end", func() error {
		var ended uint64
		for site, g := range s.GW {
			moved := g.Counters().Since(before[site])
			ended += moved["drop_tunnel_loop"] + moved["drop_tunnel_back"]
		}
		if ended < 2*sent {
			return fmt.Errorf("%d of %d dropped\n%s", ended, 2*sent, state(s))
		}
		return nil
	})
	c.Stop()
	for _, filter := range []string{"vxlan && ip.dst == 10.1.0.99", "vxlan && ipv6.dst == 2001:db8:1::99"} {
		if crossings := len(c.Fields(filter, "frame.number")); crossings != sent {
			t.Errorf("%d packets crossed the underlay %d times (%s)", sent, crossings, filter)
		}
	}
	for _, g := range s.GW {
		for _, ip := range nobody {
			g.MustCtl("route", "del", ip)
		}
	}
}
