package datapath

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"roam/loader/route"
	"roam/maps"
)

// Lengths of headers, in bytes.
const (
	ethernetLen = 14
	ipv4Len     = 20
	ipv6Len     = 40
	udpLen      = 8
	vxlanLen    = 8
)

const (
	etherIPv4 = 0x0800
	etherIPv6 = 0x86dd
	protoUDP  = 17
	vxlanPort = 4789 // RFC 7348, section 5
)

// path is how the underlay carries packets to a locator, as the tracker found it.
type path struct {
	Source, Destination route.MAC  // of the underlay's Ethernet
	Local, Remote       netip.Addr // outer addresses, one family
	MTU                 int        // the largest outer IP packet
	Port                uint16     // egress slot
}

// tunnel is what the packets inside need.
type tunnel struct {
	VNI           uint32
	UDPPort       uint16 // 0: the encapsulation's own
	Inner, OwnMAC route.MAC
	UDPChecksum   bool // over IPv6; RFC 7348 wants 0 over IPv4
	Locator       uint16
	Encap         route.Encap
}

// template builds the finished rewrite for one locator: the outer headers in wire order and the places where the data
// path patches them. Lengths, source port, TTL, DSCP, ECN and checksum are zero; the sum covers the rest.
func template(p path, t tunnel) (maps.Adjacency, error) {
	if t.Encap != route.VXLAN {
		return maps.Adjacency{}, fmt.Errorf("encapsulation %s has no template", t.Encap)
	}
	b := outerEthernet(p)
	l3 := len(b)
	b = outerIP(b, p)
	udp := len(b)
	b = outerUDP(b, cmpOr(t.UDPPort, vxlanPort))
	b = binary.BigEndian.AppendUint32(b, 0x08<<24) // I: a VNI is there
	b = binary.BigEndian.AppendUint32(b, t.VNI<<8)
	b = append(b, t.Inner[:]...)
	b = append(b, t.OwnMAC[:]...)
	proto := len(b)
	b = append(b, 0, 0)

	a := maps.Adjacency{
		Len: uint16(len(b)), Port: p.Port, Locator: t.Locator,
		Udp: uint8(udp), Proto: uint8(proto), ProtoSize: 2,
		Proto4: wire16(etherIPv4), Proto6: wire16(etherIPv6),
	}
	copy(a.Header[:], b)
	if mtu := p.MTU - (len(b) - l3); mtu > 0 {
		a.Mtu = uint16(min(mtu, 0xffff))
	}
	if p.Remote.Is4() {
		a.Csum = sum(b[l3:udp])
		return a, nil
	}
	a.Flags |= maps.AdjIPv6
	if t.UDPChecksum {
		a.Flags |= maps.AdjUDPCsum
		a.Csum = sum(b[l3+8:]) + sum([]byte{0, protoUDP}) // addresses, UDP, shim; then the pseudo-header's protocol
	}
	return a, nil
}

func outerEthernet(p path) []byte {
	b := append([]byte(nil), p.Destination[:]...)
	b = append(b, p.Source[:]...)
	if p.Remote.Is4() {
		return binary.BigEndian.AppendUint16(b, etherIPv4)
	}
	return binary.BigEndian.AppendUint16(b, etherIPv6)
}

// outerIP appends an IPv4 header with DF set and id 0 (RFC 6864), or an IPv6 header.
func outerIP(b []byte, p path) []byte {
	if p.Remote.Is4() {
		b = append(b, 0x45, 0, 0, 0, 0, 0, 0x40, 0, 0, protoUDP, 0, 0)
	} else {
		b = append(b, 0x60, 0, 0, 0, 0, 0, protoUDP, 0)
	}
	b = append(b, p.Local.AsSlice()...)
	return append(b, p.Remote.AsSlice()...)
}

func outerUDP(b []byte, port uint16) []byte {
	b = append(b, 0, 0)
	b = binary.BigEndian.AppendUint16(b, port)
	return append(b, 0, 0, 0, 0)
}

// sum adds the 16-bit words of b as they lie in memory (RFC 1071), unfolded. The length is even.
func sum(b []byte) uint32 {
	var s uint32
	for i := 0; i < len(b); i += 2 {
		s += uint32(binary.NativeEndian.Uint16(b[i:]))
	}
	return s
}

// wire16 is a number whose bytes in memory are v in network byte order.
func wire16(v uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v))
}

func cmpOr(a, b uint16) uint16 {
	if a != 0 {
		return a
	}
	return b
}
