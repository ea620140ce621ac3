package lab_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"roam/lab"
)

// TestForwardedTeachesNothing: a router at the site that a host left sends on packets of that host, in frames with its own MAC. Whether the gateway
// there was told of the router or not, nobody takes the host to be back.
func TestForwardedTeachesNothing(t *testing.T) {
	t.Parallel()
	for _, named := range []bool{true, false} {
		t.Run(fmt.Sprintf("router named: %v", named), func(t *testing.T) {
			s := lab.NewSites(t, bins, lab.Options{NoRoutes: true, Role: "stick"})
			gw1, h11, h12, h21 := s.GW[lab.DC1], s.H("h11"), s.H("h12"), s.H("h21")
			if !named {
				gw1.Config.Routers = nil
			}
			// The router has packets of the host to send on, but is not the host: it answers for none of its addresses.
			for key, value := range map[string]string{"arp_announce": "2", "arp_ignore": "1"} {
				s.R1.Sysctl("net.ipv4.conf.all."+key, value)
			}
			s.R1.IP("addr add "+lab.HostRoute(h11.IP4)+" dev lo", "addr add "+lab.HostRoute(h11.IP6)+" dev lo")
			peers(t, s, "")
			for _, h := range []*lab.Host{h11, h12, h21} {
				h.Announce()
				homeAt(s, h.Site, h.IPs()...)
			}
			s.Replug(h11, lab.DC2)
			h11.Announce()
			homeAt(s, lab.DC2, h11.IPs()...)
			told := len(aboutHost(s, h11))
			if told == 0 {
				t.Fatal("nobody told of the move")
			}

			before := gw1.Counters()
			var list []*lab.Flow
			for i := range 2 {
				list = append(list, s.Flow(s.R1, h11.IPs()[i], h21.Namespace, h21.IPs()[i], 200, 64))
			}
			progress(list, 600) // three seconds: as long as a host that shows itself is asked
			for _, f := range list {
				f.Stop()
			}
			if moved := gw1.Counters().Since(before); moved["fwd_encap"] < 1200 {
				t.Errorf("gw1 sent on only %v", moved)
			}
			homeAt(s, lab.DC2, h11.IPs()...)
			for _, g := range s.GW {
				for _, ip := range h11.IPs() {
					if h := show(g, ip); h.MAC != h11.MAC || h.Site != "dc2" {
						t.Errorf("%s has %s as %+v", g.Name, ip, h)
					}
				}
			}
			if list := aboutHost(s, h11); len(list) != told {
				t.Errorf("events: %+v", list[told:])
			}
			reach(t, s, [2]*lab.Host{h12, h11}, [2]*lab.Host{h21, h11})
		})
	}
}

// aboutHost lists what the gateways tell of a host's addresses.
func aboutHost(s *lab.Sites, h *lab.Host) (list []happened) {
	for _, g := range s.GW {
		list = append(list, slices.DeleteFunc(events(g), func(e happened) bool {
			return !strings.Contains(e.Subject, h.IP4.String()) && !strings.Contains(e.Subject, h.IP6.String())
		})...)
	}
	return list
}
