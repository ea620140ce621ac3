package datapath

import (
	"testing"
	"time"

	"roam/loader/route"
	"roam/maps"
)

// While the kernel verifies the program of an explanation, routes go on changing.
func TestExplainHoldsUpNoRoute(t *testing.T) {
	s := newSite(t)
	lan := SegmentSpec{
		Name: "lan0", Access: PortRef{Name: "lan0"}, Subnets: prefixes("10.1.0.0/24"), Own: addresses("10.1.0.1"), MAC: route.MAC{2, 0, 0, 0, 1, 1},
	}
	g := s.gateway(Spec{Mode: Native, Tenants: []TenantSpec{{ID: 1, VNI: 1, Segments: []SegmentSpec{lan}}}})
	defer s.closeGateway(g)
	explained := make(chan struct{})
	must(t, g.plane.Use(func(*maps.Objects) error { // an explanation waits as long as this lasts
		go func() {
			defer close(explained)
			_, _ = g.Explain(make([]byte, 60), PortRef{Name: "lan0"})
		}()
		for end := time.Now().Add(100 * time.Millisecond); time.Now().Before(end); time.Sleep(time.Millisecond) {
			if !g.mu.TryLock() {
				t.Error("who changes a route would wait")
				break
			}
			g.mu.Unlock()
		}
		return nil
	}))
	<-explained
}
