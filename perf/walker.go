package main

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"

	"roam/maps"
	"roam/maps/bench"
)

// walker is the benchmark's programs over one structure, for one kind of frame.
type walker struct {
	bench.Programs
	Traffic *ebpf.Variable `ebpf:"bench_traffic"`
	Watch   *ebpf.Variable `ebpf:"bench_stopwatch"`
	Sunk    *ebpf.Map      `ebpf:"bench_sunk"`
	Turned  *ebpf.Map      `ebpf:"programs"`
	frame   []byte
	timed   int // the last round in which the empty wrapper was timed, from 1
	empty   timing
}

// timing is what a packet took in one run, in ns.
type timing struct {
	mean float64
	calm float64 // the 10th percentile of windows of a thousand packets: what it takes when nothing else disturbs
}

// window is the number of packets that are timed together: long against the clock, short against a disturbance.
const window = 1024

// time runs a program of the walker.
func (w *walker) time(p *ebpf.Program, repeats int) (timing, error) {
	if err := w.Watch.Set(&bench.Stopwatch{}); err != nil {
		return timing{}, err
	}
	_, d, err := p.Benchmark(w.frame, repeats, nil)
	if err != nil {
		return timing{}, err
	}
	var watch bench.Stopwatch
	if err := w.Watch.Get(&watch); err != nil {
		return timing{}, err
	}
	t := timing{float64(d.Nanoseconds()), float64(d.Nanoseconds())}
	var windows []float64
	for i := 2; i < min(int(watch.Packets)/window, len(watch.Took)); i++ { // the first one did not begin with its first packet
		windows = append(windows, float64(watch.Took[i])/window)
	}
	if len(windows) > 0 {
		t.calm = summarize(windows).P10
	}
	return t, nil
}

// timeEmpty times the wrapper around nothing, once in each round (from 1).
func (w *walker) timeEmpty(round, repeats int) (t timing, err error) {
	if w.timed != round {
		if w.empty, err = w.time(w.Empty, repeats); err == nil {
			w.timed = round
		}
	}
	return w.empty, err
}

func (w *walker) close() error {
	return errors.Join(w.Walk.Close(), w.Traced.Close(), w.Empty.Close(), w.Redirect.Close(), w.Pass.Close(), w.Calls.Close(), w.Sink.Close(), w.Noop.Close(), w.Sunk.Close(), w.Turned.Close())
}

// load builds the programs over the gateway's maps; peers holds the hash or trie that takes the table's place.
func (g *gateway) load(s bench.Structure, peers map[string]*ebpf.Map, packet shape, tune maps.Tune, live bool) (*walker, error) {
	spec, err := bench.Load(s)
	if err != nil {
		return nil, err
	}
	return g.loadSpec(spec, s, peers, packet, tune, live)
}

func (g *gateway) loadSpec(
	spec *ebpf.CollectionSpec, s bench.Structure, peers map[string]*ebpf.Map, packet shape, tune maps.Tune, live bool,
) (*walker, error) {
	replace, err := g.maps.Configure(spec)
	if err != nil {
		return nil, err
	}
	for name, m := range g.objects.All() {
		replace[name] = m
	}
	for name, m := range peers {
		spec.Maps[name].MaxEntries = m.MaxEntries()
		replace[name] = m
	}
	if err := tune.Set(spec); err != nil {
		return nil, err
	}
	data, frame := packet.frame()
	frame.Live, frame.Window = bit(live), window-1
	if err := spec.Variables[bench.FrameVariable].Set(&frame); err != nil {
		return nil, fmt.Errorf("describe the frame: %w", err)
	}
	w := &walker{frame: data}
	if err := spec.LoadAndAssign(w, &ebpf.CollectionOptions{MapReplacements: replace}); err != nil {
		return nil, fmt.Errorf("load the benchmark over the %s: %w", s, err)
	}
	return w, nil
}
