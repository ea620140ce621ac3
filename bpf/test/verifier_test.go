package bpftest

import (
	"testing"
	"time"

	"roam/maps"
)

// The verifier walks every path of the program, up to a million instructions: this says how far from there we are, and
// what the program costs to load.
func TestVerifier(t *testing.T) {
	hosts, err := maps.CreateHostMaps(256)
	if err != nil {
		t.Fatal(err)
	}
	defer hosts.Close()
	for _, dry := range []bool{false, true} {
		start := time.Now()
		o, err := maps.Load(maps.Options{Hosts: hosts, Dry: dry})
		if err != nil {
			t.Fatalf("dry %v: %+v", dry, err)
		}
		took := time.Since(start)
		info, err := o.Program.Info()
		if err != nil {
			t.Fatal(err)
		}
		verified, _ := info.VerifiedInstructions()
		xlated, err := info.Instructions()
		if err != nil {
			t.Fatal(err)
		}
		jited, _ := info.JitedSize()
		t.Logf("dry %v: loaded in %v; %d instructions translated, %d verified, %d bytes of machine code", dry, took, len(xlated), verified, jited)
		if verified > 500_000 {
			t.Errorf("dry %v: the verifier looked at %d instructions, half of what it allows: make a step a global function", dry, verified)
		}
		_ = o.Close()
	}
}
