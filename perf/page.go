package main

import (
	"fmt"
	"os"
	"path"
	"regexp"
	"strings"
)

// generated finds what a run writes into a page: "<!-- bench: NAME -->", text, "<!-- bench: end -->".
var generated = regexp.MustCompile(`(?s)(<!-- bench: ([a-z]+) -->\n).*?(<!-- bench: end -->)`)

// writePage replaces the generated pieces of a page. Everything around them is written by hand, and stays.
func (r *Result) writePage(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("read the page: %w", err)
	}
	pieces := map[string]func(*strings.Builder){
		"run": r.writeRun, "goals": r.writeGoals, "system": r.writeSystem, "control": r.writeControl, "zeroloss": r.writeZeroLoss,
		"series": r.writeAllSeries, "programs": r.writePrograms, "steps": r.writePlaces,
	}
	var unknown error
	text = generated.ReplaceAllFunc(text, func(piece []byte) []byte {
		m := generated.FindSubmatch(piece)
		write := pieces[string(m[2])]
		if write == nil {
			unknown = fmt.Errorf("%s: there is no piece %q to generate", file, m[2])
			return piece
		}
		var b strings.Builder
		write(&b)
		return []byte(string(m[1]) + "\n" + b.String() + string(m[3]))
	})
	if unknown != nil {
		return unknown
	}
	if err := os.WriteFile(file, text, 0o644); err != nil {
		return fmt.Errorf("write the page: %w", err)
	}
	return nil
}

// writeRun says where the rest is, as seen from docs/.
func (r *Result) writeRun(b *strings.Builder) {
	m := r.Machine
	dir := path.Join("../perf/results", m.name())
	fmt.Fprintf(b, "%s, %d CPUs, L2 %s, L3 %s, Linux %s: [all tables](%s/bench.md), [raw data](%s/bench.json), [lines for benchstat](%s/bench.txt).\n\n",
		m.CPU, m.CPUs, m.L2, m.L3, m.Kernel, dir, dir, dir)
	r.writeParts(b)
	for _, name := range []string{"table-size.svg", "frame-size.svg", "rate.svg", "latency.svg"} {
		if p, ok := r.plots()[name]; ok {
			fmt.Fprintf(b, "![%s](%s/%s)\n\n", p.title, dir, name)
		}
	}
}
