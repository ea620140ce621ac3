package main

import (
	"strings"
	"testing"

	"roam/docs"
	"roam/maps"
)

// What rises gets a sentence and the manual's advice; what stands still does not.
func TestRisingReasons(t *testing.T) {
	before := map[portReason]uint64{{"lan0", "drop_mtu"}: 7, {"wan0", "drop_ecn"}: 3, {"wan0", "drop_ttl"}: 9}
	after := map[portReason]uint64{{"lan0", "drop_mtu"}: 9, {"wan0", "drop_ecn"}: 3, {"wan0", "drop_short"}: 1, {"wan0", "drop_ttl"}: 2}
	got := rising(before, after)
	if len(got) != 2 || got[0].Name != "drop_mtu" || got[0].Subject != "lan0" || got[1].Name != "drop_short" ||
		!strings.HasPrefix(got[0].Found, "2 packets") || !strings.Contains(got[0].Advice, "raise the underlay's MTU") {
		t.Errorf("%+v", got)
	}
}

func TestEveryDropHasAdvice(t *testing.T) {
	names, err := maps.ReasonNames()
	if err != nil {
		t.Fatal(err)
	}
	advice := docs.Reasons()
	for _, name := range names {
		if strings.HasPrefix(name, "drop_") && advice[name] == "" {
			t.Errorf("docs/reasons.md says not what to do about %s", name)
		}
	}
}
