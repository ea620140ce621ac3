package main

import (
	"cmp"
	"encoding/binary"
	"net/netip"

	"roam/maps"
	"roam/maps/bench"
)

// The addresses of the benchmark. Where hosts are and how they are scattered is as in bpf/bench.bpf.c.
var (
	ownMAC     = [6]byte{0x02, 0, 0, 0, 0, 0x01} // frames go to it
	portMAC    = [6]byte{0x02, 0, 0, 0, 0, 0x99}
	farMAC     = [6]byte{0x02, 0, 0, 0, 0, 0x02}
	own4, far4 = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	own6, far6 = netip.MustParseAddr("2001:db8:ff::1"), netip.MustParseAddr("2001:db8:ff::2")
)

const (
	ethernetLen = 14
	payload     = 64 // bytes of a frame without its checksum and without a tunnel
	vni         = 7001
	tenant      = 1
)

// Nets of the hosts that packets go to, and of those that they come from.
const (
	destinations4 = 10
	sources4      = 11
	destinations6 = 0xb8
	sources6      = 0xb9
)

func host4(net uint32, i int) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], net<<24|(uint32(i)*0x9E3779B1+0x5BD1E9)&0xffffff)
	return netip.AddrFrom4(b)
}

func host6(net byte, i int) netip.Addr {
	b := [16]byte{0x20, 0x01, 0x0d, net}
	binary.LittleEndian.PutUint64(b[8:], uint64(i+1)*0x9E3779B97F4A7C15)
	return netip.AddrFrom16(b)
}

// adjacency is the rewrite that leads to a locator.
func adjacency(local, remote netip.Addr, over underlay, port, locator uint16) maps.Adjacency {
	e := encapsulations[over.encap]
	b := e.header(portMAC, farMAC, local, remote)
	ip := ethernetLen
	a := maps.Adjacency{
		Len: uint16(len(b)), Mtu: 1500, Port: port, Locator: locator, Flags: maps.AdjECN | e.flags,
		ProtoSize: e.kind.size, Proto4: e.kind.memory(e.kind.ipv4), Proto6: e.kind.memory(e.kind.ipv6),
	}
	if e.port != 0 {
		a.Udp = uint8(ip + ipLen(remote))
	}
	if e.kind.size != 0 {
		a.Proto = uint8(e.kindAt(remote))
	}
	copy(a.Header[:], b)
	if remote.Is4() {
		a.Csum = [2]uint32{e.sum(b, a, a.Proto4, ip, ip+20), e.sum(b, a, a.Proto6, ip, ip+20)}
		return a
	}
	a.Flags |= maps.AdjIPv6
	if over.checksum && e.port != 0 {
		a.Flags |= maps.AdjUDPCsum
		base := sum([]byte{0, 17})
		a.Csum = [2]uint32{base + e.sum(b, a, a.Proto4, ip+8, len(b)), base + e.sum(b, a, a.Proto6, ip+8, len(b))}
	}
	return a
}

// shape is what a frame looks like as it arrives.
type shape struct {
	v6    bool       // the packet that is looked up
	outer netip.Addr // own tunnel end that it comes to, invalid for no tunnel
	encap string     // of the tunnel
	bytes int        // without the tunnel and without the frame's checksum; 0: payload
}

// frame makes it; the wrapper fills in the inner addresses.
func (s shape) frame() ([]byte, bench.Frame) {
	inner := make([]byte, cmp.Or(s.bytes, payload))
	ip := 20
	if s.v6 {
		ip = 40
	}
	udp := inner[ethernetLen+ip:]
	binary.BigEndian.PutUint16(udp[4:], uint16(len(udp)))
	if !s.outer.IsValid() {
		return inner, bench.Frame{Bytes: uint32(len(inner)), V6: bit(s.v6)}
	}
	local, remote := own4, far4
	if s.outer.Is6() {
		local, remote = own6, far6
	}
	e := encapsulations[s.encap]
	b := e.header(farMAC, ownMAC, remote, local)
	e.name(b, local, s.v6)
	head := len(b)
	b = append(b, inner[ethernetLen:]...)
	finishOuter(b, s.outer, e.port != 0)
	f := bench.Frame{Bytes: uint32(len(b)), Link: uint32(head - ethernetLen), V6: bit(s.v6)}
	if e.bare {
		f.Bare = uint8(copy(f.Outer[:], b[ethernetLen:head]))
	}
	return b, f
}

func ipLen(a netip.Addr) int {
	if a.Is4() {
		return 20
	}
	return 40
}

// finishOuter writes lengths, hop limit and checksum of a tunnel packet.
func finishOuter(b []byte, outer netip.Addr, udp bool) {
	ip, head := b[ethernetLen:], ipLen(outer)
	if udp {
		binary.BigEndian.PutUint16(ip[head+4:], uint16(len(ip)-head))
	}
	if outer.Is6() {
		binary.BigEndian.PutUint16(ip[4:], uint16(len(ip)-40))
		ip[7] = 64
		return
	}
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
	ip[8] = 64
	binary.NativeEndian.PutUint16(ip[10:], ^fold(sum(ip[:20])))
}

func bit(on bool) uint8 {
	if on {
		return 1
	}
	return 0
}

// sum adds 16-bit words as they lie in memory (RFC 1071), unfolded.
func sum(b []byte) uint32 {
	var s uint32
	for i := 0; i < len(b); i += 2 {
		s += uint32(binary.NativeEndian.Uint16(b[i:]))
	}
	return s
}

func fold(s uint32) uint16 {
	s = s&0xffff + s>>16
	return uint16(s + s>>16)
}
