package lab_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"roam/lab"
)

// TestRouterAdvertisements has a host find its IPv6 router by asking; the route that it gets leads to the other site.
func TestRouterAdvertisements(t *testing.T) {
	s := up(t, lab.Options{})
	h11, h21 := s.H("h11"), s.H("h21")
	h11.Sysctl("net.ipv6.conf.eth0.accept_ra", "1")
	h11.Sysctl("net.ipv6.conf.eth0.router_solicitations", "3")
	h11.IP("link set eth0 down", "link set eth0 up")
	h11.Addresses("eth0", h11.IP6.String()+"/64")
	s.Until(15*time.Second, "h11 knows its router", func() error {
		out, err := h11.Try("ip", "-6", "route", "show", "default")
		if err != nil || !strings.Contains(out, "via fe80::1 dev eth0 proto ra") {
			return fmt.Errorf("routes %q: %v", out, err)
		}
		return nil
	})
	h11.IP("route del 2001:db8:1::/64 dev eth0")
	s.Until(10*time.Second, "h11 reaches h21 through it", func() error {
		out, err := h11.Try("ping", "-n", "-c", "1", "-W", "1", "-I", h11.IP6.String(), h21.IP6.String())
		if err != nil {
			return fmt.Errorf("%w\n%s\n%s", err, out, state(s))
		}
		return nil
	})
}
