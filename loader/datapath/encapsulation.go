package datapath

import (
	"encoding/binary"
	"net/netip"

	"roam/loader/route"
	"roam/maps"
)

// encapsulation is what one kind of tunnel puts between the outer IP header and the packet inside. Adding one is an entry
// here, one in bpf/decap.h, and a name in package route; see docs/encapsulations.md.
type encapsulation struct {
	proto   byte   // in the outer IP header; 0: what the packet inside is
	udpPort uint16 // 0: no UDP header
	shim    func(b []byte, t tunnel) []byte
	inner   protoField
	flags   uint8 // maps.Adj...
}

// protoField tells what is inside: a number at an offset of the shim, patched for each packet.
type protoField struct {
	offset     int
	size       uint8 // 1 or 2 bytes; 0: nothing tells but the packet itself
	ipv4, ipv6 uint16
}

// memory is a value of the field whose bytes in memory are as on the wire; of a one-byte field the first counts.
func (f protoField) memory(v uint16) uint16 {
	if f.size == 1 {
		return binary.NativeEndian.Uint16([]byte{byte(v), 0})
	}
	return wire16(v)
}

func etherType(offset int) protoField {
	return protoField{offset: offset, size: 2, ipv4: etherIPv4, ipv6: etherIPv6}
}

func ipProto(offset int) protoField {
	return protoField{offset: offset, size: 1, ipv4: protoIPv4, ipv6: protoIPv6}
}

const (
	shimLen  = 8
	bridged  = 0x6558 // Transparent Ethernet bridging, RFC 1701
	protoGRE = 47
)

var encapsulations = map[route.Encap]encapsulation{
	// RFC 7348, section 5: flag I, VNI, an Ethernet frame.
	route.VXLAN: {proto: protoUDP, udpPort: 4789, shim: func(b []byte, t tunnel) []byte {
		return innerEthernet(vniWord(append(b, 0x08, 0, 0, 0), t), t)
	}, inner: etherType(shimLen + 12)},

	// draft-ietf-nvo3-vxlan-gpe: flags I and P, next protocol 1 or 2.
	route.VXLANGPE: {proto: protoUDP, udpPort: 4790, shim: func(b []byte, t tunnel) []byte {
		return vniWord(append(b, 0x0c, 0, 0, 0), t)
	}, inner: protoField{offset: 3, size: 1, ipv4: 1, ipv6: 2}},

	// RFC 8926, section 3.4, without options.
	route.Geneve: {proto: protoUDP, udpPort: 6081, shim: func(b []byte, t tunnel) []byte {
		return vniWord(append(b, 0, 0, 0, 0), t)
	}, inner: etherType(2)},
	route.GeneveL2: {proto: protoUDP, udpPort: 6081, shim: func(b []byte, t tunnel) []byte {
		b = binary.BigEndian.AppendUint16(append(b, 0, 0), bridged)
		return innerEthernet(vniWord(b, t), t)
	}, inner: etherType(shimLen + 12)},

	// RFC 2784; RFC 2890 for the key, which is the VNI.
	route.GRE: {proto: protoGRE, shim: func(b []byte, t tunnel) []byte {
		return binary.BigEndian.AppendUint32(append(b, 0x20, 0, 0, 0), t.VNI)
	}, inner: etherType(2)},
	route.GRENoKey: {proto: protoGRE, shim: func(b []byte, _ tunnel) []byte {
		return append(b, 0, 0, 0, 0)
	}, inner: etherType(2)},

	// RFC 2003, RFC 4213, RFC 2473.
	route.IPIP: {inner: ipProto(0)},

	// draft-ietf-intarea-gue, variant 0, no flags.
	route.GUE: {proto: protoUDP, udpPort: 6080, shim: func(b []byte, _ tunnel) []byte {
		return append(b, 0, 0, 0, 0)
	}, inner: ipProto(1)},

	// RFC 9300, section 5: flag I, instance id, and the inner TTL outside.
	route.LISP: {proto: protoUDP, udpPort: 4341, shim: func(b []byte, t tunnel) []byte {
		return vniWord(append(b, 0x08, 0, 0, 0), t)
	}, flags: maps.AdjCopyTTL},
}

func vniWord(b []byte, t tunnel) []byte { return binary.BigEndian.AppendUint32(b, t.VNI<<8) }

func innerEthernet(b []byte, t tunnel) []byte {
	b = append(append(b, t.Inner[:]...), t.OwnMAC[:]...)
	return append(b, 0, 0)
}

// overhead is what an encapsulation adds to an IP packet, without the underlay's Ethernet.
func overhead(e route.Encap, locator netip.Addr) int {
	a, err := template(path{Local: locator, Remote: locator}, tunnel{Encap: e})
	if err != nil {
		return 0
	}
	return int(a.Len) - ethernetLen
}
