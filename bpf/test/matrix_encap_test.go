package bpftest

import (
	"net/netip"
	"slices"

	"github.com/gopacket/gopacket/layers"

	"roam/maps"
)

// Load-time choices that a case needs: a world for each.
var (
	onLANFixed  = ingress{name: "DSCP fixed", place: lan, role: maps.RoleAccess, tune: tuned(func(t *maps.Tune) { t.OuterDSCP, t.ClampMSS = 46, false })}
	onLANKeep   = ingress{name: "TTL kept", place: lan, role: maps.RoleAccess, tune: tuned(func(t *maps.Tune) { t.KeepTTL = true })}
	onWANKeep   = ingress{name: "TTL kept", place: wan, role: maps.RoleUnderlay, tune: onLANKeep.tune}
	onWANStrict = ingress{name: "strict", place: wan, role: maps.RoleUnderlay, tune: tuned(func(t *maps.Tune) { t.SourceCheck = maps.SourceStrict })}
	onWANOff    = ingress{name: "off", place: wan, role: maps.RoleUnderlay, tune: tuned(func(t *maps.Tune) { t.SourceCheck = maps.SourceOff })}
)

// withTenant changes the tenant for as long as f runs.
func (c *cell) withTenant(change func(t *maps.Tenant), f func()) {
	before := c.tenants[tenant1]
	t := before
	change(&t)
	c.tenant(tenant1, t)
	f()
	c.tenant(tenant1, before)
}

func fragmenting(t *maps.Tenant) { t.Flags |= maps.TenantFragment }
func isolated(t *maps.Tenant)    { t.Flags |= maps.TenantIsolated }
func keepingTTL(t *maps.Tenant)  { t.Flags |= maps.TenantKeepTTL }

// subnet makes the hosts of the site neighbours, those from 128 on of a second subnet.
func (c *cell) subnet() {
	for i, n := range []int{0, 128} {
		a := c.inner.addr(n)
		c.prefix(maps.SpaceSubnets+tenant1, netip.PrefixFrom(a, a.BitLen()-7).Masked(), uint32(1+i)|maps.SubnetKeepTTL)
	}
}

// toFragment is the frame that the kernel gets for fragmenting.
func (c *cell) toFragment(p packet) want {
	out := c.ports[c.tenants[tenant1].Fragment]
	return want{reason: "fwd_fragment", out: frame{dst: fragmentMAC, src: out.Mac, ip: p}.bytes()}
}

func plainCase(c *cell) { in := c.toB(); c.expect(in.bytes(), c.encapsulated(in.ip)) }

// changed is a case of one change that does not matter to the outcome.
func changed(change func(c *cell, in *frame)) func(c *cell) {
	return func(c *cell) {
		in := c.toB()
		change(c, &in)
		c.expect(in.bytes(), c.encapsulated(in.ip, in.trailer...))
	}
}

var encapCases = []matrixCase{
	{"plain", onLAN, plainCase},
	{"from a tagged port", onLAN30, plainCase},
	{"from a port with two tags", onLANQ, plainCase},
	{"from an uplink", onUp, plainCase},
	{"first fragment", onLAN, changed(func(c *cell, in *frame) {
		in.ip.flags, in.ip.extensions = layers.IPv4MoreFragments, []extension{firstPart}
	})},
	{"later fragment", onLAN, changed(func(c *cell, in *frame) {
		in.ip.offset, in.ip.extensions = 185, []extension{laterPart}
	})},
	{"options, extension headers", onLAN, changed(func(c *cell, in *frame) {
		in.ip.options, in.ip.extensions = slices.Repeat([]layers.IPv4Option{{OptionType: 1}}, 12), extensionChains[3]
	})},
	{"no payload", onLAN, changed(func(c *cell, in *frame) { in.ip.proto, in.ip.payload = 59, nil })},
	{"Ethernet padding", onLAN, changed(func(c *cell, in *frame) {
		in.ip.payload, in.trailer = udp(in.ip.src, in.ip.dst, 1, 2, nil, true), slices.Repeat([]byte{0xee}, 18)
	})},
	{"a trailer too long for the way", onLAN, func(c *cell) {
		in := c.sizedToB(int(c.tun().mtu) - 1)
		in.trailer = []byte{1, 2}
		c.expect(in.bytes(), c.encapsulated(in.ip))
	}},
	{"the largest that fits", onLAN, func(c *cell) {
		in := c.sizedToB(int(c.tun().mtu))
		c.expect(in.bytes(), c.encapsulated(in.ip))
	}},
	{"too big", onLAN, func(c *cell) {
		in := c.sizedToB(int(c.tun().mtu) + 1)
		c.expect(in.bytes(), c.told(in, tooBig, int(c.tun().mtu)))
	}},
	{"too big, may be fragmented, nobody does", onLAN, func(c *cell) {
		if in := c.sizedToB(int(c.tun().mtu) + 1); c.inner == v4 {
			in.ip.flags = 0
			c.expect(in.bytes(), c.drop("drop_mtu"))
		}
	}},
	{"too big, may be fragmented", onLAN, func(c *cell) {
		in := c.sizedToB(int(c.tun().mtu) + 1)
		if c.inner == v6 {
			return
		}
		in.ip.flags = 0
		c.withTenant(fragmenting, func() {
			c.expect(in.bytes(), c.toFragment(in.ip))
			in.ip.ttl = 1
			c.expect(in.bytes(), c.told(in, expired, 0))
		})
	}},
	{"too big, an ICMP error", onLAN, func(c *cell) {
		in := c.sizedToB(int(c.tun().mtu) + 1)
		in.ip.proto, in.ip.payload[0] = [...]uint8{1, 58}[c.inner], 3
		c.expect(in.bytes(), c.drop("drop_mtu"))
	}},
	{"too big, a later fragment", onLAN, func(c *cell) {
		in := c.sizedToB(int(c.tun().mtu) + 1)
		in.ip.offset, in.ip.extensions = 9, []extension{laterPart}
		c.expect(in.bytes(), c.drop("drop_mtu"))
	}},
	{"fragments from the kernel", onFragment, func(c *cell) {
		for _, ttl := range []uint8{1, 64} {
			in := c.toB()
			in.ip.ttl, in.ip.flags, in.ip.extensions = ttl, layers.IPv4MoreFragments, []extension{firstPart}
			kept := in.ip
			kept.ttl++ // the kernel took it
			c.expect(in.bytes(), c.encapsulated(kept))
		}
		c.expect(c.sizedToB(int(c.tun().mtu)+1).bytes(), c.drop("drop_mtu"))
	}},
	{"TTL 2", onLAN, changed(func(c *cell, in *frame) { in.ip.ttl = 2 })},
	{"TTL 1, TTL 0", onLAN, func(c *cell) {
		for ttl := range uint8(2) {
			in := c.toB()
			in.ip.ttl = ttl
			c.expect(in.bytes(), c.told(in, expired, 0))
		}
	}},
	{"TTL kept between neighbours", onLANKeep, func(c *cell) {
		c.subnet()
		c.withTenant(keepingTTL, func() {
			for _, ttl := range []uint8{1, 64} {
				in := c.toB()
				in.ip.src, in.ip.ttl = c.inner.addr(hereDeaf), ttl
				kept := in.ip
				kept.ttl++
				c.expect(in.bytes(), c.encapsulated(kept))
			}
			in := c.toB() // from the second subnet
			c.expect(in.bytes(), c.encapsulated(in.ip))
		})
		in := c.toB()
		in.ip.src = c.inner.addr(hereDeaf)
		c.expect(in.bytes(), c.encapsulated(in.ip)) // the tenant does not ask for it
	}},
	{"DSCP and ECN copied", onLAN, func(c *cell) {
		for _, dscp := range []uint8{0, 10, 46, 63} {
			for ecn := range uint8(4) {
				in := c.toB()
				in.ip.tos = dscp<<2 | ecn
				c.expect(in.bytes(), c.encapsulated(in.ip))
			}
		}
	}},
	{"DSCP fixed, ECN to a site that does not merge it", onLANFixed, func(c *cell) {
		tun := c.tun()
		tun.noECN = true
		c.adjacency(nexthopID(c.inner, reached(via, c.enc, c.outer)), 0, tun)
		for ecn := range uint8(4) {
			in := c.toB()
			in.ip.tos = 10<<2 | ecn
			x := c.encapsulated(in.ip)
			x.made = intoTunnelRaw(c.t, tun, in.ip.hop().bytes(), c.inner.ethertype(), 46<<2, map[bool]uint8{true: 63, false: 64}[c.enc == encLISP])
			c.expect(in.bytes(), x)
		}
	}},
	{"SYN, SYN-ACK: MSS clamped", onLAN, func(c *cell) {
		in := c.toB()
		c.withSYN(in.ip, c.tun().mtu, func(p, expected packet) {
			in.ip = p
			c.expect(in.bytes(), c.encapsulated(expected))
		})
	}},
	{"SYN, clamping switched off", onLANFixed, func(c *cell) {
		in := c.toB()
		in.ip = syn(in.ip, 8960, false)
		in.ip.tos = 0
		x := c.encapsulated(in.ip)
		x.made = intoTunnelRaw(c.t, c.tun(), in.ip.hop().bytes(), c.inner.ethertype(), 46<<2, map[bool]uint8{true: 63, false: 64}[c.enc == encLISP])
		c.expect(in.bytes(), x)
	}},
	{"wrong header checksum", onLAN, func(c *cell) {
		if c.inner == v4 {
			b := c.toB().bytes()
			b[24]++
			c.expect(b, c.drop("drop_ip_checksum"))
		}
	}},
	{"length beyond the frame", onLAN, func(c *cell) {
		b := c.toB().bytes()
		b = b[:len(b)-1]
		c.expect(b, c.drop("drop_ip_header"))
	}},
	{"martian", onLAN, func(c *cell) {
		in := c.toB()
		in.ip.src = loopbackOf(in.ip)
		c.expect(in.bytes(), c.drop("drop_martian"))
	}},
}
