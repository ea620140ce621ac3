/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* One hash per flow: it picks the member of a set and the outer source port, so that the underlay spreads flows and
 * keeps each in order. Every fragment of a datagram must take one path, and only the first has ports: fragments
 * hash on addresses alone.
 */
#pragma once

#include "maps.h"
#include "pkt.h"

static __always_inline __u32 flow_ports(const struct pkt *p)
{
	__u32 *ports;

	if (is_fragment(p) || p->l4 + 4 > p->l3 + p->ip_len)
		return 0;
	switch (p->proto) {
	case IPPROTO_TCP:
	case IPPROTO_UDP:
	case IPPROTO_SCTP:
	case IPPROTO_DCCP:
	case IPPROTO_UDPLITE:
		ports = at(p, p->l4, 4);
		return ports ? *ports : 0;
	}
	return 0;
}

static __always_inline void flow_hash(struct pkt *p)
{
	__u64 x;

	if (p->v6) {
		x = ((__u64)p->src6[0] << 32 | p->src6[1]) * 0x9FB21C651E98DF25ULL;
		x = (x ^ ((__u64)p->src6[2] << 32 | p->src6[3])) * 0xD6E8FEB86659FD93ULL;
		x = (x ^ x >> 32 ^ ((__u64)p->dst6[0] << 32 | p->dst6[1])) * 0x9FB21C651E98DF25ULL;
		x = (x ^ x >> 32 ^ ((__u64)p->dst6[2] << 32 | p->dst6[3])) * 0xD6E8FEB86659FD93ULL;
	} else {
		x = ((__u64)p->src4 << 32 | p->dst4) * 0x9FB21C651E98DF25ULL;
	}
	x = (x ^ x >> 32 ^ flow_ports(p)) * 0xD6E8FEB86659FD93ULL;
	p->flow = x >> 32;
}

/* Follows a set to the member that this flow belongs to. */
static __always_inline enum reason choose(struct pkt *p)
{
	struct nexthop *nh;
	struct set *set;
	__u32 index = p->nexthop.index;

	if (p->nexthop.kind != NH_SET)
		return REASON_NONE;
	set = bpf_map_lookup_elem(&sets, &index);
	if (!set)
		return DROP_NEXTHOP;
	p->member_id = set->member[p->flow % SET_MEMBERS];
	nh = bpf_map_lookup_elem(&nexthops, &p->member_id);
	if (!nh)
		return DROP_NEXTHOP;
	index = p->nexthop.flags; /* held is a property of the host's route, not of a member */
	*(__u64 *)&p->nexthop = *(volatile __u64 *)nh;
	p->nexthop.flags = index;
	return p->nexthop.kind == NH_SET ? DROP_NEXTHOP : REASON_NONE;
}

/* The adjacency by which this flow leaves, of a next hop that leads elsewhere. */
static __always_inline enum reason adjacency(struct pkt *p, struct adjacency **adj)
{
	__u32 index;
	enum reason r;

	flow_hash(p);
	r = choose(p);
	if (r)
		return r;
	if (p->nexthop.kind == NH_UNRESOLVED)
		return DROP_UNRESOLVED;
	index = p->nexthop.index;
	*adj = bpf_map_lookup_elem(&adjacencies, &index);
	return *adj && p->nexthop.kind == NH_ADJACENCY ? REASON_NONE : DROP_NEXTHOP;
}
