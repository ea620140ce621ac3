package bpftest

import (
	"net/netip"
	"slices"

	"github.com/gopacket/gopacket/layers"

	"roam/maps"
)

// mangled is a case of one change that leads to one reason.
func mangled(reason string, change func(c *cell, in *tunnelled) bool) func(c *cell) {
	return func(c *cell) {
		in := c.from(c.remote(here))
		if change(c, &in) {
			c.expect(in.bytes(), c.drop(reason))
		}
	}
}

// tolerated is a case of one change that makes no difference.
func tolerated(change func(c *cell, in *tunnelled)) func(c *cell) {
	return func(c *cell) {
		in := c.from(c.remote(here))
		change(c, &in)
		c.expect(in.bytes(), c.delivered(in.inner, in.trailer...))
	}
}

// shimCase sends every header that spoil makes of an encapsulation's.
func shimCase(spoil map[encapsulation][]spoiledShim) func(c *cell) {
	return func(c *cell) {
		for _, s := range spoil[c.enc] {
			in := c.from(c.remote(here))
			in.shim = s.change(slices.Clone(in.shim), c)
			if s.reason == "" {
				c.expect(in.bytes(), c.delivered(in.inner))
			} else {
				c.expect(in.bytes(), c.drop(s.reason))
			}
		}
	}
}

type spoiledShim struct {
	reason string // "" for a header that is all right
	change func(b []byte, c *cell) []byte
}

// octet sets one octet of the header.
func octet(at int, value byte) func(b []byte, c *cell) []byte {
	return func(b []byte, _ *cell) []byte {
		b[at] = value
		return b
	}
}

// inserted puts octets into the header, and changes the first one.
func inserted(at int, first byte, octets ...byte) func(b []byte, c *cell) []byte {
	return func(b []byte, _ *cell) []byte {
		b[0] |= first
		return slices.Insert(b, at, octets...)
	}
}

// bridged puts an Ethernet header behind a header that carries none otherwise.
func bridged(at int, kind ...byte) func(b []byte, c *cell) []byte {
	return func(b []byte, c *cell) []byte {
		copy(b[at:], kind)
		return append(b, ethernetHeader(routerUs, routerB, c.inner.ethertype())...)
	}
}

// summed adds the GRE checksum, wrong by so much.
func summed(off uint16) func(b []byte, c *cell) []byte {
	return func(b []byte, c *cell) []byte {
		b[0] |= 0x80
		b = slices.Insert(b, 4, 0, 0, 0, 0)
		sum := onesComplement(append(slices.Clone(b), c.remote(here).bytes()...))
		be.PutUint16(b[4:], ^uint16(sum)+off)
		return b
	}
}

var sequence = inserted(4, 0x10, 1, 2, 3, 4)

// What RFC 7348 5, draft-ietf-nvo3-vxlan-gpe 3, RFC 8926 3.4, RFC 2784 2 and 2890 2, draft-ietf-intarea-gue 3 and RFC 9300 5.1 allow besides.
var rightShims = map[encapsulation][]spoiledShim{
	encVXLAN:          {{"", octet(0, 0xff)}, {"", octet(1, 0x7f)}, {"", octet(7, 0xff)}, {"", octet(8, 0x0e)}},
	encGPE:            {{"", octet(0, 0x0e)}, {"", octet(1, 0xff)}, {"", octet(7, 0xff)}, {"", bridged(3, 3)}},
	encGeneve:         {{"", inserted(8, 1, 1, 2, 3, 0)}, {"", octet(1, 0x3f)}, {"", octet(7, 0xff)}, {"", inserted(8, 63, make([]byte, 252)...)}},
	encGeneveEthernet: {{"", inserted(8, 2, 1, 2, 3, 1, 9, 9, 9, 9)}, {"", octet(8, 0x0e)}},
	encGRE:            {{"", sequence}, {"", summed(0)}, {"", bridged(2, 0x65, 0x58)}},
	encGREKey: {
		{"", func(b []byte, _ *cell) []byte { return inserted(8, 0x10, 1, 2, 3, 4)(b, nil) }}, {"", summed(0)}, {"", bridged(2, 0x65, 0x58)},
	},
	encGUE: {
		{"", inserted(4, 1, 1, 2, 3, 4)},
		{"", inserted(4, 31, make([]byte, 124)...)},
		{"", func([]byte, *cell) []byte { return nil }}, // variant 1: no header
	},
	encLISP: {
		{"", octet(0, 0x88)},
		{"", octet(0, 0xc8)},
		{"", octet(0, 0x28)},
		{"", octet(0, 0x18)},
		{"", octet(7, 0xff)},
		{"", func(b []byte, c *cell) []byte { b[0], b[3] = 0x0c, byte(1+c.inner); return b }}, // LISP-GPE
		{"", func(b []byte, c *cell) []byte { b[0] = 0x0c; return bridged(3, 3)(b, c) }},
		{"", func(b []byte, c *cell) []byte { b[0] = 0; return b }}, // no instance: the locator's tenant
	},
}

var wrongShims = map[encapsulation][]spoiledShim{
	encVXLAN: {
		{"drop_tunnel_header", octet(0, 0)},
		{"drop_tunnel_header", octet(0, 0xf7)},
		{"drop_inner_not_ip", octet(8, 0x01)},
		{"drop_inner_not_ip", octet(21, 6)},
		{"drop_inner_not_ip", octet(20, 0x81)},
	},
	encGPE: {
		{"drop_tunnel_header", octet(0, 0x04)},
		{"drop_tunnel_header", octet(0, 0x08)},
		{"drop_tunnel_header", octet(0, 0x1c)},
		{"drop_tunnel_header", octet(0, 0x2c)},
		{"drop_tunnel_control", octet(0, 0x0d)},
		{"drop_inner_not_ip", octet(3, 0)},
		{"drop_inner_not_ip", octet(3, 4)},
		{"drop_inner_not_ip", func(b []byte, c *cell) []byte { b = bridged(3, 3)(b, c); b[8] = 1; return b }},
	},
	encGeneve: {
		{"drop_tunnel_header", octet(0, 0x40)},
		{"drop_tunnel_header", octet(0, 0xc0)},
		{"drop_tunnel_control", octet(1, 0x80)},
		{"drop_tunnel_option", octet(1, 0x40)},
		{"drop_tunnel_header", octet(0, 0x3f)},
		{"drop_inner_not_ip", octet(3, 0x06)},
		{"drop_inner_not_ip", octet(2, 0x88)},
	},
	encGeneveEthernet: {{"drop_inner_not_ip", octet(8, 0x33)}, {"drop_inner_not_ip", octet(21, 6)}, {"drop_tunnel_control", octet(1, 0xc0)}},
	encGRE: {
		{"drop_tunnel_header", octet(0, 0x40)},
		{"drop_tunnel_header", octet(0, 0x08)},
		{"drop_tunnel_header", octet(0, 0x07)},
		{"drop_tunnel_header", octet(1, 1)},
		{"drop_tunnel_header", octet(1, 0x80)},
		{"drop_inner_not_ip", octet(2, 0x88)},
		{"drop_tunnel_checksum", summed(1)},
		{"drop_inner_not_ip", func(b []byte, c *cell) []byte { b = bridged(2, 0x65, 0x58)(b, c); b[4] = 1; return b }},
	},
	encGREKey: {
		{"drop_unknown_vni", octet(4, 1)},
		{"drop_unknown_vni", func(b []byte, _ *cell) []byte { copy(b[4:], []byte{0xff, 0xff, 0xff, 0xff}); return b }},

		{"drop_tunnel_checksum", summed(0xff)},
		{"drop_inner_not_ip", octet(3, 6)},
		{"drop_tunnel_header", octet(1, 2)},
	},
	encGUE: {
		{"drop_tunnel_header", octet(0, 0x80)},
		{"drop_tunnel_header", octet(0, 0xc0)},
		{"drop_tunnel_control", octet(0, 0x20)},
		{"drop_tunnel_option", octet(2, 1)},
		{"drop_tunnel_option", octet(3, 0x80)},
		{"drop_inner_not_ip", octet(1, 17)},
		{"drop_inner_not_ip", octet(1, 59)},
	},
	encLISP: {
		{"drop_tunnel_option", octet(0, 0x09)},
		{"drop_tunnel_option", octet(0, 0x0a)},
		{"drop_tunnel_option", octet(0, 0x03)},
		{"drop_inner_not_ip", func(b []byte, _ *cell) []byte { b[0], b[3] = 0x0c, 4; return b }},
	},
}

// cutShort is a tunnel packet that ends n bytes into its header.
func cutShort(c *cell, n int) []byte {
	in := c.from(c.remote(here))
	in.shim = in.shim[:n]
	return append(in.with(nil), make([]byte, 60)...) // padding is no header
}

// source is a case about who is inside.
func source(accepted bool, change func(c *cell, p *packet)) func(c *cell) {
	return func(c *cell) {
		p := c.remote(here)
		change(c, &p)
		x := c.drop("drop_source")
		if accepted {
			x = c.delivered(p)
		}
		c.expect(c.from(p).bytes(), x)
	}
}

func sentBy(n int) func(c *cell, p *packet) {
	return func(c *cell, p *packet) { p.src = c.inner.addr(n) }
}

func errorBy(n int) func(c *cell, p *packet) {
	return func(c *cell, p *packet) {
		p.src, p.proto = c.inner.addr(n), [...]uint8{1, 58}[c.inner]
		p.payload = append([]byte{[...]byte{11, 3}[c.inner]}, counting(60)...)
	}
}

var decapCases = []matrixCase{
	{"plain", onWAN, tolerated(func(*cell, *tunnelled) {})},
	{"to a tagged underlay port", onWAN7, tolerated(func(*cell, *tunnelled) {})},
	{"on one arm", onOneArm, tolerated(func(*cell, *tunnelled) {})},
	{"to a host behind one tag, and two", onWAN, func(c *cell) {
		for _, n := range []int{here30, hereQ} {
			p := c.remote(n)
			c.expect(c.from(p).bytes(), c.deliveredTo(c.inner, n, c.arrived(p)))
		}
	}},
	{"what the header may also say", onWAN, shimCase(rightShims)},
	{"what it must not say", onWAN, shimCase(wrongShims)},
	{"header cut short", onWAN, func(c *cell) {
		for n := range len(c.from(c.remote(here)).shim) {
			if c.enc == encGUE && n == 0 {
				continue // nothing at all
			}
			c.expect(cutShort(c, n), c.drop("drop_tunnel_header"))
		}
	}},
	{"inner fragments, options, extension headers", onWAN, func(c *cell) {
		for _, change := range []func(p *packet){
			func(p *packet) { p.flags, p.extensions = layers.IPv4MoreFragments, []extension{firstPart} },
			func(p *packet) { p.offset, p.extensions = 185, []extension{laterPart} },
			func(p *packet) {
				p.options, p.extensions = slices.Repeat([]layers.IPv4Option{{OptionType: 1}}, 40), extensionChains[3]
			},
		} {
			p := c.remote(here)
			change(&p)
			c.expect(c.from(p).bytes(), c.delivered(p))
		}
	}},
	{"outer options, extension headers", onWAN, tolerated(func(c *cell, in *tunnelled) {
		in.ip.options, in.ip.extensions = []layers.IPv4Option{{OptionType: 1}}, []extension{destination}
	})},
	{"padding", onWAN, tolerated(func(c *cell, in *tunnelled) { in.trailer = slices.Repeat([]byte{0xdd}, 9) })},
	{"outer UDP checksum 0, or right", onWAN, func(c *cell) {
		for _, csum := range []bool{false, true} {
			if in := c.from(c.remote(here)); in.port != 0 {
				in.csum = csum
				c.expect(in.bytes(), c.delivered(in.inner))
			}
		}
	}},
	{"outer TTL 1: it has arrived", onWAN, func(c *cell) {
		in := c.from(c.remote(here))
		in.ip.ttl = 1
		x := c.delivered(in.inner)
		if c.enc == encLISP { // the shorter of the two counts
			in.inner.ttl = 1
			x = c.toldBack(c.t, c.tun(), in.inner, expired, 0)
			in.inner.ttl = 63
		}
		c.expect(in.bytes(), x)
	}},
	{"ECN: all sixteen, another DSCP outside", onWAN, func(c *cell) {
		table := [4][4]uint8{{0, 0, 0, 9}, {1, 1, 1, 3}, {2, 1, 2, 3}, {3, 3, 3, 3}} // RFC 6040, figure 4
		for inside := range uint8(4) {
			for outside := range uint8(4) {
				in := c.from(c.remote(here))
				in.inner.tos, in.ip.tos = 0xb8|inside, 0x24|outside
				x := c.drop("drop_ecn")
				if becomes := table[inside][outside]; becomes != 9 {
					p := in.inner
					p.tos = 0xb8 | becomes
					x = c.delivered(p)
				}
				c.expect(in.bytes(), x)
			}
		}
	}},
	{"inner TTL 1", onWAN, func(c *cell) {
		in := c.from(c.remote(here))
		in.inner.ttl = 1
		c.expect(in.bytes(), c.toldBack(c.t, c.tun(), in.inner, expired, 0))
	}},
	{"TTL kept between neighbours", onWANKeep, func(c *cell) {
		c.subnet()
		c.withTenant(keepingTTL, func() {
			p := c.remote(here)
			x := c.arrived(p)
			x.ttl++
			c.expect(c.from(p).bytes(), c.deliveredTo(c.inner, here, x))
		})
		p := c.remote(here)
		c.expect(c.from(p).bytes(), c.delivered(p))
	}},
	{"too big for the access port", onWAN, func(c *cell) {
		p := c.sizedRemote(here, 1501)
		c.expect(c.from(p).bytes(), c.toldBack(c.t, c.tun(), c.arrived(p), tooBig, 1500))
	}},
	{"too big, may be fragmented", onWAN, func(c *cell) {
		p := c.sizedRemote(here, 1501)
		if c.inner == v6 {
			return
		}
		p.flags = 0
		c.expect(c.from(p).bytes(), c.drop("drop_mtu"))
		c.withTenant(fragmenting, func() { c.expect(c.from(p).bytes(), c.toFragment(c.arrived(p))) })
	}},
	{"SYN, SYN-ACK: MSS clamped to the way back", onWAN, func(c *cell) {
		n := uint16(locatorB4 + int(c.outer))
		before := c.locators[n]
		small := before
		small.Mtu = 1333
		c.locator(n, small, b[c.outer])
		c.withSYN(c.remote(here), 1333, func(p, expected packet) { c.expect(c.from(p).bytes(), c.delivered(expected)) })
		c.locator(n, before, b[c.outer])
		p := syn(c.remote(here), 8960, false) // the way back is not known
		c.expect(c.from(p).bytes(), c.delivered(p))
	}},
	{"unknown tenant number", onWAN, mangled("drop_unknown_vni", func(c *cell, in *tunnelled) bool {
		if c.enc.hasVNI() {
			in.shim = c.enc.shim(vni1+1000, routerUs, routerB, c.inner)
		}
		return c.enc.hasVNI()
	})},
	{"another tenant's number", onWAN, func(c *cell) {
		if !c.enc.hasVNI() {
			return
		}
		p := c.remote(blackhole) // which is a host of ours there
		in := c.from(p)
		in.shim = c.enc.shim(vni2, routerUs, routerB, c.inner)
		c.expect(in.bytes(), c.delivered(p))
	}},
	{"no tenant number, and the locator is nobody's", onWAN, mangled("drop_no_tenant", func(c *cell, in *tunnelled) bool {
		in.ip.src = c.locatorC()
		if c.enc == encLISP {
			in.shim[0] = 0
			return true
		}
		return !c.enc.hasVNI()
	})},
	{"unknown locator", onWAN, mangled("drop_unknown_locator", func(c *cell, in *tunnelled) bool {
		in.ip.src = b[c.outer].Next().Next().Next()
		return true
	})},
	{"from ourselves", onWAN, mangled("drop_unknown_locator", func(c *cell, in *tunnelled) bool {
		in.ip.src = us[c.outer]
		return true
	})},
	{"to another gateway, to another station", onWAN, func(c *cell) {
		in := c.from(c.remote(here))
		in.ip.dst = c.locatorC()
		c.expect(in.bytes(), c.drop("pass_underlay"))
		in = c.from(c.remote(here))
		in.dst = strangeMAC
		c.expect(in.bytes(), c.drop("pass_underlay"))
	}},
	{"on an access port: no tunnel ends there", onLAN, func(c *cell) {
		in := c.from(c.remote(here))
		c.expect(in.bytes(), want{reason: "pass_no_route", out: c.handed(in.bytes())})
	}},
	{"outer fragments", onWAN, func(c *cell) {
		in := c.from(c.remote(here))
		in.ip.flags, in.ip.extensions = layers.IPv4MoreFragments, []extension{firstPart}
		c.expect(in.bytes(), c.drop("drop_outer_fragment"))
		in.ip.flags, in.ip.offset, in.ip.extensions = 0, 3, []extension{laterPart}
		c.expect(in.bytes(), c.drop("pass_underlay"))
	}},
	{"inner header wrong: version, length, checksum", onWAN, func(c *cell) {
		in := c.from(c.remote(here))
		b := in.inner.bytes()
		b[0] = 0x50 | b[0]&15
		if c.enc == encLISP { // which has nothing but the version to tell the family by
			b[0] = 0x40
		}
		c.expect(in.with(b), c.drop("drop_ip_header"))
		b = in.inner.bytes()
		c.expect(in.with(b[:len(b)-1]), c.drop("drop_ip_header"))
		if c.inner == v4 {
			b[10]++
			c.expect(in.with(b), c.drop("drop_ip_checksum"))
		}
	}},
	{"inner martian, multicast, link-local", onWAN, func(c *cell) {
		for _, change := range []func(p *packet){
			func(p *packet) { p.src = loopbackOf(*p) }, func(p *packet) { p.dst = loopbackOf(*p) },
			func(p *packet) { p.dst = groupOf(*p) }, func(p *packet) { p.src = linkLocalOf(*p) },
		} {
			p := c.remote(here)
			change(&p)
			c.expect(c.from(p).bytes(), c.drop("drop_martian"))
		}
	}},
	{"a probe of the tunnel, tagged, on one arm", onWAN, func(c *cell) {
		for _, in := range []ingress{onWAN, onWAN7, onOneArm} {
			w := site(c.t, in)
			c.in(w, func() {
				for _, size := range []int{16, 17, 18, 100, 1301} {
					q := w.probeBy(c.enc, c.outer, c.inner, true, size)
					c.expect(q.bytes(), w.answerTo(c.enc, q))
					q.ip.tos |= 3 // congestion on the way here says nothing of the way back
					c.expect(q.bytes(), w.answerTo(c.enc, q))
				}
			})
		}
	}},
	{"an answer to ours", onWAN, func(c *cell) {
		for _, in := range []ingress{onWAN, onWAN7, onOneArm} {
			w := site(c.t, in)
			c.in(w, func() {
				a := w.probeBy(c.enc, c.outer, c.inner, false, 100)
				c.expect(a.bytes(), w.handedToDaemon(a))
			})
		}
	}},
	{"a probe that is damaged", onWAN, func(c *cell) {
		for _, m := range probeMutations {
			q := c.probeBy(c.enc, c.outer, c.inner, m.question, 100)
			if b, ok := m.spoil(c, &q); ok {
				c.checkCase(c.t, m.name, b, c.drop(m.reason))
				c.sent++
				c.reasons[m.reason] = true
			}
		}
	}},
	{"a tunnel in the tunnel", onWAN, mangled("drop_tunnel_in_tunnel", func(c *cell, in *tunnelled) bool {
		in.inner.dst = us[c.inner]
		return true
	})},
	{"to a host elsewhere", onWAN, func(c *cell) {
		for _, n := range []int{atB4, atC4, atBoth, unresolved, reached(via, c.enc, c.outer)} {
			c.expect(c.from(c.remote(n)).bytes(), c.drop("drop_tunnel_loop"))
		}
	}},
	{"to the gateway, to a host without a MAC, to nobody known", onWAN, func(c *cell) {
		for n, reason := range map[int]string{gateway: "pass_own", own: "pass_own", unknownMAC: "pass_resolve", nobody: "pass_no_route"} {
			p := c.remote(n)
			c.expect(c.from(p).bytes(), c.handedOver(reason, p))
			c.withTenant(isolated, func() { c.expect(c.from(p).bytes(), c.drop("drop_isolated")) })
		}
	}},
	{"from our own address, the gateway's, a black hole", onWAN, func(c *cell) {
		for _, n := range []int{own, gateway, blackhole} {
			source(false, sentBy(n))(c)
		}
		source(false, errorBy(own))(c)
	}},
	{"an ICMP error from the shared gateway address", onWAN, source(true, errorBy(gateway))},
	{"loose: from a host of another site, from nobody known", onWAN, func(c *cell) {
		for _, n := range []int{atC4, nobody, here} {
			source(true, sentBy(n))(c)
		}
	}},
	{"strict: from where its sender lives", onWANStrict, func(c *cell) {
		source(true, func(*cell, *packet) {})(c)
		source(true, func(c *cell, p *packet) { p.src = c.inner.addr([...]int{atB4, atB6}[c.outer]) })(c)
		source(true, sentBy(atBoth))(c)
		if c.outer == v4 {
			source(true, func(c *cell, p *packet) { p.src = c.inner.outside(17, 0) })(c)
		}
	}},
	{"strict: from elsewhere", onWANStrict, func(c *cell) {
		for _, n := range []int{atC4, unresolved, here, unknownMAC, nobody, own, gateway, blackhole, setOfNone} {
			source(false, sentBy(n))(c)
		}
		source(false, func(c *cell, p *packet) { p.src = c.inner.outside(16, 0) })(c)
	}},
	{"strict: moments after a move, or an ICMP error", onWANStrict, func(c *cell) {
		for _, n := range []int{moved, heldC4, heldC6, heldSet, heldNowhere} {
			source(true, sentBy(n))(c)
		}
		for _, n := range []int{atC4, nobody, gateway} {
			source(true, errorBy(n))(c)
		}
	}},
	{"off: from anybody", onWANOff, func(c *cell) {
		for _, n := range []int{own, gateway, blackhole, nobody} {
			source(true, sentBy(n))(c)
		}
	}},
}

func (c *cell) locatorC() netip.Addr { return siteC[c.outer] }

// next is the tunnel to C for hosts that moved there by encapsulation e.
func (c *cell) next(e encapsulation) (host int, t tunnel) {
	host = reached(held, e, c.outer)
	return host, c.tunnelOf(c.inner, host)
}

var reencapCases = []matrixCase{
	{"to the new site, by each encapsulation", onWAN, func(c *cell) {
		for _, e := range everyEncapsulation() {
			n, t := c.next(e)
			p := c.remote(n)
			c.expect(c.from(p).bytes(), c.leaves(c.t, "fwd_reencap", t, c.arrived(p), 59))
		}
	}},
	{"outer TTL 2", onWAN, func(c *cell) {
		n, t := c.next(c.enc)
		p := c.remote(n)
		in := c.from(p)
		in.ip.ttl = 2
		if c.enc == encLISP {
			p.ttl = 2
		}
		c.expect(in.bytes(), c.leaves(c.t, "fwd_reencap", t, p, 1))
	}},
	{"outer TTL used up", onWAN, func(c *cell) {
		n, _ := c.next(c.enc)
		for ttl := range uint8(2) {
			in := c.from(c.remote(n))
			in.ip.ttl = ttl
			c.expect(in.bytes(), c.drop("drop_tunnel_ttl"))
		}
	}},
	{"inner TTL 1: no errors during a move", onWAN, func(c *cell) {
		n, _ := c.next(c.enc)
		p := c.remote(n)
		p.ttl = 1
		c.expect(c.from(p).bytes(), c.drop("drop_ttl"))
	}},
	{"too big for the next tunnel", onWAN, func(c *cell) {
		n, t := c.next(c.enc)
		p := c.sizedRemote(n, int(t.mtu))
		c.expect(c.from(p).bytes(), c.leaves(c.t, "fwd_reencap", t, c.arrived(p), 59))
		p = c.sizedRemote(n, int(t.mtu)+1)
		c.expect(c.from(p).bytes(), c.drop("drop_mtu"))
		p.flags = 0
		c.withTenant(fragmenting, func() { c.expect(c.from(p).bytes(), c.drop("drop_mtu")) })
	}},
	{"SYN: MSS clamped", onWAN, func(c *cell) {
		n, t := c.next(c.enc)
		p := c.remote(n)
		fits := t.mtu - uint16(c.inner.header()+20)
		c.expect(c.from(syn(p, 8960, true)).bytes(), c.leaves(c.t, "fwd_reencap", t, c.arrived(syn(p, fits, true)), 59))
	}},
	{"ECN merged, then copied", onWAN, func(c *cell) {
		n, t := c.next(c.enc)
		p := c.remote(n)
		p.tos = 0xb8 | 2
		in := c.from(p)
		in.ip.tos = 0x24 | 3
		p.tos |= 3
		c.expect(in.bytes(), c.leaves(c.t, "fwd_reencap", t, c.arrived(p), 59))
	}},
	{"back to where it came from", onWAN, func(c *cell) {
		n := [...]int{heldB4, heldB6}[c.outer]
		c.expect(c.from(c.remote(n)).bytes(), c.drop("drop_tunnel_back"))
	}},
	{"held, and its new site not resolved", onWAN, func(c *cell) {
		c.expect(c.from(c.remote(heldNowhere)).bytes(), c.drop("drop_unresolved"))
	}},
	{"moved, but not from here", onWAN, func(c *cell) {
		c.expect(c.from(c.remote(moved)).bytes(), c.drop("drop_tunnel_loop"))
	}},
	{"strict source check while its host is held", onWANStrict, func(c *cell) {
		n, t := c.next(c.enc)
		p := c.remote(n)
		p.src = c.inner.addr(atC4)
		c.expect(c.from(p).bytes(), c.leaves(c.t, "fwd_reencap", t, c.arrived(p), 59))
	}},
	{"isolated tenants too", onWAN, func(c *cell) {
		n, t := c.next(c.enc)
		p := c.remote(n)
		c.withTenant(func(t *maps.Tenant) { t.Flags |= maps.TenantIsolated }, func() {
			c.expect(c.from(p).bytes(), c.leaves(c.t, "fwd_reencap", t, c.arrived(p), 59))
		})
	}},
}
