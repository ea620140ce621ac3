package main

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"

	"roam/maps"
)

// program is what one of the data path's programs is made of, in one variant.
type program struct {
	Name       string `json:"name"`
	Variant    string `json:"variant"`
	Verified   int    `json:"verified"`   // instructions that the verifier looked at on all ways through, of a million
	Translated int    `json:"translated"` // instructions that the kernel keeps
	Machine    int    `json:"machine"`    // bytes of machine code
}

// variants are those whose programs differ.
var variants = []struct {
	name  string
	trace bool
	tune  func(*maps.Tune)
}{
	{"as it comes", false, func(*maps.Tune) {}},
	{"a segment's l2vni", false, func(t *maps.Tune) { t.Bridging = true }},
	{"datapath.frags: true", false, func(t *maps.Tune) { t.Frags = true }},
	{"all that can be off, off", false, func(t *maps.Tune) {
		t.SourceCheck, t.ClampMSS, t.ICMPRate, t.Sightings, t.Probes = maps.SourceOff, false, 0, 0, 0
	}},
	{"while somebody traces", true, func(*maps.Tune) {}},
}

// countPrograms loads each variant, and asks the verifier.
func countPrograms() (list []program, err error) {
	hosts, err := maps.CreateHostMaps(1)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, hosts.Close()) }()
	for _, v := range variants {
		tune := maps.DefaultTune
		v.tune(&tune)
		o, err := maps.Load(maps.Options{Hosts: hosts, Tune: tune, Trace: v.trace, Stats: true})
		if err != nil {
			return nil, err
		}
		counted := map[string]*ebpf.Program{"walk": o.Walk, "icmp": o.ICMP, "accept": o.Accept}
		for _, name := range []string{"walk", "icmp", "accept"} {
			p, err := countProgram(counted[name])
			if err != nil {
				return nil, errors.Join(err, o.Close())
			}
			p.Name, p.Variant = name, v.name
			list = append(list, p)
		}
		if err := o.Close(); err != nil {
			return nil, err
		}
	}
	return list, nil
}

var processed = regexp.MustCompile(`processed ([0-9]+) insns`)

// countProgram reads the verifier's own words, because program info has its count only since Linux 5.16.
func countProgram(p *ebpf.Program) (program, error) {
	m := processed.FindStringSubmatch(p.VerifierLog)
	if m == nil {
		return program{}, fmt.Errorf("the verifier did not say how many instructions it looked at: %q", p.VerifierLog)
	}
	verified, err := strconv.Atoi(m[1])
	if err != nil {
		return program{}, err
	}
	info, err := p.Info()
	if err != nil {
		return program{}, fmt.Errorf("ask for program info: %w", err)
	}
	kept, err := info.Instructions()
	if err != nil {
		return program{}, fmt.Errorf("read the instructions that the kernel keeps: %w", err)
	}
	machine, _ := info.JitedSize() // there is none where the kernel has no compiler
	return program{Verified: verified, Translated: len(kept), Machine: int(machine)}, nil
}

func (r *Result) writePrograms(b *strings.Builder) {
	if len(r.Programs) == 0 {
		return
	}
	b.WriteString("Instructions that the verifier looked at, of the million it allows; instructions that the kernel keeps; bytes of machine code.\n\n" +
		"| variant | program | verified | kept | machine code |\n|---|---|---|---|---|\n")
	for _, p := range r.Programs {
		fmt.Fprintf(b, "| %s | %s | %d | %d | %d |\n", p.Variant, p.Name, p.Verified, p.Translated, p.Machine)
	}
	b.WriteString("\n")
}
