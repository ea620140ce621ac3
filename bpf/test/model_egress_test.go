package bpftest

import (
	"net/netip"

	"roam/maps"
)

// Egress by policy in the model.

// way is how a host exchanges packets with another address, by its policy.
func (v *view) way(host, other netip.Addr) uint32 {
	ways := v.cover(maps.SpaceEgress+v.tenant, host)
	if !v.tune.Egress || ways == 0 {
		return 0
	}
	return v.cover(uint16(ways), other)
}

// egress is the next hop that a policy puts in place of the route's, or 0. It also finds out whether this gateway is the home of an end.
func (v *view) egress(next maps.Nexthop) uint32 {
	if next.Kind == maps.KindGateway || next.Kind == maps.KindOwn || next.Kind == maps.KindBlackhole {
		return 0
	}
	from, to := v.way(v.ip.src, v.ip.dst), v.way(v.ip.dst, v.ip.src)
	if v.inside == nil && v.port.Role&maps.RoleUplink != 0 {
		from = 0
	}
	if from == maps.WaySubnet {
		return 0
	}
	v.home = from == maps.WayHere || to == maps.WayHere
	switch {
	case v.inside == nil && from > maps.WayHere:
		return from
	case v.inside != nil && (from != maps.WayHere || v.leadsBack(v.nexthops[to])):
		return 0 // it has been where it is to pass
	case to > maps.WayHere:
		return to
	}
	return 0
}
