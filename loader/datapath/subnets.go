package datapath

import (
	"fmt"
	"slices"

	"roam/loader/route"
	"roam/maps"
)

// setSubnets makes these the prefixes between whose hosts no TTL is taken. Each has a number that no other has at the time, and
// keeps it.
func (t *table) setSubnets(want map[entryKey]bool) error {
	used := map[uint32]bool{}
	for key, number := range t.subnets {
		if want[key] {
			used[number] = true
			continue
		}
		if err := t.prefixes.Delete(key.space, key.prefix); err != nil {
			return err
		}
		delete(t.subnets, key)
	}
	number := uint32(1)
	for key := range want {
		if t.subnets[key] != 0 {
			continue
		}
		for used[number] {
			number++
		}
		if err := t.prefixes.Put(key.space, key.prefix, number); err != nil {
			return fmt.Errorf("enter a subnet of neighbours: %w", err)
		}
		t.subnets[key], used[number] = number, true
	}
	return nil
}

// neighbourSubnets lists the subnets whose segments ask for it, in the spaces that hold them.
func (t *table) neighbourSubnets(tenants []TenantSpec) map[entryKey]bool {
	want := map[entryKey]bool{}
	for _, tenant := range tenants {
		for _, s := range tenant.Segments {
			for _, p := range s.Subnets {
				if s.KeepTTL {
					want[entryKey{maps.SpaceSubnets + t.tenants.ids[tenant.ID], p}] = true
				}
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
