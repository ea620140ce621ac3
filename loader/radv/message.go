package radv

import (
	"encoding/binary"
	"net/netip"
	"time"

	"golang.org/x/net/bpf"

	"roam/loader/ether"
	"roam/loader/route"
)

const (
	ethernetLen   = 14
	ipv6Len       = 40
	icmpOffset    = ethernetLen + ipv6Len
	protoICMPv6   = 58
	hopLimit      = 255 // neighbour discovery never crosses a router: RFC 4861, section 3.1
	typeSolicit   = 133
	typeAdvertise = 134
	solicitLen    = 8

	optionSource = 1
	optionPrefix = 3
	optionMTU    = 5

	validLifetime     = 30 * 24 * 3600
	preferredLifetime = 7 * 24 * 3600
	hostHopLimit      = 64
	onLink            = 0x80
	autonomous        = 0x40
	autonomousBits    = 64 // RFC 4862, section 5.5.3: with Ethernet's interface identifiers
)

var (
	allNodes    = netip.MustParseAddr("ff02::1")
	allNodesMAC = route.MAC{0x33, 0x33, 0, 0, 0, 1}
)

// solicitations is a socket filter: ICMPv6 of type 133 right behind the IPv6 header.
var solicitations = []bpf.RawInstruction{
	{Op: 0x30, K: ethernetLen + 6},           // ldb next header
	{Op: 0x15, Jt: 0, Jf: 3, K: protoICMPv6}, // jeq
	{Op: 0x30, K: icmpOffset},                // ldb type
	{Op: 0x15, Jt: 0, Jf: 1, K: typeSolicit}, // jeq
	{Op: 0x06, K: 0xffff},                    // ret: the frame
	{Op: 0x06, K: 0},                         // ret: nothing
}

// solicitation is a host's question.
type solicitation struct {
	mac  route.MAC
	from netip.Addr // :: where the host has none yet
}

// parseSolicitation reads a frame; false is what RFC 4861, section 6.1.1 has a router discard.
func parseSolicitation(b []byte) (s solicitation, ok bool) {
	if len(b) < icmpOffset+solicitLen {
		return s, false
	}
	ip := b[ethernetLen:]
	length := int(binary.BigEndian.Uint16(ip[4:]))
	if ip[6] != protoICMPv6 || ip[7] != hopLimit || length < solicitLen || ipv6Len+length > len(ip) {
		return s, false
	}
	icmp := ip[ipv6Len : ipv6Len+length]
	if icmp[0] != typeSolicit || icmp[1] != 0 || ether.ChecksumICMPv6(ip[8:40], icmp) != 0 {
		return s, false
	}
	copy(s.mac[:], b[6:12])
	s.from = netip.AddrFrom16([16]byte(ip[8:24]))
	hasSource := false
	for options := icmp[solicitLen:]; len(options) > 0; {
		if len(options) < 8 || options[1] == 0 || len(options) < 8*int(options[1]) {
			return s, false
		}
		hasSource = hasSource || options[0] == optionSource
		options = options[8*int(options[1]):]
	}
	if s.from.IsMulticast() || s.from.IsUnspecified() && hasSource {
		return s, false
	}
	return s, true
}

// advertisement is the frame that names the router of a link to one host, or to all.
func advertisement(l Link, mtu int, mac route.MAC, to netip.Addr) []byte {
	icmp := []byte{typeAdvertise, 0, 0, 0, hostHopLimit, 0}
	icmp = binary.BigEndian.AppendUint16(icmp, uint16(l.Lifetime/time.Second))
	icmp = append(icmp, make([]byte, 8)...) // reachable and retransmission time: the host's own
	icmp = append(append(icmp, optionSource, 1), l.MAC[:]...)
	icmp = binary.BigEndian.AppendUint32(append(icmp, optionMTU, 1, 0, 0), uint32(mtu))
	for _, p := range l.Prefixes {
		flags := byte(onLink)
		if p.Bits() == autonomousBits {
			flags |= autonomous
		}
		icmp = append(icmp, optionPrefix, 4, byte(p.Bits()), flags)
		icmp = binary.BigEndian.AppendUint32(icmp, validLifetime)
		icmp = binary.BigEndian.AppendUint32(icmp, preferredLifetime)
		icmp = append(append(icmp, 0, 0, 0, 0), p.Addr().AsSlice()...)
	}
	addresses := append(l.Router.AsSlice(), to.AsSlice()...)
	binary.BigEndian.PutUint16(icmp[2:], ether.ChecksumICMPv6(addresses, icmp))

	b := append(append(mac[:], l.MAC[:]...), ether.TypeIPv6>>8, ether.TypeIPv6&0xff, 0x60, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(len(icmp)))
	b = append(append(b, protoICMPv6, hopLimit), addresses...)
	return append(b, icmp...)
}
