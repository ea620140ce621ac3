package main

import (
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
	udpLen      = 8
	vxlanLen    = 8
	vxlanPort   = 4789
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

// tunnelHeader is what lies in front of the inner Ethernet header, from local to remote, with room for lengths, TTL and checksum.
func tunnelHeader(local, remote netip.Addr) []byte {
	b := append(append([]byte{}, farMAC[:]...), portMAC[:]...)
	if remote.Is4() {
		b = append(b, 0x08, 0, 0x45, 0, 0, 0, 0, 0, 0x40, 0, 0, 17, 0, 0)
	} else {
		b = append(b, 0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, 17, 0)
	}
	b = append(append(b, local.AsSlice()...), remote.AsSlice()...)
	b = binary.BigEndian.AppendUint32(b, vxlanPort)
	b = append(b, 0, 0, 0, 0)
	b = binary.BigEndian.AppendUint32(b, 0x08<<24)
	return binary.BigEndian.AppendUint32(b, vni<<8)
}

// adjacency is the rewrite that leads to a locator.
func adjacency(local, remote netip.Addr, checksum bool, port, locator uint16) maps.Adjacency {
	b := tunnelHeader(local, remote)
	ip, inner := ethernetLen, len(b)
	b = append(append(append(b, farMAC[:]...), portMAC[:]...), 0, 0)
	a := maps.Adjacency{
		Len: uint16(len(b)), Mtu: 1500, Port: port, Locator: locator,
		Flags: maps.AdjECN, Udp: uint8(inner - udpLen - vxlanLen), Proto: uint8(len(b) - 2), ProtoSize: 2,
		Proto4: 0x0008, Proto6: 0xdd86, // in wire order
	}
	copy(a.Header[:], b)
	if remote.Is4() {
		a.Csum[0] = sum(b[ip : ip+20])
		a.Csum[1] = a.Csum[0]
		return a
	}
	a.Flags |= maps.AdjIPv6
	if checksum {
		a.Flags |= maps.AdjUDPCsum
		base := sum(b[ip+8:]) + sum([]byte{0, 17})
		a.Csum = [2]uint32{base + uint32(a.Proto4), base + uint32(a.Proto6)}
	}
	return a
}

// frame is a packet as it arrives, in a tunnel where outer is valid; the wrapper fills in the inner addresses.
func frame(v6 bool, outer netip.Addr) ([]byte, bench.Frame) {
	inner := make([]byte, payload)
	ip := 20
	if v6 {
		ip = 40
	}
	udp := inner[ethernetLen+ip:]
	binary.BigEndian.PutUint16(udp[4:], uint16(len(udp)))
	if !outer.IsValid() {
		return inner, bench.Frame{Bytes: payload, V6: bit(v6)}
	}
	local, remote := own4, far4
	if outer.Is6() {
		local, remote = own6, far6
	}
	b := append(tunnelHeader(remote, local), inner...)
	copy(b, ownMAC[:])
	finishOuter(b, outer)
	return b, bench.Frame{Bytes: uint32(len(b)), Link: uint32(len(b) - payload), V6: bit(v6)}
}

// finishOuter writes lengths, hop limit and checksum of a tunnel packet.
func finishOuter(b []byte, outer netip.Addr) {
	ip := b[ethernetLen:]
	if outer.Is4() {
		binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
		ip[8] = 64
		binary.NativeEndian.PutUint16(ip[10:], ^fold(sum(ip[:20])))
		binary.BigEndian.PutUint16(ip[20+4:], uint16(len(ip)-20))
		return
	}
	binary.BigEndian.PutUint16(ip[4:], uint16(len(ip)-40))
	ip[7] = 64
	binary.BigEndian.PutUint16(ip[40+4:], uint16(len(ip)-40))
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
