package config

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"roam/loader/route"
)

// EgressMode says where packets cross the border of their subnet.
type EgressMode string

// The egress modes of the contract.
const (
	EgressLocal EgressMode = "local"  // at the site where the host is
	EgressHome  EgressMode = "home"   // at the site the subnet belongs to
	EgressList  EgressMode = "routes" // as listed in Egress.Routes
)

// Egress is the policy for what hosts of a segment exchange with addresses outside their own subnet, in both directions.
type Egress struct {
	Mode   EgressMode
	Routes []EgressRoute // with EgressList
}

// EgressRoute has hosts exchange packets with one prefix by one site.
type EgressRoute struct {
	From   netip.Prefix // the hosts; not valid: all of the segment
	Prefix netip.Prefix // who they speak to; not valid: everybody
	Via    string       // a site, an address, or one of the words local and home
}

// Policy is what Egress comes to for some hosts of one subnet. Of the policies of a tenant the longest From counts, and in it the
// longest prefix of Ways.
type Policy struct {
	From netip.Prefix
	Ways []Way
}

// Way is by which site hosts exchange packets with a prefix.
type Way struct {
	Prefix netip.Prefix
	Via    string // a site, ours too, or an address; "" for the site where the host is
	Subnet bool   // it is the hosts' own subnet
}

// Default is by which site the hosts exchange packets with everybody who is not listed, "" for the one where they are.
func (p Policy) Default() string {
	for _, w := range p.Ways {
		if w.Prefix.Bits() == 0 {
			return w.Via
		}
	}
	return ""
}

// For is the longest prefix of the policy that holds an address, and its way.
func (p Policy) For(a netip.Addr) (best Way, ok bool) {
	for _, w := range p.Ways {
		if w.Prefix.Contains(a) && (!ok || w.Prefix.Bits() > best.Prefix.Bits()) {
			best, ok = w, true
		}
	}
	return best, ok
}

// Policies are what the segment's hosts do, in the order of their From; none where all packets leave where their host is.
func (s *Segment) Policies() []Policy {
	routes := s.Egress.Routes
	if s.Egress.Mode == EgressHome {
		routes = []EgressRoute{{Via: string(EgressHome)}}
	}
	if len(routes) == 0 {
		return nil
	}
	from := slices.Clone(s.Subnets)
	for _, r := range routes {
		if r.From.IsValid() {
			from = append(from, r.From)
		}
	}
	slices.SortFunc(from, netip.Prefix.Compare)
	var list []Policy
	for _, p := range slices.Compact(from) {
		if ways := s.ways(routes, p); len(ways) > 0 {
			list = append(list, Policy{From: p, Ways: ways})
		}
	}
	return list
}

// ways are those of the hosts in one prefix: of two entries for one destination the one that names fewer hosts. What hosts of one
// subnet say to each other crosses no border.
func (s *Segment) ways(routes []EgressRoute, hosts netip.Prefix) []Way {
	byPrefix := map[netip.Prefix]string{}
	routes = slices.Clone(routes)
	slices.SortStableFunc(routes, func(a, b EgressRoute) int { return cmp.Compare(a.From.Bits(), b.From.Bits()) })
	for _, r := range routes {
		if r.From.IsValid() && !holds(r.From, hosts) {
			continue
		}
		to := r.Prefix
		if !to.IsValid() {
			to = netip.PrefixFrom(hosts.Addr(), 0).Masked()
		}
		if to.Addr().Is4() == hosts.Addr().Is4() {
			byPrefix[to] = s.siteOf(r.Via)
		}
	}
	if len(byPrefix) == 0 {
		return nil
	}
	var list []Way
	for _, subnet := range s.Subnets {
		if holds(subnet, hosts) {
			list = append(list, Way{Prefix: subnet, Subnet: true})
		}
	}
	for p, via := range byPrefix {
		list = append(list, Way{Prefix: p, Via: via})
	}
	slices.SortFunc(list, func(a, b Way) int { return a.Prefix.Compare(b.Prefix) })
	return list
}

func (s *Segment) siteOf(via string) string {
	switch via {
	case string(EgressLocal):
		return ""
	case string(EgressHome):
		return s.Home
	}
	return via
}

func holds(outer, inner netip.Prefix) bool {
	return outer.Bits() <= inner.Bits() && outer.Contains(inner.Addr())
}

// home reads the name of a site, ours or one of sites.
func (r *reader) home(c *Config, v value) string {
	name, ok := v.text()
	if _, known := c.SiteNamed(name); ok && !known && name != c.Site {
		v.fail("%q is no site: name this one (%s) or one of sites, where its locators are", name, c.Site)
		return ""
	}
	return name
}

// egress reads one word, or a list of {prefix, via, from}.
func (r *reader) egress(c *Config, s *Segment, v value) Egress {
	if v.absent() || !v.isList() {
		e := Egress{Mode: one(v, EgressLocal, EgressLocal, EgressHome)}
		if e.Mode == EgressHome {
			r.needsHome(s, v)
		}
		return e
	}
	return Egress{Mode: EgressList, Routes: all(v, func(v value) (EgressRoute, bool) { return r.egressRoute(c, s, v) })}
}

func (r *reader) egressRoute(c *Config, s *Segment, v value) (e EgressRoute, ok bool) {
	f := v.mapping("prefix", "via", "from")
	e.Prefix, _ = f.get("prefix").prefix()
	e.From, _ = f.get("from").prefix()
	at := f.require("via", "name a site, give an address, or write local or home")
	e.Via, ok = at.text()
	_, site := c.SiteNamed(e.Via)
	switch {
	case !ok || site || e.Via == c.Site || e.Via == string(EgressLocal):
	case e.Via == string(EgressHome):
		r.needsHome(s, at)
	default:
		ok = r.viaAddress(s, at)
	}
	switch {
	case e.Prefix.IsValid() && slices.ContainsFunc(s.Subnets, func(p netip.Prefix) bool { return holds(p, e.Prefix) }):
		f.get("prefix").fail("%s lies in a subnet of the segment: what its hosts say to each other crosses no border", e.Prefix)
	case e.From.IsValid() && !slices.ContainsFunc(s.Subnets, func(p netip.Prefix) bool { return holds(p, e.From) }):
		f.get("from").fail("%s lies in none of the segment's subnets", e.From)
	case e.From.IsValid() && e.Prefix.IsValid() && e.From.Addr().Is4() != e.Prefix.Addr().Is4():
		f.get("from").fail("%s and %s are of different families", e.From, e.Prefix)
	}
	who, whom := orElse(e.From, "all hosts of "+s.Name), orElse(e.Prefix, "everybody")
	return e, ok && v.unique("entry", fmt.Sprintf("for %s with %s", who, whom))
}

func orElse(p netip.Prefix, words string) string {
	if p.IsValid() {
		return p.String()
	}
	return words
}

// viaAddress reads the address of a tunnel end, which must not be reached through the tunnel.
func (r *reader) viaAddress(s *Segment, v value) bool {
	if text, _ := v.text(); !strings.ContainsAny(text, ".:") {
		v.fail("%q is no site: name this one, one of sites, or an address; or write local or home", text)
		return false
	}
	a, ok := v.host()
	if ok && slices.ContainsFunc(s.Subnets, func(p netip.Prefix) bool { return p.Contains(a) }) {
		v.fail("%s lies inside the segment: give the address of a tunnel end", a)
	}
	return ok
}

func (r *reader) needsHome(s *Segment, v value) {
	if s.Home == "" {
		v.fail("needs to know where home is: add home beside egress, the site to which the subnets belong")
	}
}

// PolicyOf is the policy of an address of the tenant, and its segment.
func (t *Tenant) PolicyOf(a netip.Addr) (best Policy, of *Segment) {
	for i := range t.Segments {
		for _, p := range t.Segments[i].Policies() {
			if p.From.Contains(a) && (of == nil || p.From.Bits() > best.From.Bits()) {
				best, of = p, &t.Segments[i]
			}
		}
	}
	return best, of
}

// Locators are those of a site, or the one with an address, as a route names them: ours carry no more than the address.
func (c *Config) Locators(via string) []route.Locator {
	if via == c.Site {
		var own []route.Locator
		for _, l := range c.Underlay.Locators {
			own = append(own, route.Locator{Address: l.Address, Priority: route.DefaultPriority, Weight: route.DefaultWeight})
		}
		return own
	}
	if s, ok := c.SiteNamed(via); ok {
		return s.Ways()
	}
	a, err := netip.ParseAddr(via)
	if err != nil {
		return nil
	}
	for _, s := range c.Sites {
		for _, l := range s.Locators {
			if l.Address == a {
				return []route.Locator{l.Locator}
			}
		}
	}
	return []route.Locator{{Address: a, Priority: route.DefaultPriority, Weight: route.DefaultWeight}}
}
