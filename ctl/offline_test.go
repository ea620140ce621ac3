package main

import (
	"path/filepath"
	"strings"
	"testing"

	"roam/loader/api"
)

type fakePins struct{}

func (fakePins) Status() (api.Status, error) { return api.Status{Version: "pinned", Site: "dc1"}, nil }

func (fakePins) Counters() (api.Counters, error) {
	return api.Counters{Reasons: api.List[api.ReasonCount]{{Port: "lan0", Reason: "drop_ttl", Verdict: "dropped", Packets: 3}}}, nil
}

// A daemon that is down leaves what is pinned to be read, and says so.
func TestOffline(t *testing.T) {
	openPins = func(folder string) (pins, error) {
		if folder != "/pins" {
			t.Errorf("opened %s", folder)
		}
		return fakePins{}, nil
	}
	t.Cleanup(func() { openPins = openPinned })
	missing := filepath.Join(t.TempDir(), "s")
	for line, want := range map[string]string{"counters": "drop_ttl", "status": "roamd pinned"} {
		out, stderr, code := ctl(t, missing, "--pin /pins "+line)
		if code != 0 || !strings.Contains(out, want) || !strings.Contains(stderr, "read from the maps pinned in /pins") {
			t.Errorf("%s: %d %q %q", line, code, out, stderr)
		}
	}
	if _, _, code := ctl(t, missing, "--pin /pins route list"); code != exitUnreachable {
		t.Errorf("route list: %d", code)
	}
}
