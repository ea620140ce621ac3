package bpftest

import (
	"net/netip"

	"roam/maps"
)

// Errors to senders, and TCP's maximum segment size, in the model.

// isError says whether the packet is an ICMP error, about which nothing is ever said.
func (v *view) isError() bool {
	if v.ip.laterFragment || v.ip.l4 >= v.l3+v.ip.len {
		return false
	}
	kind := v.in[v.ip.l4]
	if v.ip.v6 {
		return v.ip.proto == 58 && kind < 128
	}
	switch kind {
	case 3, 4, 5, 11, 12: // unreachable, quench, redirect, time exceeded, parameter problem
		return v.ip.proto == 1
	}
	return false
}

// refuse ends a packet on its way to a next hop: too large for what the way carries, or too old.
func (v *view) refuse(why string, next maps.Nexthop, mtu uint16) want {
	if v.port.Role&maps.RoleFragment != 0 || next.Flags&(maps.FlagHeld|maps.FlagMoved) != 0 {
		return reason(why)
	}
	if why == "drop_mtu" && v.ip.mayFragment {
		t := v.tenants[v.tenant]
		if t.Flags&maps.TenantFragment == 0 {
			return reason(why)
		}
		if v.ip.ttl > 1 {
			return v.toFragment(t)
		}
		why = "drop_ttl" // the kernel would take the last
	}
	return v.tell(why, mtu)
}

// toFragment hands the packet to the kernel, which cuts it.
func (v *view) toFragment(t maps.Tenant) want {
	out, ok := v.ports[t.Fragment]
	if !ok || out.Ifindex == 0 {
		return reason("drop_mtu")
	}
	if v.ip.len > int(out.Mtu) {
		return reason("drop_mtu")
	}
	f := linkTo(out, t.FragmentMac)
	return v.leave(want{reason: "fwd_fragment", out: f.around(v.within(out.Mtu, 0), v.kind)}, t.Fragment)
}

// tell sends the error to the packet's sender, by the way that the packet came.
func (v *view) tell(why string, mtu uint16) want {
	from := v.reporter()
	if v.tune.ICMPRate == 0 || v.ip.laterFragment || v.isError() || from.IsUnspecified() {
		return reason(why)
	}
	message := v.message(why, mtu, from)
	x := want{reason: map[string]string{"drop_mtu": "fwd_too_big", "drop_ttl": "fwd_expired"}[why]}
	if v.inside == nil {
		if v.in[6]&1 == 1 || len(message) > int(v.port.Mtu) {
			return reason(why)
		}
		x.out = linkTo(v.port, mac(v.in[6:12])).around(message, v.kind)
		return v.leave(x, v.slot)
	}
	e := &view{tables: v.tables, in: append(ethernetHeader(mac{}, mac{}, v.kind), message...), l3: 14, kind: v.kind, tenant: v.tenant}
	if r := e.parse(len(message)); r != "" {
		panic("the model made an error message that does not parse: " + r)
	}
	id, _ := e.lookup(e.ip.dst)
	if way := v.way(v.ip.dst, v.ip.src); way > maps.WayHere {
		id = way
	}
	next := v.nexthops[id]
	flow := e.flow()
	tun, r := e.choose(next, flow)
	if next.Kind != maps.KindAdjacency && next.Kind != maps.KindSet || r != "" || len(message) > int(tun.mtu) {
		return reason(why)
	}
	x.locator, x.out = tun.locator, e.encapsulate(tun, flow, 0)
	return v.leave(x, tun.port)
}

// reporter is the address that an error to the sender comes from: of its segment, or of its tenant.
func (v *view) reporter() netip.Addr {
	s, ok := v.segment()
	t := v.tenants[v.tenant]
	if v.inside != nil {
		ok = false
	}
	if v.ip.v6 {
		if ok && s.Icmp6 != [4]uint32{} {
			return fromWire6(s.Icmp6)
		}
		return fromWire6(t.Icmp6)
	}
	if ok && s.Icmp4 != 0 {
		return fromWire4(s.Icmp4)
	}
	return fromWire4(t.Icmp4)
}

// message is the whole ICMP error: as much of the packet as RFC 1812, section 4.3.2.3 and RFC 4443, section 2.4 allow.
func (v *view) message(why string, mtu uint16, from netip.Addr) []byte {
	quote, _ := v.packet(0)
	if v.ip.v6 {
		quote = quote[:min(len(quote), 1280-48)]
		m := append([]byte{3, 0, 0, 0, 0, 0, 0, 0}, quote...)
		if why == "drop_mtu" {
			m[0] = 2
			be.PutUint32(m[4:], uint32(max(mtu, 1280)))
		}
		m = icmp6(from, v.ip.src, m, 0)
		h := be.AppendUint32(nil, 6<<28|0xc0<<20)
		h = append(be.AppendUint16(h, uint16(len(m))), 58, 64)
		return append(append(append(h, from.AsSlice()...), v.ip.src.AsSlice()...), m...)
	}
	quote = quote[:min(len(quote), 576-28)]
	m := append([]byte{11, 0, 0, 0, 0, 0, 0, 0}, quote...)
	if why == "drop_mtu" {
		m[0], m[1] = 3, 4
		be.PutUint16(m[6:], mtu)
	}
	be.PutUint16(m[2:], ^uint16(onesComplement(m)))
	h := append([]byte{0x45, 0xc0, 0, 0, 0, 0, 0x40, 0, 64, 1, 0, 0}, append(from.AsSlice(), v.ip.src.AsSlice()...)...)
	be.PutUint16(h[2:], uint16(len(h)+len(m)))
	be.PutUint16(h[10:], ^uint16(onesComplement(h)))
	return append(h, m...)
}

// clamp lowers what a SYN says its sender takes to what fits into mtu: RFC 9293, section 3.7.1.
func (v *view) clamp(mtu uint16) {
	headers := 40
	if v.ip.v6 {
		headers = 60
	}
	at, end := v.ip.l4, v.l3+v.ip.len
	fits := int(mtu) - headers
	if !v.tune.ClampMSS || v.ip.proto != 6 || v.ip.laterFragment || fits <= 0 || at+20 > end {
		return
	}
	options := at + int(v.in[at+12]>>4)*4
	if v.in[at+13]&2 == 0 || options > end {
		return
	}
	for i := at + 20; i+4 <= options && i <= reach; {
		switch kind, n := v.in[i], int(v.in[i+1]); {
		case kind == 0:
			return
		case kind == 1:
			i++
		case kind == 2 && n == 4:
			if int(be.Uint16(v.in[i+2:])) > fits {
				v.lowerMSS(at, i+2, uint16(fits))
			}
			return
		case n < 2:
			return
		default:
			i += n
		}
	}
}

// lowerMSS writes the value, and corrects the checksum by the words that it lies in: a wrong one must stay wrong.
func (v *view) lowerMSS(tcp, at int, mss uint16) {
	in := append([]byte(nil), v.in...)
	first := at - (at-tcp)&1
	words := in[first : first+2+2*((at-tcp)&1)]
	old := onesComplement(words)
	be.PutUint16(in[at:], mss)
	sum := uint32(^be.Uint16(in[tcp+16:])) + (0xffff - old) + onesComplement(words)
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	be.PutUint16(in[tcp+16:], ^uint16(sum))
	v.in = in
}
