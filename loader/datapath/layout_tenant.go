package datapath

import (
	"encoding/binary"
	"net/netip"

	"roam/loader/route"
	"roam/maps"
)

// writeTenants says what holds for each tenant as a whole.
func (g *Gateway) writeTenants() error {
	isolated, keep := sharing(g.spec.Tenants), keepsTTL(g.spec.Tenants)
	for _, t := range g.spec.Tenants {
		have := g.table.ports.Tenant(g.table.tenants.ids[t.ID])
		tenant := maps.Tenant{Fragment: have.Fragment, FragmentMac: have.FragmentMac, Flags: have.Flags & maps.TenantFragment}
		tenant.Icmp4, tenant.Icmp6 = errorSources(t.Segments)
		if isolated[t.ID] {
			tenant.Flags |= maps.TenantIsolated
		}
		if keep[t.ID] {
			tenant.Flags |= maps.TenantKeepTTL
		}
		if err := g.table.ports.PutTenant(g.table.tenants.ids[t.ID], tenant); err != nil {
			return err
		}
	}
	return nil
}

// clearTenants forgets tenants that are gone: their numbers are given out again.
func (g *Gateway) clearTenants(gone []uint16) error {
	for _, space := range gone {
		if err := g.table.ports.PutTenant(space, maps.Tenant{}); err != nil {
			return err
		}
	}
	return nil
}

// errorSources are the addresses, one of each family, that errors come from: one of this gateway alone, so that a sender
// sees which gateway speaks, or else a shared one. Where another router has the shared ones they are not ours to speak from.
func errorSources(segments []SegmentSpec) (v4 uint32, v6 [4]uint32) {
	var candidates []netip.Addr
	for _, s := range segments {
		candidates = append(candidates, s.Own...)
	}
	for _, s := range segments {
		if !s.Stick {
			candidates = append(candidates, s.Gateway...)
		}
	}
	for _, a := range candidates {
		switch {
		case a.Is4() && v4 == 0:
			v4 = binary.NativeEndian.Uint32(a.AsSlice())
		case a.Is6() && !a.IsLinkLocalUnicast() && v6 == [4]uint32{}:
			v6 = maps.WireAddress(a)
		}
	}
	return v4, v6
}

// sharing finds the tenants that have addresses in common with another.
func sharing(tenants []TenantSpec) map[route.TenantID]bool {
	shared := map[route.TenantID]bool{}
	for i, a := range tenants {
		for _, b := range tenants[:i] {
			if overlap(a, b) {
				shared[a.ID], shared[b.ID] = true, true
			}
		}
	}
	return shared
}

func overlap(a, b TenantSpec) bool {
	for _, s := range a.Segments {
		for _, other := range b.Segments {
			for _, p := range s.Subnets {
				for _, q := range other.Subnets {
					if p.Overlaps(q) {
						return true
					}
				}
			}
		}
	}
	return false
}
