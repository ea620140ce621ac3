package main

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"roam/loader/api"
	"roam/loader/route"
)

// question is the packet that an explanation is about.
type question struct {
	src, dst       netip.Addr
	srcMAC, dstMAC route.MAC
	proto          layers.IPProtocol
	port           uint16
	ttl            uint8
	vlan           uint16
	payload        int
}

// protocolOf reads icmp, tcp, udp, or a number.
func protocolOf(s string, v6 bool) (layers.IPProtocol, error) {
	switch strings.ToLower(s) {
	case "", "icmp", "icmp6", "icmpv6":
		if v6 {
			return layers.IPProtocolICMPv6, nil
		}
		return layers.IPProtocolICMPv4, nil
	case "tcp":
		return layers.IPProtocolTCP, nil
	case "udp":
		return layers.IPProtocolUDP, nil
	}
	n, err := strconv.ParseUint(s, 10, 8)
	if err != nil {
		return 0, &api.Error{Message: fmt.Sprintf("unknown protocol %q", s), Hint: "use icmp, tcp, udp, or a number", Status: 400}
	}
	return layers.IPProtocol(n), nil
}

// frame builds the question's Ethernet frame, checksums included.
func (q question) frame() ([]byte, error) {
	eth := &layers.Ethernet{SrcMAC: q.srcMAC[:], DstMAC: q.dstMAC[:], EthernetType: layers.EthernetTypeIPv4}
	network, ip := q.network()
	if q.dst.Is6() {
		eth.EthernetType = layers.EthernetTypeIPv6
	}
	stack := []gopacket.SerializableLayer{eth}
	if q.vlan != 0 {
		stack = append(stack, &layers.Dot1Q{VLANIdentifier: q.vlan, Type: eth.EthernetType})
		eth.EthernetType = layers.EthernetTypeDot1Q
	}
	stack = append(stack, ip)
	stack = append(stack, q.transport(network)...)
	stack = append(stack, gopacket.Payload(make([]byte, q.payload)))
	buf := gopacket.NewSerializeBuffer()
	err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, stack...)
	if err != nil {
		return nil, fmt.Errorf("build the packet: %w", err)
	}
	return buf.Bytes(), nil
}

func (q question) network() (gopacket.NetworkLayer, gopacket.SerializableLayer) {
	if q.dst.Is6() {
		ip := &layers.IPv6{Version: 6, NextHeader: q.proto, HopLimit: q.ttl, SrcIP: q.src.AsSlice(), DstIP: q.dst.AsSlice()}
		return ip, ip
	}
	ip := &layers.IPv4{Version: 4, IHL: 5, Protocol: q.proto, TTL: q.ttl, SrcIP: q.src.AsSlice(), DstIP: q.dst.AsSlice()}
	return ip, ip
}

const askedFromPort = 40000

func (q question) transport(network gopacket.NetworkLayer) []gopacket.SerializableLayer {
	switch q.proto {
	case layers.IPProtocolTCP:
		tcp := &layers.TCP{SrcPort: askedFromPort, DstPort: layers.TCPPort(q.port), SYN: true, Window: 65535, DataOffset: 5}
		_ = tcp.SetNetworkLayerForChecksum(network)
		return []gopacket.SerializableLayer{tcp}
	case layers.IPProtocolUDP:
		udp := &layers.UDP{SrcPort: askedFromPort, DstPort: layers.UDPPort(q.port)}
		_ = udp.SetNetworkLayerForChecksum(network)
		return []gopacket.SerializableLayer{udp}
	case layers.IPProtocolICMPv4:
		return []gopacket.SerializableLayer{&layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(layers.ICMPv4TypeEchoRequest, 0), Id: 1, Seq: 1}}
	case layers.IPProtocolICMPv6:
		icmp := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(layers.ICMPv6TypeEchoRequest, 0)}
		_ = icmp.SetNetworkLayerForChecksum(network)
		return []gopacket.SerializableLayer{icmp, &layers.ICMPv6Echo{Identifier: 1, SeqNumber: 1}}
	}
	return nil
}

// asked is what an explanation has to name of a packet.
type asked struct {
	src, dst netip.Addr // not valid where the packet is not read so far
	length   int        // of the IP packet, in bytes
}

// askedOf reads a frame's IP header, or with inside that of what its tunnel carries.
func askedOf(frame []byte, inside bool) (a asked) {
	seen := 0
	for _, l := range gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.NoCopy).Layers() {
		var src, dst []byte
		length := 0
		switch h := l.(type) {
		case *layers.IPv4:
			src, dst, length = h.SrcIP, h.DstIP, int(h.Length)
		case *layers.IPv6:
			src, dst, length = h.SrcIP, h.DstIP, int(h.Length)+ip6Header
		default:
			continue
		}
		if seen++; inside && seen == 1 {
			continue
		}
		a.src, _ = netip.AddrFromSlice(src)
		a.dst, _ = netip.AddrFromSlice(dst)
		a.length = length
		break
	}
	return a
}

const ip6Header = 40

// toldMTU reads the MTU that an ICMP error tells of, 0 where the frame is none (RFC 1191 section 4, RFC 4443 section 3.2).
func toldMTU(frame []byte) int {
	packet := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.NoCopy)
	for _, l := range packet.Layers() {
		switch h := l.(type) {
		case *layers.ICMPv4:
			return int(h.Seq)
		case *layers.ICMPv6:
			if len(h.Payload) >= 4 {
				return int(binary.BigEndian.Uint32(h.Payload))
			}
		}
	}
	return 0
}

// decode describes a frame's headers, outermost first, one line each.
func decode(frame []byte) []string {
	var out []string
	packet := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.NoCopy)
	for _, l := range packet.Layers() {
		if s := describeLayer(l); s != "" {
			out = append(out, s)
		}
	}
	return out
}

func describeLayer(l gopacket.Layer) string {
	switch h := l.(type) {
	case *layers.Ethernet:
		return fmt.Sprintf("Ethernet %s > %s, type %s", h.SrcMAC, h.DstMAC, etherType(h.EthernetType))
	case *layers.Dot1Q:
		return fmt.Sprintf("802.1Q VLAN %d", h.VLANIdentifier)
	case *layers.IPv4:
		if h.DstIP == nil {
			return "IPv4, cut short or damaged"
		}
		return fmt.Sprintf("IPv4 %s > %s, TTL %d, DSCP %d, ECN %d, length %d%s", h.SrcIP, h.DstIP, h.TTL, h.TOS>>2, h.TOS&3, h.Length, flags4(h))
	case *layers.IPv6:
		if h.DstIP == nil {
			return "IPv6, cut short or damaged"
		}
		return fmt.Sprintf("IPv6 %s > %s, hop limit %d, DSCP %d, ECN %d, payload %d", h.SrcIP, h.DstIP, h.HopLimit, h.TrafficClass>>2, h.TrafficClass&3, h.Length)
	case *layers.UDP:
		return fmt.Sprintf("UDP %d > %d, length %d, checksum %#04x", h.SrcPort, h.DstPort, h.Length, h.Checksum)
	case *layers.TCP:
		return fmt.Sprintf("TCP %d > %d", h.SrcPort, h.DstPort)
	case *layers.VXLAN:
		return fmt.Sprintf("VXLAN VNI %d", h.VNI)
	case *layers.Geneve:
		return fmt.Sprintf("Geneve VNI %d, options of %d bytes", h.VNI, h.OptionsLength)
	case *layers.GRE:
		if h.KeyPresent {
			return fmt.Sprintf("GRE key %d", h.Key)
		}
		return "GRE without a key"
	case *layers.ICMPv4:
		return "ICMP " + h.TypeCode.String()
	case *layers.ICMPv6:
		return "ICMPv6 " + h.TypeCode.String()
	case *layers.ARP:
		verb := "asks for"
		if h.Operation == layers.ARPReply {
			verb = "answers"
		}
		return fmt.Sprintf("ARP %s (%s) %s %s", net.IP(h.SourceProtAddress), net.HardwareAddr(h.SourceHwAddress), verb, net.IP(h.DstProtAddress))
	}
	return ""
}

// etherType is a type's name, or its number where it has none.
func etherType(t layers.EthernetType) string {
	if name := t.String(); !strings.HasPrefix(name, "Unknown") {
		return name
	}
	return fmt.Sprintf("%#04x", uint16(t))
}

func flags4(h *layers.IPv4) string {
	if h.Flags&layers.IPv4DontFragment != 0 {
		return ", DF"
	}
	return ""
}

// addressesOf reads the IP addresses of a frame, for a packet that was handed in whole.
func addressesOf(frame []byte) (src, dst netip.Addr, ok bool) {
	off := 14
	if len(frame) < off {
		return src, dst, false
	}
	proto := binary.BigEndian.Uint16(frame[12:])
	if proto == 0x8100 && len(frame) >= 18 {
		proto, off = binary.BigEndian.Uint16(frame[16:]), 18
	}
	switch {
	case proto == 0x0800 && len(frame) >= off+20:
		return netip.AddrFrom4([4]byte(frame[off+12 : off+16])), netip.AddrFrom4([4]byte(frame[off+16 : off+20])), true
	case proto == 0x86dd && len(frame) >= off+40:
		return netip.AddrFrom16([16]byte(frame[off+8 : off+24])), netip.AddrFrom16([16]byte(frame[off+24 : off+40])), true
	}
	return src, dst, false
}
