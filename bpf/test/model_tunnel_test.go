package bpftest

import (
	"bytes"

	"roam/maps"
)

// Tunnels in the model: in by decapsulate, out by tunnel.

// content is what a tunnel header was followed by.
type content struct {
	at     int // offset of the packet
	kind   uint16
	vni    uint32
	hasVNI bool
	group  bool // the frame inside is for one
}

// kindOfTunnel is the encapsulation by protocol and port: one of those that arrive there.
func (v *view) kindOfTunnel() (encapsulation, bool) {
	switch v.ip.proto {
	case 4, 41:
		return encIP, true
	case 47:
		return encGRE, true
	case 17:
		if len(v.in) < v.ip.l4+8 {
			return 0, false
		}
		p := v.tune.Ports
		e, ok := map[uint16]encapsulation{
			p.VXLAN: encVXLAN, p.VXLANGPE: encGPE, p.Geneve: encGeneve, p.GUE: encGUE, p.LISP: encLISP,
		}[be.Uint16(v.in[v.ip.l4+2:])]
		return e, ok
	}
	return 0, false
}

// decapsulate steps to the inner packet. tunnel is false where there is none for us.
func (v *view) decapsulate() (tunnel bool, r string) {
	ip := v.ip
	enc, known := v.kindOfTunnel()
	if v.port.Role&maps.RoleUnderlay == 0 || !known || ip.laterFragment || !v.ours() {
		return false, ""
	}
	if v.hosts[host{maps.SpaceLocator, ip.dst}] != maps.LocatorOwn {
		return false, ""
	}
	if ip.fragment {
		return true, "drop_outer_fragment"
	}
	at, end := ip.l4, v.l3+ip.len
	if ip.proto == 17 {
		n := int(be.Uint16(v.in[at+4:]))
		if n < 8 || n > end-at {
			return true, "drop_tunnel_header"
		}
		at, end = at+8, at+n
	}
	if ip.l4 > reach/2 {
		return true, "drop_tunnel_header"
	}
	from := v.hosts[host{maps.SpaceLocator, ip.src}]
	if from == 0 || from == maps.LocatorOwn {
		return true, "drop_unknown_locator"
	}
	c, r := v.open(enc, at, end)
	switch {
	case r != "":
		return true, r
	case c.at > reach || c.at > end:
		return true, "drop_tunnel_header"
	}
	if v.tenant, r = v.tenantOf(c, uint16(from), enc); r != "" {
		return true, r
	}
	v.inside = &outer{uint16(from), ip.ttl, ip.tos, v.l3, ip.l4}
	v.kind, v.l3 = c.kind, c.at
	return true, v.inner(enc, end)
}

// inner judges the packet that was found, and gives it what the outer header has to say.
func (v *view) inner(enc encapsulation, end int) string {
	if v.bridge != 0 && v.kind == 0x0806 {
		return v.bridgedARP(end)
	}
	switch r := v.parse(end - v.l3); {
	case r == "pass_not_ip":
		return "drop_inner_not_ip"
	case r != "":
		return r
	}
	if v.bridge != 0 {
		if r := v.bridgedIP(); r != "" {
			return r
		}
	}
	switch v.ip.scope() {
	case "":
	case "pass_link_local":
		return "pass_link_local" // a probe, perhaps
	default:
		return "drop_martian"
	}
	if r := v.congestion(); r != "" {
		return r
	}
	if enc == encLISP {
		v.ip.ttl = min(v.ip.ttl, v.inside.ttl)
	}
	if mtu := v.locators[v.inside.locator].Mtu; mtu != 0 {
		v.clamp(mtu)
	}
	return ""
}

// tenantOf is whose packet it is: by its number, or all that comes from there.
func (v *view) tenantOf(c content, from uint16, enc encapsulation) (uint16, string) {
	if !c.hasVNI {
		if t := v.locators[from].Tenant; t != 0 {
			return t, ""
		}
		return 0, "drop_no_tenant"
	}
	b := be.AppendUint32(nil, c.vni)
	switch t := v.hosts[host{maps.SpaceVNI, addrFrom(b)}]; {
	case t&maps.VNISegment != 0 && enc == encVXLAN:
		v.bridge = uint16(t &^ maps.VNISegment)
		return v.segments[v.bridge].Tenant, ""
	case t == 0, t&maps.VNISegment != 0:
		return 0, "drop_unknown_vni"
	case c.group:
		return 0, "drop_inner_not_ip"
	default:
		return uint16(t), ""
	}
}

// open reads the header of an encapsulation at offset at, of a packet that ends at end.
func (v *view) open(enc encapsulation, at, end int) (content, string) {
	if enc == encIP {
		return content{at: at, kind: map[uint8]uint16{4: 0x0800, 41: 0x86dd}[v.ip.proto]}, ""
	}
	least := 8
	if enc == encGRE || enc == encGUE {
		least = 4
	}
	if len(v.in) < at+8 || at+least > end {
		return content{}, "drop_tunnel_header"
	}
	h := v.in[at : at+8]
	vni := be.Uint32(h[4:]) >> 8
	switch enc {
	case encVXLAN:
		if h[0]&0x08 == 0 {
			return content{}, "drop_tunnel_header"
		}
		c := content{at: at + 8, vni: vni, hasVNI: true}
		if v.tune.Bridging && c.at+14 <= end && v.in[c.at]&1 == 1 { // for all of a segment, perhaps a question
			return content{c.at + 14, be.Uint16(v.in[c.at+12:]), vni, true, true}, ""
		}
		return v.ethernet(c, end)
	case encGPE:
		switch {
		case h[0]&0x01 != 0:
			return content{}, "drop_tunnel_control"
		case h[0]&0xfc != 0x0c:
			return content{}, "drop_tunnel_header"
		}
		return v.next(content{at: at + 8, vni: vni, hasVNI: true}, end, h[3])
	case encGeneve:
		return v.geneve(h, at, end)
	case encGUE:
		return v.gue(h, at, end)
	case encLISP:
		return v.lisp(h, at, end)
	}
	return v.gre(h, at, end)
}

func (v *view) ethernet(c content, end int) (content, string) {
	if c.at+14 > end {
		return c, "drop_tunnel_header"
	}
	if v.in[c.at]&1 == 1 {
		return c, "drop_inner_not_ip"
	}
	c.kind, c.at = be.Uint16(v.in[c.at+12:]), c.at+14
	return c, ""
}

// next is the next protocol of VXLAN-GPE and LISP-GPE.
func (v *view) next(c content, end int, proto uint8) (content, string) {
	switch proto {
	case 1:
		c.kind = 0x0800
	case 2:
		c.kind = 0x86dd
	case 3:
		return v.ethernet(c, end)
	default:
		return c, "drop_inner_not_ip"
	}
	return c, ""
}

func (v *view) byVersion(c content) (content, string) {
	c.kind = 0x0800
	if v.in[c.at]>>4 == 6 {
		c.kind = 0x86dd
	}
	return c, ""
}

func (v *view) byEthertype(c content, end int, kind uint16) (content, string) {
	if kind == 0x6558 {
		return v.ethernet(c, end)
	}
	c.kind = kind
	return c, ""
}

func (v *view) geneve(h []byte, at, end int) (content, string) {
	c := content{at: at + 8 + int(h[0]&63)*4, vni: be.Uint32(h[4:]) >> 8, hasVNI: true}
	switch {
	case h[0]>>6 != 0:
		return c, "drop_tunnel_header"
	case h[1]&0x80 != 0:
		return c, "drop_tunnel_control"
	case h[1]&0x40 != 0:
		return c, "drop_tunnel_option"
	case c.at > end:
		return c, "drop_tunnel_header"
	}
	return v.byEthertype(c, end, be.Uint16(h[2:]))
}

func (v *view) gue(h []byte, at, end int) (content, string) {
	c := content{at: at + 4 + int(h[0]&31)*4}
	switch {
	case h[0]>>6 == 1:
		return v.byVersion(content{at: at})
	case h[0]>>6 != 0:
		return c, "drop_tunnel_header"
	case h[0]&0x20 != 0:
		return c, "drop_tunnel_control"
	case h[2]|h[3] != 0:
		return c, "drop_tunnel_option"
	case c.at > end:
		return c, "drop_tunnel_header"
	case h[1] == 4:
		c.kind = 0x0800
	case h[1] == 41:
		c.kind = 0x86dd
	default:
		return c, "drop_inner_not_ip"
	}
	return c, ""
}

func (v *view) lisp(h []byte, at, end int) (content, string) {
	c := content{at: at + 8}
	if h[0]&0x08 != 0 {
		c.vni, c.hasVNI = be.Uint32(h[4:])>>8, true
	}
	switch {
	case h[0]&0x03 != 0: // encrypted
		return c, "drop_tunnel_option"
	case c.at >= end:
		return c, "drop_tunnel_header"
	case h[0]&0x04 != 0:
		return v.next(c, end, h[3])
	}
	return v.byVersion(c)
}

func (v *view) gre(h []byte, at, end int) (content, string) {
	c := content{at: at + 4}
	if h[0]&0x4f != 0 || h[1] != 0 {
		return c, "drop_tunnel_header"
	}
	if h[0]&0x80 != 0 {
		if onesComplement(v.in[at:end]) != 0xffff {
			return c, "drop_tunnel_checksum"
		}
		c.at += 4
	}
	if h[0]&0x20 != 0 {
		if len(v.in) < c.at+4 {
			return c, "drop_tunnel_header"
		}
		key := be.Uint32(v.in[c.at:])
		if key > 0xffffff {
			return c, "drop_unknown_vni"
		}
		c.vni, c.hasVNI = key, true
		c.at += 4
	}
	if h[0]&0x10 != 0 {
		c.at += 4
	}
	if c.at > end {
		return c, "drop_tunnel_header"
	}
	return v.byEthertype(c, end, be.Uint16(h[2:]))
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

// sender says whether the packet may come from where it came: RFC 3704, section 2.2.
func (v *view) sender(to maps.Nexthop) bool {
	if v.tune.SourceCheck == maps.SourceOff {
		return true
	}
	strict := v.tune.SourceCheck == maps.SourceStrict
	id := v.hosts[host{v.tenant, v.ip.src}]
	if id == 0 && strict {
		id = v.cover(v.tenant, v.ip.src)
	}
	route := v.nexthops[id]
	moving := (route.Flags|to.Flags)&(maps.FlagHeld|maps.FlagMoved) != 0
	switch {
	case route.Kind == maps.KindOwn, route.Kind == maps.KindBlackhole:
		return false
	case v.isError():
		return true
	case route.Kind == maps.KindGateway:
		return false
	case !strict, moving:
		return true
	}
	return v.leadsBack(route) || v.leadsBack(v.nexthops[v.way(v.ip.src, v.ip.dst)]) || v.leadsBack(v.nexthops[v.way(v.ip.dst, v.ip.src)])
}

// leadsBack says whether a route leads to the locator that the packet came from.
func (v *view) leadsBack(n maps.Nexthop) bool {
	switch n.Kind {
	case maps.KindSet:
		for _, id := range v.sets[n.Index].Member {
			if member := v.nexthops[id]; member.Kind != maps.KindSet && v.leadsBack(member) {
				return true
			}
		}
	case maps.KindAdjacency:
		return v.adjacencies[n.Index].locator == v.inside.locator
	case maps.KindUnresolved:
		return v.locators[uint16(n.Index)].Number == v.inside.locator
	}
	return false
}

// choose follows a set to this flow's member, and a member to its tunnel.
func (v *view) choose(next maps.Nexthop, flow uint32) (tunnel, string) {
	if next.Kind == maps.KindSet {
		if int(next.Index) >= maps.Sets {
			return tunnel{}, "drop_nexthop"
		}
		next = v.nexthops[v.sets[next.Index].Member[flow%64]]
	}
	if next.Kind == maps.KindUnresolved {
		return tunnel{}, "drop_unresolved"
	}
	tun, ok := v.adjacencies[next.Index]
	if next.Kind != maps.KindAdjacency || !ok {
		return tunnel{}, "drop_nexthop"
	}
	return tun, ""
}

// tunnel sends the packet to another site.
func (v *view) tunnel(next maps.Nexthop, exact bool) want {
	if v.inside != nil {
		switch {
		case !v.home && (!exact || next.Flags&maps.FlagHeld == 0):
			return reason("drop_tunnel_loop")
		case v.inside.ttl <= 1:
			return reason("drop_tunnel_ttl")
		}
	}
	flow := v.flow()
	tun, r := v.choose(next, flow)
	hops, expired := v.hops()
	switch {
	case r != "":
		return reason(r)
	case v.inside != nil && !v.home && v.inside.locator == tun.locator:
		return reason("drop_tunnel_back")
	case v.ip.len > int(tun.mtu):
		return v.refuse("drop_mtu", next, tun.mtu)
	case expired:
		return v.refuse("drop_ttl", next, tun.mtu)
	}
	v.clamp(tun.mtu)
	x := want{reason: "fwd_encap", locator: tun.locator, out: v.encapsulate(tun, flow, hops)}
	if v.inside != nil {
		x.reason = "fwd_reencap"
		if v.home {
			x.reason = "fwd_home"
		}
	}
	return v.leave(x, tun.port)
}

// outside is the traffic class and TTL of the outer header.
func (v *view) outside(t tunnel, hops uint8) (tos, ttl uint8) {
	tos, ttl = v.ip.tos&0xfc, 64
	if v.tune.OuterDSCP != maps.DSCPCopy {
		tos = v.tune.OuterDSCP << 2
	}
	if !t.noECN {
		tos |= v.ip.tos & 3
	}
	if t.enc == encLISP {
		ttl = v.ip.ttl - hops
	}
	if v.inside != nil {
		ttl = v.inside.ttl - 1
	}
	return tos, ttl
}

func (v *view) encapsulate(t tunnel, flow uint32, hops uint8) []byte {
	ip, tail := v.packet(hops)
	if len(ip)+len(tail) > int(t.mtu) {
		tail = nil
	}
	tos, ttl := v.outside(t, hops)
	addresses := append(t.local.AsSlice(), t.remote.AsSlice()...)
	body := append(v.shimOf(t), ip...)
	proto := uint8(47)
	switch {
	case t.udpPort() != 0:
		proto = 17
		body = v.datagram(t, flow, body, addresses)
	case t.enc == encIP:
		proto = map[bool]uint8{false: 4, true: 41}[v.ip.v6]
	}
	var out []byte
	if t.remote.Is4() {
		h := append([]byte{0x45, tos, 0, 0, 0, 0, 0x40, 0, ttl, proto, 0, 0}, addresses...)
		be.PutUint16(h[2:], uint16(20+len(body)))
		be.PutUint16(h[10:], ^uint16(onesComplement(h)))
		out = append(ethernetHeader(t.dst, t.src, 0x0800), h...)
	} else {
		h := be.AppendUint32(nil, 6<<28|uint32(tos)<<20|flow&0xfffff)
		h = be.AppendUint16(h, uint16(len(body)))
		h = append(append(h, proto, ttl), addresses...)
		out = append(ethernetHeader(t.dst, t.src, 0x86dd), h...)
	}
	return append(append(out, body...), tail...)
}

// datagram puts the UDP header in front, with its checksum where the tunnel has one.
func (v *view) datagram(t tunnel, flow uint32, payload, addresses []byte) []byte {
	body := be.AppendUint16(nil, uint16(0xc000|flow>>18))
	body = be.AppendUint16(body, t.udpPort())
	body = be.AppendUint16(body, uint16(8+len(payload)))
	body = append(append(body, 0, 0), payload...)
	if t.checksum {
		pseudo := be.AppendUint32(bytes.Clone(addresses), uint32(len(body)))
		check := ^uint16(onesComplement(append(append(pseudo, 0, 0, 0, 17), body...)))
		if check == 0 {
			check = 0xffff
		}
		be.PutUint16(body[6:], check)
	}
	return body
}

// shimOf lays out the tunnel's own header, octet by octet as the documents draw them.
func (v *view) shimOf(t tunnel) []byte {
	hi, mid, lo := byte(t.vni>>16), byte(t.vni>>8), byte(t.vni)
	kind := []byte{byte(v.kind >> 8), byte(v.kind)}
	ethernet := append(append(append([]byte(nil), t.innerDst[:]...), t.innerSrc[:]...), kind...)
	next, proto := byte(1), byte(4)
	if v.ip.v6 {
		next, proto = 2, 41
	}
	switch t.enc {
	case encVXLAN:
		return append([]byte{8, 0, 0, 0, hi, mid, lo, 0}, ethernet...)
	case encGPE:
		return []byte{12, 0, 0, next, hi, mid, lo, 0}
	case encGeneve:
		return []byte{0, 0, kind[0], kind[1], hi, mid, lo, 0}
	case encGeneveEthernet:
		return append([]byte{0, 0, 0x65, 0x58, hi, mid, lo, 0}, ethernet...)
	case encGRE:
		return []byte{0, 0, kind[0], kind[1]}
	case encGREKey:
		return []byte{0x20, 0, kind[0], kind[1], 0, hi, mid, lo}
	case encGUE:
		return []byte{0, proto, 0, 0}
	case encLISP:
		return []byte{8, 0, 0, 0, hi, mid, lo, 0}
	}
	return nil
}
