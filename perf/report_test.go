package main

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"

	"roam/maps/bench"
)

// measured is a result as a run would leave it.
func measured() *Result {
	r := &Result{Machine: Machine{CPU: "A & B <cpu>", Kernel: "6.1"}}
	add := func(s bench.Structure, hosts, drawn int, ns ...float64) {
		t := &row{What: "encap", Structure: s, Inner: 4, Outer: 4, Hosts: hosts, Drawn: drawn, Samples: ns, Calms: ns, empties: make([]timing, len(ns))}
		t.summarize()
		r.Tests = append(r.Tests, t)
	}
	add(bench.Table, 1, 1, 50, 55, 52)
	add(bench.Hash, 1, 1, 60, 65, 62)
	add(bench.Table, 1<<20, 1<<20, 200, 220, 210)
	add(bench.Hash, 1<<20, 1<<20, 500, 550, 525)
	for what, ns := range map[string]float64{"bare redirect": 100, "encap, one host": 160, "kernel": 1600} {
		v := &liveRow{What: what, Samples: []float64{ns, ns, ns}}
		v.summarize()
		r.Live = append(r.Live, v)
	}
	return r
}

func TestGoals(t *testing.T) {
	met := map[string]bool{}
	for _, g := range measured().goals() {
		met[g.what] = g.verdict() == "reached"
	}
	for what, want := range map[string]bool{
		"encapsulation, one hot host":             false,
		"the same, of the walk over a BPF hash":   true,
		"live frames, rate of the kernel's VXLAN": true,
		"live frames, rate of a bare redirect":    false,
	} {
		if got, ok := met[what]; !ok || got != want {
			t.Errorf("%q: met %v (measured: %v), want %v", what, got, ok, want)
		}
	}
	if _, ok := met["8 Mi random hosts, of 1 Mi"]; ok {
		t.Error("a goal without rows was judged")
	}
}

func TestMarkdown(t *testing.T) {
	text := measured().markdown()
	for _, want := range []string{
		"| encap IPv4 over IPv4, table | **50** · 52 (50–54) |",
		"| encap IPv4 over IPv4, hash | **500** · 525 (505–545) |",
		"| encap, one host | 6.25 (6.25–6.25) | 160 | 10.0 | 62% |",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no line %q in\n%s", want, text)
		}
	}
}

func TestPlotIsWellFormed(t *testing.T) {
	svg := measured().plots()["table-size.svg"].svg()
	d := xml.NewDecoder(strings.NewReader(svg))
	circles := 0
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, svg)
		}
		if e, ok := token.(xml.StartElement); ok && e.Name.Local == "circle" {
			circles++
		}
	}
	if circles != 4 {
		t.Errorf("%d points drawn instead of 4", circles)
	}
}
