package bpftest

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

// frame is an Ethernet frame in parts. A test changes one part of a base frame and assembles it; gopacket fills in lengths and
// checksums, so that only what the test spoils is wrong.
type frame struct {
	dst, src mac
	tags     []uint16 // 802.1Q tag control information, outermost first
	service  bool     // the outermost tag is 802.1ad's
	ip       packet
	trailer  []byte // behind the IP packet: padding
}

func (f frame) bytes() []byte {
	return f.around(f.ip.bytes(), f.ip.ethertype())
}

// around puts the frame's link headers and trailer around any payload.
func (f frame) around(payload []byte, ethertype uint16) []byte {
	b := append(append([]byte(nil), f.dst[:]...), f.src[:]...)
	for i, tci := range f.tags {
		if f.service && i == 0 {
			b = binary.BigEndian.AppendUint16(b, 0x88a8)
		} else {
			b = binary.BigEndian.AppendUint16(b, 0x8100)
		}
		b = binary.BigEndian.AppendUint16(b, tci)
	}
	b = binary.BigEndian.AppendUint16(b, ethertype)
	b = append(b, payload...)
	return append(b, f.trailer...)
}

// packet is an IP packet in parts.
type packet struct {
	src, dst   netip.Addr
	tos, ttl   uint8
	proto      uint8 // of the payload
	id         uint16
	flags      layers.IPv4Flag
	offset     uint16 // IPv4 fragment, units of 8 bytes
	options    []layers.IPv4Option
	label      uint32
	extensions []extension // IPv6
	payload    []byte      // transport header and all
}

type extension struct {
	proto uint8
	bytes []byte // the first byte is overwritten by the next header's number
}

func (p packet) v6() bool { return p.dst.Is6() }

func (p packet) ethertype() uint16 {
	if p.v6() {
		return 0x86dd
	}
	return 0x0800
}

func (p packet) bytes() []byte {
	fix := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	if !p.v6() {
		return serialize(fix, &layers.IPv4{
			Version: 4, TOS: p.tos, TTL: p.ttl, Protocol: layers.IPProtocol(p.proto), Id: p.id, Flags: p.flags,
			FragOffset: p.offset, Options: p.options, SrcIP: p.src.AsSlice(), DstIP: p.dst.AsSlice(),
		}, gopacket.Payload(p.payload))
	}
	next := p.proto
	body := p.payload
	for i := len(p.extensions) - 1; i >= 0; i-- {
		e := append([]byte(nil), p.extensions[i].bytes...)
		e[0] = next
		next = p.extensions[i].proto
		body = append(e, body...)
	}
	// The fields may claim what the packet does not hold: no HopByHop layer, only its number.
	return serialize(fix, &layers.IPv6{
		Version: 6, TrafficClass: p.tos, FlowLabel: p.label, HopLimit: p.ttl, NextHeader: layers.IPProtocol(next),
		SrcIP: p.src.AsSlice(), DstIP: p.dst.AsSlice(),
	}, gopacket.Payload(body))
}

// udp makes a datagram with its checksum, or with none.
func udp(src, dst netip.Addr, from, to uint16, payload []byte, checksum bool) []byte {
	l := &layers.UDP{SrcPort: layers.UDPPort(from), DstPort: layers.UDPPort(to)}
	if err := l.SetNetworkLayerForChecksum(network(src, dst, layers.IPProtocolUDP)); err != nil {
		panic(err)
	}
	return serialize(gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: checksum}, l, gopacket.Payload(payload))
}

func tcp(src, dst netip.Addr, from, to uint16, payload []byte) []byte {
	l := &layers.TCP{SrcPort: layers.TCPPort(from), DstPort: layers.TCPPort(to), ACK: true, Seq: 1, Window: 1024}
	if err := l.SetNetworkLayerForChecksum(network(src, dst, layers.IPProtocolTCP)); err != nil {
		panic(err)
	}
	return serialize(gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, l, gopacket.Payload(payload))
}

func network(src, dst netip.Addr, proto layers.IPProtocol) gopacket.NetworkLayer {
	if dst.Is4() {
		return &layers.IPv4{SrcIP: src.AsSlice(), DstIP: dst.AsSlice(), Protocol: proto}
	}
	return &layers.IPv6{SrcIP: src.AsSlice(), DstIP: dst.AsSlice(), NextHeader: proto}
}

// counting is a payload whose bytes tell their place.
func counting(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i>>8)
	}
	return b
}

// describe draws a frame for a failure message.
func describe(b []byte) string {
	if len(b) == 0 {
		return "(nothing)"
	}
	var out string
	for _, l := range gopacket.NewPacket(b, layers.LayerTypeEthernet, gopacket.Default).Layers() {
		out += fmt.Sprintf("  %s\n", gopacket.LayerString(l))
	}
	return fmt.Sprintf("%d bytes\n  % x\n%s", len(b), b, out)
}

func addrFrom(b []byte) netip.Addr {
	a, ok := netip.AddrFromSlice(b)
	if !ok {
		panic("no address")
	}
	return a
}
