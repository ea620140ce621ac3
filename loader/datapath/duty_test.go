package datapath

import (
	"testing"
	"time"

	"roam/loader/route"
	"roam/maps"
)

// TestDuty: a segment that is new to the tables stands by where there is an election; what it was told outlives the daemon and changes
// of the configuration; and without an election it answers.
func TestDuty(t *testing.T) {
	s := newSite(t)
	spec := func(elected bool, last byte) Spec {
		return Spec{Mode: Native, Tenants: []TenantSpec{{ID: 1, VNI: 1, Segments: []SegmentSpec{{
			Name: "web", Access: PortRef{Name: "lan0"}, Subnets: prefixes("10.1.0.0/24"), Own: addresses("10.1.0.1"),
			MAC: route.MAC{2, 0, 0, 0, 1, last}, Elected: elected,
		}}}}}
	}
	var g *Gateway
	is := func(when string, standby, lasts bool) {
		t.Helper()
		seg := g.table.ports.Segment(g.SegmentIndex("web"))
		if (seg.Flags&maps.SegmentStandby != 0) != standby || (seg.DesignatedUntil != 0) != lasts {
			t.Errorf("%s: flags %#x, until %d; want standby %v, for a while %v", when, seg.Flags, seg.DesignatedUntil, standby, lasts)
		}
	}
	tell := func(standby bool, lasts time.Duration) {
		t.Helper()
		must(t, g.SetDuty("web", standby, lasts))
	}
	g = s.gateway(spec(true, 1))
	is("new", true, false)
	tell(false, time.Second)
	is("designated beside another", false, true)
	now, err := monotonic()
	must(t, err)
	if until := g.table.ports.Segment(g.SegmentIndex("web")).DesignatedUntil; until > now+uint64(time.Second) || until+uint64(time.Minute) < now {
		t.Errorf("designated until %d, now is %d", until, now)
	}
	tell(false, 0)
	is("alone", false, false)
	s.in("set", func() error { return g.Set(spec(true, 1)) })
	is("set again", false, false)
	s.closeGateway(g)

	g = s.gateway(spec(true, 1))
	is("after a restart", false, false)
	tell(true, 0)
	s.closeGateway(g)

	g = s.gateway(spec(true, 1))
	defer s.closeGateway(g)
	is("after a restart of a standby", true, false)
	s.in("set", func() error { return g.Set(spec(false, 1)) })
	is("without an election", false, false)
	s.in("set", func() error { return g.Set(spec(true, 2)) })
	is("another gateway MAC: another segment", true, false)
	if err := g.SetDuty("blue", true, 0); err == nil {
		t.Error("a segment that is not there was told")
	}
}
