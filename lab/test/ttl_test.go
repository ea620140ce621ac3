package lab_test

import (
	"fmt"
	"testing"
	"time"

	"roam/lab"
)

// TestKeepTTL has hosts of one subnet at two sites be neighbours to each other: no gateway takes from the TTL. Switched off by a
// reload, each takes one again, and no packet is lost meanwhile.
func TestKeepTTL(t *testing.T) {
	s := lab.NewSites(t, bins, lab.Options{})
	for _, g := range s.GW {
		g.Config.KeepTTL = true
	}
	s.Up()
	h11, h21 := s.H("h11"), s.H("h21")
	// Both ways, so that the gateways know both hosts: what the kernel resolves on its way pays the kernel's hop.
	reach(t, s, [2]*lab.Host{h11, h21}, [2]*lab.Host{h21, h11})
	for _, g := range s.GW {
		s.Until(5*time.Second, g.Name+" knows its hosts", func() error {
			if c := g.Counters(); c["fwd_deliver"] < 2 {
				return fmt.Errorf("%v", c)
			}
			return nil
		})
	}
	list := flows(s, h11, h21, 400)
	lossless(t, s, list, 64, "neighbours")
	list = flows(s, h11, h21, 400)
	for _, g := range s.GW {
		g.Config.KeepTTL = false
		g.WriteConfig()
		g.MustCtl("reload")
	}
	progress(list, 50)
	lossless(t, s, list, 0, "reload")
	lossless(t, s, flows(s, h11, h21, 400), 62, "routed")
}
