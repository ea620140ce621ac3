package lab

import (
	"net"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/mdlayher/packet"
)

// Announce has a host tell its LAN where its addresses are, as a hypervisor does for a guest that arrived: a gratuitous
// ARP request (RFC 5227, section 2.3) and an unsolicited neighbour advertisement (RFC 4861, section 7.2.6).
func (h *Host) Announce() {
	h.lab.Helper()
	h.lab.must(h.Do(func() error {
		link, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		conn, err := packet.Listen(link, packet.Raw, int(layers.EthernetTypeARP), nil)
		if err != nil {
			return err
		}
		defer conn.Close()
		for _, frame := range [][]gopacket.SerializableLayer{h.gratuitousARP(link), h.advertisement(link)} {
			b := gopacket.NewSerializeBuffer()
			err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, frame...)
			if err != nil {
				return err
			}
			if _, err := conn.WriteTo(b.Bytes(), &packet.Addr{HardwareAddr: b.Bytes()[:6]}); err != nil {
				return err
			}
		}
		return nil
	}), "announce %s", h.Name)
}

func (h *Host) gratuitousARP(link *net.Interface) []gopacket.SerializableLayer {
	ip := h.IP4.AsSlice()
	return []gopacket.SerializableLayer{
		&layers.Ethernet{SrcMAC: link.HardwareAddr, DstMAC: layers.EthernetBroadcast, EthernetType: layers.EthernetTypeARP},
		&layers.ARP{
			AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4, HwAddressSize: 6, ProtAddressSize: 4,
			Operation: layers.ARPRequest, SourceHwAddress: link.HardwareAddr, SourceProtAddress: ip,
			DstHwAddress: make([]byte, 6), DstProtAddress: ip,
		},
	}
}

func (h *Host) advertisement(link *net.Interface) []gopacket.SerializableLayer {
	ip := &layers.IPv6{
		Version: 6, NextHeader: layers.IPProtocolICMPv6, HopLimit: 255, SrcIP: h.IP6.AsSlice(), DstIP: net.IPv6linklocalallnodes,
	}
	icmp := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(layers.ICMPv6TypeNeighborAdvertisement, 0)}
	_ = icmp.SetNetworkLayerForChecksum(ip) // fails for other layers than this
	return []gopacket.SerializableLayer{
		&layers.Ethernet{SrcMAC: link.HardwareAddr, DstMAC: net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}, EthernetType: layers.EthernetTypeIPv6},
		ip, icmp,
		&layers.ICMPv6NeighborAdvertisement{
			Flags: 0x20, TargetAddress: h.IP6.AsSlice(),
			Options: layers.ICMPv6Options{{Type: layers.ICMPv6OptTargetAddress, Data: link.HardwareAddr}},
		},
	}
}
