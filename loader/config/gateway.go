package config

import (
	"net/netip"
	"slices"
	"time"

	"roam/loader/route"
)

// How long hosts keep a router that they hear nothing of. The bounds are those of RFC 4861, section 6.2.1, with three advertisements in a lifetime.
const (
	defaultLifetime = 30 * time.Minute
	minLifetime     = 12 * time.Second
	maxLifetime     = 9000 * time.Second
)

// gateway reads what hosts see of us. Where the gateway is the default router and no address is given, it takes
// the first of every subnet.
func (r *reader) gateway(t *Tenant, s *Segment, v value) Gateway {
	f := v.mapping("role", "addresses", "own_addresses", "mac", "routers", "foreign_macs", "keep_ttl", "router_advertisements", "router_lifetime", "designated")
	usual := RoleDefault
	if s.Access.Mode == ModeFabric {
		usual = RoleStick
		f.refuse("the hosts' router is the fabric's own: in mode fabric remove it",
			"addresses", "mac", "routers", "foreign_macs", "router_advertisements", "router_lifetime", "designated")
	}
	g := Gateway{
		Role:    one(f.get("role"), usual, RoleDefault, RoleStick),
		KeepTTL: f.get("keep_ttl").boolean(false),
	}
	if s.Access.Mode == ModeFabric && g.Role != RoleStick {
		f.get("role").fail("the hosts' router is the fabric's own: in mode fabric the role is stick")
		return g
	}
	used := make(map[netip.Addr]string)
	read := func(key string) []netip.Addr {
		return all(f.get(key), func(v value) (netip.Addr, bool) {
			a, ok := s.station(v)
			if other, taken := used[a]; ok && taken {
				v.fail("%s is already one of %s", a, other)
				return a, false
			}
			used[a] = key
			return a, ok
		})
	}
	g.Addresses, g.OwnAddresses, g.Routers = read("addresses"), read("own_addresses"), read("routers")
	if g.Role == RoleDefault && f.get("addresses").absent() {
		g.Addresses = s.firstAddresses(f.get("addresses"), used)
	}
	if s.Access.Mode != ModeFabric {
		g.Election = election(f.get("designated"))
	}
	g.Advertise = s.advertise(g, f.get("router_advertisements"))
	if lifetime := f.get("router_lifetime"); g.Advertise {
		g.Lifetime = lifetime.duration(defaultLifetime, minLifetime, maxLifetime)
	} else if !lifetime.absent() {
		lifetime.fail("no router is advertised here: remove it, or see router_advertisements")
	}
	g.MAC, _ = f.get("mac").mac()
	if g.MAC.IsZero() {
		g.MAC = s.derivedMAC(t.VNI, g.Addresses)
	}
	g.ForeignMACs = all(f.get("foreign_macs"), func(v value) (route.MAC, bool) {
		m, ok := v.mac()
		if ok && m == g.MAC {
			v.fail("%s is this gateway's own MAC address", m)
		}
		return m, ok
	})
	return g
}

// advertise tells whether hosts learn from us that we are their IPv6 router: by default wherever we can say so.
func (s *Segment) advertise(g Gateway, v value) bool {
	can := g.Role == RoleDefault && slices.ContainsFunc(g.Addresses, netip.Addr.IsLinkLocalUnicast) &&
		slices.ContainsFunc(s.Subnets, func(p netip.Prefix) bool { return p.Addr().Is6() })
	wanted := v.boolean(can)
	if wanted && !can {
		v.fail("needs role default, an IPv6 subnet, and a link-local address among addresses, such as fe80::1")
	}
	return wanted
}

// station reads an address that stands on the segment: in one of its subnets, or link-local IPv6.
func (s *Segment) station(v value) (netip.Addr, bool) {
	a, ok := v.address()
	if !ok {
		return a, false
	}
	if a.Is6() && a.IsLinkLocalUnicast() && a.Zone() == "" {
		return a, true
	}
	if err := route.ValidHost(a); err != nil {
		v.fail("%v", err)
		return a, false
	}
	i := slices.IndexFunc(s.Subnets, func(p netip.Prefix) bool { return p.Contains(a) })
	if i < 0 {
		if len(s.Subnets) > 0 {
			v.fail("%s lies in none of the segment's subnets", a)
		}
		return a, false
	}
	if p := s.Subnets[i]; a.Is4() && p.Bits() < 31 && (a == p.Addr() || a == lastOf(p)) {
		v.fail("%s is the network or broadcast address of %s", a, p)
		return a, false
	}
	return a, true
}

// firstAddresses is the first address of every subnet that has more than one.
func (s *Segment) firstAddresses(v value, used map[netip.Addr]string) []netip.Addr {
	var out []netip.Addr
	for _, p := range s.Subnets {
		a := p.Addr().Next()
		if p.Bits() >= p.Addr().BitLen()-1 {
			v.fail("is missing: %s has no first address to take by default", p)
			continue
		}
		if key, taken := used[a]; taken {
			v.fail("is missing, and the first address of %s is already one of %s", p, key)
			continue
		}
		out = append(out, a)
	}
	return out
}

// derivedMAC is the same at every site that configures the segment alike.
func (s *Segment) derivedMAC(vni uint32, addresses []netip.Addr) route.MAC {
	switch {
	case len(addresses) > 0:
		return macOf(vni, addresses[0])
	case len(s.Subnets) > 0:
		return macOf(vni, s.Subnets[0].Addr())
	}
	return route.MAC{}
}

// lastOf is the broadcast address of an IPv4 prefix.
func lastOf(p netip.Prefix) netip.Addr {
	a := p.Addr().As4()
	for bit := p.Bits(); bit < 32; bit++ {
		a[bit/8] |= 0x80 >> (bit % 8)
	}
	return netip.AddrFrom4(a)
}
