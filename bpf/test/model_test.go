package bpftest

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"

	"roam/maps"
)

// The naive twin: what the data path is to do with a frame, written from the rules, for reading and not for speed. It copies
// where the program patches in place, sums checksums anew where the program adjusts them, and looks everything up
// in Go maps.

// reach is how far into a frame the program follows headers; tunnels must begin in the first half of it.
const reach = 1023

var be = binary.BigEndian

// view is a frame on its way through the model.
type view struct {
	*tables
	in   []byte
	slot uint16
	port maps.Port
	vlan uint16

	l3     int // offset of the IP packet in question
	kind   uint16
	ip     header
	dst    mac
	tenant uint16
	inside *outer // the tunnel it came from
}

type outer struct {
	locator  uint16
	ttl, tos uint8
}

// header is what an IP header says.
type header struct {
	v6            bool
	src, dst      netip.Addr
	ttl, tos      uint8
	proto         uint8 // behind extension headers; 59 where they lead nowhere
	l4            int   // offset in the frame
	len           int
	fragment      bool
	laterFragment bool
}

func reason(r string) want { return want{reason: r} }

// process says what must become of a frame that the loopback interface received, and which port counts it.
func (t *tables) process(in []byte) (want, uint16) {
	v := &view{tables: t, in: in, l3: 14, kind: be.Uint16(in[12:]), dst: mac(in[:6])}
	if v.kind == 0x8100 {
		if len(in) < 18 {
			return reason("drop_short"), 0
		}
		v.vlan, v.kind, v.l3 = be.Uint16(in[14:])&0xfff, be.Uint16(in[16:]), 18
	}
	for slot, p := range t.ports {
		if p.Ifindex == loopback && p.Vlan == v.vlan {
			v.slot, v.port = slot, p
			return v.link(), slot
		}
	}
	return reason("pass_no_port"), 0
}

func (v *view) segment() (maps.Segment, bool) {
	if v.port.Role&maps.RoleAccess == 0 || v.port.Segment == 0 {
		return maps.Segment{}, false
	}
	return v.segments[v.port.Segment], true // one that was never written is all zero
}

// ours says whether the frame is addressed to this gateway, by one of its MACs or out of a tunnel.
func (v *view) ours() bool {
	if v.inside != nil || v.dst == v.port.Mac {
		return true
	}
	s, ok := v.segment()
	return ok && v.dst == s.Mac
}

// station is what is known of the MAC that the frame is addressed to.
func (v *view) station() uint32 {
	if _, ok := v.segment(); !ok {
		return maps.MACHere
	}
	return v.macs[maps.MACKey{Mac: v.dst, Segment: v.port.Segment}]
}

func (v *view) link() want {
	v.tenant = v.port.Tenant
	if v.kind == 0x0806 {
		return v.arp()
	}
	if r := v.parse(len(v.in) - v.l3); r != "" {
		return reason(r)
	}
	if tunnel, r := v.decapsulate(); tunnel {
		if r != "" {
			return reason(r)
		}
		return v.route()
	}
	if v.ip.v6 && v.ip.proto == 58 && v.ip.l4 < v.l3+v.ip.len {
		if kind := v.in[v.ip.l4]; kind >= 133 && kind <= 137 {
			return v.discovery()
		}
	}
	switch {
	case v.dst[0]&1 == 1:
		return reason("pass_multicast")
	case v.port.Role&(maps.RoleAccess|maps.RoleUplink) == 0:
		return reason("pass_underlay")
	}
	if r := v.ip.scope(); r != "" {
		return reason(r)
	}
	return v.route()
}

// parse reads the IP header at l3; room is what may belong to the packet.
func (v *view) parse(room int) string {
	b := v.in[v.l3:]
	switch v.kind {
	case 0x0800:
		return v.parse4(b, room)
	case 0x86dd:
		return v.parse6(b, room)
	}
	return "pass_not_ip"
}

func (v *view) parse4(b []byte, room int) string {
	if len(b) < 20 {
		return "drop_short"
	}
	n, total := int(b[0]&15)*4, int(be.Uint16(b[2:]))
	if b[0]>>4 != 4 || n < 20 || total < n || total > room {
		return "drop_ip_header"
	}
	if onesComplement(b[:n]) != 0xffff {
		return "drop_ip_checksum"
	}
	frag := be.Uint16(b[6:])
	v.ip = header{
		src: addrFrom(b[12:16]), dst: addrFrom(b[16:20]), ttl: b[8], tos: b[1], proto: b[9], l4: v.l3 + n, len: total,
		fragment: frag&0x3fff != 0, laterFragment: frag&0x1fff != 0,
	}
	return ""
}

func (v *view) parse6(b []byte, room int) string {
	if len(b) < 40 {
		return "drop_short"
	}
	total := 40 + int(be.Uint16(b[4:]))
	if b[0]>>4 != 6 || total > room {
		return "drop_ip_header"
	}
	v.ip = header{
		v6: true, src: addrFrom(b[8:24]), dst: addrFrom(b[24:40]), ttl: b[7], tos: b[0]<<4 | b[1]>>4, proto: b[6],
		l4: v.l3 + 40, len: total,
	}
	v.extensions()
	return ""
}

func isExtension(proto uint8) bool { return slices.Contains([]uint8{0, 43, 44, 60}, proto) }

// extensions follows at most six extension headers, as far as they lie in the packet and in reach.
func (v *view) extensions() {
	ip, end := &v.ip, v.l3+v.ip.len
	for i := 0; i < 6 && isExtension(ip.proto); i++ {
		if ip.l4 > reach || ip.l4+8 > end {
			break
		}
		e := v.in[ip.l4 : ip.l4+8]
		if ip.proto == 44 {
			offset := be.Uint16(e[2:])
			ip.laterFragment = ip.laterFragment || offset>>3 != 0
			ip.fragment = ip.fragment || ip.laterFragment || offset&1 != 0
			ip.l4 += 8
		} else {
			ip.l4 += (int(e[1]) + 1) * 8
		}
		ip.proto = e[0]
		if ip.laterFragment {
			break
		}
	}
	if isExtension(ip.proto) || ip.laterFragment || ip.l4 != v.l3+40 && (ip.l4 > reach || ip.l4 > end) {
		ip.proto = 59
	}
}

var (
	groups4       = []netip.Prefix{netip.MustParsePrefix("224.0.0.0/4"), netip.MustParsePrefix("255.255.255.255/32")}
	noSource4     = prefixList("0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/3")
	noTarget4     = prefixList("0.0.0.0/8", "127.0.0.0/8", "240.0.0.0/4")
	linkLocal     = prefixList("169.254.0.0/16", "fe80::/10")
	groups6       = prefixList("ff00::/8")
	noAddress6    = prefixList("::/128", "::1/128")
	mappedAddress = netip.MustParseAddr("::ffff:0:0").As16()
)

func prefixList(s ...string) (list []netip.Prefix) {
	for _, p := range s {
		list = append(list, netip.MustParsePrefix(p))
	}
	return list
}

func in(a netip.Addr, lists ...[]netip.Prefix) bool {
	for _, list := range lists {
		for _, p := range list {
			if p.Contains(a) {
				return true
			}
		}
	}
	return false
}

// mapped says whether a is ::ffff:a.b.c.d, which netip treats with special care.
func mapped(a netip.Addr) bool {
	b := a.As16()
	return a.Is6() && bytes.Equal(b[:12], mappedAddress[:12])
}

func (h header) scope() string {
	if h.v6 {
		switch {
		case in(h.dst, groups6):
			return "pass_multicast"
		case in(h.src, groups6, noAddress6), in(h.dst, noAddress6), mapped(h.src), mapped(h.dst):
			return "drop_martian"
		}
	} else {
		switch {
		case in(h.dst, groups4):
			return "pass_multicast"
		case in(h.src, noSource4), in(h.dst, noTarget4):
			return "drop_martian"
		}
	}
	if in(h.src, linkLocal) || in(h.dst, linkLocal) {
		return "pass_link_local"
	}
	return ""
}

// decapsulate steps to the inner packet. tunnel is false where there is none for us.
func (v *view) decapsulate() (tunnel bool, r string) {
	ip := v.ip
	if v.port.Role&maps.RoleUnderlay == 0 || ip.proto != 17 || ip.laterFragment || !v.ours() || len(v.in) < ip.l4+8 {
		return false, ""
	}
	udp := v.in[ip.l4:]
	if be.Uint16(udp[2:]) != 4789 || v.hosts[host{maps.SpaceLocator, ip.dst}] != maps.LocatorOwn {
		return false, ""
	}
	n := int(be.Uint16(udp[4:]))
	from := v.hosts[host{maps.SpaceLocator, ip.src}]
	switch {
	case ip.fragment:
		return true, "drop_outer_fragment"
	case ip.l4 > reach/2 || n < 8 || n > v.l3+ip.len-ip.l4:
		return true, "drop_tunnel_header"
	case from == 0 || from == maps.LocatorOwn:
		return true, "drop_unknown_locator"
	case n < 8+8+14 || udp[8]&0x08 == 0:
		return true, "drop_tunnel_header"
	}
	vni := netip.AddrFrom4([4]byte{0, udp[12], udp[13], udp[14]})
	tenant := v.hosts[host{maps.SpaceVNI, vni}]
	switch {
	case tenant == 0:
		return true, "drop_unknown_vni"
	case udp[16]&1 == 1:
		return true, "drop_inner_not_ip"
	}
	v.tenant, v.inside = uint16(tenant), &outer{uint16(from), ip.ttl, ip.tos}
	v.kind, v.l3 = be.Uint16(udp[28:]), ip.l4+30
	switch r := v.parse(n - 30); {
	case r == "pass_not_ip":
		return true, "drop_inner_not_ip"
	case r != "":
		return true, r
	}
	switch v.ip.scope() {
	case "":
		return true, v.congestion()
	default:
		return true, "drop_martian"
	}
}

// congestion merges the outer ECN field into the inner one: RFC 6040, figure 4.
func (v *view) congestion() string {
	const notECT, ect1, ect0, ce = 0, 1, 2, 3
	inner, outside := v.ip.tos&3, v.inside.tos&3
	switch {
	case outside == ce && inner == notECT:
		return "drop_ecn"
	case outside == ce:
		inner = ce
	case outside == ect1 && inner == ect0:
		inner = ect1
	}
	v.ip.tos = v.ip.tos&^3 | inner
	return ""
}

// packet is the IP packet with the traffic class and the TTL as they are to be, and what follows it in the frame.
func (v *view) packet(hops uint8) (ip, tail []byte) {
	ip = bytes.Clone(v.in[v.l3 : v.l3+v.ip.len])
	tail = bytes.Clone(v.in[v.l3+v.ip.len:])
	if v.ip.v6 {
		ip[0], ip[1] = 0x60|v.ip.tos>>4, ip[1]&15|v.ip.tos<<4
		ip[7] = v.ip.ttl - hops
		return ip, tail
	}
	if ip[1] == v.ip.tos && hops == 0 {
		return ip, tail
	}
	ip[1], ip[8], ip[10], ip[11] = v.ip.tos, v.ip.ttl-hops, 0, 0
	be.PutUint16(ip[10:], ^uint16(onesComplement(ip[:int(ip[0]&15)*4])))
	return ip, tail
}

func (v *view) lookup() (id uint32, exact bool) {
	if id = v.hosts[host{v.tenant, v.ip.dst}]; id != 0 {
		return id, true
	}
	best := -1
	for p, value := range v.prefixes {
		if p.tenant == v.tenant && p.Contains(v.ip.dst) && p.Bits() > best {
			best, id = p.Bits(), value
		}
	}
	return id, false
}

func (v *view) route() want {
	id, exact := v.lookup()
	next := v.nexthops[id]
	remote := next.Kind == maps.KindAdjacency || next.Kind == maps.KindSet || next.Kind == maps.KindUnresolved
	if !v.ours() && v.station() != maps.MACForeign {
		// The stale MAC of a host that has moved may be nobody's here.
		s, ok := v.segment()
		stale := ok && s.Flags&maps.SegmentForeign != 0 && v.station() != maps.MACHere
		if !stale || !exact || !remote {
			return reason("pass_not_ours")
		}
	}
	switch {
	case id == 0:
		return v.toKernel("pass_no_route")
	case remote:
		return v.tunnel(next, exact)
	}
	switch next.Kind {
	case maps.KindLocal:
		return v.deliver(v.locals[next.Index])
	case maps.KindGateway, maps.KindOwn:
		return v.toKernel("pass_own")
	case maps.KindKernel:
		if exact {
			return v.toKernel("pass_resolve")
		}
		return v.toKernel("pass_no_route")
	case maps.KindBlackhole:
		return reason("drop_blackhole")
	}
	return reason("drop_nexthop")
}

func (v *view) toKernel(r string) want {
	out := bytes.Clone(v.in)
	if v.inside != nil {
		if r == "pass_no_route" && v.hosts[host{maps.SpaceLocator, v.ip.dst}] == maps.LocatorOwn {
			return reason("drop_tunnel_in_tunnel")
		}
		ip, tail := v.packet(0)
		out = append(append(out[v.l3-14:v.l3:v.l3], ip...), tail...)
	}
	copy(out, v.port.Mac[:])
	return want{reason: r, out: out}
}

// leave fills in what depends on the egress port.
func (v *view) leave(x want, slot uint16) want {
	out := v.ports[slot]
	switch {
	case out.Ifindex == loopback && out.Flags&maps.PortRedirect == 0:
		x.tx = true
	case !v.devices[slot]:
		return reason("drop_redirect")
	}
	return x
}

func (v *view) deliver(l maps.Local) want {
	if int(l.Port) >= maps.Ports {
		return reason("drop_nexthop")
	}
	out := v.ports[l.Port]
	switch {
	case out.Ifindex == 0:
		return reason("drop_redirect")
	case v.ip.len > int(out.Mtu):
		return reason("drop_mtu")
	case v.ip.ttl <= 1:
		return reason("drop_ttl")
	}
	kind := uint16(0x0800)
	if v.ip.v6 {
		kind = 0x86dd
	}
	f := frame{dst: l.Mac, src: out.Mac}
	if out.Vlan != 0 {
		f.tags = []uint16{out.Vlan}
	}
	return v.leave(want{reason: "fwd_deliver", out: f.around(v.within(out.Mtu), kind)}, l.Port)
}

// within is the packet one hop on, with what follows it in the frame unless that makes it too long.
func (v *view) within(mtu uint16) []byte {
	ip, tail := v.packet(1)
	if len(ip)+len(tail) > int(mtu) {
		return ip
	}
	return append(ip, tail...)
}

func (v *view) tunnel(next maps.Nexthop, exact bool) want {
	ttl := uint8(64)
	if v.inside != nil {
		switch {
		case !exact || next.Flags&maps.FlagHeld == 0:
			return reason("drop_tunnel_loop")
		case v.inside.ttl <= 1:
			return reason("drop_tunnel_ttl")
		}
		ttl = v.inside.ttl - 1
	}
	flow := v.flow()
	if next.Kind == maps.KindSet {
		if int(next.Index) >= maps.Sets {
			return reason("drop_nexthop")
		}
		next = v.nexthops[v.sets[next.Index].Member[flow%64]]
	}
	if next.Kind == maps.KindUnresolved {
		return reason("drop_unresolved")
	}
	tun, ok := v.adjacencies[next.Index]
	switch {
	case next.Kind != maps.KindAdjacency || !ok:
		return reason("drop_nexthop")
	case v.inside != nil && v.inside.locator == tun.locator:
		return reason("drop_tunnel_back")
	case v.ip.len > int(tun.mtu):
		return reason("drop_mtu")
	case v.ip.ttl <= 1:
		return reason("drop_ttl")
	}
	x := want{reason: "fwd_encap", locator: tun.locator, out: v.encapsulate(tun, flow, ttl)}
	if v.inside != nil {
		x.reason = "fwd_reencap"
	}
	return v.leave(x, tun.port)
}

// flow is the hash of bpf/ecmp.h, the one thing here that only the program can define.
func (v *view) flow() uint32 {
	const k1, k2 = 0x9FB21C651E98DF25, 0xD6E8FEB86659FD93
	var x, ports uint64
	if v.ip.v6 {
		s, d := wire(v.ip.src), wire(v.ip.dst)
		x = (uint64(s[0])<<32 | uint64(s[1])) * k1
		x = (x ^ (uint64(s[2])<<32 | uint64(s[3]))) * k2
		x = (x ^ x>>32 ^ (uint64(d[0])<<32 | uint64(d[1]))) * k1
		x = (x ^ x>>32 ^ (uint64(d[2])<<32 | uint64(d[3]))) * k2
	} else {
		s, d := v.ip.src.As4(), v.ip.dst.As4()
		x = (uint64(be.Uint32(s[:]))<<32 | uint64(be.Uint32(d[:]))) * k1
	}
	withPorts := slices.Contains([]uint8{6, 17, 33, 132, 136}, v.ip.proto)
	if withPorts && !v.ip.fragment && v.ip.l4+4 <= v.l3+v.ip.len {
		ports = uint64(binary.NativeEndian.Uint32(v.in[v.ip.l4:]))
	}
	x = (x ^ x>>32 ^ ports) * k2
	return uint32(x >> 32)
}

func (v *view) encapsulate(t tunnel, flow uint32, ttl uint8) []byte {
	kind := uint16(0x0800)
	if v.ip.v6 {
		kind = 0x86dd
	}
	ip, tail := v.packet(1)
	if len(ip)+len(tail) > int(t.mtu) {
		tail = nil
	}
	body := be.AppendUint16(nil, uint16(0xc000|flow>>18))
	body = be.AppendUint16(body, t.udp)
	body = be.AppendUint16(body, uint16(8+8+14+len(ip)))
	body = append(body, 0, 0, 8, 0, 0, 0)
	body = be.AppendUint32(body, t.vni<<8)
	body = append(body, ethernetHeader(t.innerDst, t.innerSrc, kind)...)
	body = append(body, ip...)
	addresses := append(t.local.AsSlice(), t.remote.AsSlice()...)
	if t.checksum {
		pseudo := be.AppendUint32(bytes.Clone(addresses), uint32(len(body)))
		pseudo = append(pseudo, 0, 0, 0, 17)
		check := ^uint16(onesComplement(append(pseudo, body...)))
		if check == 0 {
			check = 0xffff
		}
		be.PutUint16(body[6:], check)
	}
	var out []byte
	if t.remote.Is4() {
		h := append([]byte{0x45, v.ip.tos, 0, 0, 0, 0, 0x40, 0, ttl, 17, 0, 0}, addresses...)
		be.PutUint16(h[2:], uint16(20+len(body)))
		be.PutUint16(h[10:], ^uint16(onesComplement(h)))
		out = append(ethernetHeader(t.dst, t.src, 0x0800), h...)
	} else {
		h := be.AppendUint32(nil, 6<<28|uint32(v.ip.tos)<<20|flow&0xfffff)
		h = be.AppendUint16(h, uint16(len(body)))
		h = append(append(h, 17, ttl), addresses...)
		out = append(ethernetHeader(t.dst, t.src, 0x86dd), h...)
	}
	return append(append(out, body...), tail...)
}

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
