package datapath

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"roam/maps"
)

// Tables of another version are refused with a sentence, and forwarding goes on over them.
func TestLayoutRefused(t *testing.T) {
	s := newSite(t)
	p := s.open()
	s.forward(p)
	live := p.Generation()
	s.close(p)
	flow := s.Flow(s.left, leftAddr, s.right, rightAddr, 1000, 64)
	path := func(name string) string { return filepath.Join(s.pin, generationName(live), name) }
	layout, err := maps.Layout()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what   string
		name   string
		change func(*ebpf.MapSpec)
		want   []string
	}{
		{"another value size", "segments", func(m *ebpf.MapSpec) { m.ValueSize += 8 }, []string{"value size"}},
		{"another key size", "macs", func(m *ebpf.MapSpec) { m.KeySize = 12 }, []string{"key size 12 instead of 8"}},
		{"another size", "locators", func(m *ebpf.MapSpec) { m.MaxEntries /= 2 }, []string{"size 2048 instead of 4096"}},
		{"other flags", "ports", func(m *ebpf.MapSpec) { m.Flags = 0 }, []string{"flags 0x0 instead of 0x400"}},
		{"another type", "prefixes4", func(m *ebpf.MapSpec) { m.Type = ebpf.Hash }, []string{"type Hash instead of LPMTrie"}},
		{
			"several", "tx_ports", func(m *ebpf.MapSpec) { m.Type, m.ValueSize = ebpf.DevMapHash, 8 },
			[]string{"type DevMapHash", "value size 8"},
		},
		{
			"IPv6 hosts as of before version 4", "hosts6", func(m *ebpf.MapSpec) { m.ValueSize, m.MaxEntries = 64, 9 },
			[]string{"value size 64 instead of 128"},
		},
		{"host table of no kind", "hosts4", func(m *ebpf.MapSpec) { m.MaxEntries = 9 }, []string{"hosts4", "magic"}},
	} {
		if layout[c.name] == nil {
			t.Fatalf("%s: there is no map %s any more", c.what, c.name)
		}
		spec := layout[c.name].Copy()
		if spec.MaxEntries > 4096 {
			spec.MaxEntries = 4096
		}
		c.change(spec)
		odd, err := ebpf.NewMap(spec)
		if err != nil {
			t.Fatalf("%s: %v", c.what, err)
		}
		s.swapPin(path(c.name), odd, func() {
			s.refused(c.what, append(c.want, c.name, generationName(live), "roamd --detach", "forwarding goes on")...)
		})
		_ = odd.Close()
		flow.AwaitArrivals(10, 5*time.Second)
	}
	s.oldHeader(path("hosts6"), func() {
		s.refused("another version", "hosts6", "version", "roamd --detach")
		flow.AwaitArrivals(10, 5*time.Second)
	})
	s.close(s.open())
	if r := flow.Stop(); !r.Perfect() {
		t.Errorf("traffic: %v", r)
	}
}

// swapPin has another map lie at a path during f.
func (s *site) swapPin(path string, other *ebpf.Map, f func()) {
	s.t.Helper()
	right, err := ebpf.LoadPinnedMap(path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	defer right.Close()
	exchange := func(m *ebpf.Map) {
		if err := os.Remove(path); err != nil {
			s.t.Fatal(err)
		}
		if err := pinCopy(m.Clone, path); err != nil {
			s.t.Fatal(err)
		}
	}
	exchange(other)
	f()
	exchange(right)
}

// oldHeader has a host table be another version's during f.
func (s *site) oldHeader(path string, f func()) {
	s.t.Helper()
	m, err := ebpf.LoadPinnedMap(path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	defer m.Close()
	h, err := maps.ReadTableHeader(m)
	if err != nil {
		s.t.Fatal(err)
	}
	h.Version++
	if err := maps.WriteTableHeader(m, h); err != nil {
		s.t.Fatal(err)
	}
	f()
	h.Version--
	if err := maps.WriteTableHeader(m, h); err != nil {
		s.t.Fatal(err)
	}
}

// refused checks that Open refuses the layout, says what it should, and changes nothing.
func (s *site) refused(what string, want ...string) {
	s.t.Helper()
	before := s.state()
	p, err := s.tryOpen()
	if err == nil {
		s.close(p)
		s.t.Fatalf("%s: opened", what)
	}
	if !errors.Is(err, ErrLayout) {
		s.t.Errorf("%s: %v, want ErrLayout", what, err)
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			s.t.Errorf("%s: %q is not in the error: %v", what, w, err)
		}
	}
	if after := s.state(); after != before {
		s.t.Errorf("%s: the refusal changed the state from\n%s\nto\n%s", what, before, after)
	}
}

// A newer version may have maps that the pinned one has not, and the other way round.
func TestLayoutMayDifferInMaps(t *testing.T) {
	s := newSite(t)
	s.close(s.open())
	live, err := os.Readlink(filepath.Join(s.pin, liveName))
	if err != nil {
		t.Fatal(err)
	}
	extra, err := ebpf.NewMap(&ebpf.MapSpec{
		Name: "of_tomorrow", Type: ebpf.Hash, KeySize: 4, ValueSize: 4, MaxEntries: 1, Flags: unix.BPF_F_NO_PREALLOC,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer extra.Close()
	if err := extra.Pin(filepath.Join(s.pin, live, "of_tomorrow")); err != nil {
		t.Fatal(err)
	}
	s.close(s.open())
	s.tidy()
}
