package fib

import (
	"net/netip"
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
	otherVNI    = "a next hop behind a tunnel whose id is not the tenant's VNI"
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
	if m.hops == nil {
		return s.resolve(t, m.object)
	}
	to, reason = s.join(t, m.hops)
	return to, reason, true
}

// join makes one target of next hops.
func (s *Source) join(t *table, hops []hop) (to target, reason string) {
	list, site, reason := s.locators(t, hops)
	if reason != "" {
		return target{}, reason
	}
	return target{via: s.interner.Via(list), site: site}, ""
}

// locators turns next hops into locators: dead ones are left out, equal ones share a locator. The site is named
// when all of them are known to belong to one.
func (s *Source) locators(t *table, hops []hop) (list []route.Locator, site, reason string) {
	var weights []uint32 // of the locators; 0: a locator's own
	for _, h := range hops {
		addr := h.addr.Unmap() // in routes to IPv6, an IPv4 tunnel end is spelled so
		switch {
		case h.encap:
			return nil, "", otherEncap
		case h.id != 0 && t.VNI != 0 && h.id != uint64(t.VNI):
			return nil, "", otherVNI
		case !addr.IsValid():
			return nil, "", noNextHop
		case !addr.IsGlobalUnicast():
			return nil, "", badNextHop
		case h.dead:
			continue
		}
		if i := slices.IndexFunc(list, func(l route.Locator) bool { return l.Address == addr }); i >= 0 {
			weights[i] += h.weight
			continue
		}
		l, at := s.locator(t, h, addr)
		if len(list) == 0 {
			site = at
		} else if site != at {
			site = ""
		}
		list, weights = append(list, l), append(weights, h.weight)
	}
	switch {
	case len(list) == 0:
		return nil, "", allDead
	case len(list) > maxLocators:
		return nil, "", manyHops
	}
	if len(list) > 1 {
		weigh(list, weights)
	}
	// The kernel names siblings in any order; one set of next hops is one list.
	slices.SortFunc(list, func(a, b route.Locator) int { return a.Address.Compare(b.Address) })
	return list, site, ""
}

// locator completes a next hop by what the configuration, the table and the kernel's neighbours say of it.
func (s *Source) locator(t *table, h hop, addr netip.Addr) (l route.Locator, site string) {
	l, site, ok := s.known(addr)
	if !ok {
		l, site = t.Locator, ""
	}
	l.Address = addr
	if h.onlink && l.RouterMAC.IsZero() {
		l.RouterMAC = s.routerMAC(neighbor{h.link, h.addr})
	}
	return l, site
}

// weigh gives locators the weights of their next hops, in proportion where the kernel's are larger than a locator's can be.
func weigh(list []route.Locator, weights []uint32) {
	largest := max(slices.Max(weights), 255)
	for i, w := range weights {
		if w != 0 {
			list[i].Weight = uint8(max(uint64(w)*255/uint64(largest), 1))
		}
	}
}
