package datapath

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"roam/loader/route"
	"roam/maps"
)

var (
	testInner = route.MAC{2, 0, 0, 0, 1, 1}
	testOwn   = route.MAC{2, 0, 0, 0, 1, 2}
)

// shims are the headers behind the outer IP header, made by an independent encoder where one is at hand and else written down
// byte by byte, for an IPv4 packet inside. The overheads are those of the formats' own documents.
var shims = map[route.Encap]struct {
	proto    layers.IPProtocol
	layers   []gopacket.SerializableLayer
	overhead int // over IPv4
}{
	route.VXLAN: {17, append(udpTo(4789), &layers.VXLAN{ValidIDFlag: true, VNI: 0x123456}, &layers.Ethernet{
		SrcMAC: testOwn[:], DstMAC: testInner[:], EthernetType: layers.EthernetTypeIPv4,
	}), 50},
	route.VXLANGPE: {17, append(udpTo(4790), gopacket.Payload{0x0c, 0, 0, 1, 0x12, 0x34, 0x56, 0}), 36},
	route.Geneve:   {17, append(udpTo(6081), gopacket.Payload{0, 0, 0x08, 0, 0x12, 0x34, 0x56, 0}), 36},
	route.GeneveL2: {17, append(udpTo(6081), gopacket.Payload{0, 0, 0x65, 0x58, 0x12, 0x34, 0x56, 0}, &layers.Ethernet{
		SrcMAC: testOwn[:], DstMAC: testInner[:], EthernetType: layers.EthernetTypeIPv4,
	}), 50},
	route.GRE: {47, []gopacket.SerializableLayer{
		&layers.GRE{KeyPresent: true, Key: 0x123456, Protocol: layers.EthernetTypeIPv4},
	}, 28},
	route.GRENoKey: {47, []gopacket.SerializableLayer{&layers.GRE{Protocol: layers.EthernetTypeIPv4}}, 24},
	route.IPIP:     {4, nil, 20},
	route.GUE:      {17, append(udpTo(6080), gopacket.Payload{0, 4, 0, 0}), 32},
	route.LISP:     {17, append(udpTo(4341), gopacket.Payload{0x08, 0, 0, 0, 0x12, 0x34, 0x56, 0}), 36},
}

func udpTo(port layers.UDPPort) []gopacket.SerializableLayer {
	return []gopacket.SerializableLayer{&layers.UDP{DstPort: port}}
}

// A template is what an independent encoder makes of the same headers, once the protocol field is patched.
func TestTemplate(t *testing.T) {
	src, dst := route.MAC{2, 0, 0, 0, 0, 1}, route.MAC{2, 0, 0, 0, 0, 2}
	for encap, want := range shims {
		for _, ends := range [][2]string{{"192.0.2.1", "192.0.2.2"}, {"2001:db8::1", "2001:db8::2"}} {
			t.Run(fmt.Sprintf("%s to %s", encap, ends[1]), func(t *testing.T) {
				local, remote := netip.MustParseAddr(ends[0]), netip.MustParseAddr(ends[1])
				overhead := want.overhead
				if remote.Is6() {
					overhead += 20
				}
				a, err := template(
					path{Source: src, Destination: dst, Local: local, Remote: remote, MTU: 1500 + overhead, Port: 7},
					tunnel{Encap: encap, VNI: 0x123456, Inner: testInner, OwnMAC: testOwn, UDPChecksum: true, ECN: true, Locator: 3},
				)
				if err != nil {
					t.Fatal(err)
				}
				expected := encode(t, src, dst, local, remote, want.proto, want.layers)[:14+overhead]
				if got := patched(a); !bytes.Equal(got, expected) {
					t.Errorf("header\n%x, want\n%x", got, expected)
				}
				if a.Mtu != 1500 || a.Port != 7 || a.Locator != 3 || a.Flags&maps.AdjECN == 0 {
					t.Errorf("%+v", a)
				}
				if usesUDP := want.proto == 17; usesUDP != (a.Udp != 0) || usesUDP && remote.Is6() != (a.Flags&maps.AdjUDPCsum != 0) {
					t.Errorf("UDP header at %d, flags %#x", a.Udp, a.Flags)
				}
			})
		}
	}
	if len(shims) != len(encapsulations) {
		t.Errorf("%d encapsulations, %d tested", len(encapsulations), len(shims))
	}
}

func encode(t *testing.T, src, dst route.MAC, local, remote netip.Addr, proto layers.IPProtocol, rest []gopacket.SerializableLayer) []byte {
	t.Helper()
	eth := &layers.Ethernet{SrcMAC: src[:], DstMAC: dst[:], EthernetType: layers.EthernetTypeIPv4}
	var ip gopacket.SerializableLayer = &layers.IPv4{
		Version: 4, IHL: 5, Flags: layers.IPv4DontFragment, Protocol: proto, SrcIP: local.AsSlice(), DstIP: remote.AsSlice(),
	}
	if remote.Is6() {
		eth.EthernetType = layers.EthernetTypeIPv6
		ip = &layers.IPv6{Version: 6, NextHeader: proto, SrcIP: local.AsSlice(), DstIP: remote.AsSlice()}
	}
	b := gopacket.NewSerializeBuffer()
	all := append([]gopacket.SerializableLayer{eth, ip}, rest...)
	// The encoder pads the innermost frame to 60 bytes; the caller cuts it.
	if err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{}, all...); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// patched is a template's header with the protocol field as the data path writes it for IPv4 inside.
func patched(a maps.Adjacency) []byte {
	b := bytes.Clone(a.Header[:a.Len])
	if a.Proto != 0 {
		copy(b[a.Proto:][:a.ProtoSize], binary.NativeEndian.AppendUint16(nil, a.Proto4))
	}
	return b
}

func TestTemplateRefusesWhatItCannotMake(t *testing.T) {
	addr := netip.MustParseAddr("192.0.2.2")
	if _, err := template(path{Local: addr, Remote: addr, MTU: 1500}, tunnel{Encap: 99}); err == nil {
		t.Error("a template for an encapsulation that nobody knows")
	}
	a, err := template(path{Local: addr, Remote: addr, MTU: 40}, tunnel{})
	if err != nil || a.Mtu != 0 {
		t.Errorf("an underlay that carries less than the outer headers: MTU %d, error %v", a.Mtu, err)
	}
}
