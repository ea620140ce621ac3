package datapath

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"roam/loader/route"
	"roam/maps"
)

// Trace puts a program in force that tells of packets, or one that does not, without losing a packet: to whom, the
// filters say. Open never begins with it, whatever an earlier process has
// left behind.
func (p *Plane) Trace(on bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if on == p.traced {
		return nil
	}
	return p.reload(p.tune, on)
}

// TraceSpec says which packets somebody wants to be told of. Zero fields ask for nothing.
type TraceSpec struct {
	Host    netip.Addr     // source or destination
	Reasons []maps.Reason  // one of them
	Tenant  route.TenantID // 0: of every tenant
	Locator netip.Addr     // of the tunnel that it came or leaves by
	Sample  uint32         // one packet in so many, at random; 0 and 1: every one
	Bytes   int            // of the frame, as it came and at the end; at most maps.TraceBytes
}

// TracedPacket is what happened to a packet. Addresses and ports are those of the last packet that the walk looked at: out of a tunnel
// the inner one.
type TracedPacket struct {
	When              time.Time
	Reason            string
	Verdict           maps.Verdict
	Tenant            route.TenantID // 0: none, or one that is there no more
	In, Out           string         // ports; Out is "" unless it was forwarded
	Src, Dst          netip.Addr     // not valid where the walk did not come so far
	Proto             uint8
	SrcPort, DstPort  uint16
	Locator, From     netip.Addr // of the tunnels that it was to leave and that it came by
	Bytes, BytesAfter int        // lengths of the frame as it came and at the end
	Before, After     []byte     // as much of it as was asked for
}

// ErrTooManyTraces says that as many trace as there is room for, ErrNoLocator that no locator of that address is known.
var (
	ErrTooManyTraces = fmt.Errorf("%d trace already, more cannot at a time", maps.TraceFilters)
	ErrNoLocator     = errors.New("no locator has this address")
)

// traceBacklog is how many events wait for somebody who reads slowly, before they are lost to him.
const traceBacklog = 4096

// Trace is one who is told of packets.
type Trace struct {
	Packets <-chan TracedPacket // closed by Stop

	tracer *tracer
	number int // of its filter
	filter maps.TraceFilter
	out    chan TracedPacket
	before uint64 // lost to an earlier holder of the number
	late   atomic.Uint64
	ending bool // its filter is no more; written with the tracer's lock held

	mu     sync.Mutex // of out and its end
	closed bool
}

// tracer shares one ring among all who trace. The data path tells of packets while there are any.
type tracer struct {
	gateway *Gateway

	mu     sync.Mutex // of beginnings and ends, which take a while
	ring   *maps.Traces
	read   chan struct{} // one element for each Interrupt that was heeded
	ended  chan struct{} // closed when nobody reads the ring any more
	holder [maps.TraceFilters]atomic.Pointer[Trace]

	numbers map[uint16]netip.Addr // of locators
	asked   time.Time             // for them
}

// Trace begins to tell of packets. For the first who asks, the program in force is replaced, which takes a second or so and loses no
// packet; ctx ends nothing once that is done: Stop does. The error wraps ErrTooManyTraces or ErrNoLocator.
func (g *Gateway) Trace(ctx context.Context, spec TraceSpec) (*Trace, error) {
	filter, err := g.traceFilter(spec)
	if err != nil {
		return nil, err
	}
	t := &g.tracer
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err // waited for others in vain
	}
	number := -1
	for i := range t.holder {
		if t.holder[i].Load() == nil {
			number = i
			break
		}
	}
	if number < 0 {
		return nil, ErrTooManyTraces
	}
	if t.ring == nil {
		if err := t.begin(); err != nil {
			return nil, err
		}
	}
	tr := &Trace{tracer: t, number: number, filter: filter, out: make(chan TracedPacket, traceBacklog)}
	tr.Packets = tr.out
	lost, err := g.plane.Objects().TracesLost()
	if err == nil {
		tr.before = lost[number]
		t.holder[number].Store(tr)
		err = t.choose()
	}
	if err != nil {
		t.holder[number].Store(nil)
		return nil, errors.Join(err, t.endIfUnused())
	}
	return tr, nil
}

func (g *Gateway) traceFilter(spec TraceSpec) (maps.TraceFilter, error) {
	f := maps.TraceFilter{Host: spec.Host, Reasons: spec.Reasons, Sample: spec.Sample, Bytes: spec.Bytes}
	g.mu.Lock()
	defer g.mu.Unlock()
	if spec.Tenant != 0 {
		f.Tenant = g.table.tenants.ids[spec.Tenant]
	}
	if spec.Locator.IsValid() {
		g.table.locators.Each(func(a netip.Addr, number uint16) {
			if a == spec.Locator {
				f.Locator = number
			}
		})
		if f.Locator == 0 {
			return f, fmt.Errorf("trace %s: %w", spec.Locator, ErrNoLocator)
		}
	}
	return f, nil
}

// begin replaces the program and reads its ring. Called with the lock held, as are choose and endIfUnused.
func (t *tracer) begin() error {
	if err := t.gateway.plane.Trace(true); err != nil {
		return err
	}
	ring, err := maps.OpenTraces(t.gateway.plane.Objects())
	if err != nil {
		return errors.Join(err, t.gateway.plane.Trace(false))
	}
	t.ring, t.read, t.ended = ring, make(chan struct{}, 1), make(chan struct{})
	go t.pass(ring)
	t.gateway.log.Info("tracing begins: packets cost more while it goes on")
	return nil
}

// choose writes the filters of all who trace.
func (t *tracer) choose() error {
	var filters [maps.TraceFilters]*maps.TraceFilter
	for i := range t.holder {
		if tr := t.holder[i].Load(); tr != nil && !tr.ending {
			filters[i] = &tr.filter
		}
	}
	return t.gateway.plane.Use(func(o *maps.Objects) error { return o.SetTraceFilters(filters) })
}

func (t *tracer) endIfUnused() error {
	for i := range t.holder {
		if t.holder[i].Load() != nil {
			return nil
		}
	}
	err := errors.Join(t.gateway.plane.Trace(false), t.ring.Close())
	<-t.ended
	t.ring = nil
	t.gateway.log.Info("tracing ends")
	return err
}

// pass hands events on to all who asked for them, until the ring is closed.
func (t *tracer) pass(ring *maps.Traces) {
	defer close(t.ended)
	for {
		e, err := ring.Read()
		switch {
		case errors.Is(err, maps.ErrTracesRead):
			t.read <- struct{}{}
			continue
		case errors.Is(err, os.ErrClosed):
			return
		case err != nil:
			t.gateway.log.Warn("an event of a trace was lost", "error", err)
			continue
		}
		packet := t.resolve(e)
		for i := range t.holder {
			if tr := t.holder[i].Load(); tr != nil && e.Filters>>i&1 != 0 {
				tr.give(packet)
			}
		}
	}
}

func (tr *Trace) give(p TracedPacket) {
	p.Before, p.After = p.Before[:min(len(p.Before), tr.filter.Bytes)], p.After[:min(len(p.After), tr.filter.Bytes)]
	tr.mu.Lock()
	defer tr.mu.Unlock()
	if tr.closed {
		return
	}
	select {
	case tr.out <- p:
	default:
		tr.late.Add(1)
	}
}

func (tr *Trace) close() {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.closed = true
	close(tr.out)
}

// Lost is how many packets were chosen that Packets never told of, because the ring was full or its reader too slow.
func (tr *Trace) Lost() (uint64, error) {
	lost, err := tr.tracer.gateway.plane.Objects().TracesLost()
	return lost[tr.number] - tr.before + tr.late.Load(), err
}

// Stop ends the telling: what was chosen until now is in Packets, which is closed, and Lost says the last word, which Stop returns. When
// nobody traces any more the program in force is replaced by one that pays nothing for it.
func (tr *Trace) Stop() (lost uint64, err error) {
	t := tr.tracer
	t.mu.Lock()
	defer t.mu.Unlock()
	tr.ending = true
	err = t.choose()
	if err == nil {
		err = t.gateway.plane.Grace().Wait() // for packets that were chosen and are still under way
	}
	if err == nil {
		err = t.ring.Interrupt()
	}
	if err == nil {
		<-t.read
	}
	lost, e := tr.Lost()
	t.holder[tr.number].Store(nil)
	tr.close()
	return lost, errors.Join(err, e, t.endIfUnused())
}

// resolve gives numbers their names.
func (t *tracer) resolve(e maps.TraceEvent) TracedPacket {
	p := t.gateway.places.Load()
	name := maps.ReasonName(e.Reason)
	out := TracedPacket{
		When: time.Now().Add(e.When - uptime()), Reason: name, Verdict: maps.VerdictOf(name), Tenant: p.tenants[e.Tenant],
		In: p.name(e.Port), Src: e.Src, Dst: e.Dst, Proto: e.Proto, SrcPort: e.SrcPort, DstPort: e.DstPort,
		Locator: t.locator(e.Locator), From: t.locator(e.From),
		Bytes: e.Bytes, BytesAfter: e.BytesAfter, Before: e.Before, After: e.After,
	}
	if out.Verdict == maps.Forwarded {
		out.Out = p.name(e.Egress)
	}
	return out
}

// name is a port's, or that of none, as counters have it.
func (p *places) name(slot uint16) string {
	if ref, ok := p.ports[slot]; ok {
		return ref.String()
	}
	return "none"
}

// locator is the address behind a number, which may have been given to another a moment ago.
func (t *tracer) locator(number uint16) netip.Addr {
	if number == 0 {
		return netip.Addr{}
	}
	if a, ok := t.numbers[number]; ok && time.Since(t.asked) < time.Second {
		return a
	}
	t.numbers, t.asked = map[uint16]netip.Addr{}, time.Now()
	t.gateway.mu.Lock()
	defer t.gateway.mu.Unlock()
	t.gateway.table.locators.Each(func(a netip.Addr, number uint16) { t.numbers[number] = a })
	return t.numbers[number]
}
