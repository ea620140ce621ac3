package datapath

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"roam/loader/route"
)

// A template is what an independent encoder makes of the same headers, with the fields that the data path patches zero.
func TestTemplate(t *testing.T) {
	src, dst := route.MAC{2, 0, 0, 0, 0, 1}, route.MAC{2, 0, 0, 0, 0, 2}
	inner, own := route.MAC{2, 0, 0, 0, 1, 1}, route.MAC{2, 0, 0, 0, 1, 2}
	for _, c := range []struct {
		local, remote string
		mtu           int
		len           uint16
	}{
		{"192.0.2.1", "192.0.2.2", 1550, 64},
		{"2001:db8::1", "2001:db8::2", 1570, 84},
	} {
		local, remote := netip.MustParseAddr(c.local), netip.MustParseAddr(c.remote)
		a, err := template(
			path{Source: src, Destination: dst, Local: local, Remote: remote, MTU: c.mtu, Port: 7},
			tunnel{VNI: 0x123456, Inner: inner, OwnMAC: own, UDPChecksum: true, Locator: 3},
		)
		if err != nil {
			t.Fatal(err)
		}
		eth := &layers.Ethernet{SrcMAC: src[:], DstMAC: dst[:], EthernetType: layers.EthernetTypeIPv4}
		var ip gopacket.SerializableLayer = &layers.IPv4{
			Version: 4, IHL: 5, Flags: layers.IPv4DontFragment, Protocol: layers.IPProtocolUDP,
			SrcIP: local.AsSlice(), DstIP: remote.AsSlice(),
		}
		if remote.Is6() {
			eth.EthernetType = layers.EthernetTypeIPv6
			ip = &layers.IPv6{Version: 6, NextHeader: layers.IPProtocolUDP, SrcIP: local.AsSlice(), DstIP: remote.AsSlice()}
		}
		want := gopacket.NewSerializeBuffer()
		err = gopacket.SerializeLayers(want, gopacket.SerializeOptions{}, eth, ip,
			&layers.UDP{DstPort: 4789}, &layers.VXLAN{ValidIDFlag: true, VNI: 0x123456},
			&layers.Ethernet{SrcMAC: own[:], DstMAC: inner[:]})
		if err != nil {
			t.Fatal(err)
		}
		// The encoder pads the innermost frame to 60 bytes.
		if a.Len != c.len || !bytes.Equal(a.Header[:a.Len], want.Bytes()[:a.Len]) {
			t.Errorf("%s: header\n%x, want\n%x", c.remote, a.Header[:a.Len], want.Bytes())
		}
		if a.Mtu != 1500 {
			t.Errorf("%s: inner MTU %d over an underlay of %d, want 1500", c.remote, a.Mtu, c.mtu)
		}
		if a.Port != 7 || a.Locator != 3 || a.Header[a.Udp+2] != 4789>>8 || a.Header[a.Udp+3] != 4789&0xff {
			t.Errorf("%s: %+v", c.remote, a)
		}
	}
}

func TestTemplateRefusesWhatItCannotMake(t *testing.T) {
	addr := netip.MustParseAddr("192.0.2.2")
	if _, err := template(path{Local: addr, Remote: addr, MTU: 1500}, tunnel{Encap: route.GRE}); err == nil {
		t.Error("a template for an encapsulation that is not carried")
	}
	a, err := template(path{Local: addr, Remote: addr, MTU: 40}, tunnel{})
	if err != nil || a.Mtu != 0 {
		t.Errorf("an underlay that carries less than the outer headers: MTU %d, error %v", a.Mtu, err)
	}
}
