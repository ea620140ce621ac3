package lab_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"roam/lab"
)

// Ways to tell the gateways that a host lives at a site now. Each is told the destination first.
var movers = []struct {
	name    string
	options lab.Options
	prepare func(s *lab.Sites, h *lab.Host)
	tell    func(s *lab.Sites, g *lab.Gateway, h *lab.Host, here bool, site int)
}{
	{
		name: "roamctl host move",
		tell: func(_ *lab.Sites, g *lab.Gateway, h *lab.Host, _ bool, site int) {
			for _, ip := range h.IPs() {
				g.MustCtl("host", "move", ip.String(), "--to", lab.SiteNames[site])
			}
		},
	},
	{
		name: "route file",
		tell: func(_ *lab.Sites, g *lab.Gateway, h *lab.Host, here bool, site int) {
			for _, ip := range h.IPs() {
				if here {
					g.Route(lab.HostRoute(ip), "")
				} else {
					g.Route(lab.HostRoute(ip), lab.SiteNames[site])
				}
			}
		},
	},
	{
		name:    "roamctl route",
		options: lab.Options{NoRoutes: true},
		prepare: func(s *lab.Sites, _ *lab.Host) {
			for _, h := range s.Hosts {
				for _, ip := range h.IPs() {
					s.GW[1-h.Site].MustCtl("route", "add", ip.String(), "--site", lab.SiteNames[h.Site])
				}
			}
		},
		tell: func(_ *lab.Sites, g *lab.Gateway, h *lab.Host, here bool, site int) {
			for _, ip := range h.IPs() {
				if here {
					g.MustCtl("route", "del", ip.String())
				} else {
					g.MustCtl("route", "add", ip.String(), "--site", lab.SiteNames[site])
				}
			}
		},
	},
	{
		name:    "kernel table",
		options: lab.Options{NoRoutes: true, FIBTable: 100, Dual: true},
		prepare: func(s *lab.Sites, _ *lab.Host) {
			for _, h := range s.Hosts {
				for _, ip := range h.IPs() {
					s.GW[1-h.Site].IP(kernelRoute("replace", ip.Is4(), lab.HostRoute(ip), h.Site))
				}
			}
		},
		tell: func(_ *lab.Sites, g *lab.Gateway, h *lab.Host, here bool, site int) {
			for _, ip := range h.IPs() {
				if here {
					g.IP(kernelRoute("del", ip.Is4(), lab.HostRoute(ip), 1-site))
				} else {
					g.IP(kernelRoute("replace", ip.Is4(), lab.HostRoute(ip), site))
				}
			}
		},
	},
}

func kernelRoute(verb string, ipv4 bool, prefix string, site int) string {
	via := fmt.Sprintf("2001:db8:ff::%d", site+1)
	if ipv4 {
		via = fmt.Sprintf("192.0.2.%d", site+1)
	}
	return fmt.Sprintf("route %s %s via %s dev wan0 table 100", verb, prefix, via)
}

// TestMoveLosesNothing moves a host to the other site and back while it receives 1,000 packets a second, the gateways
// being told in each way there is. To tell what gateways lose from what a host misses while its cable is moved, its
// twin stands ready at the other site: every packet must reach one of the two, once.
//
// Three senders: one at the destination, one on the host's old LAN, whose frames go to a MAC that is no longer there,
// and one at a third site that never hears of the move, so that the old gateway has to send its packets on.
func TestMoveLosesNothing(t *testing.T) {
	t.Parallel()
	for _, mover := range movers {
		t.Run(mover.name, func(t *testing.T) {
			s := lab.NewSites(t, bins, mover.options)
			h11, h12, h21 := s.H("h11"), s.H("h12"), s.H("h21")
			third := s.Third(h11)
			s.Up()
			if mover.prepare != nil {
				mover.prepare(s, h11)
			}
			gw1, gw2 := s.GW[lab.DC1], s.GW[lab.DC2]
			reach(t, s, [2]*lab.Host{h21, h11}, [2]*lab.Host{h11, h21}, [2]*lab.Host{h12, h11}, [2]*lab.Host{third, h11})

			twin := s.Twin(h11, lab.DC2)
			var list, neighbour []*lab.Flow
			for i := range 2 {
				neighbour = append(neighbour, s.Flow(h12.Namespace, h12.IPs()[i], h11.Namespace, h11.IPs()[i], 100, 100))
				list = append(list,
					s.Flow(h21.Namespace, h21.IPs()[i], h11.Namespace, h11.IPs()[i], 200, 100),
					s.Flow(third.Namespace, third.IPs()[i], h11.Namespace, h11.IPs()[i], 200, 100))
			}
			list = append(list, neighbour...)
			for _, f := range list {
				f.Or(twin.Namespace)
			}
			progress(list, 50)
			before := gw1.Counters()
			mover.tell(s, gw2, h11, true, lab.DC2)
			progress(list, 50)
			mover.tell(s, gw1, h11, false, lab.DC2)
			progress(list, 50)
			s.Unplug(h11)
			progress(list, 50)
			if moved := gw1.Counters().Since(before); moved["fwd_reencap"] < 50 {
				t.Errorf("the old gateway sent on only %d packets: %v", moved["fwd_reencap"], moved)
			}

			// Back. Plugged in again, h11 would get the neighbour's flooded frames in addition to what goes its way.
			list = slices.DeleteFunc(list, func(f *lab.Flow) bool { return slices.Contains(neighbour, f) })
			lossless(t, s, neighbour, 0, "from the old LAN")
			s.Replug(h11, lab.DC1)
			mover.tell(s, gw1, h11, true, lab.DC1)
			progress(list, 50)
			mover.tell(s, gw2, h11, false, lab.DC1)
			progress(list, 50)
			s.Unplug(twin)
			progress(list, 50)
			lossless(t, s, list, 0, "there and back")
		})
	}
}

// TestHoldEnds: what a tunnel brings for a host that left is sent on for the hold time, and then no longer: by then
// everybody knows, or two gateways would play ball with it.
func TestHoldEnds(t *testing.T) {
	s := lab.NewSites(t, bins, lab.Options{})
	h11 := s.H("h11")
	third := s.Third(h11)
	gw1 := s.GW[lab.DC1]
	gw1.Config.Hold = "1s"
	s.Up()
	reach(t, s, [2]*lab.Host{third, h11}, [2]*lab.Host{s.H("h21"), h11})
	before := gw1.Counters()
	list := []*lab.Flow{
		s.Flow(third.Namespace, third.IP4, h11.Namespace, h11.IP4, 100, 100),
		s.Flow(third.Namespace, third.IP6, h11.Namespace, h11.IP6, 100, 100),
	}
	s.Move(h11, lab.DC2) // under way, or a busy machine has the hold end before the first packet
	s.Until(10*time.Second, "gw1 stops sending on", func() error {
		moved := gw1.Counters().Since(before)
		if moved["fwd_reencap"] == 0 || moved["drop_tunnel_loop"] < 50 {
			return fmt.Errorf("counted %v", moved)
		}
		return nil
	})
	for _, f := range list {
		if r := f.Stop(); r.Received == 0 || r.Lost() == 0 {
			t.Errorf("flow %s: %v", f, r)
		}
	}
}

// TestReplug is a move as it feels to a guest: the cable changes bridges, the gateways are told, and a TCP stream and
// a ping live through it.
func TestReplug(t *testing.T) {
	s := up(t, lab.Options{})
	h11, h12, h21 := s.H("h11"), s.H("h12"), s.H("h21")
	reach(t, s, [2]*lab.Host{h21, h11}, [2]*lab.Host{h12, h11})
	streams := []*lab.Stream{
		s.Stream(h21.Namespace, h11.Namespace, h11.IP4, 1<<20),
		s.Stream(h11.Namespace, h12.Namespace, h12.IP6, 1<<20),
	}
	echo := s.Echo(h12.Namespace, h11.IP4, 10*time.Millisecond)
	echo.AwaitReplies(20, 5*time.Second)
	for _, site := range []int{lab.DC2, lab.DC1, lab.DC2} {
		s.Move(h11, site)
		echo.AwaitReplies(50, 10*time.Second)
	}
	r := echo.Stop()
	t.Logf("ping: %v", r)
	if r.Gap > 2*time.Second {
		t.Errorf("ping over three moves: %v", r)
	}
	for _, stream := range streams {
		r := stream.Stop()
		t.Logf("%s: %v", stream, r)
		if !r.Whole {
			t.Errorf("%s: %v\n%s", stream, r, state(s))
		}
	}
}
