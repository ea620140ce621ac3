/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* Who sends through a tunnel: may the inner source come from where it came?
 *
 * Loose refuses what can be right nowhere. Strict is reverse-path forwarding (RFC 3704, section 2.2): the sender's own
 * route must lead back to the locator that the packet came from. A move makes both ends disagree for a moment: a sender
 * that moved just now may come from any known locator, and so may what is sent to a host that did. What goes by the way that the
 * policy of one of its ends names comes from there. A site's gateway reports errors from addresses that no route may name.
 */
#pragma once

#include "lookup.h"
#include "parse.h"

#define ICMP_UNREACHABLE 3
#define ICMP_QUENCH 4
#define ICMP_REDIRECTED 5
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETER 12
#define ICMP6_INFORMATIONAL 128	/* types below are errors (RFC 4443, section 2.1) */

/* Is the ICMP message at l4 an error? A global function: verified once, by itself. */
__attribute__((noinline)) int icmp_error_at(struct xdp_md *ctx, __u32 l4, __u32 v6)
{
	__u8 *type = ctx_at(ctx, l4, 1);

	if (!type)
		return 1;
	if (v6)
		return *type < ICMP6_INFORMATIONAL;
	return (*type >= ICMP_UNREACHABLE && *type <= ICMP_REDIRECTED) || *type == ICMP_TIME_EXCEEDED || *type == ICMP_PARAMETER;
}

/* RFC 1812, section 4.3.2.7: what no error message is ever made about. */
static __always_inline int icmp_error(const struct pkt *p)
{
	if (p->proto != (p->v6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP) || is_later_fragment(p) || p->l4 >= p->l3 + p->ip_len)
		return 0;
	return icmp_error_at(p->ctx, p->l4, p->v6);
}

static __always_inline int leads_to(const struct nexthop *nh, __u32 locator)
{
	__u32 index = nh->index;

	if (nh->kind == NH_ADJACENCY) {
		struct adjacency *adj = bpf_map_lookup_elem(&adjacencies, &index);

		return adj && adj->locator == locator;
	}
	if (nh->kind == NH_UNRESOLVED) {
		struct locator *l = bpf_map_lookup_elem(&locators, &index);

		return l && l->number == locator;
	}
	return 0;
}

/* Is the locator among the members of a set? A global function: verified once, by itself. */
__attribute__((noinline)) int set_leads_to(__u32 index, __u32 locator)
{
	struct set *set = bpf_map_lookup_elem(&sets, &index);

	if (!set)
		return 0;
	for (int i = 0; i < SET_MEMBERS; i++) {
		__u32 id = set->member[i];
		struct nexthop *nh = bpf_map_lookup_elem(&nexthops, &id);
		struct nexthop word;

		if (!nh)
			continue;
		*(__u64 *)&word = *(volatile __u64 *)nh;
		if (leads_to(&word, locator))
			return 1;
	}
	return 0;
}

/* The same of a way, which may be none. A global function: verified once, by itself. */
__attribute__((noinline)) int way_leads_to(__u32 way, __u32 locator)
{
	struct nexthop *entry = bpf_map_lookup_elem(&nexthops, &way), nh;

	if (!entry)
		return 0;
	*(__u64 *)&nh = *(volatile __u64 *)entry;
	return nh.kind == NH_SET ? set_leads_to(nh.index, locator) : leads_to(&nh, locator);
}

static __always_inline int by_policy(const struct pkt *p)
{
	return egress_policy && (way_leads_to(way_of_source(p), p->from) || way_leads_to(way_of_destination(p), p->from));
}

/* Before the destination is looked up: from there on the verifier knows more kinds of packets, each of which it would take through this. */
static __always_inline void look_up_sender(struct pkt *p)
{
	if (p->tunnelled && source_check != SOURCE_OFF)
		p->sender_id = lookup_source(p, p->tenant);
}

static __always_inline enum reason source(const struct pkt *p)
{
	struct nexthop *entry, nh;
	__u32 id;

	if (!p->tunnelled || source_check == SOURCE_OFF)
		return REASON_NONE;
	id = p->sender_id;
	if (!id && source_check == SOURCE_STRICT)
		id = cover_source(p, p->tenant);
	entry = bpf_map_lookup_elem(&nexthops, &id);
	if (!entry)
		return DROP_SOURCE;
	*(__u64 *)&nh = *(volatile __u64 *)entry;
	if (nh.kind == NH_OWN || nh.kind == NH_BLACKHOLE)
		return DROP_SOURCE;
	if (icmp_error(p))
		return REASON_NONE;
	if (nh.kind == NH_GATEWAY)
		return DROP_SOURCE;
	if (source_check == SOURCE_LOOSE || (nh.flags | p->nexthop.flags) & (NHF_HELD | NHF_MOVED))
		return REASON_NONE;
	if (nh.kind == NH_SET ? set_leads_to(nh.index, p->from) : leads_to(&nh, p->from))
		return REASON_NONE;
	return by_policy(p) ? REASON_NONE : DROP_SOURCE;
}
