// Command perf is the benchmark: what the packet walk costs, beside the same walk over the kernel's own structures, beside the kernel
// doing the same work, and beside the least that a program can do, all measured in one run.
//
// Every row is measured once in every round, so that whatever drifts meanwhile moves all of them; medians and ratios of
// a round's figures are what to read. Everything happens in network namespaces that the program makes and removes.
//
// With -bgp it measures the control plane instead: see bgp.go; with -scrape what it costs to be watched: see scrape.go; with -moves
// hosts that move: see moves.go.
// A run has parts (-only): test runs, live frames, the system beside its peers, the control plane, and what may not lose a packet. Parts that
// are not measured stay in the result as an earlier run found them. With -compare it says what a change did; see compare.go.
package main

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/cilium/ebpf/rlimit"
	"roam/lab"
)

// plan is how much is measured.
type plan struct {
	sizes    []int // hosts of each family
	live     int   // hosts of the live gateway
	rounds   int
	repeats  int           // packets per row and round
	budget   time.Duration // no further round of test runs begins after this time, once there are three; the system's rounds end before it
	trieUpTo int           // hosts: filling a larger trie takes longer than all the rest
	hash6To  int           // the same for a hash of IPv6 hosts
	fillOf   int           // hosts that the tables of the fill series are made for
	seriesAt int           // hosts: size of the tables of the other series

	searchRounds int           // searches for each loss-free rate
	trial        time.Duration // of each trial
	routes       int           // of the control plane's import
	imports      int           // and restarts
	changes      int           // one at a time
}

var (
	wholePlan = plan{
		sizes: []int{1, 1 << 10, 1 << 17, 1 << 20, 1 << 23}, live: 1 << 20,
		rounds: 7, repeats: 1 << 20, budget: 6 * time.Minute, trieUpTo: 1 << 20, hash6To: 1 << 20, fillOf: 1 << 20, seriesAt: 1 << 10,
		searchRounds: 3, trial: 100 * time.Millisecond, routes: 1_000_000, imports: 3, changes: 1000,
	}
	quickPlan = plan{
		sizes: []int{1, 1 << 10}, live: 1 << 10,
		rounds: 3, repeats: 1 << 16, budget: time.Minute, trieUpTo: 1 << 10, hash6To: 1 << 10, fillOf: 1 << 10, seriesAt: 1 << 10,
		searchRounds: 1, trial: 20 * time.Millisecond, routes: 20_000, imports: 2, changes: 100,
	}
)

// parts are what can be measured, in the order of a run. Each takes its rows over from an earlier run only as a whole.
var parts = []struct {
	name string
	run  func(*lab.Lab, plan, *Result) error
}{
	{"micro", runTests},
	{"live", runLive},
	{"system", runSystem},
	{"control", runControl},
	{"zeroloss", runZeroLoss},
}

var partNames = func() (names []string) {
	for _, p := range parts {
		names = append(names, p.name)
	}
	return names
}()

func main() {
	quick := flag.Bool("quick", false, "two sizes and few packets: shows that it works, not how fast it is")
	only := flag.String("only", strings.Join(partNames, ","), "parts to measure; the others stay as they were")
	out := flag.String("out", "perf/results", "folder for the results")
	page := flag.String("page", "", "page whose generated pieces are to be replaced, such as docs/performance.md")
	rounds := flag.Int("rounds", 0, "number of rounds instead of the plan's")
	repeats := flag.Int("repeats", 0, "packets per row and round instead of the plan's")
	ofBGP := flag.Bool("bgp", false, "measure the control plane beside FRR instead: EVPN hosts of a BGP neighbour; needs 5 GB")
	ofScrapes := flag.Bool("scrape", false, "measure instead what it costs the data path that Prometheus scrapes")
	hosts := flag.Int("hosts", 1_000_000, "with -bgp and -scrape: how many")
	base := flag.String("compare", "", "measure this tree against another commit, in turns; or show the last result against a raw file (bench.json)")
	times := flag.Int("times", 4, "with -compare: runs of each")
	ofMoves, runMoves := movesFlags()
	flag.Parse()
	p := wholePlan
	if *quick {
		p = quickPlan
	}
	if *rounds > 0 {
		p.rounds = *rounds
	}
	if *repeats > 0 {
		p.repeats = *repeats
	}
	var err error
	switch {
	case *ofMoves:
		err = runMoves(*out)
	case *ofBGP:
		err = runBGP(*hosts, *out)
	case *ofScrapes:
		err = runScrape(*hosts, cmp.Or(*rounds, 20), *out)
	case *base != "":
		if *only == flag.Lookup("only").DefValue {
			*only = "micro,live"
		}
		err = compare(*base, *only, *out, *times)
	default:
		err = run(p, strings.Split(*only, ","), *out, *page)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(p plan, only []string, out, page string) error {
	for _, name := range only {
		if !slices.Contains(partNames, name) {
			return fmt.Errorf("there is no part %q: -only takes some of %s", name, strings.Join(partNames, ", "))
		}
	}
	t := &topLevel{}
	defer t.end()
	_ = rlimit.RemoveMemlock() // before Linux 5.11, map memory counts against a limit
	result, err := openResult(out)
	if err != nil {
		return err
	}
	for _, part := range parts {
		if !slices.Contains(only, part.name) {
			continue
		}
		start := time.Now()
		result.Parts[part.name] = &Part{Commit: result.Machine.Commit, Date: start.UTC().Format(time.DateOnly), Command: command()}
		l := lab.New(t)
		if err := part.run(l, p, result); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
		l.Close()
		result.Parts[part.name].Seconds = time.Since(start).Seconds()
	}
	if err := result.write(out); err != nil {
		return err
	}
	if page != "" {
		if err := result.writePage(page); err != nil {
			return err
		}
	}
	fmt.Print(result.markdown())
	return nil
}

// command is how this run was asked for.
func command() string {
	args := []string{"go run ./perf"}
	flag.Visit(func(f *flag.Flag) {
		switch f.Name {
		case "out", "page": // where to, not what
		default:
			args = append(args, fmt.Sprintf("-%s=%s", f.Name, f.Value))
		}
	})
	return strings.ReplaceAll(strings.Join(args, " "), "=true", "")
}

// runTests measures everything that needs no wire.
func runTests(l *lab.Lab, p plan, result *Result) error {
	start, part := time.Now(), result.Parts["micro"]
	gw, far := l.Namespace("test"), l.Namespace("void")
	l.Cable(lab.End{In: gw, Name: "out0"}, lab.End{In: far, Name: "out1"}, 1600, 1)
	return gw.Do(func() (err error) {
		if err := pinThread(); err != nil {
			return err
		}
		b, err := newBed(p)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, b.close()) }()
		for part.Rounds = 0; part.Rounds < p.rounds; part.Rounds++ {
			if part.Rounds >= 3 && time.Since(start) > p.budget {
				break
			}
			progress("test runs, round %d of %d", part.Rounds+1, p.rounds)
			for _, r := range b.rows {
				if err := r.measure(part.Rounds+1, p.repeats); err != nil {
					return err
				}
			}
		}
		for _, r := range b.rows {
			r.summarize()
		}
		result.Tests, part.Repeats = b.rows, p.repeats
		if err := result.profileSteps(); err != nil { // no reason to lose the rest
			progress("where the time goes stays unknown: %v", err)
		}
		if err := result.countHardware(); err != nil {
			progress("what the processor counts stays unknown: %v", err)
		}
		result.Programs, err = countPrograms()
		return err
	})
}

// runLive measures with frames on a wire.
func runLive(l *lab.Lab, p plan, result *Result) error {
	v, err := newLive(l, p.live)
	if err != nil {
		return err
	}
	err = v.gw.Do(func() error {
		if err := pinThread(); err != nil {
			return err
		}
		for round := range p.rounds + 1 { // the first one warms up
			progress("live frames, round %d of %d", round, p.rounds)
			for _, r := range v.rows {
				if err := v.measure(r, p.repeats); err != nil {
					return err
				}
			}
		}
		return nil
	})
	for _, r := range v.rows {
		r.Samples = r.Samples[min(1, len(r.Samples)):]
		r.summarize()
	}
	result.Live = v.rows
	result.Parts["live"].Rounds, result.Parts["live"].Repeats = p.rounds, p.repeats
	return errors.Join(err, v.close())
}

// pinThread keeps the calling thread on the last CPU. It is called on threads that end with their work.
func pinThread() error { return pin(0, lastCPU()) }

func lastCPU() int { return runtime.NumCPU() - 1 }

func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%s "+format+"\n", append([]any{time.Now().Format(time.TimeOnly)}, args...)...)
}

// topLevel stands in for the test that a lab belongs to.
type topLevel struct {
	failed bool
	undo   []func()
}

func (t *topLevel) Helper()                         {}
func (t *topLevel) Logf(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
func (t *topLevel) Failed() bool                    { return t.failed }
func (t *topLevel) Cleanup(undo func())             { t.undo = append(t.undo, undo) }

// Fatalf ends the program, cleaned up.
func (t *topLevel) Fatalf(format string, args ...any) {
	t.failed = true
	t.Logf(format, args...)
	t.end()
	os.Exit(1)
}

func (t *topLevel) end() {
	for i := len(t.undo) - 1; i >= 0; i-- {
		t.undo[i]()
	}
	t.undo = nil
}
