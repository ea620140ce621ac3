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
// the program costs to load. The kernel matrix reads the log (lab/kernels).
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
		{"egress", maps.Options{Tune: tuned(func(t *maps.Tune) { t.Egress, t.SourceCheck = true, maps.SourceStrict })}},
		{"shadow", maps.Options{Tune: tuned(func(t *maps.Tune) { t.Shadow = true })}},
		{"bridging", maps.Options{Tune: tuned(func(t *maps.Tune) { t.Bridging, t.KeepTTL = true, true })}},
		{"bridging, egress, strict", maps.Options{Tune: tuned(func(t *maps.Tune) {
			t.Bridging, t.KeepTTL, t.Egress, t.SourceCheck = true, true, true, maps.SourceStrict
		})}},
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

// What an option switches off is not in the program that the kernel keeps.
func TestPruned(t *testing.T) {
	hosts, err := maps.CreateHostMaps(256)
	if err != nil {
		t.Fatal(err)
	}
	defer hosts.Close()
	size := func(tune maps.Tune) int {
		o, err := maps.Load(maps.Options{Hosts: hosts, Tune: tune})
		if err != nil {
			t.Fatal(err)
		}
		defer o.Close()
		info, err := o.Walk.Info()
		if err != nil {
			t.Fatal(err)
		}
		xlated, err := info.Instructions()
		if err != nil {
			t.Fatal(err)
		}
		return len(xlated)
	}
	off := func(change func(*maps.Tune)) maps.Tune {
		tune := maps.DefaultTune
		change(&tune)
		return tune
	}
	whole := size(maps.DefaultTune)
	for _, option := range []struct {
		name string
		tune maps.Tune
	}{
		{"source_check: off", off(func(t *maps.Tune) { t.SourceCheck = maps.SourceOff })},
		{"mss_clamp: false", off(func(t *maps.Tune) { t.ClampMSS = false })},
		{"sightings", off(func(t *maps.Tune) { t.Sightings = 0 })},
		{"all of them", off(func(t *maps.Tune) { t.SourceCheck, t.ClampMSS, t.Sightings = maps.SourceOff, false, 0 })},
	} {
		n := size(option.tune)
		t.Logf("without %s: %d instructions translated, %d with it", option.name, n, whole)
		if n > whole-10 {
			t.Errorf("%s takes nothing out", option.name)
		}
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
