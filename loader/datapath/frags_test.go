package datapath

import (
	"testing"
	"time"

	"roam/maps"
)

// retuned opens the plane with other constants.
func (s *site) retuned(tune maps.Tune) *Plane {
	s.t.Helper()
	var p *Plane
	s.in("open", func() (err error) {
		p, err = Open(Options{Pin: s.pin, Hosts: testHosts, Log: quiet(), Tune: tune})
		return err
	})
	return p
}

// A start that switches frags on, and one that switches them off, lose no packet: the kernel does not let both programs use one
// devmap.
func TestFragsChange(t *testing.T) {
	s := newSite(t)
	p := s.open()
	s.forward(p)
	before := devmap(t, p)
	flow := s.Flow(s.left, leftAddr, s.right, rightAddr, 1000, 64)
	flow.AwaitArrivals(100, 10*time.Second)
	s.close(p)
	for _, on := range []bool{true, true, false} {
		tune := maps.DefaultTune
		tune.Frags = on
		p = s.retuned(tune)
		flow.AwaitArrivals(200, 10*time.Second)
		now := devmap(t, p)
		if on && now == before {
			t.Error("frags are on, and the egress ports are in the map that the program without them used")
		}
		s.close(p)
	}
	if r := flow.Stop(); r.Lost() != 0 {
		t.Errorf("switching frags on and off: %v", r)
	}
}

func devmap(t *testing.T, p *Plane) uint32 {
	t.Helper()
	info, err := p.Objects().TxPorts.Info()
	must(t, err)
	id, _ := info.ID()
	return uint32(id)
}

// Other constants mean another program, and no lost packet; equal ones mean neither.
func TestRetune(t *testing.T) {
	s := newSite(t)
	p := s.open()
	defer s.close(p)
	s.forward(p)
	flow := s.Flow(s.left, leftAddr, s.right, rightAddr, 1000, 64)
	flow.AwaitArrivals(100, 10*time.Second)
	first, _ := s.gw.XDP("lan0")
	must(t, p.Retune(maps.DefaultTune))
	if now, _ := s.gw.XDP("lan0"); now != first {
		t.Error("equal constants loaded another program")
	}
	strict := maps.DefaultTune
	strict.SourceCheck = maps.SourceStrict
	must(t, p.Retune(strict))
	second, _ := s.gw.XDP("lan0")
	if second == first {
		t.Error("other constants left the program in place")
	}
	flow.AwaitArrivals(200, 10*time.Second)
	must(t, p.Grow(2*testHosts))
	flow.AwaitArrivals(200, 10*time.Second)
	if r := flow.Stop(); r.Lost() != 0 {
		t.Errorf("changing constants: %v", r)
	}
}

func TestSubnets(t *testing.T) {
	w := newTableWorld(t)
	spec := []TenantSpec{{ID: 1, VNI: 7001, Segments: []SegmentSpec{
		{Subnets: prefixes("10.1.0.0/24", "2001:db8:1::/64"), KeepTTL: true},
		{Subnets: prefixes("10.2.0.0/24")},
	}}, {ID: 2, VNI: 7002, Segments: []SegmentSpec{{Subnets: prefixes("10.1.0.0/24"), KeepTTL: true}}}}
	must(t, w.table.setSubnets(w.table.wantedSubnets(spec)))
	space := maps.SpaceSubnets + w.table.tenants.ids[1]
	four, six := w.table.prefixes.Get(space, prefixes("10.1.0.0/24")[0]), w.table.prefixes.Get(space, prefixes("2001:db8:1::/64")[0])
	if four == 0 || six == 0 || four == six {
		t.Errorf("subnets of one tenant have numbers %d and %d", four, six)
	}
	if four&six&maps.SubnetKeepTTL == 0 {
		t.Errorf("subnets that ask for it have %#x and %#x", four, six)
	}
	if n := w.table.prefixes.Get(space, prefixes("10.2.0.0/24")[0]); n == 0 || n&maps.SubnetKeepTTL != 0 {
		t.Errorf("a subnet that does not ask for it has %#x", n)
	}
	w.restart()
	if n := w.table.subnets[entryKey{space, prefixes("10.1.0.0/24")[0]}]; n != four {
		t.Errorf("after a restart number %d, before it %d", n, four)
	}
	must(t, w.table.setSubnets(nil))
	if n := w.table.prefixes.Get(space, prefixes("10.1.0.0/24")[0]); n != 0 {
		t.Errorf("number %d is left", n)
	}
}
