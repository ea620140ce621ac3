package bpftest

import (
	"encoding/binary"
	"slices"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

// The checksum over IPv6 is right for every length, odd ones too, and for sums that come out as zero.
func TestEncapChecksumEveryLength(t *testing.T) {
	w := site(t, onLAN)
	everyFamily(t, func(t *testing.T, f family) {
		tun := w.tunnelOf(f, atB6)
		header := 20
		if f == v6 {
			header = 40
		}
		for n := header; n <= 1512; n++ {
			in := w.base(f, atB6)
			in.ip.proto, in.ip.payload = 99, counting(n-header)
			action, out, err := w.run(in.bytes())
			if err != nil {
				t.Fatal(err)
			}
			if expected := intoTunnel(t, tun, in.ip.hop(), 64)(out); action != xdpRedirect || string(out) != string(expected) {
				t.Fatalf("inner length %d: %s\ngot  %s\nwant %s", n, actionName(action), describe(out), describe(expected))
			}
			checkOuter(t, out)
		}
	})
}

func TestEncapChecksumZero(t *testing.T) {
	w := site(t, onLAN)
	for _, f := range families {
		in := w.base(f, atB6)
		in.ip.proto, in.ip.payload = 99, counting(64)
		_, out, err := w.run(in.bytes())
		if err != nil {
			t.Fatal(err)
		}
		// The word that makes the sum come out as 0xffff, its complement as 0: sent as 0xffff (RFC 8200 section 8.1).
		const at = 10
		sum := binary.BigEndian.Uint16(out[60:])
		word := uint32(binary.BigEndian.Uint16(in.ip.payload[at:])) + uint32(sum)
		binary.BigEndian.PutUint16(in.ip.payload[at:], uint16(word)+uint16(word>>16))
		_, out, err = w.run(in.bytes())
		if err != nil {
			t.Fatal(err)
		}
		if got := binary.BigEndian.Uint16(out[60:]); got != 0xffff {
			t.Errorf("%s inside: checksum %#04x, want 0xffff", f, got)
		}
		w.check(t, in.bytes(), w.leaves(t, "fwd_encap", w.tunnelOf(f, atB6), in.ip, 64))
	}
}

// checkOuter verifies the outer headers by hand and by gopacket: version, lengths, DF, id, checksums.
func checkOuter(t *testing.T, b []byte) {
	t.Helper()
	ip := b[14:]
	var body, pseudo []byte
	if ip[0]>>4 == 4 {
		if onesComplement(ip[:20]) != 0xffff {
			t.Errorf("outer IPv4 header checksum is wrong: % x", ip[:20])
		}
		if ip[6] != 0x40 || ip[7] != 0 || ip[4] != 0 || ip[5] != 0 {
			t.Errorf("outer IPv4 header is not DF, id 0: % x", ip[:20])
		}
		body = ip[20:binary.BigEndian.Uint16(ip[2:])]
		if body[6] != 0 || body[7] != 0 {
			t.Errorf("outer UDP checksum over IPv4 is not 0")
		}
	} else {
		body = ip[40 : 40+int(binary.BigEndian.Uint16(ip[4:]))]
		pseudo = binary.BigEndian.AppendUint32(slices.Clone(ip[8:40]), uint32(len(body)))
		pseudo = append(pseudo, 0, 0, 0, 17)
		if got := onesComplement(append(pseudo, body...)); got != 0xffff {
			t.Errorf("outer UDP checksum is wrong: sum %#x, % x", got, body[:8])
		}
	}
	if n := int(binary.BigEndian.Uint16(body[4:])); n != len(body) {
		t.Errorf("outer UDP length %d, outer IP carries %d", n, len(body))
	}
	p := gopacket.NewPacket(b, layers.LayerTypeEthernet, gopacket.Lazy)
	if v, ok := p.Layer(layers.LayerTypeUDP).(*layers.UDP); !ok || v.DstPort != 4789 {
		t.Errorf("gopacket finds no VXLAN in % x", b)
	} else if ip[0]>>4 == 6 {
		if err := v.SetNetworkLayerForChecksum(p.NetworkLayer()); err != nil {
			t.Fatal(err)
		}
		if err, r := v.VerifyChecksum(); err != nil || !r.Valid {
			t.Errorf("gopacket: %v %+v", err, r)
		}
	}
}

// onesComplement is the folded sum of RFC 1071 over bytes in network order; 0xffff over a header that holds its checksum.
func onesComplement(b []byte) uint32 {
	var sum uint32
	for i, x := range b {
		if i%2 == 0 {
			sum += uint32(x) << 8
		} else {
			sum += uint32(x)
		}
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return sum
}

// The header checksum follows the TTL, for every checksum there is: no sum comes out as 0xffff where 0 is meant.
func TestTTLChecksum(t *testing.T) {
	w := site(t, onLAN)
	in := w.base(v4, here).bytes()
	for id := range 1 << 16 {
		binary.BigEndian.PutUint16(in[18:], uint16(id))
		fixed4(in, 14)
		_, out, err := w.run(in)
		if err != nil {
			t.Fatal(err)
		}
		expected := slices.Clone(in[14:34])
		expected[8]--
		if fixed4(expected, 0); !slices.Equal(out[14:34], expected) {
			t.Fatalf("checksum %#04x: got % x, want % x", in[24:26], out[14:34], expected)
		}
		if in[24] == 0 && in[25] == 0 { // the other way to write zero
			in[24], in[25] = 0xff, 0xff
			if _, out, err = w.run(in); err != nil || onesComplement(out[14:34]) != 0xffff {
				t.Fatalf("checksum 0xffff: got % x, %v", out[14:34], err)
			}
		}
	}
}
