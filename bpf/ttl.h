/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* A gateway is a routed hop: it takes one from TTL or hop limit, and a packet that has none left ends. */
#pragma once

#include "csum.h"

static __always_inline enum reason ttl(struct pkt *p)
{
	if (p->ttl <= 1)
		return DROP_TTL;
	if (p->v6) {
		struct ipv6hdr *ip = at(p, p->l3, sizeof(*ip));

		if (!ip)
			return DROP_SHORT;
		ip->hop_limit--;
	} else {
		struct iphdr *ip = at(p, p->l3, sizeof(*ip));
		__u32 check;

		if (!ip)
			return DROP_SHORT;
		/* RFC 1624: one less in the high byte of its word; the carry comes back in. */
		check = (__u32)ip->check + bpf_htons(0x0100);
		ip->check = check + (check >= 0xffff);
		ip->ttl--;
	}
	return REASON_NONE;
}
