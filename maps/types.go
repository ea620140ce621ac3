// Package maps is all that Go knows about the data path's C: the generated types under clean names, typed access to
// the maps, the host table's writer, the interning of next hops, counters by reason, and the program itself.
//
// The C header bpf/abi.h is the only truth about layouts. Records that the running program reads are written through
// memory maps with aligned atomic stores, because a map update tears values longer than a word. Every map can be
// created unpinned, so that tests need no bpffs. Nothing here is safe for concurrent use unless it says so.
package maps

// The structs of bpf/abi.h. Integers are in host byte order, byte arrays and fields named __be there in wire order.
type (
	Port       = datapathPort
	Segment    = datapathSegment
	Tenant     = datapathTenant
	MACKey     = datapathMacKey
	Nexthop    = datapathNexthop
	Adjacency  = datapathAdjacency
	Set        = datapathSet
	Local      = datapathLocal
	Locator    = datapathLocator
	Counter    = datapathCounter
	WalkReport = datapathWalkReport
	Reason     = datapathReason
)

// Version of the layout; pinned tables carry it.
const Version = uint32(datapathAbiABI_VERSION)

// Sizes and reserved numbers of the layout.
const (
	Ports       = int(datapathLimitsPORTS)
	Segments    = int(datapathLimitsSEGMENTS)
	Tenants     = int(datapathLimitsTENANTS)
	Locators    = int(datapathLimitsLOCATORS)
	Nexthops    = int(datapathLimitsNEXTHOPS)
	Adjacencies = int(datapathLimitsADJACENCIES)
	Sets        = int(datapathLimitsSETS)
	SetMembers  = int(datapathLimitsSET_MEMBERS)
	HeaderMax   = int(datapathLimitsHEADER_MAX)

	SpaceSubnets = uint16(datapathSpaceSPACE_SUBNETS)
	SpaceEgress  = uint16(datapathSpaceSPACE_EGRESS)
	SpaceWays    = uint16(datapathSpaceSPACE_WAYS)
	WayLocal     = uint32(datapathWayWAY_LOCAL)
	WaySubnet    = uint32(datapathWayWAY_SUBNET)
	WayHere      = uint32(datapathWayWAY_HERE)
	SpaceVNI     = uint16(datapathSpaceSPACE_VNI)
	SpaceLocator = uint16(datapathSpaceSPACE_LOCATOR)
	LocatorOwn   = uint32(datapathLocatorValueLOCATOR_OWN)
	VNISegment   = uint32(datapathVniValueVNI_SEGMENT)
)

// Roles of a port, or-ed.
const (
	RoleAccess   = uint8(datapathPortRoleROLE_ACCESS)
	RoleUnderlay = uint8(datapathPortRoleROLE_UNDERLAY)
	RoleUplink   = uint8(datapathPortRoleROLE_UPLINK)
	RoleFragment = uint8(datapathPortRoleROLE_FRAGMENT)
)

// PortRedirect is a port's flag: leave it by redirect, never by XDP_TX.
const PortRedirect = uint8(datapathPortFlagPORT_REDIRECT)

// RoleNames spells out the roles of a port.
func RoleNames(role uint8) []string {
	var names []string
	for _, r := range []struct {
		bit  uint8
		name string
	}{{RoleAccess, "access"}, {RoleUnderlay, "underlay"}, {RoleUplink, "uplink"}, {RoleFragment, "fragment"}} {
		if role&r.bit != 0 {
			names = append(names, r.name)
		}
	}
	return names
}

// Flags of a segment, or-ed.
const (
	SegmentStick   = uint32(datapathSegmentFlagSEGMENT_STICK)
	SegmentForeign = uint32(datapathSegmentFlagSEGMENT_FOREIGN)
	SegmentRouter  = uint32(datapathSegmentFlagSEGMENT_ROUTER)
	SegmentStandby = uint32(datapathSegmentFlagSEGMENT_STANDBY)
)

// Flags of a tenant, or-ed.
const (
	TenantFragment = uint16(datapathTenantFlagTENANT_FRAGMENT)
	TenantIsolated = uint16(datapathTenantFlagTENANT_ISOLATED)
	TenantKeepTTL  = uint16(datapathTenantFlagTENANT_KEEP_TTL)
)

// SubnetKeepTTL stands beside a subnet's number where its hosts are neighbours to each other.
const SubnetKeepTTL = uint32(datapathSubnetValueSUBNET_KEEP_TTL)

// Options of a locator, or-ed.
const (
	LocatorNoECN    = uint8(datapathLocatorOptionLOCATOR_NO_ECN)
	LocatorZeroCsum = uint8(datapathLocatorOptionLOCATOR_ZERO_CSUM)
)

// What is asked of the sender inside a tunnel.
const (
	SourceOff    = uint8(datapathSourceRuleSOURCE_OFF)
	SourceLoose  = uint8(datapathSourceRuleSOURCE_LOOSE)
	SourceStrict = uint8(datapathSourceRuleSOURCE_STRICT)
)

// What a probe of a tunnel is known by: the low 32 bits of the addresses inside, and the EtherType that its answer is handed over as.
const (
	ProbeAsker     = uint32(datapathProbePROBE_ASKER)
	ProbeAnswerer  = uint32(datapathProbePROBE_ANSWERER)
	ProbeEtherType = uint16(datapathProbePROBE_ETHERTYPE)
)

// DSCPCopy has outer headers carry the inner packet's DSCP.
const DSCPCopy = uint8(datapathDscpDSCP_COPY)

// What is known of a MAC.
const (
	MACHere    = uint32(datapathMacKindMAC_HERE)
	MACForeign = uint32(datapathMacKindMAC_FOREIGN)
	MACGateway = uint32(datapathMacKindMAC_GATEWAY)
)

// Kinds of next hop, and the ids that every table starts with.
const (
	KindNone       = uint8(datapathNexthopKindNH_NONE)
	KindGateway    = uint8(datapathNexthopKindNH_GATEWAY)
	KindOwn        = uint8(datapathNexthopKindNH_OWN)
	KindKernel     = uint8(datapathNexthopKindNH_KERNEL)
	KindBlackhole  = uint8(datapathNexthopKindNH_BLACKHOLE)
	KindUnresolved = uint8(datapathNexthopKindNH_UNRESOLVED)
	KindAdjacency  = uint8(datapathNexthopKindNH_ADJACENCY)
	KindSet        = uint8(datapathNexthopKindNH_SET)
	KindLocal      = uint8(datapathNexthopKindNH_LOCAL)

	IDGateway   = uint32(datapathNexthopIdNHID_GATEWAY)
	IDOwn       = uint32(datapathNexthopIdNHID_OWN)
	IDKernel    = uint32(datapathNexthopIdNHID_KERNEL)
	IDBlackhole = uint32(datapathNexthopIdNHID_BLACKHOLE)
	IDFirst     = uint32(datapathNexthopIdNHID_FIRST)

	FlagHeld  = uint8(datapathNexthopFlagNHF_HELD)
	FlagMoved = uint8(datapathNexthopFlagNHF_MOVED)

	FlagAwaited = uint8(datapathNexthopFlagNHF_AWAITED) // beside one of them
)

// Flags of an adjacency, or-ed.
const (
	AdjIPv6    = uint8(datapathAdjacencyFlagADJ_IPV6)
	AdjUDPCsum = uint8(datapathAdjacencyFlagADJ_UDP_CSUM)
	AdjECN     = uint8(datapathAdjacencyFlagADJ_ECN)
	AdjCopyTTL = uint8(datapathAdjacencyFlagADJ_COPY_TTL)
)
