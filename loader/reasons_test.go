package main

import (
	"os"
	"regexp"
	"testing"

	"roam/maps"
)

// The manual has a line for every reason, and for nothing else.
func TestManualListsEveryReason(t *testing.T) {
	names, err := maps.ReasonNames()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("../docs/reasons.md")
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z0-9_]+)` \\|").FindAllSubmatch(text, -1) {
		listed[string(m[1])] = true
	}
	for _, name := range names[1:] {
		if !listed[name] {
			t.Errorf("docs/reasons.md says nothing about %s", name)
		}
		delete(listed, name)
	}
	for name := range listed {
		t.Errorf("docs/reasons.md lists %s, which is no reason", name)
	}
}
