package datapath

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

func TestPathMTUs(t *testing.T) {
	now := time.Unix(1000, 0)
	m := newPathMTUs()
	m.now = func() time.Time { return now }
	four, six := netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("2001:db8:ff::2")
	for _, step := range []struct {
		what    string
		locator netip.Addr
		says    int // 0: nothing is said
		news    bool
		pass    time.Duration
		fits    int // of 1600
	}{
		{"nobody said anything", four, 0, false, 0, 1600},
		{"absurd", four, 575, false, 0, 1600},
		{"old router", four, 0, false, 0, 1600},
		{"lower", four, 1400, true, 0, 1400},
		{"the same", four, 1400, false, 0, 1400},
		{"larger", four, 1500, false, 0, 1400},
		{"still lower", four, 576, true, 0, 576},
		{"other locator", six, 0, false, 0, 1600},
		{"IPv6 takes 1280 everywhere", six, 1279, false, 0, 1600},
		{"IPv6", six, 1280, true, 0, 1280},
		{"nearly aged", four, 0, false, pathMTUAge, 576},
		{"aged", four, 0, false, time.Second, 1600},
		{"larger than before, later", four, 1500, true, 0, 1500},
	} {
		now = now.Add(step.pass)
		if news := step.says != 0 && m.lower(step.locator, step.says); news != step.news {
			t.Errorf("%s: news %t", step.what, news)
		}
		if fits := m.limit(step.locator, 1600); fits != step.fits {
			t.Errorf("%s: %d fits, want %d", step.what, fits, step.fits)
		}
	}
}

func serialize(t *testing.T, list ...gopacket.SerializableLayer) []byte {
	t.Helper()
	b := gopacket.NewSerializeBuffer()
	must(t, gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, list...))
	return b.Bytes()
}

func TestParseTooBig(t *testing.T) {
	quoted := serialize(t, &layers.IPv4{
		Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: []byte{192, 0, 2, 1}, DstIP: []byte{192, 0, 2, 2},
	}, gopacket.Payload("12345678"))
	good := serialize(t, &layers.ICMPv4{
		TypeCode: layers.CreateICMPv4TypeCode(icmpUnreachable, icmpFragNeeded), Seq: 1400,
	}, gopacket.Payload(quoted))
	want := tooBig{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"), 1400}
	if got, ok := parseTooBig4(good); !ok || got != want {
		t.Errorf("%+v %t, want %+v", got, ok, want)
	}
	for what, at := range map[string]int{"another type": 0, "another code": 1, "a flipped bit": 7, "another version": 8, "another protocol": 17} {
		bad := append([]byte(nil), good...)
		bad[at] ^= 0x40
		if what != "a flipped bit" {
			binary.NativeEndian.PutUint16(bad[2:], 0)
			binary.NativeEndian.PutUint16(bad[2:], ^uint16(folded(bad)))
		}
		if got, ok := parseTooBig4(bad); ok {
			t.Errorf("%s: taken for %+v", what, got)
		}
	}
	for n := range icmpQuote + ipv4Len {
		if _, ok := parseTooBig4(good[:n]); ok {
			t.Errorf("%d bytes of it were taken", n)
		}
	}

	six := make([]byte, icmpQuote+ipv6Len)
	six[0] = icmp6TooBig
	binary.BigEndian.PutUint32(six[4:], 1300)
	six[8], six[8+6] = 0x60, protoUDP
	copy(six[16:], netip.MustParseAddr("2001:db8:ff::1").AsSlice())
	copy(six[32:], netip.MustParseAddr("2001:db8:ff::2").AsSlice())
	want = tooBig{netip.MustParseAddr("2001:db8:ff::1"), netip.MustParseAddr("2001:db8:ff::2"), 1300}
	if got, ok := parseTooBig6(six); !ok || got != want {
		t.Errorf("%+v %t, want %+v", got, ok, want)
	}
	for n := range len(six) {
		if _, ok := parseTooBig6(six[:n]); ok {
			t.Errorf("%d bytes of it were taken", n)
		}
	}
}
