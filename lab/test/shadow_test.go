package lab_test

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
	"github.com/mdlayher/packet"

	"roam/lab"
)

// The router of this test is a kernel: it forwards between its LAN, a plain network, and a VXLAN device to another site, over IPv6, whose
// headers have nothing that two runs do not share. roamd stands beside it on the same two ports, in shadow mode.
//
//	hosts 10.1.0.11.. ---- lan0 [ gw1 ] wan0 ---- far: 198.51.100.9, and 2001:db8:ff::2, behind whose tunnel is 10.1.0.50
const (
	shadowRouterMAC = "02:00:00:00:01:01"
	shadowFarMAC    = "02:00:00:00:01:02"
	shadowRemoteMAC = "02:00:00:00:01:03" // of the VXLAN device at the other end
	shadowVXLANMAC  = "02:00:00:00:01:04"
)

func shadowHost(n byte) net.HardwareAddr { return net.HardwareAddr{2, 0, 0, 0, 0, n} }
func shadowAddr(n byte) net.IP           { return net.IPv4(10, 1, 0, n).To4() }

// wire sends frames by one interface.
type wire struct {
	t    *testing.T
	conn *packet.Conn
}

func openWire(t *testing.T, n *lab.Namespace, link string) wire {
	t.Helper()
	var conn *packet.Conn
	if err := n.Do(func() error {
		nic, err := net.InterfaceByName(link)
		if err == nil {
			conn, err = packet.Listen(nic, packet.Raw, 0x0800, nil)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return wire{t, conn}
}

func (w wire) send(count int, parts ...gopacket.SerializableLayer) {
	w.t.Helper()
	b := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, parts...); err != nil {
		w.t.Fatal(err)
	}
	for range count {
		if _, err := w.conn.WriteTo(b.Bytes(), &packet.Addr{HardwareAddr: net.HardwareAddr(b.Bytes()[:6])}); err != nil {
			w.t.Fatal(err)
		}
	}
}

// udpFrame is a packet of size bytes of payload in a frame.
func udpFrame(from, to net.HardwareAddr, src, dst net.IP, ttl uint8, ports [2]uint16, size int) []gopacket.SerializableLayer {
	ip := &layers.IPv4{Version: 4, TTL: ttl, Id: 7, Protocol: layers.IPProtocolUDP, SrcIP: src, DstIP: dst}
	udp := &layers.UDP{SrcPort: layers.UDPPort(ports[0]), DstPort: layers.UDPPort(ports[1])}
	_ = udp.SetNetworkLayerForChecksum(ip) // fails for what is no IP
	return []gopacket.SerializableLayer{
		&layers.Ethernet{SrcMAC: from, DstMAC: to, EthernetType: layers.EthernetTypeIPv4}, ip, udp, gopacket.Payload(make([]byte, size)),
	}
}

func arpFrame(n byte, asked net.IP) []gopacket.SerializableLayer {
	everybody := net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	return []gopacket.SerializableLayer{
		&layers.Ethernet{SrcMAC: shadowHost(n), DstMAC: everybody, EthernetType: layers.EthernetTypeARP},
		&layers.ARP{
			AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4, HwAddressSize: 6, ProtAddressSize: 4, Operation: layers.ARPRequest,
			SourceHwAddress: shadowHost(n), SourceProtAddress: shadowAddr(n), DstHwAddress: make([]byte, 6), DstProtAddress: asked,
		},
	}
}

func mustMAC(s string) net.HardwareAddr {
	m, err := net.ParseMAC(s)
	if err != nil {
		panic(err)
	}
	return m
}

// plant sends all that the test looks for: from the LAN, and from the far side.
func plant(hosts, far wire) {
	router, outside := mustMAC(shadowRouterMAC), net.IPv4(198, 51, 100, 9).To4()
	talk := func(count int, a, b byte) {
		hosts.send(count, udpFrame(shadowHost(a), shadowHost(b), shadowAddr(a), shadowAddr(b), 64, [2]uint16{1000, 2000}, 400)...)
	}
	talk(200, 11, 12)
	talk(120, 13, 12)
	talk(150, 21, 22)
	talk(1, 13, 21) // a thin thread
	hosts.send(5, udpFrame(shadowHost(31), net.HardwareAddr{1, 0, 0x5e, 1, 1, 1}, shadowAddr(31), net.IPv4(239, 1, 1, 1).To4(), 8, [2]uint16{5000, 5000}, 100)...)
	hosts.send(2, udpFrame(shadowHost(32), net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, net.IPv4zero.To4(), net.IPv4bcast.To4(), 64, [2]uint16{68, 67}, 300)...)
	hosts.send(1, udpFrame(shadowHost(32), router, shadowAddr(32), outside, 64, [2]uint16{1000, 9}, 50)...)
	hosts.send(3, udpFrame(shadowHost(33), shadowHost(11), shadowAddr(33), shadowAddr(11), 1, [2]uint16{1000, 2000}, 50)...)
	hosts.send(3, udpFrame(net.HardwareAddr{0, 0, 0x5e, 0, 1, 10}, router, shadowAddr(34), outside, 64, [2]uint16{1000, 9}, 50)...)
	hosts.send(2, udpFrame(shadowHost(35), shadowHost(11), shadowAddr(35), shadowAddr(11), 64, [2]uint16{1000, 2000}, 3000)...)
	hosts.send(3, arpFrame(36, shadowAddr(50))...)
	hosts.send(1, arpFrame(37, shadowAddr(37))...)
	hosts.send(100, udpFrame(shadowHost(11), router, shadowAddr(11), shadowAddr(50), 64, [2]uint16{1000, 2000}, 400)...)
	syn := udpFrame(shadowHost(11), router, shadowAddr(11), shadowAddr(50), 64, [2]uint16{}, 0)
	ip := syn[1].(*layers.IPv4)
	ip.Protocol = layers.IPProtocolTCP
	tcp := &layers.TCP{
		SrcPort: 4000, DstPort: 80, SYN: true, Window: 1000,
		Options: []layers.TCPOption{{OptionType: layers.TCPOptionKindMSS, OptionLength: 4, OptionData: []byte{0x05, 0xb4}}},
	}
	_ = tcp.SetNetworkLayerForChecksum(ip)
	hosts.send(2, syn[0], ip, tcp)

	// The mark of congestion in the outer header would be merged into the inner one.
	inner := udpFrame(mustMAC(shadowRemoteMAC), mustMAC(shadowVXLANMAC), shadowAddr(50), shadowAddr(11), 64, [2]uint16{2000, 1000}, 400)
	outer := &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: layers.IPProtocolUDP, SrcIP: net.ParseIP("2001:db8:ff::2"), DstIP: net.ParseIP("2001:db8:ff::1")}
	udp := &layers.UDP{SrcPort: 50000, DstPort: 4789}
	_ = udp.SetNetworkLayerForChecksum(outer)
	far.send(50, append([]gopacket.SerializableLayer{
		&layers.Ethernet{SrcMAC: mustMAC(shadowFarMAC), DstMAC: router, EthernetType: layers.EthernetTypeIPv6}, outer, udp,
		&layers.VXLAN{ValidIDFlag: true, VNI: 7001},
	}, inner...)...)
	far.send(20, udpFrame(mustMAC(shadowFarMAC), router, outside, shadowAddr(12), 64, [2]uint16{9, 1000}, 100)...)
}

// What passes each side for one plant: sent and forwarded, the answer to nobody's ARP included, which is none.
const (
	shadowLANFrames = 200 + 120 + 150 + 1 + 5 + 2 + 1 + 3 + 3 + 2 + 3 + 1 + 100 + 2 + 50 + 20
	shadowWANFrames = 1 + 3 + 100 + 2 + 50 + 20
)

// TestShadow: roamd in shadow mode beside a kernel that forwards changes not one byte of what passes it and nothing of the kernel's, and
// says who would not survive a move, and who should move together. Started without it, it takes over; the way back is refused.
func TestShadow(t *testing.T) {
	l := lab.New(t)
	g, hosts, far := l.Gateway("gw1", bins), l.Namespace("hosts"), l.Namespace("far")
	for _, n := range []*lab.Namespace{g.Namespace, hosts, far} {
		n.Sysctl("net.ipv6.conf.default.mldv2_unsolicited_report_interval", "1")
	}
	l.Cable(lab.End{In: g.Namespace, Name: "lan0", MAC: shadowRouterMAC}, lab.End{In: hosts, Name: "eth0"}, 3500, 1)
	l.Cable(lab.End{In: g.Namespace, Name: "wan0", MAC: shadowRouterMAC}, lab.End{In: far, Name: "eth0", MAC: shadowFarMAC}, 1500, 1)
	hosts.Sysctl("net.ipv6.conf.eth0.disable_ipv6", "1")
	g.Sysctl("net.ipv6.conf.lan0.disable_ipv6", "1")
	g.Addresses("lan0", "10.1.0.1/24")
	g.Addresses("wan0", "198.51.100.1/24", "2001:db8:ff::1/64")
	far.Addresses("eth0", "2001:db8:ff::2/64")
	g.VXLAN("vx0", 7001, "2001:db8:ff::1", shadowVXLANMAC)
	g.Sysctl("net.ipv6.conf.vx0.disable_ipv6", "1")
	g.Sysctl("net.ipv4.ip_forward", "1")
	lines := []string{
		"route add 10.1.0.50/32 dev vx0",
		"neigh replace 10.1.0.50 dev vx0 lladdr " + shadowRemoteMAC,
		"neigh replace 198.51.100.9 dev wan0 lladdr " + shadowFarMAC,
		"neigh replace 2001:db8:ff::2 dev wan0 lladdr " + shadowFarMAC,
	}
	for _, n := range []byte{11, 12, 13, 21, 22} {
		lines = append(lines, fmt.Sprintf("neigh replace %s dev lan0 lladdr %s", shadowAddr(n), shadowHost(n)))
	}
	g.IP(lines...)
	g.Run("bridge", "fdb", "append", shadowRemoteMAC, "dev", "vx0", "dst", "2001:db8:ff::2")
	far.IP("neigh replace 2001:db8:ff::1 dev eth0 lladdr "+shadowRouterMAC, "neigh replace 198.51.100.1 dev eth0 lladdr "+shadowRouterMAC)
	sendLAN, sendWAN := openWire(t, hosts, "eth0"), openWire(t, far, "eth0")

	c := &g.Config
	c.Site, c.Access, c.Underlay, c.Subnets, c.Shadow = "dc1", "lan0", []string{"wan0"}, []string{"10.1.0.0/24"}, true
	c.Locators, c.RouterMAC, c.Shared, c.Own = []string{"2001:db8:ff::1", "198.51.100.1"}, shadowVXLANMAC, []string{"10.1.0.1"}, []string{"10.1.0.2"}
	c.Peers = []lab.Peer{{Site: "dc2", Locators: []lab.PeerLocator{{Address: "2001:db8:ff::2", RouterMAC: shadowRemoteMAC}}}}
	c.Probe, c.BFD, c.Hold = "{interval: 100ms}", "{interval: 100ms, multiplier: 3}", "1s"
	c.BGP = &lab.BGP{ASN: 65001, Neighbors: []string{`{address: "2001:db8:ff::2", asn: 65002}`}}
	g.SetRoute("10.1.0.50/32", "dc2")

	// pass captures both sides while during runs, and returns the frames of each.
	pass := func(during func()) [2][]string {
		t.Helper()
		captures := [2]*lab.Capture{hosts.Capture("eth0", ""), far.Capture("eth0", "")}
		during()
		var frames [2][]string
		for i, c := range captures {
			c.AwaitPackets([]int{shadowLANFrames, shadowWANFrames}[i], "", 20*time.Second)
			c.Stop()
			frames[i] = framesOf(t, c.File)
			slices.Sort(frames[i])
		}
		return frames
	}
	kernel := func() string {
		return strings.Join([]string{
			g.Run("ip", "-br", "address"), g.Run("ip", "rule"), g.Run("ip", "route", "show", "table", "all"),
			g.Run("sh", "-c", "tc filter show dev lan0 ingress; ip -o -d link show dev lan0 | grep -o 'promiscuity [0-9]* *allmulti [0-9]*'; sysctl net.ipv4 net.ipv6 2>/dev/null | grep -v 'tcp_fastopen_key\\|stable_secret\\|file-nr\\|ipfrag\\|ip6frag\\|\\.random'"),
		}, "\n")
	}
	state := kernel()
	without := pass(func() { plant(sendLAN, sendWAN) })
	with := pass(func() {
		g.Up()
		plant(sendLAN, sendWAN)
		l.Until(20*time.Second, "the far host would be reached, and one that nobody asked is known", func() error {
			var counters struct {
				Shadow  bool
				Reasons []struct {
					Port, Reason string
					Packets      uint64
				}
			}
			g.JSON(&counters, "counters")
			n := map[string]uint64{}
			for _, r := range counters.Reasons {
				n[r.Port+" "+r.Reason] = r.Packets
			}
			if _, err := g.Ctl("host", "show", "10.1.0.37"); err != nil || !counters.Shadow ||
				n["lan0 fwd_encap"] != 102 || n["wan0 fwd_deliver"] != 50 || n["lan0 fwd_arp"] != 3 {
				return fmt.Errorf("%v, %v", n, err)
			}
			return nil
		})
	})
	for i, side := range []string{"LAN", "WAN"} {
		if diff := cmp.Diff(without[i], with[i]); diff != "" || len(with[i]) < shadowWANFrames {
			t.Errorf("%s: %d frames without roamd, %d beside it (-without +with):\n%.3000s", side, len(without[i]), len(with[i]), diff)
		}
	}
	if diff := cmp.Diff(state, kernel()); diff != "" {
		t.Errorf("the kernel's state (-before +beside roamd):\n%.3000s", diff)
	}
	if out := g.MustCtl("status"); !strings.Contains(strings.SplitN(out, "\n", 2)[0], "in shadow mode") {
		t.Errorf("status begins with %q", strings.SplitN(out, "\n", 2)[0])
	}
	checkShadowReport(t, g)

	if err := g.Daemon.Stop(15); err != nil {
		t.Error(err)
	}
	c.Shadow, c.BGP, c.BFD, c.Probe = false, nil, "", ""
	g.Up()
	if out := g.MustCtl("counters"); strings.Contains(out, "fwd_encap") {
		t.Errorf("what never happened is still counted:\n%s", out)
	}
	g.Stop()
	c.Shadow = true
	g.Launch()
	_ = g.Daemon.Wait(20 * time.Second)
	if g.Daemon.Running() || !strings.Contains(g.Daemon.Tail(5), "the pinned data path forwards") {
		t.Errorf("shadow mode took over from a gateway that forwards: %s", g.Daemon.Tail(5))
	}
}

// framesOf reads a capture, in hexadecimal.
func framesOf(t *testing.T, file string) (frames []string) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := pcapgo.NewReader(f)
	for err == nil {
		var data []byte
		if data, _, err = r.ReadPacketData(); err == nil {
			frames = append(frames, hex.EncodeToString(data))
		}
	}
	if !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	return frames
}

// checkShadowReport looks for what was planted.
func checkShadowReport(t *testing.T, g *lab.Gateway) {
	t.Helper()
	var r struct {
		MTU       int
		Obstacles []struct {
			Address string
			Sends   []struct {
				Kind    string
				Packets int
			}
		}
		Groups []struct{ Hosts []string }
		Cut    struct{ Pairs, Bytes int }
	}
	out := g.MustCtl("-o", "json", "shadow", "report", "--group", "3")
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, h := range r.Obstacles {
		for _, s := range h.Sends {
			got[h.Address] += fmt.Sprintf("%s %d ", s.Kind, s.Packets)
		}
	}
	want := map[string]string{
		"10.1.0.31": "multicast 5 ", "10.1.0.32": "dhcp 2 ", "10.1.0.33": "ttl_1 3 ", "10.1.0.34": "virtual_mac 3 ", "10.1.0.35": "too_big 0 ",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("obstacles (-want +got):\n%s\n%s", diff, out)
	}
	groups := map[string]bool{}
	for _, group := range r.Groups {
		groups[strings.Join(group.Hosts, " ")] = true
	}
	if !groups["10.1.0.11 10.1.0.12 10.1.0.13"] || !groups["10.1.0.21 10.1.0.22"] || r.Cut.Pairs < 1 {
		t.Errorf("groups: %s", out)
	}
	t.Logf("\n%s", g.MustCtl("shadow", "report", "--group", "3"))
}
