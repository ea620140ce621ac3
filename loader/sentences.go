package main

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"

	"roam/loader/api"
	"roam/loader/config"
	"roam/loader/datapath"
	"roam/loader/mld"
)

// sentences say what each reason means to who asked why.
var sentences = map[string]string{
	"fwd_encap":             "it is sent through the tunnel to the site where its host lives",
	"fwd_home":              "its sender or its receiver has what it exchanges with others pass here, its home: it goes on from here as if that host were here",
	"fwd_reencap":           "its host moved away moments ago: what still arrives here is sent on to the new site",
	"fwd_deliver":           "its host lives on a segment here: it is delivered",
	"fwd_arp":               "the gateway answers this ARP request itself",
	"fwd_nd":                "the gateway answers this neighbour solicitation itself",
	"fwd_too_big":           "it is larger than its way out carries: its sender is told the right size",
	"fwd_expired":           "its TTL or hop limit is used up: its sender is told",
	"fwd_fragment":          "it is larger than its way out carries and may be fragmented: the kernel does that and gives the pieces back",
	"fwd_probe":             "another gateway probes the tunnel: its packet is turned round and sent back",
	"pass_no_port":          "the interface, or the VLAN, is not configured: the kernel handles the frame alone",
	"pass_not_ip":           "it is neither IP nor ARP: the kernel handles it",
	"pass_not_ours":         "its destination MAC belongs to another station: the gateway leaves it alone",
	"pass_multicast":        "multicast and broadcast are the kernel's: they are not routed between sites",
	"pass_link_local":       "link-local addresses are not routed",
	"pass_arp":              "this ARP is not the gateway's to answer: the kernel decides",
	"pass_nd":               "this neighbour or router discovery is not the gateway's to answer: the kernel decides",
	"pass_own":              "it is addressed to the gateway itself",
	"pass_underlay":         "underlay traffic that is no tunnel packet to one of our locators",
	"pass_resolve":          "its host lives here and its MAC is not known yet: the kernel resolves it",
	"pass_no_route":         "no host and no prefix covers it: the kernel routes it",
	"pass_probe":            "it is the answer to a probe of the tunnel: roamd reads it",
	"drop_short":            "the frame ends inside a header",
	"drop_ip_header":        "version, header length or total length of the IP header make no sense",
	"drop_ip_checksum":      "the IPv4 header checksum is wrong",
	"drop_martian":          "no packet may come from, or go to, such an address",
	"drop_ttl":              "its TTL or hop limit is used up, and nobody may be told",
	"drop_mtu":              "it is larger than its way out carries, and nobody may be told",
	"drop_blackhole":        "a route says to drop it",
	"drop_unresolved":       "the underlay's next hop towards the locator does not answer",
	"drop_nexthop":          "the table names a next hop that does not exist: please report this",
	"drop_headroom":         "the driver leaves no room in front of the packet for the outer header",
	"drop_checksum_length":  "it is too long for the outer UDP checksum to be computed",
	"drop_redirect":         "the port it should leave by takes no packets",
	"drop_outer_fragment":   "tunnel packets must not be fragmented (RFC 7348, section 4.3): raise the underlay's MTU",
	"drop_tunnel_header":    "flags or lengths of the tunnel header make no sense",
	"drop_tunnel_option":    "the tunnel header has an option or flag that must not be ignored and is not known here",
	"drop_tunnel_control":   "it is a control message of the tunnel protocol: there is nothing to forward",
	"drop_tunnel_checksum":  "the checksum of the tunnel header is wrong",
	"drop_unknown_vni":      "no tenant has this VNI",
	"drop_no_tenant":        "the encapsulation names no tenant, and no tenant was given to the locator it comes from",
	"drop_unknown_locator":  "it comes from a tunnel end that neither configuration nor any route names",
	"drop_inner_not_ip":     "the tunnel carries something that is no unicast IP packet",
	"drop_ecn":              "congestion was marked on the outer header of a packet that is not ECN-capable (RFC 6040)",
	"drop_source":           "it came through a tunnel from a site where its sender does not live",
	"drop_tunnel_loop":      "it came through a tunnel and its host does not live here: it must not enter another",
	"drop_tunnel_back":      "it came through a tunnel and would go back where it came from",
	"drop_tunnel_ttl":       "it went from gateway to gateway too often",
	"drop_tunnel_in_tunnel": "inside the tunnel it is addressed to our own tunnel end",
	"drop_probe":            "it is a probe of the tunnel that is damaged, or one more than is answered",
	"drop_isolated":         "only the kernel could take it further, whose routing table cannot tell this tenant from another with the same addresses",
	"drop_flood":            "a peer bridged it to a segment here, for everybody or for a MAC that nobody here has, and nothing is flooded",
}

func sentence(e datapath.Explained) string { return sentences[e.Reason] }

// ownAddressChecks says which of the addresses that a fabric should have given this machine no interface holds: errors come from them.
func (d *daemon) ownAddressChecks() []api.Check {
	held := heldAddresses()
	var list []api.Check
	for _, t := range d.config.Load().Tenants {
		for _, s := range t.Segments {
			for _, a := range s.Gateway.OwnAddresses {
				if isFabric(s) && !held[a] {
					list = append(list, api.Check{
						Name: "own address", Subject: a.String(), Level: api.LevelWarn,
						Found:  "no interface of this machine holds it, and in mode fabric roamd does not add it: errors from it are dropped",
						Advice: "assign it to this machine in the fabric, or remove it from gateway.own_addresses of segment " + s.Name,
					})
				}
			}
		}
	}
	return list
}

func heldAddresses() map[netip.Addr]bool {
	held := map[netip.Addr]bool{}
	addrs, _ := net.InterfaceAddrs()
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			held[p.Addr().Unmap()] = true
		}
	}
	return held
}

// ownLocatorChecks says which of our tunnel ends no interface holds: nobody could find them. Behind NAT it says what passes.
func (d *daemon) ownLocatorChecks() []api.Check {
	held := heldAddresses()
	var list []api.Check
	for _, l := range d.config.Load().Underlay.Locators {
		check := api.Check{Name: "own locator", Subject: l.Address.String(), Level: api.LevelOK, Found: "an interface holds it"}
		if !held[l.Address] {
			check.Level, check.Found = api.LevelFail, "no interface of this machine holds it: nobody can send to it"
			check.Advice = "ip address add " + l.Address.String() + " dev INTERFACE, or correct underlay.locators"
		}
		list = append(list, check)
		if l.Public != l.Address {
			list = append(list, d.natCheck(l)...)
		}
	}
	return list
}

// natCheck says which of the encapsulations towards other sites NAT in front of a locator will hardly let through: it knows flows by ports.
func (d *daemon) natCheck(l config.OwnLocator) []api.Check {
	c := d.config.Load()
	without := map[string][]string{} // by encapsulation, whom it leads to
	for _, s := range c.Sites {
		for _, other := range s.Locators {
			if !other.Encap.HasPort() && other.Address.Is4() == l.Address.Is4() {
				without[other.Encap.String()] = append(without[other.Encap.String()], other.Address.String())
			}
		}
	}
	for _, t := range c.Sources.FIB {
		if !t.Locator.Encap.HasPort() {
			without[t.Locator.Encap.String()] = append(without[t.Locator.Encap.String()], fmt.Sprintf("table %d", t.Table))
		}
	}
	if len(without) == 0 {
		return []api.Check{{
			Name: "NAT", Subject: l.Address.String(), Level: api.LevelOK,
			Found: fmt.Sprintf("others send to %s, and every encapsulation in the configuration runs over UDP", l.Public),
		}}
	}
	var list []api.Check
	for _, encap := range slices.Sorted(maps.Keys(without)) {
		list = append(list, api.Check{
			Name: "NAT", Subject: l.Address.String(), Level: api.LevelWarn,
			Found: fmt.Sprintf("others send to %s, but %s (to %s) runs over no UDP: most NAT drops it, or mixes up who sent it",
				l.Public, encap, strings.Join(without[encap], ", ")),
			Advice: "use vxlan, geneve, gue or lisp there, or a NAT that maps the whole address one to one",
		})
	}
	return list
}

// groupChecks says what switches are told of the groups that solicitations for remote hosts go to, and whether one asks.
func (d *daemon) groupChecks() []api.Check {
	var list []api.Check
	for _, l := range d.mld.Links() {
		check := api.Check{Name: "multicast groups", Subject: l.Interface, Level: api.LevelOK}
		check.Found = fmt.Sprintf("%d groups; no querier has asked yet: right where no switch snoops MLD, else one must", l.Groups)
		if l.Querier.IsValid() {
			check.Found = fmt.Sprintf("%d groups, asked for by %s in MLDv%d", l.Groups, l.Querier, l.Version)
		}
		if l.Full != "" {
			check.Level, check.Found, check.Advice = api.LevelWarn, l.Full, mld.FullAdvice
		}
		list = append(list, check)
	}
	return list
}
