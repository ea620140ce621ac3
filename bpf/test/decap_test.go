package bpftest

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"github.com/gopacket/gopacket/layers"

	"roam/maps"
)

var underlayPorts = []ingress{onWAN, onWAN7, onOneArm}

// Out of the tunnel and to the host, both families inside, both underlays, tagged or not.
func TestDecapDeliver(t *testing.T) {
	everyIngress(t, underlayPorts, func(t *testing.T, w *world) {
		everyFamily(t, func(t *testing.T, f family) {
			for _, outer := range families {
				for _, n := range []int{here, here30, hereQ, beside} {
					in := w.fromB(outer, remoteHost(f, n))
					w.check(t, in.bytes(), w.deliveredTo(f, n, in.inner))
				}
			}
		})
	})
}

// Whatever a right tunnel packet may also look like.
func TestDecapTolerates(t *testing.T) {
	w := site(t, onWAN)
	for _, f := range families {
		for _, outer := range families {
			for name, change := range map[string]func(in *tunnelled){
				"UDP checksum absent":        func(in *tunnelled) { in.csum = false },
				"UDP checksum present":       func(in *tunnelled) { in.csum = true },
				"any source port":            func(in *tunnelled) { in.source = 1 },
				"reserved bits":              func(in *tunnelled) { in.shim[0], in.shim[1], in.shim[7] = 0xff, 0x7f, 0xff },
				"another inner MAC":          func(in *tunnelled) { copy(in.shim[8:], strangeMAC[:]) },
				"outer TTL 1":                func(in *tunnelled) { in.ip.ttl = 1 },
				"outer fragments allowed":    func(in *tunnelled) { in.ip.flags = 0 },
				"outer options":              func(in *tunnelled) { in.ip.options = []layers.IPv4Option{{OptionType: 1}} },
				"tunnel encapsulation limit": func(in *tunnelled) { in.ip.extensions = []extension{destination} },
				"inner options": func(in *tunnelled) {
					in.inner.options = slices.Repeat([]layers.IPv4Option{{OptionType: 1}}, 40)
					in.inner.extensions = extensionChains[3]
				},
				"inner long header": func(in *tunnelled) { in.inner.extensions = []extension{long} },
				"inner fragment": func(in *tunnelled) {
					in.inner.offset, in.inner.extensions = 100, []extension{laterPart}
				},
			} {
				in := w.fromB(outer, remoteHost(f, here))
				change(&in)
				w.checkCase(t, outer.String()+" with "+f.String()+": "+name, in.bytes(), w.deliveredTo(f, here, in.inner))
			}
			in := w.fromB(outer, remoteHost(f, here))
			in.trailer = slices.Repeat([]byte{0xdd}, 9)
			w.check(t, in.bytes(), w.deliveredTo(f, here, in.inner, in.trailer...))
			in.trailer = nil
			padded := append(in.inner.bytes(), 1, 2, 3, 4, 5) // inner Ethernet padding
			w.check(t, in.with(padded), w.deliveredTo(f, here, in.inner, 1, 2, 3, 4, 5))
		}
	}
}

// What is no tunnel to us is the kernel's.
func TestDecapNotOurs(t *testing.T) {
	w := site(t, onWAN)
	for _, f := range families {
		for _, outer := range families {
			base := func() tunnelled { return w.fromB(outer, remoteHost(f, here)) }
			for name, change := range map[string]func(in *tunnelled){
				"another port":        func(in *tunnelled) { in.port = 8472 },
				"another destination": func(in *tunnelled) { in.ip.dst = c[outer] },
				"another station":     func(in *tunnelled) { in.dst = strangeMAC },
			} {
				in := base()
				change(&in)
				w.checkCase(t, name, in.bytes(), want{reason: "pass_underlay"})
			}
			in := base()
			in.dst = broadcast
			w.check(t, in.bytes(), want{reason: "pass_multicast"})
			b := base().bytes()
			if outer == v4 {
				b[14+9] = 6
				fixed4(b, 14)
			} else {
				b[14+6] = 6
			}
			w.check(t, b, want{reason: "pass_underlay"})
			in = base() // a later fragment has no ports
			in.ip.offset, in.ip.flags = 1, 0
			in.ip.extensions = []extension{laterPart}
			w.check(t, in.bytes(), want{reason: "pass_underlay"})
		}
	}
	// A tunnel ends on an underlay port only.
	for _, ingress := range []ingress{onLAN, onUp} {
		w := site(t, ingress)
		for _, outer := range families {
			in := w.fromB(outer, remoteHost(v4, here))
			w.check(t, in.bytes(), want{reason: "pass_no_route", out: w.handed(in.bytes())})
		}
	}
}

func TestDecapRefuses(t *testing.T) {
	everyIngress(t, underlayPorts, func(t *testing.T, w *world) {
		for _, f := range families {
			for _, outer := range families {
				for _, c := range decapRefusals {
					in := w.fromB(outer, remoteHost(f, here))
					w.checkCase(t, outer.String()+" with "+f.String()+": "+c.name, c.spoil(in), want{reason: c.reason})
				}
			}
		}
	})
}

// udpAt is where the outer UDP header lies.
func (t tunnelled) udpAt() int {
	at := 14 + 4*len(t.tags)
	if t.ip.v6() {
		return at + 40
	}
	return at + 20
}

func spoiled(change func(in *tunnelled)) func(tunnelled) []byte {
	return func(in tunnelled) []byte {
		change(&in)
		return in.bytes()
	}
}

var decapRefusals = []struct {
	name, reason string
	spoil        func(in tunnelled) []byte
}{
	{"unknown sender", "drop_unknown_locator", spoiled(func(in *tunnelled) { in.ip.src = in.ip.src.Next().Next().Next() })},
	{"from ourselves", "drop_unknown_locator", spoiled(func(in *tunnelled) { in.ip.src = in.ip.dst })},
	{"unknown VNI", "drop_unknown_vni", spoiled(func(in *tunnelled) { in.shim[4]++ })},
	{"VNI 0", "drop_unknown_vni", spoiled(func(in *tunnelled) { in.shim[5], in.shim[6] = 0, 0 })},
	{"no VNI", "drop_tunnel_header", spoiled(func(in *tunnelled) { in.shim[0] = 0 })},
	{"all flags but the VNI's", "drop_tunnel_header", spoiled(func(in *tunnelled) { in.shim[0] = 0xf7 })},
	{"inner ARP", "drop_inner_not_ip", spoiled(func(in *tunnelled) { in.shim[20], in.shim[21] = 8, 6 })},
	{"inner tag", "drop_inner_not_ip", spoiled(func(in *tunnelled) { in.shim[20], in.shim[21] = 0x81, 0 })},
	{"inner broadcast frame", "drop_inner_not_ip", spoiled(func(in *tunnelled) { copy(in.shim[8:], broadcast[:]) })},
	{"UDP length 0", "drop_tunnel_header", func(in tunnelled) []byte { return udpLength(in, func(int) int { return 0 }) }},
	{"UDP length 7", "drop_tunnel_header", func(in tunnelled) []byte { return udpLength(in, func(int) int { return 7 }) }},
	{"UDP ends in the shim", "drop_tunnel_header", func(in tunnelled) []byte { return udpLength(in, func(int) int { return 29 }) }},
	{"UDP longer than IP", "drop_tunnel_header", func(in tunnelled) []byte { return udpLength(in, func(n int) int { return n + 1 }) }},
	{"UDP cuts the inner packet", "drop_ip_header", func(in tunnelled) []byte { return udpLength(in, func(n int) int { return n - 1 }) }},
	{"UDP ends with the inner Ethernet header", "drop_ip_header", func(in tunnelled) []byte { return udpLength(in, func(int) int { return 30 }) }},
	{"first fragment", "drop_outer_fragment", spoiled(func(in *tunnelled) {
		in.ip.flags, in.ip.extensions = layers.IPv4MoreFragments, []extension{firstPart}
	})},
	{"inner version", "drop_ip_header", func(in tunnelled) []byte {
		b := in.inner.bytes()
		b[0] = 0x55
		return in.with(b)
	}},
	{"inner martian", "drop_martian", spoiled(func(in *tunnelled) { in.inner.src = loopbackOf(in.inner) })},
	{"inner multicast", "drop_martian", spoiled(func(in *tunnelled) { in.inner.dst = groupOf(in.inner) })},
	{"inner link-local", "drop_martian", spoiled(func(in *tunnelled) { in.inner.src = linkLocalOf(in.inner) })},
	{"inner to our tunnel end", "drop_tunnel_in_tunnel", spoiled(func(in *tunnelled) {
		in.inner.dst = us[0]
		if in.inner.src.Is6() {
			in.inner.dst = us[1]
		}
	})},
	{"empty", "drop_tunnel_header", func(in tunnelled) []byte {
		f := in.frame
		f.ip.payload = udp(f.ip.src, f.ip.dst, 1, 4789, nil, true)
		return f.bytes()
	}},
}

func udpLength(in tunnelled, of func(int) int) []byte {
	b := in.bytes()
	at := in.udpAt() + 4
	binary.BigEndian.PutUint16(b[at:], uint16(of(int(binary.BigEndian.Uint16(b[at:])))))
	return b
}

func pick(p packet, a4, a6 string) netip.Addr {
	if p.v6() {
		return netip.MustParseAddr(a6)
	}
	return netip.MustParseAddr(a4)
}

func loopbackOf(p packet) netip.Addr  { return pick(p, "127.0.0.1", "::1") }
func groupOf(p packet) netip.Addr     { return pick(p, "224.0.0.5", "ff02::5") }
func linkLocalOf(p packet) netip.Addr { return pick(p, "169.254.0.7", "fe80::7") }

// Inside, an IPv4 header is checked as strictly as outside.
func TestDecapInnerChecksum(t *testing.T) {
	w := site(t, onWAN)
	for _, outer := range families {
		in := w.fromB(outer, remoteHost(v4, here))
		b := in.inner.bytes()
		b[10]++
		w.check(t, in.with(b), want{reason: "drop_ip_checksum"})
	}
	in := w.fromB(v4, remoteHost(v6, here))
	b := in.inner.bytes()
	in.shim[20], in.shim[21] = 8, 0
	w.check(t, in.with(b), want{reason: "drop_ip_header"})
}

// An outer header so long that the inner packet lies beyond the cursor's reach.
func TestDecapDeepOuter(t *testing.T) {
	w := site(t, onWAN)
	for _, units := range []byte{50, 60, 90, 112, 113, 114, 115, 116, 117, 118, 119, 120, 121, 122, 127} {
		in := w.fromB(v6, remoteHost(v4, here))
		in.ip.extensions = []extension{{60, append([]byte{0, units}, make([]byte, (int(units)+1)*8-2)...)}}
		switch {
		case 54+(int(units)+1)*8 <= 511:
			w.check(t, in.bytes(), w.deliveredTo(v4, here, in.inner))
		case 54+(int(units)+1)*8 <= 1023:
			w.check(t, in.bytes(), want{reason: "drop_tunnel_header"})
		default:
			w.check(t, in.bytes(), want{reason: "pass_underlay"})
		}
	}
}

// RFC 6040 section 4.2, figure 4: all sixteen combinations. Rows are the inner field, columns the outer one:
// Not-ECT 0, ECT(1) 1, ECT(0) 2, CE 3.
func TestDecapECN(t *testing.T) {
	const drop = 9
	table := [4][4]uint8{
		0: {0, 0, 0, drop},
		1: {1, 1, 1, 3},
		2: {2, 1, 2, 3},
		3: {3, 3, 3, 3},
	}
	w := site(t, onWAN)
	for _, f := range families {
		for _, outer := range families {
			for inner := range uint8(4) {
				for out := range uint8(4) {
					in := w.fromB(outer, remoteHost(f, here))
					in.inner.tos = 0xb8 | inner
					in.ip.tos = 0x24 | out // another DSCP: the inner one stays
					becomes := table[inner][out]
					if becomes == drop {
						w.check(t, in.bytes(), want{reason: "drop_ecn"})
						continue
					}
					arrives := in.inner
					arrives.tos = 0xb8 | becomes
					w.check(t, in.bytes(), w.deliveredTo(f, here, arrives))
				}
			}
		}
	}
}

// A host that moved away moments ago: its packets go on to its new site, one hop poorer inside and outside.
func TestReencap(t *testing.T) {
	everyIngress(t, underlayPorts, func(t *testing.T, w *world) {
		for _, f := range families {
			for _, outer := range families {
				for _, n := range []int{heldC4, heldC6} {
					in := w.fromB(outer, remoteHost(f, n))
					w.check(t, in.bytes(), w.leaves(t, "fwd_reencap", w.tunnelOf(f, n), in.inner, 59))
					in.trailer = []byte{7, 7, 7}
					w.check(t, in.bytes(), w.leaves(t, "fwd_reencap", w.tunnelOf(f, n), in.inner, 59, 7, 7, 7))
					in.trailer = nil
					in.ip.tos = 0x29 // ECT(1) outside, Not-ECT inside: stays so in the next tunnel
					in.inner.tos = 0x28
					w.check(t, in.bytes(), w.leaves(t, "fwd_reencap", w.tunnelOf(f, n), in.inner, 59))
					for ttl, reason := range map[uint8]string{0: "drop_tunnel_ttl", 1: "drop_tunnel_ttl"} {
						in.ip.ttl = ttl
						w.check(t, in.bytes(), want{reason: reason})
					}
					in.ip.ttl = 2
					w.check(t, in.bytes(), w.leaves(t, "fwd_reencap", w.tunnelOf(f, n), in.inner, 1))
					in.ip.ttl, in.inner.ttl = 255, 1
					w.check(t, in.bytes(), want{reason: "drop_ttl"})
					in.inner.ttl = 2
					w.check(t, in.bytes(), w.leaves(t, "fwd_reencap", w.tunnelOf(f, n), in.inner, 254))
				}
			}
		}
	})
}

// Tunnels do not loop.
func TestTunnelLoops(t *testing.T) {
	everyIngress(t, underlayPorts, func(t *testing.T, w *world) {
		for _, f := range families {
			for _, outer := range families {
				for n, reason := range map[int]string{
					atB4: "drop_tunnel_loop", atB6: "drop_tunnel_loop", atBoth: "drop_tunnel_loop", unresolved: "drop_tunnel_loop",
					heldNowhere: "drop_unresolved", blackhole: "drop_blackhole", noNexthop: "drop_nexthop",
					hereDeaf: "drop_redirect",
				} {
					w.check(t, w.fromB(outer, remoteHost(f, n)).bytes(), want{reason: reason})
				}
				back := map[family]int{v4: heldB4, v6: heldB6}[outer]
				w.check(t, w.fromB(outer, remoteHost(f, back)).bytes(), want{reason: "drop_tunnel_back"})
				for n, reason := range map[int]string{17: "drop_tunnel_loop", 21: "drop_tunnel_loop", 19: "drop_blackhole", 20: "drop_nexthop"} {
					p := remoteHost(f, here)
					p.dst = f.outside(n, 0)
					w.check(t, w.fromB(outer, p).bytes(), want{reason: reason})
				}
			}
		}
	})
}

// A host of a set that is held may go to a member where it did not come from.
func TestReencapSet(t *testing.T) {
	w := site(t, onWAN)
	for _, f := range families {
		var frames [2][][]byte // to B, and to C
		var inner []packet
		for port := range uint16(64) {
			p := remoteHost(f, heldSet)
			p.payload = tcp(p.src, p.dst, 1000+port, 80, nil)
			in := w.fromB(v4, p).bytes()
			action, _, err := w.run(in)
			if err != nil {
				t.Fatal(err)
			}
			if action == xdpDrop {
				frames[0] = append(frames[0], in)
			} else {
				frames[1], inner = append(frames[1], in), append(inner, p)
			}
		}
		for _, in := range frames[0] {
			w.check(t, in, want{reason: "drop_tunnel_back"})
		}
		for i, in := range frames[1] {
			w.check(t, in, w.leaves(t, "fwd_reencap", w.tunnelOf(f, heldC4), inner[i], 59))
		}
		back, on := len(frames[0]), len(frames[1])
		if back < 10 || on < 10 {
			t.Errorf("%s: of 64 flows %d to B, %d to C", f, back, on)
		}
	}
}

// What the kernel gets from a tunnel looks received by this port: link header, TTL and all.
func TestDecapToKernel(t *testing.T) {
	everyIngress(t, underlayPorts, func(t *testing.T, w *world) {
		for _, f := range families {
			for _, outer := range families {
				for n, reason := range map[int]string{
					gateway: "pass_own", own: "pass_own", unknownMAC: "pass_resolve", nobody: "pass_no_route",
				} {
					in := w.fromB(outer, remoteHost(f, n))
					out := frame{dst: w.portMAC(), src: wanB, ip: in.inner}
					w.check(t, in.bytes(), want{reason: reason, out: out.bytes()})
				}
				p := remoteHost(f, here)
				p.dst = f.outside(18, 0)
				in := w.fromB(outer, p)
				w.check(t, in.bytes(), want{reason: "pass_no_route", out: frame{dst: w.portMAC(), src: wanB, ip: p}.bytes()})
				p.ttl, in.inner.ttl = 1, 1 // the kernel says so to the sender
				w.check(t, in.bytes(), want{reason: "pass_no_route", out: frame{dst: w.portMAC(), src: wanB, ip: p}.bytes()})
			}
		}
	})
}

// The tenant decides, not the address.
func TestDecapTenant(t *testing.T) {
	w := site(t, onWAN)
	for _, f := range families {
		for _, outer := range families {
			p := remoteHost(f, blackhole)
			p.src = f.addr(nobody) // a black hole in the second tenant must not send either
			in := w.fromB(outer, p)
			binary.BigEndian.PutUint32(in.shim[4:], vni2<<8)
			w.check(t, in.bytes(), w.deliveredTo(f, here, in.inner))
			p.dst = f.addr(here)
			in = w.fromB(outer, p)
			binary.BigEndian.PutUint32(in.shim[4:], vni2<<8)
			w.check(t, in.bytes(), want{reason: "pass_no_route", out: frame{dst: w.portMAC(), src: wanB, ip: in.inner}.bytes()})
		}
	}
}

// From the tunnel to the rest of the tenant's network.
func TestDecapToUplink(t *testing.T) {
	everyIngress(t, underlayPorts, func(t *testing.T, w *world) {
		for _, f := range families {
			for _, outer := range families {
				p := remoteHost(f, here)
				p.dst = f.outside(16, 0)
				in := w.fromB(outer, p)
				w.check(t, in.bytes(), w.deliveredTo(f, uplinkRouter, in.inner))
			}
		}
	})
}

// One arm: hosts and tunnels on one interface.
func TestOneArm(t *testing.T) {
	w := site(t, onOneArm)
	for _, f := range families {
		in := w.base(f, atTX4)
		w.check(t, in.bytes(), w.leaves(t, "fwd_encap", w.tunnelOf(f, atTX4), in.ip, 64))
		for _, outer := range families {
			tun := w.fromB(outer, remoteHost(f, here))
			x := w.deliveredTo(f, here, tun.inner)
			if !x.tx {
				t.Fatal("a host on the one arm is reached by XDP_TX")
			}
			w.check(t, tun.bytes(), x)
			tun.dst = gatewayMAC // both MACs of the interface are ours
			w.check(t, tun.bytes(), x)
		}
	}
	if w.ports[w.slot].Role != maps.RoleAccess|maps.RoleUnderlay {
		t.Fatal("not one-armed")
	}
}
