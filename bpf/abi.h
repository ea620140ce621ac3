/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* What C and Go share: every struct that lies in a map and every number both sides must agree on.
 *
 * This header is the only truth; the Go types are generated from it (make generate) and the names of reasons are
 * read from its BTF at run time. Integers are in host byte order unless their type says __be; byte arrays are in
 * wire order. A change of any layout here raises ABI_VERSION: a daemon refuses pinned maps of another version
 * rather than reinterpreting them.
 */
#pragma once

#include <linux/types.h>

enum abi {
	ABI_VERSION = 4,
};

/* Sizes that are part of a layout. */
enum limits {
	PORTS = 256,		/* port slots; a slot number is the port's index everywhere */
	PORT_PROBES = 8,	/* slots tried for one (interface, VLAN) */
	SEGMENTS = 1024,
	TENANTS = 4096,		/* tenant records; a tenant's number is its index */
	REASONS = 96,		/* counters per port; the enum below must stay under it */
	LOCATORS = 4096,
	NEXTHOPS = 1 << 20,	/* as many as a slot's value can name */
	ADJACENCIES = 16384,
	SETS = 8192,
	SET_MEMBERS = 64,	/* buckets of one set: a weight is a number of buckets */
	HEADER_MAX = 96,	/* the longest outer header, Ethernet to shim */
	HOST_SLOTS = 8,		/* of 64 bits in an IPv4 bucket, a cache line */
	HOST6_SLOTS = 5,	/* in an IPv6 bucket, two cache lines: their addresses are there, too */
	VALUE_BITS = 20,	/* of every value in a host table */
	UNIT_BITS = 3,		/* of an IPv6 slot: which of its bucket's units of 16 bytes is the address */
	TAG_BITS = 29,		/* of an IPv6 slot: of the hash, to tell hosts of one bucket from each other */
	FRONT_LINES = 128,	/* behind the IPv4 buckets: one slot for a key of the gateway's own spaces */
	FRONT6_SLOTS = 4,	/* that are used of each IPv6 bucket in front */
	FRONT6_BUCKETS = 256,
	OVERFLOW_ENTRIES = 65536,
	ICMP_SOURCES = 16384,	/* senders whose error messages are rationed at a time */
	SIGHTINGS_SIZE = 1 << 18, /* bytes of the ring of sightings: some 5,000 */
	SIGHT_BUDGETS = 16384,	/* addresses and askers whose sightings are rationed at a time */
	SEEN_ENTRIES = 8192,	/* senders that were looked up moments ago; hosts that moved and were sent something then */
	SHADOW_HOSTS = 16384,	/* hosts that shadow mode has notes of at a time */
	SHADOW_PAIRS = 65536,	/* and pairs of them */
	TRACE_FILTERS = 8,	/* who may trace at a time */
	TRACE_BYTES = 256,	/* of a frame that an event holds at most */
	TRACE_RING_SIZE = 1 << 22, /* bytes of the ring of events while somebody traces: some 6,500 with frames, 40,000 without */
};

/* The exact-match tables map (space, address) to a 20-bit value. Spaces 1..4000 are tenants, whose values are
 * next-hop ids; the few above serve the gateway itself. */
enum space {
	SPACE_SUBNETS = 0x1000,	/* prefix tries only, added to a tenant: value = subnet number, for sightings and the TTL between neighbours */
	SPACE_EGRESS = 0x2000,	/* prefix tries only, added to a tenant: value = the space of the ways out of the hosts inside */
	SPACE_WAYS = 0x3000,	/* prefix tries only, this one and those above: value = next-hop id by which such a prefix is reached, or enum way */
	SPACE_VNI = 4094,	/* IPv4 table; key = VNI, value = tenant, or enum vni_value; from here on, keys stand in front too */
	SPACE_LOCATOR = 4095,	/* key = underlay address, value = locator id, or LOCATOR_OWN */
};

/* A way out that is no tunnel's. */
enum way {
	WAY_LOCAL = 1,		/* from where the host is */
	WAY_SUBNET = 2,		/* the same, because both are in one subnet: the other's list says so, too */
	WAY_HERE = 3,		/* by this gateway: NHID_KERNEL, as a route that leads to us */
};

enum subnet_value {
	SUBNET_KEEP_TTL = 1 << 30, /* beside the number: no TTL is taken between its hosts */
};

enum vni_value {
	VNI_SEGMENT = 1 << 14,	/* beside a segment's number: what has this VNI was bridged by its sender on that segment */
};

enum locator_value {
	LOCATOR_OWN = 0xfffff,	/* one of our own tunnel ends */
};

/* One cache line of slots: space 12 | address 32 | value 20. Zero is an empty slot; value 0 is never used. */
struct bucket {
	__u64 slot[HOST_SLOTS];
};

/* An IPv6 address as two words in memory order. */
struct address6 {
	__u64 hi, lo;
};

/* Two cache lines, which are fetched at once. A slot is space 12 | tag 29 | unit 3 | value 20, and slot[i] is of the host whose
 * address is addr[i]. Unit is 3 + i, the place of addr[i] in the bucket in units of its size: readers go by that, so that they
 * load an address after its slot. Zero is an empty slot; one of space 0 was a host's until less than a grace period ago, and
 * readers may still look at its address. While a slot is a host's, only its value changes.
 */
struct bucket6 {
	__u64 slot[HOST6_SLOTS];
	__u64 pad;
	struct address6 addr[HOST6_SLOTS];
};

/* Multiplier that spreads keys over the slots in front. */
#define FRONT_MIX 0x9E3779B1U
#define FRONT_SHIFT 22 /* leaves as many bits as FRONT_LINES * HOST_SLOTS has */

/* The last entry of a bucket array describes the table: it is pinned with it, so seed and size can never part
 * from the slots they were used for. */
struct table_header {
	__u64 magic;		/* TABLE_MAGIC, never a bucket's content */
	__u64 seed[2];
	__u32 buckets;
	__u32 unused;
	__u32 version;		/* ABI_VERSION: at the same place in all of them */
	__u32 pad[7];
};

/* A host that waits for a displacement: found here on a miss in the buckets. It has a slot behind those in front in hosts6,
 * without a tag, which is named by its place in the array in words of 64 bits. IPv4 is ::ffff:a.b.c.d. */
struct overflow_key {
	__be32 addr[4];
	__u32 space;
};

/* Key of the prefix tries: prefixlen counts the 32 bits of the tenant too. */
struct lpm4_key {
	__u32 prefixlen;
	__be32 tenant;
	__be32 addr;
};

struct lpm6_key {
	__u32 prefixlen;
	__be32 tenant;
	__be32 addr[4];
};

enum port_role {
	ROLE_ACCESS = 1,	/* towards hosts */
	ROLE_UNDERLAY = 2,	/* towards other gateways; with ROLE_ACCESS a one-armed gateway */
	ROLE_UPLINK = 4,	/* routed, towards the rest of the tenant's network */
	ROLE_FRAGMENT = 8,	/* the near end of a veth pair on which the kernel returns fragments, TTL taken */
};

enum port_flag {
	PORT_REDIRECT = 1,	/* XDP_TX is not reliable here: leave by redirect also where the packet came in */
};

/* A port: one interface, or one VLAN of it. Found by probing from port_slot(ifindex, tags). */
struct port {
	__u32 ifindex;		/* 0: free slot */
	__u16 vlan;		/* tag in the frame, 0 for none; of two the outer one */
	__u8 role;		/* enum port_role, or-ed */
	__u8 flags;		/* enum port_flag, or-ed */
	__u16 tenant;		/* of access and uplink ports */
	__u16 segment;		/* of access ports, else 0 */
	__u8 mac[6];		/* the interface's own */
	__u16 mtu;		/* of the interface: the largest IP packet */
	__u16 inner_vlan;	/* second tag (QinQ), 0 for none */
	__be16 tag_proto;	/* EtherType of the outer tag: 0x8100 or 0x88a8 */
	__u32 pad[2];
};

enum segment_flag {
	SEGMENT_STICK = 1,	/* another router is the default gateway: answer only for hosts that live elsewhere */
	SEGMENT_FOREIGN = 2,	/* route frames to MACs nobody here owns when their host lives elsewhere */
	SEGMENT_ROUTER = 4,	/* neighbour advertisements for gateway addresses carry R = 1 */
	SEGMENT_STANDBY = 8,	/* another gateway on the segment is designated: it answers, and takes what is flooded */
};

struct segment {
	__u8 mac[6];		/* the gateway MAC, the same at every site */
	__u16 tenant;
	__u32 flags;
	__u32 pad;
	__be32 gateway_ll[4];	/* link-local gateway address, :: for none */
	__be32 icmp6[4];	/* source of ICMP errors to hosts here, :: for none: our own address, else the shared one */
	__be32 icmp4;		/* 0 for none */
	__u32 pad2;
	__u64 designated_until;	/* ns of the kernel's monotonic clock: then another gateway takes this one for dead. 0: there is none */
};

enum tenant_flag {
	TENANT_FRAGMENT = 1,	/* oversize IPv4 without DF goes to the kernel by port fragment */
	TENANT_ISOLATED = 2,	/* shares addresses with another tenant: the kernel's one routing table must not see its packets */
	TENANT_KEEP_TTL = 4,	/* has subnets between whose hosts no TTL is taken: prefix tries, SPACE_SUBNETS */
};

struct tenant {
	__be32 icmp6[4];	/* source of ICMP errors to senders beyond uplinks and tunnels, :: for none */
	__be32 icmp4;		/* 0 for none */
	__u16 fragment;		/* port slot */
	__u16 flags;		/* enum tenant_flag */
	__u8 fragment_mac[6];	/* of the far end of that port */
	__u16 pad;
};

/* What is known of a MAC on a segment. */
enum mac_kind {
	MAC_HERE = 1,		/* somebody here: frames to it are not for the gateway */
	MAC_FOREIGN = 2,	/* a gateway that stood here, or stands elsewhere, before: frames to it are routed */
	MAC_GATEWAY = 5,	/* MAC_HERE, and another gateway of the segment: no host, and it knows itself who lives elsewhere */
};

struct mac_key {
	__u8 mac[6];
	__u16 segment;
};

/* What a next-hop id means, as one aligned word: a change is one store. */
enum nexthop_kind {
	NH_NONE = 0,		/* never a valid answer */
	NH_GATEWAY,		/* a shared gateway address of a segment: to the kernel; ARP and ND answered here */
	NH_OWN,			/* an address of this gateway alone: to the kernel, which also answers ARP and ND */
	NH_KERNEL,		/* lives here, MAC not known; or leaves by the kernel's own routes */
	NH_BLACKHOLE,		/* dropped on purpose */
	NH_UNRESOLVED,		/* a locator whose underlay neighbour is not known yet; index = its variant */
	NH_ADJACENCY,		/* index = adjacency */
	NH_SET,			/* index = set */
	NH_LOCAL,		/* index = local */
};

/* Load-time choices, see config.h. */
enum source_rule {
	SOURCE_OFF = 0,
	SOURCE_LOOSE,		/* refuse what can be right nowhere: our own addresses, what a route drops */
	SOURCE_STRICT,		/* accept from where the sender's own route leads (RFC 3704, section 2.2) */
};

enum run_mode {
	RUN_LIVE = 0,
	RUN_DRY,		/* for `roamctl explain`: learns nothing, leaves a walk_report behind */
	RUN_TRACED,		/* for `roamctl trace` and `capture`: leaves events behind, see trace.h */
};

/* Entries of map programs. */
enum program {
	PROGRAM_ICMP,		/* turns a packet that cannot go on into an error */
	PROGRAM_WALK,		/* the walk, where another program is attached in front of it */
	PROGRAMS,
};

enum dscp {
	DSCP_COPY = 0xff,	/* the inner packet's (RFC 2983, uniform model) */
};

enum nexthop_flag {
	NHF_HELD = 1,		/* moved away from here moments ago: may be tunnelled on */
	NHF_MOVED = 2,		/* moved moments ago, from anywhere: what it sends may still come from its earlier site */
	NHF_AWAITED = 4,	/* beside one of them: the first packet by this way is to be told of */
};

struct nexthop {
	__u8 kind;		/* enum nexthop_kind */
	__u8 flags;		/* enum nexthop_flag */
	__u16 tenant;		/* for scans of pinned tables; the data path does not read it */
	__u32 index;
};

/* Ids every table starts with. */
enum nexthop_id {
	NHID_NONE = 0,
	NHID_GATEWAY = 1,
	NHID_OWN = 2,
	NHID_KERNEL = 3,
	NHID_BLACKHOLE = 4,
	NHID_FIRST = 16,	/* the first id handed out */
};

enum adjacency_flag {
	ADJ_IPV6 = 1,		/* outer family */
	ADJ_UDP_CSUM = 2,	/* compute the outer UDP checksum (IPv6) */
	ADJ_ECN = 4,		/* the far end merges ECN (RFC 6040): copy it outwards, else Not-ECT */
	ADJ_COPY_TTL = 8,	/* the outer TTL is the inner one (RFC 9300) */
};

/* A finished rewrite: the complete outer headers and where to patch them. Immutable while a next hop names it. */
struct adjacency {
	__u8 header[96];	/* from Ethernet to the last byte before the inner IP header */
	__u32 csum[2];		/* for IPv4 and for IPv6 inside, its proto value included. Outer IPv4: header sum with length, TOS,
				 * TTL and checksum zero. Outer IPv6: UDP pseudo-header, UDP and shim sum with lengths,
				 * source port and checksum zero. Unfolded, in memory order */
	__u16 len;		/* bytes of header in use */
	__u16 mtu;		/* the largest inner IP packet that fits */
	__u16 port;		/* egress port */
	__u16 locator;		/* whose address this leads to: counters, and never back where it came from */
	__u8 udp;		/* offset of the UDP header, 0 for none */
	__u8 proto;		/* offset of the field that tells IPv4 from IPv6 inside, 0 for none */
	__u8 proto_size;	/* 1 or 2 bytes */
	__u8 flags;		/* enum adjacency_flag */
	__be16 proto4;		/* its values; of a one-byte field the first byte counts */
	__be16 proto6;
	__u16 variant;		/* the locator entry with this encapsulation, to rebuild what this is from a pinned map */
	__u8 pad[6];
};

/* Members of a multi-locator route: next-hop ids of adjacencies, repeated by weight. */
struct set {
	__u32 member[64];
};

/* Delivery to a host on one of our own segments. */
struct local {
	__u8 mac[6];
	__u16 port;
	__u16 segment;
	__u16 pad;
	__u32 pad2;
};

enum locator_option {
	LOCATOR_NO_ECN = 1,	/* it does not merge ECN */
	LOCATOR_ZERO_CSUM = 2,	/* RFC 6935: outer UDP checksum 0 over IPv6 */
};

/* A tunnel end somebody configured or announced; names the locator counters. */
struct locator {
	__be32 addr[4];		/* IPv4 is ::ffff:a.b.c.d */
	__u8 used;
	__u8 encap;		/* as in the Go type route.Encap */
	__u16 udp_port;
	__u8 router_mac[6];
	__u16 tenant;		/* whose packets an encapsulation without a tenant field carries, 0 for nobody's */
	__u16 mtu;		/* the largest inner packet that every way to this address carries, 0 for not known: TCP MSS */
	__u16 number;		/* of the address: its first entry */
	__u8 options;		/* enum locator_option, or-ed */
	__u8 pad[7];
};

/* A packet that cannot go on, from the walk to the program that turns it into an error message. */
struct complaint {
	__u32 reason;		/* enum reason: DROP_MTU or DROP_TTL */
	__u32 slot;		/* ingress port */
	__u32 tenant;
	__u32 bytes;		/* frame length on arrival */
	__u32 l3;		/* offset of the packet */
	__u32 room;		/* bytes from there on that may belong to it */
	__u32 mtu;		/* that would have fit */
	__be16 ethertype;
	__u8 tunnelled;
	__u8 pad;
};

/* A sender, by whom error messages are rationed. IPv4 is ::ffff:a.b.c.d. */
struct icmp_source {
	__be32 addr[4];
	__u32 tenant;
};

/* What a probe of a tunnel is known by: see probe.h. */
enum probe {
	PROBE_ASKER = 0xa9feff01,	/* inside, the sender of a question: 169.254.255.1, or fe80::a9fe:ff01 */
	PROBE_ANSWERER = 0xa9feff02,	/* and who answers it: 169.254.255.2, or fe80::a9fe:ff02 */
	PROBE_ETHERTYPE = 0x88b6,	/* an answer is handed to the daemon as (IEEE 802: local experiments) */
};

/* A token bucket. */
struct budget {
	__u64 since;		/* ns: it was filled then */
	__u64 left;		/* in thousandths of a token */
};

/* By what sign a host showed itself, or was missed. */
enum sight_kind {
	SIGHT_NONE = 0,		/* no sighting: in the counters, those that found the ring full */
	SIGHT_ARP_REQUEST,	/* the sender */
	SIGHT_ARP_REPLY,	/* the sender */
	SIGHT_ARP_ANNOUNCE,	/* sender and target are one (RFC 5227, section 2.3) */
	SIGHT_ARP_PROBE,	/* the target, which the sender means to take (RFC 5227, section 2.1.1) */
	SIGHT_ND_SOLICIT,	/* the source */
	SIGHT_ND_ADVERT,	/* the target */
	SIGHT_ND_DAD,		/* the target, which the sender means to take (RFC 4862, section 5.4.2) */
	SIGHT_RARP,		/* a MAC, and no address (RFC 903): a hypervisor moved a machine */
	SIGHT_DATA,		/* the source of an IP packet */
	SIGHT_WANTED,		/* somebody sends to an address of ours that nobody has shown */
	SIGHT_KINDS,
	SIGHT_FIRST = SIGHT_KINDS, /* no sign of a host, and not counted as one: the first packet to it by the way it has since it moved */
};

struct sighting {
	__u64 when;		/* ns, CLOCK_MONOTONIC */
	__be32 addr[4];		/* IPv4 is ::ffff:a.b.c.d; :: where there is none */
	__u16 tenant;
	__u16 port;		/* slot; of a wanted host, and of a first packet, where the packet came in */
	__u8 mac[6];		/* of the host; 0 of a wanted one, and of a first packet */
	__u8 kind;		/* enum sight_kind */
	__u8 pad[5];
};

/* What sightings are rationed by. */
enum sight_ration {
	RATION_SEEN,		/* an address, or the MAC of one without */
	RATION_WANTED,		/* a wanted address */
	RATION_ASKER,		/* who wants it */
	RATION_ALL,		/* all that is wanted */
	RATION_FIRST,		/* an address that moved */
};

struct sight_key {
	__u64 hi, lo;		/* halves of the address as they lie in memory */
	__u32 tenant;
	__u32 ration;		/* enum sight_ration */
};

/* What a host sends that does not survive a routed move, and all that it sends. Counted in shadow mode only. */
enum shadow_sign {
	SHADOW_PACKETS = 0,
	SHADOW_MULTICAST,	/* to a group, but for neighbour discovery */
	SHADOW_BROADCAST,	/* to everybody, but for DHCP and ARP */
	SHADOW_DHCP,		/* DHCP, as client or server (RFC 2131, RFC 8415) */
	SHADOW_TTL_ONE,		/* TTL 1 to a neighbour */
	SHADOW_TTL_MAX,		/* TTL 255 to a neighbour, who may insist on it (RFC 5082) */
	SHADOW_VIRTUAL_MAC,	/* from a MAC that several stations share: VRRP and CARP, HSRP, GLBP */
	SHADOW_SIGNS,
};

struct shadow_key {
	__u64 hi, lo;		/* halves of the address as they lie in memory, or in lo the MAC of one without */
	__u32 tenant;
	__u32 link;		/* 1: it has no address */
};

struct shadow_host {
	__u64 count[8];		/* packets by enum shadow_sign */
	__u64 bytes;		/* of IP */
	__u32 largest;		/* IP packet that nothing can make smaller: TCP is told what fits, where it is */
	__u16 port;		/* slot */
	__u8 mac[6];		/* of the frame that came last */
	__u32 pad;
};

/* Two hosts of our subnets, the lower one first. */
struct shadow_pair {
	__u64 a_hi, a_lo;
	__u64 b_hi, b_lo;
	__u32 tenant;
	__u32 pad;
};

struct counter {
	__u64 packets;
	__u64 bytes;		/* of the frame as it arrived */
};

/* What happened to a packet. The prefix is the verdict: FWD_ leaves through a port, PASS_ goes to the kernel, DROP_
 * ends here. This enum is the vocabulary of counters, metrics, traces and docs/reasons.md; names come from BTF. */
enum reason {
	REASON_NONE = 0,	/* a step that has no objection: the walk goes on */

	FWD_ENCAP,		/* into a tunnel */
	FWD_REENCAP,		/* from a tunnel into another: the host moved away moments ago */
	FWD_DELIVER,		/* to a host on an access port */
	FWD_ARP,		/* an ARP reply made here */
	FWD_ND,			/* a neighbour advertisement made here */
	FWD_TOO_BIG,		/* larger than the way out carries: its sender was told the right size */
	FWD_EXPIRED,		/* TTL or hop limit used up: its sender was told */
	FWD_FRAGMENT,		/* larger than the way out carries: to the kernel, which fragments it and gives it back */
	FWD_PROBE,		/* a probe of the tunnel, answered here */
	FWD_HOME,		/* from a tunnel into another, by way of the home of one of its ends */

	PASS_NO_PORT,		/* interface or VLAN not configured */
	PASS_NOT_IP,		/* neither IP nor ARP */
	PASS_NOT_OURS,		/* addressed to another station's MAC */
	PASS_MULTICAST,		/* link or IP multicast and broadcast */
	PASS_LINK_LOCAL,	/* an address that no router forwards */
	PASS_ARP,		/* ARP that is not ours to answer */
	PASS_ND,		/* neighbour or router discovery that is not ours to answer */
	PASS_OWN,		/* to an address of the gateway */
	PASS_UNDERLAY,		/* underlay traffic that is not a tunnel to us */
	PASS_RESOLVE,		/* the host lives here and the kernel must find its MAC */
	PASS_NO_ROUTE,		/* not in our tables: the kernel routes it */
	PASS_PROBE,		/* an answer to a probe of ours: for the daemon */

	DROP_SHORT,		/* the frame ends inside a header */
	DROP_IP_HEADER,		/* version, header length or total length make no sense */
	DROP_IP_CHECKSUM,	/* wrong IPv4 header checksum */
	DROP_MARTIAN,		/* an address that can be no source, or no destination */
	DROP_TTL,		/* TTL or hop limit used up, and nobody may be told */
	DROP_MTU,		/* larger than the path to the locator or the port carries, and nobody may be told */
	DROP_BLACKHOLE,		/* a route says so */
	DROP_UNRESOLVED,	/* the locator's underlay neighbour is not resolved yet */
	DROP_NEXTHOP,		/* a next hop that does not exist: a bug, or a torn-down table */
	DROP_HEADROOM,		/* the driver left no room for the outer header */
	DROP_CHECKSUM_LENGTH,	/* longer than the outer UDP checksum can be computed for */
	DROP_REDIRECT,		/* the egress port takes no packets */
	DROP_OUTER_FRAGMENT,	/* a fragmented tunnel packet */
	DROP_TUNNEL_HEADER,	/* flags or lengths of the tunnel header make no sense */
	DROP_TUNNEL_OPTION,	/* a tunnel option or flag that must not be ignored and is not known here */
	DROP_TUNNEL_CONTROL,	/* a control message of the tunnel protocol: nothing to forward */
	DROP_TUNNEL_CHECKSUM,	/* wrong checksum of the tunnel header (GRE) */
	DROP_UNKNOWN_VNI,	/* no tenant has this VNI */
	DROP_NO_TENANT,		/* the encapsulation names no tenant, and this locator is nobody's */
	DROP_UNKNOWN_LOCATOR,	/* a tunnel packet from an address that is no known locator */
	DROP_INNER_NOT_IP,	/* a tunnel packet that carries neither IPv4 nor IPv6 */
	DROP_ECN,		/* congestion marked outside, not ECN-capable inside (RFC 6040) */
	DROP_SOURCE,		/* from a tunnel, and its sender lives elsewhere or can send nothing */
	DROP_TUNNEL_LOOP,	/* from a tunnel, and its host does not live here */
	DROP_TUNNEL_BACK,	/* from a tunnel, and its host lives where it came from */
	DROP_TUNNEL_TTL,	/* from a tunnel to the next, outer TTL used up */
	DROP_TUNNEL_IN_TUNNEL,	/* the inner packet is addressed to our own tunnel end */
	DROP_PROBE,		/* a probe that is damaged, or one too many */
	DROP_ISOLATED,		/* only the kernel could go on, whose routing table cannot tell this tenant from another */
	DROP_FLOOD,		/* bridged to a segment here, and for nobody who is known here: a bridge would flood it */

	REASON_MAX,
};

/* What a dry run leaves behind for `roamctl explain`: how far the walk came and what it found. */
struct walk_report {
	__u32 reason;		/* enum reason */
	__u32 action;		/* XDP action */
	__u16 port;		/* ingress slot */
	__u16 tenant;
	__u16 from_locator;	/* decapsulated: the sender's locator id */
	__u8 decapsulated;
	__u8 routed;		/* 1: exact match, 2: prefix, 3: by the way that a policy names, 0: none of them */
	__u32 nexthop;		/* id found by look-up */
	__u32 member;		/* id after choosing a set's member */
	__u32 flow;		/* hash */
	__u16 egress;		/* port slot */
	__u16 mtu;
	__u16 ip_len;		/* inner IP length */
	__u16 pad;
};

/* Which packets somebody wants to be told of. A field that is zero, and a bit that is set, asks for nothing. */
struct trace_filter {
	__be32 host[4];		/* source or destination; IPv4 is ::ffff:a.b.c.d */
	__u64 reasons[2];	/* a bit for each, of which a packet has to have one */
	__u64 share;		/* of 2^32 packets so many are looked at; 0: nobody traces by this filter */
	__u16 tenant;
	__u16 locator;		/* of the tunnel it came or leaves by */
	__u16 bytes;		/* of the frame, as it came and as it is at the end; at most TRACE_BYTES */
	__u16 pad;
};

struct trace_filters {
	struct trace_filter filter[TRACE_FILTERS];
};

/* What happened to a packet. Addresses and ports are those of the packet that the walk looked at last, as it is at the end: out of a
 * tunnel the inner one, of what was answered the answer. */
struct trace_event {
	__u64 when;		/* ns, CLOCK_MONOTONIC */
	__be32 src[4], dst[4];	/* IPv4 is ::ffff:a.b.c.d; :: where there are none */
	__u32 reason;		/* enum reason */
	__u32 filters;		/* a bit for each that asked for it */
	__u32 bytes;		/* length of the frame as it came, and at the end */
	__u32 bytes_after;
	__u16 sport, dport;	/* host byte order; 0 where there are none */
	__u16 port;		/* ingress slot */
	__u16 egress;		/* egress slot of what was forwarded, else 0 */
	__u16 tenant;		/* 0 for none */
	__u16 locator;		/* of the tunnel that it was to leave by, 0 for none */
	__u16 from;		/* of the tunnel that it came by, 0 for none */
	__u16 captured[2];	/* bytes of the frame below */
	__u8 proto;
	__u8 pad[5];
	__u8 frame[2][TRACE_BYTES]; /* as it came, and at the end; left out where nobody asked for it */
};

/* An event in the making, and what it is made from. */
struct trace_note {
	struct trace_event event;
	__u32 egress;
	__u32 nexthop;		/* id: of a set's member, or as looked up */
	__u32 l3, l4;		/* offsets in the frame as the walk saw it */
	__u32 ip_len;
	__be16 ethertype;
	__be16 pad;
};
