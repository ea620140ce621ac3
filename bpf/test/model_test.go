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

	l3     int // offset of the IP packet in question
	kind   uint16
	ip     header
	dst    mac
	tenant uint16
	inside *outer // the tunnel it came from
	bridge uint16 // segment on which its sender bridged it
	reply  want   // to a question that was bridged
	home   bool   // of one of the packet's ends, whose policy has it pass here
}

type outer struct {
	locator  uint16
	ttl, tos uint8
	l3, l4   int
}

// header is what an IP header says.
type header struct {
	v6            bool
	src, dst      netip.Addr
	ttl, tos      uint8
	proto         uint8 // behind extension headers; 59 where they lead nowhere
	l4            int   // offset in the frame
	len           int
	mayFragment   bool // IPv4 without DF
	fragment      bool
	laterFragment bool
}

func reason(r string) want { return want{reason: r} }

// process says what must become of a frame that the loopback interface received, and which port counts it.
func (t *tables) process(in []byte) (want, uint16) {
	v := &view{tables: t, in: in, l3: 14, kind: be.Uint16(in[12:]), dst: mac(in[:6])}
	var vlans [2]uint16
	for i := 0; i < 2 && (v.kind == 0x8100 || v.kind == 0x88a8); i++ {
		if len(in) < v.l3+4 {
			return reason("drop_short"), 0
		}
		vlans[i], v.kind = be.Uint16(in[v.l3:])&0xfff, be.Uint16(in[v.l3+2:])
		v.l3 += 4
	}
	for slot, p := range t.ports {
		if p.Ifindex == loopback && p.Vlan == vlans[0] && p.InnerVlan == vlans[1] {
			v.slot, v.port = slot, p
			return v.link(), slot
		}
	}
	return reason("pass_no_port"), 0
}

func (v *view) segment() (maps.Segment, bool) {
	if v.bridge != 0 {
		return v.segments[v.bridge], true
	}
	if v.port.Role&maps.RoleAccess == 0 || v.port.Segment == 0 {
		return maps.Segment{}, false
	}
	return v.segments[v.port.Segment], true // one that was never written is all zero
}

// ours says whether the frame is addressed to this gateway, by one of its MACs or out of a tunnel.
func (v *view) ours() bool {
	switch {
	case v.bridge != 0:
		return v.macs[maps.MACKey{Mac: v.bridgedTo(), Segment: v.bridge}] != 0 || v.bridgedTo() == v.segments[v.bridge].Mac
	case v.inside != nil, v.dst == v.port.Mac:
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
	arrived := v.ip
	if tunnel, r := v.decapsulate(); tunnel {
		switch {
		case r == "":
			return v.route()
		case r == "pass_link_local":
			return v.probe(arrived)
		case r == v.reply.reason:
			return v.reply
		}
		return reason(r)
	}
	if v.ip.v6 && v.ip.proto == 58 && v.ip.l4 < v.l3+v.ip.len {
		if kind := v.in[v.ip.l4]; kind >= 133 && kind <= 137 {
			return v.discovery()
		}
	}
	switch {
	case v.dst[0]&1 == 1:
		return reason("pass_multicast")
	case v.port.Role&(maps.RoleAccess|maps.RoleUplink|maps.RoleFragment) == 0:
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
		mayFragment: frag&0x4000 == 0, fragment: frag&0x3fff != 0, laterFragment: frag&0x1fff != 0,
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

// packet is the IP packet with the traffic class and the TTL as they are to be, and what follows it in the frame.
func (v *view) packet(hops uint8) (ip, tail []byte) {
	ip = bytes.Clone(v.in[v.l3 : v.l3+v.ip.len])
	tail = bytes.Clone(v.in[v.l3+v.ip.len:])
	if v.ip.v6 {
		ip[0], ip[1] = 0x60|v.ip.tos>>4, ip[1]&15|v.ip.tos<<4
		ip[7] = v.ip.ttl - hops
		return ip, tail
	}
	if ip[1] == v.ip.tos && ip[8] == v.ip.ttl-hops {
		return ip, tail
	}
	ip[1], ip[8], ip[10], ip[11] = v.ip.tos, v.ip.ttl-hops, 0, 0
	be.PutUint16(ip[10:], ^uint16(onesComplement(ip[:int(ip[0]&15)*4])))
	return ip, tail
}

// lookup is the next hop of an address of the tenant.
func (v *view) lookup(a netip.Addr) (id uint32, exact bool) {
	if id = v.hosts[host{v.tenant, a}]; id != 0 {
		return id, true
	}
	return v.cover(v.tenant, a), false
}

// cover is the value of the longest prefix in a space that holds the address.
func (v *view) cover(space uint16, a netip.Addr) (value uint32) {
	best := -1
	for p, x := range v.prefixes {
		if p.tenant == space && p.Contains(a) && p.Bits() > best {
			best, value = p.Bits(), x
		}
	}
	return value
}

func (v *view) route() want {
	id, exact := v.lookup(v.ip.dst)
	next := v.nexthops[id]
	remote := next.Kind == maps.KindAdjacency || next.Kind == maps.KindSet || next.Kind == maps.KindUnresolved
	switch {
	case v.ours():
	case v.bridge != 0:
		if !exact || !remote {
			return reason("drop_flood")
		}
	case v.station() != maps.MACForeign || v.standby():
		// The stale MAC of a host that has moved may be nobody's here.
		s, ok := v.segment()
		stale := ok && s.Flags&maps.SegmentForeign != 0 && v.station() != maps.MACHere && !v.standby()
		if !stale || !exact || !remote {
			return reason("pass_not_ours")
		}
	}
	if v.inside != nil && !v.sender(next) {
		return reason("drop_source")
	}
	if policy := v.egress(next); policy != 0 {
		id, next, exact = policy, v.nexthops[policy], false
		remote = next.Kind == maps.KindAdjacency || next.Kind == maps.KindSet || next.Kind == maps.KindUnresolved
	}
	switch {
	case id == 0:
		return v.toKernel("pass_no_route")
	case remote:
		return v.tunnel(next, exact)
	}
	switch next.Kind {
	case maps.KindLocal:
		return v.deliver(next)
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

// toKernel is a pass as the kernel must see it: received by this port, for this port.
func (v *view) toKernel(r string) want {
	if v.inside != nil && r == "pass_no_route" && v.hosts[host{maps.SpaceLocator, v.ip.dst}] == maps.LocatorOwn {
		return reason("drop_tunnel_in_tunnel")
	}
	if v.tenants[v.tenant].Flags&maps.TenantIsolated != 0 {
		return reason("drop_isolated")
	}
	if v.inside == nil {
		out := bytes.Clone(v.in)
		copy(out, v.port.Mac[:])
		return want{reason: r, out: out}
	}
	ip, tail := v.packet(0)
	f := frame{dst: v.port.Mac, src: mac(v.in[6:12]), trailer: tail}
	return want{reason: r, out: f.around(ip, v.kind)}
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

func (v *view) deliver(next maps.Nexthop) want {
	l := v.locals[next.Index]
	if int(l.Port) >= maps.Ports {
		return reason("drop_nexthop")
	}
	out := v.ports[l.Port]
	hops, expired := v.hops()
	if v.bridge != 0 && v.bridgedTo() == mac(l.Mac) && v.ip.ttl > 0 {
		hops, expired = 0, false // no router stands between them
	}
	switch {
	case out.Ifindex == 0:
		return reason("drop_redirect")
	case v.ip.len > int(out.Mtu):
		return v.refuse("drop_mtu", next, out.Mtu)
	case expired:
		return v.refuse("drop_ttl", next, out.Mtu)
	}
	return v.leave(want{reason: "fwd_deliver", out: linkTo(out, l.Mac).around(v.within(out.Mtu, hops), v.kind)}, l.Port)
}

// linkTo is the link header of a frame from a port to a station.
func linkTo(out maps.Port, to mac) frame {
	f := frame{dst: to, src: out.Mac, service: out.TagProto == inMemory(0x88a8)}
	if out.Vlan != 0 {
		f.tags = append(f.tags, out.Vlan)
		if out.InnerVlan != 0 {
			f.tags = append(f.tags, out.InnerVlan)
		}
	}
	return f
}

// hops is what this gateway takes from the TTL.
func (v *view) hops() (n uint8, expired bool) {
	switch {
	case v.port.Role&maps.RoleFragment != 0: // the kernel took it
		return 0, false
	case v.tune.KeepTTL && v.ip.ttl > 0 && v.neighbours():
		return 0, false
	}
	return 1, v.ip.ttl <= 1
}

// neighbours says whether both ends believe that they are on one subnet, between whose hosts no TTL is taken.
func (v *view) neighbours() bool {
	space := maps.SpaceSubnets + v.tenant
	subnet := v.cover(space, v.ip.src)
	return v.tenants[v.tenant].Flags&maps.TenantKeepTTL != 0 && subnet&maps.SubnetKeepTTL != 0 && subnet == v.cover(space, v.ip.dst)
}

// within is the packet so many hops on, with what follows it in the frame unless that makes it too long.
func (v *view) within(mtu uint16, hops uint8) []byte {
	ip, tail := v.packet(hops)
	if len(ip)+len(tail) > int(mtu) {
		return ip
	}
	return append(ip, tail...)
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
