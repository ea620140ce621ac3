package lab_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"roam/lab"
)

// TestUnderlayPathMTU puts a router into the underlay whose next link carries less than the gateways' own:
//
//	gw1 wan0 ---- wan (2000) ---- [mid] ---- wan2 (1400) ---- wan0 gw2
//
// gw1 learns it from the router's word about a tunnel packet, and tells its hosts what fits.
func TestUnderlayPathMTU(t *testing.T) {
	for _, underlay6 := range []bool{false, true} {
		s := lab.NewSites(t, bins, lab.Options{Underlay6: underlay6})
		mid := s.Namespace("mid")
		mid.Sysctl("net.ipv4.conf.all.forwarding", "1")
		mid.Sysctl("net.ipv6.conf.all.forwarding", "1")
		s.Switch.Bridge("wan2", 1400)
		s.Switch.Plug("gw2-wan", "wan2")
		s.Cable(lab.End{In: mid, Name: "left"}, lab.End{In: s.Switch, Name: "mid-left", Bridge: "wan"}, 2000, 1)
		s.Cable(lab.End{In: mid, Name: "right"}, lab.End{In: s.Switch, Name: "mid-right", Bridge: "wan2"}, 1400, 1)
		mid.Addresses("left", "192.0.2.101/24", "2001:db8:ff::101/64")
		mid.Addresses("right", "192.0.2.102/32", "2001:db8:ff::102/128")
		mid.IP("route add 192.0.2.2/32 dev right", "route add 2001:db8:ff::2/128 dev right")
		s.GW[lab.DC1].IP(
			"route add 192.0.2.2/32 via 192.0.2.101 dev wan0", "route add 2001:db8:ff::2/128 via 2001:db8:ff::101 dev wan0")
		s.GW[lab.DC2].IP(
			"route add 192.0.2.1/32 via 192.0.2.102 dev wan0 onlink", "route add 2001:db8:ff::1/128 via 2001:db8:ff::102 dev wan0 onlink")
		s.Up()
		h11, h21 := s.H("h11"), s.H("h21")
		reach(t, s, [2]*lab.Host{h11, h21})
		fits := 1400 - 50
		if underlay6 {
			fits -= 20
		}
		ping := func(ip string, packet, headers int) (string, error) {
			return h11.Try("ping", "-n", "-c", "1", "-W", "1", "-M", "do", "-s", fmt.Sprint(packet-headers), ip)
		}
		for i, headers := range []int{28, 48} {
			ip := h21.IPs()[i].String()
			s.Until(20*time.Second, "the host is told what fits", func() error {
				out, err := ping(ip, fits+1, headers)
				if err == nil {
					return fmt.Errorf("%d bytes passed a way of 1400", fits+1)
				}
				if !strings.Contains(strings.ToLower(out+err.Error()), fmt.Sprintf("mtu=%d", fits)) &&
					!strings.Contains(strings.ToLower(out+err.Error()), fmt.Sprintf("mtu = %d", fits)) {
					return fmt.Errorf("%w\n%s\n%s", err, out, state(s))
				}
				return nil
			})
			if out, err := ping(ip, fits, headers); err != nil {
				t.Errorf("%d bytes do not pass: %v\n%s\n%s", fits, err, out, state(s))
			}
		}
		s.Close()
	}
}
