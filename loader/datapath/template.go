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
)

const (
	etherIPv4 = 0x0800
	etherIPv6 = 0x86dd
	protoIPv4 = 4 // in IP: RFC 2003, RFC 2473
	protoUDP  = 17
	protoIPv6 = 41 // RFC 4213, RFC 2473
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
	UDPChecksum   bool // over IPv6; over IPv4 it is 0 (RFC 7348, section 5)
	ECN           bool // the far end merges it
	Locator       uint16
	Encap         route.Encap
}

// template builds the finished rewrite for one locator: the outer headers in wire order and the places where the data
// path patches them. Lengths, source port, TTL, DSCP, ECN and checksum are zero; the sums cover the rest.
func template(p path, t tunnel) (maps.Adjacency, error) {
	e, ok := encapsulations[t.Encap]
	if !ok {
		return maps.Adjacency{}, fmt.Errorf("encapsulation %s has no template", t.Encap)
	}
	b := outerIP(outerEthernet(p), p, e.proto)
	a := maps.Adjacency{
		Port: p.Port, Locator: t.Locator, Flags: e.flags, ProtoSize: e.inner.size,
		Proto4: e.inner.memory(e.inner.ipv4), Proto6: e.inner.memory(e.inner.ipv6),
	}
	if e.udpPort != 0 {
		a.Udp = uint8(len(b))
		b = outerUDP(b, cmpOr(t.UDPPort, e.udpPort))
	}
	shim := len(b)
	if e.shim != nil {
		b = e.shim(b, t)
	}
	switch {
	case e.inner.size == 0:
	case e.proto == 0: // the outer IP header itself says what is inside
		a.Proto = uint8(protoOffset(p))
	default:
		a.Proto = uint8(shim + e.inner.offset)
	}
	a.Len = uint16(len(b))
	copy(a.Header[:], b)
	a.Mtu = uint16(max(0, min(p.MTU-(len(b)-ethernetLen), 0xffff)))
	if t.ECN {
		a.Flags |= maps.AdjECN
	}
	if p.Remote.Is6() {
		a.Flags |= maps.AdjIPv6
		if t.UDPChecksum && e.udpPort != 0 {
			a.Flags |= maps.AdjUDPCsum
		}
	}
	a.Csum = [2]uint32{innerSum(a, b, a.Proto4), innerSum(a, b, a.Proto6)}
	return a, nil
}

// innerSum is what the data path starts its outer checksum from for one family inside, whose protocol value is given as it lies
// in memory.
func innerSum(a maps.Adjacency, header []byte, proto uint16) uint32 {
	b := append([]byte(nil), header...)
	if a.Proto != 0 {
		copy(b[a.Proto:][:a.ProtoSize], binary.NativeEndian.AppendUint16(nil, proto))
	}
	if a.Flags&maps.AdjIPv6 == 0 {
		return sum(b[ethernetLen : ethernetLen+ipv4Len])
	}
	if a.Flags&maps.AdjUDPCsum == 0 {
		return 0
	}
	return sum(b[ethernetLen+8:]) + sum([]byte{0, protoUDP}) // addresses, UDP, shim; then the pseudo-header's protocol
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
func outerIP(b []byte, p path, proto byte) []byte {
	if p.Remote.Is4() {
		b = append(b, 0x45, 0, 0, 0, 0, 0, 0x40, 0, 0, proto, 0, 0)
	} else {
		b = append(b, 0x60, 0, 0, 0, 0, 0, proto, 0)
	}
	b = append(b, p.Local.AsSlice()...)
	return append(b, p.Remote.AsSlice()...)
}

// protoOffset is where the outer IP header names what it carries.
func protoOffset(p path) int {
	if p.Remote.Is4() {
		return ethernetLen + 9
	}
	return ethernetLen + 6
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
