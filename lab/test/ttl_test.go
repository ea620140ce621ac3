package lab_test

import (
	"testing"

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
	reach(t, s, [2]*lab.Host{h11, h21})
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
