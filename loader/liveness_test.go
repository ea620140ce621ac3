package main

import (
	"maps"
	"net/netip"
	"testing"

	"roam/loader/probe"
)

// TestSilent: what BFD and probes of the tunnel say together. BFD is "up" also where it is not configured, was never up, or said goodbye: all
// of that says nothing against a locator.
func TestSilent(t *testing.T) {
	a, other := netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("192.0.2.3")
	const bfd, band = "BFD: no packet came", "probes are not answered"
	for _, c := range []struct {
		name   string
		fell   bool
		probed probe.State // "" for not probed
		want   string
	}{
		{"nothing is known", false, "", ""},
		{"it never answered a probe", false, probe.Unknown, ""},
		{"it answers", false, probe.Answers, ""},
		{"it answered, and stopped, though BFD is up or not there", false, probe.Silent, band},
		{"BFD fell, and nothing else is known", true, "", bfd},
		{"BFD fell, and it never answered a probe", true, probe.Unknown, bfd},
		{"BFD fell, and the tunnel answers: its daemon restarts", true, probe.Answers, ""},
		{"both are silent", true, probe.Silent, band},
	} {
		fell := map[netip.Addr]string{other: bfd}
		if c.fell {
			fell[a] = bfd
		}
		before := maps.Clone(fell)
		var probed []probe.Status
		if c.probed != "" {
			probed = []probe.Status{{Address: a, State: c.probed}}
			if c.probed == probe.Silent {
				probed[0].Why = band
			}
		}
		got := silent(fell, probed)
		if got[a] != c.want || (got[a] == "") == has(got, a) {
			t.Errorf("%s: %v", c.name, got)
		}
		if got[other] != bfd {
			t.Errorf("%s: another locator is %q", c.name, got[other])
		}
		if !maps.Equal(fell, before) {
			t.Errorf("%s: what BFD said was changed", c.name)
		}
	}
	if got := silent(nil, nil); len(got) != 0 {
		t.Errorf("of nothing: %v", got)
	}
}

func has(m map[netip.Addr]string, a netip.Addr) bool {
	_, ok := m[a]
	return ok
}
