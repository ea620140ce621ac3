package datapath

import (
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"roam/lab"
	"roam/maps"
)

// attachedName is the name of the program that runs on a port.
func (s *site) attachedName(port string) string {
	s.t.Helper()
	id, native := s.gw.XDP(port)
	if !native {
		s.t.Errorf("%s runs nothing in native mode", port)
	}
	p, err := ebpf.NewProgramFromID(ebpf.ProgramID(id))
	must(s.t, err)
	defer p.Close()
	info, err := p.Info()
	must(s.t, err)
	return info.Name
}

func (s *site) runs(name string) {
	s.t.Helper()
	for _, port := range []string{"lan0", "wan0"} {
		if got := s.attachedName(port); got != name {
			s.t.Errorf("%s runs %s, want %s", port, got, name)
		}
	}
}

// next is the next packet of a trace.
func next(t *testing.T, tr *Trace) TracedPacket {
	t.Helper()
	select {
	case p, ok := <-tr.Packets:
		if !ok {
			t.Fatal("the trace has ended")
		}
		return p
	case <-time.After(5 * time.Second):
		t.Fatal("no packet is told of")
	}
	panic("not reached")
}

// Tracing begins with the first who asks and ends with the last; traffic, a growth and other constants pass through all of it.
func TestTraceLosesNothing(t *testing.T) {
	s := newSite(t)
	p := s.open()
	defer s.close(p)
	s.forward(p)
	g, err := NewGateway(p, quiet())
	must(t, err)
	defer func() { must(t, g.Close()) }()
	flow := s.Flow(s.left, leftAddr, s.right, rightAddr, 1000, 64)
	back := s.Flow(s.right, rightAddr, s.left, leftAddr, 1000, 64)
	flow.AwaitArrivals(100, 5*time.Second)
	s.runs("datapath")
	trace := func(spec TraceSpec) *Trace {
		t.Helper()
		tr, err := g.Trace(t.Context(), spec)
		must(t, err)
		return tr
	}
	for range 2 {
		all := trace(TraceSpec{Bytes: 64})
		s.runs("traced")
		one := trace(TraceSpec{Host: netip.MustParseAddr("10.9.9.9")})
		if e := next(t, all); e.Reason != "fwd_deliver" || e.Src != leftAddr && e.Src != rightAddr || e.DstPort == 0 || len(e.Before) != 64 || len(e.After) != 64 ||
			time.Since(e.When) > time.Minute || e.Verdict != maps.Forwarded {
			t.Errorf("%+v", e)
		}
		var told atomic.Int64
		ended := make(chan struct{})
		go func() { // a growth takes longer than the backlog lasts, where the machine has other work
			defer close(ended)
			for range all.Packets {
				told.Add(1)
			}
		}()
		s.in("grow", func() error { return p.Grow(uint32(2 * p.Hosts().Cap())) })
		s.in("retune", func() error { tune := p.tune; tune.ICMPRate++; return p.Retune(tune) })
		s.runs("traced")
		enough := told.Load() + traceBacklog // more than could wait from before
		s.Until(20*time.Second, "packets are told of", func() error {
			if n := told.Load(); n < enough {
				return fmt.Errorf("%d of %d", n, enough)
			}
			return nil
		})
		if lost, err := all.Stop(); err != nil || lost != 0 {
			t.Errorf("%d lost, %v", lost, err)
		}
		<-ended
		s.runs("traced")
		if lost, err := one.Stop(); err != nil || lost != 0 || len(one.Packets) != 0 {
			t.Errorf("of a host that is not there %d are told of, %d lost, %v", len(one.Packets), lost, err)
		}
		s.runs("datapath")
	}
	s.tidy()
	for _, f := range []*lab.Flow{flow, back} {
		if r := f.Stop(); !r.Perfect() {
			t.Errorf("%s: %v", f, r)
		}
	}
}

// Nobody is told of what he cannot take; everything is counted.
func TestTraceLimits(t *testing.T) {
	s := newSite(t)
	p := s.open()
	defer s.close(p)
	s.forward(p)
	g, err := NewGateway(p, quiet())
	must(t, err)
	defer func() { must(t, g.Close()) }()
	if _, err := g.Trace(t.Context(), TraceSpec{Locator: netip.MustParseAddr("192.0.2.99")}); !errors.Is(err, ErrNoLocator) {
		t.Errorf("a locator that nobody knows: %v", err)
	}
	s.runs("datapath")
	var all []*Trace
	for range maps.TraceFilters {
		tr, err := g.Trace(t.Context(), TraceSpec{Host: leftAddr})
		must(t, err)
		all = append(all, tr)
	}
	if _, err := g.Trace(t.Context(), TraceSpec{}); !errors.Is(err, ErrTooManyTraces) {
		t.Errorf("one too many: %v", err)
	}
	const sent = traceBacklog + 1000
	flow := s.Flow(s.left, leftAddr, s.right, rightAddr, 5000, 64)
	flow.AwaitArrivals(sent, 10*time.Second)
	r := flow.Stop()
	for _, tr := range all {
		lost, err := tr.Stop()
		told := 0
		for e := range tr.Packets {
			if e.Proto == 17 {
				told++
			} else {
				lost++ // not of the flow: it took a place
			}
		}
		if err != nil || told < traceBacklog/2 || told+int(lost) < r.Sent {
			t.Errorf("%d sent, %d told of, %d lost, %v", r.Sent, told, lost, err)
		}
	}
	s.runs("datapath")
}

// A data path that a process left tracing is put right by the next start.
func TestTraceLeftOn(t *testing.T) {
	s := newSite(t)
	p := s.open()
	s.forward(p)
	s.in("trace", func() error { return p.Trace(true) })
	s.runs("traced")
	flow := s.Flow(s.left, leftAddr, s.right, rightAddr, 1000, 64)
	flow.AwaitArrivals(100, 5*time.Second)
	s.close(p)
	s.runs("traced")
	p = s.open()
	defer s.close(p)
	s.runs("datapath")
	s.tidy()
	if r := flow.Stop(); !r.Perfect() {
		t.Errorf("%v", r)
	}
}

func TestTraceFailsAtEachStep(t *testing.T) {
	s := newSite(t)
	p := s.open()
	defer s.close(p)
	s.forward(p)
	flow := s.Flow(s.left, leftAddr, s.right, rightAddr, 1000, 64)
	flow.AwaitArrivals(10, 5*time.Second)
	for _, on := range []bool{true, false} {
		var steps []string
		p.step = recording(&steps)
		s.in("trace", func() error { return p.Trace(on) })
		s.in("trace", func() error { return p.Trace(!on) })
		steps = steps[:len(steps)/2]
		before := s.state()
		for _, i := range chosen(steps[:critical(t, steps)]) {
			p.step = failing(i)
			if err := s.gw.Do(func() error { return p.Trace(on) }); !errors.Is(err, errInjected) {
				t.Fatalf("step %q: %v, want the injected failure", steps[i], err)
			}
			if after := s.state(); after != before {
				t.Fatalf("a failure at %q changed the state from\n%s\nto\n%s", steps[i], before, after)
			}
			if p.traced == on || p.Objects().Traced() == on {
				t.Fatalf("a failure at %q changed what the plane takes itself for", steps[i])
			}
		}
		p.step = nil
		s.in("trace", func() error { return p.Trace(on) })
	}
	s.tidy()
	if r := flow.Stop(); !r.Perfect() {
		t.Errorf("%v", r)
	}
}
