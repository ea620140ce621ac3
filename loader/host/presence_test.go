package host

import (
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"roam/loader/route"
)

func probedSegment() Segment {
	seg := segment()
	seg.Probe = Probe{Interval: time.Second, Lost: 3}
	return seg
}

// A host that answers stays; one that does not leaves after so many intervals, and is found again when it is back.
func TestPresence(t *testing.T) {
	for _, addr := range bothFamilies {
		m := newModel(t, probedSegment())
		e := m.entry(addr)
		key := hostKey(1, e.addr)
		m.alive[answer{e, macA}] = true
		m.found(addr, macA)
		m.pass(time.Hour)
		m.has(addr, macA)
		delete(m.alive, answer{e, macA})
		m.alive[answer{e, macB}] = true // a proxy
		m.pass(2 * time.Second)
		if doing, _ := m.Doing(key); doing != IsProbing {
			t.Errorf("%q after two questions", doing)
		}
		m.alive[answer{e, macA}] = true
		m.pass(time.Second)
		if doing, _ := m.Doing(key); doing != Settled {
			t.Errorf("%q after an answer", doing)
		}
		delete(m.alive, answer{e, macA})
		m.pass(3*time.Second - time.Millisecond)
		m.has(addr, macA)
		m.pass(time.Millisecond + time.Second)
		m.has(addr, route.MAC{})
		if _, kept := m.table[e]; kept || m.outcome(OutcomeLost) != 1 || len(m.watches.of) != 0 || len(m.watches.queue) != 0 {
			t.Errorf("the kernel has it: %v, %+v, %d watched", kept, m.Status(), len(m.watches.queue))
		}
		m.alive[answer{e, macA}] = true
		m.found(addr, macA)
		m.pass(time.Minute)
		m.has(addr, macA)
	}
}

// What the kernel has found out is an answer, and a host that the kernel does not hold any more is here as long as it answers us.
func TestPresenceAndKernel(t *testing.T) {
	m := newModel(t, probedSegment())
	e := m.entry("10.1.0.7")
	m.found("10.1.0.7", macA)
	for range 20 {
		m.pass(2 * time.Second)
		m.found("10.1.0.7", macA)
	}
	m.has("10.1.0.7", macA)

	m.alive[answer{e, macA}] = true
	n := netlink.Neigh{LinkIndex: e.link, Family: netlink.FAMILY_V4, IP: e.addr.AsSlice(), State: netlink.NUD_STALE, HardwareAddr: macA[:]}
	m.see(n, false, map[entry]struct{}{})
	if len(m.lost) != 1 {
		t.Fatal("not lost")
	}
	m.pass(time.Second)
	m.has("10.1.0.7", macA)
	if len(m.lost) != 0 {
		t.Error("still thought to be lost after it answered")
	}
	m.see(n, false, map[entry]struct{}{})
	delete(m.alive, answer{e, macA})
	m.pass(4 * time.Second)
	m.has("10.1.0.7", route.MAC{})

	// An operator's entry is not asked, nor is any where there is no address to ask from.
	m.mute = true
	m.found("10.1.0.8", macA)
	n.IP, n.State = netip.MustParseAddr("10.1.0.9").AsSlice(), netlink.NUD_PERMANENT
	changed := map[entry]struct{}{}
	m.see(n, true, changed)
	m.take(m.compare(changed))
	m.pass(time.Minute)
	m.has("10.1.0.8", macA)
	m.has("10.1.0.9", macA)
	if len(m.watches.queue) != 0 {
		t.Errorf("%d are watched", len(m.watches.queue))
	}
}

// Many hosts are asked in turn, never more than so many in a second, and none is given up because others came first.
func TestPresenceIsPaced(t *testing.T) {
	seg := probedSegment()
	seg.Subnets = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	m := newModel(t, seg)
	const n = 100000
	a := netip.MustParseAddr("10.2.0.0")
	changed := make(map[entry]struct{}, n)
	for range n {
		e := entry{modelLink, a}
		m.neighbours[e] = neighbour{mac: macA}
		m.alive[answer{e, macA}] = true
		changed[e] = struct{}{}
		a = a.Next()
	}
	m.take(m.compare(changed))
	for round := range 3 {
		asked, start := 0, m.clock
		for asked < n {
			m.clock = m.nextProbe()
			m.take(m.compare(m.askPresent()))
			asked += len(m.questions)
			m.answers()
		}
		if took := m.clock.Sub(start); took < n/probeRate*time.Second-probeSlice {
			t.Errorf("round %d: %d asked in %v", round, asked, took)
		}
	}
	if len(m.claims) != n || m.outcome(OutcomeLost) != 0 {
		t.Errorf("%d are left", len(m.claims))
	}
	begun := time.Now()
	for range 50 { // a second of questions
		m.clock = m.nextProbe()
		m.askPresent()
	}
	t.Logf("a second's questions to %d hosts take %v without the wire", n, time.Since(begun))
}

// What a slice's questions cost, with their answers: 50 of them are a second's.
func BenchmarkAsk(b *testing.B) {
	l := newLAN(b)
	a := newAsker(New(Options{}).log)
	defer a.close()
	p := &port{Segment: segment()}
	l.has("10.1.0.7/24")
	e := entry{l.index("lan0"), netip.MustParseAddr("10.1.0.7")}
	for b.Loop() {
		for range 100 {
			if err := a.ask(p, e, mac(b, farMAC)); err != nil {
				b.Fatal(err)
			}
		}
		for range 100 {
			<-a.answers
		}
	}
}

// When a host last answered is known while it is watched.
func TestLastAnswer(t *testing.T) {
	m := newModel(t, probedSegment())
	e := m.entry("10.1.0.7")
	if at := m.LastAnswer(hostKey(1, e.addr)); !at.IsZero() {
		t.Errorf("unknown, and answered at %v", at)
	}
	m.alive[answer{e, macA}] = true
	m.found("10.1.0.7", macA)
	m.pass(10 * time.Second)
	answered := m.LastAnswer(hostKey(1, e.addr))
	if age := m.now().Sub(answered); age < 0 || age > 2*time.Second {
		t.Errorf("answered %v ago", age)
	}
	delete(m.alive, answer{e, macA})
	m.pass(2 * time.Second)
	if at := m.LastAnswer(hostKey(1, e.addr)); at.Before(answered) || m.now().Sub(at) < time.Second {
		t.Errorf("silent for two seconds, and answered %v ago", m.now().Sub(at))
	}
}
