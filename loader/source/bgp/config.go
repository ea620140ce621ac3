package bgp

import (
	"net/netip"
	"slices"
	"time"

	"roam/loader/route"
)

// Config is what the speaker is told. A Config that was handed over is not changed any more.
type Config struct {
	ASN       uint32
	RouterID  netip.Addr // IPv4
	Listen    []netip.Addr
	Port      uint16 // to listen on; 0: nobody can call us
	Site      string
	Sites     []Site        // the other ones that are configured
	Locators  []netip.Addr  // ours as others reach them, at least one: the first is the next hop of EVPN routes
	Inside    []netip.Addr  // the same on our interfaces, where NAT stands between
	RouterMAC route.MAC     // ours
	Tenants   []Tenant      // at least one
	Neighbors []Neighbor    // with different addresses
	Reopen    time.Duration // after the prefix limit ended a session; default five minutes
}

// Site is another site, and how its locators are reached.
type Site struct {
	Name     string
	Locators []route.Locator
}

// Tenant is a routing domain as EVPN knows it.
type Tenant struct {
	ID           route.TenantID
	VNI          uint32
	RouteTargets []string // 65000:7001 or 192.0.2.1:7001; empty: derived (see targets)
	Segments     []Segment
	Reserved     []netip.Addr // the gateway's own addresses: never announced, never accepted
	Ingress      []Ingress    // where packets for hosts are to come in; of two that hold a host the longer counts
}

// Ingress says of hosts whether packets from outside come in at another site, as their policy of egress has it: a router here
// must not hear of such a host.
type Ingress struct {
	Hosts     netip.Prefix
	Elsewhere bool
}

// elsewhere reports whether packets for a host come in at another site.
func (t *Tenant) elsewhere(host netip.Addr) bool {
	longest, elsewhere := -1, false
	for _, i := range t.Ingress {
		if i.Hosts.Contains(host) && i.Hosts.Bits() > longest {
			longest, elsewhere = i.Hosts.Bits(), i.Elsewhere
		}
	}
	return elsewhere
}

// Segment is a set of subnets that EVPN peers may bridge.
type Segment struct {
	L2VNI   uint32 // 0: nobody bridges it
	Subnets []netip.Prefix
}

// Neighbor is one session.
type Neighbor struct {
	Address         netip.Addr
	ASN             uint32
	Local           netip.Addr // not valid: the kernel chooses
	Port            uint16     // 0: 179
	Passive         bool
	Password        string
	Multihop        uint8 // TTL towards an external neighbour
	TTLSecurity     uint8 // hops, 0: not checked
	Hold, Keepalive time.Duration
	ConnectRetry    time.Duration
	GracefulRestart time.Duration // how long routes outlive the session
	Families        []Family
	Tenant          route.TenantID // of unicast routes
	NextHops        []netip.Addr   // of unicast routes, instead of Locators
	MaxPrefix       uint32         // of one family; 0: no limit
	Import, Export  Policy
}

// Family is an address family.
type Family uint8

// The families of a session.
const (
	EVPN Family = iota
	IPv4
	IPv6
)

func (f Family) String() string { return [...]string{"evpn", "ipv4", "ipv6"}[f] }

// Policy chooses routes: inside one of Prefixes (none: all), and on import with one of Communities (none: any), which
// on export are added.
type Policy struct {
	Prefixes    []netip.Prefix
	Communities []string // 65000:100 or 65000:1:2
}

func (p *Policy) covers(q netip.Prefix) bool {
	for _, have := range p.Prefixes {
		if have.Bits() <= q.Bits() && have.Contains(q.Addr()) {
			return true
		}
	}
	return len(p.Prefixes) == 0
}

// holds reports whether a prefix is, or lies inside, a subnet of a segment here.
func (t *Tenant) holds(p netip.Prefix) bool {
	for _, s := range t.Segments {
		for _, subnet := range s.Subnets {
			if subnet.Bits() <= p.Bits() && subnet.Contains(p.Addr()) {
				return true
			}
		}
	}
	return false
}

// bridges reports whether a VNI is that of a segment's bridge.
func (t *Tenant) bridges(vni uint32) bool {
	return slices.ContainsFunc(t.Segments, func(s Segment) bool { return vni != 0 && s.L2VNI == vni })
}

// l2vni is the VNI of the bridge that an address belongs to, 0 for none.
func (t *Tenant) l2vni(a netip.Addr) uint32 {
	for _, s := range t.Segments {
		for _, subnet := range s.Subnets {
			if subnet.Contains(a) {
				return s.L2VNI
			}
		}
	}
	return 0
}
