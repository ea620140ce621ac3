/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* A gateway is a routed hop: it takes one from TTL or hop limit, and a packet that has none left ends.
 *
 * Three exceptions. What the kernel returns in fragments has paid already. Where a tenant asks for it, hosts of one
 * subnet, who believe that they are neighbours, keep theirs at both gateways. And LISP carries the TTL across the
 * underlay (RFC 9300, section 5.3), so that the shorter of the two counts.
 */
#pragma once

#include "csum.h"
#include "lookup.h"

/* Writes the TTL of the IP header, and its checksum. */
static __always_inline enum reason ttl_set(struct pkt *p, __u8 ttl)
{
	if (shadow) {
		p->ttl = ttl;
		return REASON_NONE;
	}
	if (p->v6) {
		struct ipv6hdr *ip = at(p, p->l3, sizeof(*ip));

		if (!ip)
			return DROP_SHORT;
		ip->hop_limit = ttl;
	} else {
		struct iphdr *ip = at(p, p->l3, sizeof(*ip));
		__u32 check;

		if (!ip)
			return DROP_SHORT;
		/* RFC 1624: what the high byte of its word loses, the sum gains; the carry comes back in. */
		check = (__u32)ip->check + bpf_htons((__u16)(p->ttl - ttl) << 8);
		ip->check = check + (check >= 0xffff);
		ip->ttl = ttl;
	}
	p->ttl = ttl;
	return REASON_NONE;
}

/* Do both ends live in one subnet between whose hosts no TTL is taken? */
static __always_inline int neighbours(const struct pkt *p)
{
	__u32 tenant = p->tenant, space = SPACE_SUBNETS + p->tenant, from;
	struct tenant *t = bpf_map_lookup_elem(&tenants, &tenant);

	if (!t || !(t->flags & TENANT_KEEP_TTL))
		return 0;
	from = cover_source(p, space);
	return from & SUBNET_KEEP_TTL && from == cover_destination(p, space);
}

static __always_inline enum reason ttl(struct pkt *p)
{
	if (p->port->role & ROLE_FRAGMENT)
		return REASON_NONE;
	if (keep_ttl && p->ttl && neighbours(p))
		return REASON_NONE;
	if (p->ttl <= 1)
		return DROP_TTL;
	return ttl_set(p, p->ttl - 1);
}
