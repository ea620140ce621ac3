package bpftest

import (
	"net/netip"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"roam/maps"
)

// The two ends of a probe.
const (
	asking = iota
	answering
)

// probeAddr is an end's address inside: docs/encapsulations.md.
func probeAddr(v6 bool, end int) netip.Addr {
	if v6 {
		return [2]netip.Addr{netip.MustParseAddr("fe80::a9fe:ff01"), netip.MustParseAddr("fe80::a9fe:ff02")}[end]
	}
	return [2]netip.Addr{netip.MustParseAddr("169.254.255.1"), netip.MustParseAddr("169.254.255.2")}[end]
}

// echo is a probe's inner packet with so many bytes of ICMP: its header, the token, and what fills it up.
func echo(f family, question bool, port uint16, size int) packet {
	fix := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	from, to := asking, answering
	if !question {
		from, to = answering, asking
	}
	p := packet{src: probeAddr(f == v6, from), dst: probeAddr(f == v6, to), ttl: 1, flags: layers.IPv4DontFragment}
	if f == v4 {
		kind := uint8(layers.ICMPv4TypeEchoReply)
		if question {
			kind = layers.ICMPv4TypeEchoRequest
		}
		p.proto = 1
		p.payload = serialize(fix, &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(kind, 0), Id: port, Seq: 7}, gopacket.Payload(counting(size-8)))
		return p
	}
	kind := uint8(layers.ICMPv6TypeEchoReply)
	if question {
		kind = layers.ICMPv6TypeEchoRequest
	}
	p.proto = 58
	m := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(kind, 0)}
	if err := m.SetNetworkLayerForChecksum(network(p.src, p.dst, layers.IPProtocolICMPv6)); err != nil {
		panic(err)
	}
	p.payload = serialize(fix, m, &layers.ICMPv6Echo{Identifier: port, SeqNumber: 7}, gopacket.Payload(counting(size-8)))
	return p
}

// probeBy is a probe of site B's, or its answer to ours.
func (w *world) probeBy(e encapsulation, outer, inner family, question bool, size int) tunnelled {
	t := w.fromBy(e, outer, echo(inner, question, e.udpPort(), size))
	t.ip.tos = 0xb8
	t.ip.label = 0x23456
	return t
}

// answerTo is what must leave for site B: a tunnel packet the other way, put together anew.
func (w *world) answerTo(e encapsulation, q tunnelled) want {
	f := familyOf(q.inner.ethertype())
	a := q
	a.dst, a.src = q.src, q.dst
	a.ip.src, a.ip.dst, a.ip.ttl, a.ip.tos = q.ip.dst, q.ip.src, 64, q.ip.tos&^3
	a.shim = e.shim(vni1, routerB, routerUs, f)
	a.inner = echo(f, false, e.udpPort(), len(q.inner.payload))
	a.inner.ttl = q.inner.ttl
	return want{reason: "fwd_probe", tx: true, out: a.bytes()}
}

// handedToDaemon is an answer as the daemon gets it.
func (w *world) handedToDaemon(a tunnelled) want {
	b := a.bytes()
	be.PutUint16(b[12+4*len(a.tags):], 0x88b6)
	return want{reason: "pass_probe", out: b}
}

// What must not be answered, or not be believed.
var probeMutations = []struct {
	name, reason string
	question     bool
	spoil        func(c *cell, in *tunnelled) ([]byte, bool)
}{
	{"from nobody known", "drop_unknown_locator", true, func(c *cell, in *tunnelled) ([]byte, bool) {
		in.ip.src = c.outer.addr(nobody)
		return in.bytes(), true
	}},
	{"an answer to an answer", "drop_probe", true, func(c *cell, in *tunnelled) ([]byte, bool) {
		in.inner.payload = echo(c.inner, false, c.enc.udpPort(), 100).payload // by its kind one, by its addresses none
		return in.bytes(), true
	}},
	{"a question to the asker", "drop_probe", false, func(c *cell, in *tunnelled) ([]byte, bool) {
		in.inner.payload = echo(c.inner, true, c.enc.udpPort(), 100).payload
		return in.bytes(), true
	}},
	{"wrong ICMP checksum", "drop_probe", true, func(c *cell, in *tunnelled) ([]byte, bool) {
		in.inner.payload[2]++
		return in.bytes(), true
	}},
	{"wrong ICMP checksum of an answer", "drop_probe", false, func(c *cell, in *tunnelled) ([]byte, bool) {
		in.inner.payload[99]++
		return in.bytes(), true
	}},
	{"a code", "drop_probe", true, func(c *cell, in *tunnelled) ([]byte, bool) {
		in.inner.payload[1], in.inner.payload[3] = 1, in.inner.payload[3]-1
		return in.bytes(), true
	}},
	{"no room for a token", "drop_probe", true, func(c *cell, in *tunnelled) ([]byte, bool) {
		in.inner = echo(c.inner, true, c.enc.udpPort(), 15)
		return in.bytes(), true
	}},
	{"cut off", "drop_ip_header", true, func(c *cell, in *tunnelled) ([]byte, bool) {
		b := in.inner.bytes()
		return in.with(b[:len(b)-1]), true
	}},
	{"a fragment", "drop_probe", true, func(c *cell, in *tunnelled) ([]byte, bool) {
		in.inner.flags, in.inner.extensions = layers.IPv4MoreFragments, []extension{firstPart}
		return in.bytes(), true
	}},
	{"inner options, extension headers", "drop_probe", true, func(c *cell, in *tunnelled) ([]byte, bool) {
		in.inner.options, in.inner.extensions = []layers.IPv4Option{{OptionType: 1}}, []extension{destination}
		return in.bytes(), true
	}},
	{"outer options, extension headers", "drop_probe", true, func(c *cell, in *tunnelled) ([]byte, bool) {
		in.ip.options, in.ip.extensions = []layers.IPv4Option{{OptionType: 1}}, []extension{destination}
		return in.bytes(), true
	}},
	{"another protocol", "drop_probe", true, func(c *cell, in *tunnelled) ([]byte, bool) {
		in.inner.proto = 17
		return in.bytes(), true
	}},
	{"no port for the answer", "drop_probe", true, func(c *cell, in *tunnelled) ([]byte, bool) {
		in.inner = echo(c.inner, true, 0, 100)
		return in.bytes(), in.port != 0
	}},
	{"longer than the port carries", "drop_probe", true, func(c *cell, in *tunnelled) ([]byte, bool) {
		in.inner = echo(c.inner, true, c.enc.udpPort(), 1601)
		return in.bytes(), true
	}},
	{"a priority tag", "drop_probe", true, func(c *cell, in *tunnelled) ([]byte, bool) {
		in.tags = []uint16{0x6000} // whose priority looks like a version
		return in.bytes(), true
	}},
	{"between other addresses", "drop_martian", true, func(c *cell, in *tunnelled) ([]byte, bool) {
		in.inner.dst = linkLocalOf(in.inner)
		return in.bytes(), true
	}},
	{"from one end to itself", "drop_martian", true, func(c *cell, in *tunnelled) ([]byte, bool) {
		in.inner.dst = in.inner.src
		return in.bytes(), true
	}},
}

// The two ends' tunnels may arrive at different ports: the answer goes to the asker's, whatever the checksum.
func TestProbePorts(t *testing.T) {
	w := site(t, onWAN)
	for _, outer := range families {
		for _, csum := range []bool{false, true} {
			for _, port := range []uint16{4789, 14789, 1, 0xffff, 4788} {
				q := w.probeBy(encVXLAN, outer, v4, true, 64)
				q.csum = csum
				q.inner = echo(v4, true, port, 64)
				a := q
				a.dst, a.src, a.port = q.src, q.dst, port
				a.ip.src, a.ip.dst, a.ip.ttl = q.ip.dst, q.ip.src, 64
				a.shim, a.inner = encVXLAN.shim(vni1, routerB, routerUs, v4), echo(v4, false, port, 64)
				for _, source := range []uint16{50000, zeroSum(q), zeroSum(a)} {
					q.source, a.source = source, source
					w.check(t, q.bytes(), want{reason: "fwd_probe", tx: true, out: a.bytes()})
				}
			}
		}
	}
}

// zeroSum is the source port with which the UDP checksum comes out as 0, and is written as 0xffff (RFC 768).
func zeroSum(t tunnelled) uint16 {
	t.source = 0
	return be.Uint16(t.bytes()[t.udpAt()+6:])
}

// Whatever the checksums are, 0 and 0xffff among them: what the turn makes of them is right.
func TestProbeChecksums(t *testing.T) {
	w := site(t, onWAN)
	for i := range 1 << 16 {
		if testing.Short() && i%251 != 0 {
			continue
		}
		f := family(i & 1)
		q := w.probeBy(encVXLAN, v6, f, true, 18)
		x := w.answerTo(encVXLAN, q)
		a := q
		a.dst, a.src, a.ip.src, a.ip.dst, a.ip.ttl = q.src, q.dst, q.ip.dst, q.ip.src, 64
		a.shim, a.inner = encVXLAN.shim(vni1, routerB, routerUs, f), ending(echo(f, false, 4789, 18), i)
		q.inner = ending(q.inner, i)
		x.out = a.bytes()
		w.check(t, q.bytes(), x)
	}
}

// ending is an echo with other last bytes, and the checksum that belongs to them.
func ending(p packet, last int) packet {
	p.payload = clone(p.payload)
	be.PutUint16(p.payload[len(p.payload)-2:], uint16(last))
	p.payload[2], p.payload[3] = 0, 0
	v := &view{ip: header{v6: p.v6(), src: p.src, dst: p.dst}}
	be.PutUint16(p.payload[2:], ^uint16(onesComplement(append(v.pseudo(len(p.payload)), p.payload...))))
	return p
}

// So many answers a second to one locator, whoever else asks.
func TestProbeRate(t *testing.T) {
	tune := talkative
	tune.Probes = 5
	w := site(t, ingress{name: "few answers", place: wan, role: maps.RoleUnderlay, tune: tune})
	for _, outer := range families {
		q := w.probeBy(encVXLAN, outer, v4, true, 64)
		for range 5 {
			w.check(t, q.bytes(), w.answerTo(encVXLAN, q))
		}
		w.check(t, q.bytes(), want{reason: "drop_probe"})
		other := q
		other.ip.src = c[outer]
		w.check(t, other.bytes(), w.answerTo(encVXLAN, other))
		a := w.probeBy(encVXLAN, outer, v4, false, 64)
		for range 10 {
			w.check(t, a.bytes(), w.handedToDaemon(a))
		}
	}
	tune.Probes = 0
	w = site(t, ingress{name: "no answers", place: wan, role: maps.RoleUnderlay, tune: tune})
	w.check(t, w.probeBy(encVXLAN, v4, v4, true, 64).bytes(), want{reason: "drop_probe"})
}
