package main

import (
	"errors"
	"net/netip"

	"roam/maps"
	"roam/maps/bench"
)

// tracer is the walk as it is while somebody traces, and a reader that takes what is told as fast as it can.
type tracer struct {
	objects *maps.Objects // for the maps of tracing
	ring    *maps.Traces
	read    chan struct{} // closed when the reader has ended
}

func (g *gateway) newTracer() (t *tracer, err error) {
	t = &tracer{read: make(chan struct{})}
	if t.objects, err = maps.Load(maps.Options{Hosts: g.maps, Reuse: g.objects.All(), Trace: true}); err != nil {
		return nil, err
	}
	if t.ring, err = maps.OpenTraces(t.objects); err != nil {
		return nil, errors.Join(err, t.objects.Close())
	}
	go func() {
		defer close(t.read)
		for {
			if _, err := t.ring.Read(); err != nil {
				return
			}
		}
	}()
	return t, nil
}

func (t *tracer) close() error {
	err := t.ring.Close()
	<-t.read
	return errors.Join(err, t.objects.Close())
}

// addTraced enters rows of one hot host that is traced, or beside whom somebody else is.
func (b *bed) addTraced(g *gateway) error {
	t, err := g.newTracer()
	if err != nil {
		return err
	}
	b.closers = append(b.closers, t.close)
	spec, err := bench.Load(bench.Table)
	if err != nil {
		return err
	}
	if err := maps.Trace(spec); err != nil {
		return err
	}
	w, err := g.loadSpec(spec, bench.Table, t.objects.TraceMaps(), shape{}, maps.DefaultTune, false)
	if err != nil {
		return err
	}
	b.closers = append(b.closers, w.close)
	nobody := netip.MustParseAddr("192.0.2.99")
	for _, c := range []struct {
		what   string
		filter maps.TraceFilter
	}{
		{"traced encap, nobody's packet", maps.TraceFilter{Host: nobody}},
		{"traced encap, captured, nobody's packet", maps.TraceFilter{Host: nobody, Bytes: maps.TraceBytes}},
		{"traced encap, one in 1000", maps.TraceFilter{Sample: 1000}},
		{"traced encap, every packet", maps.TraceFilter{}},
		{"traced encap, captured, every packet", maps.TraceFilter{Bytes: maps.TraceBytes}},
	} {
		b.add(row{
			What: c.what, Structure: bench.Table, Inner: 4, Outer: 4, gateway: g, walker: w, program: w.Traced, want: xdpRedirect,
			reason: "fwd_encap", tracer: t, filter: c.filter,
		}, 1)
	}
	return nil
}
