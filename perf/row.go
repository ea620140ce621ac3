package main

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/cilium/ebpf"

	"roam/maps"
	"roam/maps/bench"
)

// loopback is the interface that test runs take place on, in every namespace.
const loopback = 1

// XDP actions.
const (
	xdpPass     = 2
	xdpTX       = 3
	xdpRedirect = 4
)

// row is one line of the table of test runs: a program, the packets it gets, and what they cost.
type row struct {
	What      string          `json:"what"` // "encap", "decap", "no-op", "redirect"
	Structure bench.Structure `json:"structure,omitempty"`
	Inner     int             `json:"inner,omitempty"` // IP versions
	Outer     int             `json:"outer,omitempty"`
	Checksum  bool            `json:"checksum,omitempty"` // outer UDP checksum computed
	Hosts     int             `json:"hosts,omitempty"`    // of each family in the table
	Fill      float64         `json:"fill,omitempty"`     // of the table's slots
	Drawn     int             `json:"drawn"`              // hosts that packets go to; 1 is hot
	Sources   int             `json:"sources,omitempty"`  // hosts that they come from
	Option    string          `json:"option,omitempty"`   // with this changed
	Series    string          `json:"series,omitempty"`   // see series.go
	Encap     string          `json:"encap,omitempty"`    // of a series
	Bytes     int             `json:"bytes,omitempty"`    // of the frame, of a series
	Capacity  int             `json:"capacity,omitempty"` // of the table, of a series
	Figure    Figure          `json:"ns"`
	Wrapper   Figure          `json:"wrapper_ns"` // the empty wrapper alone
	Calm      float64         `json:"calm_ns"`    // when nothing else disturbs the machine
	Samples   []float64       `json:"samples"`

	Calms []float64 `json:"calms"` // of each round, with the wrapper

	gateway  *gateway
	walker   *walker
	program  *ebpf.Program
	empties  []timing
	want     uint32 // action
	reason   string // counted once per packet; none where the program does not count
	settings underlay
	first    uint32       // number of the first host that packets go to
	prefix   netip.Prefix // in the tables during this row
	tracer   *tracer      // where somebody traces
	filter   maps.TraceFilter
}

// prepare sets what packets the next run gets.
func (r *row) prepare() error {
	if r.settings != r.gateway.underlay {
		if err := r.gateway.lead(r.settings); err != nil {
			return err
		}
	}
	if r.tracer != nil {
		if err := r.tracer.objects.SetTraceFilters([maps.TraceFilters]*maps.TraceFilter{&r.filter}); err != nil {
			return err
		}
	}
	if err := r.gateway.cover(r.prefix); err != nil {
		return err
	}
	return r.walker.Traffic.Set(&bench.Traffic{
		Random: 1, First: r.first, Destinations: uint32(r.Drawn - 1), Sources: uint32(max(r.Sources, 1) - 1), Egress: uint32(r.gateway.egress),
	})
}

// check runs some packets and sees to it that every one of them takes the way that the row claims to time.
func (r *row) check() error {
	if err := r.prepare(); err != nil {
		return err
	}
	const packets = 2000
	before, err := maps.ReadCounters(r.gateway.objects.Counters)
	if err != nil {
		return err
	}
	action, _, err := r.program.Benchmark(r.walker.frame, packets, nil)
	if err != nil {
		return fmt.Errorf("run %s: %w", r, err)
	}
	if action != r.want {
		return fmt.Errorf("%s ends in XDP action %d instead of %d", r, action, r.want)
	}
	after, err := maps.ReadCounters(r.gateway.objects.Counters)
	if err != nil {
		return err
	}
	moved := difference(before, after)
	if r.reason != "" && (len(moved) != 1 || moved[r.reason] < packets) {
		return fmt.Errorf("%s: of %d packets, the counters say %v instead of %s", r, packets, moved, r.reason)
	}
	return nil
}

func difference(before, after []maps.PortCount) map[string]uint64 {
	moved := map[string]uint64{}
	for _, c := range after {
		moved[maps.ReasonName(c.Reason)] += c.Packets
	}
	for _, c := range before {
		moved[maps.ReasonName(c.Reason)] -= c.Packets
	}
	for name, n := range moved {
		if n == 0 {
			delete(moved, name)
		}
	}
	return moved
}

// measure times the program. What the wrapper alone takes was timed in the same round: once for all rows that share it, because every
// change of the program costs some fifty milliseconds of waiting.
func (r *row) measure(round, repeats int) error {
	if err := r.prepare(); err != nil {
		return err
	}
	var empty timing
	if r.program != r.walker.Noop {
		var err error
		if empty, err = r.walker.timeEmpty(round, repeats); err != nil {
			return fmt.Errorf("time the empty wrapper of %s: %w", r, err)
		}
	}
	if r.Drawn >= 1<<17 { // what other rows left in the caches is not what this one is about
		if _, _, err := r.program.Benchmark(r.walker.frame, repeats/4, nil); err != nil {
			return fmt.Errorf("run %s: %w", r, err)
		}
	}
	full, err := r.walker.time(r.program, repeats)
	if err != nil {
		return fmt.Errorf("run %s: %w", r, err)
	}
	r.Samples = append(r.Samples, full.mean-empty.mean)
	r.Calms = append(r.Calms, full.calm)
	r.empties = append(r.empties, empty)
	return nil
}

// summarize takes the calmest round of the program and the calmest of the wrapper: a neighbour on the same core may stay for seconds, and
// seldom leaves both sides of one round alone.
func (r *row) summarize() {
	var means, calms []float64
	for _, e := range r.empties {
		means, calms = append(means, e.mean), append(calms, e.calm)
	}
	r.Figure, r.Wrapper = summarize(r.Samples), summarize(means)
	r.Calm = slices.Min(r.Calms) - slices.Min(calms)
}

func (r *row) String() string {
	s := r.What
	if r.Encap != "" {
		s += " " + r.Encap
	}
	if r.Inner != 0 {
		s += fmt.Sprintf(" IPv%d", r.Inner)
	}
	if r.Outer != 0 {
		s += fmt.Sprintf(" over IPv%d", r.Outer)
	}
	if r.Checksum {
		s += " with UDP checksum"
	}
	if r.Structure != "" {
		s += fmt.Sprintf(", %s of %s", r.Structure, size(r.Hosts))
	}
	if r.Series == seriesFill {
		s += fmt.Sprintf(", %.0f%% full", 100*r.Fill)
	}
	if r.Bytes != 0 {
		s += fmt.Sprintf(", %d bytes", r.Bytes)
	}
	if r.Option != "" {
		s += ", " + r.Option
	}
	switch {
	case r.Sources > 1:
		s += ", random sources"
	case r.Drawn > 1:
		s += ", random"
	}
	return s
}

// size writes a power of two for people.
func size(n int) string {
	switch {
	case n >= 1<<20:
		return fmt.Sprintf("%d Mi", n>>20)
	case n >= 1<<10:
		return fmt.Sprintf("%d Ki", n>>10)
	}
	return fmt.Sprint(n)
}
