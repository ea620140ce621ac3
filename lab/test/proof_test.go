package lab_test

import (
	"math"
	"strings"
	"testing"
	"time"

	"roam/lab"
)

// TestProofOfMove: what a gateway says of a move agrees with what a stream saw of it. The host first showed itself after it was told to, and the
// move was decided before the first packet came by the new way. Between them lie, in order, its announcement and the first packet as the gateways saw it.
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
		here := awaitEvent(s, s.GW[lab.DC2], "reached", ip.String())
		inOrder(t, ip.String()+" at its new home", plugged.Add(-time.Millisecond), here.Detected, here.Announced, here.FirstPacket)
		there := awaitEvent(s, s.GW[lab.DC1], "reached", ip.String())
		inOrder(t, ip.String()+" at its old home", there.LastPacket, there.FirstPacket, here.FirstPacket.Add(time.Millisecond))
		inOrder(t, ip.String()+", announced and used", plugged, here.Announced, there.FirstPacket.Add(time.Millisecond))
		if gap := there.FirstPacket.Sub(there.LastPacket).Seconds(); math.Abs(there.EstimatedOutageSeconds-gap) > 0.001 {
			t.Errorf("%s: %+v", ip, there)
		}
		t.Logf("%s: announced after %v, first packet after %v; the old home was silent for %v", ip, here.Announced.Sub(here.Detected), here.FirstPacket.Sub(here.Detected),
			there.FirstPacket.Sub(there.LastPacket))
	}
	for g, names := range map[int][]string{lab.DC2: {"detection", "announcement", "first_packet"}, lab.DC1: {"estimated_outage"}} {
		for _, name := range names {
			if text := metrics(t, s.GW[g]); !strings.Contains(text, "\nroam_host_move_"+name+"_seconds_count 2\n") {
				t.Errorf("not both moves are in the histogram of %s", name)
			}
		}
	}
}

// inOrder wants each of some times to be there and none to be before the one that precedes it.
func inOrder(t *testing.T, what string, times ...time.Time) {
	t.Helper()
	for i := range times {
		if times[i].IsZero() || i > 0 && times[i].Before(times[i-1]) {
			t.Errorf("%s: time %d of %v is missing or out of order", what, i, times)
		}
	}
}
