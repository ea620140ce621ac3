package bpftest

import (
	"encoding/binary"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"roam/maps"
)

// adjacency makes a tunnel's rewrite out of headers that gopacket serialises: the second opinion on what the daemon's
// template builder makes, and on what bpf/abi.h says about the sum.
func (t tunnel) adjacency() maps.Adjacency {
	const ethernet, udpLen, shim = 14, 8, 8
	headers := serialize(gopacket.SerializeOptions{},
		&layers.UDP{DstPort: layers.UDPPort(t.udp)},
		&layers.VXLAN{ValidIDFlag: true, VNI: t.vni},
		gopacket.Payload(append(append(t.innerDst[:], t.innerSrc[:]...), 0, 0)),
	)
	ip := serialize(gopacket.SerializeOptions{}, outerIP(t, 0, 0, 0))
	ethertype := layers.EthernetTypeIPv4
	a := maps.Adjacency{Mtu: t.mtu, Port: t.port, Locator: t.locator, ProtoSize: 2}
	if t.remote.Is4() {
		a.Csum = rawSum(ip)
	} else {
		ethertype = layers.EthernetTypeIPv6
		a.Flags |= maps.AdjIPv6
	}
	if t.checksum {
		a.Flags |= maps.AdjUDPCsum
		a.Csum = rawSum(ip[8:]) + rawSum([]byte{0, 17}) + rawSum(headers)
	}
	all := append(ethernetHeader(t.dst, t.src, uint16(ethertype)), append(ip, headers...)...)
	copy(a.Header[:], all)
	a.Len = uint16(len(all))
	a.Udp = uint8(ethernet + len(ip))
	a.Proto = a.Udp + udpLen + shim + 12
	a.Proto4 = inMemory(uint16(layers.EthernetTypeIPv4))
	a.Proto6 = inMemory(uint16(layers.EthernetTypeIPv6))
	return a
}

// outerIP is the tunnel's IP header without lengths and checksum.
func outerIP(t tunnel, tos, ttl uint8, label uint32) gopacket.SerializableLayer {
	if t.remote.Is4() {
		return &layers.IPv4{
			Version: 4, IHL: 5, TOS: tos, TTL: ttl, Flags: layers.IPv4DontFragment, Protocol: layers.IPProtocolUDP,
			SrcIP: t.local.AsSlice(), DstIP: t.remote.AsSlice(),
		}
	}
	return &layers.IPv6{
		Version: 6, TrafficClass: tos, FlowLabel: label, HopLimit: ttl, NextHeader: layers.IPProtocolUDP,
		SrcIP: t.local.AsSlice(), DstIP: t.remote.AsSlice(),
	}
}

func ethernetHeader(dst, src mac, ethertype uint16) []byte {
	return binary.BigEndian.AppendUint16(append(append([]byte(nil), dst[:]...), src[:]...), ethertype)
}

// rawSum adds 16-bit words in memory order, unfolded.
func rawSum(b []byte) (sum uint32) {
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(binary.NativeEndian.Uint16(b))
	}
	if len(b) == 1 {
		sum += uint32(binary.NativeEndian.Uint16([]byte{b[0], 0}))
	}
	return sum
}

// inMemory is the number whose bytes in memory are v in network order.
func inMemory(v uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v))
}

func serialize(o gopacket.SerializeOptions, l ...gopacket.SerializableLayer) []byte {
	b := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(b, o, l...); err != nil {
		panic(err)
	}
	return b.Bytes()
}
