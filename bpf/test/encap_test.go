package bpftest

import (
	"slices"
	"testing"

	"github.com/gopacket/gopacket/layers"

	"roam/maps"
)

var tunnelHosts = []int{atB4, atB6, atB6Zero, atTX4, atTX6}

func (w *world) tunnelOf(f family, n int) tunnel { return w.adjacencies[nexthopID(f, n)] }

// leaves is the want of a packet that leaves in this tunnel.
func (w *world) leaves(t testing.TB, reason string, tun tunnel, inner packet, ttl uint8, trailer ...byte) want {
	return want{
		reason: reason, locator: tun.locator, tx: w.ports[tun.port].Ifindex == loopback,
		made: intoTunnel(t, tun, inner.hop(), ttl, trailer...),
	}
}

// Every host-side port, both families inside, both underlays: the packet leaves whole in a right tunnel header.
func TestEncap(t *testing.T) {
	everyIngress(t, hostPorts, func(t *testing.T, w *world) {
		everyFamily(t, func(t *testing.T, f family) {
			for _, n := range tunnelHosts {
				in := w.base(f, n)
				w.check(t, in.bytes(), w.leaves(t, "fwd_encap", w.tunnelOf(f, n), in.ip, 64))
			}
		})
	})
}

// DSCP and ECN are copied to the outer header, all of them.
func TestEncapTrafficClass(t *testing.T) {
	w := site(t, onLAN)
	everyFamily(t, func(t *testing.T, f family) {
		for _, n := range []int{atB4, atB6} {
			for tos := 0; tos < 256; tos += 7 {
				in := w.base(f, n)
				in.ip.tos = uint8(tos)
				w.check(t, in.bytes(), w.leaves(t, "fwd_encap", w.tunnelOf(f, n), in.ip, 64))
			}
			for ecn := range 4 {
				in := w.base(f, n)
				in.ip.tos = 0xb8 | uint8(ecn)
				w.check(t, in.bytes(), w.leaves(t, "fwd_encap", w.tunnelOf(f, n), in.ip, 64))
			}
		}
	})
}

// What lies behind the IP header is not the gateway's business.
func TestEncapUntouched(t *testing.T) {
	w := site(t, onLAN)
	options := []layers.IPv4Option{{OptionType: 1}, {OptionType: 1}, {OptionType: 148, OptionLength: 4, OptionData: []byte{0, 0}}, {OptionType: 1}, {OptionType: 1}}
	for _, n := range []int{atB4, atB6} {
		base := func(f family, change func(*packet)) {
			t.Helper()
			in := w.base(f, n)
			change(&in.ip)
			w.check(t, in.bytes(), w.leaves(t, "fwd_encap", w.tunnelOf(f, n), in.ip, 64))
		}
		base(v4, func(p *packet) { p.options = options })
		base(v4, func(p *packet) { p.options = slices.Repeat(options[:1], 40) })
		base(v4, func(p *packet) { p.flags = layers.IPv4MoreFragments })
		base(v4, func(p *packet) { p.offset = 185 })
		base(v4, func(p *packet) { p.flags = layers.IPv4EvilBit })
		base(v4, func(p *packet) { p.payload = nil })
		base(v4, func(p *packet) { p.proto, p.payload = 47, []byte{0, 0, 8, 0} })
		for _, chain := range extensionChains {
			base(v6, func(p *packet) { p.extensions = chain })
		}
		base(v6, func(p *packet) { p.proto, p.payload = 59, nil })
		base(v6, func(p *packet) { p.proto, p.payload = 0, nil })                        // an options header that is not there
		base(v6, func(p *packet) { p.proto, p.payload = 43, []byte{17, 255, 0, 0, 0} })  // one that is cut off
		base(v6, func(p *packet) { p.proto, p.payload = 60, counting(16) })              // one that claims more than there is
		base(v6, func(p *packet) { p.proto, p.payload = 44, []byte{17, 0, 0, 1, 0, 0} }) // a fragment header cut off
		base(v6, func(p *packet) { p.proto, p.payload = 58, nil })                       // ICMPv6 without a message
		base(v6, func(p *packet) { p.proto, p.payload = 58, []byte{128, 0, 0, 0} })      // an echo request
		base(v6, func(p *packet) { p.proto, p.payload = 58, counting(1) })               // a type alone
	}
}

var (
	hopByHop    = extension{0, []byte{0, 0, 1, 4, 0, 0, 0, 0}}
	destination = extension{60, append([]byte{0, 2, 1, 20}, make([]byte, 20)...)}
	routing     = extension{43, append([]byte{0, 4, 2, 1}, make([]byte, 36)...)}
	firstPart   = extension{44, []byte{0, 0, 0, 1, 0, 0, 0, 9}}
	laterPart   = extension{44, []byte{0, 0, 5, 0x48, 0, 0, 0, 9}}
	atomicPart  = extension{44, []byte{0, 0, 0, 0, 0, 0, 0, 9}}
	long        = extension{60, append([]byte{0, 127}, make([]byte, 1022)...)}
)

var extensionChains = [][]extension{
	{hopByHop},
	{destination},
	{routing},
	{hopByHop, routing, destination},
	{firstPart},
	{laterPart},
	{atomicPart},
	{hopByHop, destination, laterPart},
	{hopByHop, destination, routing, destination, destination, destination},
	{hopByHop, destination, destination, destination, destination, destination, destination, destination},
	{long},
	{long, hopByHop},
}

// A short packet arrives padded to the smallest frame: lengths come from the IP header, the padding travels behind.
func TestEncapPadding(t *testing.T) {
	w := site(t, onLAN)
	everyFamily(t, func(t *testing.T, f family) {
		for _, n := range []int{atB4, atB6, atB6Zero} {
			for _, pad := range []int{1, 6, 18, 46} {
				in := w.base(f, n)
				in.ip.payload = udp(in.ip.src, in.ip.dst, 1, 2, nil, true)
				in.trailer = slices.Repeat([]byte{0xee}, pad)
				w.check(t, in.bytes(), w.leaves(t, "fwd_encap", w.tunnelOf(f, n), in.ip, 64, in.trailer...))
			}
		}
	})
}

// Between hosts of a site the packet gets a new link header, tagged where the port is.
func TestDeliver(t *testing.T) {
	everyIngress(t, hostPorts, func(t *testing.T, w *world) {
		everyFamily(t, func(t *testing.T, f family) {
			for _, n := range []int{here, here30, hereQ, beside} {
				in := w.base(f, n)
				w.check(t, in.bytes(), w.deliveredTo(f, n, in.ip))
			}
		})
	})
}

// deliveredTo is the want of a packet for host n of our own.
func (w *world) deliveredTo(f family, n int, p packet, trailer ...byte) want {
	l := w.locals[nexthopID(f, n)]
	port := w.ports[l.Port]
	fr := linkTo(port, l.Mac)
	fr.ip, fr.trailer = p.hop(), trailer
	return want{reason: "fwd_deliver", tx: port.Ifindex == loopback, out: fr.bytes()}
}

// Where a driver leaves no room in front of the frame, a packet that needs some is dropped, and counted as that.
func TestNoHeadroom(t *testing.T) {
	w := site(t, onLAN)
	if len(w.meta) < 96 {
		t.Skip("metadata of more than 32 bytes, by which a test takes headroom away, needs Linux 6.18 or so")
	}
	meta := w.meta
	defer func() { w.meta = meta }()
	w.meta = slices.Repeat([]byte{0x5a}, 216) // and 40 for the kernel's own: nothing is left of 256
	everyFamily(t, func(t *testing.T, f family) {
		for _, e := range everyEncapsulation() {
			for _, outer := range families {
				w.check(t, w.base(f, reached(via, e, outer)).bytes(), want{reason: "drop_headroom"})
			}
		}
		in := w.base(f, here)
		w.check(t, in.bytes(), w.deliveredTo(f, here, in.ip))
	})
}

// A packet that cannot leave counts as that, and counts for no locator.
func TestNoDevice(t *testing.T) {
	w := site(t, onLAN)
	everyFamily(t, func(t *testing.T, f family) {
		for _, n := range []int{atDeaf, hereDeaf, hereGone} {
			w.check(t, w.base(f, n).bytes(), want{reason: "drop_redirect"})
		}
	})
}

// A record that holds no known header is a bug somewhere; its packets are dropped.
func TestBadTemplate(t *testing.T) {
	w := newWorld(t)
	w.fill(onLAN)
	everyFamily(t, func(t *testing.T, f family) {
		for _, n := range []uint16{0, 14, 31, 65, 68, 96} {
			a := w.tunnelOf(f, atB4).adjacency()
			a.Len = n
			put(w.objects.Adjacencies, nexthopID(f, atB4), a)
			w.check(t, w.base(f, atB4).bytes(), want{reason: "drop_nexthop"})
		}
		put(w.objects.Adjacencies, nexthopID(f, atB4), w.tunnelOf(f, atB4).adjacency())
		w.nexthop(nexthopID(f, atB4), maps.Nexthop{Kind: maps.KindAdjacency, Index: uint32(maps.Adjacencies)})
		w.check(t, w.base(f, atB4).bytes(), want{reason: "drop_nexthop"})
	})
}
