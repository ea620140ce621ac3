package config

import (
	"net/netip"

	"github.com/goccy/go-yaml/ast"

	"roam/loader/route"
)

func (r *reader) underlay(c *Config, v value) {
	if v.absent() {
		return
	}
	f := v.mapping("interfaces", "locators", "router_mac", "dscp", "ports", "bfd", "probe")
	interfaces := f.require("interfaces", "name the interfaces towards other gateways")
	c.Underlay.Interfaces = all(interfaces, func(v value) (string, bool) {
		link, ok := v.link()
		return link, ok && v.unique("underlay interface", link)
	})
	locators := f.require("locators", "give the addresses other gateways send to")
	c.Underlay.Locators = all(locators, r.ownLocator)
	atLeastOne(interfaces)
	atLeastOne(locators)
	mac, ok := f.get("router_mac").mac()
	if !ok && len(c.Underlay.Locators) > 0 {
		mac = route.RouterMAC(c.Underlay.Locators[0].Public) // as others derive it
	}
	c.Underlay.RouterMAC = mac
	c.Underlay.DSCP = f.get("dscp").dscp()
	c.Underlay.Ports = tunnelPorts(f.get("ports"))
	c.Underlay.BFD = r.bfd(f.get("bfd"))
	c.Underlay.Probe = r.probe(f.get("probe"))
}

// atLeastOne refuses a list that is there and empty.
func atLeastOne(v value) {
	if s, ok := v.node.(*ast.SequenceNode); ok && len(s.Values) == 0 {
		v.fail("is empty: give at least one")
	}
}

// ownLocator reads {address, public} or a plain address.
func (r *reader) ownLocator(v value) (OwnLocator, bool) {
	at, public := v, value{r: r}
	if v.isMapping() {
		f := v.mapping("address", "public")
		at, public = f.require("address", "give the locator's address"), f.get("public")
	}
	address, ok := at.host()
	l := OwnLocator{Address: address, Public: address}
	if p, ok := public.host(); ok {
		l.Public = p
		if p.Is4() != address.Is4() {
			public.fail("%s and %s are of different families: NAT keeps the family", p, address)
		}
		if p != address {
			public.unique("locator", p.String())
		}
	}
	return l, ok && at.unique("locator", address.String())
}

func (r *reader) sites(c *Config, v value) {
	c.Sites = all(v, func(v value) (Site, bool) {
		f := v.mapping("name", "locators")
		at := f.require("name", "name the site")
		name, ok := at.name()
		if ok && name == c.Site {
			at.fail("%s is our own site: list only the other ends", name)
		}
		locators := f.require("locators", "give the addresses of its gateways")
		site := Site{Name: name, Locators: all(locators, r.locator)}
		atLeastOne(locators)
		return site, ok && at.unique("site", name)
	})
}

// locator reads {address, encap, port, priority, weight, router_mac, ecn, udp_checksum, tenant} or a plain address.
func (r *reader) locator(v value) (RemoteLocator, bool) {
	at := v
	l := RemoteLocator{ECN: true, UDPChecksum: true}
	l.Priority, l.Weight = route.DefaultPriority, route.DefaultWeight
	var f fields
	if v.isMapping() {
		f = v.mapping("address", "encap", "port", "priority", "weight", "router_mac", "ecn", "udp_checksum", "tenant")
		at = f.require("address", "give the locator's address")
		l.Encap = f.get("encap").encap()
		l.Port = uint16(f.get("port").number(0, 1, 65535))
		if l.Port != 0 && !l.Encap.HasPort() {
			f.get("port").fail("%s runs over no UDP port", l.Encap)
		}
		l.ECN = f.get("ecn").boolean(true)
		l.UDPChecksum = f.get("udp_checksum").boolean(true)
		l.Tenant, _ = f.get("tenant").name()
		l.Priority = uint8(f.get("priority").number(route.DefaultPriority, 0, route.Unusable))
		l.Weight = uint8(f.get("weight").number(route.DefaultWeight, 1, 255))
		l.RouterMAC, _ = f.get("router_mac").mac()
	}
	address, ok := at.host()
	l.Address = address
	r.remotes[address] = v
	if ok && l.RouterMAC.IsZero() {
		l.RouterMAC = route.RouterMAC(address)
	}
	return l, ok && at.unique("locator", address.String())
}

// owners finds the tenants of locators by name, once tenants are known. An encapsulation that names none must be told.
func (r *reader) owners(c *Config) {
	for _, s := range c.Sites {
		for i := range s.Locators {
			l := &s.Locators[i]
			v := r.remotes[l.Address]
			if l.Tenant == "" && !l.Encap.NamesTenant() {
				if len(c.Tenants) > 1 {
					v.fail("%s names no tenant, and there are several: add tenant, or use vxlan, geneve, gre or lisp", l.Encap)
				} else if len(c.Tenants) == 1 {
					l.Tenant = c.Tenants[0].Name
				}
			}
			if _, ok := c.TenantNamed(l.Tenant); l.Tenant != "" && !ok {
				v.fail("no tenant is named %q: add it under tenants", l.Tenant)
			}
		}
	}
}

func (v value) encap() route.Encap {
	s, ok := v.text()
	if !ok {
		return route.VXLAN
	}
	e, err := route.ParseEncap(s)
	if err == nil {
		err = e.Valid()
	}
	if err != nil {
		v.fail("%v", err)
		return route.VXLAN
	}
	return e
}

// inside reports a locator that lies in a subnet whose hosts move: it would be reached through the tunnel it
// is the end of. Our own may, where one interface is both ends of the gateway.
func (c *Config) inside(p netip.Prefix, access string) (netip.Addr, bool) {
	for _, s := range c.Sites {
		for _, l := range s.Locators {
			if p.Contains(l.Address) {
				return l.Address, true
			}
		}
	}
	for _, link := range c.Underlay.Interfaces {
		if link == access {
			return netip.Addr{}, false
		}
	}
	for _, l := range c.Underlay.Locators {
		if p.Contains(l.Address) {
			return l.Address, true
		}
	}
	return netip.Addr{}, false
}
