package bpftest

import (
	"net/netip"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"roam/maps"
)

// What an error is about.
const (
	tooBig  = "fwd_too_big"
	expired = "fwd_expired"
)

// errorAbout is the ICMP error that gopacket makes of a packet: RFC 1812, section 4.3.2 and RFC 4443, section 3.
func errorAbout(what string, mtu int, p packet, from netip.Addr) packet {
	fix := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	e := packet{src: from, dst: p.src, tos: 0xc0, ttl: 64, flags: layers.IPv4DontFragment}
	quote := p.bytes()
	if !p.v6() {
		e.proto = 1
		m := &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(11, 0)}
		if what == tooBig {
			m.TypeCode, m.Seq = layers.CreateICMPv4TypeCode(3, 4), uint16(mtu)
		}
		e.payload = serialize(fix, m, gopacket.Payload(quote[:min(len(quote), 576-28)]))
		return e
	}
	e.proto = 58
	m := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(3, 0)}
	if what == tooBig {
		m.TypeCode = layers.CreateICMPv6TypeCode(2, 0)
	} else {
		mtu = 0
	}
	if err := m.SetNetworkLayerForChecksum(network(e.src, e.dst, layers.IPProtocolICMPv6)); err != nil {
		panic(err)
	}
	quote = quote[:min(len(quote), 1280-48)]
	e.payload = serialize(fix, m, gopacket.Payload(append(be.AppendUint32(nil, uint32(mtu)), quote...)))
	return e
}

// told is the want of a frame whose sender, on the port under test, is told.
func (w *world) told(in frame, what string, mtu int) want {
	from := icmpBeyond
	if w.ports[w.slot].Role&maps.RoleAccess != 0 {
		from = icmpSource
	}
	e := in
	e.dst, e.src, e.trailer = in.src, w.portMAC(), nil
	e.ip = errorAbout(what, mtu, in.ip, familyOf(in.ip.ethertype()).addr(from))
	return want{reason: what, tx: w.ports[w.slot].Flags&maps.PortRedirect == 0, out: e.bytes()}
}

// toldBack is the want of a packet from a tunnel whose sender is told through tunnel t.
func (w *world) toldBack(tb testing.TB, t tunnel, inner packet, what string, mtu int) want {
	tb.Helper()
	e := errorAbout(what, mtu, inner, familyOf(inner.ethertype()).addr(icmpBeyond))
	e.ttl++ // leaves takes one
	return w.leaves(tb, what, t, e, 64)
}

// A sender is told by the way its packet came: on every kind of port, with its tags, at every length of a quotation.
func TestErrors(t *testing.T) {
	everyIngress(t, hostPorts, func(t *testing.T, w *world) {
		everyFamily(t, func(t *testing.T, f family) {
			for n, mtu := range map[int]int{atB4: 1550, atB6: 1530, here: 1500} {
				for _, size := range []int{mtu + 1, mtu + 2, 1600} {
					in := w.sized(f, n, size)
					in.ip.flags = layers.IPv4DontFragment
					w.check(t, in.bytes(), w.told(in, tooBig, mtu))
				}
				for size := f.header(); size < 1400; size += 1 + size%5*37 {
					in := w.sized(f, n, size)
					in.ip.ttl = uint8(size % 2)
					in.trailer = make([]byte, size%7)
					w.check(t, in.bytes(), w.told(in, expired, 0))
				}
				in := w.base(f, n)
				in.ip.ttl, in.ip.tos = 1, 0xff
				in.ip.options = []layers.IPv4Option{{OptionType: 1}, {OptionType: 1}}
				in.ip.extensions = []extension{hopByHop, destination, firstPart}
				in.ip.flags = layers.IPv4MoreFragments
				w.check(t, in.bytes(), w.told(in, expired, 0))
			}
		})
	})
}

// Through the tunnel it came by goes the error about a packet that the last port does not carry, or that is too old for it.
func TestErrorsThroughTunnels(t *testing.T) {
	w := site(t, onWAN)
	for _, e := range everyEncapsulation() {
		for _, outer := range families {
			for _, f := range families {
				back := w.tunnelOf(f, reached(via, e, outer))
				for _, what := range []string{tooBig, expired} {
					p := remoteHost(f, here)
					p.src = f.addr(reached(via, e, outer))
					p.flags, p.proto, p.payload = layers.IPv4DontFragment, 99, counting(1501-f.header())
					if what == expired {
						p.ttl, p.payload = 1, counting(77)
					}
					in := w.fromBy(e, outer, p)
					if e == encLISP {
						p.ttl = min(p.ttl, in.ip.ttl)
					}
					w.check(t, in.bytes(), w.toldBack(t, back, p, what, 1500))
					in.ip.tos |= 3 // what decapsulation merged is in the quotation
					p.tos |= 1
					in.inner = p
					p.tos |= 3
					w.check(t, in.bytes(), w.toldBack(t, back, p, what, 1500))
				}
			}
		}
	}
}

// What nothing is ever said about, or cannot be.
func TestNoErrors(t *testing.T) {
	for _, what := range []string{tooBig, expired} {
		drop := want{reason: map[string]string{tooBig: "drop_mtu", expired: "drop_ttl"}[what]}
		base := func(w *world, f family, n int) frame {
			in := w.sized(f, n, 1600)
			in.ip.flags = layers.IPv4DontFragment
			if what == expired {
				in = w.base(f, n)
				in.ip.ttl = 1
			}
			return in
		}
		everyFamily(t, func(t *testing.T, f family) {
			w := site(t, onLAN)
			for _, kind := range [][]byte{{3, 4, 5, 11, 12}, {0, 1, 2, 3, 4, 127}}[f] {
				in := base(w, f, atB4)
				in.ip.proto = [...]uint8{1, 58}[f]
				in.ip.payload[0] = kind
				w.checkCase(t, "an error", in.bytes(), drop)
			}
			for _, kind := range [][]byte{{0, 8, 13}, {128, 129}}[f] {
				in := base(w, f, atB4)
				in.ip.proto = [...]uint8{1, 58}[f]
				in.ip.payload[0] = kind
				w.checkCase(t, "a question", in.bytes(), w.told(in, what, 1550))
			}
			in := base(w, f, atB4)
			in.ip.offset, in.ip.extensions = 9, []extension{laterPart}
			w.checkCase(t, "a later fragment", in.bytes(), drop)
			for _, n := range []int{heldC4, moved} {
				w.checkCase(t, "a host that moves", base(w, f, n).bytes(), drop)
			}
			in = base(w, f, atB4)
			in.src = mac{3, 0, 0, 0, 0, 1}
			w.checkCase(t, "a frame from a group", in.bytes(), drop)

			w = site(t, onUp)
			tenant := w.tenants[tenant1]
			w.tenant(tenant1, maps.Tenant{})
			w.checkCase(t, "no address to say it from", base(w, f, atB4).bytes(), drop)
			w.tenant(tenant1, tenant)

			w = site(t, onWAN)
			for _, src := range []int{here, nobody, unresolved, noNexthop, unknownMAC} {
				p := base(w, f, here).ip
				p.src = f.addr(src)
				w.checkCase(t, "a sender who lives not beyond a tunnel", w.fromB(v4, p).bytes(), drop)
			}
		})
	}
}

// No IPv6 sender is told less than its links must carry, whatever fits: RFC 8200, section 5.
func TestErrorTooSmall(t *testing.T) {
	w := newWorld(t)
	w.fill(onLAN)
	for f, said := range map[family]int{v4: 1200, v6: 1280} {
		tun := w.tunnelOf(f, atB4)
		tun.mtu = 1200
		w.adjacency(nexthopID(f, atB4), 0, tun)
		in := w.sized(f, atB4, 1201)
		in.ip.flags = layers.IPv4DontFragment
		w.check(t, in.bytes(), w.told(in, tooBig, said))
	}
}

// An error must fit the port too.
func TestErrorTooBigForItsPort(t *testing.T) {
	w := newWorld(t)
	w.fill(onLAN)
	p := w.ports[w.slot]
	p.Mtu = 300
	w.port(p, true)
	everyFamily(t, func(t *testing.T, f family) {
		for size, fits := range map[int]bool{300 - f.header() - 8: true, 301 - f.header() - 8: false} {
			in := w.sized(f, atB4, size)
			in.ip.ttl = 1
			x := want{reason: "drop_ttl"}
			if fits {
				x = w.told(in, expired, 0)
			}
			w.check(t, in.bytes(), x)
		}
	})
}

// Nobody is told more often than the limit says; each sender has its own.
func TestErrorLimit(t *testing.T) {
	tune := maps.DefaultTune
	tune.ICMPRate, tune.ICMPBurst = 1, 3
	w, err := loadWorld(tune, false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.close)
	w.fill(onLAN)
	everyFamily(t, func(t *testing.T, f family) {
		for sender := range 3 {
			in := w.base(f, atB4)
			in.ip.ttl, in.ip.src = 1, f.addr(120+sender)
			start := time.Now()
			for i := range 10 {
				x := w.told(in, expired, 0)
				if i >= 3 {
					x = want{reason: "drop_ttl"}
				}
				w.check(t, in.bytes(), x)
			}
			if time.Since(start) > time.Second {
				t.Skip("so slow a machine refills the budget meanwhile")
			}
		}
	})
	// A second later one more is due: the record says when the budget was last counted.
	var key [20]byte // struct icmp_source
	var budget struct{ Since, Left uint64 }
	entries := w.objects.IcmpSources.Iterate()
	for entries.Next(&key, &budget) {
		if budget.Left >= 1000 {
			t.Errorf("%v has %d thousandths left", key, budget.Left)
		}
		budget.Since -= uint64(time.Second)
		put(w.objects.IcmpSources, key, budget)
	}
	if err := entries.Err(); err != nil {
		t.Fatal(err)
	}
	everyFamily(t, func(t *testing.T, f family) {
		in := w.base(f, atB4)
		in.ip.ttl, in.ip.src = 1, f.addr(120)
		w.check(t, in.bytes(), w.told(in, expired, 0))
		w.check(t, in.bytes(), want{reason: "drop_ttl"})
	})
	tune.ICMPRate = 0
	silent, err := loadWorld(tune, false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(silent.close)
	silent.fill(onLAN)
	in := silent.base(v4, atB4)
	in.ip.ttl = 1
	silent.check(t, in.bytes(), want{reason: "drop_ttl"})
}
