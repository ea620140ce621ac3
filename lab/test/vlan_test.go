package lab_test

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/mdlayher/packet"

	"roam/lab"
)

const vlanID = 10

// TestVLAN has dc1's segment arrive tagged. The frames are made by hand: a trunk port needs no VLAN device at its
// far end.
func TestVLAN(t *testing.T) {
	s := lab.NewSites(t, bins, lab.Options{})
	s.GW[lab.DC1].Config.VLAN = vlanID
	s.Up()
	h11, h21 := s.H("h11"), s.H("h21")
	port := openTrunk(t, h11)
	c := h11.Capture("eth0", "")

	// Who has a host at the other site, and the gateway? Answers must be tagged, and must come from the gateway.
	for _, target := range []string{"10.1.0.21", "10.1.0.1"} {
		port.send(t, arpRequest(h11, target)...)
		c.AwaitPackets(1, "vlan.id == 10 && arp.opcode == 2 && arp.src.proto_ipv4 == "+target, 5*time.Second)
	}
	for _, target := range []string{"2001:db8:1::21", "2001:db8:1::1"} {
		port.send(t, solicitation(h11, target)...)
		c.AwaitPackets(1, "vlan.id == 10 && icmpv6.type == 136 && icmpv6.nd.na.target_address == "+target, 5*time.Second)
	}
	macs := c.Fields("vlan && (arp.opcode == 2 || icmpv6.type == 136)", "eth.src")
	gateway := macs[0][0]
	for _, mac := range macs {
		if mac[0] != gateway {
			t.Errorf("answers come from %s and from %s", gateway, mac[0])
		}
	}
	if before := c.Fields("!vlan && (arp.opcode == 2 || icmpv6.type == 136)", "frame.number"); len(before) > 0 {
		t.Errorf("%d answers are not tagged", len(before))
	}

	// Through the tunnel the tag is gone; an untagged frame does not belong to the segment.
	for i, ip := range h21.IPs() {
		inbox := listen(t, h21, ip)
		port.send(t, datagram(h11, h11.IPs()[i], ip, gateway, 0, "untagged")...)
		port.send(t, datagram(h11, h11.IPs()[i], ip, gateway, vlanID+1, "other tag")...)
		port.send(t, datagram(h11, h11.IPs()[i], ip, gateway, vlanID, "tagged")...)
		got := make([]byte, 100)
		_ = inbox.SetReadDeadline(time.Now().Add(5 * time.Second))
		n, from, err := inbox.ReadFrom(got)
		if err != nil || string(got[:n]) != "tagged" {
			t.Errorf("to %s arrived %q from %v: %v\n%s", ip, got[:n], from, err, state(s))
		}
	}
	c.Stop()
	if faults := c.Faults(); len(faults) > 0 {
		t.Errorf("broken frames: %q", faults)
	}
}

// trunk is a socket that sends frames as they are.
type trunk struct{ conn *packet.Conn }

func openTrunk(t *testing.T, h *lab.Host) trunk {
	t.Helper()
	var conn *packet.Conn
	err := h.Do(func() error {
		nic, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		conn, err = packet.Listen(nic, packet.Raw, 0x8100, nil)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return trunk{conn}
}

func (p trunk) send(t *testing.T, frame ...gopacket.SerializableLayer) {
	t.Helper()
	buffer := gopacket.NewSerializeBuffer()
	options := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	if err := gopacket.SerializeLayers(buffer, options, frame...); err != nil {
		t.Fatal(err)
	}
	destination := frame[0].(*layers.Ethernet).DstMAC
	if _, err := p.conn.WriteTo(buffer.Bytes(), &packet.Addr{HardwareAddr: destination}); err != nil {
		t.Fatal(err)
	}
}

// ethernet is the link header of a frame from a host, tagged unless vlan is 0.
func ethernet(h *lab.Host, to net.HardwareAddr, vlan uint16, ethertype layers.EthernetType) []gopacket.SerializableLayer {
	mac, _ := net.ParseMAC(h.MAC)
	eth := &layers.Ethernet{SrcMAC: mac, DstMAC: to, EthernetType: ethertype}
	if vlan == 0 {
		return []gopacket.SerializableLayer{eth}
	}
	eth.EthernetType = layers.EthernetTypeDot1Q
	return []gopacket.SerializableLayer{eth, &layers.Dot1Q{VLANIdentifier: vlan, Type: ethertype}}
}

func arpRequest(h *lab.Host, target string) []gopacket.SerializableLayer {
	mac, _ := net.ParseMAC(h.MAC)
	return append(ethernet(h, layers.EthernetBroadcast, vlanID, layers.EthernetTypeARP), &layers.ARP{
		AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4, HwAddressSize: 6, ProtAddressSize: 4,
		Operation: layers.ARPRequest, SourceHwAddress: mac, SourceProtAddress: h.IP4.AsSlice(),
		DstHwAddress: make([]byte, 6), DstProtAddress: addr(target).AsSlice(),
	})
}

func solicitation(h *lab.Host, target string) []gopacket.SerializableLayer {
	mac, _ := net.ParseMAC(h.MAC)
	last := addr(target).As16()
	group := addr("ff02::1:ff00:0").As16()
	copy(group[13:], last[13:])
	ip := &layers.IPv6{
		Version: 6, NextHeader: layers.IPProtocolICMPv6, HopLimit: 255, SrcIP: h.IP6.AsSlice(), DstIP: group[:],
	}
	icmp := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(layers.ICMPv6TypeNeighborSolicitation, 0)}
	_ = icmp.SetNetworkLayerForChecksum(ip)
	to := net.HardwareAddr{0x33, 0x33, group[12], group[13], group[14], group[15]}
	return append(ethernet(h, to, vlanID, layers.EthernetTypeIPv6), ip, icmp, &layers.ICMPv6NeighborSolicitation{
		TargetAddress: last[:],
		Options:       layers.ICMPv6Options{{Type: layers.ICMPv6OptSourceAddress, Data: mac}},
	})
}

const inboxPort = 9000

func datagram(h *lab.Host, src, dst netip.Addr, mac string, vlan uint16, text string) []gopacket.SerializableLayer {
	to, _ := net.ParseMAC(mac)
	udp := &layers.UDP{SrcPort: 9001, DstPort: inboxPort}
	if src.Is4() {
		ip := &layers.IPv4{
			Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: src.AsSlice(), DstIP: dst.AsSlice(),
		}
		_ = udp.SetNetworkLayerForChecksum(ip)
		return append(ethernet(h, to, vlan, layers.EthernetTypeIPv4), ip, udp, gopacket.Payload(text))
	}
	ip := &layers.IPv6{
		Version: 6, NextHeader: layers.IPProtocolUDP, HopLimit: 64, SrcIP: src.AsSlice(), DstIP: dst.AsSlice(),
	}
	_ = udp.SetNetworkLayerForChecksum(ip)
	return append(ethernet(h, to, vlan, layers.EthernetTypeIPv6), ip, udp, gopacket.Payload(text))
}

func listen(t *testing.T, h *lab.Host, ip netip.Addr) net.PacketConn {
	t.Helper()
	var conn net.PacketConn
	err := h.Do(func() (err error) {
		conn, err = net.ListenPacket("udp", netip.AddrPortFrom(ip, inboxPort).String())
		return err
	})
	if err != nil {
		t.Fatal(fmt.Errorf("listen on %s: %w", strings.TrimSpace(h.Name), err))
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}
