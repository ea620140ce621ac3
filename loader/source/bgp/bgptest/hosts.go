package bgptest

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// Origin is who announces host routes of EVPN, and what they have in common.
type Origin struct {
	ASN uint16
	VNI uint32 // of the tenant; the route target is ASN:VNI
}

// perUpdate is how many routes surely fit into an UPDATE of 4096 bytes.
const perUpdate = 80

// Hosts are UPDATEs, ready to be sent, that announce IPv4 hosts behind a next hop, with a mobility sequence if it is not 0.
// Hosts with an even address come as RT-2 with a MAC that is theirs for good, those with an odd one as RT-5.
func (o Origin) Hosts(hop netip.Addr, sequence uint32, hosts ...netip.Addr) ([]byte, error) {
	var out []byte
	for from := 0; from < len(hosts); from += perUpdate {
		var kinds [2][]netip.Addr
		for _, h := range hosts[from:min(from+perUpdate, len(hosts))] {
			odd := h.As4()[3] & 1
			kinds[odd] = append(kinds[odd], h)
		}
		for odd, list := range kinds {
			if len(list) == 0 {
				continue
			}
			m, err := o.update(hop, sequence, list, odd == 1)
			if err != nil {
				return nil, err
			}
			raw, err := m.Serialize()
			if err != nil {
				return nil, err
			}
			out = append(out, raw...)
		}
	}
	return out, nil
}

func (o Origin) update(hop netip.Addr, sequence uint32, hosts []netip.Addr, prefixes bool) (*bgp.BGPMessage, error) {
	target := [8]byte{0, 2}
	binary.BigEndian.PutUint16(target[2:], o.ASN)
	binary.BigEndian.PutUint32(target[4:], o.VNI)
	router := [8]byte{6, 3, 2, 0} // a router MAC of each next hop's own: tunnel ends are told apart by it
	copy(router[4:], hop.AsSlice())
	communities := [][8]byte{target, {3, 0x0c, 6: 0, 7: 8}, router} // encapsulation: VXLAN
	if sequence != 0 && !prefixes {
		mobility := [8]byte{6, 0}
		binary.BigEndian.PutUint32(mobility[4:], sequence)
		communities = append(communities, mobility)
	}
	var list []bgp.NLRI
	for _, h := range hosts {
		n, err := o.route(h, prefixes)
		if err != nil {
			return nil, err
		}
		list = append(list, n)
	}
	return Update(uint32(o.ASN), hop, bgp.RF_EVPN, communities, list...)
}

func (o Origin) route(host netip.Addr, prefix bool) (bgp.NLRI, error) {
	rd := bgp.NewRouteDistinguisherTwoOctetAS(o.ASN, o.VNI)
	if prefix {
		return bgp.NewEVPNIPPrefixRoute(rd, bgp.EthernetSegmentIdentifier{}, 0, 32, host, netip.IPv4Unspecified(), o.VNI)
	}
	a := host.As4()
	mac := fmt.Sprintf("02:01:%02x:%02x:%02x:%02x", a[0], a[1], a[2], a[3])
	return bgp.NewEVPNMacIPAdvertisementRoute(rd, bgp.EthernetSegmentIdentifier{}, 0, mac, host, []uint32{10, o.VNI})
}

// EVPN is the family of these routes.
var EVPN = []bgp.Family{bgp.RF_EVPN}

// EndOfRIB marks the end of what a speaker tells at first of EVPN (RFC 4724, section 2).
func EndOfRIB() ([]byte, error) { return bgp.NewEndOfRib(bgp.RF_EVPN).Serialize() }
