/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* Where an address lives: exact match in the host table, the longest prefix on a miss. */
#pragma once

#include "pkt.h"
#include "table.h"

static __always_inline __u32 find_address6(__u32 space, const __be32 addr[4])
{
	return find_host6(space, (__u64)addr[1] << 32 | addr[0], (__u64)addr[3] << 32 | addr[2]);
}

/* The longest covering prefix's value, or 0. */
static __always_inline __u32 lookup_prefix4(__u32 tenant, __u32 addr)
{
	struct lpm4_key key = { .prefixlen = 64, .tenant = bpf_htonl(tenant), .addr = bpf_htonl(addr) };
	__u32 *value = bpf_map_lookup_elem(&prefixes4, &key);

	return value ? *value : 0;
}

static __always_inline __u32 lookup_prefix6(__u32 tenant, __u64 hi, __u64 lo)
{
	struct lpm6_key key = {
		.prefixlen = 160,
		.tenant = bpf_htonl(tenant),
		.addr = { hi, hi >> 32, lo, lo >> 32 },
	};
	__u32 *value = bpf_map_lookup_elem(&prefixes6, &key);

	return value ? *value : 0;
}

/* The same as calls: verified once each. */
__attribute__((noinline)) __u32 find_prefix4(__u32 tenant, __u32 addr)
{
	return lookup_prefix4(tenant, addr);
}

__attribute__((noinline)) __u32 find_prefix6(__u32 tenant, __u64 hi, __u64 lo)
{
	return lookup_prefix6(tenant, hi, lo);
}

/* Of a packet's addresses, in the family that it has. */
static __always_inline __u32 find_destination(const struct pkt *p, __u32 space)
{
	return p->v6 ? find_address6(space, p->dst6) : find_host4(space, p->dst4);
}

static __always_inline __u32 find_locator(const struct pkt *p, __u32 addr4, const __be32 addr6[4])
{
	return p->v6 ? find_front6(SPACE_LOCATOR, (__u64)addr6[1] << 32 | addr6[0], (__u64)addr6[3] << 32 | addr6[2]) :
		       find_front4(SPACE_LOCATOR, addr4);
}

/* The locators of the outer header. */
static __always_inline __u32 find_outer_source(const struct pkt *p)
{
	return find_locator(p, p->src4, p->src6);
}

static __always_inline __u32 find_outer_destination(const struct pkt *p)
{
	return find_locator(p, p->dst4, p->dst6);
}

/* What every packet needs, without the call. */
static __always_inline __u32 lookup_destination(const struct pkt *p, __u32 space)
{
	return p->v6 ? lookup_host6(space, (__u64)p->dst6[1] << 32 | p->dst6[0], (__u64)p->dst6[3] << 32 | p->dst6[2]) :
		       lookup_host4(space, p->dst4);
}

/* And every one that comes from a tunnel. */
static __always_inline __u32 lookup_source(const struct pkt *p, __u32 space)
{
	return p->v6 ? lookup_host6(space, (__u64)p->src6[1] << 32 | p->src6[0], (__u64)p->src6[3] << 32 | p->src6[2]) :
		       lookup_host4(space, p->src4);
}

static __always_inline __u32 cover(const struct pkt *p, __u32 space, __u32 addr4, const __be32 addr6[4])
{
	return p->v6 ? find_prefix6(space, (__u64)addr6[1] << 32 | addr6[0], (__u64)addr6[3] << 32 | addr6[2]) :
		       find_prefix4(space, addr4);
}

static __always_inline __u32 cover_source(const struct pkt *p, __u32 space)
{
	return cover(p, space, p->src4, p->src6);
}

static __always_inline __u32 cover_destination(const struct pkt *p, __u32 space)
{
	return cover(p, space, p->dst4, p->dst6);
}

/* By which way a host exchanges packets with another address, as its policy says: enum way, a next-hop id, or 0 for no policy.
 * Global functions: verified once each.
 */
__attribute__((noinline)) __u32 find_way4(__u32 tenant, __u32 host, __u32 other)
{
	__u32 ways = lookup_prefix4(SPACE_EGRESS + tenant, host);

	return ways ? lookup_prefix4(ways, other) : 0;
}

__attribute__((noinline)) __u32 find_way6(__u32 tenant, __u64 hi, __u64 lo, __u64 other_hi, __u64 other_lo)
{
	__u32 ways = lookup_prefix6(SPACE_EGRESS + tenant, hi, lo);

	return ways ? lookup_prefix6(ways, other_hi, other_lo) : 0;
}

static __always_inline __u32 way6(__u32 tenant, const __be32 host[4], const __be32 other[4])
{
	return find_way6(tenant, (__u64)host[1] << 32 | host[0], (__u64)host[3] << 32 | host[2],
			 (__u64)other[1] << 32 | other[0], (__u64)other[3] << 32 | other[2]);
}

static __always_inline __u32 way_of_source(const struct pkt *p)
{
	return p->v6 ? way6(p->tenant, p->src6, p->dst6) : find_way4(p->tenant, p->src4, p->dst4);
}

static __always_inline __u32 way_of_destination(const struct pkt *p)
{
	return p->v6 ? way6(p->tenant, p->dst6, p->src6) : find_way4(p->tenant, p->dst4, p->src4);
}
