package datapath

import (
	"fmt"
	"net/netip"

	"roam/loader/route"
	"roam/maps"
)

// tenants gives each VNI a space: the number under which the tables know a tenant. The assignment stands in the host
// table itself (space VNI), because it is what a tunnel packet is looked up by; so a restart finds it there and keeps it.
type tenants struct {
	hosts  *maps.Hosts
	spaces map[uint32]uint16         // VNI to space
	ids    map[route.TenantID]uint16 // this process's tenant numbers to space
}

func vniKey(vni uint32) netip.Addr {
	return netip.AddrFrom4([4]byte{0, byte(vni >> 16), byte(vni >> 8), byte(vni)})
}

func vniOf(key netip.Addr) uint32 {
	b := key.As4()
	return uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
}

// set makes the spaces of exactly these tenants known. It returns the spaces that are gone.
func (t *tenants) set(specs []TenantSpec) (gone []uint16, err error) {
	wanted := map[uint32]bool{}
	used := map[uint16]bool{}
	for _, spec := range specs {
		wanted[spec.VNI] = true
	}
	for vni, space := range t.spaces {
		used[space] = true
		if !wanted[vni] {
			gone = append(gone, space)
			t.hosts.Delete(maps.SpaceVNI, vniKey(vni))
			delete(t.spaces, vni)
		}
	}
	t.ids = map[route.TenantID]uint16{}
	next := uint16(1)
	for _, spec := range specs {
		space, ok := t.spaces[spec.VNI]
		if !ok {
			for used[next] {
				next++
			}
			space = next
			if space > uint16(route.MaxTenant) {
				return gone, fmt.Errorf("more than %d tenants", route.MaxTenant)
			}
			if err := t.hosts.Put(maps.SpaceVNI, vniKey(spec.VNI), uint32(space)); err != nil {
				return gone, fmt.Errorf("enter VNI %d: %w", spec.VNI, err)
			}
			used[space] = true
			t.spaces[spec.VNI] = space
		}
		t.ids[spec.ID] = space
	}
	return gone, nil
}

// vni returns the VNI of a space.
func (t *tenants) vni(space uint16) (uint32, bool) {
	for vni, s := range t.spaces {
		if s == space {
			return vni, true
		}
	}
	return 0, false
}

// first is the lowest space, 0 for none.
func (t *tenants) first() (space uint16) {
	for _, s := range t.spaces {
		if space == 0 || s < space {
			space = s
		}
	}
	return space
}
