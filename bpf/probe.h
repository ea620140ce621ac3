/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* Is there a data path at the far end of a tunnel, and what size gets there and back?
 *
 * A probe is an ICMP echo inside a tunnel packet like any other to its locator. It goes between two link-local addresses, which nothing else
 * in a tunnel may have: so it is found where such packets are refused, and costs the others nothing. The frame is turned round where it
 * lies, and leaves by the port that it came in by: the answer is as long as the question, has its encapsulation, its DSCP, its checksums or
 * none, and arrives by the way that the question took. An answer is given to the kernel under an EtherType that only the daemon listens for.
 *
 * Only a known locator gets an answer, for a tenant that is known here, so often a second; an answer gets none. All of it is a global function,
 * verified once, by itself.
 */
#pragma once

#include "budget.h"
#include "decap.h"
#include "encap.h"

#define ICMP_ECHO 8
#define ICMP_ECHOREPLY 0
#define ICMP6_ECHO 128
#define ICMP6_ECHOREPLY 129
#define PROBE_TTL 64

/* RFC 792, RFC 4443 section 4.1: an echo, and what it carries. Zeros up to the size in question follow. */
struct probe_echo {
	__u8 type;
	__u8 code;
	__u16 csum;
	__be16 port;		/* ICMP's identifier: the UDP port at which the asker's tunnels arrive, 0 for an encapsulation without */
	__be16 sequence;
	__be64 token;		/* the asker's; nobody knows it who did not see the question */
};

/* What the inner packet is, by its addresses. */
enum probe_way {
	PROBE_NONE,
	PROBE_QUESTION,
	PROBE_ANSWER,
};

static __always_inline enum probe_way probe_way(const __be32 *from, const __be32 *to)
{
	if (*from == bpf_htonl(PROBE_ASKER) && *to == bpf_htonl(PROBE_ANSWERER))
		return PROBE_QUESTION;
	if (*from == bpf_htonl(PROBE_ANSWERER) && *to == bpf_htonl(PROBE_ASKER))
		return PROBE_ANSWER;
	return PROBE_NONE;
}

static __always_inline enum probe_way probe_way6(const struct ipv6hdr *ip)
{
	const __be32 *from = (const __be32 *)&ip->saddr, *to = (const __be32 *)&ip->daddr;

	if (from[0] != bpf_htonl(0xfe800000) || from[1] || from[2] || to[0] != from[0] || to[1] || to[2])
		return PROBE_NONE;
	return probe_way(from + 3, to + 3);
}

static __always_inline void swap4(__be32 *a, __be32 *b)
{
	__be32 old = *a;

	*a = *b;
	*b = old;
}

static __always_inline void turn_ethernet(struct ethhdr *eth)
{
	__u8 old[8];

	mac_copy(old, eth->h_dest);
	mac_copy(eth->h_dest, eth->h_source);
	mac_copy(eth->h_source, old);
}

/* The echo at l4 becomes the other kind; what else a checksum covers adds up to what it did. */
static __always_inline int turn_echo(struct xdp_md *ctx, __u32 l4, __u8 type)
{
	struct probe_echo *echo = ctx_at(ctx, l4, sizeof(*echo));
	__u16 old;

	if (!echo)
		return -1;
	old = *(__u16 *)echo;
	echo->type = type;
	echo->csum = csum_replace(echo->csum, old, *(__u16 *)echo);
	return 0;
}

static __always_inline int turn_inner(struct xdp_md *ctx, __u32 l3, __u32 v6)
{
	struct ipv6hdr *ip6;
	struct iphdr *ip;

	if (v6) {
		ip6 = ctx_at(ctx, l3, sizeof(*ip6));
		if (!ip6)
			return -1;
		swap4((__be32 *)&ip6->saddr + 3, (__be32 *)&ip6->daddr + 3);
		return turn_echo(ctx, l3 + sizeof(*ip6), ICMP6_ECHOREPLY);
	}
	ip = ctx_at(ctx, l3, sizeof(*ip));
	if (!ip)
		return -1;
	swap4(&ip->saddr, &ip->daddr);
	return turn_echo(ctx, l3 + sizeof(*ip), ICMP_ECHOREPLY);
}

/* Not-ECT: what a router marked on the way here says nothing of the way back. */
static __always_inline int turn_ip4(struct iphdr *ip)
{
	if (ip->ihl != 5)
		return -1;
	swap4(&ip->saddr, &ip->daddr);
	ip->tos &= 0xfc;
	ip->ttl = PROBE_TTL;
	ip->check = 0;
	ip->check = ~csum_fold(csum_ip4(ip));
	return 0;
}

static __always_inline int turn_ip6(struct ipv6hdr *ip)
{
	if (is_extension(ip->nexthdr))
		return -1;
#pragma unroll
	for (int i = 0; i < 4; i++)
		swap4((__be32 *)&ip->saddr + i, (__be32 *)&ip->daddr + i);
	*((__u8 *)ip + 1) &= 0xcf;
	ip->hop_limit = PROBE_TTL;
	return 0;
}

/* To where the asker's tunnels arrive: the two ends may have different ports. The source port stays: it is the flow's. */
static __always_inline int turn_udp(struct xdp_md *ctx, __u32 l4, __be16 port)
{
	struct udphdr *udp = ctx_at(ctx, l4, sizeof(*udp));

	if (!udp || !port)
		return -1;
	if (udp->check) {
		udp->check = csum_replace(udp->check, udp->dest, port);
		if (!udp->check)
			udp->check = 0xffff;
	}
	udp->dest = port;
	return 0;
}

/* Has the tunnel whose header is at shim an Ethernet header inside? */
static __always_inline int carries_ethernet(struct xdp_md *ctx, __u32 kind, __u32 shim)
{
	__be16 *proto = ctx_at(ctx, shim + 2, sizeof(*proto));

	return kind == TUNNEL_VXLAN || ((kind == TUNNEL_GENEVE || kind == TUNNEL_GRE) && proto && *proto == bpf_htons(ETH_P_BRIDGED));
}

/* Turns everything in front of the inner packet at l3. The frame has a link header of the port's own: a priority tag would be one more. */
static __always_inline int turn_outer(struct xdp_md *ctx, __u32 outer, __u32 l3, __be16 port)
{
	__be16 *ethertype = ctx_at(ctx, outer - sizeof(*ethertype), sizeof(*ethertype));
	struct ethhdr *eth = ctx_at(ctx, 0, sizeof(*eth));
	struct ipv6hdr *ip6 = ctx_at(ctx, outer, sizeof(*ip6)); /* so much is there, of an IPv4 header and what follows it too */
	__u32 l4, shim, kind;
	__u8 proto;

	if (!ethertype || !eth || !ip6)
		return -1;
	turn_ethernet(eth);
	if (*ethertype == bpf_htons(ETH_P_IPV6)) {
		proto = ip6->nexthdr;
		l4 = outer + sizeof(*ip6);
		if (turn_ip6(ip6))
			return -1;
	} else if (*ethertype == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = (struct iphdr *)ip6;

		proto = ip->protocol;
		l4 = outer + sizeof(*ip);
		if (turn_ip4(ip))
			return -1;
	} else {
		return -1;
	}
	kind = tunnel_of(ctx, proto, l4);
	shim = l4;
	if (proto == IPPROTO_UDP) {
		if (turn_udp(ctx, l4, port))
			return -1;
		shim += sizeof(struct udphdr);
	}
	if (!carries_ethernet(ctx, kind, shim))
		return 0;
	eth = ctx_at(ctx, l3 - sizeof(*eth), sizeof(*eth));
	if (!eth)
		return -1;
	turn_ethernet(eth);
	return 0;
}

/* A global function for its stack, too: that of a checksum has to fit beside its caller's. */
__attribute__((noinline)) int probe_spend(__u32 from)
{
	struct icmp_source key = { .addr = { 0, 0, 0, from }, .tenant = SPACE_LOCATOR };

	return probe_rate && spend(&icmp_sources, &key, probe_rate, probe_rate);
}

/* What becomes of the packet of len bytes at l3, inside the tunnel packet at outer from a locator: enum reason. */
__attribute__((noinline)) __u32 probe_inner(struct xdp_md *ctx, __u32 outer, __u32 l3, __u32 len, __u32 from)
{
	struct iphdr *ip = ctx_at(ctx, l3, sizeof(*ip));
	struct probe_echo *echo;
	enum probe_way way;
	__u32 v6, header;
	__be16 port, *ethertype;
	__u8 type;
	__s64 sum;

	if (!ip)
		return DROP_SHORT;
	v6 = ip->version == 6;
	header = v6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr);
	if (v6) {
		struct ipv6hdr *ip6 = ctx_at(ctx, l3, sizeof(*ip6));

		if (!ip6)
			return DROP_SHORT;
		way = probe_way6(ip6);
		if (ip6->nexthdr != IPPROTO_ICMPV6)
			header = 0;
	} else {
		way = probe_way(&ip->saddr, &ip->daddr);
		if (ip->ihl != 5 || ip->protocol != IPPROTO_ICMP || ip->frag_off & bpf_htons(IP_MF | IP_OFFSET))
			header = 0;
	}
	if (way == PROBE_NONE)
		return DROP_MARTIAN;
	if (!header || len < header + sizeof(*echo))
		return DROP_PROBE;
	sum = v6 ? csum_icmp6(ctx, l3, len) : csum_bytes(ctx, l3 + header, len - header);
	echo = ctx_at(ctx, l3 + header, sizeof(*echo));
	if (sum < 0 || csum_fold(sum) != 0xffff || !echo || echo->code)
		return DROP_PROBE;
	type = echo->type;
	port = echo->port;
	if (way == PROBE_ANSWER) {
		ethertype = ctx_at(ctx, outer - sizeof(*ethertype), sizeof(*ethertype));
		if (type != (v6 ? ICMP6_ECHOREPLY : ICMP_ECHOREPLY) || !ethertype)
			return DROP_PROBE;
		if (!shadow)
			*ethertype = bpf_htons(PROBE_ETHERTYPE);
		return PASS_PROBE;
	}
	if (type != (v6 ? ICMP6_ECHO : ICMP_ECHO) || !probe_spend(from))
		return DROP_PROBE;
	if (shadow)
		return FWD_PROBE;
	return turn_inner(ctx, l3, v6) || turn_outer(ctx, outer, l3, port) ? DROP_PROBE : FWD_PROBE;
}

/* A packet between link-local addresses that came out of a tunnel. */
static __always_inline enum reason probe(struct pkt *p)
{
	__u32 outer = link_len(p->port);

	if (p->bytes - outer > p->port->mtu)
		return DROP_PROBE; /* a driver may take more than may be sent */
	p->egress = p->slot;
	return probe_inner(p->ctx, outer, p->l3, p->ip_len, p->from);
}
