package lab

import (
	"errors"
	"net"
	"net/netip"
	"runtime"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"
)

// Announce has a host tell its LAN where its addresses are, as a hypervisor does for a guest that arrived: a gratuitous
// ARP request (RFC 5227, section 2.3) and an unsolicited neighbour advertisement (RFC 4861, section 7.2.6).
func (h *Host) Announce() {
	h.lab.Helper()
	h.say("announce", func(link *net.Interface, say func(...gopacket.SerializableLayer) error) error {
		return errors.Join(say(arpRequest(link, h.IP4, h.IP4)...), say(h.advertisement(link)...))
	})
}

// Arrive has a host's hypervisor tell switches that it is here, by RARP (RFC 903): that names its MAC and no address.
func (h *Host) Arrive() {
	h.lab.Helper()
	h.say("announce by RARP", func(link *net.Interface, say func(...gopacket.SerializableLayer) error) error {
		frame := arpRequest(link, netip.IPv4Unspecified(), netip.IPv4Unspecified())
		frame[0].(*layers.Ethernet).EthernetType = 0x8035
		arp := frame[1].(*layers.ARP)
		arp.Operation, arp.DstHwAddress = 3, link.HardwareAddr
		return say(frame...)
	})
}

// Probe has a host ask whether somebody else has its IPv4 address (RFC 5227, section 2.1.1), as it does before it takes it.
func (h *Host) Probe() {
	h.lab.Helper()
	h.say("probe its own address from", func(link *net.Interface, say func(...gopacket.SerializableLayer) error) error {
		return say(arpRequest(link, netip.IPv4Unspecified(), h.IP4)...)
	})
}

// AskAll has a host ask by ARP for every address of an IPv4 prefix, as fast as it can.
func (h *Host) AskAll(prefix netip.Prefix) {
	h.lab.Helper()
	h.say("scan "+prefix.String()+" from", func(link *net.Interface, say func(...gopacket.SerializableLayer) error) error {
		for a := prefix.Masked().Addr(); prefix.Contains(a); a = a.Next() {
			err := say(arpRequest(link, h.IP4, a)...)
			for errors.Is(err, unix.ENOBUFS) { // faster than the cable
				runtime.Gosched()
				err = say(arpRequest(link, h.IP4, a)...)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// say hands f the means to send frames from a host.
func (h *Host) say(what string, f func(link *net.Interface, say func(...gopacket.SerializableLayer) error) error) {
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
		return f(link, func(frame ...gopacket.SerializableLayer) error {
			b := gopacket.NewSerializeBuffer()
			err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, frame...)
			if err != nil {
				return err
			}
			_, err = conn.WriteTo(b.Bytes(), &packet.Addr{HardwareAddr: b.Bytes()[:6]})
			return err
		})
	}), "%s %s", what, h.Name)
}

func arpRequest(link *net.Interface, sender, target netip.Addr) []gopacket.SerializableLayer {
	return []gopacket.SerializableLayer{
		&layers.Ethernet{SrcMAC: link.HardwareAddr, DstMAC: layers.EthernetBroadcast, EthernetType: layers.EthernetTypeARP},
		&layers.ARP{
			AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4, HwAddressSize: 6, ProtAddressSize: 4,
			Operation: layers.ARPRequest, SourceHwAddress: link.HardwareAddr, SourceProtAddress: sender.AsSlice(),
			DstHwAddress: make([]byte, 6), DstProtAddress: target.AsSlice(),
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
