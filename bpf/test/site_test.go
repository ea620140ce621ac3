package bpftest

import (
	"net/netip"
	"sync"
	"testing"

	"roam/maps"
)

// The site of the golden packets. One tenant that matters, and a second one that uses the same addresses:
//
//	           lan, lan30 (access)          wan (underlay)
//	hosts .10 ... ─────────── gateway .1 ─────────────── B: 192.0.2.2, 2001:db8:ff::2
//	                          own     .2 │               C: 192.0.2.3, 2001:db8:ff::3
//	                                     up (uplink): router
//
// A host's last number says what is special about it; see fill. Each host exists in both families.
const (
	tenant1, tenant2 = 1, 2
	vni1, vni2       = 7001, 7002
	bridge1          = 10 // by which peers bridge to segment1
	bridge30         = 30
	segment1         = 1
	segment30        = 30 // VLAN 30
	segmentQ         = 40 // VLAN 40, in it 41
)

var (
	gatewayMAC  = mac{0x02, 0x00, 0x5e, 0x10, 0x00, 0x01}
	lanMAC      = mac{0x02, 0xaa, 0, 0, 0, 0x01}
	wanMAC      = mac{0x02, 0xaa, 0, 0, 0, 0x02}
	upMAC       = mac{0x02, 0xaa, 0, 0, 0, 0x03}
	routerB     = mac{0x02, 0xbb, 0, 0, 0, 0x01} // inner destination towards B
	routerUs    = mac{0x02, 0, 0, 0, 0, 0x01}
	wanB        = mac{0x02, 0xbb, 0, 0, 0, 0x02} // B's underlay MAC, or the router before it
	fragmentMAC = mac{0x02, 0xdd, 0, 0, 0, 0x01} // the kernel's end of the pair
	upRouter    = mac{0x02, 0xcc, 0, 0, 0, 0x01}
	strangeMAC  = mac{0x02, 0xee, 0, 0, 0, 0x01}
	hereMAC     = mac{0x02, 0xee, 0, 0, 0, 0x02} // a neighbour's
	formerMAC   = mac{0x02, 0xee, 0, 0, 0, 0x03} // of a gateway that stood here before
	broadcast   = mac{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

	us = [2]netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8:ff::1")}
	b  = [2]netip.Addr{netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("2001:db8:ff::2")}
	c  = [2]netip.Addr{netip.MustParseAddr("192.0.2.3"), netip.MustParseAddr("2001:db8:ff::3")}

	siteC = c // where a cell is called c

	gatewayLL = netip.MustParseAddr("fe80::1")
)

// Numbers of the locators.
const (
	locatorB4 = 1 + iota
	locatorB6
	locatorC4
	locatorC6
)

// Last numbers of hosts, and what is special about them.
const (
	gateway      = 1
	own          = 2
	here         = 10 // on lan
	here30       = 11 // on lan30, tagged
	beside       = 12 // on the port under test: out by the way it came
	hereDeaf     = 13 // on a port that cannot transmit
	hereGone     = 14 // on a port that was removed
	atB4         = 20
	atB6         = 21
	atBoth       = 22 // a set of B4 and B6
	unresolved   = 23
	blackhole    = 24
	unknownMAC   = 25 // here, the kernel must resolve it
	heldC4       = 26 // moved to C moments ago
	heldC6       = 27
	noNexthop    = 28 // an id that means nothing
	atDeaf       = 29 // tunnelled by a port that cannot transmit
	atTX4        = 30 // tunnelled by the port under test
	atTX6        = 31
	setOfNone    = 32 // a set whose members mean nothing
	setOfSets    = 33
	heldNowhere  = 34 // moved to an unresolved locator
	heldB4       = 35 // moved to B
	heldB6       = 36
	heldSet      = 37 // moved to B4 or C4
	atB6Zero     = 38 // without an outer UDP checksum
	atB4NoECN    = 39 // which does not merge ECN
	via          = 40 // from here on: at B, by each encapsulation over each underlay; see reached
	held         = 60 // from here on: moved to C moments ago, likewise
	moved        = 80 // at B moments ago
	atC4         = 81
	icmpSource   = 3   // errors come from here, on access ports
	icmpBeyond   = 4   // and here, to senders elsewhere
	nobody       = 99  // not in the tables
	hereQ        = 15  // on lanQ, two tags
	uplinkRouter = 150 // behind prefix 16
	asker        = 200
)

type family int

const (
	v4 family = iota
	v6
)

var families = []family{v4, v6}

func (f family) String() string { return [...]string{"IPv4", "IPv6"}[f] }

// addr is the address of host n.
func (f family) addr(n int) netip.Addr {
	if f == v4 {
		return netip.AddrFrom4([4]byte{10, 1, 0, byte(n)})
	}
	a := netip.MustParseAddr("2001:db8:1::").As16()
	a[15] = byte(n)
	return netip.AddrFrom16(a)
}

// outside is an address behind prefix n: 16 router on the uplink, 17 site B, 18 the kernel's, 19 a black hole, 20 nothing.
func (f family) outside(n, low int) netip.Addr {
	if f == v4 {
		return netip.AddrFrom4([4]byte{172, byte(n), byte(low), 9})
	}
	a := netip.MustParseAddr("2001:db8::9").As16()
	a[4], a[5], a[7] = 0xac, byte(n), byte(low)
	return netip.AddrFrom16(a)
}

// reached is the number of a host that is tunnelled this way, counted from via or held.
func reached(from int, e encapsulation, outer family) int { return from + 2*int(e) + int(outer) }

func hostMAC(n int) mac { return mac{0x02, 0x10, 0, 0, 0, byte(n)} }

func nexthopID(f family, n int) uint32 { return uint32(1000 + 1000*int(f) + n) }

// ingress is the role that the port under test plays, and whose place in the site it takes.
type ingress struct {
	name  string
	place place
	role  uint8
	vlan  uint16
	tune  maps.Tune // zero: talkative
}

type place int

const (
	lan place = iota
	lan30
	lanQ // two tags
	wan
	up
	fragment // where the kernel returns fragments
	places
)

var (
	onLAN      = ingress{name: "access", place: lan, role: maps.RoleAccess}
	onLAN30    = ingress{name: "access, VLAN 30", place: lan30, role: maps.RoleAccess, vlan: 30}
	onLANQ     = ingress{name: "access, VLAN 40.41", place: lanQ, role: maps.RoleAccess, vlan: 40}
	onWAN      = ingress{name: "underlay", place: wan, role: maps.RoleUnderlay}
	onWAN7     = ingress{name: "underlay, VLAN 7", place: wan, role: maps.RoleUnderlay, vlan: 7}
	onUp       = ingress{name: "uplink", place: up, role: maps.RoleUplink}
	onUp7      = ingress{name: "uplink, VLAN 7", place: up, role: maps.RoleUplink, vlan: 7}
	onOneArm   = ingress{name: "one-armed", place: lan, role: maps.RoleAccess | maps.RoleUnderlay}
	onFragment = ingress{name: "fragment", place: fragment, role: maps.RoleFragment}
)

// Sites are loaded once per ingress: loading is what takes long.
var sites = struct {
	sync.Mutex
	byIngress map[ingress]*world
}{byIngress: map[ingress]*world{}}

// site returns the world whose port under test is this one. Tests that change its tables change them back.
func site(t testing.TB, in ingress) *world {
	t.Helper()
	sites.Lock()
	defer sites.Unlock()
	if w := sites.byIngress[in]; w != nil {
		return w
	}
	tune := in.tune
	if tune == (maps.Tune{}) {
		tune = talkative
	}
	w, err := loadWorld(tune, false)
	if err != nil {
		t.Fatal(err)
	}
	w.fill(in)
	if in == onLAN || in == onWAN || !few {
		w.twin, w.shade = w.traced(t), w.shaded(t)
	}
	sites.byIngress[in] = w
	return w
}

func (w *world) fill(in ingress) {
	port := w.fillPorts(in)
	deaf := w.port(maps.Port{Ifindex: 104, Role: maps.RoleAccess, Tenant: tenant1, Segment: segment1, Mac: lanMAC, Mtu: 1500}, false)
	for _, index := range []uint16{segment1, segment30, segmentQ} {
		w.segment(index, maps.Segment{
			Mac: gatewayMAC, Tenant: tenant1, Flags: maps.SegmentRouter, GatewayLl: wire(gatewayLL),
			Icmp4: wire4(v4.addr(icmpSource)), Icmp6: wire(v6.addr(icmpSource)),
		})
	}
	w.tenant(tenant1, maps.Tenant{
		Icmp4: wire4(v4.addr(icmpBeyond)), Icmp6: wire(v6.addr(icmpBeyond)), Fragment: port[fragment], FragmentMac: fragmentMAC,
	})
	w.station(segment1, hereMAC, maps.MACHere)
	w.station(segment1, formerMAC, maps.MACForeign)
	if w.tune.Bridging {
		w.bridges()
	}
	w.vni(vni1, tenant1)
	w.vni(vni2, tenant2)
	for f := range us {
		w.host(maps.SpaceLocator, us[f], maps.LocatorOwn)
		w.locator(uint16(locatorB4+f), maps.Locator{Tenant: tenant1}, b[f])
		w.locator(uint16(locatorC4+f), maps.Locator{}, c[f])
	}
	for _, f := range families {
		add := func(n int) uint32 {
			id := nexthopID(f, n)
			w.host(tenant1, f.addr(n), id)
			return id
		}
		w.host(tenant1, f.addr(gateway), maps.IDGateway)
		w.host(tenant1, f.addr(own), maps.IDOwn)
		w.host(tenant1, f.addr(blackhole), maps.IDBlackhole)
		w.host(tenant1, f.addr(unknownMAC), maps.IDKernel)
		w.host(tenant2, f.addr(atB4), maps.IDBlackhole)
		w.host(tenant2, f.addr(blackhole), nexthopID(f, here))

		w.local(add(here), hostMAC(here), port[lan])
		w.local(add(here30), hostMAC(here30), port[lan30])
		w.local(add(hereQ), hostMAC(hereQ), port[lanQ])
		w.local(add(beside), hostMAC(beside), w.slot)
		w.local(add(hereDeaf), hostMAC(hereDeaf), deaf)
		w.local(add(hereGone), hostMAC(hereGone), 255)
		w.local(add(asker), hostMAC(asker), port[lan])

		w.adjacency(add(atB4), 0, tunnelTo(v4, port[wan]))
		w.adjacency(add(atB6), 0, tunnelTo(v6, port[wan]))
		w.adjacency(add(atB6Zero), 0, func() tunnel { t := tunnelTo(v6, port[wan]); t.checksum = false; return t }())
		w.adjacency(add(atDeaf), 0, tunnelTo(v4, deaf))
		w.adjacency(add(atTX4), 0, tunnelTo(v4, w.slot))
		w.adjacency(add(atTX6), 0, tunnelTo(v6, w.slot))
		w.adjacency(add(atB4NoECN), 0, func() tunnel { t := tunnelTo(v4, port[wan]); t.noECN = true; return t }())
		w.adjacency(add(moved), maps.FlagMoved, tunnelTo(v4, port[wan]))
		w.adjacency(add(atC4), 0, tunnelOn(v4, c[0], locatorC4, port[wan]))
		for _, e := range everyEncapsulation() {
			for _, outer := range families {
				w.adjacency(add(reached(via, e, outer)), 0, tunnelTo(outer, port[wan]).by(e))
				w.adjacency(add(reached(held, e, outer)), maps.FlagHeld, tunnelOn(outer, c[outer], uint16(locatorC4+int(outer)), port[wan]).by(e))
			}
		}
		w.set(add(atBoth), 0, nexthopID(f, atB4), nexthopID(f, atB6))
		w.set(add(setOfNone), 0, nexthopID(f, noNexthop))
		w.set(add(setOfSets), 0, nexthopID(f, atBoth))
		add(noNexthop)
		w.nexthop(add(unresolved), maps.Nexthop{Kind: maps.KindUnresolved, Index: locatorC4})

		w.adjacency(add(heldC4), maps.FlagHeld, tunnelOn(v4, c[0], locatorC4, port[wan]))
		w.adjacency(add(heldC6), maps.FlagHeld, tunnelOn(v6, c[1], locatorC6, port[wan]))
		w.adjacency(add(heldB4), maps.FlagHeld, tunnelTo(v4, port[wan]))
		w.adjacency(add(heldB6), maps.FlagHeld, tunnelTo(v6, port[wan]))
		w.set(add(heldSet), maps.FlagHeld, nexthopID(f, atB4), nexthopID(f, heldC4))
		w.nexthop(add(heldNowhere), maps.Nexthop{Kind: maps.KindUnresolved, Flags: maps.FlagHeld, Index: locatorC4})

		w.local(nexthopID(f, uplinkRouter), upRouter, port[up])
		w.outside(f, 16, nexthopID(f, uplinkRouter))
		w.outside(f, 17, nexthopID(f, atB4))
		w.outside(f, 18, maps.IDKernel)
		w.outside(f, 19, maps.IDBlackhole)
		w.outside(f, 20, nexthopID(f, noNexthop))
		w.outside(f, 21, nexthopID(f, heldC4)) // held, but no host
		w.prefix(tenant1, netip.PrefixFrom(f.outside(16, 5), f.outside(16, 5).BitLen()-8).Masked(), nexthopID(f, atB4))
		w.prefix(tenant2, netip.PrefixFrom(f.outside(16, 0), f.outside(16, 0).BitLen()-16).Masked(), maps.IDBlackhole)
	}
}

// bridges lets peers bridge to two segments. The hosts there are known as stations, too.
func (w *world) bridges() {
	for segment, vni := range map[uint16]uint32{segment1: bridge1, segment30: bridge30} {
		w.host(maps.SpaceVNI, netip.AddrFrom4([4]byte{2: byte(vni >> 8), 3: byte(vni)}), maps.VNISegment|uint32(segment))
	}
	for n, segment := range map[int]uint16{here: segment1, beside: segment1, hereDeaf: segment1, asker: segment1, here30: segment30} {
		w.station(segment, hostMAC(n), maps.MACHere)
	}
}

func (w *world) outside(f family, n int, id uint32) {
	bits := 16
	if f == v6 {
		bits = 48
	}
	w.prefix(tenant1, netip.PrefixFrom(f.outside(n, 0), bits).Masked(), id)
}

// fillPorts enters the ports: the one under test with the loopback's number, the others with numbers of their own.
func (w *world) fillPorts(in ingress) (slots [places]uint16) {
	ports := [places]maps.Port{
		lan:   {Ifindex: 101, Role: maps.RoleAccess, Tenant: tenant1, Segment: segment1, Mac: lanMAC, Mtu: 1500},
		lan30: {Ifindex: 101, Vlan: 30, Role: maps.RoleAccess, Tenant: tenant1, Segment: segment30, Mac: lanMAC, Mtu: 1500},
		lanQ: {
			Ifindex: 105, Vlan: 40, InnerVlan: 41, TagProto: inMemory(0x88a8), Role: maps.RoleAccess, Tenant: tenant1,
			Segment: segmentQ, Mac: lanMAC, Mtu: 1500,
		},
		fragment: {Ifindex: 106, Role: maps.RoleFragment, Tenant: tenant1, Mac: lanMAC, Mtu: 9000},
		wan:      {Ifindex: 102, Role: maps.RoleUnderlay, Mac: wanMAC, Mtu: 1600},
		up:       {Ifindex: 103, Role: maps.RoleUplink, Tenant: tenant1, Mac: upMAC, Mtu: 1400},
	}
	p := &ports[in.place]
	if in.place != lanQ {
		p.InnerVlan = 0
	}
	p.Ifindex, p.Role, p.Vlan = loopback, in.role, in.vlan
	for i := range ports {
		slots[i] = w.port(ports[i], true)
	}
	w.slot = slots[in.place]
	return slots
}

// tunnelTo is the tunnel to site B over an underlay of this family.
func tunnelTo(outer family, port uint16) tunnel {
	return tunnelOn(outer, b[outer], uint16(locatorB4+int(outer)), port)
}

func tunnelOn(outer family, remote netip.Addr, locator, port uint16) tunnel {
	return tunnel{
		src: wanMAC, dst: wanB, local: us[outer], remote: remote, vni: vni1,
		innerSrc: routerUs, innerDst: routerB, checksum: outer == v6,
		port: port, locator: locator, mtu: [...]uint16{1550, 1530}[outer],
	}
}

// by is the same tunnel with another encapsulation, and the MTU that it leaves of the underlay's 1600 bytes.
func (t tunnel) by(e encapsulation) tunnel {
	t.enc = e
	t.checksum = t.checksum && e.udpPort() != 0
	ip, rest := t.headers(v4)
	t.mtu = uint16(1600 - len(ip) - len(rest))
	return t
}

// tags is what a frame must carry to arrive at the port under test.
func (w *world) tags() []uint16 { return linkTo(w.ports[w.slot], mac{}).tags }

// portMAC is the MAC of the port under test.
func (w *world) portMAC() mac { return w.ports[w.slot].Mac }

// base is the frame of a neighbour of the port under test to host n: what is in it is right.
func (w *world) base(f family, n int) frame {
	return w.to(f.addr(n))
}

func (w *world) to(dst netip.Addr) frame {
	f := v4
	if dst.Is6() {
		f = v6
	}
	src := f.addr(asker)
	p := packet{src: src, dst: dst, ttl: 64, tos: 0x28, proto: 17, id: 0x1234, label: 0x54321}
	p.payload = udp(src, dst, 40000, 53, counting(33), true)
	fr := linkTo(w.ports[w.slot], gatewayMAC)
	fr.src, fr.ip = hostMAC(asker), p
	if w.ports[w.slot].Role&maps.RoleAccess == 0 {
		fr.dst = w.portMAC()
	}
	return fr
}

// tunnelled is a right packet from site B to us, in a frame from the underlay.
type tunnelled struct {
	frame  // outer link and IP headers
	source uint16
	port   uint16 // 0: no UDP header
	shim   []byte // the tunnel's header, and the inner Ethernet header
	inner  packet
	csum   bool
}

func (w *world) fromB(outer family, inner packet) tunnelled {
	return w.fromBy(encVXLAN, outer, inner)
}

// fromBy is the same by another encapsulation.
func (w *world) fromBy(e encapsulation, outer family, inner packet) tunnelled {
	f := familyOf(inner.ethertype())
	fr := linkTo(w.ports[w.slot], w.portMAC())
	fr.src = wanB
	fr.ip = packet{src: b[outer], dst: us[outer], ttl: 60, tos: inner.tos, proto: e.protocol(f), flags: 0b010}
	return tunnelled{
		frame: fr, source: 50000, port: e.udpPort(), csum: outer == v6,
		shim: e.shim(vni1, routerUs, routerB, f), inner: inner,
	}
}

func (t tunnelled) bytes() []byte { return t.with(t.inner.bytes()) }

// with carries any bytes in place of the inner packet.
func (t tunnelled) with(inner []byte) []byte {
	f := t.frame
	f.ip.payload = append(append([]byte(nil), t.shim...), inner...)
	if t.port != 0 {
		f.ip.payload = udp(f.ip.src, f.ip.dst, t.source, t.port, f.ip.payload, t.csum)
	}
	return f.bytes()
}

// remoteHost is a packet of a host at site B to host n of ours.
func remoteHost(f family, n int) packet {
	src, dst := f.addr(atB4), f.addr(n)
	p := packet{src: src, dst: dst, ttl: 63, tos: 0x28, proto: 6, id: 0x4321, label: 0x12345}
	p.payload = tcp(src, dst, 80, 40001, counting(61))
	return p
}

func (p packet) hop() packet {
	p.ttl--
	return p
}
