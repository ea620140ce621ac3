package api

import (
	"cmp"
	"fmt"
	"net/netip"

	"roam/loader/route"
)

// ParsePrefix reads a prefix as an operator gives it: a bare address is a host.
func ParsePrefix(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		a, err := netip.ParseAddr(s)
		if err != nil || a.Zone() != "" {
			return p, fmt.Errorf("%.80q is no prefix such as 10.1.0.7/32, 10.2.0.0/16 or 2001:db8:1::7/128", s)
		}
		p = netip.PrefixFrom(a, a.BitLen())
	}
	return p, route.ValidPrefix(p)
}

// resolver turns what people say into changes. It shares locator lists and is not safe for concurrent use.
type resolver struct {
	names Names
	in    route.Interner
}

// change is the route as a change of the RIB.
func (r *resolver) change(n *NewRoute) (route.Change, error) {
	p, err := ParsePrefix(n.Prefix)
	if err != nil {
		return route.Change{}, err
	}
	c, err := r.target(n)
	if err != nil {
		return c, err
	}
	c.Prefix = p
	c.MAC, err = parseMAC(n.MAC)
	return c, err
}

// target is everything of a route but its prefix and its host's MAC.
func (r *resolver) target(n *NewRoute) (c route.Change, err error) {
	c.Site, c.Pinned = n.Site, n.Pinned
	if c.Tenant, err = r.tenant(n.Tenant); err != nil {
		return c, err
	}
	switch {
	case n.Local && len(n.Via) > 0:
		return c, fmt.Errorf("both via and local are given: a route points to one of them")
	case n.Local:
		c.Local = &route.Local{}
	case len(n.Via) > 0:
		c.Via, err = r.via(n.Via)
	case n.Site != "":
		err = r.site(n.Site, &c)
	default:
		err = fmt.Errorf("neither via nor site is given: say where the route points to")
	}
	return c, err
}

func (r *resolver) tenant(name string) (route.TenantID, error) {
	id, ok := r.names.TenantID(name)
	if !ok {
		return 0, &Error{
			Message: fmt.Sprintf("no tenant is named %.64q", name),
			Hint:    "roamctl status lists the tenants; add it to the configuration and reload",
			Status:  404,
		}
	}
	return id, nil
}

func (r *resolver) via(list []Locator) (*route.Via, error) {
	locators := make([]route.Locator, len(list))
	for i, l := range list {
		var err error
		if locators[i], err = l.Route(); err != nil {
			return nil, fmt.Errorf("locator %s: %w", l.Address, err)
		}
		for _, other := range locators[:i] {
			if other.Address == l.Address {
				return nil, fmt.Errorf("locator %s is given twice", l.Address)
			}
		}
	}
	if len(locators) > MaxLocators {
		return nil, fmt.Errorf("%d locators are given: a route takes %d", len(locators), MaxLocators)
	}
	return r.in.Via(locators), nil
}

// MaxLocators is how many locators a route spreads over: the members of a next-hop set of the data path.
const MaxLocators = 64

// site points the change to a site: to its locators, or here when it is our own.
func (r *resolver) site(name string, c *route.Change) error {
	locators, own, ok := r.names.SiteLocators(name)
	switch {
	case !ok:
		return &Error{
			Message: fmt.Sprintf("no site is named %.64q", name),
			Hint:    "roamctl site list shows the configured sites",
			Status:  404,
		}
	case own:
		c.Local = &route.Local{}
	default:
		c.Via = r.in.Via(locators)
	}
	return nil
}

func parseMAC(s string) (route.MAC, error) {
	m, err := route.ParseMAC(s)
	return m, cmp.Or(err, m.Valid())
}

func locatorsOf(v *route.Via) []Locator {
	if v == nil {
		return nil
	}
	list := make([]Locator, len(v.Locators))
	for i, l := range v.Locators {
		list[i] = LocatorOf(l)
	}
	return list
}
