package main

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"roam/lab"
	"roam/maps"
	"roam/maps/bench"
)

// scalingRow is what several cores do together that share a table, each with a queue of its own.
type scalingRow struct {
	Cores   int       `json:"cores"`
	Samples []float64 `json:"mpps"` // of all together
}

// runScaling has each of 1, 2, 4, … cores inject frames for itself, as a network card would give each a queue: no core is left over
// for a generator, and none is needed.
func runScaling(l *lab.Lab, p plan) (rows []*scalingRow, err error) {
	gw, far := l.Namespace("gwn"), l.Namespace("farn")
	cpus := runtime.NumCPU()
	l.Cable(lab.End{In: gw, Name: "wan0"}, lab.End{In: far, Name: "wan0"}, 1600, cpus)
	wire, err := bench.LoadWire()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, wire.Close()) }()
	err = far.Do(func() error {
		var index int
		if err := find("wan0", &index); err != nil {
			return err
		}
		sink, err := link.AttachXDP(link.XDPOptions{Program: wire.Sink, Interface: index, Flags: link.XDPDriverMode})
		if err != nil {
			return fmt.Errorf("attach the sink: %w", err)
		}
		l.Defer(func() { _ = sink.Close() })
		return nil
	})
	if err != nil {
		return nil, err
	}
	b := &bed{}
	defer func() { err = errors.Join(err, b.close()) }()
	injectors, err := b.injectors(gw, p.live, cpus)
	if err != nil {
		return nil, err
	}
	for cores := 1; cores <= cpus; cores *= 2 {
		rows = append(rows, &scalingRow{Cores: cores})
	}
	for round := range p.rounds + 1 { // the first one warms up
		for _, r := range rows {
			rate, err := together(gw, injectors[:r.Cores], p.repeats)
			if err != nil {
				return nil, err
			}
			if round > 0 {
				r.Samples = append(r.Samples, rate)
			}
		}
	}
	return rows, nil
}

// injectors are the walk once for each core, over the same tables, with counters of packets of their own.
func (b *bed) injectors(gw *lab.Namespace, hosts, n int) (list []*walker, err error) {
	err = gw.Do(func() error {
		var wan0 int
		if err := find("wan0", &wan0); err != nil {
			return err
		}
		g, err := b.gateway(crowd{hosts: hosts}, side{loopback, maps.RoleAccess}, side{uint32(wan0), maps.RoleUnderlay})
		if err != nil {
			return err
		}
		for range n {
			w, err := g.load(bench.Table, nil, shape{}, maps.DefaultTune, true)
			if err != nil {
				return err
			}
			b.closers = append(b.closers, w.close)
			if err := w.Traffic.Set(&bench.Traffic{Random: uint64(len(list) + 1), Destinations: uint32(hosts - 1)}); err != nil {
				return err
			}
			list = append(list, w)
		}
		return nil
	})
	return list, err
}

// together has each walker work on a CPU of its own, and returns millions of packets a second of all.
func together(gw *lab.Namespace, walkers []*walker, packets int) (mpps float64, err error) {
	errs := make([]error, len(walkers))
	var all sync.WaitGroup
	start := time.Now()
	for i, w := range walkers {
		all.Go(func() {
			errs[i] = gw.Do(func() error {
				if err := pin(0, runtime.NumCPU()-1-i); err != nil {
					return err
				}
				_, err := w.Walk.Run(&ebpf.RunOptions{
					Data: w.frame, Repeat: uint32(packets), Flags: liveFrames, Context: xdpContext{DataEnd: uint32(len(w.frame)), Ingress: loopback},
				})
				return errors.Join(err, release(0))
			})
		})
	}
	all.Wait()
	return float64(packets*len(walkers)) / time.Since(start).Seconds() / 1e6, errors.Join(errs...)
}

func (r *Result) writeScaling(b *strings.Builder) {
	if len(r.Scaling) == 0 {
		return
	}
	fmt.Fprintf(b, "### Cores\n\nEncapsulation of random hosts by 1 to %d cores that share the tables; each injects for itself into a queue of its own, and receives at the far end.\n\n"+
		"| cores | Mpps | of one |\n|---|---|---|\n", r.Scaling[len(r.Scaling)-1].Cores)
	for _, s := range r.Scaling {
		f := summarize(s.Samples)
		fmt.Fprintf(b, "| %d | %.2f (%.2f–%.2f) | %.2f |\n", s.Cores, f.Median, f.P10, f.P90, summarize(ratios(s.Samples, r.Scaling[0].Samples)).Median)
	}
	b.WriteString("\n")
}
