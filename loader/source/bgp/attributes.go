package bgp

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"net/netip"
	"strconv"
	"strings"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"roam/loader/route"
)

// community is an extended community as it travels (RFC 4360): type, subtype, six bytes of value.
//
// Towards the library it is one of an unknown type. Were it to recognise route targets and sequences, it would
// refuse a sequence that does not fit what else is announced of the MAC, which is for the RIB to decide.
type community [8]byte

// Serialize, and all else, implements bgp.ExtendedCommunityInterface.
func (c community) Serialize() ([]byte, error) { return c[:], nil }
func (c community) String() string             { return fmt.Sprintf("%x", c[:]) }

// GetTypes keeps the type to itself.
func (c community) GetTypes() (bgp.ExtendedCommunityAttrType, bgp.ExtendedCommunityAttrSubType) {
	return 0xff, 0xff
}

// MarshalJSON and Flat are what the library shows of it.
func (c community) MarshalJSON() ([]byte, error) { return json.Marshal(c.String()) }
func (c community) Flat() map[string]string      { return map[string]string{} }

// Types and subtypes of the extended communities that mean something here.
const (
	typeTwoOctetAS  = 0x00
	typeIPv4        = 0x01
	typeFourOctetAS = 0x02
	typeOpaque      = 0x03
	typeEVPN        = 0x06

	subRouteTarget = 0x02 // RFC 4360, section 4
	subRouteOrigin = 0x03 // RFC 4360, section 5
	subColor       = 0x0b // RFC 9012, section 4.3
	subEncap       = 0x0c // RFC 9012, section 4.1
	subGateway     = 0x0d // RFC 7432, section 7.8
	subMobility    = 0x00 // RFC 7432, section 7.7
	subRouterMAC   = 0x03 // RFC 9135, section 8.1

	sticky = 0x01 // flag of the mobility community
)

// tunnelTypes are the numbers of encapsulations in BGP (IANA, "BGP Tunnel Encapsulation Attribute Tunnel Types").
// LISP and GUE have none.
var tunnelTypes = map[uint16]route.Encap{
	2: route.GRE, 7: route.IPIP, 8: route.VXLAN, 12: route.VXLANGPE, 19: route.Geneve,
}

// attributes is what a route's path attributes say as far as it matters here.
type attributes struct {
	nextHop     netip.Addr
	targets     []community
	origin      community // site of origin; zero for none
	sequence    uint32
	sticky      bool
	routerMAC   route.MAC
	encap       route.Encap // the first that we carry, if any is named
	encapNamed  bool
	encapUsable bool
	color       uint32
	gateway     bool // the address is a default gateway's
	communities []string
}

// decodeAttributes never fails: what it does not know is nothing to us, and what is malformed the session refused.
func decodeAttributes(list []bgp.PathAttributeInterface) attributes {
	var a attributes
	for _, attr := range list {
		switch v := attr.(type) {
		case *bgp.PathAttributeNextHop:
			a.nextHop = v.Value
		case *bgp.PathAttributeMpReachNLRI:
			a.nextHop = v.Nexthop
		case *bgp.PathAttributeExtendedCommunities:
			for _, c := range v.Value {
				if raw, err := c.Serialize(); err == nil && len(raw) == len(community{}) {
					a.add(community(raw))
				}
			}
		case *bgp.PathAttributeCommunities:
			for _, c := range v.Value {
				a.communities = append(a.communities, fmt.Sprintf("%d:%d", c>>16, c&0xffff))
			}
		case *bgp.PathAttributeLargeCommunities:
			for _, c := range v.Values {
				a.communities = append(a.communities, fmt.Sprintf("%d:%d:%d", c.ASN, c.LocalData1, c.LocalData2))
			}
		}
	}
	a.nextHop = a.nextHop.Unmap().WithZone("")
	return a
}

func (a *attributes) add(c community) {
	switch kind, sub := c[0], c[1]; {
	case kind <= typeFourOctetAS && sub == subRouteTarget:
		a.targets = append(a.targets, c)
	case kind <= typeFourOctetAS && sub == subRouteOrigin:
		a.origin = c
	case kind == typeOpaque && sub == subEncap:
		a.encapNamed = true
		encap, known := tunnelTypes[binary.BigEndian.Uint16(c[6:])]
		if known && encap.Valid() == nil && !a.encapUsable {
			a.encap, a.encapUsable = encap, true
		}
	case kind == typeOpaque && sub == subColor:
		a.color = binary.BigEndian.Uint32(c[4:])
	case kind == typeOpaque && sub == subGateway:
		a.gateway = true
	case kind == typeEVPN && sub == subMobility:
		a.sequence, a.sticky = binary.BigEndian.Uint32(c[4:]), c[2]&sticky != 0
	case kind == typeEVPN && sub == subRouterMAC && a.routerMAC.IsZero(): // one per route; of several the first
		a.routerMAC = route.MAC(c[2:])
	}
}

func mobility(sequence uint32, pinned bool) community {
	c := community{0: typeEVPN, 1: subMobility}
	if pinned {
		c[2] = sticky
	}
	binary.BigEndian.PutUint32(c[4:], sequence)
	return c
}

func routerMAC(m route.MAC) community {
	c := community{0: typeEVPN, 1: subRouterMAC}
	copy(c[2:], m[:])
	return c
}

func encapsulation(e route.Encap) community {
	c := community{0: typeOpaque, 1: subEncap}
	for number, have := range tunnelTypes {
		if have == e {
			binary.BigEndian.PutUint16(c[6:], number)
		}
	}
	return c
}

func color(n uint32) community {
	c := community{0: typeOpaque, 1: subColor}
	binary.BigEndian.PutUint32(c[4:], n)
	return c
}

// asTrans stands for any AS (RFC 6793): it marks sites of origin that are made of a name, for gateways of one site may
// be in different ASes.
const asTrans = 23456

// siteOfOrigin is a site's name as a community: gateways that send the same one are at one site.
func siteOfOrigin(site string) community {
	h := fnv.New32a()
	h.Write([]byte(site)) // never fails
	return twoOctet(subRouteOrigin, asTrans, h.Sum32())
}

func twoOctet(sub byte, as uint16, number uint32) community {
	c := community{0: typeTwoOctetAS, 1: sub}
	binary.BigEndian.PutUint16(c[2:], as)
	binary.BigEndian.PutUint32(c[4:], number)
	return c
}

// derivedTarget is what the AS and a VNI make where no route target is configured (RFC 8365, section 5.1.2.1, in the
// short form that FRR uses as well): of a four-octet AS the lower half.
func derivedTarget(asn, vni uint32) community { return twoOctet(subRouteTarget, uint16(asn), vni) }

// derived reports whether a route target may be derived from a VNI by somebody of whatever AS.
func (c community) derived(vni uint32) bool {
	return c[0] == typeTwoOctetAS && binary.BigEndian.Uint32(c[4:])&0xffffff == vni
}

// parseTarget reads a route target; the configuration has checked its form.
func parseTarget(s string) (community, error) {
	admin, number, _ := strings.Cut(s, ":")
	n, err := strconv.ParseUint(number, 10, 32)
	if err != nil {
		return community{}, fmt.Errorf("route target %q: %w", s, err)
	}
	c := community{1: subRouteTarget}
	if a, err := netip.ParseAddr(admin); err == nil && a.Is4() {
		c[0] = typeIPv4
		copy(c[2:], a.AsSlice())
		binary.BigEndian.PutUint16(c[6:], uint16(n))
		return c, nil
	}
	as, err := strconv.ParseUint(admin, 10, 32)
	if err != nil {
		return community{}, fmt.Errorf("route target %q: %w", s, err)
	}
	if as < 1<<16 {
		return twoOctet(subRouteTarget, uint16(as), uint32(n)), nil
	}
	c[0] = typeFourOctetAS
	binary.BigEndian.PutUint32(c[2:], uint32(as))
	binary.BigEndian.PutUint16(c[6:], uint16(n))
	return c, nil
}
