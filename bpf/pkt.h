/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* The packet: a cursor over the frame, and what the walk has learned about it.
 *
 * Every bounds check of the data path is in at(); every change of the frame's length is in move_head() and move_tail(). The frame stays
 * as it came until encap.h or neigh.h rewrites it: a tunnel's outer headers are skipped by moving l3, not removed,
 * so that a packet costs one adjustment whatever happens to it.
 */
#pragma once

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "config.h"

#define IP_MF 0x2000
#define IP_OFFSET 0x1fff
#define OFFSET_MAX 0x3ff	/* no header that the walk reads starts later */

#define IP_DF 0x4000

struct vlan_header {
	__be16 tci;
	__be16 proto;
};

/* The verifier remembers what is written at multiples of eight, and takes every packet for another kind of which that differs. So what
 * differs much and decides nothing stands between them: the sender's id at a multiple made the programs 40% longer to it.
 */
struct pkt {
	struct xdp_md *ctx;
	struct port *port;
	struct segment *segment;	/* of access ports, else NULL */

	__u32 slot;		/* ingress port */
	__u32 bytes;		/* frame length on arrival */
	__u32 room;		/* bytes from l3 on that may belong to the IP packet */
	__u32 l3;		/* offset of the IP header in question: the outer, later the inner */
	__u32 l4;		/* offset behind the IP header and its extension headers */
	__u32 tenant;

	__be16 ethertype;
	__u8 multicast;		/* the frame's destination is a group */
	__u8 ours;		/* the frame's destination is one of our MACs */
	__u8 tunnelled;		/* came out of a tunnel */
	__u8 moved;		/* the frame's length was changed: a pass would show it to the kernel */

	/* The IP header. */
	__u8 v6;
	__u8 proto;		/* of the payload, behind extension headers */
	__u8 ttl;
	__u8 tos;
	__u16 frag;		/* flags and offset, where IPv4 has them, in host byte order; of IPv6 that of a fragment header, and DF */
	__u32 ip_len;
	__u32 src4, dst4;	/* host byte order */
	__be32 src6[4], dst6[4];

	/* The tunnel it came from. */
	__u32 from;		/* locator id */
	__u8 outer_ttl;
	__u8 outer_tos;
	__u16 bridge;		/* segment on which its sender bridged it, 0: it was routed */
	__u32 outer;		/* of what was bridged: offset of the outer IP header */

	/* Where it goes. */
	__u32 nexthop_id;	/* as looked up */
	struct nexthop nexthop __attribute__((aligned(8)));	/* written as one word */
	__u32 member_id;	/* after choosing one of a set */
	__u8 exact;
	__u8 home;		/* the policy of one of its ends has it pass here */
	__u8 by_policy;		/* the next hop is a policy's, and no route's */
	__u32 flow;
	__u32 egress;
	__u32 locator;		/* of the tunnel it leaves by */
	__u32 mtu;
	__u32 sender_id;	/* of what came from a tunnel: next-hop id of its sender's own route */
};

static __always_inline int is_fragment(const struct pkt *p)
{
	return p->frag & (IP_MF | IP_OFFSET);
}

static __always_inline int is_later_fragment(const struct pkt *p)
{
	return p->frag & IP_OFFSET;
}

/* The len bytes at offset off of the frame, or NULL. Pointers die with the next change of length. An offset above OFFSET_MAX
 * would wrap: whoever computes one from the packet's own lengths checks it.
 */
static __always_inline void *ctx_at(const struct xdp_md *ctx, __u32 off, const __u32 len)
{
	void *start = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	void *here = start + (off & OFFSET_MAX);

	/* The compiler may not extend it from 32 bits a second time: the verifier would no longer know it for the end. */
	asm volatile("" : "+r"(end));
	return here + len <= end ? here : NULL;
}

static __always_inline void *at(const struct pkt *p, __u32 off, const __u32 len)
{
	return ctx_at(p->ctx, off, len);
}

/* Headers always lie in the linear part; what follows it counts too. */
static __always_inline __u32 ctx_len(struct xdp_md *ctx)
{
	return frags ? bpf_xdp_get_buff_len(ctx) : ctx->data_end - ctx->data;
}

static __always_inline __u32 frame_len(const struct pkt *p)
{
	return ctx_len(p->ctx);
}

/* Moves the start of the frame: by < 0 makes room in front, by > 0 cuts. */
static __always_inline int move_head(struct pkt *p, int by)
{
	p->moved = 1;
	return bpf_xdp_adjust_head(p->ctx, by);
}

static __always_inline int move_tail(struct pkt *p, int by)
{
	return by ? bpf_xdp_adjust_tail(p->ctx, by) : 0;
}

/* Headers are packed, and the compiler goes through packed structs byte by byte. Our machines need no alignment: these go by words. */
static __always_inline void mac_copy(void *to, const void *from)
{
	*(__u32 *)to = *(const __u32 *)from;
	*(__u16 *)(to + 4) = *(const __u16 *)(from + 4);
}

static __always_inline __be16 eth_proto(const struct ethhdr *eth)
{
	const __be16 *proto = (const void *)&eth->h_proto; /* by way of a variable: the compiler forgets that it is packed */

	return *proto;
}

static __always_inline void eth_set_proto(struct ethhdr *eth, __be16 proto)
{
	__be16 *to = (void *)&eth->h_proto;

	*to = proto;
}

/* Reads two bytes more than the addresses have: they must be in an Ethernet header, or followed by something in a map. */
static __always_inline int mac_equal(const __u8 *a, const __u8 *b)
{
	__u64 differ = *(const __u64 *)a ^ *(const __u64 *)b;

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
	return !(differ << 16);
#else
	return !(differ >> 16);
#endif
}
