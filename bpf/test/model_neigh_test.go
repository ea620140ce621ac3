package bpftest

import (
	"bytes"
	"net/netip"

	"roam/maps"
)

// Neighbours in the model: ARP and neighbour discovery.

// answers says whether a question for the MAC of this address is ours to answer, and whether as the gateway.
func (v *view) answers(target netip.Addr) (answer, gateway bool) {
	s, _ := v.segment()
	switch v.nexthops[v.hosts[host{v.tenant, target}]].Kind {
	case maps.KindGateway:
		return s.Flags&maps.SegmentStick == 0, true
	case maps.KindAdjacency, maps.KindSet, maps.KindUnresolved:
		return true, false
	}
	return false, false
}

func (v *view) arp() want {
	if len(v.in) < v.l3+28 {
		return reason("drop_short")
	}
	a := v.in[v.l3 : v.l3+28]
	s, ok := v.segment()
	request := bytes.Equal(a[:8], []byte{0, 1, 8, 0, 6, 4, 0, 1})
	if !ok || !request || a[8]&1 == 1 || v.in[6]&1 == 1 || bytes.Equal(a[14:18], a[24:28]) {
		return reason("pass_arp")
	}
	yes, gateway := v.answers(addrFrom(a[24:28]))
	if !yes || !gateway && bytes.Equal(a[14:18], make([]byte, 4)) {
		return reason("pass_arp")
	}
	out := bytes.Clone(v.in)
	copy(out, v.in[6:12])
	copy(out[6:], s.Mac[:])
	reply := append([]byte{0, 1, 8, 0, 6, 4, 0, 2}, s.Mac[:]...)
	reply = append(append(reply, a[24:28]...), a[8:18]...)
	copy(out[v.l3:], reply)
	return v.leave(want{reason: "fwd_arp", out: out}, v.slot)
}

func (v *view) discovery() want {
	pass := reason("pass_nd")
	s, ok := v.segment()
	m := v.in[v.l3+40:]
	if !ok || v.ip.l4 != v.l3+40 || v.ip.len < 64 || v.ip.len > 512 || m[0] != 135 || m[1] != 0 || v.ip.ttl != 255 {
		return pass
	}
	unspecified := v.ip.src == netip.IPv6Unspecified()
	if in(v.ip.src, groups6) || v.in[6]&1 == 1 || unspecified && !in(v.ip.dst, groups6) {
		return pass
	}
	target := addrFrom(m[8:24])
	yes, gateway := v.answers(target)
	if in(target, linkLocal) {
		yes = s.GatewayLl == wire(target) && s.Flags&maps.SegmentStick == 0
		gateway = true
	}
	m = m[:v.ip.len-40]
	pseudo := be.AppendUint32(append(v.ip.src.AsSlice(), v.ip.dst.AsSlice()...), uint32(len(m)))
	if !yes || !gateway && unspecified || onesComplement(append(append(pseudo, 0, 0, 0, 58), m...)) != 0xffff {
		return pass
	}
	flags := byte(0x20)
	if gateway && s.Flags&maps.SegmentRouter != 0 {
		flags |= 0x80
	}
	to, toMAC := v.ip.src, mac(v.in[6:12])
	if unspecified {
		to, toMAC = netip.MustParseAddr("ff02::1"), mac{0x33, 0x33, 0, 0, 0, 1}
	} else {
		flags |= 0x40
	}
	na := append([]byte{136, 0, 0, 0, flags, 0, 0, 0}, target.AsSlice()...)
	na = icmp6(target, to, append(append(na, 2, 1), s.Mac[:]...), 0)
	h := append(bytes.Clone(v.in[v.l3:v.l3+4]), 0, byte(len(na)), 58, 255)
	h = append(append(append(h, target.AsSlice()...), to.AsSlice()...), na...)
	out := append(append(toMAC[:], s.Mac[:]...), v.in[12:v.l3]...)
	return v.leave(want{reason: "fwd_nd", out: append(out, h...)}, v.slot)
}
