package bpftest

import (
	"encoding/binary"
	"net/netip"

	"roam/maps"
)

// tables is what the daemon told the data path, as plain Go values: the naive twin of the maps, which the model reads and
// which world writes into the maps.
type tables struct {
	ports       map[uint16]maps.Port // by slot
	segments    map[uint16]maps.Segment
	tenants     map[uint16]maps.Tenant
	locators    map[uint16]maps.Locator
	macs        map[maps.MACKey]uint32 // what is known of stations
	hosts       map[host]uint32
	prefixes    map[prefix]uint32
	nexthops    map[uint32]maps.Nexthop
	sets        map[uint32]maps.Set
	adjacencies map[uint32]tunnel
	locals      map[uint32]maps.Local
	devices     map[uint16]bool // slots that can transmit
	tune        maps.Tune
}

type host struct {
	space uint16
	addr  netip.Addr
}

type prefix struct {
	tenant uint16
	netip.Prefix
}

// tunnel is one adjacency in the words of its owner.
type tunnel struct {
	src, dst           mac // underlay Ethernet
	local, remote      netip.Addr
	enc                encapsulation
	udp                uint16 // destination port, 0 for the encapsulation's own
	vni                uint32
	innerSrc, innerDst mac
	checksum           bool // over IPv6, of encapsulations with UDP
	noECN              bool // the far end does not merge ECN
	port               uint16
	locator            uint16
	mtu                uint16 // the largest packet inside
}

// udpPort is the outer UDP header's destination, 0 where there is no UDP.
func (t tunnel) udpPort() uint16 {
	if t.udp != 0 {
		return t.udp
	}
	return t.enc.udpPort()
}

func (t tunnel) family() family {
	if t.remote.Is6() {
		return v6
	}
	return v4
}

func newTables() *tables {
	return &tables{
		ports: map[uint16]maps.Port{}, segments: map[uint16]maps.Segment{}, tenants: map[uint16]maps.Tenant{}, locators: map[uint16]maps.Locator{}, macs: map[maps.MACKey]uint32{},
		hosts: map[host]uint32{}, prefixes: map[prefix]uint32{}, nexthops: map[uint32]maps.Nexthop{},
		sets: map[uint32]maps.Set{}, adjacencies: map[uint32]tunnel{}, locals: map[uint32]maps.Local{},
		devices: map[uint16]bool{},
	}
}

type mac [6]byte

// wire is an address as the maps hold it: four words whose bytes in memory are the address.
func wire(a netip.Addr) (w [4]uint32) {
	b := a.As16()
	for i := range w {
		w[i] = binary.NativeEndian.Uint32(b[4*i:])
	}
	return w
}

func fromWire6(w [4]uint32) netip.Addr {
	var b []byte
	for _, x := range w {
		b = binary.NativeEndian.AppendUint32(b, x)
	}
	return addrFrom(b)
}

func fromWire4(w uint32) netip.Addr { return addrFrom(binary.NativeEndian.AppendUint32(nil, w)) }

func wire4(a netip.Addr) uint32 { return binary.NativeEndian.Uint32(a.AsSlice()) }
