package bpftest

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"roam/maps"
)

// arp is an ARP message in a frame; gopacket lays it out.
type arp struct {
	frame
	layers.ARP
}

func (w *world) arpFor(target netip.Addr) arp {
	asker4 := v4.addr(asker)
	m := hostMAC(asker)
	return arp{
		w.fromAsker(broadcast),
		layers.ARP{
			AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4, HwAddressSize: 6, ProtAddressSize: 4,
			Operation: layers.ARPRequest, SourceHwAddress: m[:], SourceProtAddress: asker4.AsSlice(),
			DstHwAddress: make([]byte, 6), DstProtAddress: target.AsSlice(),
		},
	}
}

func (a arp) bytes() []byte {
	return a.around(serialize(gopacket.SerializeOptions{}, &a.ARP), uint16(layers.EthernetTypeARP))
}

// answer is the reply that the segment's MAC gives.
func (a arp) answer() want { return a.answerBy(gatewayMAC) }

// answerBy is the reply that a MAC gives.
func (a arp) answerBy(by mac) want {
	r := a
	r.Operation = layers.ARPReply
	r.SourceHwAddress, r.SourceProtAddress = by[:], a.DstProtAddress
	r.DstHwAddress, r.DstProtAddress = a.SourceHwAddress, a.SourceProtAddress
	r.dst, r.src = a.src, by
	return want{reason: "fwd_arp", tx: true, out: r.bytes()}
}

var segmentPorts = []ingress{onLAN, onLAN30, onLANQ, onOneArm}

func TestARP(t *testing.T) {
	pass := want{reason: "pass_arp"}
	everyIngress(t, segmentPorts, func(t *testing.T, w *world) {
		for _, n := range []int{gateway, atB4, atB6, atBoth, unresolved, heldC4, setOfNone} {
			a := w.arpFor(f4(n))
			w.check(t, a.bytes(), a.answer())
			a.dst = hostMAC(n) // polls a neighbour's MAC that it still has
			w.check(t, a.bytes(), a.answer())
			a.trailer = make([]byte, 18)
			w.check(t, a.bytes(), a.answer())
		}
		for _, n := range []int{own, here, here30, unknownMAC, blackhole, nobody, noNexthop, asker} {
			w.check(t, w.arpFor(f4(n)).bytes(), pass)
		}
		w.check(t, w.arpFor(v4.outside(17, 0)).bytes(), pass) // a prefix is no host
		for name, change := range map[string]func(a *arp){
			"announcement of a host elsewhere": func(a *arp) { a.SourceProtAddress = a.DstProtAddress },
			"probe for a host elsewhere":       func(a *arp) { a.SourceProtAddress = make([]byte, 4) },
			"reply":                            func(a *arp) { a.Operation = layers.ARPReply },
			"reverse request":                  func(a *arp) { a.Operation = 3 },
			"operation 0":                      func(a *arp) { a.Operation = 0 },
			"hardware type":                    func(a *arp) { a.AddrType = 6 },
			"protocol type":                    func(a *arp) { a.Protocol = layers.EthernetTypeIPv6 },
			"sender MAC is a group":            func(a *arp) { a.SourceHwAddress = broadcast[:] },
			"frame from a group":               func(a *arp) { a.src = broadcast },
		} {
			a := w.arpFor(f4(atB4))
			change(&a)
			w.checkCase(t, name, a.bytes(), pass)
		}
		for at, lengths := range map[int]byte{4: 8, 5: 16} {
			b := w.arpFor(f4(atB4)).bytes()
			b[w.l3()+at] = lengths
			w.check(t, b, pass)
		}
		probe := w.arpFor(f4(gateway)) // the gateway's address is ours to defend
		probe.SourceProtAddress = make([]byte, 4)
		w.check(t, probe.bytes(), probe.answer())
		claim := w.arpFor(f4(gateway))
		claim.SourceProtAddress = claim.DstProtAddress
		w.check(t, claim.bytes(), pass)
		w.check(t, w.arpFor(f4(atB4)).bytes()[:w.l3()+27], want{reason: "drop_short"})
	})
	everyIngress(t, []ingress{onWAN, onUp, onUp7}, func(t *testing.T, w *world) {
		for _, n := range []int{gateway, own, atB4, here} {
			w.check(t, w.arpFor(f4(n)).bytes(), pass)
		}
	})
}

// fromAsker is the link header of a frame that the asker sends to the port under test.
func (w *world) fromAsker(to mac) frame {
	f := linkTo(w.ports[w.slot], to)
	f.src = hostMAC(asker)
	return f
}

// solicitation is a neighbour solicitation in parts; its checksum is right whatever is changed.
type solicitation struct {
	frame
	icmp   uint8
	code   uint8
	target netip.Addr
	opts   []byte
	spoil  uint16 // added to the checksum
	extra  []byte // behind the message, inside the packet
}

func (w *world) solicit(target netip.Addr) solicitation {
	m := hostMAC(asker)
	group := solicited(target)
	s := solicitation{
		frame:  w.fromAsker(mac{0x33, 0x33, group[12], group[13], group[14], group[15]}),
		icmp:   135,
		target: target,
		opts:   append([]byte{1, 1}, m[:]...),
	}
	s.ip = packet{src: v6.addr(asker), dst: netip.AddrFrom16(group), ttl: 255, proto: 58}
	return s
}

func solicited(target netip.Addr) [16]byte {
	group := netip.MustParseAddr("ff02::1:ff00:0").As16()
	low := target.As16()
	copy(group[13:], low[13:])
	return group
}

func (s solicitation) bytes() []byte {
	body := append([]byte{s.icmp, s.code, 0, 0, 0, 0, 0, 0}, s.target.AsSlice()...)
	body = append(append(body, s.opts...), s.extra...)
	s.ip.payload = icmp6(s.ip.src, s.ip.dst, body, s.spoil)
	return s.frame.bytes()
}

// icmp6 fills in the checksum.
func icmp6(src, dst netip.Addr, body []byte, spoil uint16) []byte {
	pseudo := append(src.AsSlice(), dst.AsSlice()...)
	pseudo = binary.BigEndian.AppendUint32(pseudo, uint32(len(body)))
	pseudo = append(pseudo, 0, 0, 0, 58)
	body[2], body[3] = 0, 0
	binary.BigEndian.PutUint16(body[2:], ^uint16(onesComplement(append(pseudo, body...)))+spoil)
	return body
}

const (
	naRouter    = 0x80
	naSolicited = 0x40
	naOverride  = 0x20
)

// answer is the advertisement that the segment's MAC gives.
func (s solicitation) answer(flags byte) want { return s.answerBy(gatewayMAC, flags) }

// answerBy is the advertisement that a MAC gives.
func (s solicitation) answerBy(by mac, flags byte) want {
	r := s.frame
	r.dst, r.src = s.src, by
	to := s.ip.src
	if to.IsUnspecified() {
		to = netip.MustParseAddr("ff02::1")
		r.dst = mac{0x33, 0x33, 0, 0, 0, 1}
	} else {
		flags |= naSolicited
	}
	r.ip.src, r.ip.dst, r.ip.ttl = s.target, to, 255
	body := append([]byte{136, 0, 0, 0, flags, 0, 0, 0}, s.target.AsSlice()...)
	body = append(append(body, 2, 1), by[:]...)
	r.ip.payload = icmp6(r.ip.src, to, body, 0)
	r.trailer = nil
	return want{reason: "fwd_nd", tx: true, out: r.bytes()}
}

func TestND(t *testing.T) {
	pass := want{reason: "pass_nd"}
	unspecified := netip.IPv6Unspecified()
	everyIngress(t, segmentPorts, func(t *testing.T, w *world) {
		for _, n := range []int{atB4, atB6, atBoth, unresolved, heldC6} {
			for name, change := range ndVariants {
				s := w.solicit(v6.addr(n))
				change(&s)
				w.checkCase(t, name, s.bytes(), s.answer(naOverride))
			}
			dad := w.solicit(v6.addr(n)) // its own address, perhaps: never answered against it from the table
			dad.ip.src, dad.opts = unspecified, nil
			w.check(t, dad.bytes(), pass)
		}
		for _, target := range []netip.Addr{v6.addr(gateway), gatewayLL} {
			for name, change := range ndVariants {
				s := w.solicit(target)
				change(&s)
				w.checkCase(t, "gateway: "+name, s.bytes(), s.answer(naOverride|naRouter))
			}
			dad := w.solicit(target)
			dad.ip.src, dad.opts = unspecified, nil
			w.check(t, dad.bytes(), dad.answer(naOverride|naRouter))
			dad.ip.dst = target // RFC 4861 section 7.1.1: only to the solicited-node group
			w.check(t, dad.bytes(), pass)
		}
		for _, target := range []netip.Addr{
			v6.addr(own), v6.addr(here), v6.addr(unknownMAC), v6.addr(blackhole), v6.addr(nobody), v6.addr(asker),
			v6.outside(17, 0), netip.MustParseAddr("fe80::2"), netip.MustParseAddr("ff02::1"), unspecified,
		} {
			w.check(t, w.solicit(target).bytes(), pass)
		}
		for name, change := range map[string]func(s *solicitation){
			"hop limit 254":      func(s *solicitation) { s.ip.ttl = 254 },
			"hop limit 0":        func(s *solicitation) { s.ip.ttl = 0 },
			"code 1":             func(s *solicitation) { s.code = 1 },
			"checksum":           func(s *solicitation) { s.spoil = 1 },
			"from a group":       func(s *solicitation) { s.ip.src = netip.MustParseAddr("ff02::1") },
			"frame from a group": func(s *solicitation) { s.src = broadcast },
			"advertisement":      func(s *solicitation) { s.icmp = 136 },
			"router solicit":     func(s *solicitation) { s.icmp = 133 },
			"router advert":      func(s *solicitation) { s.icmp = 134 },
			"redirect":           func(s *solicitation) { s.icmp = 137 },
			"options header":     func(s *solicitation) { s.ip.extensions = []extension{hopByHop} },
			"fragment header":    func(s *solicitation) { s.ip.extensions = []extension{atomicPart} },
			"too long":           func(s *solicitation) { s.extra = make([]byte, 480) },
		} {
			for _, target := range []netip.Addr{v6.addr(atB4), v6.addr(gateway)} {
				s := w.solicit(target)
				change(&s)
				w.checkCase(t, name, s.bytes(), pass)
			}
		}
		short := w.solicit(v6.addr(atB4))
		short.ip.payload = icmp6(short.ip.src, short.ip.dst, append([]byte{135, 0, 0, 0, 0, 0, 0, 0}, make([]byte, 15)...), 0)
		w.check(t, short.frame.bytes(), pass)
		short.trailer = make([]byte, 20) // the rest of the target lies in the padding
		w.check(t, short.frame.bytes(), pass)
	})
	everyIngress(t, []ingress{onWAN, onUp, onUp7}, func(t *testing.T, w *world) {
		for _, n := range []int{gateway, own, atB4, here} {
			w.check(t, w.solicit(v6.addr(n)).bytes(), pass)
		}
	})
}

var ndVariants = map[string]func(s *solicitation){
	"as hosts ask":     func(s *solicitation) {},
	"without option":   func(s *solicitation) { s.opts = nil },
	"with two options": func(s *solicitation) { s.opts = append(s.opts, 14, 1, 1, 2, 3, 4, 5, 6) },
	"polling unicast":  func(s *solicitation) { s.ip.dst, s.dst = s.target, hostMAC(atB4) },
	"from link-local":  func(s *solicitation) { s.ip.src = netip.MustParseAddr("fe80::200") },
	"padded":           func(s *solicitation) { s.opts, s.trailer = nil, slices.Repeat([]byte{0xff}, 30) },
}

// On a stick, another router is the gateway: nothing is said for it, everything for hosts elsewhere.
func TestStick(t *testing.T) {
	w := newWorld(t)
	w.fill(onLAN)
	s := w.segments[segment1]
	s.Flags = maps.SegmentStick
	w.segment(segment1, s)
	a := w.arpFor(f4(gateway))
	w.check(t, a.bytes(), want{reason: "pass_arp"})
	a = w.arpFor(f4(atB4))
	w.check(t, a.bytes(), a.answer())
	for _, target := range []netip.Addr{v6.addr(gateway), gatewayLL} {
		w.check(t, w.solicit(target).bytes(), want{reason: "pass_nd"})
	}
	n := w.solicit(v6.addr(atB4))
	w.check(t, n.bytes(), n.answer(naOverride))

	s.Flags = 0 // the gateway, but no router for IPv6
	w.segment(segment1, s)
	n = w.solicit(v6.addr(gateway))
	w.check(t, n.bytes(), n.answer(naOverride))
	s.GatewayLl = [4]uint32{}
	w.segment(segment1, s)
	w.check(t, w.solicit(gatewayLL).bytes(), want{reason: "pass_nd"})
}

// Of two gateways on a segment the designated one answers and takes what is flooded. Both route what is sent to their MAC.
func TestStandby(t *testing.T) {
	w := newWorld(t)
	w.fill(onLAN)
	for name, duty := range map[string]maps.Segment{
		"alone":                {},
		"designated":           {DesignatedUntil: longTime},
		"standby":              {Flags: maps.SegmentStandby},
		"its daemon is silent": {DesignatedUntil: longAgo},
	} {
		t.Run(name, func(t *testing.T) {
			s := w.segments[segment1]
			s.Flags = maps.SegmentRouter | maps.SegmentForeign | duty.Flags
			s.DesignatedUntil = duty.DesignatedUntil
			w.segment(segment1, s)
			designated := duty.Flags == 0 && duty.DesignatedUntil != longAgo
			either := func(yes want, no string) want {
				if designated {
					return yes
				}
				return want{reason: no}
			}
			for _, n := range []int{gateway, atB4} {
				a := w.arpFor(f4(n))
				w.check(t, a.bytes(), either(a.answer(), "pass_arp"))
			}
			for target, flags := range map[netip.Addr]byte{
				v6.addr(gateway): naRouter | naOverride, gatewayLL: naRouter | naOverride, v6.addr(atB4): naOverride,
			} {
				n := w.solicit(target)
				w.check(t, n.bytes(), either(n.answer(flags), "pass_nd"))
			}
			everyFamily(t, func(t *testing.T, f family) {
				in := w.base(f, atB4)
				out := w.leaves(t, "fwd_encap", w.tunnelOf(f, atB4), in.ip, 64)
				w.check(t, in.bytes(), out)
				for _, flooded := range []mac{strangeMAC, formerMAC} {
					in.dst = flooded
					w.check(t, in.bytes(), either(out, "pass_not_ours"))
				}
			})
		})
	}
}

// Another gateway that looks for a host hears nothing of hosts elsewhere; it may ask for the gateway's address.
func TestSiblingAsks(t *testing.T) {
	w := newWorld(t)
	w.fill(onLAN)
	w.station(segment1, hostMAC(asker), maps.MACGateway)
	w.check(t, w.arpFor(f4(atB4)).bytes(), want{reason: "pass_arp"})
	w.check(t, w.solicit(v6.addr(atB4)).bytes(), want{reason: "pass_nd"})
	a := w.arpFor(f4(gateway))
	w.check(t, a.bytes(), a.answer())
	in := w.base(v4, atB4)
	in.dst = hostMAC(asker) // what is sent to it is its own
	w.check(t, in.bytes(), want{reason: "pass_not_ours"})
}
