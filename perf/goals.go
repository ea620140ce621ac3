package main

import (
	"fmt"
	"math"
	"strings"

	"roam/maps/bench"
)

// goal is a figure that the project wants to reach.
type goal struct {
	what  string
	limit float64
	least bool // the limit is a lower one
	unit  string
	got   []float64 // one for each round
	calm  float64   // the same while nothing disturbs
}

// met reports whether a figure is on the right side of the limit.
func (g goal) met(figure float64) bool {
	if g.least {
		return figure >= g.limit
	}
	return figure <= g.limit
}

func (g goal) verdict() string {
	switch {
	case g.met(summarize(g.got).Median):
		return "reached"
	case g.met(g.calm):
		return "reached when calm"
	}
	return "missed"
}

// goals are those that the plan of this run has rows for.
func (r *Result) goals() []goal {
	const mi = 1 << 20
	hot := r.test("encap", bench.Table, 4, 4, 1, false)
	hot6 := r.test("encap", bench.Table, 6, 4, 1, false)
	random := r.test("encap", bench.Table, 4, 4, mi, true)
	random6 := r.test("encap", bench.Table, 6, 4, mi, true)
	random8 := r.test("encap", bench.Table, 4, 4, 8*mi, true)
	hash := r.test("encap", bench.Hash, 4, 4, mi, true)
	decap := r.test("decap", bench.Table, 4, 4, 1, false)
	redirect, walk, kernel := r.live("redirect"), r.live("encap, one"), r.live("kernel")

	all := []goal{
		{"encapsulation, one hot host", 45, false, " ns", samples(hot), calm(hot)},
		{"encapsulation, 1 Mi random hosts", 200, false, " ns", samples(random), calm(random)},
		{"the same, of the walk over a BPF hash", 0.45, false, " ×", ratios(samples(random), samples(hash)), calm(random) / calm(hash)},
		{"8 Mi random hosts, of 1 Mi", 2.5, false, " ×", ratios(samples(random8), samples(random)), calm(random8) / calm(random)},
		{"decapsulation, one hot host", 45, false, " ns", samples(decap), calm(decap)},
		{"IPv6 of IPv4, one hot host", 1.3, false, " ×", ratios(samples(hot6), samples(hot)), calm(hot6) / calm(hot)},
		{"IPv6 of IPv4, 1 Mi random hosts", 1.8, false, " ×", ratios(samples(random6), samples(random)), calm(random6) / calm(random)},
		{"live frames, rate of the kernel's VXLAN", 8, true, " ×", ratios(live(kernel), live(walk)), calmLive(kernel) / calmLive(walk)},
		{"live frames, rate of a bare redirect", 0.7, true, " ×", ratios(live(redirect), live(walk)), calmLive(redirect) / calmLive(walk)},
	}
	all = append(all, r.Control.goals()...)
	var measured []goal
	for _, g := range all {
		if len(g.got) > 0 {
			measured = append(measured, g)
		}
	}
	return measured
}

func live(r *liveRow) []float64 {
	if r == nil {
		return nil
	}
	return r.Samples
}

func calmLive(r *liveRow) float64 {
	if r == nil {
		return math.NaN()
	}
	return r.Figure.P10
}

func samples(r *row) []float64 {
	if r == nil {
		return nil
	}
	return r.Samples
}

func calm(r *row) float64 {
	if r == nil {
		return math.NaN()
	}
	return r.Calm
}

func (r *Result) writeGoals(b *strings.Builder) {
	b.WriteString("| figure | goal | calm | median (10th–90th percentile) | |\n|---|---|---|---|---|\n")
	for _, g := range r.goals() {
		side, f := "at most", summarize(g.got)
		if g.least {
			side = "at least"
		}
		fmt.Fprintf(b, "| %s | %s %g%s | %.3g | %.3g (%.3g–%.3g) | %s |\n", g.what, side, g.limit, g.unit, g.calm, f.Median, f.P10, f.P90, g.verdict())
	}
	b.WriteString("\n")
}
