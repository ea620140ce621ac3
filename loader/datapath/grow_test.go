package datapath

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"roam/lab"
)

func grow(p *Plane) error { return p.Grow(4 * testHosts) }

func TestGrowLosesNothing(t *testing.T) {
	s := newSite(t)
	p := s.open()
	defer s.close(p)
	s.forward(p)
	flow := s.Flow(s.left, leftAddr, s.right, rightAddr, 2000, 64)
	back := s.Flow(s.right, rightAddr, s.left, leftAddr, 2000, 64)
	flow.AwaitArrivals(100, 5*time.Second)
	was := p.Objects()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	hosts := make(map[netip.Addr]uint32)
	for size := uint32(testHosts); size < 16*testHosts; size *= 2 {
		for len(hosts) < int(size)*3/4 {
			a, v := randomAddr(random), 1000+random.Uint32N(1000)
			if err := p.Hosts().Put(testSpace, a, v); err != nil {
				t.Fatal(err)
			}
			hosts[a] = v
		}
		// A writer goes on all the while.
		stop, wrote := make(chan struct{}), make(chan map[netip.Addr]uint32)
		go func() { wrote <- keepWriting(p, rand.New(rand.NewPCG(seed, uint64(size))), stop) }()
		s.in("grow", func() error { return p.Grow(2 * size) })
		close(stop)
		for a, v := range <-wrote {
			hosts[a] = v
		}
		if got := p.Hosts().Cap(); got < int(2*size) {
			t.Fatalf("room for %d hosts after growing to %d", got, 2*size)
		}
		for a, v := range hosts {
			if got, ok := p.Hosts().Get(testSpace, a); !ok || got != v {
				t.Fatalf("%s: %d, %v after growing to %d, want %d", a, got, ok, 2*size, v)
			}
		}
	}
	if now := p.Objects(); now.Nexthops != was.Nexthops || now.Hosts4 == was.Hosts4 {
		t.Error("shared maps must stay the same objects, and the host tables not")
	}
	s.tidy()
	for _, f := range []*lab.Flow{flow, back} {
		if r := f.Stop(); !r.Perfect() {
			t.Errorf("%s: %v", f, r)
		}
	}
}

func keepWriting(p *Plane, random *rand.Rand, stop <-chan struct{}) map[netip.Addr]uint32 {
	written := make(map[netip.Addr]uint32)
	for range 100 {
		select {
		case <-stop:
			return written
		default:
		}
		a, v := randomAddr(random), 1000+random.Uint32N(1000)
		if err := p.Hosts().Put(testSpace, a, v); err == nil {
			written[a] = v
		}
	}
	<-stop
	return written
}

// randomAddr is an address of either family that no test host has.
func randomAddr(random *rand.Rand) netip.Addr {
	if random.Uint32N(2) == 0 {
		return netip.AddrFrom4([4]byte{172, byte(random.Uint32()), byte(random.Uint32()), byte(random.Uint32())})
	}
	a := [16]byte{0x20, 0x01, 0x0d, 0xb8}
	for i := 8; i < 16; i++ {
		a[i] = byte(random.Uint32())
	}
	return netip.AddrFrom16(a)
}

func TestGrowFailsAtEachStep(t *testing.T) {
	s := newSite(t)
	p := s.open()
	s.forward(p)
	s.close(p)
	steps := s.steps(grow)
	s.in("remove", func() error { return Remove(s.pin, quiet()) })
	p = s.open()
	s.forward(p)
	flow := s.Flow(s.left, leftAddr, s.right, rightAddr, 1000, 64)
	flow.AwaitArrivals(10, 5*time.Second)
	before, had := s.state(), p.Hosts().Cap()
	for _, i := range chosen(steps[:critical(t, steps)]) {
		p.step = failing(i)
		if err := s.gw.Do(func() error { return grow(p) }); !errors.Is(err, errInjected) {
			t.Fatalf("step %q: %v, want the injected failure", steps[i], err)
		}
		if after := s.state(); after != before {
			t.Fatalf("a failure at %q changed the state from\n%s\nto\n%s", steps[i], before, after)
		}
		if got := p.Hosts().Cap(); got != had {
			t.Fatalf("a failure at %q left room for %d hosts", steps[i], got)
		}
	}
	// After the commit the growth stands; what is left is done by the next one.
	p.step = func(name string) error {
		if name == "settle" {
			return errInjected
		}
		return nil
	}
	err := s.gw.Do(func() error { return grow(p) })
	if !errors.Is(err, errInjected) || !strings.Contains(err.Error(), "in force") {
		t.Fatalf("a failure after the commit: %v", err)
	}
	p.step = nil
	flow.AwaitArrivals(10, 5*time.Second)
	s.in("grow further", func() error { return p.Grow(16 * testHosts) })
	if err := grow(p); err == nil || !strings.Contains(err.Error(), "does not shrink") {
		t.Errorf("growing to less: %v", err)
	}
	s.close(p)
	s.tidy()
	if r := flow.Stop(); !r.Perfect() {
		t.Errorf("traffic: %v", r)
	}
}

func TestGrowCrashAtEachStep(t *testing.T) {
	s := newSite(t)
	p := s.open()
	s.forward(p)
	s.close(p)
	steps := s.steps(grow)
	s.in("remove", func() error { return Remove(s.pin, quiet()) })
	p = s.open()
	s.forward(p)
	s.close(p)
	flow := s.Flow(s.left, leftAddr, s.right, rightAddr, 1000, 64)
	flow.AwaitArrivals(10, 5*time.Second)
	for _, i := range chosen(steps) {
		s.crash("grow", i)
		flow.AwaitArrivals(20, 5*time.Second)
		p = s.open()
		if _, ok := p.Hosts().Get(testSpace, rightAddr); !ok {
			t.Fatalf("a crash at %q lost a host", steps[i])
		}
		grown := p.Hosts().Cap() >= 4*testHosts
		begun := slices.ContainsFunc(steps[:i], func(name string) bool { return strings.HasPrefix(name, "swap port") })
		if begun != grown { // with the first port the growth is to be finished, before it was never begun
			t.Fatalf("after a crash at %q there is room for %d hosts", steps[i], p.Hosts().Cap())
		}
		s.close(p)
		s.tidy()
		if grown { // begin again with the small one
			if r := flow.Stop(); !r.Perfect() {
				t.Fatalf("traffic over a crash at %q: %v", steps[i], r)
			}
			s.in("remove", func() error { return Remove(s.pin, quiet()) })
			p = s.open()
			s.forward(p)
			s.close(p)
			flow = s.Flow(s.left, leftAddr, s.right, rightAddr, 1000, 64)
			flow.AwaitArrivals(10, 5*time.Second)
		}
	}
	if r := flow.Stop(); !r.Perfect() {
		t.Errorf("traffic: %v", r)
	}
}
