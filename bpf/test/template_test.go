package bpftest

import (
	"encoding/binary"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"roam/maps"
)

// adjacency makes a tunnel's rewrite out of headers that gopacket serialises: the second opinion on what the daemon's
// template builder makes, and on what bpf/abi.h says about the sums.
func (t tunnel) adjacency() maps.Adjacency {
	a := maps.Adjacency{
		Mtu: t.mtu, Port: t.port, Locator: t.locator,
		Csum: [2]uint32{t.sum(v4), t.sum(v6)},
	}
	for _, set := range []struct {
		flag uint8
		on   bool
	}{
		{maps.AdjIPv6, t.family() == v6},
		{maps.AdjUDPCsum, t.checksum},
		{maps.AdjECN, !t.noECN},
		{maps.AdjCopyTTL, t.enc == encLISP},
	} {
		if set.on {
			a.Flags |= set.flag
		}
	}
	ip, rest := t.headers(v4)
	all := append(ethernetHeader(t.dst, t.src, t.family().ethertype()), append(ip, rest...)...)
	copy(a.Header[:], all)
	a.Len = uint16(len(all))
	if t.udpPort() != 0 {
		a.Udp = uint8(14 + len(ip))
	}
	t.kindField(&a)
	return a
}

// headers are the outer IP header, without lengths and checksum, and what follows it up to the packet inside.
func (t tunnel) headers(inner family) (ip, rest []byte) {
	rest = t.enc.shim(t.vni, t.innerDst, t.innerSrc, inner)
	if port := t.udpPort(); port != 0 {
		rest = append(serialize(gopacket.SerializeOptions{}, &layers.UDP{DstPort: layers.UDPPort(port)}), rest...)
	}
	return serialize(gopacket.SerializeOptions{}, outerIP(t, t.enc.protocol(inner), 0, 0, 0)), rest
}

func (t tunnel) sum(inner family) uint32 {
	ip, rest := t.headers(inner)
	switch {
	case t.family() == v4:
		return rawSum(ip)
	case t.checksum:
		return rawSum(ip[8:]) + rawSum([]byte{0, 17}) + rawSum(rest)
	}
	return 0
}

// kindField says where the headers tell IPv4 from IPv6.
func (t tunnel) kindField(a *maps.Adjacency) {
	back, size := t.enc.kindAt()
	a.Proto, a.ProtoSize = uint8(int(a.Len)-back), uint8(size)
	v := [2]uint16{v4.ethertype(), v6.ethertype()}
	switch t.enc {
	case encGPE:
		v = [2]uint16{1 << 8, 2 << 8}
	case encGUE:
		v = [2]uint16{4 << 8, 41 << 8}
	case encIP:
		v = [2]uint16{4 << 8, 41 << 8}
		a.Proto, a.ProtoSize = 14+[...]uint8{9, 6}[t.family()], 1
	case encLISP:
		a.Proto, v = 0, [2]uint16{}
	}
	a.Proto4, a.Proto6 = inMemory(v[v4]), inMemory(v[v6])
}

// outerIP is the tunnel's IP header without lengths and checksum.
func outerIP(t tunnel, proto, tos, ttl uint8, label uint32) gopacket.SerializableLayer {
	if t.remote.Is4() {
		return &layers.IPv4{
			Version: 4, IHL: 5, TOS: tos, TTL: ttl, Flags: layers.IPv4DontFragment, Protocol: layers.IPProtocol(proto),
			SrcIP: t.local.AsSlice(), DstIP: t.remote.AsSlice(),
		}
	}
	return &layers.IPv6{
		Version: 6, TrafficClass: tos, FlowLabel: label, HopLimit: ttl, NextHeader: layers.IPProtocol(proto),
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
