package datapath

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"roam/lab"
	"roam/loader/route"
	"roam/maps"
)

func TestErrorSources(t *testing.T) {
	shared := SegmentSpec{Gateway: addresses("fe80::1", "10.1.0.1", "2001:db8:1::1")}
	own := SegmentSpec{Gateway: addresses("10.2.0.1"), Own: addresses("10.2.0.2")}
	stick := SegmentSpec{Stick: true, Gateway: addresses("10.3.0.254"), Own: addresses("2001:db8:3::2")}
	for _, c := range []struct {
		segments []SegmentSpec
		v4, v6   string
	}{
		{[]SegmentSpec{shared}, "10.1.0.1", "2001:db8:1::1"},
		{[]SegmentSpec{own}, "10.2.0.2", ""},
		{[]SegmentSpec{stick}, "", "2001:db8:3::2"},
		{[]SegmentSpec{shared, own}, "10.2.0.2", "2001:db8:1::1"},
		{[]SegmentSpec{stick, shared}, "10.1.0.1", "2001:db8:3::2"},
		{nil, "", ""},
	} {
		v4, v6 := errorSources(c.segments)
		var want4 uint32
		var want6 [4]uint32
		if c.v4 != "" {
			want4 = binary.NativeEndian.Uint32(netip.MustParseAddr(c.v4).AsSlice())
		}
		if c.v6 != "" {
			want6 = maps.WireAddress(netip.MustParseAddr(c.v6))
		}
		if v4 != want4 || v6 != want6 {
			t.Errorf("%+v: %x and %x, want %q and %q", c.segments, v4, v6, c.v4, c.v6)
		}
	}
}

// local is the decision that a host lives on an interface here.
func (s *site) local(tenant route.TenantID, address, link, mac string) route.Decision {
	s.t.Helper()
	var f Facts
	s.in("look at "+link, func() (err error) { f, err = FactsOf(link); return err })
	var d route.Decision
	d.Key = route.Key{Tenant: tenant, Prefix: netip.MustParsePrefix(address)}
	d.Local, d.MAC = &route.Local{Link: f.Index}, macFrom(mac)
	return d
}

// reasons counts what happened to packets on a port, by name.
func (s *site) reasons(g *Gateway) map[string]uint64 {
	s.t.Helper()
	counts, err := maps.ReadCounters(g.plane.Objects().Counters)
	must(s.t, err)
	sum := map[string]uint64{}
	for _, c := range counts {
		sum[maps.ReasonName(c.Reason)] += c.Packets
	}
	return sum
}

// gateway opens a Gateway that has this spec.
func (s *site) gateway(spec Spec) *Gateway {
	s.t.Helper()
	p := s.open()
	var g *Gateway
	s.in("set", func() (err error) {
		if g, err = NewGateway(p, quiet()); err != nil {
			return err
		}
		return g.Set(spec)
	})
	return g
}

func (s *site) closeGateway(g *Gateway) {
	s.t.Helper()
	must(s.t, g.Close())
	s.close(g.plane)
}

// Two tenants have the same addresses, each on a port of its own. What one of them sends never reaches the other: neither
// through our tables nor through the kernel's, which has a route there.
func TestTenantsWithTheSameAddressesDoNotLeak(t *testing.T) {
	s := newSite(t)
	segment := func(port, subnet string, last byte) SegmentSpec {
		return SegmentSpec{
			Name: port, Access: PortRef{Name: port}, Subnets: prefixes(subnet), Own: addresses(subnet[:len(subnet)-4] + "1"),
			MAC: route.MAC{2, 0, 0, 0, 1, last},
		}
	}
	lan, wan := segment("lan0", "10.1.0.0/24", 1), segment("wan0", "10.2.0.0/24", 2)
	g := s.gateway(Spec{Mode: Native, Tenants: []TenantSpec{{ID: 1, VNI: 1, Segments: []SegmentSpec{lan, wan}}}})
	defer s.closeGateway(g)
	apply := func(list ...route.Decision) {
		t.Helper()
		s.in("apply", func() error { return g.Apply(t.Context(), list) })
	}
	left, right := leftAddr.String()+"/32", rightAddr.String()+"/32"
	apply(s.local(1, left, "lan0", s.left.MAC("eth0")), s.local(1, right, "wan0", s.right.MAC("eth0")))
	s.left.Run("ping", "-n", "-c", "1", "-W", "2", rightAddr.String())

	wide := segment("wan0", "10.2.0.0/24", 2)
	wide.Subnets = append(wide.Subnets, prefixes("10.1.0.0/16")...)
	blue := []TenantSpec{{ID: 1, VNI: 1, Segments: []SegmentSpec{lan}}, {ID: 2, VNI: 2, Segments: []SegmentSpec{wide}}}
	s.in("set", func() error { return g.Set(Spec{Mode: Native, Tenants: blue}) })
	gone := s.local(1, right, "wan0", s.right.MAC("eth0"))
	gone.Gone, gone.Local = true, nil
	apply(gone, s.local(2, right, "wan0", s.right.MAC("eth0")), s.local(2, left, "wan0", s.right.MAC("eth0")))
	before := s.reasons(g)
	heard := received(s.right)
	out, err := s.left.Try("ping", "-n", "-c", "3", "-i", "0.1", "-W", "1", rightAddr.String())
	if err == nil {
		t.Errorf("one tenant reaches the other:\n%s", out)
	}
	if now := received(s.right); now != heard {
		t.Errorf("packets of one tenant arrived at the other: %s before, %s now", heard, now)
	}
	after := s.reasons(g)
	if n := after["drop_isolated"] - before["drop_isolated"]; n != 3 {
		t.Errorf("%d packets counted as drop_isolated, want 3: %v", n, after)
	}
}

// received is how many ICMP messages a machine has heard.
func received(n *lab.Namespace) string {
	return n.Run("awk", "/^Icmp: [0-9]/ { print $2 }", "/proc/net/snmp")
}
