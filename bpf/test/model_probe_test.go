package bpftest

import "bytes"

// Probes of the tunnel in the model.

// probe is what becomes of a packet between link-local addresses that came in a tunnel packet with this outer header.
func (v *view) probe(outer header) want {
	question := v.ip.src == probeAddr(v.ip.v6, asking) && v.ip.dst == probeAddr(v.ip.v6, answering)
	answer := v.ip.src == probeAddr(v.ip.v6, answering) && v.ip.dst == probeAddr(v.ip.v6, asking)
	link := 14 + 4*len(linkTo(v.port, mac{}).tags)
	switch {
	case len(v.in)-link > int(v.port.Mtu):
		return reason("drop_probe")
	case !question && !answer:
		return reason("drop_martian")
	}
	kind, proto, l4 := byte(8), byte(1), v.l3+20
	if v.ip.v6 {
		kind, proto, l4 = 128, 58, v.l3+40
	}
	if answer {
		kind = map[bool]byte{false: 0, true: 129}[v.ip.v6]
	}
	message := v.in[min(l4, v.l3+v.ip.len) : v.l3+v.ip.len]
	if v.ip.proto != proto || v.ip.l4 != l4 || v.ip.fragment || len(message) < 16 || !v.echoRight(message) || message[0] != kind || message[1] != 0 {
		return reason("drop_probe")
	}
	out := bytes.Clone(v.in)
	if answer {
		be.PutUint16(out[link-2:], 0x88b6)
		return want{reason: "pass_probe", out: out}
	}
	if !v.turn(out, outer, link, be.Uint16(message[4:])) {
		return reason("drop_probe")
	}
	// The echo is the other kind, its checksum one that was made anew.
	m := out[l4 : v.l3+v.ip.len]
	m[0] = map[bool]byte{false: 0, true: 129}[v.ip.v6]
	m[2], m[3] = 0, 0
	be.PutUint16(m[2:], ^uint16(onesComplement(append(v.pseudo(len(m)), m...))))
	return v.leave(want{reason: "fwd_probe", out: out}, v.slot)
}

func (v *view) echoRight(message []byte) bool {
	return onesComplement(append(v.pseudo(len(message)), message...)) == 0xffff
}

// pseudo is what an ICMPv6 checksum covers in front of the message.
func (v *view) pseudo(n int) []byte {
	if !v.ip.v6 {
		return nil
	}
	b := append(v.ip.src.AsSlice(), v.ip.dst.AsSlice()...)
	return append(be.AppendUint32(b, uint32(n)), 0, 0, 0, 58)
}

func swap(a, b []byte) {
	old := bytes.Clone(a)
	copy(a, b)
	copy(b, old)
}

// turn sends everything outside the echo back; false where that is not possible.
func (v *view) turn(out []byte, outer header, link int, port uint16) bool {
	n := 20
	if outer.v6 {
		n = 40
	}
	kind := be.Uint16(v.in[link-2:])
	if outer.l4 != link+n || kind != 0x0800 && kind != 0x86dd {
		return false // options, extension headers, a priority tag
	}
	swap(out[0:6], out[6:12])
	ip := out[link : link+n]
	if outer.v6 {
		swap(ip[8:24], ip[24:40])
		ip[1] &= 0xcf
		ip[7] = 64
	} else {
		swap(ip[12:16], ip[16:20])
		ip[1] &= 0xfc
		ip[8], ip[10], ip[11] = 64, 0, 0
		be.PutUint16(ip[10:], ^uint16(onesComplement(ip)))
	}
	shim := outer.l4
	var dst uint16
	if outer.proto == 17 {
		u := out[shim:]
		dst = be.Uint16(u[2:])
		if port == 0 {
			return false
		}
		if sum := be.Uint16(u[6:]); sum != 0 {
			sum = ^uint16(onesComplement(be.AppendUint16(be.AppendUint16(be.AppendUint16(nil, ^sum), ^dst), port)))
			if sum == 0 {
				sum = 0xffff
			}
			be.PutUint16(u[6:], sum)
		}
		be.PutUint16(u[2:], port)
		shim += 8
	}
	p := v.tune.Ports
	ethernet := outer.proto == 17 && dst == p.VXLAN
	if outer.proto == 47 || outer.proto == 17 && dst == p.Geneve {
		ethernet = be.Uint16(v.in[shim+2:]) == 0x6558
	}
	if ethernet {
		swap(out[v.l3-14:v.l3-8], out[v.l3-8:v.l3-2])
	}
	inner := out[v.l3:]
	if v.ip.v6 {
		swap(inner[8:24], inner[24:40])
	} else {
		swap(inner[12:16], inner[16:20])
	}
	return true
}
