package lab_test

import (
	"testing"

	"roam/lab"
)

// TestVirtualAddress: an address that machines take over from each other, as VRRP and keepalived have it: inside a site, to the other site and
// back, with the group's virtual MAC and with each machine's own. The MAC alone makes a failover inside the site a move.
func TestVirtualAddress(t *testing.T) {
	const group = "00:00:5e:00:01:32" // RFC 5798, section 7.3
	for name, test := range map[string]struct {
		macs   [3]string
		inside uint32 // the sequence after a failover inside the site
	}{
		"virtual MAC": {[3]string{group, group, group}, 0},
		"own MACs":    {[3]string{"02:00:00:00:50:01", "02:00:00:00:50:02", "02:00:00:00:50:03"}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			s := lab.NewSites(t, bins, lab.Options{NoRoutes: true})
			var machines []*lab.Host
			for i, at := range []string{"h11", "h12", "h21"} {
				m := *s.H(at)
				m.IP4, m.IP6, m.MAC = addr("10.1.0.50"), addr("2001:db8:1::50"), test.macs[i]
				machines = append(machines, s.Twin(&m, m.Site))
			}
			first, second, far := machines[0], machines[1], machines[2]
			s.Unplug(second)
			s.Unplug(far)
			peers(t, s, "")
			h12, h21 := s.H("h12"), s.H("h21")
			takes := func(from, to *lab.Host, site int, sequence uint32) {
				t.Helper()
				if from != nil {
					s.Unplug(from)
				}
				s.Replug(to, site)
				to.Announce()
				for _, g := range s.GW {
					knows(s, g, to, site, sequence)
				}
				if from != nil && from.Site != site {
					gone(s, s.GW[from.Site], from)
				}
				reach(t, s, [2]*lab.Host{h21, to}, [2]*lab.Host{h12, to})
			}
			takes(nil, first, lab.DC1, 0)
			takes(first, second, lab.DC1, test.inside)
			takes(second, far, lab.DC2, test.inside+1)
			takes(far, first, lab.DC1, test.inside+2)
		})
	}
}

// TestTwoAddressesOneMAC: a machine with two addresses of each family moves and announces one of each; the others go with them, also where nobody
// asks for them at its new place.
func TestTwoAddressesOneMAC(t *testing.T) {
	s := lab.NewSites(t, bins, lab.Options{NoRoutes: true})
	peers(t, s, "")
	h11, h12, h21 := s.H("h11"), s.H("h12"), s.H("h21")
	h11.IP("addr add 10.1.0.51/24 dev eth0", "addr add 2001:db8:1::51/64 dev eth0 nodad")
	other := *h11
	other.IP4, other.IP6 = addr("10.1.0.51"), addr("2001:db8:1::51")
	for move := range 4 {
		site := move % 2
		s.Replug(h11, site)
		if h11.Announce(); move == 0 {
			other.Announce()
		}
		for _, g := range s.GW {
			knows(s, g, h11, site, uint32(move))
			knows(s, g, &other, site, uint32(move))
		}
		if move > 0 {
			gone(s, s.GW[1-site], &other)
		}
		reach(t, s, [2]*lab.Host{h21, &other}, [2]*lab.Host{h12, &other})
	}
}
