package datapath

import (
	"fmt"
	"slices"

	"roam/loader/route"
	"roam/maps"
)

// setSubnets makes exactly these subnets known to the data path, in spaces of their own beside the tenants' routes: only of
// addresses inside them it reports what it sees, and between hosts of one whose value is true it takes no TTL. Each has a number
// that no other has at the time, and keeps it.
func (t *table) setSubnets(want map[entryKey]bool) error {
	used := map[uint32]bool{}
	for key, value := range t.subnets {
		if _, keep := want[key]; keep {
			used[value&^maps.SubnetKeepTTL] = true
			continue
		}
		if err := t.prefixes.Delete(key.space, key.prefix); err != nil {
			return err
		}
		delete(t.subnets, key)
	}
	number := uint32(1)
	for key, keepTTL := range want {
		value := t.subnets[key] &^ maps.SubnetKeepTTL
		for value == 0 && used[number] {
			number++
		}
		if value == 0 {
			value, used[number] = number, true
		}
		if keepTTL {
			value |= maps.SubnetKeepTTL
		}
		if t.subnets[key] == value {
			continue
		}
		if err := t.prefixes.Put(key.space, key.prefix, value); err != nil {
			return fmt.Errorf("enter a subnet: %w", err)
		}
		t.subnets[key] = value
	}
	return nil
}

// wantedSubnets lists the subnets of all segments, and whether their hosts are neighbours to each other. Nobody looks for hosts in a
// fabric: its subnets matter for the TTL only.
func (t *table) wantedSubnets(tenants []TenantSpec) map[entryKey]bool {
	want := map[entryKey]bool{}
	for _, tenant := range tenants {
		for _, s := range tenant.Segments {
			if s.Fabric && !s.KeepTTL {
				continue
			}
			for _, p := range s.Subnets {
				want[entryKey{maps.SpaceSubnets + t.tenants.ids[tenant.ID], p.Masked()}] = s.KeepTTL
			}
		}
	}
	return want
}

// keepsTTL finds the tenants that have such subnets.
func keepsTTL(tenants []TenantSpec) map[route.TenantID]bool {
	list := map[route.TenantID]bool{}
	for _, t := range tenants {
		list[t.ID] = slices.ContainsFunc(t.Segments, func(s SegmentSpec) bool { return s.KeepTTL })
	}
	return list
}
