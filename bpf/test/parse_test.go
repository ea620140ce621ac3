package bpftest

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"github.com/gopacket/gopacket/layers"

	"roam/maps"
)

var hostPorts = []ingress{onLAN, onLAN30, onLANQ, onUp, onUp7, onOneArm}

// fixed4 writes a new header checksum into the IPv4 header at offset at.
func fixed4(b []byte, at int) []byte {
	n := int(b[at]&15) * 4
	b[at+10], b[at+11] = 0, 0
	if at+n <= len(b) {
		binary.BigEndian.PutUint16(b[at+10:], ^uint16(onesComplement(b[at:at+n])))
	}
	return b
}

func (w *world) l3() int { return 14 + 4*len(w.tags()) }

func TestBadHeader4(t *testing.T) {
	everyIngress(t, hostPorts, func(t *testing.T, w *world) {
		at := w.l3()
		for _, c := range []struct {
			name   string
			reason string
			change func(b []byte) []byte
		}{
			{"checksum", "drop_ip_checksum", func(b []byte) []byte { b[at+10] ^= 1; return b }},
			{"checksum of a changed source", "drop_ip_checksum", func(b []byte) []byte { b[at+15]++; return b }},
			{"checksum 0", "drop_ip_checksum", func(b []byte) []byte { b[at+10], b[at+11] = 0, 0; return b }},
			{"version 0", "drop_ip_header", func(b []byte) []byte { b[at] = 0x05; return fixed4(b, at) }},
			{"version 5", "drop_ip_header", func(b []byte) []byte { b[at] = 0x55; return fixed4(b, at) }},
			{"version 6", "drop_ip_header", func(b []byte) []byte { b[at] = 0x65; return fixed4(b, at) }},
			{"header of 16 bytes", "drop_ip_header", func(b []byte) []byte { b[at] = 0x44; return fixed4(b, at) }},
			{"header of 0 bytes", "drop_ip_header", func(b []byte) []byte { b[at] = 0x40; return b }},
			{"longer than the frame", "drop_ip_header", func(b []byte) []byte { b[at+3]++; return fixed4(b, at) }},
			{"65535 bytes", "drop_ip_header", func(b []byte) []byte { b[at+2], b[at+3] = 255, 255; return fixed4(b, at) }},
			{"shorter than its header", "drop_ip_header", func(b []byte) []byte { b[at+2], b[at+3] = 0, 19; return fixed4(b, at) }},
			{"length 0", "drop_ip_header", func(b []byte) []byte { b[at+2], b[at+3] = 0, 0; return fixed4(b, at) }},
			{"options of 40 bytes that are not there", "drop_ip_header", func(b []byte) []byte {
				b[at], b[at+2], b[at+3] = 0x4f, 0, 59
				return b
			}},
			{"checksum over options", "drop_ip_checksum", func(b []byte) []byte { b[at] = 0x46; return b }},
		} {
			w.checkCase(t, c.name, c.change(w.base(v4, atB4).bytes()), want{reason: c.reason})
		}
	})
}

func TestBadHeader6(t *testing.T) {
	everyIngress(t, hostPorts, func(t *testing.T, w *world) {
		at := w.l3()
		for _, version := range []byte{0, 4, 5, 7, 15} {
			b := w.base(v6, atB6).bytes()
			b[at] = version<<4 | b[at]&15
			w.check(t, b, want{reason: "drop_ip_header"})
		}
		b := w.base(v6, atB6).bytes()
		b[at+5]++
		w.check(t, b, want{reason: "drop_ip_header"})
		b[at+4], b[at+5] = 255, 255
		w.check(t, b, want{reason: "drop_ip_header"})
	})
}

// The family is the Ethernet type's, whatever the version says.
func TestWrongEthernetType(t *testing.T) {
	w := site(t, onLAN)
	for _, f := range families {
		in := w.base(f, atB4)
		w.check(t, in.around(in.ip.bytes(), [...]uint16{0x86dd, 0x0800}[f]), want{reason: "drop_ip_header"})
		for _, kind := range []uint16{0x0000, 0x0027, 0x8847, 0x88cc, 0x8035, 0x6558, 0xffff} {
			w.check(t, in.around(in.ip.bytes(), kind), want{reason: "pass_not_ip"})
		}
	}
}

func TestTags(t *testing.T) {
	w := site(t, onLAN)
	in := w.base(v4, atB4)
	in.tags = []uint16{31}
	w.check(t, in.bytes(), want{reason: "pass_no_port"})
	in.tags = []uint16{30, 30} // a service tag in front of the customer's: port 30 is not for this interface
	w.check(t, in.bytes(), want{reason: "pass_no_port"})
	in.tags = []uint16{0xe000} // a priority, but no VLAN
	w.check(t, in.bytes(), w.leaves(t, "fwd_encap", w.tunnelOf(v4, atB4), in.ip, 64))

	w = site(t, onLAN30)
	in = w.base(v4, atB4)
	in.tags = nil
	w.check(t, in.bytes(), want{reason: "pass_no_port"})
	in.tags = []uint16{30, 30}
	w.check(t, in.bytes(), want{reason: "pass_no_port"})
	in.tags = []uint16{30, 0, 30} // no more than two are looked at
	w.check(t, in.bytes(), want{reason: "pass_not_ip"})
	in.tags = []uint16{0xf000 | 30}
	w.check(t, in.bytes(), w.leaves(t, "fwd_encap", w.tunnelOf(v4, atB4), in.ip, 64))
	back := w.base(v6, beside) // out by the way it came, without the priority it came with
	back.tags = []uint16{0xa000 | 30}
	w.check(t, back.bytes(), w.deliveredTo(v6, beside, back.ip))
}

// Every other pair of tags is no port, wherever its place in the table is.
func TestOtherTags(t *testing.T) {
	w := site(t, onLANQ)
	in := w.base(v4, atB4)
	for inner := range uint16(4096) {
		if in.tags = []uint16{40, inner}; inner != 41 {
			w.check(t, in.bytes(), want{reason: "pass_no_port"})
		}
		if in.tags = []uint16{inner, 41}; inner != 40 {
			w.check(t, in.bytes(), want{reason: "pass_no_port"})
		}
	}
	in.service = !in.service // the tags count, not what kind they are of
	in.tags = []uint16{40, 41}
	w.check(t, in.bytes(), w.leaves(t, "fwd_encap", w.tunnelOf(v4, atB4), in.ip, 64))
}

func TestMartians(t *testing.T) {
	everyIngress(t, hostPorts, func(t *testing.T, w *world) {
		for _, c := range []struct {
			src, dst string
			reason   string
		}{
			{"0.0.0.0", "", "drop_martian"},
			{"0.1.2.3", "", "drop_martian"},
			{"127.0.0.1", "", "drop_martian"},
			{"127.255.255.255", "", "drop_martian"},
			{"224.0.0.1", "", "drop_martian"},
			{"239.1.1.1", "", "drop_martian"},
			{"240.0.0.1", "", "drop_martian"},
			{"255.255.255.255", "", "drop_martian"},
			{"", "0.0.0.0", "drop_martian"},
			{"", "0.0.0.1", "drop_martian"},
			{"", "127.0.0.1", "drop_martian"},
			{"", "240.0.0.1", "drop_martian"},
			{"", "255.255.255.254", "drop_martian"},
			{"", "255.255.255.255", "pass_multicast"},
			{"", "224.0.0.5", "pass_multicast"},
			{"", "239.255.255.255", "pass_multicast"},
			{"0.0.0.0", "255.255.255.255", "pass_multicast"},
			{"169.254.1.1", "", "pass_link_local"},
			{"", "169.254.169.254", "pass_link_local"},
			{"::", "", "drop_martian"},
			{"::1", "", "drop_martian"},
			{"ff02::1", "", "drop_martian"},
			{"::ffff:10.1.0.200", "", "drop_martian"},
			{"", "::", "drop_martian"},
			{"", "::1", "drop_martian"},
			{"", "::ffff:10.1.0.20", "drop_martian"},
			{"", "ff02::5", "pass_multicast"},
			{"::", "ff02::16", "pass_multicast"},
			{"fe80::2", "", "pass_link_local"},
			{"", "fe80::1", "pass_link_local"},
			{"", "febf::1", "pass_link_local"},
		} {
			f := v4
			if bytes.ContainsRune([]byte(c.src+c.dst), ':') {
				f = v6
			}
			in := w.base(f, atB4)
			if c.src != "" {
				in.ip.src = netip.MustParseAddr(c.src)
			}
			if c.dst != "" {
				in.ip.dst = netip.MustParseAddr(c.dst)
			}
			w.checkCase(t, in.ip.src.String()+" to "+in.ip.dst.String(), in.bytes(), want{reason: c.reason})
		}
	})
}

func TestWhoseFrame(t *testing.T) {
	everyIngress(t, hostPorts, func(t *testing.T, w *world) {
		everyFamily(t, func(t *testing.T, f family) {
			for _, n := range []int{atB4, here, nobody, gateway, own, blackhole, noNexthop, unknownMAC} {
				in := w.base(f, n)
				in.dst = strangeMAC
				w.check(t, in.bytes(), want{reason: "pass_not_ours"})
				in.dst = broadcast
				w.check(t, in.bytes(), want{reason: "pass_multicast"})
				in.dst = mac{0x33, 0x33, 0, 0, 0, 1}
				w.check(t, in.bytes(), want{reason: "pass_multicast"})
			}
			in := w.base(f, atB4)
			in.dst = w.portMAC()
			w.check(t, in.bytes(), w.leaves(t, "fwd_encap", w.tunnelOf(f, atB4), in.ip, 64))
			in = w.to(f.outside(17, 0))
			in.dst = strangeMAC
			w.check(t, in.bytes(), want{reason: "pass_not_ours"})
		})
	})
}

// A segment may take frames to MACs that belong to nobody here, if their IP destination lives elsewhere.
func TestForeignMAC(t *testing.T) {
	w := newWorld(t)
	w.fill(onLAN)
	s := w.segments[segment1]
	s.Flags |= maps.SegmentForeign
	w.segment(segment1, s)
	everyFamily(t, func(t *testing.T, f family) {
		for _, n := range []int{atB4, atB6, atBoth} {
			in := w.base(f, n)
			in.dst = strangeMAC
			x := want{reason: "fwd_encap"}
			if n != atBoth {
				x = w.leaves(t, "fwd_encap", w.tunnelOf(f, n), in.ip, 64)
				w.check(t, in.bytes(), x)
			}
			in.dst = hereMAC
			w.check(t, in.bytes(), want{reason: "pass_not_ours"})
			in.dst = formerMAC
			if n != atBoth {
				w.check(t, in.bytes(), x)
			}
		}
		for n, reason := range map[int]string{
			unresolved: "drop_unresolved", here: "pass_not_ours", nobody: "pass_not_ours", gateway: "pass_not_ours",
			own: "pass_not_ours", blackhole: "pass_not_ours", unknownMAC: "pass_not_ours",
		} {
			in := w.base(f, n)
			in.dst = strangeMAC
			w.check(t, in.bytes(), want{reason: reason})
		}
		in := w.to(f.outside(17, 0)) // a prefix is not a host that moved
		in.dst = strangeMAC
		w.check(t, in.bytes(), want{reason: "pass_not_ours"})
	})
}

// Frames to a former gateway's MAC are routed like those to ours.
func TestFormerGateway(t *testing.T) {
	w := site(t, onLAN)
	everyFamily(t, func(t *testing.T, f family) {
		for _, dst := range []netip.Addr{f.addr(atB6), f.outside(16, 0), f.addr(here), f.addr(own), f.addr(nobody)} {
			in := w.to(dst)
			in.dst = formerMAC
			switch dst {
			case f.addr(atB6):
				w.check(t, in.bytes(), w.leaves(t, "fwd_encap", w.tunnelOf(f, atB6), in.ip, 64))
			case f.outside(16, 0):
				w.check(t, in.bytes(), w.deliveredTo(f, uplinkRouter, in.ip))
			case f.addr(here):
				w.check(t, in.bytes(), w.deliveredTo(f, here, in.ip))
			case f.addr(own):
				w.check(t, in.bytes(), want{reason: "pass_own", out: w.handed(in.bytes())})
			default:
				w.check(t, in.bytes(), want{reason: "pass_no_route", out: w.handed(in.bytes())})
			}
		}
	})
}

// Cut off anywhere, a frame is never forwarded and never read beyond its end.
func TestRunts(t *testing.T) {
	for _, in := range []ingress{onLAN, onLAN30, onUp, onWAN, onOneArm} {
		w := site(t, in)
		t.Run(in.name, func(t *testing.T) {
			for name, whole := range w.runtBases() {
				before, err := w.counts()
				if err != nil {
					t.Fatal(err)
				}
				runs := 0
				for n := 14; n < len(whole); n++ {
					action, out, err := w.run(whole[:n])
					if err != nil {
						t.Fatal(err)
					}
					runs++
					if action != xdpDrop && action != xdpPass || action == xdpPass && !bytes.Equal(out, whole[:n]) {
						t.Errorf("%s cut to %d bytes: %s", name, n, actionName(action))
					}
				}
				after, err := w.counts()
				if err != nil {
					t.Fatal(err)
				}
				total := uint64(0)
				for _, c := range after.since(before) {
					total += c.Packets
				}
				if total != uint64(runs) {
					t.Errorf("%s: %d frames, %d counted", name, runs, total)
				}
			}
		})
	}
}

func (w *world) runtBases() map[string][]byte {
	bases := map[string][]byte{}
	for _, f := range families {
		bases[f.String()] = w.base(f, atB4).bytes()
		in := w.base(f, here)
		in.ip.options = []layers.IPv4Option{{OptionType: 1}, {OptionType: 1}, {OptionType: 1}, {OptionType: 1}}
		in.ip.extensions = []extension{hopByHop, destination, firstPart}
		bases[f.String()+" with options"] = in.bytes()
		for _, outer := range families {
			bases["tunnel over "+outer.String()+" with "+f.String()] = w.fromB(outer, remoteHost(f, here)).bytes()
		}
	}
	bases["ARP"] = w.arpFor(f4(atB4)).bytes()
	bases["ND"] = w.solicit(v6.addr(atB4)).bytes()
	return bases
}

func f4(n int) netip.Addr { return v4.addr(n) }

func clone(b []byte) []byte { return slices.Clone(b) }
