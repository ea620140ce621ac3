package bgp

import (
	"net/netip"
	"slices"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"roam/loader/route"
)

// translator turns what a neighbour says into paths of the table, or says why not. It has no state but a memory of
// the attributes it decoded last: the routes of one UPDATE share them.
type translator struct {
	own      map[netip.Addr]bool
	reserved map[route.TenantID]map[netip.Addr]bool
	targets  map[community]*Tenant // configured
	derived  []*Tenant             // those that take derived targets
	tenants  map[route.TenantID]*Tenant
	vnis     map[uint32]*Tenant
	sites    map[community]string
	known    map[netip.Addr]origin // configured: locator and site

	last    *bgp.PathAttributeExtendedCommunities
	lastHop netip.Addr
	memory  attributes
}

// Reasons not to take a route: they are shown to the operator.
const (
	notOurs      = "no route target of a tenant here"
	notVNI       = "a label that is not the tenant's VNI: both ends of a tenant use one"
	bridgedOnly  = "the label of a bridge only: its gateway must route for the host, too (symmetric IRB)"
	notMAC       = "a MAC address of another length, or a group's"
	notHost      = "an address that no host can have"
	notPrefix    = "a prefix that cannot be routed"
	notHostRoute = "a unicast route to more than one address"
	ownAddress   = "one of this gateway's own addresses"
	gatewayRoute = "a default gateway's address"
	badNextHop   = "a next hop that no tunnel can end at"
	ownNextHop   = "a next hop that is our own locator"
	badEncap     = "only encapsulations that are not carried here"
	byGateway    = "a prefix behind a gateway address: an overlay index is not followed"
	ownSegment   = "a prefix of a segment here: whoever of it lives elsewhere is told one by one"
	byPolicy     = "refused by the neighbour's import policy"
	notFollowed  = "an EVPN route type other than 2 and 5" // not worth a word: every bridge sends them
)

func newTranslator(c *Config) (*translator, error) {
	t := &translator{
		own: make(map[netip.Addr]bool), reserved: make(map[route.TenantID]map[netip.Addr]bool),
		targets: make(map[community]*Tenant), tenants: make(map[route.TenantID]*Tenant),
		vnis: make(map[uint32]*Tenant), sites: make(map[community]string), known: make(map[netip.Addr]origin),
	}
	for _, a := range slices.Concat(c.Locators, c.Inside) {
		t.own[a] = true
	}
	t.sites[siteOfOrigin(c.Site)] = c.Site
	for _, s := range c.Sites {
		t.sites[siteOfOrigin(s.Name)] = s.Name
		for _, l := range s.Locators {
			t.known[l.Address] = origin{locator: l, site: s.Name}
		}
	}
	for i := range c.Tenants {
		tenant := &c.Tenants[i]
		t.tenants[tenant.ID], t.vnis[tenant.VNI] = tenant, tenant
		reserved := make(map[netip.Addr]bool)
		for _, a := range tenant.Reserved {
			reserved[a] = true
		}
		t.reserved[tenant.ID] = reserved
		for _, s := range tenant.RouteTargets {
			rt, err := parseTarget(s)
			if err != nil {
				return nil, err
			}
			t.targets[rt] = tenant
		}
		if len(tenant.RouteTargets) == 0 {
			t.derived = append(t.derived, tenant)
		}
	}
	return t, nil
}

// identify says which path of a peer an NLRI names, or why none.
func identify(peer uint16, path uint32, nlri bgp.NLRI) (pathID, string) {
	id := pathID{peer: peer, path: path}
	switch n := nlri.(type) {
	case *bgp.IPAddrPrefix:
		id.kind = kindUnicast
		return id.about(n.Prefix, notHostRoute)
	case *bgp.EVPNNLRI:
		switch r := n.RouteTypeData.(type) {
		case *bgp.EVPNMacIPAdvertisementRoute:
			return identifyMACIP(id, r)
		case *bgp.EVPNIPPrefixRoute:
			id.kind, id.rd, id.tag = kindPrefix, rdOf(r.RD), r.ETag
			return id.about(netip.PrefixFrom(r.IPPrefix, int(r.IPPrefixLength)), notPrefix)
		}
	}
	return id, notFollowed
}

func identifyMACIP(id pathID, r *bgp.EVPNMacIPAdvertisementRoute) (pathID, string) {
	if r.MacAddressLength != 48 || len(r.MacAddress) != len(id.mac) || r.MacAddress[0]&1 != 0 {
		return id, notMAC
	}
	id.rd, id.tag, id.mac = rdOf(r.RD), r.ETag, route.MAC(r.MacAddress)
	if id.mac.IsZero() {
		return id, notMAC
	}
	if r.IPAddressLength == 0 {
		return id, ""
	}
	id.kind = kindMACIP
	return id.about(netip.PrefixFrom(r.IPAddress, r.IPAddress.BitLen()), notHost)
}

// about completes an id with its prefix.
func (id pathID) about(p netip.Prefix, why string) (pathID, string) {
	if route.ValidPrefix(p) != nil || id.kind == kindUnicast && !p.IsSingleIP() {
		return id, why
	}
	id.addr, id.bits = flatten(p)
	return id, ""
}

func rdOf(rd bgp.RouteDistinguisherInterface) (b [8]byte) {
	if raw, err := rd.Serialize(); err == nil {
		copy(b[:], raw)
	}
	return b
}

// path translates a route that is announced. Its id comes from identify.
func (t *translator) path(n *Neighbor, id pathID, nlri bgp.NLRI, attrs []bgp.PathAttributeInterface) (path, origin, string) {
	a := t.attributes(attrs)
	p := path{pathID: id, sequence: a.sequence, sticky: a.sticky}
	tenant, why := t.tenant(n, id, nlri, a)
	if why != "" {
		return p, origin{}, why
	}
	p.tenant = tenant.ID
	if key, ok := p.key(); ok {
		prefix := key.route().Prefix
		switch {
		case prefix.IsSingleIP() && a.gateway:
			return p, origin{}, gatewayRoute
		case prefix.IsSingleIP() && (t.reserved[tenant.ID][prefix.Addr()] || t.own[prefix.Addr()]):
			return p, origin{}, ownAddress
		case !prefix.IsSingleIP() && tenant.holds(prefix):
			return p, origin{}, ownSegment
		case !n.Import.covers(prefix):
			return p, origin{}, byPolicy
		}
	}
	if len(n.Import.Communities) > 0 && !slices.ContainsFunc(a.communities, func(have string) bool {
		return slices.Contains(n.Import.Communities, have)
	}) {
		return p, origin{}, byPolicy
	}
	from, why := t.origin(nlri, a)
	return p, from, why
}

// attributes decodes them, unless they are those of the route before.
func (t *translator) attributes(list []bgp.PathAttributeInterface) attributes {
	var shared *bgp.PathAttributeExtendedCommunities
	var hop netip.Addr
	plain := false
	for _, attr := range list {
		switch v := attr.(type) {
		case *bgp.PathAttributeExtendedCommunities:
			shared = v
		case *bgp.PathAttributeMpReachNLRI:
			hop = v.Nexthop
		case *bgp.PathAttributeCommunities, *bgp.PathAttributeLargeCommunities, *bgp.PathAttributeNextHop:
			plain = true
		}
	}
	if shared != nil && !plain && shared == t.last && hop == t.lastHop {
		return t.memory
	}
	t.memory = decodeAttributes(list)
	t.last, t.lastHop = shared, hop
	if plain {
		t.last = nil
	}
	return t.memory
}

// tenant finds whose route it is, and checks that packets to it can be labelled as it wants.
func (t *translator) tenant(n *Neighbor, id pathID, nlri bgp.NLRI, a attributes) (*Tenant, string) {
	if id.kind == kindUnicast {
		if tenant, ok := t.vnis[a.color]; ok && a.color != 0 {
			return tenant, ""
		}
		if tenant, ok := t.tenants[n.Tenant]; ok {
			return tenant, ""
		}
		return nil, notOurs
	}
	tenant := t.byTarget(a.targets)
	if tenant == nil {
		return nil, notOurs
	}
	evpn, _ := nlri.(*bgp.EVPNNLRI)
	switch r := evpn.RouteTypeData.(type) {
	case *bgp.EVPNMacIPAdvertisementRoute:
		// The last label is the tenant's where there are two; a route about a MAC alone has that of its bridge only.
		switch {
		case id.kind != kindMACIP || len(r.Labels) > 0 && r.Labels[len(r.Labels)-1] == tenant.VNI:
		case len(r.Labels) == 1 && tenant.bridges(r.Labels[0]):
			return nil, bridgedOnly
		default:
			return nil, notVNI
		}
	case *bgp.EVPNIPPrefixRoute:
		switch {
		case r.Label != tenant.VNI:
			return nil, notVNI
		case r.GWIPAddress.IsValid() && !r.GWIPAddress.IsUnspecified():
			return nil, byGateway
		}
	}
	return tenant, ""
}

// byTarget finds the tenant that takes one of the targets: a configured one, or one derived from its VNI, or from the
// VNI of one of its bridges.
func (t *translator) byTarget(targets []community) *Tenant {
	for _, rt := range targets {
		if tenant, ok := t.targets[rt]; ok {
			return tenant
		}
	}
	for _, rt := range targets {
		for _, tenant := range t.derived {
			if rt.derived(tenant.VNI) {
				return tenant
			}
		}
	}
	for _, rt := range targets {
		for _, tenant := range t.tenants {
			for _, s := range tenant.Segments {
				if s.L2VNI != 0 && rt.derived(s.L2VNI) {
					return tenant
				}
			}
		}
	}
	return nil
}

// origin is where a route leads.
func (t *translator) origin(nlri bgp.NLRI, a attributes) (origin, string) {
	switch {
	case route.ValidHost(a.nextHop) != nil:
		return origin{}, badNextHop
	case t.own[a.nextHop]:
		return origin{}, ownNextHop
	}
	// How a locator is reached the configuration knows better: it may lead through a firewall, and LISP and GUE have no
	// number in BGP.
	from, ok := t.known[a.nextHop]
	switch {
	case !ok && a.encapNamed && !a.encapUsable:
		return origin{}, badEncap
	case !ok:
		from = origin{site: t.sites[a.origin], locator: route.Locator{
			Address: a.nextHop, Encap: a.encap, Priority: route.DefaultPriority, Weight: route.DefaultWeight,
		}}
	}
	if !a.routerMAC.IsZero() && a.routerMAC.Valid() == nil {
		from.locator.RouterMAC = a.routerMAC // where it and the encapsulation disagree, this one counts (RFC 9135, section 4.2)
	}
	from.soo = a.origin
	if evpn, ok := nlri.(*bgp.EVPNNLRI); ok {
		from.segment = segmentOf(evpn)
	}
	return from, ""
}

func segmentOf(n *bgp.EVPNNLRI) (b [10]byte) {
	var esi *bgp.EthernetSegmentIdentifier
	switch r := n.RouteTypeData.(type) {
	case *bgp.EVPNMacIPAdvertisementRoute:
		esi = &r.ESI
	case *bgp.EVPNIPPrefixRoute:
		esi = &r.ESI
	default:
		return b
	}
	if raw, err := esi.Serialize(); err == nil {
		copy(b[:], raw)
	}
	return b
}
