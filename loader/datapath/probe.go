package datapath

import (
	"encoding/binary"
	"errors"
	"hash/fnv"
	"math"
	"net/netip"

	"roam/loader/route"
	"roam/maps"
)

// Way is how tunnel packets reach a locator, as a probe wants to know it.
type Way struct {
	Address netip.Addr
	Key     string // what was known of another key's tunnel says nothing of this one
	Known   bool   // else only Address counts: there is no way at the moment
	Fits    int    // the largest inner IP packet, as far as is known
	Whole   int    // and as the interface and its route have it, whatever routers or probes said of the rest of the way
	Least   int    // the smallest probe, likewise an inner IP packet

	link       int // interface index
	answerPort uint16
	source     uint16 // of the outer UDP header, and the flow label: one flow
	tos        uint8
	adjacency  maps.Adjacency
	target     maps.Target
}

// Lengths of a probe inside: an echo's header (RFC 792, RFC 4443 section 4.1) and the token.
const (
	echoLen   = 8
	tokenLen  = 8
	probeTTL  = 64
	innerTTL  = 1 // who does not know what a probe is must not forward it
	protoICMP = 1
	protoICM6 = 58

	echoRequest4, echoReply4 = 8, 0
	echoRequest6, echoReply6 = 128, 129

	firstSource = 49152 // as in bpf/encap.h
)

// leastProbe is the smallest inner packet that is a probe.
func leastProbe(v6 bool) int { return ipLen(v6) + echoLen + tokenLen }

func ipLen(v6 bool) int {
	if v6 {
		return ipv6Len
	}
	return ipv4Len
}

// ProbeAnswer is what came back of a probe.
type ProbeAnswer struct {
	Token    uint64
	Sequence uint16
	Size     int // of the inner packet
}

// frame makes the tunnel packet of a probe: the template as the data path patches it, an echo inside of the locator's family.
func (w *Way) frame(size int, token uint64, sequence uint16) []byte {
	a, v6 := &w.adjacency, w.Address.Is6()
	b := append([]byte(nil), a.Header[:a.Len]...)
	proto := a.Proto4
	if v6 {
		proto = a.Proto6
	}
	if a.Proto != 0 {
		copy(b[a.Proto:][:a.ProtoSize], binary.NativeEndian.AppendUint16(nil, proto))
	}
	b = append(b, echo(v6, w.answerPort, size, token, sequence)...)
	w.patchOuter(b)
	return b
}

// patchOuter writes lengths, TTL, DSCP, source port or flow label, and checksums.
func (w *Way) patchOuter(b []byte) {
	a := &w.adjacency
	ip := b[ethernetLen:]
	if w.Address.Is6() {
		binary.BigEndian.PutUint32(ip, 6<<28|uint32(w.tos)<<20|uint32(w.source))
		binary.BigEndian.PutUint16(ip[4:], uint16(len(ip)-ipv6Len))
		ip[7] = probeTTL
	} else {
		binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
		ip[1], ip[8] = w.tos, probeTTL
		binary.BigEndian.PutUint16(ip[10:], 0)
		putSum(ip[10:], ip[:ipv4Len])
	}
	if a.Udp == 0 {
		return
	}
	udp := b[a.Udp:]
	binary.BigEndian.PutUint16(udp, firstSource|w.source)
	binary.BigEndian.PutUint16(udp[4:], uint16(len(udp)))
	if a.Flags&maps.AdjUDPCsum != 0 {
		putSum(udp[6:], pseudo(ip, len(udp), protoUDP), udp)
		if udp[6] == 0 && udp[7] == 0 {
			udp[6], udp[7] = 0xff, 0xff
		}
	}
}

// pseudo is what RFC 8200, section 8.1 has a checksum cover in front of a message of n bytes.
func pseudo(ip6 []byte, n int, proto byte) []byte {
	b := append([]byte(nil), ip6[8:40]...)
	return append(binary.BigEndian.AppendUint32(b, uint32(n)), 0, 0, 0, proto)
}

// putSum writes the Internet checksum over the parts, all but the last of even length, whose checksum field is still 0.
func putSum(to []byte, parts ...[]byte) {
	var all []byte
	for _, p := range parts {
		all = append(all, p...)
	}
	binary.NativeEndian.PutUint16(to, ^uint16(folded(all)))
}

// echo is the inner packet: the token, and zeros up to its size.
func echo(v6 bool, port uint16, size int, token uint64, sequence uint16) []byte {
	b := make([]byte, size)
	m := b[ipLen(v6):]
	binary.BigEndian.PutUint16(m[4:], port)
	binary.BigEndian.PutUint16(m[6:], sequence)
	binary.BigEndian.PutUint64(m[8:], token)
	if v6 {
		b[0], b[6], b[7], m[0] = 0x60, protoICM6, innerTTL, echoRequest6
		binary.BigEndian.PutUint16(b[4:], uint16(len(m)))
		probeEnd(b[8:], maps.ProbeAsker)
		probeEnd(b[24:], maps.ProbeAnswerer)
		putSum(m[2:], pseudo(b, len(m), protoICM6), m)
		return b
	}
	b[0], b[6], b[8], b[9], m[0] = 0x45, 0x40, innerTTL, protoICMP, echoRequest4
	binary.BigEndian.PutUint16(b[2:], uint16(size))
	binary.BigEndian.PutUint32(b[12:], maps.ProbeAsker)
	binary.BigEndian.PutUint32(b[16:], maps.ProbeAnswerer)
	putSum(b[10:], b[:ipv4Len])
	putSum(m[2:], m)
	return b
}

// probeEnd writes an end's IPv6 address.
func probeEnd(b []byte, low uint32) {
	b[0], b[1] = 0xfe, 0x80
	binary.BigEndian.PutUint32(b[12:], low)
}

// errNoAnswer is a frame that the data path would not have handed over.
var errNoAnswer = errors.New("no answer to a probe")

// answerFrom is who sent what the data path handed over, by the outer header behind a link header.
func answerFrom(b []byte) (netip.Addr, error) {
	switch {
	case len(b) >= ethernetLen+ipv4Len && b[ethernetLen]>>4 == 4:
		return netip.AddrFrom4([4]byte(b[ethernetLen+12:])), nil
	case len(b) >= ethernetLen+ipv6Len && b[ethernetLen]>>4 == 6:
		return netip.AddrFrom16([16]byte(b[ethernetLen+8:])), nil
	}
	return netip.Addr{}, errNoAnswer
}

// parse reads an answer, which lies where the question did. The data path has seen addresses, lengths and checksums.
func (w *Way) parse(b []byte) (ProbeAnswer, error) {
	v6 := w.Address.Is6()
	if len(b) < int(w.adjacency.Len)+leastProbe(v6) {
		return ProbeAnswer{}, errNoAnswer
	}
	ip := b[w.adjacency.Len:]
	m, size, kind := ip[ipLen(v6):], int(binary.BigEndian.Uint16(ip[2:])), byte(echoReply4)
	if v6 {
		size, kind = ipv6Len+int(binary.BigEndian.Uint16(ip[4:])), echoReply6
	}
	if ip[0]>>4 == 6 != v6 || size > len(ip) || m[0] != kind {
		return ProbeAnswer{}, errNoAnswer
	}
	return ProbeAnswer{Token: binary.BigEndian.Uint64(m[8:]), Sequence: binary.BigEndian.Uint16(m[6:]), Size: size}, nil
}

// noteWays remembers how probes reach every locator. Of several tunnels to one address that one is probed which was before, else the
// first: another tenant's, say, the far end may not know. The caller holds the lock.
func (g *Gateway) noteWays(hops map[netip.Addr]hop, why map[netip.Addr]error) {
	before, next := *g.ways.Load(), map[netip.Addr]*Way{}
	note := func(target maps.Target) {
		a := g.table.locators.Key(target.Variant).Address
		if old, again := before[a]; next[a] != nil && !(again && old.target == target) {
			return
		}
		next[a] = g.way(a, target, hops[a], why[a])
	}
	for _, target := range g.table.nexthops.Variants() {
		note(target)
	}
	for variant := range g.table.known {
		if a := g.table.locators.Key(variant).Address; next[a] == nil {
			note(maps.Target{Kind: maps.KindAdjacency, Tenant: g.table.tenants.first(), Variant: variant})
		}
	}
	for a, w := range next {
		if old := before[a]; !w.Known && old != nil {
			w.Key, w.target = old.Key, old.target // it is the same when it comes back
		}
	}
	g.ways.Store(&next)
}

func (g *Gateway) way(a netip.Addr, target maps.Target, h hop, why error) *Way {
	w := &Way{Address: a, target: target, Least: leastProbe(a.Is6())}
	vni, ok := g.table.tenants.vni(target.Tenant)
	if why != nil || !ok {
		return w
	}
	key := g.table.locators.Key(target.Variant)
	var err error
	if w.adjacency, err = template(h.path, g.tunnelTo(target.Variant, vni)); err != nil {
		return w
	}
	w.Known, w.link = true, h.link
	w.Key = string(binary.BigEndian.AppendUint32([]byte{key.Encap, byte(key.Port >> 8), byte(key.Port)}, vni))
	w.Fits = int(w.adjacency.Mtu)
	w.Whole = max(0, w.Fits+h.whole-h.MTU)
	w.answerPort = ownPort(route.Encap(key.Encap), g.spec.Ports)
	w.source = flowOf(a)
	if g.spec.DSCP != maps.DSCPCopy {
		w.tos = g.spec.DSCP << 2
	}
	return w
}

// ownPort is where tunnels of an encapsulation arrive at our end, 0 for one without UDP.
func ownPort(e route.Encap, ports maps.TunnelPorts) uint16 {
	if ports == (maps.TunnelPorts{}) {
		ports = maps.DefaultTune.Ports
	}
	switch e {
	case route.VXLAN:
		return ports.VXLAN
	case route.VXLANGPE:
		return ports.VXLANGPE
	case route.Geneve, route.GeneveL2:
		return ports.Geneve
	case route.GUE:
		return ports.GUE
	case route.LISP:
		return ports.LISP
	}
	return 0
}

// flowOf is the flow that probes of a locator are: always one, so that the underlay takes them one way, and another for every locator.
func flowOf(a netip.Addr) uint16 {
	h := fnv.New32a()
	b := a.As16()
	_, _ = h.Write(b[:])
	return uint16(h.Sum32() & (1<<14 - 1))
}

// Ways lists the locators in use and how probes reach them.
func (g *Gateway) Ways() []Way {
	var list []Way
	for _, w := range *g.ways.Load() {
		list = append(list, *w)
	}
	return list
}

// FoundMTU takes the word of whoever probes: this is the largest inner packet that gets to a locator and back. It holds for ten
// minutes; 0 takes back what probes and routers said, as everything gets through that the interface takes. It reports whether that is
// followed: a path MTU that no path has is not.
func (g *Gateway) FoundMTU(locator netip.Addr, fits int) bool {
	w := (*g.ways.Load())[locator]
	if w == nil || !w.Known {
		return false
	}
	if fits == 0 {
		if g.paths.forget(locator) {
			g.underlay.kick()
		}
		return true
	}
	mtu := fits + int(w.adjacency.Len) - ethernetLen
	if g.paths.lower(locator, mtu) {
		g.log.Info("the underlay carries less to a locator", "locator", locator, "mtu", mtu, "says", "probes")
		g.underlay.kick()
	}
	return g.paths.limit(locator, math.MaxUint16) <= mtu
}
