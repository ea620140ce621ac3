package lab_test

import (
	"fmt"
	"testing"
	"time"

	"roam/lab"
)

// TestStrictAfterAMove has a gateway hear that a host moved from one other site to another, before the host's packets come from there:
// a strict check of senders takes them from where they were until the hold has passed, and not after it.
func TestStrictAfterAMove(t *testing.T) {
	s := lab.NewSites(t, bins, lab.Options{})
	s.GW[lab.DC1].Config.Source, s.GW[lab.DC1].Config.Hold = "strict", "3s"
	s.Up()
	h11, h21 := s.H("h11"), s.H("h21")
	reach(t, s, [2]*lab.Host{h21, h11})
	gw1 := s.GW[lab.DC1]
	before := gw1.Counters()
	for _, ip := range h21.IPs() {
		gw1.MustCtl("route", "add", ip.String(), "--via", "192.0.2.99")
	}
	speak := func() {
		for _, ip := range h11.IPs() { // the answers would go to the new site
			_, _ = h21.Try("ping", "-n", "-c", "3", "-i", "0.01", "-W", "0.1", ip.String())
		}
	}
	speak()
	moved := gw1.Counters().Since(before)
	if moved["drop_source"] != 0 || moved["fwd_deliver"] < 6 {
		t.Errorf("moments after the move: %v", moved)
	}
	s.Until(10*time.Second, "the old site is refused", func() error {
		before := gw1.Counters()
		speak()
		moved := gw1.Counters().Since(before)
		if moved["drop_source"] < 6 || moved["fwd_deliver"] != 0 {
			return fmt.Errorf("%v", moved)
		}
		return nil
	})
}
