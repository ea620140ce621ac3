package lab_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"roam/lab"
)

// TestJumboHosts has hosts with links of 9000 bytes on an underlay of 1500: frames longer than a page go through the data path, TCP
// does not stall, a sender that may not be fragmented is told what fits, and one that may arrives whole.
func TestJumboHosts(t *testing.T) {
	s := lab.NewSites(t, bins, lab.Options{Narrow: true})
	const jumbo = " mtu 9000"
	for _, h := range s.Hosts {
		h.IP("link set eth0" + jumbo)
		s.Switch.IP("link set " + h.Port + jumbo)
	}
	for n, g := range s.GW {
		g.IP("link set lan0" + jumbo)
		s.Switch.IP("link set "+g.Name+"-lan"+jumbo, fmt.Sprintf("link set lan%d%s", n+1, jumbo))
	}
	s.Up()
	h11, h12, h21 := s.H("h11"), s.H("h12"), s.H("h21")
	reach(t, s, [2]*lab.Host{h11, h21}, [2]*lab.Host{h21, h11}, [2]*lab.Host{h11, h12})
	h11.Run("ping", "-n", "-M", "do", "-s", "8900", "-c", "3", h12.IP4.String())
	if out := h11.Run("ping", "-n", "-M", "dont", "-s", "8000", "-c", "20", "-i", "0.02", h21.IP4.String()); !strings.Contains(out, " 0% packet loss") {
		t.Errorf("8000 bytes that may be fragmented: %s%s", out, state(s))
	}
	for i := range 2 {
		told(t, s, h11, h21.IPs()[i], 1450)
		stream := s.Stream(h11.Namespace, h21.Namespace, h21.IPs()[i], 4<<20)
		s.Until(10*time.Second, "the stream has carried a megabyte", func() error {
			if got := stream.Received(); got < 1<<20 {
				return fmt.Errorf("%d bytes\n%s", got, state(s))
			}
			return nil
		})
		if r := stream.Stop(); !r.Whole || r.Stall > time.Second {
			t.Errorf("TCP to %s: %v\n%s", h21.IPs()[i], r, state(s))
		}
	}
}
