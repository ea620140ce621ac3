package bpftest

import (
	"errors"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"roam/maps"
)

// The verifier walks every path of the program, up to a million instructions: this says how far from there we are, what
// the program costs to load, and that it prunes what an option switches off. The kernel matrix reads the log (lab/kernels).
func TestVerifier(t *testing.T) {
	hosts, err := maps.CreateHostMaps(256)
	if err != nil {
		t.Fatal(err)
	}
	defer hosts.Close()
	for _, variant := range []struct {
		name    string
		options maps.Options
	}{
		{"default", maps.Options{}},
		{"dry", maps.Options{Dry: true}},
		{"traced", maps.Options{Trace: true}},
		{"bridging", maps.Options{Tune: tuned(func(t *maps.Tune) { t.Bridging, t.KeepTTL = true, true })}},
	} {
		variant.options.Hosts, variant.options.Stats = hosts, true
		start := time.Now()
		o, err := maps.Load(variant.options)
		if err != nil {
			var refused *ebpf.VerifierError
			if errors.As(err, &refused) {
				t.Logf("%+v", refused) // every line: only this one is there to tell why an old kernel refuses
			}
			t.Fatalf("%s: %v", variant.name, err)
		}
		took := time.Since(start)
		info, err := o.Walk.Info()
		if err != nil {
			t.Fatal(err)
		}
		xlated, err := info.Instructions()
		if err != nil {
			t.Fatal(err)
		}
		jited, _ := info.JitedSize()
		verified := verifiedInstructions(t, o.Walk.VerifierLog)
		t.Logf("%s: %d instructions verified, %d translated, %d bytes of machine code, loaded in %v",
			variant.name, verified, len(xlated), jited, took)
		if verified > 500_000 {
			t.Errorf("%s: the verifier looked at %d instructions, half of what it allows: make a step a global function", variant.name, verified)
		}
		_ = o.Close()
	}
}

var processed = regexp.MustCompile(`processed ([0-9]+) insns`)

// verifiedInstructions reads the verifier's own count, which program info has only since Linux 5.16.
func verifiedInstructions(t *testing.T, log string) int {
	t.Helper()
	m := processed.FindStringSubmatch(log)
	if m == nil {
		t.Fatalf("the verifier did not count: %q", log)
	}
	n, err := strconv.Atoi(m[1])
	if err != nil {
		t.Fatal(err)
	}
	return n
}
