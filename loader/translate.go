package main

import (
	"net/netip"
	"slices"

	"roam/loader/config"
	"roam/loader/datapath"
	"roam/loader/host"
	"roam/loader/lan"
	"roam/loader/mld"
	"roam/loader/radv"
	"roam/loader/route"
	"roam/loader/source/bgp"
	"roam/loader/source/fabric"
	"roam/loader/source/fib"
	"roam/maps"
)

// What the packages below want to know of the configuration, each in its own words.

func planeSpec(c *config.Config) datapath.Spec {
	spec := datapath.Spec{
		Underlay: c.Underlay.Interfaces, RouterMAC: c.Underlay.RouterMAC, Mode: datapath.Mode(c.Datapath.Mode),
		Ports: maps.TunnelPorts(c.Underlay.Ports), DSCP: tune(c).OuterDSCP,
	}
	for _, l := range c.Underlay.Locators {
		spec.Own, spec.Public = append(spec.Own, l.Address), append(spec.Public, l.Public)
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
				KeepTTL: s.Gateway.KeepTTL, L2VNI: s.L2VNI, Fabric: isFabric(s), NextHop: s.Access.NextHopMAC,
				Elected: s.Gateway.Election != nil,
			})
		}
		tenant.Egress = egressOf(c, &t)
		spec.Tenants = append(spec.Tenants, tenant)
	}
	return spec
}

// egressOf are a tenant's policies, with locators for sites.
func egressOf(c *config.Config, t *config.Tenant) (list []datapath.EgressSpec) {
	for i := range t.Segments {
		for _, p := range t.Segments[i].Policies() {
			spec := datapath.EgressSpec{From: p.From}
			for _, w := range p.Ways {
				spec.Ways = append(spec.Ways, datapath.WaySpec{Prefix: w.Prefix, Via: c.Locators(w.Via), Subnet: w.Subnet})
			}
			list = append(list, spec)
		}
	}
	return list
}

// tune are the load-time constants. Frames over a page are decided when the daemon starts.
func tune(c *config.Config) maps.Tune {
	t := maps.Tune{
		SourceCheck: map[config.SourceCheck]uint8{
			config.SourceOff: maps.SourceOff, config.SourceLoose: maps.SourceLoose, config.SourceStrict: maps.SourceStrict,
		}[c.Datapath.SourceCheck],
		OuterDSCP: maps.DSCPCopy, ClampMSS: c.Datapath.ClampMSS, ICMPRate: c.Datapath.ICMP.Rate, ICMPBurst: c.Datapath.ICMP.Burst,
		Sightings: maps.DefaultTune.Sightings, Probes: maps.DefaultTune.Probes,
		Ports: maps.TunnelPorts(c.Underlay.Ports), Shadow: c.Datapath.Shadow,
	}
	if c.Underlay.DSCP != config.CopyDSCP {
		t.OuterDSCP = uint8(c.Underlay.DSCP)
	}
	for _, tenant := range c.Tenants {
		for _, s := range tenant.Segments {
			t.KeepTTL = t.KeepTTL || s.Gateway.KeepTTL
			t.Bridging = t.Bridging || s.L2VNI != 0
			t.Egress = t.Egress || len(s.Policies()) > 0
		}
	}
	return t
}

// device is the interface that a segment's untagged frames go through.
func device(ref datapath.PortRef) string {
	return datapath.PortSpec{Name: ref.Name, VLAN: ref.VLAN, Inner: ref.Inner}.Device()
}

// shown are the MACs that switches are to know behind access ports: the gateway's own, and those of gateways that stood there.
func shown(c *config.Config) []lan.Link {
	if c.Datapath.Shadow {
		return nil
	}
	var list []lan.Link
	for _, t := range c.Tenants {
		for _, s := range t.Segments {
			if isFabric(s) {
				continue
			}
			list = append(list, lan.Link{
				Interface: device(accessRef(s)),
				MACs:      append([]route.MAC{s.Gateway.MAC}, s.Gateway.ForeignMACs...),
			})
		}
	}
	return list
}

// listened are the segments on which neighbour solicitations are answered: for the hosts of their IPv6 subnets that live elsewhere, and for
// gateway addresses. The kernel answers for its own, but leaves no group either that a host needs as well.
func listened(c *config.Config) []mld.Link {
	if c.Datapath.Shadow {
		return nil
	}
	var list []mld.Link
	for _, t := range c.Tenants {
		for _, s := range t.Segments {
			if isFabric(s) {
				continue
			}
			l := mld.Link{Interface: device(accessRef(s)), Tenant: t.ID}
			own := s.Gateway.OwnAddresses
			if s.Gateway.Role == config.RoleDefault { // else the shared addresses are another router's
				own = slices.Concat(own, s.Gateway.Addresses)
			}
			l.Own = slices.DeleteFunc(slices.Clone(own), netip.Addr.Is4)
			for _, p := range s.Subnets {
				if p.Addr().Is6() {
					l.Subnets = append(l.Subnets, p)
				}
			}
			if len(l.Own)+len(l.Subnets) > 0 {
				list = append(list, l)
			}
		}
	}
	return list
}

// advertised are the segments whose hosts learn from us who their IPv6 router is.
func advertised(c *config.Config) []radv.Link {
	var list []radv.Link
	for _, t := range c.Tenants {
		for _, s := range t.Segments {
			if !s.Gateway.Advertise {
				continue
			}
			ref := accessRef(s)
			l := radv.Link{Interface: datapath.PortSpec{Name: ref.Name, VLAN: ref.VLAN, Inner: ref.Inner}.Device(), MAC: s.Gateway.MAC, Lifetime: s.Gateway.Lifetime}
			for _, a := range s.Gateway.Addresses {
				if a.IsLinkLocalUnicast() {
					l.Router = a
				}
			}
			for _, p := range s.Subnets {
				if p.Addr().Is6() {
					l.Prefixes = append(l.Prefixes, p)
				}
			}
			list = append(list, l)
		}
	}
	return list
}

// ports lists the interfaces that are to be ports.
func ports(c *config.Config) []string {
	list := slices.Clone(c.Underlay.Interfaces)
	for _, t := range c.Tenants {
		for _, u := range t.Uplinks {
			list = append(list, u.Interface)
		}
		for _, s := range t.Segments {
			list = append(list, s.Access.Interface)
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

func accessRef(s config.Segment) datapath.PortRef {
	return datapath.PortRef{Name: s.Access.Interface, VLAN: s.Access.VLAN, Inner: s.Access.Inner}
}

func hostSegments(c *config.Config, index func(name string) uint16) []host.Segment {
	var list []host.Segment
	for _, t := range c.Tenants {
		for _, s := range t.Segments {
			if isFabric(s) {
				continue
			}
			seg := host.Segment{
				Index: int(index(s.Name)), Tenant: t.ID, Link: s.Access.Interface, VLAN: s.Access.VLAN, Inner: s.Access.Inner,
				Subnets: s.Subnets, Own: s.Gateway.OwnAddresses, Routers: s.Gateway.Routers,
				NotHost: append([]route.MAC{s.Gateway.MAC}, s.Gateway.ForeignMACs...),
				Freeze:  host.Freeze(s.Mobility.Freeze), Probe: host.Probe(s.Mobility.Probe), Allow: s.Mobility.Allow,
			}
			seg.Gateway = s.Gateway.Addresses
			list = append(list, seg)
		}
	}
	return list
}

// isFabric tells whether a router takes everything behind the segment's port: then there is nobody to listen to, or to tell.
func isFabric(s config.Segment) bool { return s.Access.Mode == config.ModeFabric }

func fabricSegments(c *config.Config) []fabric.Segment {
	var list []fabric.Segment
	for _, t := range c.Tenants {
		for _, s := range t.Segments {
			if isFabric(s) {
				list = append(list, fabric.Segment{
					Tenant: t.ID, Link: s.Access.Interface, VLAN: s.Access.VLAN, Inner: s.Access.Inner, Subnets: s.Subnets,
					NextHop: s.Access.NextHopMAC,
				})
			}
		}
	}
	return list
}

func fibTables(c *config.Config) []fib.Table {
	var list []fib.Table
	for _, t := range c.Sources.FIB {
		tenant, _ := c.TenantNumbered(t.Tenant)
		list = append(list, fib.Table{ID: uint32(t.Table), Tenant: t.Tenant, VNI: tenant.VNI, Locator: t.Locator})
	}
	return list
}

// bgpConfig is nil where no speaker is configured.
func bgpConfig(c *config.Config) *bgp.Config {
	b := c.Sources.BGP
	if b == nil {
		return nil
	}
	out := &bgp.Config{ASN: b.ASN, RouterID: b.RouterID, Port: b.Port, Site: c.Site, RouterMAC: c.Underlay.RouterMAC}
	for _, s := range c.Sites {
		out.Sites = append(out.Sites, bgp.Site{Name: s.Name, Locators: s.Ways()})
	}
	for _, l := range c.Underlay.Locators {
		out.Locators, out.Inside = append(out.Locators, l.Public), append(out.Inside, l.Address)
	}
	for i := range c.Tenants {
		out.Tenants = append(out.Tenants, bgpTenant(&c.Tenants[i], c.Site))
	}
	for i := range b.Neighbors {
		out.Neighbors = append(out.Neighbors, bgpNeighbor(&b.Neighbors[i]))
	}
	return out
}

func bgpTenant(t *config.Tenant, site string) bgp.Tenant {
	out := bgp.Tenant{ID: t.ID, VNI: t.VNI, RouteTargets: t.RouteTargets}
	for i := range t.Segments {
		for _, p := range t.Segments[i].Policies() {
			out.Ingress = append(out.Ingress, bgp.Ingress{Hosts: p.From, Elsewhere: p.Default() != "" && p.Default() != site})
		}
	}
	for _, s := range t.Segments {
		out.Segments = append(out.Segments, bgp.Segment{L2VNI: s.L2VNI, Subnets: s.Subnets})
		out.Reserved = append(out.Reserved, s.Gateway.OwnAddresses...)
		if s.Gateway.Role == config.RoleDefault { // else the shared addresses are another router's
			out.Reserved = append(out.Reserved, s.Gateway.Addresses...)
		}
	}
	return out
}

func bgpNeighbor(n *config.BGPNeighbor) bgp.Neighbor {
	out := bgp.Neighbor{
		Address: n.Address, ASN: n.ASN, Local: n.Local, Port: n.Port, Passive: n.Passive, Password: n.Password,
		Multihop: n.Multihop, TTLSecurity: n.TTLSecurity, Hold: n.Timers.Hold, Keepalive: n.Timers.Keepalive,
		ConnectRetry: n.Timers.ConnectRetry, GracefulRestart: n.GracefulRestart, Tenant: n.Tenant, NextHops: n.NextHops,
		MaxPrefix: n.MaxPrefix, Import: bgp.Policy(n.Import), Export: bgp.Policy(n.Export),
	}
	for _, f := range n.Families {
		family := map[config.BGPFamily]bgp.Family{
			config.FamilyEVPN: bgp.EVPN, config.FamilyIPv4: bgp.IPv4, config.FamilyIPv6: bgp.IPv6,
		}[f]
		out.Families = append(out.Families, family)
	}
	return out
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
