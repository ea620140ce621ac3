package bpftest

import (
	"net/netip"
	"slices"

	"github.com/gopacket/gopacket/layers"

	"roam/maps"
)

// Frames that a peer bridges to a segment here. Only VXLAN carries them.

var (
	onBridge     = ingress{name: "underlay, bridging", place: wan, role: maps.RoleUnderlay, tune: bridgingTune(maps.DSCPCopy)}
	onBridge46   = ingress{name: "underlay, bridging, DSCP 46", place: wan, role: maps.RoleUnderlay, tune: bridgingTune(46)}
	onBridge7    = ingress{name: "underlay, bridging, VLAN 7", place: wan, role: maps.RoleUnderlay, vlan: 7, tune: bridgingTune(maps.DSCPCopy)}
	onBridgeOne  = ingress{name: "one-armed, bridging", place: lan, role: maps.RoleAccess | maps.RoleUnderlay, tune: bridgingTune(maps.DSCPCopy)}
	allNodes     = mac{0x33, 0x33, 0, 0, 0, 1}
	elsewhereMAC = hostMAC(atB4)
)

func bridgingTune(dscp uint8) maps.Tune {
	return tuned(func(t *maps.Tune) { t.Bridging, t.OuterDSCP = true, dscp })
}

// bridgedFrame is a packet in a frame to a MAC, which B bridges by a VNI.
func (c *cell) bridgedFrame(vni uint32, to mac, p packet) tunnelled {
	in := c.from(p)
	in.shim = c.enc.shim(vni, to, elsewhereMAC, c.inner)
	return in
}

// kept is the packet as it is delivered when it was bridged: none is taken from its TTL.
func (c *cell) kept(n int, p packet) want {
	p.ttl++
	return c.deliveredTo(c.inner, n, p)
}

// question is a request or a solicitation for a target, and the answer by a MAC: what is inside the tunnel both ways.
type question struct {
	arp
	solicitation
	target netip.Addr
}

func (c *cell) ask(target netip.Addr) question {
	q := question{target: target}
	if target.Is6() {
		q.solicitation = c.solicit(target)
		q.solicitation.tags = nil
	} else {
		q.arp = c.arpFor(target)
		q.arp.tags = nil
	}
	return q
}

func (q question) bytes() []byte {
	if q.target.Is6() {
		return q.solicitation.bytes()
	}
	return q.arp.bytes()
}

func (q question) answer(by mac, flags byte) []byte {
	if q.target.Is6() {
		return q.solicitation.answerBy(by, flags).out
	}
	return q.arp.answerBy(by).out
}

func (c *cell) asked() string { return [...]string{"fwd_arp", "fwd_nd"}[c.inner] }

// carried is the tunnel from B with the link header of a frame.
func (c *cell) carried(frame []byte) tunnelled {
	in := c.from(c.remote(here))
	in.shim = append(c.enc.shim(bridge1, mac{}, mac{}, c.inner)[:8], frame[:14]...)
	in.inner.payload = nil
	in.ip.label, in.ip.tos, in.ip.id = 0x54321, 0x2a, 77
	return in
}

// frameInside is the packet with this frame, whose link header the shim has.
func (t tunnelled) frameInside(frame []byte) []byte { return t.with(frame[14:]) }

// back is what is sent to B when the frame has become this answer.
func (c *cell) back(in tunnelled, answer []byte, tos uint8) want {
	out := in
	out.dst, out.src = in.src, c.portMAC()
	out.ip = packet{src: in.ip.dst, dst: in.ip.src, ttl: 64, tos: tos, proto: 17, flags: 0b010, label: in.ip.label}
	out.source |= 0xc000
	out.shim = append([]byte{8, 0, 0, 0, 0, 0, bridge1, 0}, answer[:14]...)
	return want{reason: c.asked(), tx: true, locator: uint16(locatorB4 + int(c.outer)), out: out.with(answer[14:])}
}

// answered expects the answer of a MAC to a question.
func (c *cell) answered(q question, by mac, flags byte) {
	in := c.carried(q.bytes())
	c.expect(in.frameInside(q.bytes()), c.back(in, q.answer(by, flags), 0))
}

// unanswered expects that a question ends.
func (c *cell) unanswered(reason string, q question) {
	c.expect(c.carried(q.bytes()).frameInside(q.bytes()), c.drop(reason))
}

// onVXLAN leaves the other encapsulations out.
func onVXLAN(send func(c *cell)) func(c *cell) {
	return func(c *cell) {
		if c.enc == encVXLAN {
			send(c)
		}
	}
}

var bridgeCases = []matrixCase{
	{"to a host here: TTL as it is", onBridge, onVXLAN(func(c *cell) {
		for _, ttl := range []uint8{1, 63, 255} {
			p := c.remote(here)
			p.ttl = ttl
			c.expect(c.bridgedFrame(bridge1, hostMAC(here), p).bytes(), c.kept(here, p))
		}
		p := c.remote(here30)
		c.expect(c.bridgedFrame(bridge30, hostMAC(here30), p).bytes(), c.kept(here30, p))
	})},
	{"to the gateway's MAC, to a foreign gateway's, to another station's here: routed", onBridge, onVXLAN(func(c *cell) {
		for _, to := range []mac{gatewayMAC, formerMAC, hereMAC} {
			for _, n := range []int{here, here30, hereQ} {
				p := c.remote(n)
				c.expect(c.bridgedFrame(bridge1, to, p).bytes(), c.deliveredTo(c.inner, n, p))
			}
		}
	})},
	{"to the gateway's MAC, TTL 1", onBridge, onVXLAN(func(c *cell) {
		p := c.remote(here)
		p.ttl = 1
		c.expect(c.bridgedFrame(bridge1, gatewayMAC, p).bytes(), c.toldBack(c.t, c.tun(), p, expired, 0))
	})},
	{"TTL 0", onBridge, onVXLAN(func(c *cell) {
		p := c.remote(here)
		p.ttl = 0
		c.expect(c.bridgedFrame(bridge1, hostMAC(here), p).bytes(), c.toldBack(c.t, c.tun(), p, expired, 0))
	})},
	{"too big for the access port", onBridge, onVXLAN(func(c *cell) {
		p := c.sizedRemote(here, 1501)
		c.expect(c.bridgedFrame(bridge1, hostMAC(here), p).bytes(), c.toldBack(c.t, c.tun(), p, tooBig, 1500))
	})},
	{"ECN merged", onBridge, onVXLAN(func(c *cell) {
		in := c.bridgedFrame(bridge1, hostMAC(here), c.remote(here))
		in.inner.tos, in.ip.tos = 0xba, 0x27
		p := in.inner
		p.tos = 0xbb
		c.expect(in.bytes(), c.kept(here, p))
		in.inner.tos = 0xb8
		c.expect(in.bytes(), c.drop("drop_ecn"))
	})},
	{"to the gateway, to a host without a MAC, to nobody known", onBridge, onVXLAN(func(c *cell) {
		for n, reason := range map[int]string{gateway: "pass_own", own: "pass_own", unknownMAC: "pass_resolve", nobody: "pass_no_route"} {
			p := c.remote(n)
			c.expect(c.bridgedFrame(bridge1, gatewayMAC, p).bytes(), c.handedOver(reason, p))
		}
	})},
	{"to a MAC that nobody here has", onBridge, onVXLAN(func(c *cell) {
		for _, n := range []int{here, beside, gateway, own, unknownMAC, nobody, blackhole} {
			for _, to := range []mac{strangeMAC, routerUs, wanMAC, {}} {
				c.expect(c.bridgedFrame(bridge1, to, c.remote(n)).bytes(), c.drop("drop_flood"))
			}
		}
		c.expect(c.bridgedFrame(bridge1, hostMAC(here30), c.remote(here30)).bytes(), c.drop("drop_flood")) // on another segment
	})},
	{"to a group", onBridge, onVXLAN(func(c *cell) {
		for _, to := range []mac{broadcast, allNodes, {1, 0, 0x5e, 0, 0, 1}} {
			for _, dst := range []netip.Addr{c.inner.addr(here), pick(c.remote(here), "224.0.0.251", "ff02::fb"), c.inner.addr(gateway)} {
				p := c.remote(here)
				p.dst = dst
				c.expect(c.bridgedFrame(bridge1, to, p).bytes(), c.drop("drop_flood"))
			}
		}
	})},
	{"to the MAC of a host elsewhere", onBridge, onVXLAN(func(c *cell) {
		for _, n := range []int{atB4, atB6, atBoth, unresolved, atC4} {
			c.expect(c.bridgedFrame(bridge1, hostMAC(n), c.remote(n)).bytes(), c.drop("drop_tunnel_loop"))
		}
	})},
	{"to a host that left moments ago", onBridge, onVXLAN(func(c *cell) {
		for _, n := range []int{heldC4, heldC6} {
			for _, to := range []mac{hostMAC(n), gatewayMAC} {
				p := c.remote(n)
				c.expect(c.bridgedFrame(bridge1, to, p).bytes(), c.leaves(c.t, "fwd_reencap", c.tunnelOf(c.inner, n), p, 59))
			}
		}
		for n, outer := range map[int]family{heldB4: v4, heldB6: v6} {
			if c.outer == outer {
				c.expect(c.bridgedFrame(bridge1, hostMAC(n), c.remote(n)).bytes(), c.drop("drop_tunnel_back"))
			}
		}
	})},
	{"from a host that can send nothing", onBridge, onVXLAN(func(c *cell) {
		p := c.remote(here)
		p.src = c.inner.addr(own)
		c.expect(c.bridgedFrame(bridge1, hostMAC(here), p).bytes(), c.drop("drop_source"))
	})},
	{"a tag inside, no IP inside", onBridge, onVXLAN(func(c *cell) {
		for _, kind := range [][]byte{{0x81, 0}, {0x88, 0xa8}, {0x88, 0xcc}} {
			in := c.bridgedFrame(bridge1, hostMAC(here), c.remote(here))
			copy(in.shim[20:], kind)
			c.expect(in.bytes(), c.drop("drop_inner_not_ip"))
		}
	})},
	{"another VNI, another sender", onBridge, func(c *cell) {
		if !c.enc.hasVNI() {
			return
		}
		c.expect(c.bridgedFrame(bridge1+1, hostMAC(here), c.remote(here)).bytes(), c.drop("drop_unknown_vni"))
		in := c.bridgedFrame(bridge1, hostMAC(here), c.remote(here))
		if c.enc != encVXLAN {
			c.expect(in.bytes(), c.drop("drop_unknown_vni"))
		}
		in.ip.src = in.ip.src.Next().Next().Next()
		c.expect(in.bytes(), c.drop("drop_unknown_locator"))
	}},
	{"asked for a host here", onBridge, onVXLAN(func(c *cell) {
		for _, n := range []int{here, hereDeaf} {
			q := c.ask(c.inner.addr(n))
			c.answered(q, hostMAC(n), naOverride)
			q.arp.dst, q.solicitation.dst = hostMAC(n), hostMAC(n) // polls a MAC that it still has
			c.answered(q, hostMAC(n), naOverride)
			if c.inner == v6 {
				q.opts = nil
				c.answered(q, hostMAC(n), naOverride)
				q.extra = make([]byte, 16)
				c.answered(q, hostMAC(n), naOverride)
			}
		}
	})},
	{"asked for the gateway", onBridge, onVXLAN(func(c *cell) {
		c.answered(c.ask(c.inner.addr(gateway)), gatewayMAC, naOverride|naRouter)
		if c.inner == v6 {
			c.answered(c.ask(gatewayLL), gatewayMAC, naOverride|naRouter)
		}
	})},
	{"asked for somebody elsewhere, on another segment, or not known", onBridge, onVXLAN(func(c *cell) {
		for _, n := range []int{atB4, atB6, atBoth, unresolved, heldC4, here30, hereGone, own, unknownMAC, blackhole, nobody} {
			c.unanswered("drop_flood", c.ask(c.inner.addr(n)))
		}
		if c.inner == v6 {
			c.unanswered("drop_flood", c.ask(netip.MustParseAddr("fe80::77")))
		}
	})},
	{"probes and announcements of a host here, of the gateway", onBridge, onVXLAN(func(c *cell) {
		for _, n := range []int{here, gateway} {
			q := c.ask(c.inner.addr(n))
			q.SourceProtAddress, q.solicitation.ip.src, q.opts = make([]byte, 4), netip.IPv6Unspecified(), nil
			c.unanswered("drop_flood", q)
			q = c.ask(c.inner.addr(n))
			q.SourceProtAddress, q.icmp = q.DstProtAddress, 136
			c.unanswered("drop_flood", q)
		}
	})},
	{"no right question", onBridge, onVXLAN(func(c *cell) {
		for _, spoil := range []func(q *question){
			func(q *question) { q.Operation, q.code = layers.ARPReply, 1 },
			func(q *question) { q.AddrType, q.solicitation.ip.ttl = 6, 254 },
			func(q *question) { q.SourceHwAddress, q.spoil = broadcast[:], 1 },
			func(q *question) { q.arp.src, q.solicitation.src = broadcast, broadcast },
		} {
			q := c.ask(c.inner.addr(here))
			spoil(&q)
			c.unanswered("drop_flood", q)
		}
		if c.inner == v4 { // what is not for a group is no flood
			q := c.ask(c.inner.addr(here))
			q.arp.dst, q.Operation = hostMAC(here), layers.ARPReply
			c.unanswered("drop_inner_not_ip", q)
			q = c.ask(c.inner.addr(here))
			in := c.carried(q.bytes())
			c.expect(in.with(q.bytes()[14:41]), c.drop("drop_short"))
		}
	})},
	{"asked on the tenant's own VNI, or through outer options", onBridge, onVXLAN(func(c *cell) {
		q := c.ask(c.inner.addr(here))
		in := c.carried(q.bytes())
		copy(in.shim[4:], []byte{0, vni1 >> 8, vni1 & 0xff})
		c.expect(in.frameInside(q.bytes()), c.drop("drop_inner_not_ip"))
		in = c.carried(q.bytes())
		in.ip.options, in.ip.extensions = []layers.IPv4Option{{OptionType: 1}}, []extension{destination}
		c.expect(in.frameInside(q.bytes()), c.drop("drop_tunnel_header"))
	})},
	{"asked, DSCP fixed, outer UDP checksum as the locator wants it", onBridge46, onVXLAN(func(c *cell) {
		q := c.ask(c.inner.addr(here))
		in := c.carried(q.bytes())
		c.expect(in.frameInside(q.bytes()), c.back(in, q.answer(hostMAC(here), naOverride), 46<<2))
		n := uint16(locatorB4 + int(c.outer))
		before := c.locators[n]
		zero := before
		zero.Options |= maps.LocatorZeroCsum
		c.locator(n, zero, b[c.outer])
		in.csum = false
		c.expect(in.frameInside(q.bytes()), c.back(in, q.answer(hostMAC(here), naOverride), 46<<2))
		c.locator(n, before, b[c.outer])
	})},
	{"asked on a tagged underlay", onBridge7, onVXLAN(func(c *cell) {
		c.answered(c.ask(c.inner.addr(here)), hostMAC(here), naOverride)
		p := c.remote(here)
		c.expect(c.bridgedFrame(bridge1, hostMAC(here), p).bytes(), c.kept(here, p))
	})},
	{"asked on one arm, with padding", onBridgeOne, onVXLAN(func(c *cell) {
		q := c.ask(c.inner.addr(here))
		in := c.carried(q.bytes())
		in.dst = gatewayMAC // both are ours; who answers is the port
		x := c.back(in, q.answer(hostMAC(here), naOverride), 0)
		in.trailer = slices.Repeat([]byte{7}, 9)
		if c.inner == v4 {
			x.out = append(x.out, in.trailer...)
		}
		c.expect(in.frameInside(q.bytes()), x)
		p := c.remote(here)
		c.expect(c.bridgedFrame(bridge1, hostMAC(here), p).bytes(), c.kept(here, p))
	})},
}
