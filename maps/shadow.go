package maps

import (
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"
)

// Sizes of what shadow mode notes: who was not heard of for longest makes room.
const (
	ShadowHosts = int(datapathLimitsSHADOW_HOSTS)
	ShadowPairs = int(datapathLimitsSHADOW_PAIRS)
)

// ShadowHost is what a host sent since shadow mode began, as far as the gateway's ports saw it.
type ShadowHost struct {
	Tenant  uint16     // space
	Addr    netip.Addr // not valid for a station that sent without an address of a subnet
	MAC     [6]byte    // of its last frame
	Port    uint16     // slot
	Packets uint64
	Bytes   uint64 // of IP
	Largest uint32 // IP packet, but for TCP where its senders are told what fits

	// Packets that a router in the way ends, or changes in a way that matters.
	Multicast, Broadcast, DHCP, TTLOne, TTLMax, VirtualMAC uint64
}

// ShadowPair is the traffic between two hosts of our subnets, A before B.
type ShadowPair struct {
	Tenant         uint16
	A, B           netip.Addr
	Packets, Bytes uint64
}

// Shadow tells that the program passes every frame as it came.
func (o *Objects) Shadow() bool { return o.ShadowHosts.MaxEntries() != 1 }

// ShadowMaps returns the maps that shadow mode notes in, by name, for reuse while it goes on.
func (o *Objects) ShadowMaps() map[string]*ebpf.Map {
	return map[string]*ebpf.Map{datapathMapShadowHosts: o.ShadowHosts, datapathMapShadowPairs: o.ShadowPairs}
}

// ShadowMap is the name of a pinned map that a generation has only in shadow mode.
const ShadowMap = datapathMapShadowHosts

// ReadShadow lists what was noted, in no order. The program goes on writing: one that makes room meanwhile may be missing.
func ReadShadow(o *Objects) (hosts []ShadowHost, pairs []ShadowPair, err error) {
	var key datapathShadowKey
	var h datapathShadowHost
	each := o.ShadowHosts.Iterate()
	for each.Next(&key, &h) {
		out := ShadowHost{Tenant: uint16(key.Tenant), MAC: h.Mac, Port: h.Port, Bytes: h.Bytes, Largest: h.Largest}
		if key.Link == 0 {
			out.Addr = fromHalves(key.Hi, key.Lo)
		}
		for sign, n := range map[datapathShadowSign]*uint64{
			datapathShadowSignSHADOW_PACKETS: &out.Packets, datapathShadowSignSHADOW_MULTICAST: &out.Multicast,
			datapathShadowSignSHADOW_BROADCAST: &out.Broadcast, datapathShadowSignSHADOW_DHCP: &out.DHCP,
			datapathShadowSignSHADOW_TTL_ONE: &out.TTLOne, datapathShadowSignSHADOW_TTL_MAX: &out.TTLMax,
			datapathShadowSignSHADOW_VIRTUAL_MAC: &out.VirtualMAC,
		} {
			*n = h.Count[sign]
		}
		hosts = append(hosts, out)
	}
	if err := each.Err(); err != nil {
		return nil, nil, fmt.Errorf("read what hosts sent: %w", err)
	}
	var pair datapathShadowPair
	var c Counter
	each = o.ShadowPairs.Iterate()
	for each.Next(&pair, &c) {
		pairs = append(pairs, ShadowPair{
			Tenant: uint16(pair.Tenant), A: fromHalves(pair.A_hi, pair.A_lo), B: fromHalves(pair.B_hi, pair.B_lo),
			Packets: c.Packets, Bytes: c.Bytes,
		})
	}
	if err := each.Err(); err != nil {
		return nil, nil, fmt.Errorf("read who talks to whom: %w", err)
	}
	return hosts, pairs, nil
}

func fromHalves(hi, lo uint64) netip.Addr {
	return fromWire([4]uint32{uint32(hi), uint32(hi >> 32), uint32(lo), uint32(lo >> 32)})
}
