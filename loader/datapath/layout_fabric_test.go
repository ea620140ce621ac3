package datapath

import (
	"slices"
	"strings"
	"testing"

	"roam/loader/route"
)

// Behind the port of a fabric everything goes to the router, whatever the host's own MAC; the gateway answers nobody there,
// though a host that lives elsewhere is asked for, and the interface stays as its machine had it.
func TestFabricPort(t *testing.T) {
	s := newSite(t)
	router := macFrom(s.right.MAC("eth0"))
	lan := SegmentSpec{
		Name: "lan", Access: PortRef{Name: "lan0"}, Subnets: prefixes("10.1.0.0/24"), Own: addresses("10.1.0.1"), MAC: route.MAC{2, 0, 0, 0, 1, 1},
	}
	cloud := SegmentSpec{
		Name: "cloud", Access: PortRef{Name: "wan0"}, Subnets: prefixes("10.2.0.0/24", "2001:db8:2::/64"), MAC: route.MAC{2, 0, 0, 0, 1, 2},
		Stick: true, Fabric: true, NextHop: router,
	}
	held := func() string {
		return s.gw.Run("ip", "route", "show", "dev", "wan0") + s.gw.Run("ip", "address", "show", "dev", "wan0")
	}
	before := held()
	g := s.gateway(Spec{Mode: Native, Tenants: []TenantSpec{{ID: 1, VNI: 1, Segments: []SegmentSpec{lan, cloud}}}})
	defer s.closeGateway(g)
	there := s.local(1, rightAddr.String()+"/32", "wan0", "02:00:00:00:66:66")
	there.Local.NextHop = router
	away := decision(1, "10.2.0.9/32", via("192.0.2.9"))
	s.in("apply", func() error {
		return g.Apply(t.Context(), []route.Decision{s.local(1, leftAddr.String()+"/32", "lan0", s.left.MAC("eth0")), there, away})
	})
	s.left.Run("ping", "-n", "-c", "1", "-W", "2", rightAddr.String())
	if n := s.reasons(g)["fwd_deliver"]; n != 2 {
		t.Errorf("%d packets delivered, want the question and the answer: %v", n, s.reasons(g))
	}
	_, _ = s.right.Try("ping", "-n", "-c", "1", "-W", "1", "10.2.0.9") // has the address asked for
	if out := s.right.Run("ip", "neigh", "show", "10.2.0.9"); !strings.Contains(out, "10.2.0.9") || strings.Contains(out, "lladdr") {
		t.Errorf("the gateway answers in a fabric for a host that lives elsewhere: %s", out)
	}
	i := slices.IndexFunc(g.Ports(), func(p PortState) bool { return p.Name == "wan0" })
	if roles := g.Ports()[i].Roles; !slices.Equal(roles, []string{"uplink"}) {
		t.Errorf("the port of a fabric is %v to the program", roles)
	}
	if link := s.gw.Run("ip", "-d", "link", "show", "wan0"); !strings.Contains(link, "promiscuity 0") {
		t.Errorf("wan0 is promiscuous:\n%s", link)
	}
	for _, family := range []string{"-4", "-6"} {
		if rules := s.gw.Run("ip", family, "rule"); !strings.Contains(rules, "iif wan0 blackhole") {
			t.Errorf("the kernel sends what is for nobody back to the fabric:\n%s", rules)
		}
	}
	if after := held(); strings.Count(after, "10.2.0.") != strings.Count(before, "10.2.0.") {
		t.Errorf("addresses or routes of wan0 differ:\n%s\nbefore\n%s", after, before)
	}
	s.in("set", func() error {
		return g.Set(Spec{Mode: Native, Tenants: []TenantSpec{{ID: 1, VNI: 1, Segments: []SegmentSpec{lan}}}})
	})
	if rules := s.gw.Run("ip", "-4", "rule") + s.gw.Run("ip", "-6", "rule"); strings.Contains(rules, "blackhole") {
		t.Errorf("rules are left behind:\n%s", rules)
	}
}

// Doctor knows another router on the port of a fabric.
func TestDoctorFabric(t *testing.T) {
	s := newSite(t)
	p := s.open()
	defer s.close(p)
	router := s.right.MAC("eth0")
	s.gw.IP("neigh replace 10.2.0.2 lladdr " + router + " dev wan0 nud reachable")
	find := func(nextHop string) (found []string) {
		s.in("doctor", func() error {
			for _, f := range p.Doctor([]PortSpec{{Name: "wan0", Uplink: true, NextHop: macFrom(nextHop)}}) {
				if strings.Contains(f.What, "router of this fabric") {
					found = append(found, f.What)
				}
			}
			return nil
		})
		return found
	}
	want := "is said to be 12:34:56:78:9a:bc, but who answers on this port is " + router
	if list := find("12:34:56:78:9a:bc"); len(list) != 1 || !strings.Contains(list[0], want) {
		t.Errorf("%q", list)
	}
	if list := find(router); len(list) != 0 {
		t.Errorf("%q", list)
	}
}
