package fib

import (
	"slices"

	"golang.org/x/sys/unix"

	"roam/loader/route"
)

// maxLocators is what one route may spread over.
const maxLocators = 64

// Reasons not to follow a route: they are shown to the operator.
const (
	noNextHop   = "a route without a next hop address names no locator"
	badNextHop  = "a next hop that is no global unicast address cannot be a locator"
	manyHops    = "a route with more than 64 next hops"
	otherEncap  = "a next hop behind an encapsulation other than ip or ip6"
	otherType   = "a route type other than unicast, blackhole, unreachable and prohibit"
	policyRoute = "a route for one TOS or one source only"
	notMobile   = "a multicast or link-local prefix does not move"
	allDead     = "a route whose next hops are all down"
)

// target says where a route leads, or the reason not to follow it. It is not sure when a nexthop object is not known.
func (s *Source) target(t *table, m message) (to target, reason string, sure bool) {
	switch {
	case m.tos != 0, m.sourced:
		return target{}, policyRoute, true
	case m.prefix.Addr().IsMulticast(), m.prefix.Addr().IsLinkLocalUnicast(), m.prefix.Addr().Is4In6():
		return target{}, notMobile, true
	case m.kind == unix.RTN_BLACKHOLE, m.kind == unix.RTN_UNREACHABLE, m.kind == unix.RTN_PROHIBIT:
		return target{}, "", true
	case m.kind != unix.RTN_UNICAST:
		return target{}, otherType, true
	}
	hops := m.hops
	if hops == nil {
		var reject bool
		if hops, reject, sure = s.objectHops(m.object); reject {
			return target{}, "", sure
		}
		if !sure {
			return target{}, noNextHop, false
		}
	}
	list, site, reason := s.locators(t, hops)
	if reason != "" {
		return target{}, reason, true
	}
	return target{via: s.interner.Via(list), site: site}, "", true
}

// objectHops resolves a nexthop object.
func (s *Source) objectHops(id uint32) (hops []hop, reject, sure bool) {
	n, ok := s.nexthops[id]
	if !ok {
		return nil, false, false
	}
	for _, m := range n.group { // groups do not nest
		g, ok := s.nexthops[m.id]
		if !ok {
			return nil, false, false
		}
		for _, h := range g.hops {
			h.weight = m.weight
			hops = append(hops, h)
		}
	}
	return append(hops, n.hops...), n.blackhole, true
}

// locators turns next hops into locators: dead ones are left out, equal ones share a locator. The site is named
// when all of them are known to belong to one.
func (s *Source) locators(t *table, hops []hop) (list []route.Locator, site, reason string) {
	for _, h := range hops {
		switch {
		case h.encap:
			return nil, "", otherEncap
		case !h.addr.IsValid():
			return nil, "", noNextHop
		case !h.addr.IsGlobalUnicast() || h.addr.Is4In6():
			return nil, "", badNextHop
		case h.dead:
			continue
		}
		l, at, ok := s.known(h.addr)
		if !ok {
			l, at = t.Locator, ""
		}
		if len(list) == 0 {
			site = at
		} else if site != at {
			site = ""
		}
		l.Address = h.addr
		list = share(list, l, h.weight)
	}
	switch {
	case len(list) == 0:
		return nil, "", allDead
	case len(list) > maxLocators:
		return nil, "", manyHops
	}
	// The kernel names siblings in any order; one set of next hops is one list.
	slices.SortFunc(list, func(a, b route.Locator) int { return a.Address.Compare(b.Address) })
	return list, site, ""
}

// share adds a locator with a next hop's weight, or the weight to the same locator. A weight of the kernel may be
// larger than a locator's can be.
func share(list []route.Locator, l route.Locator, weight uint32) []route.Locator {
	for i := range list {
		if list[i].Address == l.Address {
			list[i].Weight = uint8(min(uint32(list[i].Weight)+weight, 255))
			return list
		}
	}
	if weight != 0 {
		l.Weight = uint8(min(weight, 255))
	}
	return append(list, l)
}
