package lab_test

import (
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"roam/lab"
	"roam/maps"
)

// situation is something that an operator asks about: a frame that arrives at gw1.
type situation struct {
	reason string
	says   string // part of the sentence that explains it
	on     string // lan0 or wan0
	frame  []byte
}

// notPrepared are the reasons that no packet alone brings about, and what else it would take.
var notPrepared = map[string]string{
	"drop_headroom":        "a driver that leaves too little room in front of the packet: bpf/test has it",
	"drop_checksum_length": "a packet of more than 65,000 bytes in a tunnel over IPv6: bpf/test has it",
	"drop_nexthop":         "a table that we have damaged: bpf/test has it",
	"drop_redirect":        "a port that is taken away; a dry run sends nothing and cannot know",
	"drop_isolated":        "tenants whose addresses overlap: loader/datapath has it",
}

// TestExplainSituations asks why about a frame for every reason, and then sends the very frame: the answer is in words that fit, and the
// reason that is explained is the one that the live data path counts.
func TestExplainSituations(t *testing.T) {
	s := lab.NewSites(t, bins, lab.Options{Narrow: true, FIBTable: 100})
	gw1 := s.GW[lab.DC1]
	gw1.Config.L2VNI, gw1.Config.Hold = 10, "10m"
	gw1.Config.Home, gw1.Config.Egress = "dc1", "[{prefix: 203.0.113.128/25, via: home, from: 10.1.0.21/32}]"
	s.Up()
	h11, h12, h21 := s.H("h11"), s.H("h12"), s.H("h21")
	reach(t, s, [2]*lab.Host{h11, h21}, [2]*lab.Host{h12, h21}, [2]*lab.Host{h21, h11})
	gw1.IP("route add blackhole 10.1.0.66/32 table 100")
	gw1.MustCtl("route", "add", "10.1.0.77", "--via", "192.0.2.9") // where nobody is, and a known locator
	gw1.MustCtl("route", "add", h12.IP4.String(), "--site", "dc2") // just moved
	gw1.MustCtl("route", "add", "203.0.113.200", "--site", "dc2")
	gw1.MustCtl("route", "import", fileOf(t, `{"prefix": "10.1.0.55/32", "local": true}`))
	t.Run("path", func(t *testing.T) {
		path(t, gw1, s.GW[lab.DC2], h11, h21)
		path(t, s.GW[lab.DC2], gw1, h21, h11)
	})
	k := kit{
		t: t, segment: mac(t, neighbour(h11, h21.IP4.String())), wan: mac(t, gw1.MAC("wan0")), far: mac(t, s.GW[lab.DC2].MAC("wan0")),
		h11: h11, h12: h12, h21: h21,
	}
	seen := map[string]bool{}
	for _, c := range k.situations() {
		seen[c.reason] = true
		t.Run(c.reason, func(t *testing.T) { check(t, s, gw1, c) })
	}
	reasons, err := maps.ReasonNames()
	if err != nil || len(reasons) < 30 {
		t.Fatalf("%d reasons (%v)", len(reasons), err)
	}
	for _, reason := range reasons {
		if reason != "" && !seen[reason] && notPrepared[reason] == "" {
			t.Errorf("no situation is prepared for %s", reason)
		}
	}
}

// toldInSteps is what is not plain from the sentence alone.
var toldInSteps = map[string]string{
	"fwd_deliver":    "10.1.0.11 is in the host table: here, on a segment of this gateway",
	"fwd_reencap":    "10.1.0.12 is in the host table: elsewhere, one locator, held after a move",
	"fwd_too_big":    "packet of 1500 bytes, the way out carries 1450",
	"fwd_expired":    "an ICMP error goes to 10.1.0.11",
	"fwd_fragment":   "packet of 1500 bytes, the way out carries 1450",
	"pass_no_route":  "203.0.113.9 is no host we know, and no prefix covers it",
	"drop_mtu":       "packet of 1500 bytes, the way out carries 1450",
	"drop_source":    "10.1.0.1 does not live behind 192.0.2.2",
	"drop_ttl":       "10.1.0.21 has a route",
	"drop_blackhole": "10.1.0.66 is in the host table: to be dropped",
}

// explained is what roamctl explain says.
type explained struct {
	Verdict, Reason, Text, Egress string
	Frame                         []byte
	Steps                         []struct{ Step, Found, Why string }
}

func check(t *testing.T, s *lab.Sites, g *lab.Gateway, c situation) {
	var e explained
	g.JSON(&e, "explain", "--packet", fileOf(t, hex.EncodeToString(c.frame)), "--interface", c.on)
	if e.Reason != c.reason || !strings.Contains(e.Text, c.says) || len(e.Steps) == 0 {
		t.Errorf("explained as %s, %q, in %d steps; want %s, %q", e.Reason, e.Text, len(e.Steps), c.reason, c.says)
	}
	if want := toldInSteps[c.reason]; want != "" && !strings.Contains(fmt.Sprint(e.Steps), want) {
		t.Errorf("told in the steps %q, want %q", e.Steps, want)
	}
	const copies = 3
	before := g.Counters()
	for range copies {
		s.Switch.Inject(map[string]string{"lan0": "gw1-lan", "wan0": "gw1-wan"}[c.on], c.frame)
	}
	var moved lab.Counters
	for limit := time.Now().Add(5 * time.Second); moved[e.Reason] < copies; time.Sleep(10 * time.Millisecond) {
		if moved = g.Counters().Since(before); time.Now().After(limit) {
			t.Errorf("explained as %s, but the live data path counts %v", e.Reason, moved)
			return
		}
	}
}

// path asks the gateway where a packet enters, and the one that gets what leaves there.
func path(t *testing.T, from, to *lab.Gateway, a, b *lab.Host) {
	var in, out explained
	from.JSON(&in, "explain", a.IP4.String(), b.IP4.String())
	if in.Reason != "fwd_encap" || in.Egress != "wan0" || in.Steps[0].Why != "" {
		t.Fatalf("%s to %s at %s: %+v", a.Name, b.Name, from.Name, in)
	}
	to.JSON(&out, "explain", "--packet", fileOf(t, hex.EncodeToString(in.Frame)), "--interface", "wan0")
	if out.Reason != "fwd_deliver" || out.Egress != "lan0" || len(out.Frame) < 6 || net.HardwareAddr(out.Frame[:6]).String() != b.MAC {
		t.Errorf("%s to %s at %s: %+v", a.Name, b.Name, to.Name, out)
	}
	to.JSON(&out, "explain", a.IP4.String(), b.IP4.String())
	if want := a.IP4.String() + " lives behind 192.0.2."; !strings.Contains(out.Steps[0].Why, want) {
		t.Errorf("%s to %s, asked where it does not enter: %+v, want %q", a.Name, b.Name, out.Steps[0], want)
	}
}

// kit makes frames.
type kit struct {
	t                 *testing.T
	segment, wan, far net.HardwareAddr // the segment's gateway, gw1 and gw2 on the underlay
	h11, h12, h21     *lab.Host
}

func (k kit) situations() []situation {
	h11, h12, h21 := k.h11.IP4.String(), k.h12.IP4.String(), k.h21.IP4.String()
	ping := icmp4(layers.ICMPv4TypeEchoRequest, 8)
	lan := func(reason, says string, l ...gopacket.SerializableLayer) situation {
		return situation{reason, says, "lan0", k.bytes(l...)}
	}
	wan := func(reason, says string, l ...gopacket.SerializableLayer) situation {
		return situation{reason, says, "wan0", k.bytes(l...)}
	}
	to := func(dst string, more ...func(*layers.IPv4)) []gopacket.SerializableLayer {
		return append([]gopacket.SerializableLayer{k.in(layers.EthernetTypeIPv4), ip4(h11, dst, layers.IPProtocolICMPv4, more...)}, ping...)
	}
	// From a locator, inside VXLAN: to the router's MAC, from h21.
	inside := func(from string, vni uint32, dst string, more ...func(*layers.IPv4)) []gopacket.SerializableLayer {
		return append(k.vxlan(from, vni, k.segment, layers.EthernetTypeIPv4), append([]gopacket.SerializableLayer{ip4(h21, dst, layers.IPProtocolICMPv4, more...)}, ping...)...)
	}
	ttl := func(n uint8) func(*layers.IPv4) { return func(ip *layers.IPv4) { ip.TTL = n } }
	df := func(ip *layers.IPv4) { ip.Flags = layers.IPv4DontFragment }
	long := func(dst string, kind uint8, more ...func(*layers.IPv4)) []gopacket.SerializableLayer {
		return append([]gopacket.SerializableLayer{k.in(layers.EthernetTypeIPv4), ip4(h11, dst, layers.IPProtocolICMPv4, more...)}, icmp4(kind, 1472)...)
	}
	outer := func(l []gopacket.SerializableLayer, change func(*layers.IPv4)) []gopacket.SerializableLayer {
		change(l[1].(*layers.IPv4))
		return l
	}
	udp := func(port uint16, payload ...byte) []gopacket.SerializableLayer {
		ip := ip4("192.0.2.2", "192.0.2.1", layers.IPProtocolUDP)
		u := &layers.UDP{SrcPort: 50000, DstPort: layers.UDPPort(port)}
		_ = u.SetNetworkLayerForChecksum(ip)
		return []gopacket.SerializableLayer{k.under(), ip, u, gopacket.Payload(payload)}
	}
	v6 := func(src, dst string, more ...gopacket.SerializableLayer) []gopacket.SerializableLayer {
		return append([]gopacket.SerializableLayer{
			k.in(layers.EthernetTypeIPv6),
			&layers.IPv6{Version: 6, HopLimit: 64, NextHeader: 59, SrcIP: net.ParseIP(src), DstIP: net.ParseIP(dst)},
		}, more...)
	}
	probe := func(src, dst string, kind uint8, bytes int) []gopacket.SerializableLayer {
		l := k.vxlan("192.0.2.2", 7001, k.segment, layers.EthernetTypeIPv4)
		return append(append(l, ip4(src, dst, layers.IPProtocolICMPv4)), icmp4(kind, bytes)...)
	}
	broken := func(c situation, change func(b []byte)) situation {
		change(c.frame)
		return c
	}
	short := lan("drop_short", "ends inside a header", k.in(layers.EthernetTypeIPv4))
	short.frame = append(short.frame[:14], 0x45, 0, 0, 40)
	return []situation{
		lan("fwd_encap", "sent through the tunnel", to(h21)...),
		wan("fwd_deliver", "lives on a segment here", inside("192.0.2.2", 7001, h11)...),
		lan("fwd_arp", "the gateway answers this ARP", k.arp(h11, h21)...),
		lan("fwd_nd", "the gateway answers this neighbour solicitation", k.solicit(k.h21.IP6)...),
		lan("fwd_too_big", "its sender is told the right size", long(h21, layers.ICMPv4TypeEchoRequest, df)...),
		lan("fwd_expired", "TTL or hop limit is used up", to(h21, ttl(1))...),
		lan("fwd_fragment", "may be fragmented", long(h21, layers.ICMPv4TypeEchoRequest)...),
		wan("fwd_reencap", "moved away moments ago", inside("192.0.2.9", 7001, h12)...),
		wan("fwd_home", "pass here, its home", inside("192.0.2.2", 7001, "203.0.113.200")...),
		wan("fwd_probe", "probes the tunnel", probe("169.254.255.1", "169.254.255.2", layers.ICMPv4TypeEchoRequest, 16)...),
		lan("pass_no_port", "is not configured", append([]gopacket.SerializableLayer{
			k.in(layers.EthernetTypeDot1Q), &layers.Dot1Q{VLANIdentifier: 99, Type: layers.EthernetTypeIPv4},
		}, to(h21)[1:]...)...),
		lan("pass_not_ip", "neither IP nor ARP", k.in(0x88cc), gopacket.Payload(make([]byte, 50))),
		lan("pass_not_ours", "belongs to another station", append([]gopacket.SerializableLayer{
			&layers.Ethernet{SrcMAC: mac(k.t, k.h11.MAC), DstMAC: mac(k.t, "02:00:00:00:77:77"), EthernetType: layers.EthernetTypeIPv4},
		}, to("203.0.113.9")[1:]...)...),
		lan("pass_multicast", "multicast and broadcast are the kernel's", append([]gopacket.SerializableLayer{
			&layers.Ethernet{SrcMAC: mac(k.t, k.h11.MAC), DstMAC: mac(k.t, "01:00:5e:00:00:fb"), EthernetType: layers.EthernetTypeIPv4},
		}, to("224.0.0.251")[1:]...)...),
		lan("pass_link_local", "link-local", v6("fe80::11", "fe80::22")...),
		lan("pass_arp", "not the gateway's to answer", k.arp(h11, "10.1.0.88")...),
		lan("pass_nd", "not the gateway's to answer", k.solicit(netip.MustParseAddr("2001:db8:1::88"))...),
		lan("pass_own", "addressed to the gateway itself", to("10.1.0.1")...),
		wan("pass_underlay", "no tunnel packet to one of our locators", udp(1234, 1, 2, 3, 4)...),
		lan("pass_resolve", "its MAC is not known yet", to("10.1.0.55")...),
		lan("pass_no_route", "no host and no prefix covers it", to("203.0.113.9")...),
		wan("pass_probe", "answer to a probe", probe("169.254.255.2", "169.254.255.1", layers.ICMPv4TypeEchoReply, 16)...),
		short,
		broken(lan("drop_ip_header", "make no sense", to(h21)...), func(b []byte) { b[14] = 0x42 }),
		broken(lan("drop_ip_checksum", "checksum is wrong", to(h21)...), func(b []byte) { b[24]++ }),
		lan("drop_martian", "no packet may come from, or go to", to("127.0.0.1")...),
		lan("drop_ttl", "nobody may be told", append([]gopacket.SerializableLayer{
			k.in(layers.EthernetTypeIPv4), ip4(h11, h21, layers.IPProtocolICMPv4, ttl(1)),
		}, icmp4(layers.ICMPv4TypeTimeExceeded, 28)...)...),
		lan("drop_mtu", "nobody may be told", long(h21, layers.ICMPv4TypeTimeExceeded, df)...),
		lan("drop_blackhole", "a route says to drop it", to("10.1.0.66")...),
		lan("drop_unresolved", "next hop towards the locator does not answer", to("10.1.0.77")...),
		wan("drop_outer_fragment", "must not be fragmented", outer(inside("192.0.2.2", 7001, h11), func(ip *layers.IPv4) { ip.Flags = layers.IPv4MoreFragments })...),
		broken(wan("drop_tunnel_header", "flags or lengths of the tunnel header", inside("192.0.2.2", 7001, h11)...), func(b []byte) { b[42] = 0 }),
		wan("drop_tunnel_option", "must not be ignored", udp(6081, append([]byte{0, 0x40, 0x08, 0, 0, 0x1b, 0x59, 0}, make([]byte, 40)...)...)...),
		wan("drop_tunnel_control", "control message of the tunnel", udp(6081, append([]byte{0, 0x80, 0x08, 0, 0, 0x1b, 0x59, 0}, make([]byte, 40)...)...)...),
		wan("drop_tunnel_checksum", "checksum of the tunnel header is wrong", k.under(), ip4("192.0.2.2", "192.0.2.1", layers.IPProtocolGRE),
			gopacket.Payload(append([]byte{0x80, 0, 0x08, 0, 1, 2, 0, 0}, make([]byte, 40)...))),
		wan("drop_unknown_vni", "no tenant has this VNI", inside("192.0.2.2", 4242, h11)...),
		wan("drop_no_tenant", "the encapsulation names no tenant", append([]gopacket.SerializableLayer{
			k.under(), ip4("192.0.2.2", "192.0.2.1", layers.IPProtocolIPv4), ip4(h21, h11, layers.IPProtocolICMPv4),
		}, ping...)...),
		wan("drop_unknown_locator", "neither configuration nor any route names", inside("192.0.2.200", 7001, h11)...),
		wan("drop_inner_not_ip", "no unicast IP packet", append(k.vxlan("192.0.2.2", 7001, k.segment, 0x88cc), gopacket.Payload(make([]byte, 46)))...),
		wan("drop_ecn", "RFC 6040", outer(inside("192.0.2.2", 7001, h11), func(ip *layers.IPv4) { ip.TOS = 3 })...),
		wan("drop_source", "from a site where its sender does not live", inside("192.0.2.2", 7001, h11, func(ip *layers.IPv4) { ip.SrcIP = net.ParseIP("10.1.0.1") })...),
		wan("drop_tunnel_loop", "must not enter another", inside("192.0.2.2", 7001, "10.1.0.22")...),
		wan("drop_tunnel_back", "would go back where it came from", inside("192.0.2.2", 7001, h12)...),
		wan("drop_tunnel_ttl", "from gateway to gateway too often", outer(inside("192.0.2.9", 7001, h12), ttl(1))...),
		wan("drop_tunnel_in_tunnel", "our own tunnel end", inside("192.0.2.2", 7001, "192.0.2.1")...),
		wan("drop_probe", "damaged", probe("169.254.255.1", "169.254.255.2", layers.ICMPv4TypeEchoRequest, 2)...),
		wan("drop_flood", "nothing is flooded", append(k.vxlan("192.0.2.2", 10, layers.EthernetBroadcast, layers.EthernetTypeIPv4),
			append([]gopacket.SerializableLayer{ip4(h21, "10.1.0.255", layers.IPProtocolICMPv4)}, ping...)...)...),
	}
}

func (k kit) bytes(l ...gopacket.SerializableLayer) []byte {
	b := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, l...); err != nil {
		k.t.Fatal(err)
	}
	return b.Bytes()
}

// in is from h11 to the gateway of its segment, under from gw2 to gw1 on the underlay.
func (k kit) in(proto layers.EthernetType) *layers.Ethernet {
	return &layers.Ethernet{SrcMAC: mac(k.t, k.h11.MAC), DstMAC: k.segment, EthernetType: proto}
}

func (k kit) under() *layers.Ethernet {
	return &layers.Ethernet{SrcMAC: k.far, DstMAC: k.wan, EthernetType: layers.EthernetTypeIPv4}
}

func (k kit) vxlan(from string, vni uint32, to net.HardwareAddr, proto layers.EthernetType) []gopacket.SerializableLayer {
	ip := ip4(from, "192.0.2.1", layers.IPProtocolUDP)
	udp := &layers.UDP{SrcPort: 50000, DstPort: 4789}
	_ = udp.SetNetworkLayerForChecksum(ip)
	return []gopacket.SerializableLayer{
		k.under(), ip, udp, &layers.VXLAN{ValidIDFlag: true, VNI: vni},
		&layers.Ethernet{SrcMAC: mac(k.t, k.h21.MAC), DstMAC: to, EthernetType: proto},
	}
}

func (k kit) arp(from, target string) []gopacket.SerializableLayer {
	return []gopacket.SerializableLayer{
		&layers.Ethernet{SrcMAC: mac(k.t, k.h11.MAC), DstMAC: layers.EthernetBroadcast, EthernetType: layers.EthernetTypeARP},
		&layers.ARP{
			AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4, HwAddressSize: 6, ProtAddressSize: 4,
			Operation: layers.ARPRequest, SourceHwAddress: mac(k.t, k.h11.MAC), SourceProtAddress: netip.MustParseAddr(from).AsSlice(),
			DstHwAddress: make([]byte, 6), DstProtAddress: netip.MustParseAddr(target).AsSlice(),
		},
	}
}

// solicit asks for an address as RFC 4861 has it: to its solicited-node group.
func (k kit) solicit(target netip.Addr) []gopacket.SerializableLayer {
	b := target.As16()
	ip := &layers.IPv6{
		Version: 6, HopLimit: 255, NextHeader: layers.IPProtocolICMPv6, SrcIP: k.h11.IP6.AsSlice(),
		DstIP: net.IP{0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, b[13], b[14], b[15]},
	}
	icmp := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(layers.ICMPv6TypeNeighborSolicitation, 0)}
	_ = icmp.SetNetworkLayerForChecksum(ip)
	return []gopacket.SerializableLayer{
		&layers.Ethernet{
			SrcMAC: mac(k.t, k.h11.MAC), DstMAC: net.HardwareAddr{0x33, 0x33, 0xff, b[13], b[14], b[15]}, EthernetType: layers.EthernetTypeIPv6,
		},
		ip, icmp,
		&layers.ICMPv6NeighborSolicitation{
			TargetAddress: target.AsSlice(),
			Options:       layers.ICMPv6Options{{Type: layers.ICMPv6OptSourceAddress, Data: mac(k.t, k.h11.MAC)}},
		},
	}
}

func ip4(src, dst string, proto layers.IPProtocol, more ...func(*layers.IPv4)) *layers.IPv4 {
	ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: proto, SrcIP: net.ParseIP(src), DstIP: net.ParseIP(dst)}
	for _, change := range more {
		change(ip)
	}
	return ip
}

// icmp4 is a message with so many bytes behind its header.
func icmp4(kind uint8, bytes int) []gopacket.SerializableLayer {
	return []gopacket.SerializableLayer{&layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(kind, 0), Id: 4789, Seq: 1}, gopacket.Payload(make([]byte, bytes))}
}

func mac(t *testing.T, text string) net.HardwareAddr {
	t.Helper()
	m, err := net.ParseMAC(text)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func fileOf(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "input")
	if err := os.WriteFile(name, []byte(text+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}
