package bpftest

import (
	"bytes"
	"net/netip"

	"roam/maps"
)

// Neighbours in the model: ARP and neighbour discovery, on a segment and bridged to one.

// answers says whether a question for the MAC of this address is ours to answer, by which MAC, and whether as the gateway.
func (v *view) answers(target netip.Addr) (m mac, answer, gateway bool) {
	s, _ := v.segment()
	if v.standby() {
		return m, false, false
	}
	switch next := v.nexthops[v.hosts[host{v.tenant, target}]]; next.Kind {
	case maps.KindGateway:
		return s.Mac, s.Flags&maps.SegmentStick == 0, true
	case maps.KindAdjacency, maps.KindSet, maps.KindUnresolved:
		return s.Mac, v.bridge == 0, false
	case maps.KindLocal:
		l := v.locals[next.Index]
		return l.Mac, v.bridge != 0 && v.ports[l.Port].Segment == v.bridge, false
	}
	return m, false, false
}

// standby says whether another gateway on the segment answers, and takes what is flooded.
func (v *view) standby() bool {
	s, _ := v.segment()
	return v.bridge == 0 && (s.Flags&maps.SegmentStandby != 0 || s.DesignatedUntil == longAgo)
}

// A duty that is over, and one that lasts as long as any test.
const (
	longAgo  = 1
	longTime = 1 << 62
)

// defends says whether a probe is answered: for the gateway's address, on a segment.
func (v *view) defends(gateway bool) bool { return gateway && v.bridge == 0 }

func (v *view) arp() want {
	if len(v.in) < v.l3+28 {
		return reason("drop_short")
	}
	if _, ok := v.segment(); !ok {
		return reason("pass_arp")
	}
	reply := v.arpReply(v.in)
	if reply == nil {
		return reason("pass_arp")
	}
	return v.leave(want{reason: "fwd_arp", out: reply}, v.slot)
}

// arpReply is the reply to a request in a frame, which ends as the packet in question does; nil where it is not ours to answer.
func (v *view) arpReply(f []byte) []byte {
	l3 := len(f) - (len(v.in) - v.l3)
	if v.bridge != 0 {
		l3 = 14
	}
	a := f[l3 : l3+28]
	request := bytes.Equal(a[:8], []byte{0, 1, 8, 0, 6, 4, 0, 1})
	if !request || a[8]&1 == 1 || f[6]&1 == 1 || bytes.Equal(a[14:18], a[24:28]) {
		return nil
	}
	m, yes, gateway := v.answers(addrFrom(a[24:28]))
	if !yes || !v.defends(gateway) && bytes.Equal(a[14:18], make([]byte, 4)) {
		return nil
	}
	out := bytes.Clone(f)
	copy(out, f[6:12])
	copy(out[6:], m[:])
	reply := append([]byte{0, 1, 8, 0, 6, 4, 0, 2}, m[:]...)
	reply = append(append(reply, a[24:28]...), a[8:18]...)
	copy(out[l3:], reply)
	return out
}

func (v *view) discovery() want {
	if _, ok := v.segment(); !ok {
		return reason("pass_nd")
	}
	advert := v.advertisement(0)
	if advert == nil {
		return reason("pass_nd")
	}
	return v.leave(want{reason: "fwd_nd", out: advert}, v.slot)
}

// advertisement is the answer to a solicitation, as a frame whose link header is like the one at link; nil where it is not ours to answer.
func (v *view) advertisement(link int) []byte {
	if v.ip.l4 != v.l3+40 || v.ip.len < 64 || v.ip.len > 512 || v.ip.ttl != 255 {
		return nil
	}
	s, _ := v.segment()
	m, src := v.in[v.l3+40:v.l3+v.ip.len], mac(v.in[link+6:])
	unspecified := v.ip.src == netip.IPv6Unspecified()
	if m[0] != 135 || m[1] != 0 || in(v.ip.src, groups6) || src[0]&1 == 1 || unspecified && !in(v.ip.dst, groups6) {
		return nil
	}
	target := addrFrom(m[8:24])
	holder, yes, gateway := v.answers(target)
	if in(target, linkLocal) {
		yes = s.GatewayLl == wire(target) && s.Flags&maps.SegmentStick == 0 && !v.standby()
		holder, gateway = s.Mac, true
	}
	pseudo := be.AppendUint32(append(v.ip.src.AsSlice(), v.ip.dst.AsSlice()...), uint32(len(m)))
	if !yes || !v.defends(gateway) && unspecified || onesComplement(append(append(pseudo, 0, 0, 0, 58), m...)) != 0xffff {
		return nil
	}
	flags := byte(0x20)
	if gateway && s.Flags&maps.SegmentRouter != 0 {
		flags |= 0x80
	}
	to := v.ip.src
	if unspecified {
		to, src = netip.MustParseAddr("ff02::1"), mac{0x33, 0x33, 0, 0, 0, 1}
	} else {
		flags |= 0x40
	}
	na := append([]byte{136, 0, 0, 0, flags, 0, 0, 0}, target.AsSlice()...)
	na = icmp6(target, to, append(append(na, 2, 1), holder[:]...), 0)
	h := append(bytes.Clone(v.in[v.l3:v.l3+4]), 0, byte(len(na)), 58, 255)
	h = append(append(append(h, target.AsSlice()...), to.AsSlice()...), na...)
	return append(append(append(src[:], holder[:]...), v.in[link+12:v.l3]...), h...)
}
