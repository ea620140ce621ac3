package main

import (
	"testing"

	"roam/maps"
)

// Every reason has its sentence, and no sentence is left over.
func TestEveryReasonHasASentence(t *testing.T) {
	names, err := maps.ReasonNames()
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, name := range names[1:] {
		known[name] = true
		if sentences[name] == "" {
			t.Errorf("reason %s has no sentence in sentences.go", name)
		}
	}
	for name := range sentences {
		if !known[name] {
			t.Errorf("sentence for %s, which is no reason of bpf/abi.h", name)
		}
	}
}
