package main

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"github.com/gopacket/gopacket/layers"

	"roam/loader/route"
)

// What is told of a packet out of a tunnel is told of the packet that was inside.
func TestAskedOf(t *testing.T) {
	inner := question{
		src: netip.MustParseAddr("10.1.0.21"), dst: netip.MustParseAddr("10.1.0.11"), proto: layers.IPProtocolICMPv4, ttl: 64, payload: 10,
		srcMAC: route.MAC{2, 0, 0, 0, 0, 1}, dstMAC: route.MAC{2, 0, 0, 0, 0, 2},
	}
	frame, err := inner.frame()
	if err != nil {
		t.Fatal(err)
	}
	want := asked{inner.src, inner.dst, 20 + 8 + 10}
	if got := askedOf(frame, false); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got := askedOf(frame, true); got != (asked{}) {
		t.Errorf("inside no tunnel there is %+v", got)
	}
	outer := inner
	outer.src, outer.dst, outer.proto, outer.port, outer.payload = netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("192.0.2.1"), layers.IPProtocolUDP, 4789, 0
	tunnel, err := outer.frame()
	if err != nil {
		t.Fatal(err)
	}
	tunnel = append(append(tunnel[:42], 8, 0, 0, 0, 0, 0x1b, 0x59, 0), frame...)
	binary.BigEndian.PutUint16(tunnel[16:], uint16(len(tunnel)-14))
	binary.BigEndian.PutUint16(tunnel[38:], uint16(len(tunnel)-34))
	if got := askedOf(tunnel, true); got != want {
		t.Errorf("inside: %+v, want %+v", got, want)
	}
	if got := askedOf(tunnel, false).dst; got != outer.dst {
		t.Errorf("outside: to %s", got)
	}
	if got := askedOf(frame[:20], false); got.dst.IsValid() {
		t.Errorf("of a frame that ends in its header: %+v", got)
	}
	cut := []string{"Ethernet 02:00:00:00:00:01 > 02:00:00:00:00:02, type IPv4", "IPv4, cut short or damaged"}
	if got := decode(frame[:20]); !slices.Equal(got, cut) {
		t.Errorf("decoded %q", got)
	}
}
