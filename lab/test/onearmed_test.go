package lab_test

import (
	"slices"
	"strings"
	"testing"

	"roam/lab"
)

// TestOneArmed has each gateway stand on its LAN with one interface: hosts, tunnel, everything through it.
func TestOneArmed(t *testing.T) {
	for _, underlay6 := range []bool{false, true} {
		s := up(t, lab.Options{OneArmed: true, Underlay6: underlay6})
		h11, h12, h21, h22 := s.H("h11"), s.H("h12"), s.H("h21"), s.H("h22")
		reach(t, s, [2]*lab.Host{h11, h21}, [2]*lab.Host{h21, h11}, [2]*lab.Host{h12, h22}, [2]*lab.Host{h22, h12})
		c := s.Switch.Capture("core-lan1", "udp port 4789")
		list := flows(s, h11, h21, 400)
		for i := range 2 {
			list = append(list, s.Flow(h12.Namespace, h12.IPs()[i], h22.Namespace, h22.IPs()[i], 100, 1452))
		}
		progress(list, 50)
		lossless(t, s, list, 62, "one-armed gateways")
		c.Stop()
		if faults := c.Faults(); len(faults) > 0 {
			t.Errorf("%d broken packets, such as %q", len(faults), faults[:min(5, len(faults))])
		}
		links := slices.DeleteFunc(s.GW[lab.DC1].Links(), func(name string) bool { return strings.HasPrefix(name, "roamf") })
		if len(links) != 2 {
			t.Errorf("gw1 is to have lo, one interface and its fragment port, and has %v", links)
		}
		s.Move(h11, lab.DC2)
		reach(t, s, [2]*lab.Host{h12, h11}, [2]*lab.Host{h11, h12}, [2]*lab.Host{h21, h11})
		s.Close()
	}
}
