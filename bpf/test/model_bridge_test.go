package bpftest

import (
	"bytes"

	"roam/maps"
)

// What peers bridge to a segment, in the model.

// bridgedTo is the MAC that the frame inside is for.
func (v *view) bridgedTo() mac { return mac(v.in[v.l3-14:]) }

func (v *view) bridgedToGroup() bool { return v.bridgedTo()[0]&1 == 1 }

func (v *view) bridgedARP(end int) string {
	if end-v.l3 < 28 {
		return "drop_short"
	}
	if reply := v.arpReply(v.in[v.l3-14 : end]); reply != nil {
		return v.answerBack("fwd_arp", reply, v.in[end:])
	}
	if v.bridgedToGroup() {
		return "drop_flood"
	}
	return "drop_inner_not_ip"
}

func (v *view) bridgedIP() string {
	if v.ip.v6 && v.ip.proto == 58 {
		if advert := v.advertisement(v.l3 - 14); advert != nil {
			return v.answerBack("fwd_nd", advert, nil)
		}
	}
	if v.bridgedToGroup() {
		return "drop_flood"
	}
	return ""
}

// answerBack puts an answer into the tunnel that the question came by, the other way round.
func (v *view) answerBack(r string, inner, trailer []byte) string {
	o := v.in[v.inside.l3:]
	addresses, tos := 12, byte(0)
	if o[0]>>4 == 6 {
		addresses = 8
	}
	size := (v.inside.l4 - v.inside.l3 - addresses) / 2
	if want := map[int]int{12: 4, 8: 16}[addresses]; size != want || v.in[6]&1 == 1 {
		v.reply = reason("drop_tunnel_header") // options
		return v.reply.reason
	}
	swapped := append(bytes.Clone(o[addresses+size:addresses+2*size]), o[addresses:addresses+size]...)
	if v.tune.OuterDSCP != maps.DSCPCopy {
		tos = v.tune.OuterDSCP << 2
	}
	l4 := v.in[v.inside.l4:]
	vxlan := append([]byte{8, 0, 0, 0}, l4[12], l4[13], l4[14], 0)
	body := append([]byte{l4[0] | 0xc0, l4[1], l4[2], l4[3], 0, 0, 0, 0}, append(vxlan, inner...)...)
	be.PutUint16(body[4:], uint16(len(body)))
	out := append(append(bytes.Clone(v.in[6:12]), v.port.Mac[:]...), v.in[12:v.inside.l3]...)
	if size == 4 {
		h := append([]byte{0x45, tos, 0, 0, 0, 0, 0x40, 0, 64, 17, 0, 0}, swapped...)
		be.PutUint16(h[2:], uint16(20+len(body)))
		be.PutUint16(h[10:], ^uint16(onesComplement(h)))
		out = append(out, h...)
	} else {
		h := be.AppendUint32(nil, 6<<28|uint32(tos)<<20|be.Uint32(o)&0xfffff)
		h = append(be.AppendUint16(h, uint16(len(body))), 17, 64)
		out = append(append(out, h...), swapped...)
		if v.locators[v.inside.locator].Options&maps.LocatorZeroCsum == 0 {
			pseudo := be.AppendUint32(bytes.Clone(swapped), uint32(len(body)))
			be.PutUint16(body[6:], ^uint16(onesComplement(append(append(pseudo, 0, 0, 0, 17), body...))))
			if body[6]|body[7] == 0 {
				body[6], body[7] = 0xff, 0xff
			}
		}
	}
	out = append(append(out, body...), trailer...)
	v.reply = v.leave(want{reason: r, locator: v.inside.locator, out: out}, v.slot)
	return v.reply.reason
}
