package main

import (
	"encoding/binary"
	"net/netip"

	"roam/maps"
)

// encapsulation is what a tunnel puts between the outer IP header and the packet inside. See docs/encapsulations.md for what they
// are; the bytes are made here once more, because a benchmark that shares its builder with the daemon shares its mistakes.
type encapsulation struct {
	proto byte   // in the outer IP header; 0: what the packet inside is
	port  uint16 // UDP, 0 for none
	shim  []byte
	kind  kindField
	bare  bool // no Ethernet header inside
	flags uint8
}

// kindField tells IPv4 from IPv6 inside.
type kindField struct {
	offset     int   // of the shim; of the outer IP header where proto is 0
	size       uint8 // 0: there is none
	ipv4, ipv6 uint16
}

const (
	protoUDP = 17
	protoGRE = 47
)

var encapsulations = map[string]encapsulation{
	"vxlan": {
		proto: protoUDP, port: 4789, kind: kindField{20, 2, 0x0800, 0x86dd},
		shim: append(vniWord(0x08), append(append(append([]byte{}, ownMAC[:]...), portMAC[:]...), 0, 0)...),
	},
	"vxlan-gpe": {proto: protoUDP, port: 4790, kind: kindField{3, 1, 1, 2}, shim: vniWord(0x0c), bare: true},
	"geneve":    {proto: protoUDP, port: 6081, kind: kindField{2, 2, 0x0800, 0x86dd}, shim: vniWord(0), bare: true},
	"gre":       {proto: protoGRE, kind: kindField{2, 2, 0x0800, 0x86dd}, shim: binary.BigEndian.AppendUint32([]byte{0x20, 0, 0, 0}, vni), bare: true},
	"ipip":      {kind: kindField{0, 1, 4, 41}, bare: true},
	"gue":       {proto: protoUDP, port: 6080, kind: kindField{1, 1, 4, 41}, shim: []byte{0, 0, 0, 0}, bare: true},
	"lisp":      {proto: protoUDP, port: 4341, shim: vniWord(0x08), flags: maps.AdjCopyTTL, bare: true},
}

// encapNames are in the order of tables; the first is what rows have that name none.
var encapNames = []string{"vxlan", "vxlan-gpe", "geneve", "gre", "ipip", "gue", "lisp"}

func init() { encapsulations[""] = encapsulations["vxlan"] }

func vniWord(flags byte) []byte {
	return binary.BigEndian.AppendUint32([]byte{flags, 0, 0, 0}, vni<<8)
}

// memory is a value whose bytes in memory are as on the wire; of a one-byte field the first counts.
func (k kindField) memory(v uint16) uint16 {
	if k.size == 1 {
		return binary.NativeEndian.Uint16([]byte{byte(v), 0})
	}
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v))
}

// kindAt is the offset of that field in a frame to a tunnel end.
func (e encapsulation) kindAt(remote netip.Addr) int {
	switch {
	case e.proto == 0 && remote.Is4():
		return ethernetLen + 9
	case e.proto == 0:
		return ethernetLen + 6
	case e.port != 0:
		return ethernetLen + ipLen(remote) + 8 + e.kind.offset
	}
	return ethernetLen + ipLen(remote) + e.kind.offset
}

// header is what lies in front of the inner IP header, with room for lengths, TTL, checksum and what is inside.
func (e encapsulation) header(src, dst [6]byte, local, remote netip.Addr) []byte {
	b := append(append([]byte{}, dst[:]...), src[:]...)
	if remote.Is4() {
		b = append(b, 0x08, 0, 0x45, 0, 0, 0, 0, 0, 0x40, 0, 0, e.proto, 0, 0)
	} else {
		b = append(b, 0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, e.proto, 0)
	}
	b = append(append(b, local.AsSlice()...), remote.AsSlice()...)
	if e.port != 0 {
		b = append(binary.BigEndian.AppendUint32(b, uint32(e.port)), 0, 0, 0, 0)
	}
	return append(b, e.shim...)
}

// name writes what is inside into a finished header.
func (e encapsulation) name(b []byte, remote netip.Addr, v6 bool) {
	v := e.kind.memory(e.kind.ipv4)
	if v6 {
		v = e.kind.memory(e.kind.ipv6)
	}
	if e.kind.size != 0 {
		copy(b[e.kindAt(remote):][:e.kind.size], binary.NativeEndian.AppendUint16(nil, v))
	}
}

// sum is over a part of the header with a value, as it lies in memory, in its kind field.
func (e encapsulation) sum(header []byte, a maps.Adjacency, value uint16, from, to int) uint32 {
	b := append([]byte{}, header...)
	copy(b[a.Proto:][:a.ProtoSize], binary.NativeEndian.AppendUint16(nil, value))
	return sum(b[from:to])
}
