package bpftest

import (
	"net/netip"

	"roam/maps"
)

// Worlds in which hosts have policies of egress.
var (
	egressTune        = tuned(func(t *maps.Tune) { t.Egress = true })
	onLANEgress       = ingress{name: "egress", place: lan, role: maps.RoleAccess, tune: egressTune}
	onUpEgress        = ingress{name: "egress, uplink", place: up, role: maps.RoleUplink, tune: egressTune}
	onFragmentEgress  = ingress{name: "egress, fragment", place: fragment, role: maps.RoleFragment, tune: egressTune}
	onWANEgress       = ingress{name: "egress, underlay", place: wan, role: maps.RoleUnderlay, tune: egressTune}
	onWANEgressStrict = ingress{
		name: "egress, strict", place: wan, role: maps.RoleUnderlay,
		tune: tuned(func(t *maps.Tune) { t.Egress, t.SourceCheck = true, maps.SourceStrict }),
	}
)

// ways is a policy: what reaches the host by which next hop, the longest prefix first.
type ways map[netip.Prefix]uint32

// everywhere has all but what is with the next host of the same number go by one way.
func (c *cell) everywhere(way uint32) ways {
	return ways{netip.PrefixFrom(c.inner.addr(0), 0).Masked(): way}
}

func (w ways) but(a netip.Addr, way uint32) ways {
	w[netip.PrefixFrom(a, a.BitLen())] = way
	return w
}

// withPolicy gives a host a policy for as long as f runs.
func (c *cell) withPolicy(host netip.Addr, list ways, f func()) {
	at, space := netip.PrefixFrom(host, host.BitLen()), maps.SpaceWays+uint16(host.AsSlice()[len(host.AsSlice())-1])
	for p, way := range list {
		c.prefix(space, p, way)
	}
	c.prefix(maps.SpaceEgress+tenant1, at, uint32(space))
	f()
	c.noPrefix(maps.SpaceEgress+tenant1, at)
	for p := range list {
		c.noPrefix(space, p)
	}
}

// byTunnel is the id of the cell's tunnel, to B.
func (c *cell) byTunnel() uint32 { return nexthopID(c.inner, reached(via, c.enc, c.outer)) }

// others are destinations that routes lead everywhere: here, tagged and to be resolved; to another site; to an uplink, to a site and to the
// kernel by a prefix; nowhere.
func (c *cell) others() (list []netip.Addr) {
	for _, n := range []int{here30, unknownMAC, atC4, unresolved} {
		list = append(list, c.inner.addr(n))
	}
	for _, n := range []int{16, 17, 18, 22} {
		list = append(list, c.inner.outside(n, 0))
	}
	return list
}

// homed is a packet out of the cell's tunnel from a host whose home we are, to host n.
func (c *cell) homed(n int, f func(p packet)) {
	p := c.remote(n)
	c.withPolicy(p.src, c.everywhere(maps.WayHere), func() { f(p) })
}

var egressCases = []matrixCase{
	{"what a host sends goes by its way, whatever the route says", onLANEgress, func(c *cell) {
		c.withPolicy(c.inner.addr(asker), c.everywhere(c.byTunnel()), func() {
			for _, a := range c.others() {
				in := c.to(a)
				c.expect(in.bytes(), c.encapsulated(in.ip))
			}
		})
	}},
	{"what others send to it too", onLANEgress, func(c *cell) {
		for _, n := range []int{here30, unknownMAC, atC4} {
			c.withPolicy(c.inner.addr(n), c.everywhere(c.byTunnel()), func() {
				in := c.base(c.inner, n)
				c.expect(in.bytes(), c.encapsulated(in.ip))
			})
		}
	}},
	{"what an uplink brings for it too", onUpEgress, func(c *cell) {
		c.withPolicy(c.inner.addr(here), c.everywhere(c.byTunnel()), func() {
			in := c.base(c.inner, here)
			c.expect(in.bytes(), c.encapsulated(in.ip))
		})
	}},
	{"an uplink's packets have no sender here", onUpEgress, func(c *cell) {
		c.withPolicy(c.inner.addr(asker), c.everywhere(c.byTunnel()), func() {
			in := c.base(c.inner, here)
			c.expect(in.bytes(), c.deliveredTo(c.inner, here, in.ip))
		})
	}},
	{"fragments from the kernel too", onFragmentEgress, func(c *cell) {
		c.withPolicy(c.inner.addr(asker), c.everywhere(c.byTunnel()), func() {
			in := c.base(c.inner, here30)
			kept := in.ip
			kept.ttl++ // the kernel took it
			c.expect(in.bytes(), c.encapsulated(kept))
		})
	}},
	{"the longest prefix of a list: from where it is, and by another way", onLANEgress, func(c *cell) {
		policy := c.everywhere(c.byTunnel()).but(c.inner.addr(here30), maps.WayLocal).but(c.inner.addr(atB4), nexthopID(c.inner, atC4))
		c.withPolicy(c.inner.addr(asker), policy, func() {
			in := c.base(c.inner, here30)
			c.expect(in.bytes(), c.deliveredTo(c.inner, here30, in.ip))
			in = c.base(c.inner, atB4)
			c.expect(in.bytes(), c.leaves(c.t, "fwd_encap", c.tunnelOf(c.inner, atC4), in.ip, 64))
			in = c.base(c.inner, here)
			c.expect(in.bytes(), c.encapsulated(in.ip))
		})
	}},
	{"in one subnet nobody asks for the other's policy", onLANEgress, func(c *cell) {
		policy := c.everywhere(nexthopID(c.inner, atC4)).but(c.inner.addr(here30), maps.WaySubnet)
		c.withPolicy(c.inner.addr(here30), c.everywhere(c.byTunnel()), func() {
			c.withPolicy(c.inner.addr(asker), policy, func() {
				in := c.base(c.inner, here30)
				c.expect(in.bytes(), c.deliveredTo(c.inner, here30, in.ip))
			})
			policy[netip.PrefixFrom(c.inner.addr(here30), c.inner.addr(0).BitLen())] = maps.WayLocal
			c.withPolicy(c.inner.addr(asker), policy, func() {
				in := c.base(c.inner, here30)
				c.expect(in.bytes(), c.encapsulated(in.ip))
			})
		})
	}},
	{"to the gateway itself, and what is dropped on purpose: as without", onLANEgress, func(c *cell) {
		c.withPolicy(c.inner.addr(asker), c.everywhere(c.byTunnel()), func() {
			for _, n := range []int{gateway, own} {
				in := c.base(c.inner, n)
				out := in
				out.dst = c.portMAC()
				c.expect(in.bytes(), want{reason: "pass_own", out: out.bytes()})
			}
			c.expect(c.base(c.inner, blackhole).bytes(), c.drop("drop_blackhole"))
		})
	}},
	{"a frame to another station's MAC: as without", onLANEgress, func(c *cell) {
		c.withPolicy(c.inner.addr(asker), c.everywhere(c.byTunnel()), func() {
			in := c.base(c.inner, here30)
			in.dst = hereMAC
			c.expect(in.bytes(), want{reason: "pass_not_ours", out: in.bytes()})
		})
	}},
	{"no way left: dropped, not sent by another", onLANEgress, func(c *cell) {
		for reason, way := range map[string]uint32{
			"drop_unresolved": nexthopID(c.inner, unresolved), "drop_blackhole": maps.IDBlackhole, "drop_nexthop": maps.IDFirst,
		} {
			c.withPolicy(c.inner.addr(asker), c.everywhere(way), func() {
				c.expect(c.base(c.inner, here30).bytes(), c.drop(reason))
			})
		}
	}},
	{"too big for the way", onLANEgress, func(c *cell) {
		c.withPolicy(c.inner.addr(asker), c.everywhere(c.byTunnel()), func() {
			in := c.sized(c.inner, here30, int(c.tun().mtu)+1)
			in.ip.flags = 0b010
			c.expect(in.bytes(), c.told(in, tooBig, int(c.tun().mtu)))
		})
	}},
	{"not switched on", onLAN, func(c *cell) {
		c.withPolicy(c.inner.addr(asker), c.everywhere(c.byTunnel()), func() {
			in := c.base(c.inner, here30)
			c.expect(in.bytes(), c.deliveredTo(c.inner, here30, in.ip))
		})
	}},
	{"at home: out of the tunnel and back to where it came from", onWANEgress, func(c *cell) {
		back := reached(via, c.enc, c.outer)
		c.homed(back, func(p packet) {
			p.src = c.inner.addr(atB4)
			c.withPolicy(p.src, c.everywhere(maps.WayHere), func() {
				c.expect(c.from(p).bytes(), c.leaves(c.t, "fwd_home", c.tun(), c.arrived(p), 59))
			})
		})
	}},
	{"at home: to another site, to a host here, and to the kernel", onWANEgress, func(c *cell) {
		c.homed(atC4, func(p packet) {
			c.expect(c.from(p).bytes(), c.leaves(c.t, "fwd_home", c.tunnelOf(c.inner, atC4), c.arrived(p), 59))
		})
		c.homed(here, func(p packet) { c.expect(c.from(p).bytes(), c.delivered(p)) })
		c.homed(here, func(p packet) {
			p.dst = c.inner.outside(22, 0)
			c.expect(c.from(p).bytes(), c.handedOver("pass_no_route", p))
			p.dst = c.inner.outside(17, 0) // a prefix at B
			c.expect(c.from(p).bytes(), c.leaves(c.t, "fwd_home", c.tunnelOf(c.inner, atB4), c.arrived(p), 59))
		})
	}},
	{"at the receiver's home", onWANEgress, func(c *cell) {
		p := c.remote(atC4)
		c.withPolicy(p.dst, c.everywhere(maps.WayHere), func() {
			c.expect(c.from(p).bytes(), c.leaves(c.t, "fwd_home", c.tunnelOf(c.inner, atC4), c.arrived(p), 59))
		})
	}},
	{"at home: outer TTL used up", onWANEgress, func(c *cell) {
		c.homed(atC4, func(p packet) {
			in := c.from(p)
			in.ip.ttl = 1
			c.expect(in.bytes(), c.drop("drop_tunnel_ttl"))
		})
	}},
	{"at the sender's home, and on to the receiver's", onWANEgress, func(c *cell) {
		c.homed(here, func(p packet) {
			c.withPolicy(p.dst, c.everywhere(nexthopID(c.inner, atC4)), func() {
				c.expect(c.from(p).bytes(), c.leaves(c.t, "fwd_home", c.tunnelOf(c.inner, atC4), c.arrived(p), 59))
			})
			c.withPolicy(p.dst, c.everywhere(c.byTunnel()), func() { // it comes from there
				c.expect(c.from(p).bytes(), c.delivered(p))
			})
		})
	}},
	{"at neither's home", onWANEgress, func(c *cell) {
		for _, n := range []int{here, atC4} {
			x := map[int]want{here: c.delivered(c.remote(here)), atC4: c.drop("drop_tunnel_loop")}[n]
			p := c.remote(n)
			for _, host := range []netip.Addr{p.src, p.dst} {
				c.withPolicy(host, c.everywhere(nexthopID(c.inner, atC4)), func() { c.expect(c.from(p).bytes(), x) })
			}
		}
	}},
	{"an error about it goes by the way of who it was for", onWANEgress, func(c *cell) {
		p := c.remote(here)
		p.src, p.ttl = c.inner.outside(22, 0), 1 // no route leads to the sender
		c.withPolicy(p.dst, c.everywhere(c.byTunnel()), func() {
			c.expect(c.from(p).bytes(), c.toldBack(c.t, c.tun(), c.arrived(p), expired, 0))
		})
	}},
	{"strict source check: from where a policy says", onWANEgressStrict, func(c *cell) {
		p := c.remote(here)
		p.src = c.inner.addr(atC4)
		c.expect(c.from(p).bytes(), c.drop("drop_source"))
		for _, host := range []netip.Addr{p.src, p.dst} {
			c.withPolicy(host, c.everywhere(c.byTunnel()), func() { c.expect(c.from(p).bytes(), c.delivered(p)) })
		}
		c.withPolicy(p.src, c.everywhere(nexthopID(c.inner, atC4)), func() { c.expect(c.from(p).bytes(), c.drop("drop_source")) })
	}},
}
