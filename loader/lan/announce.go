package lan

import (
	"net/netip"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv6"

	"roam/loader/route"
)

// arpAnnouncement says that an address is this MAC's (RFC 5227, section 2.3).
func arpAnnouncement(mac route.MAC, addr netip.Addr) []byte {
	b := append(append(make([]byte, 0, frameLen), broadcast[:]...), mac[:]...)
	b = append(b, 0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1)
	b = append(append(b, mac[:]...), addr.AsSlice()...)
	b = append(append(b, make([]byte, 6)...), addr.AsSlice()...)
	return b[:frameLen]
}

// override is the flag of an advertisement that replaces what is known; that nobody asked for it, and that this is no router, is in the flags that are not set.
const override = 0x20

// ndAnnouncement is an unsolicited neighbour advertisement to all nodes (RFC 4861, section 7.2.6).
func ndAnnouncement(mac route.MAC, addr netip.Addr) []byte {
	all := netip.MustParseAddr("ff02::1")
	body := append([]byte{override, 0, 0, 0}, addr.AsSlice()...)
	body = append(append(body, 2, 1), mac[:]...) // target link-layer address
	message := icmp.Message{Type: ipv6.ICMPTypeNeighborAdvertisement, Body: &icmp.RawBody{Data: body}}
	text, _ := message.Marshal(icmp.IPv6PseudoHeader(addr.AsSlice(), all.AsSlice())) // fails for bodies it has to make itself
	b := append([]byte{0x33, 0x33, 0, 0, 0, 1}, mac[:]...)
	b = append(b, 0x86, 0xdd, 0x60, 0, 0, 0, 0, byte(len(text)), 58, 255)
	b = append(append(b, addr.AsSlice()...), all.AsSlice()...)
	return append(b, text...)
}
