package bgp

import (
	"fmt"
	"math"
	"net/netip"
	"slices"

	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"roam/loader/route"
)

// lodger is what is to be announced of a host or prefix that lives here.
type lodger struct {
	mac      route.MAC // zero: EVPN announces it as a prefix
	sequence uint32
	pinned   bool
}

// announcer makes BGP routes of lodgers. Equal attributes are one object: a hundred thousand hosts share a few.
type announcer struct {
	config   *Config
	reserved map[route.TenantID]map[netip.Addr]bool
	tenants  map[route.TenantID]*Tenant
	families [3]bool // that some neighbour takes
	shared   map[string][]bgp.PathAttributeInterface
}

// firstSegmentRD is the first route distinguisher number of a bridged segment; those below are of tenants.
const firstSegmentRD = uint16(route.MaxTenant) + 1

func newAnnouncer(c *Config, t *translator) *announcer {
	a := &announcer{
		config: c, reserved: t.reserved, tenants: t.tenants, shared: make(map[string][]bgp.PathAttributeInterface),
	}
	for i := range c.Neighbors {
		for _, f := range c.Neighbors[i].Families {
			a.families[f] = true
		}
	}
	return a
}

// announces reports whether anybody may hear of a key at all: nobody does of the gateway's own addresses.
func (a *announcer) announces(key route.Key) bool {
	return a.tenants[key.Tenant] != nil && !(key.Host() && a.reserved[key.Tenant][key.Prefix.Addr()])
}

// routes lists what is to be announced of a lodger, one route per family that carries it.
func (a *announcer) routes(key route.Key, l lodger) ([]*apiutil.Path, error) {
	if !a.announces(key) {
		return nil, nil
	}
	var list []*apiutil.Path
	if a.families[EVPN] {
		p, err := a.evpn(key, l)
		if err != nil {
			return nil, err
		}
		list = append(list, p)
	}
	if hop, ok := a.unicastHop(key); ok {
		p, err := a.unicast(key, l, hop)
		if err != nil {
			return nil, err
		}
		list = append(list, p)
	}
	return list, nil
}

func (a *announcer) evpn(key route.Key, l lodger) (*apiutil.Path, error) {
	t := a.tenants[key.Tenant]
	addr := key.Prefix.Addr()
	targets, err := t.targets(a.config.ASN)
	if err != nil {
		return nil, err
	}
	var nlri bgp.NLRI
	if key.Host() && !l.mac.IsZero() {
		labels, rd := []uint32{t.VNI}, uint16(key.Tenant)
		if bridge := t.l2vni(addr); bridge != 0 {
			labels, rd = []uint32{bridge, t.VNI}, a.segmentRD(bridge)
			targets = append(targets, derivedTarget(a.config.ASN, bridge))
		}
		nlri, err = bgp.NewEVPNMacIPAdvertisementRoute(a.rd(rd), bgp.EthernetSegmentIdentifier{}, 0, l.mac.String(), addr, labels)
	} else {
		gateway := netip.IPv4Unspecified()
		if addr.Is6() {
			gateway = netip.IPv6Unspecified()
		}
		nlri, err = bgp.NewEVPNIPPrefixRoute(a.rd(uint16(key.Tenant)), bgp.EthernetSegmentIdentifier{}, 0,
			uint8(key.Prefix.Bits()), addr, gateway, t.VNI)
	}
	if err != nil {
		return nil, fmt.Errorf("announce %s: %w", key.Prefix, err)
	}
	communities := append(targets, encapsulation(route.VXLAN), routerMAC(a.config.RouterMAC), siteOfOrigin(a.config.Site),
		mobility(l.sequence, l.pinned))
	return a.path(bgp.RF_EVPN, nlri, a.config.Locators[0], key, communities)
}

// unicastHop is the next hop of a host's unicast route, if anybody takes it.
func (a *announcer) unicastHop(key route.Key) (netip.Addr, bool) {
	family := IPv4
	if key.Prefix.Addr().Is6() {
		family = IPv6
	}
	if !key.Host() || !a.families[family] {
		return netip.Addr{}, false
	}
	for _, l := range a.config.Locators {
		if l.Is4() == (family == IPv4) {
			return l, true
		}
	}
	// Each neighbour that takes the family has a next hop of its own, which the export policy writes.
	for i := range a.config.Neighbors {
		for _, hop := range a.config.Neighbors[i].NextHops {
			if hop.Is4() == (family == IPv4) {
				return hop, true
			}
		}
	}
	return netip.Addr{}, false
}

func (a *announcer) unicast(key route.Key, l lodger, hop netip.Addr) (*apiutil.Path, error) {
	nlri, err := bgp.NewIPAddrPrefix(key.Prefix)
	if err != nil {
		return nil, fmt.Errorf("announce %s: %w", key.Prefix, err)
	}
	family := bgp.RF_IPv4_UC
	if key.Prefix.Addr().Is6() {
		family = bgp.RF_IPv6_UC
	}
	// The sequence is EVPN's, but a plain router hands it on, and to two Roams it means the same.
	p, err := a.path(family, nlri, hop, key, []community{
		encapsulation(route.VXLAN), color(a.tenants[key.Tenant].VNI), siteOfOrigin(a.config.Site),
		routerMAC(a.config.RouterMAC), mobility(l.sequence, l.pinned),
	})
	if err == nil {
		p.Attrs = append(p.Attrs, bgp.NewPathAttributeLocalPref(l.preference()))
	}
	return p, err
}

// preference is the sequence as plain BGP understands it, inside one AS: of two gateways that announce a host, a
// reflector hands on the one to which it moved last.
func (l lodger) preference() uint32 {
	const usual, most = 100, math.MaxUint32
	if l.pinned {
		return most
	}
	return usual + min(l.sequence, most-1-usual)
}

// floods announces that a bridged segment ends here (type 3): some peers bridge only towards who says so.
func (a *announcer) floods() ([]*apiutil.Path, error) {
	var list []*apiutil.Path
	if !a.families[EVPN] {
		return nil, nil
	}
	for i := range a.config.Tenants {
		for _, s := range a.config.Tenants[i].Segments {
			if s.L2VNI == 0 {
				continue
			}
			hop := a.config.Locators[0]
			nlri, err := bgp.NewEVPNMulticastEthernetTagRoute(a.rd(a.segmentRD(s.L2VNI)), 0, hop)
			if err != nil {
				return nil, fmt.Errorf("announce VNI %d: %w", s.L2VNI, err)
			}
			p, err := a.path(bgp.RF_EVPN, nlri, hop, route.Key{},
				[]community{derivedTarget(a.config.ASN, s.L2VNI), encapsulation(route.VXLAN), siteOfOrigin(a.config.Site)})
			if err != nil {
				return nil, err
			}
			replication := bgp.NewPathAttributePmsiTunnel(bgp.PMSI_TUNNEL_TYPE_INGRESS_REPL, false, s.L2VNI,
				&bgp.IngressReplTunnelID{Value: hop})
			p.Attrs = append(slices.Clone(p.Attrs), replication)
			list = append(list, p)
		}
	}
	return list, nil
}

// rd is router id and number (RFC 4364, section 4.2, type 1): nobody else makes the same.
func (a *announcer) rd(number uint16) bgp.RouteDistinguisherInterface {
	rd, _ := bgp.NewRouteDistinguisherIPAddressAS(a.config.RouterID, number) // fails for IPv6 only
	return rd
}

// segmentRD is the number of a bridged segment: its place among them.
func (a *announcer) segmentRD(l2vni uint32) uint16 {
	n := firstSegmentRD
	for i := range a.config.Tenants {
		for _, s := range a.config.Tenants[i].Segments {
			if s.L2VNI == l2vni {
				return n
			}
			if s.L2VNI != 0 {
				n++
			}
		}
	}
	return n
}

// targets are what the tenant's routes carry.
func (t *Tenant) targets(asn uint32) ([]community, error) {
	if len(t.RouteTargets) == 0 {
		return []community{derivedTarget(asn, t.VNI)}, nil
	}
	var list []community
	for _, s := range t.RouteTargets {
		rt, err := parseTarget(s)
		if err != nil {
			return nil, err
		}
		list = append(list, rt)
	}
	return list, nil
}

// path puts a route together. Its marks say which neighbours must not hear of it: see exportPolicy.
func (a *announcer) path(f bgp.Family, nlri bgp.NLRI, hop netip.Addr, key route.Key, list []community) (*apiutil.Path, error) {
	reach, err := bgp.NewPathAttributeMpReachNLRI(f, []bgp.PathNLRI{{NLRI: nlri}}, hop)
	if err != nil {
		return nil, fmt.Errorf("announce %s: %w", nlri, err)
	}
	marks := a.marks(f, key)
	id := fmt.Sprint(list, marks)
	attrs, ok := a.shared[id]
	if !ok {
		attrs = []bgp.PathAttributeInterface{bgp.NewPathAttributeOrigin(bgp.BGP_ORIGIN_ATTR_TYPE_IGP)}
		var extended []bgp.ExtendedCommunityInterface
		for _, c := range list {
			extended = append(extended, c)
		}
		attrs = append(attrs, bgp.NewPathAttributeExtendedCommunities(extended))
		if len(marks) > 0 {
			attrs = append(attrs, bgp.NewPathAttributeLargeCommunities(marks))
		}
		a.shared[id] = attrs
	}
	return &apiutil.Path{Family: f, Nlri: nlri, Attrs: append(slices.Clip(slices.Clone(attrs)), reach)}, nil
}

// marks name the neighbours whose export policy refuses a prefix, and routers that would send to a host by this site what is to come in
// at another: those that are told next hops of their own, for they send packets as they are.
func (a *announcer) marks(f bgp.Family, key route.Key) []*bgp.LargeCommunity {
	var marks []*bgp.LargeCommunity
	t := a.tenants[key.Tenant]
	elsewhere := t != nil && f != bgp.RF_EVPN && t.elsewhere(key.Prefix.Addr())
	for i := range a.config.Neighbors {
		n := &a.config.Neighbors[i]
		if key.Prefix.IsValid() && !n.Export.covers(key.Prefix) || elsewhere && len(n.NextHops) > 0 {
			marks = append(marks, &bgp.LargeCommunity{ASN: a.config.ASN, LocalData1: markNotTo, LocalData2: uint32(i)})
		}
	}
	return marks
}
