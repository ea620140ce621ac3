package lab_test

import (
	"strings"
	"testing"
	"time"

	"roam/lab"
)

// TestProofOfMove: what a gateway says of a move agrees with what a stream saw of it. The host first showed itself after it was told to, and the
// move was decided before the first packet came by the new way.
func TestProofOfMove(t *testing.T) {
	s := lab.NewSites(t, bins, lab.Options{NoRoutes: true, Racks: true})
	for _, g := range s.GW {
		g.Config.Mobility = often
	}
	peers(t, s, "")
	h11, h12 := s.H("h11"), s.H("h12")
	for _, h := range []*lab.Host{h11, h12} {
		h.Announce()
		homeAt(s, h.Site, h.IPs()...)
	}
	reach(t, s, [2]*lab.Host{h12, h11})
	var list []*lab.Flow
	for _, ip := range h11.IPs() {
		list = append(list, s.Flow(h12.Namespace, h12.IPs()[len(list)], h11.Namespace, ip, 1000, 64))
	}
	progress(list, 50)
	s.Replug(h11, lab.DC2)
	plugged := time.Now()
	h11.Announce()
	progress(list, 100)
	for i, f := range list {
		ip := h11.IPs()[i]
		r := f.Stop()
		restored := f.Restored()
		e := awaitEvent(s, s.GW[lab.DC2], "move", ip.String())
		shown := e.Time.Add(-time.Duration(e.DetectionSeconds * float64(time.Second)))
		t.Logf("%s: shown after %v, decided after %v, came through after %v; %v", ip, shown.Sub(plugged), e.Time.Sub(plugged), restored.Sub(plugged), r)
		if e.DetectionSeconds <= 0 || shown.Before(plugged.Add(-time.Millisecond)) ||
			!restored.IsZero() && e.Time.After(restored.Add(time.Millisecond)) {
			t.Errorf("%s: %+v", ip, e)
		}
	}
	if text := metrics(t, s.GW[lab.DC2]); !strings.Contains(text, "\nroam_host_move_detection_seconds_count 2\n") {
		t.Error("not both moves are in the histogram")
	}
}
