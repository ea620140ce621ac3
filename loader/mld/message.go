package mld

import (
	"encoding/binary"
	"net/netip"
	"time"

	"golang.org/x/net/bpf"

	"roam/loader/ether"
	"roam/loader/route"
)

const (
	ethernetLen = 14
	ipv6Len     = 40
	alertLen    = 8 // hop-by-hop header with nothing but the router alert
	protoHop    = 0
	protoICMPv6 = 58
	hopLimit    = 1

	optionPadN  = 1
	optionAlert = 5 // router alert, whose value 0 is MLD: RFC 2711, section 2.1

	typeQuery     = 130
	typeReport1   = 131 // RFC 2710
	typeDone      = 132
	typeReport    = 143 // RFC 3810
	typeAdvertise = 151 // RFC 4286
	typeSolicit   = 152

	query1Len = 24 // as the length tells the versions apart: RFC 3810, section 8.1
	queryLen  = 28
	reportLen = 8 // without records
	recordLen = 20
)

// kind is what a record says of a group (RFC 3810, section 5.2.12). Nobody excludes sources of neighbour solicitations: to exclude
// none is to listen, to include none is not to.
type kind byte

const (
	isListener kind = 2 // MODE_IS_EXCLUDE
	leaves     kind = 3 // CHANGE_TO_INCLUDE_MODE
	joins      kind = 4 // CHANGE_TO_EXCLUDE_MODE
)

// record is one group's line in a report.
type record struct {
	group group
	kind  kind
}

var (
	allRouters   = netip.MustParseAddr("ff02::2")
	allReports   = netip.MustParseAddr("ff02::16")
	allSnoopers  = netip.MustParseAddr("ff02::6a")
	solicitedNet = netip.MustParsePrefix("ff02::1:ff00:0/104")
)

// group is a solicited-node group by the three bytes that tell it from others (RFC 4291, section 2.7.1).
type group [3]byte

func groupOf(a netip.Addr) group {
	b := a.As16()
	return group(b[13:])
}

func (g group) address() netip.Addr {
	b := solicitedNet.Addr().As16()
	copy(b[13:], g[:])
	return netip.AddrFrom16(b)
}

// questions is a socket filter: ICMPv6 of type 130 or 152 behind one hop-by-hop header.
var questions = []bpf.RawInstruction{
	{Op: 0x30, K: ethernetLen + 6},           // ldb next header
	{Op: 0x15, Jt: 0, Jf: 10, K: protoHop},   // jeq
	{Op: 0x30, K: ethernetLen + ipv6Len},     // ldb next header
	{Op: 0x15, Jt: 0, Jf: 8, K: protoICMPv6}, // jeq
	{Op: 0x30, K: ethernetLen + ipv6Len + 1}, // ldb length of the options, in units of 8 bytes beyond the first
	{Op: 0x04, K: 1},                         // add
	{Op: 0x64, K: 3},                         // lsh
	{Op: 0x07},                               // tax
	{Op: 0x50, K: ethernetLen + ipv6Len},     // ldb [x] type
	{Op: 0x15, Jt: 1, Jf: 0, K: typeQuery},   // jeq
	{Op: 0x15, Jt: 0, Jf: 1, K: typeSolicit}, // jeq
	{Op: 0x06, K: 0xffff},                    // ret: the frame
	{Op: 0x06, K: 0},                         // ret: nothing
}

// question is a router's or switch's.
type question struct {
	from      netip.Addr
	solicited bool       // for multicast routers: the rest is of queries
	version   int        // 1 or 2
	group     netip.Addr // :: for all of them
	delay     time.Duration
}

// parse reads a frame; false is what RFC 3810, sections 6.2 and 8.1, has a listener ignore.
func parse(b []byte) (q question, ok bool) {
	if len(b) < ethernetLen+ipv6Len+alertLen {
		return q, false
	}
	ip := b[ethernetLen:]
	length := int(binary.BigEndian.Uint16(ip[4:]))
	options := 8 * (int(ip[ipv6Len+1]) + 1)
	if ip[6] != protoHop || ip[7] != hopLimit || ip[ipv6Len] != protoICMPv6 || ipv6Len+length > len(ip) || options+8 > length {
		return q, false
	}
	icmp := ip[ipv6Len+options : ipv6Len+length]
	q.from = netip.AddrFrom16([16]byte(ip[8:24]))
	if !q.from.IsLinkLocalUnicast() || !alerts(ip[ipv6Len+2:ipv6Len+options]) || ether.ChecksumICMPv6(ip[8:40], icmp) != 0 {
		return q, false
	}
	if icmp[0] == typeSolicit {
		q.solicited = true
		return q, true
	}
	if icmp[0] != typeQuery || len(icmp) != query1Len && len(icmp) < queryLen {
		return q, false
	}
	code := time.Duration(binary.BigEndian.Uint16(icmp[4:]))
	q.group = netip.AddrFrom16([16]byte(icmp[8:24]))
	q.version, q.delay = 1, code*time.Millisecond
	if len(icmp) >= queryLen {
		if q.version = 2; code >= 1<<15 { // a float: RFC 3810, section 5.1.3
			q.delay = (code&0xfff | 0x1000) << (code>>12&7 + 3) * time.Millisecond
		}
	}
	return q, true
}

// alerts looks for the router alert among hop-by-hop options.
func alerts(options []byte) bool {
	for len(options) > 0 {
		switch {
		case options[0] == 0: // Pad1
			options = options[1:]
			continue
		case len(options) < 2 || len(options) < 2+int(options[1]):
			return false
		case options[0] == optionAlert && options[1] == 2:
			return options[2] == 0 && options[3] == 0
		}
		options = options[2+int(options[1]):]
	}
	return false
}

// room is how many records a report to a link with this MTU holds.
func room(mtu int) int { return max(1, (mtu-ipv6Len-alertLen-reportLen)/recordLen) }

// report is the frame that says something of groups.
func report(mac route.MAC, records []record) []byte {
	icmp := make([]byte, reportLen, reportLen+recordLen*len(records))
	icmp[0] = typeReport
	binary.BigEndian.PutUint16(icmp[6:], uint16(len(records)))
	for _, r := range records {
		icmp = append(append(icmp, byte(r.kind), 0, 0, 0), r.group.address().AsSlice()...)
	}
	return frame(mac, allReports, icmp)
}

// report1 says the same of one group as RFC 2710 has it.
func report1(mac route.MAC, r record) []byte {
	to := r.group.address()
	icmp := append([]byte{typeReport1, 0, 0, 0, 0, 0, 0, 0}, to.AsSlice()...)
	if r.kind == leaves {
		icmp[0], to = typeDone, allRouters
	}
	return frame(mac, to, icmp)
}

// advertisement says that who snoops should send us all that is multicast.
func advertisement(mac route.MAC) []byte {
	icmp := []byte{typeAdvertise, byte(advertiseEvery / time.Second), 0, 0}
	icmp = binary.BigEndian.AppendUint16(icmp, uint16(queryEvery/time.Second))
	return frame(mac, allSnoopers, binary.BigEndian.AppendUint16(icmp, robustness))
}

// frame completes an ICMPv6 message to a group of the link.
func frame(mac route.MAC, to netip.Addr, icmp []byte) []byte {
	group := to.As16()
	addresses := append(linkLocal(mac), group[:]...)
	binary.BigEndian.PutUint16(icmp[2:], ether.ChecksumICMPv6(addresses, icmp))

	b := append(append([]byte{0x33, 0x33}, group[12:]...), mac[:]...)
	b = append(b, ether.TypeIPv6>>8, ether.TypeIPv6&0xff, 0x60, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(alertLen+len(icmp)))
	b = append(append(b, protoHop, hopLimit), addresses...)
	b = append(b, protoICMPv6, 0, optionAlert, 2, 0, 0, optionPadN, 0)
	return append(b, icmp...)
}

// linkLocal is the address that a port has by its MAC (RFC 4291, appendix A).
func linkLocal(m route.MAC) []byte {
	return []byte{0xfe, 0x80, 0, 0, 0, 0, 0, 0, m[0] ^ 2, m[1], m[2], 0xff, 0xfe, m[3], m[4], m[5]}
}
