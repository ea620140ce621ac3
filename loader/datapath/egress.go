package datapath

import (
	"errors"
	"fmt"
	"net/netip"

	"roam/loader/route"
	"roam/maps"
)

// EgressSpec says by which ways the hosts of a prefix exchange packets with others; of two that hold a host the longer counts.
type EgressSpec struct {
	From netip.Prefix
	Ways []WaySpec
}

// WaySpec is the way to one prefix; the longest counts.
type WaySpec struct {
	Prefix netip.Prefix
	Via    []route.Locator // nil: from where the host is; with one of ours: by this gateway
	Subnet bool            // it is the hosts' own subnet, to which they go by no way
}

// egress is what the prefix tries hold of policies: for each list its hosts, in a tenant's space from SpaceEgress on, and its
// ways, in a space of its own from SpaceWays on.
type egress map[entryKey]uint32

// list is the space of the ways of a prefix's hosts, or one that no list has: never one of this call's departed.
func (e egress) list(key entryKey) (space uint16, err error) {
	if s, ok := e[key]; ok {
		return uint16(s), nil
	}
	used := map[uint16]bool{}
	for k, value := range e {
		if k.space >= maps.SpaceWays {
			used[k.space] = true
		} else {
			used[uint16(value)] = true
		}
	}
	for s := int(maps.SpaceWays); s <= 0xffff; s++ {
		if !used[uint16(s)] {
			return uint16(s), nil
		}
	}
	return 0, errors.New("egress: more policies than the data path has room for")
}

// setEgress makes exactly these policies known to the data path. A list is there before its hosts are led to it, and goes
// after them. What is for us is IDKernel as a route, and WayHere as a way.
func (t *table) setEgress(tenants []TenantSpec) error {
	want := map[entryKey]bool{}
	for _, tenant := range tenants {
		space := t.tenants.ids[tenant.ID]
		for _, policy := range tenant.Egress {
			hosts := entryKey{maps.SpaceEgress + space, policy.From}
			list, err := t.egress.list(hosts)
			if err != nil {
				return err
			}
			want[hosts] = true
			for _, way := range policy.Ways {
				key := entryKey{list, way.Prefix}
				want[key] = true
				id, err := t.way(space, way)
				if err == nil {
					err = t.putWay(key, id)
				}
				if err != nil {
					return fmt.Errorf("egress of %s to %s: %w", policy.From, way.Prefix, err)
				}
			}
			if err := t.putWay(hosts, uint32(list)); err != nil {
				return fmt.Errorf("egress of %s: %w", policy.From, err)
			}
		}
	}
	return t.keepEgress(want)
}

// way is a next-hop id with one reference, or a word for a way that has no next hop.
func (t *table) way(space uint16, w WaySpec) (uint32, error) {
	switch {
	case w.Subnet:
		return maps.WaySubnet, nil
	case w.Via == nil:
		return maps.WayLocal, nil
	}
	return t.nexthop(space, route.Decision{Claim: route.Claim{Via: &route.Via{Locators: w.Via}}})
}

// putWay points an entry at a value, with the reference that came with it.
func (t *table) putWay(key entryKey, value uint32) error {
	old, had := t.egress[key]
	if had && old == value {
		t.releaseWay(key, value)
		return nil
	}
	if err := t.prefixes.Put(key.space, key.prefix, value); err != nil {
		t.releaseWay(key, value)
		return err
	}
	t.egress[key] = value
	if had {
		t.releaseWay(key, old)
	}
	return nil
}

// keepEgress removes all entries but these, hosts before their lists.
func (t *table) keepEgress(want map[entryKey]bool) error {
	for _, lists := range []bool{false, true} {
		for key, value := range t.egress {
			if want[key] || key.space >= maps.SpaceWays != lists {
				continue
			}
			if err := t.prefixes.Delete(key.space, key.prefix); err != nil {
				return err
			}
			delete(t.egress, key)
			t.releaseWay(key, value)
		}
	}
	return nil
}

func (t *table) releaseWay(key entryKey, value uint32) {
	if key.space >= maps.SpaceWays {
		t.nexthops.Release(value)
	}
}
