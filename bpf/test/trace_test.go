package bpftest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/gopacket/gopacket/layers"

	"roam/maps"
)

// twin is the program as it is while somebody traces, over the tables of a world: what it does to a packet must be the same, and what it
// tells must be true. Every golden packet goes through both, but where ROAM_TWINS is "few": there, those of two ports do, and of each test the
// first for each reason.
type twin struct {
	objects *maps.Objects
	ring    *maps.Traces
	had     map[string]bool // tests with reasons
}

// few is set where the processor is emulated.
var few = os.Getenv("ROAM_TWINS") == "few"

// wants says whether the twin, and the shade beside it, are to get a frame.
func (x *twin) wants(t testing.TB, reason string) bool {
	test, _, _ := strings.Cut(t.Name(), "/")
	first := !x.had[test+" "+reason]
	x.had[test+" "+reason] = true
	return first || !few
}

func (w *world) traced(t testing.TB) *twin {
	t.Helper()
	shared := w.objects.All()
	for _, own := range []string{
		"counters", "locator_counters", "complaints", "icmp_sources", "seen", "sight_budgets", "sightings", "sight_counters",
	} {
		delete(shared, own)
	}
	o, err := maps.Load(maps.Options{Hosts: w.hosts4, Reuse: shared, Tune: w.tune, Trace: true})
	if err != nil {
		t.Fatalf("%+v", err)
	}
	x := &twin{objects: o, had: map[string]bool{}}
	if x.ring, err = maps.OpenTraces(o); err != nil {
		t.Fatal(err)
	}
	x.filter(t, maps.TraceFilter{Bytes: maps.TraceBytes})
	return x
}

func (x *twin) close() {
	_ = x.ring.Close()
	_ = x.objects.Close()
}

func (x *twin) filter(t testing.TB, filters ...maps.TraceFilter) {
	t.Helper()
	var all [maps.TraceFilters]*maps.TraceFilter
	for i := range filters {
		all[i] = &filters[i]
	}
	if err := x.objects.SetTraceFilters(all); err != nil {
		t.Fatal(err)
	}
}

// told returns the events since the last call.
func (x *twin) told(t testing.TB) (list []maps.TraceEvent) {
	t.Helper()
	if err := x.ring.Interrupt(); err != nil {
		t.Fatal(err)
	}
	for {
		e, err := x.ring.Read()
		if errors.Is(err, maps.ErrTracesRead) {
			return list
		}
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, e)
	}
}

// tell runs a frame and returns the events.
func (x *twin) tell(t testing.TB, w *world, in []byte) []maps.TraceEvent {
	t.Helper()
	if _, _, err := run(x.objects.Program, w.meta, in); err != nil {
		t.Fatal(err)
	}
	return x.told(t)
}

// check compares what the twin does with what the untraced program did.
func (x *twin) check(t testing.TB, w *world, slot uint16, in []byte, action uint32, out []byte, reason string) bool {
	t.Helper()
	got, frame, err := run(x.objects.Program, w.meta, in)
	if err != nil {
		t.Fatal(err)
	}
	events := x.told(t)
	if got != action || action != xdpDrop && !bytes.Equal(frame, out) {
		t.Errorf("traced: verdict %s, untraced %s\ngot  %s\nwant %s", actionName(got), actionName(action), describe(frame), describe(out))
		return false
	}
	if len(events) != 1 {
		t.Errorf("traced: %d events: %+v", len(events), events)
		return false
	}
	e := events[0]
	cut := func(b []byte) []byte { return b[:min(len(b), maps.TraceBytes)] }
	after := cut(frame)
	if action == xdpDrop {
		after = e.After
	} else if e.BytesAfter != len(frame) {
		t.Errorf("traced: %d bytes at the end, want %d", e.BytesAfter, len(frame))
		return false
	}
	if maps.ReasonName(e.Reason) != reason || e.Port != slot || e.Filters != 1 || e.When == 0 || e.Bytes != len(in) ||
		!bytes.Equal(e.Before, cut(in)) || !bytes.Equal(e.After, after) || (e.Egress != 0) != (maps.VerdictOf(reason) == maps.Forwarded) {
		t.Errorf("traced: %s: %+v\nbefore %s\nafter %s", maps.ReasonName(e.Reason), e, describe(e.Before), describe(e.After))
		return false
	}
	return true
}

// What an event says of a packet, of every kind.
func TestTraceEvents(t *testing.T) {
	everyFamily(t, func(t *testing.T, f family) {
		lan, wan := site(t, onLAN), site(t, onWAN)
		later, stale := lan.base(f, atB4), lan.base(f, atB4)
		if f == v4 {
			later.ip.offset = 100
		} else {
			later.ip.extensions = []extension{{44, []byte{0, 0, 0x03, 0x20, 0, 0, 0, 1}}}
		}
		stale.ip.ttl, stale.ip.proto, stale.ip.payload = 1, 6, tcp(stale.ip.src, stale.ip.dst, 443, 50000, []byte("roam"))
		big := lan.base(f, atB4)
		big.ip.flags, big.ip.payload = layers.IPv4DontFragment, udp(big.ip.src, big.ip.dst, 1, 2, make([]byte, 1600), true)
		in := func(n int) packet { return lan.base(f, n).ip }
		out := func(n int) packet { return remoteHost(f, n) }
		for _, c := range []struct {
			name   string
			w      *world
			in     []byte
			packet packet // whose addresses and ports are told
			want   maps.TraceEvent
		}{
			{"into a tunnel", lan, lan.base(f, atB4).bytes(), in(atB4), maps.TraceEvent{Tenant: tenant1, Locator: locatorB4}},
			{"into a tunnel over IPv6", lan, lan.base(f, atB6).bytes(), in(atB6), maps.TraceEvent{Tenant: tenant1, Locator: locatorB6}},
			{"a locator that is not reached", lan, lan.base(f, unresolved).bytes(), in(unresolved), maps.TraceEvent{Tenant: tenant1, Locator: locatorC4}},
			{"out of a tunnel", wan, wan.fromB(v4, out(here)).bytes(), out(here), maps.TraceEvent{Tenant: tenant1, From: locatorB4}},
			{"from a tunnel into another", wan, wan.fromB(v4, out(heldC4)).bytes(), out(heldC4), maps.TraceEvent{Tenant: tenant1, From: locatorB4, Locator: locatorC4}},
			{"out of an IPv6 tunnel, to nobody", wan, wan.fromB(v6, out(blackhole)).bytes(), out(blackhole), maps.TraceEvent{Tenant: tenant1, From: locatorB6}},
			{"no packet", lan, frame{dst: gatewayMAC, src: hostMAC(here)}.around(make([]byte, 50), 0x88b5), packet{}, maps.TraceEvent{Tenant: tenant1}},
			{
				"ARP", lan, talk(hostMAC(here), v4.addr(here), v4.addr(gateway), layers.ARPReply),
				packet{src: v4.addr(here), dst: v4.addr(gateway)},
				maps.TraceEvent{Tenant: tenant1},
			},
			{
				"a later fragment has no ports", lan, later.bytes(),
				packet{src: later.ip.src, dst: later.ip.dst, proto: [...]uint8{17, 59}[f]},
				maps.TraceEvent{Tenant: tenant1, Locator: locatorB4},
			},
		} {
			t.Run(c.name, func(t *testing.T) {
				events := c.w.twin.tell(t, c.w, c.in)
				if len(events) != 1 {
					t.Fatalf("%d events: %+v", len(events), events)
				}
				e := events[0]
				got := maps.TraceEvent{
					Src: e.Src, Dst: e.Dst, Proto: e.Proto, SrcPort: e.SrcPort, DstPort: e.DstPort, Tenant: e.Tenant, Locator: e.Locator, From: e.From,
				}
				c.want.Src, c.want.Dst, c.want.Proto = c.packet.src, c.packet.dst, c.packet.proto
				if len(c.packet.payload) > 4 {
					c.want.SrcPort, c.want.DstPort = binary.BigEndian.Uint16(c.packet.payload), binary.BigEndian.Uint16(c.packet.payload[2:])
				}
				if diff := cmp.Diff(c.want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
					t.Errorf("%s (-want +got):\n%s", maps.ReasonName(e.Reason), diff)
				}
			})
		}
		// A packet that was turned: the error is what is told, and the packet as it came stands beside it.
		events := lan.twin.tell(t, lan, big.bytes())
		if len(events) != 1 || maps.ReasonName(events[0].Reason) != "fwd_too_big" || events[0].Dst != big.ip.src || events[0].Bytes != len(big.bytes()) ||
			!bytes.Equal(events[0].Before, big.bytes()[:maps.TraceBytes]) || events[0].BytesAfter >= events[0].Bytes {
			t.Errorf("too big: %+v", events)
		}
		if events = lan.twin.tell(t, lan, stale.bytes()); len(events) != 1 || maps.ReasonName(events[0].Reason) != "fwd_expired" {
			t.Errorf("time is up: %+v", events)
		}
	})
}

// Each filter chooses by all that it asks for, several at a time, and an event says whom it is for.
func TestTraceFilters(t *testing.T) {
	w := newTracedSite(t)
	x := w.twin
	everyFamily(t, func(t *testing.T, f family) {
		in := w.base(f, atB4)
		src, dst := in.ip.src, in.ip.dst
		encap, ttl := maps.Reason(reasonNumber(t, "fwd_encap")), maps.Reason(reasonNumber(t, "drop_ttl"))
		isolated := maps.Reason(reasonNumber(t, "drop_isolated")) // beyond the first word of reasons, if there is one
		for _, c := range []struct {
			name   string
			filter maps.TraceFilter
			chosen bool
		}{
			{"nothing asked for", maps.TraceFilter{}, true},
			{"source", maps.TraceFilter{Host: src}, true},
			{"destination", maps.TraceFilter{Host: dst}, true},
			{"another host", maps.TraceFilter{Host: f.addr(atB6)}, false},
			{"a host of the other family", maps.TraceFilter{Host: (1 - f).addr(atB4)}, false},
			{"reason", maps.TraceFilter{Reasons: []maps.Reason{encap}}, true},
			{"one of two reasons", maps.TraceFilter{Reasons: []maps.Reason{ttl, encap}}, true},
			{"other reasons", maps.TraceFilter{Reasons: []maps.Reason{ttl, isolated}}, false},
			{"tenant", maps.TraceFilter{Tenant: tenant1}, true},
			{"another tenant", maps.TraceFilter{Tenant: tenant2}, false},
			{"locator", maps.TraceFilter{Locator: locatorB4}, true},
			{"another locator", maps.TraceFilter{Locator: locatorC4}, false},
			{"all that is true", maps.TraceFilter{Host: src, Reasons: []maps.Reason{encap}, Tenant: tenant1, Locator: locatorB4, Sample: 1}, true},
			{"one of all is not", maps.TraceFilter{Host: src, Reasons: []maps.Reason{encap}, Tenant: tenant2, Locator: locatorB4}, false},
		} {
			x.filter(t, c.filter)
			if events := x.tell(t, w, in.bytes()); (len(events) == 1) != c.chosen {
				t.Errorf("%s: %d events", c.name, len(events))
			}
			// Beside others, each is asked by itself.
			x.filter(t, maps.TraceFilter{Host: f.addr(nobody)}, c.filter, maps.TraceFilter{Host: dst, Bytes: 61})
			want := uint32(1 << 2)
			if c.chosen {
				want |= 1 << 1
			}
			events := x.tell(t, w, in.bytes())
			if len(events) != 1 || events[0].Filters != want || len(events[0].Before) != 61 || !bytes.Equal(events[0].Before, in.bytes()[:61]) {
				t.Errorf("%s, beside others: %+v, want filters %b", c.name, events, want)
			}
		}
		x.filter(t, maps.TraceFilter{})
		if e := x.tell(t, w, in.bytes()); len(e) != 1 || e[0].Before != nil || e[0].After != nil {
			t.Errorf("bytes that nobody asked for: %+v", e)
		}
		x.filter(t)
		if e := x.tell(t, w, in.bytes()); len(e) != 0 {
			t.Errorf("nobody asks, and is told %+v", e)
		}
	})
}

// newTracedSite is a site whose filters a test may change.
func newTracedSite(t *testing.T) *world {
	t.Helper()
	w := site(t, onLAN)
	own := *w
	own.twin = w.traced(t)
	t.Cleanup(own.twin.close)
	return &own
}

// short is a frame that a benchmark repeats unchanged: it is dropped.
var short = make([]byte, 14)

// One packet in so many, at random.
func TestTraceSample(t *testing.T) {
	w := newTracedSite(t)
	w.twin.filter(t, maps.TraceFilter{Sample: 10}, maps.TraceFilter{Sample: 100})
	const packets = 20000
	if _, _, err := w.twin.objects.Program.Benchmark(short, packets, nil); err != nil {
		t.Fatal(err)
	}
	var tenth, hundredth int
	for _, e := range w.twin.told(t) {
		tenth += int(e.Filters & 1)
		hundredth += int(e.Filters >> 1)
	}
	// Five standard deviations.
	if tenth < 1788 || tenth > 2212 || hundredth < 130 || hundredth > 270 {
		t.Errorf("of %d packets %d and %d", packets, tenth, hundredth)
	}
}

// What finds the ring full is counted, for each who asked for it, and comes to no harm.
func TestTraceLost(t *testing.T) {
	w := newTracedSite(t)
	encap := maps.Reason(reasonNumber(t, "fwd_encap"))
	w.twin.filter(t, maps.TraceFilter{Bytes: maps.TraceBytes}, maps.TraceFilter{Reasons: []maps.Reason{encap}})
	const packets = 20000
	if _, _, err := w.twin.objects.Program.Benchmark(short, packets, nil); err != nil {
		t.Fatal(err)
	}
	action, out, err := run(w.twin.objects.Program, w.meta, w.base(v4, atB4).bytes())
	if err != nil || action != xdpRedirect || len(out) != len(w.base(v4, atB4).bytes())+50 {
		t.Errorf("with a full ring: %s, %v", actionName(action), err)
	}
	lost, err := w.twin.objects.TracesLost()
	if err != nil {
		t.Fatal(err)
	}
	told := len(w.twin.told(t))
	if told < 6000 || told+int(lost[0]) < packets+1 || lost[1] != 1 || lost[2] != 0 {
		t.Errorf("%d told, %v lost, of %d packets", told, lost, packets)
	}
	if again := w.twin.tell(t, w, w.base(v4, atB4).bytes()); len(again) != 1 {
		t.Errorf("%d events once the ring is empty", len(again))
	}
}
