package datapath

import (
	"net/netip"

	"roam/loader/route"
)

// Spec is what the data path is to be: Plane.Set makes it so, and an equal Spec changes nothing.
type Spec struct {
	Underlay  []string        // interfaces towards other gateways
	Own       []netip.Addr    // our tunnel ends
	RouterMAC route.MAC       // ours, the source of inner Ethernet headers
	Known     []route.Locator // tunnel ends that may send to us although no route names them
	Tenants   []TenantSpec
	Mode      Mode // how the program is attached
}

// TenantSpec is a routing domain.
type TenantSpec struct {
	ID       route.TenantID
	VNI      uint32
	Uplinks  []PortRef
	Segments []SegmentSpec
}

// PortRef names an interface, or one VLAN of it.
type PortRef struct {
	Name string
	VLAN uint16 // 0: untagged
}

// SegmentSpec is a set of subnets and the port behind which their hosts are.
type SegmentSpec struct {
	Name    string
	Access  PortRef
	Subnets []netip.Prefix
	Gateway []netip.Addr // shared by all sites
	Own     []netip.Addr // this gateway's alone
	Routers []netip.Addr // others on the segment
	MAC     route.MAC    // of the shared addresses
	Foreign []route.MAC  // of gateways that stood here before, or stand where hosts come from
	Stick   bool         // another router is the segment's default gateway
}
