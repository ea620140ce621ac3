package datapath

import (
	"fmt"
	"net/netip"

	"roam/loader/route"
	"roam/maps"
)

// remotes is what the tables know of other tunnel ends besides how to reach them.
type remotes struct {
	configured map[netip.Addr]RemoteSpec
	owners     map[netip.Addr]uint16 // space of the tenant whose packets come without a tenant field
}

// key is the entry of a locator. Where the route does not say to which MAC the inner frame goes, the configuration may, and
// else it is derived from the address, as the far end derives its own.
func (r *remotes) key(l route.Locator) maps.LocatorKey {
	known := r.configured[l.Address]
	mac := l.RouterMAC
	if mac.IsZero() {
		mac = known.RouterMAC
	}
	if mac.IsZero() {
		mac = route.RouterMAC(l.Address)
	}
	return maps.LocatorKey{
		Address: l.Address, Encap: uint8(l.Encap), Port: l.Port, RouterMAC: mac, Options: known.options(),
	}
}

// variant is the entry of a locator for one tenant. An address whose packets would not tell two tenants apart is refused to
// the second.
func (t *table) variant(space uint16, l route.Locator) (uint16, error) {
	owner := t.remotes.owners[l.Address]
	if !l.Encap.NamesTenant() && owner != 0 && owner != space {
		return 0, fmt.Errorf("locator %s carries another tenant already, and %s names none: use vxlan, geneve, gre or lisp for one of the two",
			l.Address, l.Encap)
	}
	n, err := t.locators.Intern(t.remotes.key(l))
	if err == nil && !l.Encap.NamesTenant() && owner == 0 {
		t.remotes.owners[l.Address] = space
		t.locators.SetTenant(l.Address, space)
	}
	if err == nil && t.ready != nil && t.nexthops.Fresh(space, n) {
		t.ready(space, n)
	}
	return n, err
}

// setKnown keeps these tunnel ends known whatever routes say.
func (t *table) setKnown(list []RemoteSpec) error {
	t.known = map[uint16]bool{}
	t.remotes.configured = map[netip.Addr]RemoteSpec{}
	for _, r := range list {
		if t.own[r.Address] {
			continue
		}
		t.remotes.configured[r.Address] = r
		n, err := t.locators.Intern(t.remotes.key(r.Locator))
		if err != nil {
			return err
		}
		t.known[n] = true
	}
	t.assignOwners()
	return nil
}

// assignOwners gives each address to the tenant that the configuration names, or else to the one whose routes lead there by an
// encapsulation without a tenant field.
func (t *table) assignOwners() {
	owners := map[netip.Addr]uint16{}
	for _, target := range t.nexthops.Variants() {
		if key := t.locators.Key(target.Variant); !route.Encap(key.Encap).NamesTenant() {
			owners[key.Address] = target.Tenant
		}
	}
	for a, r := range t.remotes.configured {
		if space := t.tenants.ids[r.Tenant]; space != 0 {
			owners[a] = space
		}
	}
	t.remotes.owners = owners
	t.locators.Each(func(a netip.Addr, _ uint16) { t.locators.SetTenant(a, owners[a]) })
}
