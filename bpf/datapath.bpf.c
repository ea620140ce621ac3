// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/* The one entry point: the packet walk, one line per step.
 *
 * A step returns REASON_NONE to let the packet go on, or the reason that ends its walk. finish() is the single exit:
 * it redirects, counts once, and the reason's family is the XDP action. Steps write only into struct pkt.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "abi.h"

int icmp(struct xdp_md *ctx);

/* What the walk goes over to when a packet cannot go on. Not shared between programs: each load has its own. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, PROGRAMS); /* loader: the walk */
	__uint(key_size, sizeof(__u32));
	__array(values, int(struct xdp_md *));
} programs SEC(".maps") = {
	.values = { [PROGRAM_ICMP] = &icmp },
};

#include "accept.h"
#include "bridge.h"
#include "count.h"
#include "decap.h"
#include "ecmp.h"
#include "egress.h"
#include "encap.h"
#include "icmp.h"
#include "mtu.h"
#include "neigh.h"
#include "probe.h"
#include "shadow.h"
#include "sight.h"
#include "source.h"
#include "trace.h"
#include "ttl.h"

/* What is known of the station that a frame is addressed to: enum mac_kind, or 0. */
static __always_inline __u32 station(const struct pkt *p)
{
	struct ethhdr *eth = at(p, 0, sizeof(*eth));
	struct mac_key key = {};
	__u32 *kind;

	if (!p->segment || !eth)
		return MAC_HERE;
	mac_copy(key.mac, eth->h_dest);
	key.segment = p->port->segment;
	kind = bpf_map_lookup_elem(&macs, &key);
	return kind ? *kind : 0;
}

static __always_inline int elsewhere(const struct pkt *p)
{
	return p->nexthop.kind == NH_ADJACENCY || p->nexthop.kind == NH_SET || p->nexthop.kind == NH_UNRESOLVED;
}

/* What becomes of a frame to a MAC that is not ours, nor of a station here if it was bridged. */
static __always_inline enum reason not_ours(const struct pkt *p)
{
	return bridging && p->bridge ? DROP_FLOOD : PASS_NOT_OURS;
}

/* May a frame to a MAC that nobody here owns be for a host that left? */
static __always_inline int may_be_stale(const struct pkt *p)
{
	return (bridging && p->bridge) || (p->segment && p->segment->flags & SEGMENT_FOREIGN && !stands_by(p->segment));
}

/* Finds the next hop: the host's own, or a covering prefix's. */
static __always_inline enum reason lookup(struct pkt *p)
{
	__u32 id = lookup_destination(p, p->tenant);
	struct nexthop *nh;

	p->exact = !!id;
	if (!id) {
		if (!p->ours)
			return not_ours(p);
		id = cover_destination(p, p->tenant);
		if (!id)
			return PASS_NO_ROUTE;
	}
	p->nexthop_id = id;
	nh = bpf_map_lookup_elem(&nexthops, &id);
	if (!nh)
		return DROP_NEXTHOP;
	*(__u64 *)&p->nexthop = *(volatile __u64 *)nh;
	/* A frame to a MAC that nobody here owns is ours if its host lives elsewhere: it moved away a moment ago, or the
	 * sender did, whose cache still holds MACs of another site. One that somebody here owns is not touched: he may
	 * be a router. */
	if (!p->ours && !(elsewhere(p) && p->exact && may_be_stale(p)))
		return not_ours(p);
	return REASON_NONE;
}

/* What a tunnel brought goes into the next tunnel only for a host that moved away moments ago, or by way of a host's home. */
static __always_inline enum reason check_tunnel_loop(const struct pkt *p)
{
	if (!p->tunnelled)
		return REASON_NONE;
	if (!by_way_of_home(p) && (!p->exact || !(p->nexthop.flags & NHF_HELD)))
		return DROP_TUNNEL_LOOP;
	if (p->outer_ttl <= 1)
		return DROP_TUNNEL_TTL;
	return REASON_NONE;
}

static __always_inline enum reason forward_tunnel(struct pkt *p)
{
	struct adjacency *adj;
	enum reason r;

	r = check_tunnel_loop(p);
	if (!r)
		r = adjacency(p, &adj);
	if (r)
		return r;
	if (p->tunnelled && !by_way_of_home(p) && adj->locator == p->from)
		return DROP_TUNNEL_BACK;
	p->mtu = adj->mtu;
	r = mtu(p);
	if (r)
		return r;
	r = ttl(p);
	if (r)
		return r;
	mss(p, adj->mtu);
	r = encap(p, adj);
	if (r > FWD_REENCAP)
		return r;
	p->egress = adj->port;
	p->locator = adj->locator;
	return r == FWD_REENCAP && by_way_of_home(p) ? FWD_HOME : r;
}

static __always_inline enum reason forward_local(struct pkt *p)
{
	__u32 index = p->nexthop.index, slot;
	struct local *host = bpf_map_lookup_elem(&locals, &index);
	struct port *out;
	enum reason r;

	if (!host)
		return DROP_NEXTHOP;
	slot = host->port;
	out = bpf_map_lookup_elem(&ports, &slot);
	if (!out)
		return DROP_NEXTHOP;
	if (!out->ifindex)
		return DROP_REDIRECT; /* the port was removed */
	p->mtu = out->mtu;
	r = mtu(p);
	if (r)
		return r;
	r = bridged_to(p, host->mac) ? REASON_NONE : ttl(p);
	if (r)
		return r;
	p->egress = slot;
	return deliver(p, host->mac, out);
}

static __always_inline enum reason forward(struct pkt *p)
{
	switch (p->nexthop.kind) {
	case NH_ADJACENCY:
	case NH_SET:
	case NH_UNRESOLVED:
		return forward_tunnel(p);
	case NH_LOCAL:
		return forward_local(p);
	case NH_GATEWAY:
	case NH_OWN:
		return PASS_OWN;
	case NH_KERNEL:
		return p->exact ? PASS_RESOLVE : PASS_NO_ROUTE;
	case NH_BLACKHOLE:
		return DROP_BLACKHOLE;
	}
	return DROP_NEXTHOP;
}

/* The kernel must not take an inner packet for one to our own tunnel end: that would be a tunnel in the tunnel. */
static __always_inline enum reason check_inner_destination(const struct pkt *p, enum reason r)
{
	__u32 value;

	if (r != PASS_NO_ROUTE || !p->tunnelled)
		return r;
	value = find_destination(p, SPACE_LOCATOR);
	return value == LOCATOR_OWN ? DROP_TUNNEL_IN_TUNNEL : r;
}

static __always_inline enum reason walk_ip(struct pkt *p)
{
	enum reason r, refused;

	r = parse_ip(p);
	if (r)
		return r;
	r = decap(p);
	if (r)
		return r == PASS_LINK_LOCAL ? probe(p) : r;
	if (!p->tunnelled) {
		sight_source(p);
		observe(p);
		r = neigh6(p);
		if (r)
			return r;
		if (p->multicast)
			return PASS_MULTICAST;
		if (!(p->port->role & (ROLE_ACCESS | ROLE_UPLINK | ROLE_FRAGMENT)))
			return PASS_UNDERLAY;
		r = check_scope(p);
		if (r)
			return r;
		if (!p->ours) {
			__u32 kind = station(p);

			if (kind & MAC_HERE)
				return PASS_NOT_OURS;
			p->ours = kind == MAC_FOREIGN && !stands_by(p->segment);
		}
	}
	look_up_sender(p);
	r = lookup(p);
	if (r >= DROP_SHORT)
		return r;
	refused = source(p);
	if (refused)
		return refused;
	r = egress(p, r);
	if (!r)
		r = forward(p);
	r = check_inner_destination(p, r);
	if (r == PASS_NO_ROUTE)
		want_destination(p);
	return r;
}

static __always_inline enum reason walk(struct pkt *p)
{
	enum reason r;

	r = parse_link(p);
	if (r)
		return r;
	p->room = p->bytes - p->l3;
	sight_link(p);
	observe_link(p);
	r = neigh(p);
	if (r)
		return r;
	return walk_ip(p);
}

/* What the kernel gets must look received by this port: the Ethernet header directly in front of the IP packet, and
 * the port's own MAC as destination. Not every tunnel leaves an Ethernet header there: it is written anew, from the station that
 * brought the packet.
 */
static __always_inline enum reason hand_over(struct pkt *p, enum reason r)
{
	struct tenant *tenant;
	struct ethhdr *eth;
	__u8 station[8];

	if (r != PASS_OWN && r != PASS_RESOLVE && r != PASS_NO_ROUTE)
		return r;
	tenant = bpf_map_lookup_elem(&tenants, &p->tenant);
	if (!tenant || tenant->flags & TENANT_ISOLATED)
		return DROP_ISOLATED;
	if (shadow)
		return r;
	eth = at(p, 0, sizeof(*eth));
	if (!eth)
		return DROP_SHORT;
	if (p->tunnelled) {
		mac_copy(station, eth->h_source);
		if (move_head(p, (int)p->l3 - (int)sizeof(*eth)))
			return DROP_HEADROOM;
		eth = at(p, 0, sizeof(*eth));
		if (!eth)
			return DROP_SHORT;
		mac_copy(eth->h_source, station);
		eth_set_proto(eth, p->ethertype);
	}
	mac_copy(eth->h_dest, p->port->mac);
	return r;
}

static __always_inline int send(const struct pkt *p)
{
	struct port *out = bpf_map_lookup_elem(&ports, &p->egress);

	if (out && out->ifindex == p->port->ifindex && !(out->flags & PORT_REDIRECT))
		return XDP_TX;
	return bpf_redirect_map(&tx_ports, p->egress, XDP_DROP);
}

static __always_inline void describe(const struct pkt *p, enum reason r, int action)
{
	__u32 zero = 0, mode = run;
	struct walk_report *out;

	if (mode == RUN_LIVE)
		return;
	if (mode == RUN_TRACED) {
		trace_end(p, r);
		return;
	}
	out = bpf_map_lookup_elem(&report, &zero);
	if (!out)
		return;
	out->reason = r;
	out->action = action;
	out->port = p->slot;
	out->tenant = p->tenant;
	out->from_locator = p->from;
	out->decapsulated = p->tunnelled;
	out->routed = p->by_policy ? 3 : p->exact ? 1 : p->nexthop_id ? 2 : 0;
	out->nexthop = p->nexthop_id;
	out->member = p->member_id;
	out->flow = p->flow;
	out->egress = p->egress;
	out->mtu = p->mtu;
	out->ip_len = p->ip_len;
}

static __always_inline int finish(struct pkt *p, enum reason r)
{
	int action;

	if (r < PASS_NO_PORT) {
		action = send(p);
		if (action == XDP_DROP) {
			r = DROP_REDIRECT;
		} else {
			if (p->locator)
				count_locator(p, p->locator);
			sight_first(p);
		}
	} else {
		r = hand_over(p, r);
		action = r < DROP_SHORT ? XDP_PASS : XDP_DROP;
	}
	if (shadow)
		action = XDP_PASS;
	count(p, r);
	describe(p, r, action);
	return action;
}

/* A packet that is too large or too old for its way out. Its sender is told by a program of its own, so that what is rare
 * costs the others nothing; oversize IPv4 that may be fragmented goes to the kernel, which gives the pieces back.
 */
static __always_inline enum reason complain(struct pkt *p, enum reason r)
{
	__u32 tenant = p->tenant;
	struct tenant *t;

	if (p->port->role & ROLE_FRAGMENT || p->nexthop.flags & (NHF_HELD | NHF_MOVED))
		return r;
	if (r == DROP_MTU && !(p->frag & IP_DF)) {
		if (shadow) { /* there is no port for it yet */
			p->egress = p->slot;
			return p->ttl > 1 ? FWD_FRAGMENT : complain_by_icmp(p, DROP_TTL);
		}
		t = bpf_map_lookup_elem(&tenants, &tenant);
		if (!t || !(t->flags & TENANT_FRAGMENT))
			return r;
		return p->ttl > 1 ? to_fragment(p, t) : complain_by_icmp(p, DROP_TTL);
	}
	return complain_by_icmp(p, r);
}

static __always_inline enum reason go(struct pkt *p)
{
	enum reason r = walk(p);

	return r == DROP_MTU || r == DROP_TTL ? complain(p, r) : r;
}

SEC("xdp")
int datapath(struct xdp_md *ctx)
{
	struct pkt p = { .ctx = ctx };

	p.bytes = frame_len(&p);
	return finish(&p, go(&p));
}

/* Reached from complain() through map programs: the frame is as it came, but for what decapsulation merged into the inner header. */
SEC("xdp")
int icmp(struct xdp_md *ctx)
{
	struct pkt p = { .ctx = ctx };
	enum reason r = answer(&p);

	return p.port ? finish(&p, r) : XDP_DROP; /* the walk found the port: it is there */
}

/* Attached in place of the walk while somebody traces. */
SEC("xdp")
int traced(struct xdp_md *ctx)
{
	trace_begin(ctx);
	bpf_tail_call(ctx, &programs, PROGRAM_WALK);
	return shadow ? XDP_PASS : XDP_DROP; /* the walk is there as long as this program: the daemon waits before it takes them apart */
}

/* Carries the enums of abi.h into BTF, from which Go generates its types and reads the names of reasons. */
struct abi_types {
	enum abi abi;
	enum limits limits;
	enum space space;
	enum way way;
	enum subnet_value subnet_value;
	enum locator_value locator_value;
	enum vni_value vni_value;
	enum locator_option locator_option;
	enum tenant_flag tenant_flag;
	enum source_rule source_rule;
	enum run_mode run_mode;
	enum program program;
	enum dscp dscp;
	enum port_role port_role;
	enum port_flag port_flag;
	enum segment_flag segment_flag;
	enum mac_kind mac_kind;
	enum nexthop_kind nexthop_kind;
	enum nexthop_flag nexthop_flag;
	enum nexthop_id nexthop_id;
	enum adjacency_flag adjacency_flag;
	enum probe probe;
	enum sight_kind sight_kind;
	enum sight_ration sight_ration;
	enum shadow_sign shadow_sign;
	enum reason reason;
	struct table_header table_header;
	struct sighting sighting;
	struct trace_event trace_event;
};
const struct abi_types abi_types __attribute__((used)) = {};

char LICENSE[] SEC("license") = "Dual BSD/GPL";
