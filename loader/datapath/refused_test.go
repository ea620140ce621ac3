package datapath

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"roam/loader/route"
)

// A veth end whose other end neither polls nor runs a program refuses what is redirected to it, after the program has counted
// the packet as delivered.
func TestRefusedPacketsAreCounted(t *testing.T) {
	s := newSite(t)
	segment := func(port, subnet, own string, last byte) SegmentSpec {
		return SegmentSpec{
			Name: port, Access: PortRef{Name: port}, Subnets: prefixes(subnet), Own: addresses(own), MAC: route.MAC{2, 0, 0, 0, 1, last},
		}
	}
	g := s.gateway(Spec{Mode: Native, Tenants: []TenantSpec{{ID: 1, VNI: 1, Segments: []SegmentSpec{
		segment("lan0", "10.1.0.0/24", "10.1.0.1", 1), segment("wan0", "10.2.0.0/24", "10.2.0.1", 2),
	}}}})
	defer s.closeGateway(g)
	s.in("apply", func() error {
		return g.Apply(t.Context(), []route.Decision{
			s.local(1, leftAddr.String()+"/32", "lan0", s.left.MAC("eth0")),
			s.local(1, rightAddr.String()+"/32", "wan0", s.right.MAC("eth0")),
		})
	})
	s.left.Run("ping", "-n", "-c", "1", "-W", "2", rightAddr.String())
	if n := g.Refused()["wan0"]; n != 0 {
		t.Errorf("%d packets were refused while all is well", n)
	}
	s.right.Run("ethtool", "-K", "eth0", "gro", "off")
	flow := s.Flow(s.left, netip.Addr{}, s.right, rightAddr, 200, 64)
	s.Until(10*time.Second, "refused packets are counted", func() error {
		if n := g.Refused()["wan0"]; n < 20 {
			return fmt.Errorf("%d so far, %v", n, s.reasons(g))
		}
		return nil
	})
	flow.Stop()
	if n := g.Refused()["lan0"]; n != 0 {
		t.Errorf("%d packets count as refused by a port that refused none", n)
	}
}
