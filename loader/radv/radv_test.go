package radv

import (
	"context"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"roam/lab"
	"roam/loader/ether"
	"roam/loader/route"
)

func link() Link {
	return Link{
		Interface: "lan0", Router: netip.MustParseAddr("fe80::1"), MAC: route.MAC{2, 0, 0x5e, 0x10, 0, 1},
		Prefixes: []netip.Prefix{netip.MustParsePrefix("2001:db8:1::/64"), netip.MustParsePrefix("2001:db8:2::/80")},
		Lifetime: 30 * time.Minute,
	}
}

// A guest with nothing but a cable gets an address in the segment's prefix and its default route, with the router's MAC and MTU, as soon
// as it asks.
func TestGuestConfiguresItself(t *testing.T) {
	l := lab.New(t)
	gw, guest := l.Namespace("gw"), l.Namespace("guest")
	gw.Sysctl("net.ipv6.conf.all.forwarding", "1")
	l.Cable(lab.End{In: gw, Name: "lan0"}, lab.End{In: guest, Name: "eth0"}, 1500, 1)
	guest.Sysctl("net.ipv6.conf.eth0.accept_ra", "1")
	guest.Sysctl("net.ipv6.conf.eth0.router_solicitations", "3")
	guest.IP("link set eth0 down")
	gw.IP("link set lan0 mtu 1400", "link set lan0 up")
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- gw.Do(func() error {
			a := New(slog.New(slog.DiscardHandler))
			a.keep(ctx, link()) // in this thread, which is in the namespace
			return nil
		})
	}()
	guest.IP("link set eth0 up")
	l.Until(15*time.Second, "the guest has a default route", func() error {
		out, err := guest.Try("ip", "-6", "route", "show", "default")
		if err != nil || !strings.Contains(out, "via fe80::1") || !strings.Contains(out, "mtu 1400") && !strings.Contains(mtu(guest), "1400") {
			return fmt.Errorf("%w: %q, MTU %s", err, out, mtu(guest))
		}
		return nil
	})
	out := guest.Run("ip", "-6", "addr", "show", "dev", "eth0", "scope", "global")
	if !strings.Contains(out, "2001:db8:1:") || strings.Contains(out, "2001:db8:2:") {
		t.Errorf("addresses of the guest:\n%s", out)
	}
	if out := guest.Run("ip", "neigh", "show", "fe80::1"); !strings.Contains(out, "02:00:5e:10:00:01") {
		t.Errorf("the guest takes the router for %s", out)
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func mtu(n *lab.Namespace) string {
	return strings.TrimSpace(n.Run("cat", "/proc/sys/net/ipv6/conf/eth0/mtu"))
}

func TestAdvertisement(t *testing.T) {
	to := netip.MustParseAddr("fe80::2")
	frame := advertisement(link(), 1500, route.MAC{2, 0, 0, 0, 0, 9}, to)
	p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
	if err := p.ErrorLayer(); err != nil {
		t.Fatal(err.Error())
	}
	ra, _ := p.Layer(layers.LayerTypeICMPv6RouterAdvertisement).(*layers.ICMPv6RouterAdvertisement)
	ip := p.Layer(layers.LayerTypeIPv6).(*layers.IPv6)
	if ra == nil || ra.RouterLifetime != 1800 || ra.HopLimit != 64 || len(ra.Options) != 4 || ip.HopLimit != 255 {
		t.Fatalf("%v", p)
	}
	if sum := ether.ChecksumICMPv6(frame[ethernetLen+8:icmpOffset], frame[icmpOffset:]); sum != 0 {
		t.Errorf("checksum is off by %x", sum)
	}
	for i, flags := range []byte{onLink | autonomous, onLink} {
		if o := ra.Options[2+i]; o.Type != layers.ICMPv6OptPrefixInfo || o.Data[1] != flags {
			t.Errorf("option %v, want flags %x", o, flags)
		}
	}
}

// A host that misses two advertisements keeps its router, and the intervals stay within what RFC 4861, section 6.2.1 allows.
func TestIntervals(t *testing.T) {
	for _, test := range []struct{ lifetime, least, most time.Duration }{
		{12 * time.Second, 3 * time.Second, 4 * time.Second},
		{30 * time.Minute, 200 * time.Second, 600 * time.Second},
		{9000 * time.Second, 600 * time.Second, 1800 * time.Second},
	} {
		least, most := Link{Lifetime: test.lifetime}.intervals()
		if least != test.least || most != test.most {
			t.Errorf("lifetime %v: every %v to %v, want %v to %v", test.lifetime, least, most, test.least, test.most)
		}
	}
}

func TestParseSolicitation(t *testing.T) {
	// From fe80::2 (02:00:00:00:00:09) to ff02::2, with its link-layer address.
	good, err := hex.DecodeString("333300000002" + "020000000009" + "86dd" + "60000000" + "0010" + "3aff" +
		"fe800000000000000000000000000002" + "ff020000000000000000000000000002" + "8500" + "0000" + "00000000" + "0101020000000009")
	if err != nil {
		t.Fatal(err)
	}
	sign := func(b []byte) []byte {
		b[icmpOffset+2], b[icmpOffset+3] = 0, 0
		sum := ether.ChecksumICMPv6(b[ethernetLen+8:icmpOffset], b[icmpOffset:])
		b[icmpOffset+2], b[icmpOffset+3] = byte(sum>>8), byte(sum)
		return b
	}
	s, ok := parseSolicitation(sign(good))
	if want := (solicitation{route.MAC{2, 0, 0, 0, 0, 9}, netip.MustParseAddr("fe80::2")}); !ok || s != want {
		t.Fatalf("%+v %t, want %+v", s, ok, want)
	}
	for what, change := range map[string]func(b []byte) []byte{
		"hop limit":                    func(b []byte) []byte { b[ethernetLen+7] = 64; return b },
		"code":                         func(b []byte) []byte { b[icmpOffset+1] = 1; return sign(b) },
		"type":                         func(b []byte) []byte { b[icmpOffset] = 134; return sign(b) },
		"checksum":                     func(b []byte) []byte { b[icmpOffset+3] ^= 1; return b },
		"option of length 0":           func(b []byte) []byte { b[icmpOffset+9] = 0; return sign(b) },
		"option beyond the end":        func(b []byte) []byte { b[icmpOffset+9] = 2; return sign(b) },
		"source option without source": func(b []byte) []byte { clear(b[ethernetLen+8 : ethernetLen+24]); return sign(b) },
		"from a group":                 func(b []byte) []byte { b[ethernetLen+8] = 0xff; return sign(b) },
		"longer than the frame":        func(b []byte) []byte { b[ethernetLen+5] = 0x18; return sign(b) },
	} {
		if s, ok := parseSolicitation(change(append([]byte(nil), good...))); ok {
			t.Errorf("%s: taken for %+v", what, s)
		}
	}
	for n := range len(good) {
		if _, ok := parseSolicitation(good[:n]); ok {
			t.Errorf("%d bytes of it were taken", n)
		}
	}
}
