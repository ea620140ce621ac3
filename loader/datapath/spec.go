package datapath

import (
	"net/netip"

	"roam/loader/route"
	"roam/maps"
)

// Spec is what the data path is to be: Plane.Set makes it so, and an equal Spec changes nothing.
type Spec struct {
	Underlay  []string     // interfaces towards other gateways
	Own       []netip.Addr // our tunnel ends, as packets carry them
	Public    []netip.Addr // and as others send to them, where NAT stands between
	RouterMAC route.MAC    // ours, the source of inner Ethernet headers
	Known     []RemoteSpec // tunnel ends that may send to us although no route names them
	Tenants   []TenantSpec
	Mode      Mode             // how the program is attached
	Ports     maps.TunnelPorts // where tunnels arrive here; zero: the usual ones
	DSCP      uint8            // of outer headers, or maps.DSCPCopy
}

// RemoteSpec is a configured tunnel end, and what is known of it besides how to reach it.
type RemoteSpec struct {
	route.Locator
	NoECN        bool           // it does not merge ECN (RFC 6040)
	ZeroChecksum bool           // it takes outer UDP checksum 0 over IPv6 (RFC 6935)
	Tenant       route.TenantID // whose packets it sends by an encapsulation that names no tenant, 0 for nobody's
}

func (s RemoteSpec) options() (o uint8) {
	if s.NoECN {
		o |= maps.LocatorNoECN
	}
	if s.ZeroChecksum {
		o |= maps.LocatorZeroCsum
	}
	return o
}

// TenantSpec is a routing domain.
type TenantSpec struct {
	ID       route.TenantID
	VNI      uint32
	Uplinks  []PortRef
	Segments []SegmentSpec
	Egress   []EgressSpec
}

// PortRef names an interface, or one VLAN of it.
type PortRef struct {
	Name  string
	VLAN  uint16 // 0: untagged
	Inner uint16 // second tag (QinQ), 0 for none
}

// SegmentSpec is a set of subnets and the port behind which their hosts are. The port of a fabric is to the program what an uplink is:
// routed, without neighbours, sightings and foreign MACs.
type SegmentSpec struct {
	Name    string
	Access  PortRef
	Subnets []netip.Prefix
	Gateway []netip.Addr // shared by all sites
	Own     []netip.Addr // this gateway's alone
	Routers []netip.Addr // others on the segment
	MAC     route.MAC    // of the shared addresses
	Foreign []route.MAC  // of gateways that stood here before, or stand where hosts come from
	L2VNI   uint32       // by which peers bridge to it, 0 for none
	Stick   bool         // another router is the segment's default gateway
	KeepTTL bool         // no TTL is taken between hosts of one subnet
	Fabric  bool         // a router takes everything behind the port: no host there asks us, none shows itself
	NextHop route.MAC    // of a fabric: that router's
	Elected bool         // the gateways on the segment elect the one that answers: see SetDuty
}
