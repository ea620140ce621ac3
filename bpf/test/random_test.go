package bpftest

import (
	"bytes"
	"math/rand/v2"
	"net/netip"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/gopacket/gopacket/layers"

	"roam/maps"
)

// The program against the model, on random frames over random tables. ROAM_SEED repeats a run, ROAM_PACKETS sets how many frames
// it takes: a million for a night, some ten thousand by default.
func TestModel(t *testing.T) {
	seed, total, setups := uint64(time.Now().UnixNano()), 60_000, 8
	if s := os.Getenv("ROAM_SEED"); s != "" {
		seed = number(t, "ROAM_SEED", s)
	}
	if s := os.Getenv("ROAM_PACKETS"); s != "" {
		total = int(number(t, "ROAM_PACKETS", s))
		setups = max(setups, total/100_000)
	}
	t.Logf("ROAM_SEED=%d: %d frames over %d tables", seed, total, setups)
	seen := map[string]int{}
	blind := func() (names []string) {
		for name := range reasonNumbers() {
			if name != "" && seen[name] == 0 && !cannotHappen[name] {
				names = append(names, name)
			}
		}
		return names
	}
	// A few tables can all happen to rule an outcome out, a segment without addresses say: such a seed gets more of them.
	for setup := 0; setup < setups || setup < setups+40 && len(blind()) > 0; setup++ {
		modelled(t, seed, setup, total/setups, seen)
	}
	for _, name := range blind() {
		t.Errorf("no frame came to %s: the generator is blind there", name)
	}
	t.Logf("%v", seen)
}

// linear is the longest frame that the test runner lays out in one piece, on machines with pages of 4 KiB: a program without frags sees no
// more of a longer one.
const linear = 4096 - 256 - 320

// modelled runs frames over one set of tables, and counts the reasons they came to.
func modelled(t *testing.T, seed uint64, setup, frames int, seen map[string]int) {
	w, err := loadWorld(tunes[setup%len(tunes)], false)
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	g := &generator{world: w, Rand: rand.New(rand.NewPCG(seed, uint64(setup)))}
	g.tables(roles[setup%len(roles)], setup)
	for range frames {
		in := g.frame()
		for len(in) > linear && !g.tune.Frags {
			in = g.frame()
		}
		x, slot := w.process(in)
		seen[x.reason]++
		w.checkAt(t, slot, in, x)
		if t.Failed() {
			t.Fatalf("ROAM_SEED=%d, set-up %d", seed, setup)
		}
	}
	if !w.settle() {
		t.Fatalf("ROAM_SEED=%d, set-up %d", seed, setup)
	}
}

// What no random frame comes to: the runner gives headroom enough, and frames are short enough for a checksum.
var cannotHappen = map[string]bool{"drop_headroom": true, "drop_checksum_length": true}

func number(t *testing.T, name, s string) uint64 {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatalf("%s=%q is no number", name, s)
	}
	return n
}

// generator draws tables and frames. Most of what it draws is nearly right, because what is all wrong ends at the first check.
type generator struct {
	*world
	*rand.Rand
	targets []netip.Addr // worth being a destination
}

func (g *generator) chance(percent int) bool { return g.IntN(100) < percent }

func one[T any](g *generator, list ...T) T { return list[g.IntN(len(list))] }

// roles are the roles of the port under test, in turn.
var roles = []uint8{
	maps.RoleAccess, maps.RoleUnderlay, maps.RoleAccess | maps.RoleUnderlay, maps.RoleUplink | maps.RoleUnderlay,
	maps.RoleFragment, maps.RoleUnderlay, maps.RoleAccess | maps.RoleUnderlay | maps.RoleUplink, maps.RoleUnderlay, 0,
	maps.RoleAccess, maps.RoleUplink,
}

// tunes are the load-time choices, in turn; a number of them that the roles' is no multiple of.
var tunes = []maps.Tune{
	talkative,
	tuned(func(t *maps.Tune) { t.SourceCheck, t.KeepTTL, t.Bridging = maps.SourceStrict, true, true }),
	tuned(func(t *maps.Tune) { t.SourceCheck, t.OuterDSCP, t.ClampMSS = maps.SourceOff, 46, false }),
	tuned(func(t *maps.Tune) { t.KeepTTL, t.Frags, t.Bridging = true, true, true }),
	tuned(func(t *maps.Tune) { t.Egress = true }),
	tuned(func(t *maps.Tune) { t.SourceCheck, t.Egress, t.Bridging = maps.SourceStrict, true, true }),
}

func tuned(change func(t *maps.Tune)) maps.Tune {
	tune := talkative
	change(&tune)
	return tune
}

// tables fills the world: the site of the golden packets, shaken.
func (g *generator) tables(role uint8, setup int) {
	g.fill(ingress{place: place(g.IntN(int(places))), role: role, vlan: one(g, uint16(0), 0, 0, 30, 4095)})
	for _, segment := range []uint16{segment1, segment30, segmentQ} {
		s := g.segments[segment]
		s.Flags = g.Uint32N(8) | one(g, 0, 0, 0, maps.SegmentStandby) // enum segment_flag
		s.DesignatedUntil = one(g, uint64(0), 0, longAgo, longTime)
		if g.chance(20) {
			s.Icmp4, s.Icmp6 = 0, [4]uint32{}
		}
		g.segment(segment, s)
	}
	p := g.ports[g.slot]
	p.Segment = one(g, uint16(segment1), segment1, segment1, segment30)
	if g.chance(5) {
		p.Segment = one(g, uint16(0), 99)
	}
	p.Tenant = one(g, uint16(tenant1), tenant1, tenant2)
	p.Flags = one(g, uint8(0), 0, maps.PortRedirect)
	p.Mtu = one(g, uint16(1500), 1500, 300, 68)
	g.port(p, g.chance(80))
	ids := []uint32{maps.IDGateway, maps.IDOwn, maps.IDKernel, maps.IDBlackhole}
	for _, f := range families {
		ids = append(ids, g.shake(f)...)
	}
	for _, f := range families {
		g.routes(f, ids)
		g.targets = append(g.targets, us[f], b[f], c[f])
	}
	g.targets = append(g.targets, gatewayLL)
	g.owners(setup)
	g.policies(ids)
}

// policies give half of the hosts of the site, and some others, a list of ways.
func (g *generator) policies(ids []uint32) {
	const lists = 6
	for _, f := range families {
		for i := range lists {
			p := netip.PrefixFrom(f.addr(128*(i&1)), f.addr(0).BitLen()-7)
			if i > 1 {
				a := g.near(f)
				p = netip.PrefixFrom(a, a.BitLen()-g.IntN(6))
			}
			g.prefix(maps.SpaceEgress+one(g, uint16(tenant1), tenant1, tenant2), p.Masked(), uint32(maps.SpaceWays)+uint32(i)+lists*uint32(f))
			for range g.IntN(5) {
				a := one(g, g.near(f), f.outside(17, 0))
				p := netip.PrefixFrom(a, one(g, 0, g.IntN(a.BitLen()+1))).Masked() // a default in every second list: enough come home
				g.prefix(maps.SpaceWays+uint16(i)+lists*uint16(f), p, one(g, uint32(maps.WayHere), one(g, append(ids, maps.WayLocal)...)))
			}
		}
	}
}

// owners shakes tenants and locators: every combination of a tenant's flags in eight set-ups.
func (g *generator) owners(setup int) {
	fragment := g.world.tenants[tenant1].Fragment
	if g.chance(10) {
		fragment = 255 // no port
	}
	for i, n := range []uint16{tenant1, tenant2} {
		t := g.world.tenants[n]
		t.Flags = uint16(setup^1^i*5) & 7
		t.Fragment = fragment
		if g.chance(20) {
			t.Icmp4, t.Icmp6 = 0, [4]uint32{}
		}
		g.tenant(n, t)
		for _, f := range families {
			for _, p := range []netip.Prefix{
				netip.PrefixFrom(f.addr(0), f.addr(0).BitLen()-8), netip.PrefixFrom(f.addr(128), f.addr(0).BitLen()-7),
				netip.PrefixFrom(f.outside(17, 0), f.addr(0).BitLen()-16),
			} {
				g.prefix(maps.SpaceSubnets+n, p.Masked(), 1+g.Uint32N(3)|g.Uint32N(2)*maps.SubnetKeepTTL)
			}
		}
	}
	for _, f := range families {
		for i, a := range []netip.Addr{b[f], c[f]} {
			n := uint16(1 + 2*i + int(f))
			g.locator(n, maps.Locator{Tenant: one(g, uint16(tenant1), tenant1, tenant2, 0), Mtu: one(g, uint16(0), 1400, 600, 50)}, a)
		}
	}
}

// shake changes what the next hops of a family do and returns their ids.
func (g *generator) shake(f family) (ids []uint32) {
	slots := make([]uint16, 0, len(g.ports))
	for slot := range uint16(maps.Ports) {
		if g.ports[slot].Ifindex != 0 {
			slots = append(slots, slot)
		}
	}
	for n := 3; n <= uplinkRouter; n++ {
		id := nexthopID(f, n)
		next, ok := g.nexthops[id]
		if !ok {
			continue
		}
		ids = append(ids, id)
		if next.Kind == maps.KindAdjacency {
			t := g.adjacencies[id]
			t.mtu = one(g, t.mtu, t.mtu, 1300, 256, 68)
			t.noECN = g.chance(30)
			t.udp = one(g, t.udp, t.udp, 8472) * min(1, t.udpPort())
			t.checksum = t.family() == v6 && t.udpPort() != 0 && g.chance(80)
			t.port = one(g, append(slots, t.port, t.port, t.port)...)
			g.adjacency(id, next.Flags^one(g, 0, 0, 0, maps.FlagHeld, maps.FlagMoved), t)
		}
	}
	g.set(nexthopID(f, atBoth), one(g, 0, maps.FlagHeld), one(g, ids...), one(g, ids...), one(g, ids...))
	return ids
}

// routes adds hosts and prefixes.
func (g *generator) routes(f family, ids []uint32) {
	for n := range 256 {
		if _, ok := g.hosts[host{tenant1, f.addr(n)}]; ok {
			g.targets = append(g.targets, f.addr(n))
		}
	}
	for range 150 {
		a := g.near(f)
		g.host(one(g, uint16(tenant1), tenant1, tenant1, tenant2), a, one(g, ids...))
		g.targets = append(g.targets, a)
	}
	for range 30 {
		a := g.near(f)
		p := netip.PrefixFrom(a, g.IntN(a.BitLen()+1)).Masked()
		g.prefix(one(g, uint16(tenant1), tenant1, tenant2), p, one(g, ids...))
	}
	for n := 16; n <= 22; n++ {
		g.targets = append(g.targets, f.outside(n, g.IntN(8)))
	}
}

// near is an address of the site's subnet or of its neighbourhood.
func (g *generator) near(f family) netip.Addr {
	b := f.addr(g.IntN(256)).AsSlice()
	for range g.IntN(4) {
		b[len(b)-1-g.IntN(len(b)-1)] = byte(g.IntN(256))
	}
	return addrFrom(b)
}

func (g *generator) target() netip.Addr {
	if g.chance(90) {
		return one(g, g.targets...)
	}
	return g.near(family(g.IntN(2)))
}

// source is an address of dst's family.
func (g *generator) source(dst netip.Addr) netip.Addr {
	for g.chance(85) {
		if a := g.target(); a.Is4() == dst.Is4() {
			return a
		}
	}
	if g.chance(10) {
		if dst.Is4() {
			return one(g, netip.IPv4Unspecified(), netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("224.1.1.1"), netip.MustParseAddr("169.254.3.3"))
		}
		return one(g, netip.IPv6Unspecified(), netip.IPv6Loopback(), netip.MustParseAddr("ff02::1"), netip.MustParseAddr("::ffff:1.2.3.4"))
	}
	if dst.Is4() {
		return v4.addr(asker)
	}
	return v6.addr(asker)
}

func (g *generator) destination() netip.Addr {
	if g.chance(4) {
		return one(g, netip.IPv4Unspecified(), netip.MustParseAddr("255.255.255.255"), netip.MustParseAddr("224.0.0.1"),
			netip.MustParseAddr("169.254.3.3"), netip.MustParseAddr("250.0.0.1"), netip.IPv6Loopback(),
			netip.MustParseAddr("ff05::1"), netip.MustParseAddr("fe80::77"), netip.MustParseAddr("::ffff:10.1.0.20"))
	}
	return g.target()
}

func (g *generator) frame() []byte {
	var b []byte
	n := g.IntN(100)
	if n < 80 { // what the port is there for
		switch g.ports[g.slot].Role {
		case maps.RoleUnderlay:
			n = 45 + n/4
		case maps.RoleAccess, maps.RoleUplink, maps.RoleFragment:
			n /= 2
		}
	}
	switch {
	case n < 45:
		b = g.fromHost()
	case n < 80:
		b = g.fromTunnel()
	case n < 88:
		b = g.arp()
	case n < 96:
		b = g.discovery()
	default:
		b = make([]byte, 14+g.IntN(200))
		for i := range b {
			b[i] = byte(g.Uint32())
		}
		copy(b[12:], []byte{8, 0, 0x45})
	}
	if g.chance(35) {
		b = g.mutate(b)
	}
	return b
}

// link draws link headers that mostly reach the gateway.
func (g *generator) link() frame {
	f := g.fromAsker(g.portMAC())
	if s, ok := g.segments[g.ports[g.slot].Segment]; ok && g.chance(60) {
		f.dst = s.Mac
	}
	if g.chance(8) {
		f.dst = one(g, strangeMAC, strangeMAC, formerMAC, hereMAC, broadcast, mac{0x33, 0x33, 0, 0, 0, 1}, mac{})
	}
	if g.chance(3) {
		f.tags = one(g, nil, []uint16{30}, []uint16{0}, []uint16{30, 30}, []uint16{0xb000 | g.ports[g.slot].Vlan})
	}
	if g.chance(15) {
		f.trailer = make([]byte, one(g, 1, 4, 18, 46, 300))
	}
	return f
}

func (g *generator) packet() packet {
	dst := g.destination()
	src := g.source(dst)
	p := packet{
		src: src, dst: dst, tos: byte(g.Uint32()), ttl: one(g, uint8(64), 64, 64, 255, 2, 1, 0), id: uint16(g.Uint32()),
		label: g.Uint32N(1 << 20), proto: one(g, uint8(6), 17, 17, 1, 58, 132, 47, 0, 43, 44, 60, 59),
	}
	p.payload = counting(one(g, 0, 1, 3, 4, 7, 8, 20, 41, 64, 100, 255, g.IntN(1700)))
	for i := range min(4, len(p.payload)) {
		p.payload[i] = byte(g.Uint32())
	}
	switch {
	case p.proto == 6 && g.chance(60):
		p.payload = g.syn(src, dst)
	case (p.proto == 1 || p.proto == 58) && len(p.payload) > 0:
		p.payload[0] = one(g, byte(0), 3, 11, 8, 1, 2, 128, p.payload[0]) // errors and others
	}
	if g.chance(50) {
		p.flags = layers.IPv4DontFragment
	}
	if g.chance(15) {
		for range g.IntN(40) {
			p.options = append(p.options, layers.IPv4Option{OptionType: 1})
		}
	}
	if g.chance(15) {
		p.extensions = one(g, extensionChains...)
	}
	if g.chance(8) {
		p.flags, p.offset = layers.IPv4Flag(g.IntN(8)), uint16(one(g, 0, 0, 1, 185))
	}
	return p
}

func (g *generator) fromHost() []byte {
	f := g.link()
	f.ip = g.packet()
	return f.bytes()
}

// syn is a TCP header with options, a SYN's more often than not.
func (g *generator) syn(src, dst netip.Addr) []byte {
	var options []byte
	for len(options) < 32 && g.chance(80) {
		options = append(options, one(g,
			[]byte{1}, []byte{1}, []byte{3, 3, 7}, []byte{4, 2}, []byte{0}, []byte{2, 4, 5, 180}, []byte{2, 4, 35, 40},
			[]byte{2, 4, 35, 40}, []byte{2, 4, 1, 0}, []byte{2, 3, 9}, []byte{9, 1}, []byte{9, 0}, []byte{8, 10, 1, 2, 3, 4, 5, 6, 7, 8}, []byte{2},
		)...)
	}
	options = append(options, make([]byte, (4-len(options)%4)%4)...)
	b := tcp(src, dst, uint16(g.Uint32()), 80, append(options, counting(g.IntN(9))...))
	b[12], b[13] = byte(5+len(options)/4)<<4, one(g, byte(2), 2, 0x12, 0x10, 0xc2)
	if g.chance(10) {
		b[12] = byte(g.Uint32())
	}
	if g.chance(5) {
		b = b[:g.IntN(len(b))]
	}
	return b
}

func (g *generator) fromTunnel() []byte {
	outer, e := family(g.IntN(2)), one(g, append(everyEncapsulation(), encVXLAN, encVXLAN)...)
	t := g.fromBy(e, outer, g.packet())
	if g.chance(10) {
		t = g.probeBy(e, outer, one(g, families...), g.chance(70), 16+g.IntN(200))
	}
	link := g.link()
	t.dst, t.src, t.tags, t.service, t.trailer = g.portMAC(), link.src, link.tags, link.service, link.trailer
	if g.chance(5) {
		t.dst = link.dst
	}
	t.ip.src = one(g, b[outer], c[outer])
	if g.chance(5) {
		t.ip.src = one(g, us[outer], g.near(outer))
	}
	if g.chance(5) {
		t.ip.dst = one(g, b[outer], g.near(outer))
	}
	t.ip.ttl, t.ip.tos = one(g, uint8(64), 64, 255, 2, 1, 0), byte(g.Uint32())
	if g.chance(5) {
		t.ip.extensions, t.ip.options = one(g, extensionChains...), []layers.IPv4Option{{OptionType: 1}}
	}
	if g.chance(5) {
		t.ip.flags, t.ip.offset = layers.IPv4Flag(g.IntN(8)), uint16(g.IntN(2))
	}
	inner := t.inner.bytes()
	if g.chance(10) {
		inner = g.flip(inner, 0)
	}
	f := familyOf(t.inner.ethertype())
	t.shim = e.shim(one(g, uint32(vni1), vni1, vni1, vni2, 1), routerUs, routerB, f)
	if g.tune.Bridging && g.chance(50) {
		t.shim = e.shim(one(g, uint32(bridge1), bridge1, bridge1, bridge30), routerUs, routerB, f)
		if e == encVXLAN {
			inner = g.bridged(&t, f, inner)
		}
	}
	if g.chance(40) {
		t.shim = g.shim(e, f, inner)
	}
	if g.chance(5) && len(t.shim) > 0 {
		t.shim[g.IntN(len(t.shim))] = byte(g.Uint32())
	}
	if g.chance(2) { // another encapsulation's header
		t.shim = one(g, everyEncapsulation()...).shim(vni1, routerUs, routerB, f)
	}
	return t.with(inner)
}

// bridged makes the frame inside one that is bridged to a segment: an IP packet, or a question.
func (g *generator) bridged(t *tunnelled, f family, packet []byte) []byte {
	to := one(g, gatewayMAC, hereMAC, formerMAC, strangeMAC, broadcast, mac{0x33, 0x33, 0, 0, 0, 1})
	if l, ok := g.locals[g.nexthops[g.hosts[host{tenant1, t.inner.dst}]].Index]; ok && g.chance(60) {
		to = l.Mac
	}
	kind := f.ethertype()
	if g.chance(50) {
		question := g.arp()
		if g.chance(50) {
			question = g.discovery()
		}
		l3 := 14
		for be.Uint16(question[l3-2:]) == 0x8100 || be.Uint16(question[l3-2:]) == 0x88a8 {
			l3 += 4
		}
		kind, packet = be.Uint16(question[l3-2:]), question[l3:]
		if g.chance(70) {
			to = broadcast
		}
	}
	t.shim = append(t.shim[:8], ethernetHeader(to, one(g, hostMAC(asker), hostMAC(asker), hostMAC(asker), broadcast), kind)...)
	return packet
}

// shim is one of the less usual headers of an encapsulation.
func (g *generator) shim(e encapsulation, f family, inner []byte) []byte {
	kind := f.ethertype()
	bridged := ethernetHeader(one(g, routerUs, routerUs, broadcast), routerB, one(g, kind, kind, 0x0806))
	vni := be.AppendUint32(nil, vni1<<8)
	switch e {
	case encGPE:
		flags, next := one(g, byte(0x0c), 0x0d, 0x08, 0x3c, 0x0e), one(g, byte(1+f), 3, 4)
		b := append([]byte{flags, 0, 0, next}, vni...)
		if next == 3 {
			b = append(b, bridged...)
		}
		return b
	case encGeneve, encGeneveEthernet:
		options := make([]byte, 4*g.IntN(64))
		b := append([]byte{byte(len(options) / 4), one(g, byte(0), 0, 0x80, 0x40, 0x3f), 0x65, 0x58}, vni...)
		b = append(b, options...)
		if g.chance(50) {
			be.PutUint16(b[2:], kind)
			return b
		}
		return append(b, bridged...)
	case encGUE:
		extensions := make([]byte, 4*g.IntN(32))
		head := byte(len(extensions) / 4)
		return one(g,
			append([]byte{head, f.protocol(), 0, 0}, extensions...), append([]byte{head, f.protocol(), 0, 0}, extensions...), nil, nil,
			[]byte{head | 0x20, 1, 0, 0}, []byte{head, f.protocol(), 0, 1}, []byte{0, 17, 0, 0}, []byte{head, f.protocol(), 0, 0}, []byte{0x80, 4, 0, 0},
		)
	case encLISP:
		b := append([]byte{one(g, byte(0x08), 0x88, 0xc8, 0x38, 0x00, 0xa0, 0x09, 0x0c, 0x04), 1, 2, one(g, byte(1+f), 3, 0)}, vni...)
		if b[0]&4 != 0 && b[3] == 3 {
			b = append(b, bridged...)
		}
		return b
	case encGRE, encGREKey:
		return g.gre(kind, bridged, inner)
	}
	return e.shim(vni1, routerUs, routerB, f)
}

// gre is a header with any of the optional fields, and a checksum that is right more often than not.
func (g *generator) gre(kind uint16, bridged, inner []byte) []byte {
	flags := one(g, byte(0), 0x80, 0x20, 0x10, 0xa0, 0xb0, 0x90, 0x30)
	b := []byte{flags, 0, byte(kind >> 8), byte(kind)}
	if flags&0x80 != 0 {
		b = append(b, 0, 0, 0, 0)
	}
	if flags&0x20 != 0 {
		b = be.AppendUint32(b, one(g, uint32(vni1), vni1, vni2, 0xff000000|vni1))
	}
	if flags&0x10 != 0 {
		b = append(b, 1, 2, 3, 4)
	}
	if g.chance(20) {
		b[2], b[3] = 0x65, 0x58
		b = append(b, bridged...)
	}
	if flags&0x80 != 0 {
		be.PutUint16(b[4:], ^uint16(onesComplement(append(bytes.Clone(b), inner...))))
		if g.chance(20) {
			b[5] ^= 1
		}
	}
	return b
}

func (g *generator) arp() []byte {
	target := v4.addr(g.IntN(256))
	if a := g.target(); a.Is4() {
		target = a
	}
	a := g.arpFor(target)
	link := g.link()
	a.tags, a.service, a.trailer = link.tags, link.service, link.trailer
	switch g.IntN(10) {
	case 0:
		a.SourceProtAddress = a.DstProtAddress
	case 1:
		a.SourceProtAddress = make([]byte, 4)
	case 2:
		a.Operation = uint16(g.IntN(5))
	case 3:
		a.src = link.dst
	}
	return a.bytes()
}

func (g *generator) discovery() []byte {
	target := g.target()
	if !target.Is6() {
		target = one(g, v6.addr(gateway), gatewayLL, v6.addr(g.IntN(256)))
	}
	s := g.solicit(target)
	link := g.link()
	s.tags, s.service, s.trailer = link.tags, link.service, link.trailer
	switch g.IntN(12) {
	case 0:
		s.ip.src, s.opts = netip.IPv6Unspecified(), nil
	case 1:
		s.opts = nil
	case 2:
		s.ip.ttl = byte(g.Uint32())
	case 3:
		s.spoil = uint16(g.Uint32())
	case 4:
		s.icmp = byte(130 + g.IntN(10))
	case 5:
		s.extra = make([]byte, 8*g.IntN(70))
	case 6:
		s.ip.src = g.source(target)
	case 7:
		s.ip.dst = g.source(target)
	case 8:
		s.ip.extensions = one(g, extensionChains...)
	case 9:
		s.ip.tos, s.ip.label = byte(g.Uint32()), g.Uint32N(1<<20)
	}
	return s.bytes()
}

// mutate spoils a frame, and half of the time rights the checksum that would give it away.
func (g *generator) mutate(b []byte) []byte {
	for range 1 + g.IntN(3) {
		switch g.IntN(5) {
		case 0:
			b = b[:14+g.IntN(len(b)-13)]
		case 1:
			b = append(b, make([]byte, g.IntN(80))...)
		default:
			b = g.flip(b, 12)
		}
	}
	if l3 := g.l3(); g.chance(50) && len(b) > l3+60 {
		b = fixed4If(b, l3)
		for _, inner := range []int{l3 + 20, l3 + 24, l3 + 28, l3 + 32, l3 + 36, l3 + 40, l3 + 44, l3 + 50, l3 + 56, l3 + 70} {
			if inner+60 < len(b) {
				b = fixed4If(b, inner)
			}
		}
	}
	return b
}

// flip changes a byte of the headers, from offset at on: a bit, or to a value that is often special.
func (g *generator) flip(b []byte, at int) []byte {
	b = bytes.Clone(b)
	if len(b) <= at {
		return b
	}
	i := at + g.IntN(min(len(b)-at, 130))
	switch g.IntN(3) {
	case 0:
		b[i] ^= 1 << g.IntN(8)
	case 1:
		b[i] = one(g, byte(0), 1, 4, 6, 0x45, 0x4f, 0x60, 0x7f, 0x80, 0xff)
	default:
		b[i] = byte(g.Uint32())
	}
	return b
}

func fixed4If(b []byte, at int) []byte {
	if b[at]>>4 == 4 {
		return fixed4(b, at)
	}
	return b
}
