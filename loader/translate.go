package main

import (
	"net/netip"

	"roam/loader/config"
	"roam/loader/datapath"
	"roam/loader/host"
	"roam/loader/route"
	"roam/loader/source/fib"
)

// What the packages below want to know of the configuration, each in its own words.

func planeSpec(c *config.Config) datapath.Spec {
	spec := datapath.Spec{
		Underlay: c.Underlay.Interfaces, RouterMAC: c.Underlay.RouterMAC, Mode: datapath.Mode(c.Datapath.Mode),
	}
	for _, l := range c.Underlay.Locators {
		spec.Own = append(spec.Own, l.Address)
	}
	for _, s := range c.Sites {
		for _, l := range s.Locators {
			spec.Known = append(spec.Known, datapath.RemoteSpec{
				Locator: l.Locator, NoECN: !l.ECN, ZeroChecksum: !l.UDPChecksum, Tenant: l.TenantID,
			})
		}
	}
	for _, t := range c.Tenants {
		tenant := datapath.TenantSpec{ID: t.ID, VNI: t.VNI}
		for _, u := range t.Uplinks {
			tenant.Uplinks = append(tenant.Uplinks, datapath.PortRef{Name: u.Interface, VLAN: u.VLAN})
		}
		for _, s := range t.Segments {
			tenant.Segments = append(tenant.Segments, datapath.SegmentSpec{
				Name: s.Name, Access: accessRef(s), Subnets: s.Subnets, Gateway: s.Gateway.Addresses,
				Own: s.Gateway.OwnAddresses, Routers: s.Gateway.Routers, MAC: s.Gateway.MAC,
				Foreign: s.Gateway.ForeignMACs, Stick: s.Gateway.Role == config.RoleStick,
			})
		}
		spec.Tenants = append(spec.Tenants, tenant)
	}
	return spec
}

func accessRef(s config.Segment) datapath.PortRef {
	return datapath.PortRef{Name: s.Access.Interface, VLAN: s.Access.VLAN}
}

func hostSegments(c *config.Config, index func(name string) uint16) []host.Segment {
	var list []host.Segment
	for _, t := range c.Tenants {
		for _, s := range t.Segments {
			seg := host.Segment{
				Index: int(index(s.Name)), Tenant: t.ID, Link: s.Access.Interface, VLAN: s.Access.VLAN,
				Subnets: s.Subnets, Own: s.Gateway.OwnAddresses, Routers: s.Gateway.Routers,
				NotHost: append([]route.MAC{s.Gateway.MAC}, s.Gateway.ForeignMACs...),
			}
			seg.Gateway = s.Gateway.Addresses
			list = append(list, seg)
		}
	}
	return list
}

func fibTables(c *config.Config) []fib.Table {
	var list []fib.Table
	for _, t := range c.Sources.FIB {
		list = append(list, fib.Table{ID: uint32(t.Table), Tenant: t.Tenant, Locator: t.Locator})
	}
	return list
}

func filePath(c *config.Config) string {
	if c.Sources.File == nil {
		return ""
	}
	return c.Sources.File.Path
}

// knownLocator finds the configured locator with an address, and its site.
func knownLocator(c *config.Config, a netip.Addr) (route.Locator, string, bool) {
	for _, s := range c.Sites {
		for _, l := range s.Locators {
			if l.Address == a {
				return l.Locator, s.Name, true
			}
		}
	}
	return route.Locator{}, "", false
}

// segmentOf finds the segment whose subnets hold an address.
func segmentOf(c *config.Config, tenant route.TenantID, a netip.Addr) (config.Segment, bool) {
	t, ok := c.TenantNumbered(tenant)
	if !ok {
		return config.Segment{}, false
	}
	for _, s := range t.Segments {
		for _, subnet := range s.Subnets {
			if subnet.Contains(a) {
				return s, true
			}
		}
	}
	return config.Segment{}, false
}
