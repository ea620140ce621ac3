package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"roam/maps/bench"
)

// Result is what a machine has been found to do: every row with every sample. It is written as JSON, as Go benchmark lines for
// benchstat, and as Markdown for people. A run of some parts leaves the others as an earlier run found them.
type Result struct {
	Machine  Machine          `json:"machine"`
	Parts    map[string]*Part `json:"parts"`
	Tests    []*row           `json:"tests"`
	Programs []program        `json:"programs"`
	Steps    []steps          `json:"steps"`
	Counts   []counts         `json:"counts,omitempty"`
	Live     []*liveRow       `json:"live"`
	System   []*systemRow     `json:"system"`
	Scaling  []*scalingRow    `json:"scaling"`
	Control  *control         `json:"control,omitempty"`
	ZeroLoss []*zeroLossRow   `json:"zero_loss"`
}

// Part says how a part of the result came about.
type Part struct {
	Commit  string  `json:"commit"` // of this project, "+" where the tree was changed
	Date    string  `json:"date"`
	Command string  `json:"command"`
	Rounds  int     `json:"rounds,omitempty"`
	Repeats int     `json:"repeats,omitempty"` // packets per row and round
	TrialMS int     `json:"trial_ms,omitempty"`
	Seconds float64 `json:"seconds"`
}

// openResult reads what earlier runs on this kind of machine left below dir.
func openResult(dir string) (*Result, error) {
	m := thisMachine()
	r := &Result{Machine: m, Parts: map[string]*Part{}}
	raw, err := os.ReadFile(filepath.Join(dir, m.name(), "bench.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the last result: %w", err)
	}
	if err := json.Unmarshal(raw, r); err != nil {
		return nil, fmt.Errorf("read the last result, %s: %w: remove it", filepath.Join(dir, m.name(), "bench.json"), err)
	}
	r.Machine = m
	return r, nil
}

// write puts the result into a folder of its own kind of machine below dir.
func (r *Result) write(dir string) error {
	files := map[string]string{"bench.txt": r.lines(), "bench.md": r.markdown()}
	for name, p := range r.plots() {
		files[name] = p.svg()
	}
	return writeFiles(dir, r.Machine, "bench.json", r, files)
}

// writeResult writes a result as name.json and name.md.
func writeResult(dir string, m Machine, name string, result any, text string) error {
	return writeFiles(dir, m, name+".json", result, map[string]string{name + ".md": text})
}

// writeFiles writes a result as JSON, and files beside it.
func writeFiles(dir string, m Machine, name string, result any, files map[string]string) error {
	dir = filepath.Join(dir, m.name())
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make the folder of results: %w", err)
	}
	raw, err := json.MarshalIndent(result, "", " ")
	if err != nil {
		return fmt.Errorf("write the result as JSON: %w", err)
	}
	files[name] = string(raw) + "\n"
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return fmt.Errorf("write the result: %w", err)
		}
	}
	return nil
}

func (r *Result) markdown() string {
	var b strings.Builder
	m := r.Machine
	kind := "bare metal"
	if m.Virt {
		kind = "virtual"
	}
	fmt.Fprintf(&b, "# Benchmark\n\n%s, %d CPUs (%s), L2 %s, L3 %s; Linux %s.\n\n", m.CPU, m.CPUs, kind, m.L2, m.L3, m.Kernel)
	r.writeParts(&b)
	b.WriteString("Figures are medians of interleaved rounds, 10th to 90th percentile behind them.\n")
	b.WriteString("Calm is what a packet takes while nothing else disturbs the core: the 10th percentile of windows of 1024 packets, in the calmest round.\n")
	b.WriteString("Absolute figures drift from run to run, on a shared machine by half and more: read the ratios.\n\n")
	section(&b, "Goals", r.writeGoals)
	r.writeLive(&b)
	section(&b, "System", r.writeSystem)
	section(&b, "Control plane", r.writeControl)
	section(&b, "Zero loss", r.writeZeroLoss)
	r.writeTests(&b, "One host of the table (hot)", func(t *row) bool { return t.Drawn == 1 && t.Option == "" && t.Series == "" })
	r.writeTests(&b, "Random hosts", func(t *row) bool { return t.Drawn > 1 && t.Series == "" })
	section(&b, "Series", r.writeAllSeries)
	r.writeOptions(&b)
	section(&b, "Programs", r.writePrograms)
	section(&b, "Where the time goes", r.writePlaces)
	r.writeFill(&b)
	return b.String()
}

// section is left out where there is nothing to write.
func section(b *strings.Builder, title string, write func(*strings.Builder)) {
	var body strings.Builder
	if write(&body); body.Len() > 0 {
		fmt.Fprintf(b, "## %s\n\n%s", title, body.String())
	}
}

func (r *Result) writeParts(b *strings.Builder) {
	b.WriteString("| part | command | commit | date | rounds | took |\n|---|---|---|---|---|---|\n")
	for _, name := range partNames {
		if p := r.Parts[name]; p != nil {
			rounds := ""
			switch {
			case p.TrialMS > 0:
				rounds = fmt.Sprintf("%d, trials of %d ms", p.Rounds, p.TrialMS)
			case p.Rounds > 0:
				rounds = fmt.Sprintf("%d of %d packets", p.Rounds, p.Repeats)
			}
			fmt.Fprintf(b, "| %s | `%s` | %s | %s | %s | %.0f s |\n", name, p.Command, p.Commit, p.Date, rounds, p.Seconds)
		}
	}
	b.WriteString("\n")
}

func (r *Result) writeLive(b *strings.Builder) {
	if len(r.Live) == 0 {
		return
	}
	b.WriteString("## Live frames over veth, one core, 64 bytes\n\n| row | Mpps | ns per packet | × kernel | of a bare redirect |\n|---|---|---|---|---|\n")
	redirect, kernel := r.live("redirect"), r.live("kernel")
	for _, v := range r.Live {
		fmt.Fprintf(b, "| %s | %.2f (%.2f–%.2f) | %.0f | %.1f | %.0f%% |\n", v.What, v.Rate.Median, v.Rate.P10, v.Rate.P90, v.Figure.Median,
			summarize(ratios(kernel.Samples, v.Samples)).Median, 100*summarize(ratios(redirect.Samples, v.Samples)).Median)
	}
	b.WriteString("\nA packet counts when the far end of the cable has received it, and both ends of the cable run on the core that is measured.\n\n")
}

// writeTests is a table with a line for each kind of packet and a column for each size of table.
func (r *Result) writeTests(b *strings.Builder, title string, in func(*row) bool) {
	var sizes []int
	var lines []string
	cells := map[string]map[int]string{}
	for _, t := range r.Tests {
		if !in(t) {
			continue
		}
		if !slices.Contains(sizes, t.Hosts) {
			sizes = append(sizes, t.Hosts)
		}
		if cells[t.line()] == nil {
			lines = append(lines, t.line())
			cells[t.line()] = map[int]string{}
		}
		cells[t.line()][t.Hosts] = fmt.Sprintf("**%.0f** · %.0f (%.0f–%.0f)", t.Calm, t.Figure.Median, t.Figure.P10, t.Figure.P90)
	}
	if len(lines) == 0 {
		return
	}
	fmt.Fprintf(b, "## %s\n\nTest runs, ns per packet above an empty wrapper: **calm** · median (10th–90th percentile).\n\n| row |", title)
	for _, s := range sizes {
		fmt.Fprintf(b, " %s |", size(s))
	}
	b.WriteString("\n|---" + strings.Repeat("|---", len(sizes)) + "|\n")
	for _, line := range lines {
		fmt.Fprintf(b, "| %s |", line)
		for _, s := range sizes {
			fmt.Fprintf(b, " %s |", cells[line][s])
		}
		b.WriteString("\n")
	}
	b.WriteString("\n")
}

// writeOptions is a table with a line for each option.
func (r *Result) writeOptions(b *strings.Builder) {
	if len(r.Tests) == 0 {
		return
	}
	fmt.Fprintf(b, "## What each option costs\n\nOne hot IPv4 host of %s, ns above the empty wrapper, with one thing changed: **calm** · median (10th–90th percentile).\n\n"+
		"| option | encapsulation | decapsulation |\n|---|---|---|\n", size(optionHosts))
	for _, o := range options {
		fmt.Fprintf(b, "| %s |", o.name)
		for _, what := range []string{"encap", "decap"} {
			for _, t := range r.Tests {
				if t.What == what && t.Option == o.name {
					fmt.Fprintf(b, " **%.0f** · %.0f (%.0f–%.0f) |", t.Calm, t.Figure.Median, t.Figure.P10, t.Figure.P90)
				}
			}
		}
		b.WriteString("\n")
	}
	b.WriteString("\n")
}

// writeFill says what the figures cannot be read without.
func (r *Result) writeFill(b *strings.Builder) {
	if len(r.Tests) == 0 {
		return
	}
	b.WriteString("## Conditions\n\n")
	seen := map[int]bool{}
	var fills []string
	for _, t := range r.Tests {
		if t.What == "encap" && t.Series == "" && !seen[t.Hosts] {
			seen[t.Hosts] = true
			fills = append(fills, fmt.Sprintf("%s hosts %.0f%%", size(t.Hosts), 100*t.Fill))
		}
	}
	fmt.Fprintf(b, "- Slots of the table in use: %s; tunnel ends and tenants included, and as many IPv6 hosts beside.\n", strings.Join(fills, ", "))
	fmt.Fprintf(b, "- Random rows draw destinations only, but where they say so. Hosts of encapsulation rows are spread over %d locators; "+
		"of the hosts of decapsulation rows, the first %s live here, each with a next hop of its own.\n", locators, size(locals))
	fmt.Fprintf(b, "- Frames have %d bytes without their checksum, UDP inside. The empty wrapper took %.0f ns (median of all rows).\n", payload, r.wrapper())
}

func (r *Result) wrapper() float64 {
	var all []float64
	for _, t := range r.Tests {
		if t.Wrapper.Median > 0 {
			all = append(all, t.Wrapper.Median)
		}
	}
	return summarize(all).Median
}

// line names a row without its size.
func (r *row) line() string {
	short := *r
	short.Hosts = 0
	s := strings.Replace(short.String(), " of 0", "", 1)
	return strings.TrimSuffix(s, ", random")
}

// test finds a row; nil where the plan had none.
func (r *Result) test(what string, s bench.Structure, inner, outer, hosts int, random bool) *row {
	for _, t := range r.Tests {
		if t.What == what && t.Structure == s && t.Inner == inner && t.Outer == outer && !t.Checksum && t.Hosts == hosts &&
			t.Sources <= 1 && (t.Drawn > 1) == random && t.Option == "" && t.Series == "" {
			return t
		}
	}
	return nil
}

// live finds a row by a word of its name.
func (r *Result) live(word string) *liveRow {
	for _, v := range r.Live {
		if strings.Contains(v.What, word) {
			return v
		}
	}
	return nil
}
