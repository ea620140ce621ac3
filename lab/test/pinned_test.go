package lab_test

import (
	"strings"
	"testing"

	"roam/lab"
)

// With the daemon dead, roamctl still tells what is forwarded, from the pinned maps, and says that this is so.
func TestPinnedMapsAnswer(t *testing.T) {
	s := up(t, lab.Options{})
	h11, h21 := s.H("h11"), s.H("h21")
	reach(t, s, [2]*lab.Host{h11, h21})
	g := s.GW[lab.DC1]
	g.Daemon.Kill()
	h11.Run("ping", "-n", "-c", "1", "-W", "2", h21.IP4.String())

	status, err := g.Ctl("--pin", g.Config.Pin, "status")
	if err != nil || !strings.Contains(status, "lan0") || !strings.Contains(status, "no roamd is running") {
		t.Errorf("status of a dead daemon: %v\n%s", err, status)
	}
	counters, err := g.Ctl("--pin", g.Config.Pin, "counters")
	if err != nil || !strings.Contains(counters, "fwd_encap") {
		t.Errorf("counters of a dead daemon: %v\n%s", err, counters)
	}
	if _, err := g.Ctl("--pin", g.Config.Pin, "route", "list"); err == nil {
		t.Error("a dead daemon's routes were listed: the RIB died with it")
	}
}
