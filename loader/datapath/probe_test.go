package datapath

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"roam/loader/route"
	"roam/maps"
)

func wayBy(t *testing.T, e route.Encap, remote netip.Addr, checksum bool) *Way {
	t.Helper()
	local := netip.MustParseAddr("192.0.2.1")
	if remote.Is6() {
		local = netip.MustParseAddr("2001:db8:ff::1")
	}
	a, err := template(path{
		Source: route.MAC{2, 0, 0, 0, 0, 1}, Destination: route.MAC{2, 0, 0, 0, 0, 2}, Local: local, Remote: remote, MTU: 9000,
	}, tunnel{VNI: 7001, Encap: e, UDPChecksum: checksum})
	if err != nil {
		t.Fatal(err)
	}
	return &Way{
		Address: remote, Known: true, Least: leastProbe(remote.Is6()), adjacency: a, source: flowOf(remote), tos: 46 << 2,
		answerPort: ownPort(e, maps.TunnelPorts{}),
	}
}

// TestProbeFrame: lengths and checksums are right in every encapsulation, at every size; what the data path makes of one is understood.
func TestProbeFrame(t *testing.T) {
	for e := route.VXLAN; e.Valid() == nil; e++ {
		for _, remote := range []netip.Addr{netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("2001:db8:ff::2")} {
			for _, checksum := range []bool{false, true} {
				w := wayBy(t, e, remote, checksum)
				for _, size := range []int{w.Least, w.Least + 1, 1400, 8900} {
					t.Run(fmt.Sprintf("%s/%s/%v/%d", e, remote, checksum, size), func(t *testing.T) {
						b := w.frame(size, 0x1122334455667788, 9)
						checkProbe(t, w, b, size)
						answer(w, b)
						from, err := answerFrom(b)
						if err != nil || from != remote {
							t.Errorf("from %s, %v", from, err)
						}
						a, err := w.parse(append(b, 0, 0, 0)) // and padding
						if want := (ProbeAnswer{Token: 0x1122334455667788, Sequence: 9, Size: size}); err != nil || a != want {
							t.Errorf("%+v, %v", a, err)
						}
						for n := range len(b) {
							if n < int(w.adjacency.Len)+size {
								if _, err := w.parse(b[:n]); err == nil {
									t.Fatalf("%d of %d bytes are an answer", n, len(b))
								}
							}
						}
					})
				}
			}
		}
	}
}

// checkProbe reads a frame again from the documents.
func checkProbe(t *testing.T, w *Way, b []byte, size int) {
	t.Helper()
	v6 := w.Address.Is6()
	ip, inner := b[ethernetLen:], b[w.adjacency.Len:]
	if len(inner) != size {
		t.Errorf("the inner packet has %d bytes", len(inner))
	}
	udp := ip[ipLen(v6):]
	if v6 {
		if n := int(binary.BigEndian.Uint16(ip[4:])); n != len(ip)-ipv6Len || ip[7] != 64 || ip[0] != 0x6b || ip[1]>>4 != 8 {
			t.Errorf("outer header % x", ip[:ipv6Len])
		}
	} else if folded(ip[:ipv4Len]) != 0xffff || int(binary.BigEndian.Uint16(ip[2:])) != len(ip) || ip[8] != 64 || ip[1] != 0xb8 || ip[6] != 0x40 {
		t.Errorf("outer header % x", ip[:ipv4Len])
	}
	if w.adjacency.Udp != 0 {
		summed := v6 && w.adjacency.Flags&maps.AdjUDPCsum != 0
		if int(binary.BigEndian.Uint16(udp[4:])) != len(udp) || udp[0] < 0xc0 || (udp[6]|udp[7] != 0) != summed {
			t.Errorf("UDP % x", udp[:8])
		}
		if summed && folded(append(pseudo(ip, len(udp), protoUDP), udp...)) != 0xffff {
			t.Error("wrong UDP checksum")
		}
	}
	m := inner[ipLen(v6):]
	if v6 && folded(append(pseudo(inner, len(m), protoICM6), m...)) != 0xffff {
		t.Error("wrong ICMPv6 checksum")
	}
	if !v6 && (folded(inner[:ipv4Len]) != 0xffff || folded(m) != 0xffff) {
		t.Error("wrong inner checksum")
	}
}

// answer makes of a probe what both data paths make of it, as far as it is read.
func answer(w *Way, b []byte) {
	ip, inner := b[ethernetLen:], b[w.adjacency.Len:]
	kind, from, to, n := byte(echoReply4), 12, 16, 4
	if w.Address.Is6() {
		kind, from, to, n = echoReply6, 8, 24, 16
	}
	inner[ipLen(w.Address.Is6())] = kind
	for i := range n {
		ip[from+i], ip[to+i] = ip[to+i], ip[from+i]
	}
	binary.BigEndian.PutUint16(b[12:], maps.ProbeEtherType)
}

// Who hears of a hole keeps to it, and goes back to what the interface takes when it is mended.
func TestFoundMTU(t *testing.T) {
	m := newPathMTUs()
	a := netip.MustParseAddr("192.0.2.2")
	if m.forget(a) {
		t.Error("nothing was said")
	}
	m.lower(a, 1400)
	if !m.forget(a) || m.limit(a, 1500) != 1500 {
		t.Error("what was said stays")
	}
}
