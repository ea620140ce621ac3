package lab_test

import (
	"strings"
	"testing"
	"time"

	"roam/lab"
)

// TestFragments sends datagrams of 3000 bytes that may be fragmented over an underlay that carries no more than the hosts'
// links: the kernel cuts what is too large for the tunnel, and every datagram arrives whole, one hop per gateway. Nothing of
// it is left in the kernel once the gateway is detached.
func TestFragments(t *testing.T) {
	s := lab.NewSites(t, bins, lab.Options{Narrow: true})
	clean := s.GW[lab.DC1].Run("ip", "rule") + strings.Join(s.GW[lab.DC1].Links(), " ")
	s.Up()
	h11, h21 := s.H("h11"), s.H("h21")
	reach(t, s, [2]*lab.Host{h11, h21})
	for _, g := range s.GW {
		s.Until(10*time.Second, g.Name+" has a fragment port", func() error {
			_, err := g.Try("ip", "link", "show", "roamf1b")
			return err
		})
		g.AwaitReady()
	}
	there := s.Flow(h11.Namespace, h11.IP4, h21.Namespace, h21.IP4, 200, 3000)
	back := s.Flow(h21.Namespace, h21.IP4, h11.Namespace, h11.IP4, 200, 3000)
	progress([]*lab.Flow{there, back}, 200)
	s.GW[lab.DC1].Restart()
	progress([]*lab.Flow{there, back}, 200)
	lossless(t, s, []*lab.Flow{there, back}, 62, "fragmenting")
	if !strings.Contains(s.GW[lab.DC2].MustCtl("counters"), "fwd_fragment") {
		t.Errorf("nothing went to the kernel to be fragmented\n%s", state(s))
	}

	g := s.GW[lab.DC1]
	g.Stop()
	g.Run(g.Bins.Daemon, "--config", g.ConfigFile(), "--detach")
	if now := g.Run("ip", "rule") + strings.Join(g.Links(), " "); now != clean {
		t.Errorf("before:\n%s\nafter the gateway was detached:\n%s", clean, now)
	}
}
