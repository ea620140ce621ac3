package host

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"

	"roam/loader/route"
)

// elsewhere is what others announce, by address or MAC.
type elsewhere struct {
	mu   sync.Mutex
	of   map[string]uint32 // sequences, by address or MAC
	here bool              // the one who announces is at our site
}

func (e *elsewhere) set(what string, sequence uint32) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.of[what] = sequence
}

func (e *elsewhere) sequence(key route.Key, mac route.MAC) (sequence uint32, away, ok bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, what := range []string{key.Prefix.Addr().String(), mac.String()} {
		if n, found := e.of[what]; found {
			sequence, away, ok = max(sequence, n), !e.here, true
		}
	}
	return sequence, away, ok
}

// numbered waits until the claims have exactly these sequences.
func (w *twin) numbered(t *testing.T, want map[string]uint32) {
	t.Helper()
	got := make(map[string]uint32)
	w.await(t, fmt.Sprintf("sequences %v", want), func() bool {
		clear(got)
		for key, c := range w.claims {
			got[key.Prefix.Addr().String()] = c.Sequence
		}
		return maps.Equal(got, want)
	})
}

// A new sighting takes the larger of what others announce the address and the MAC with, plus one if at another site, and
// all addresses of a MAC go with it (RFC 7432 section 15, RFC 9721).
func TestSequence(t *testing.T) {
	l := newLAN(t)
	others := &elsewhere{of: make(map[string]uint32)}
	source, heard := l.follow(Options{Sequence: others.sequence})
	const a, b, c = "02:00:00:00:00:0a", "02:00:00:00:00:0b", "02:00:00:00:00:0c"
	see := func(addr, mac string) { l.ip("neigh replace " + addr + " lladdr " + mac + " dev lan0 nud reachable") }

	see("10.1.0.7", a)
	heard.numbered(t, map[string]uint32{"10.1.0.7": 0})
	others.set("10.1.0.8", 3)
	see("10.1.0.8", b)
	heard.numbered(t, map[string]uint32{"10.1.0.7": 0, "10.1.0.8": 4})
	see("10.1.0.8", b) // again is no move
	others.set(a, 6)
	see("2001:db8:1::7", a) // the MAC was elsewhere: what we knew of it goes with it
	heard.numbered(t, map[string]uint32{"10.1.0.7": 7, "10.1.0.8": 4, "2001:db8:1::7": 7})
	see("10.1.0.9", b) // nobody knows it, and its MAC has 4
	heard.numbered(t, map[string]uint32{"10.1.0.7": 7, "10.1.0.8": 4, "2001:db8:1::7": 7, "10.1.0.9": 4})
	see("10.1.0.9", c) // another machine took the address
	heard.numbered(t, map[string]uint32{"10.1.0.7": 7, "10.1.0.8": 4, "2001:db8:1::7": 7, "10.1.0.9": 5})

	synced := heard.syncs()
	source.SetSegments([]Segment{segment()}) // a full report changes nothing
	heard.await(t, "another full report", func() bool { return heard.synced > synced })
	heard.numbered(t, map[string]uint32{"10.1.0.7": 7, "10.1.0.8": 4, "2001:db8:1::7": 7, "10.1.0.9": 5})

	// Another gateway of our site: the host is shared, not moved.
	others.here = true
	others.set("10.1.0.20", 9)
	see("10.1.0.20", "02:00:00:00:00:20")
	others.set("10.1.0.21", 1<<32-1)
	see("10.1.0.21", "02:00:00:00:00:21")
	heard.numbered(t, map[string]uint32{
		"10.1.0.7": 7, "10.1.0.8": 4, "2001:db8:1::7": 7, "10.1.0.9": 5, "10.1.0.20": 9, "10.1.0.21": 1<<32 - 1,
	})
	if next(1<<32-1) != 1<<32-1 {
		t.Error("the largest sequence wraps")
	}
}

func (w *twin) syncs() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.synced
}

// What a start finds stale is asked, and goes if it does not answer.
func TestDoubtful(t *testing.T) {
	l := newLAN(t)
	l.has("10.1.0.7/24")
	for _, n := range []string{"10.1.0.7", "10.1.0.8", "2001:db8:1::8"} {
		l.ip("neigh add " + n + " lladdr " + farMAC + " dev lan0 nud stale")
	}
	_, heard := l.follow(Options{})
	heard.await(t, "those that left to go", func() bool {
		return len(heard.claims) == 1 && heard.claims[hostKey(1, addrs("10.1.0.7")[0])].Local != nil
	})
	if keys := slices.Collect(maps.Keys(heard.claims)); len(keys) != 1 {
		t.Errorf("claims %v", keys)
	}
}

// A MAC that others announce with a higher sequence has moved, with all its addresses; one of another gateway of our site
// has not, and shares its sequence.
func TestDeparted(t *testing.T) {
	l := newLAN(t)
	source, heard := l.follow(Options{})
	const a, b = "02:00:00:00:00:0a", "02:00:00:00:00:0b"
	for addr, mac := range map[string]string{"10.1.0.7": a, "2001:db8:1::7": a, "10.1.0.8": b} {
		l.ip("neigh replace " + addr + " lladdr " + mac + " dev lan0 nud reachable")
	}
	heard.numbered(t, map[string]uint32{"10.1.0.7": 0, "10.1.0.8": 0, "2001:db8:1::7": 0})
	announced := func(addr, m, site string, sequence uint32) {
		t.Helper()
		d := decision(addr, true, false)
		d.MAC, d.Site, d.Sequence = mac(t, m), site, sequence
		if err := source.Apply(t.Context(), []route.Decision{d}); err != nil {
			t.Fatal(err)
		}
	}
	announced("10.1.0.8", b, "dc1", 4)
	heard.numbered(t, map[string]uint32{"10.1.0.7": 0, "10.1.0.8": 4, "2001:db8:1::7": 0})
	source.Departed(1, mac(t, b), 4) // not higher
	source.Departed(2, mac(t, a), 9) // another tenant's
	announced("10.1.0.9", a, "dc2", 1)
	heard.numbered(t, map[string]uint32{"10.1.0.8": 4})
	source.Departed(1, mac(t, b), 5)
	heard.numbered(t, map[string]uint32{})
}
