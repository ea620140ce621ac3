/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* Frames that a far gateway bridges to a segment here, by the segment's own VNI (RFC 7432, RFC 9135).
 *
 * We are a router to our peers, and a bridge as far as they need one: who is behind them in the same subnet asks for MACs, and
 * sends to them. A question about a host here, or about the gateway, is answered back through the tunnel with the MAC that
 * EVPN announces for it. A packet to the MAC of a station here, or to the gateway's, is routed like any other from a tunnel. Nothing
 * is flooded: what is for all, or for a MAC that nobody here has, ends, but for a packet to a host that left moments
 * ago, which goes after it. Nothing is learnt from who asks, for EVPN tells where he lives; but who is asked for and not known here
 * is looked for, as one is whom a host here asks for.
 */
#pragma once

#include "encap.h"
#include "neigh.h"
#include "sight.h"

#define VXLAN_I 0x08	/* RFC 7348, section 5 */

/* What lies between a bridged frame and the outer IP header. */
struct bridged {
	struct udphdr udp;
	__u8 flags;
	__u8 reserved[3];
	__be32 vni;		/* upper 24 bits */
} __attribute__((packed));

struct outer4 {
	struct iphdr ip;
	struct bridged bridged;
} __attribute__((packed));

struct outer6 {
	struct ipv6hdr ip;
	struct bridged bridged;
} __attribute__((packed));

/* The source port keeps what its sender hashed into it. */
static __always_inline void turn_bridged(struct bridged *b, __u32 len)
{
	b->udp.source = bpf_htons(SOURCE_PORT_MIN) | (b->udp.source & bpf_htons(~SOURCE_PORT_MIN));
	b->udp.len = bpf_htons(len);
	b->udp.check = 0;
	b->flags = VXLAN_I;
	__builtin_memset(b->reserved, 0, sizeof(b->reserved));
	b->vni &= bpf_htonl(0xffffff00);
}

static __always_inline __u8 answer_tos(void)
{
	return outer_dscp == DSCP_COPY ? 0 : outer_dscp << 2;
}

static __always_inline int turn_outer4(struct outer4 *o, __u32 len)
{
	__be32 to = o->ip.saddr;

	o->ip.tos = answer_tos();
	o->ip.tot_len = bpf_htons(len);
	o->ip.id = 0;
	o->ip.frag_off = bpf_htons(IP_DF);
	o->ip.ttl = 64;
	o->ip.check = 0;
	o->ip.saddr = o->ip.daddr;
	o->ip.daddr = to;
	o->ip.check = ~csum_fold(csum_ip4(&o->ip));
	turn_bridged(&o->bridged, len - sizeof(o->ip));
	return 4;
}

static __always_inline int turn_outer6(struct outer6 *o, __u32 len)
{
	struct in6_addr to = o->ip.saddr;

	*(__be32 *)o = bpf_htonl(6u << 28 | answer_tos() << 20) | (*(__be32 *)o & bpf_htonl(0xfffff));
	o->ip.payload_len = bpf_htons(len - sizeof(o->ip));
	o->ip.hop_limit = 64;
	o->ip.saddr = o->ip.daddr;
	o->ip.daddr = to;
	turn_bridged(&o->bridged, len - sizeof(o->ip));
	return 6;
}

/* Computes the outer UDP checksum of the packet of len bytes at l3, over IPv6. A global function: see icmp6_right(). */
__attribute__((noinline)) int put_outer_csum(struct xdp_md *ctx, __u32 l3, __u32 len)
{
	__s64 sum = csum_bytes(ctx, l3 + sizeof(struct ipv6hdr), len - sizeof(struct ipv6hdr));
	struct outer6 *o = ctx_at(ctx, l3, sizeof(*o));
	__u32 *w;
	__u16 check;

	if (sum < 0 || !o)
		return 0;
	w = (__u32 *)&o->ip.saddr;
#pragma unroll
	for (int i = 0; i < 8; i++)
		sum += w[i];
	check = ~csum_fold(sum + bpf_htonl(IPPROTO_UDP) + bpf_htonl(len - sizeof(o->ip)));
	o->bridged.udp.check = check ? check : 0xffff;
	return 1;
}

/* Gives the tunnel packet of len bytes whose outer header is at l3, and whose frame inside, at link, has become an answer, the way back
 * by the port that it came from. Returns the outer family, 4 or 6, or 0 where the outer header has options: nobody is answered through
 * those. A global function: verified once, by itself.
 */
__attribute__((noinline)) int turn_back(struct xdp_md *ctx, __u32 l3, __u32 link, __u32 len, __u32 slot)
{
	struct port *port = bpf_map_lookup_elem(&ports, &slot);
	struct ethhdr *eth = ctx_at(ctx, 0, sizeof(*eth));
	struct outer4 *o4 = ctx_at(ctx, l3, sizeof(*o4));
	struct outer6 *o6 = ctx_at(ctx, l3, sizeof(*o6));

	if (!port || !eth || eth->h_source[0] & 1 || !o4)
		return 0;
	mac_copy(eth->h_dest, eth->h_source);
	mac_copy(eth->h_source, port->mac);
	if (link == l3 + sizeof(*o4) && o4->ip.version == 4)
		return turn_outer4(o4, len);
	return o6 && link == l3 + sizeof(*o6) ? turn_outer6(o6, len) : 0;
}

/* Sends an answer of which the frame inside ends at end. */
static __always_inline enum reason answer_back(struct pkt *p, __u32 end, enum reason r)
{
	__u32 index = p->from, len = end - p->outer;
	struct locator *l = bpf_map_lookup_elem(&locators, &index);
	int family = shadow ? 4 : turn_back(p->ctx, p->outer, p->l3 - sizeof(struct ethhdr), len, p->slot);

	if (!family || !l)
		return DROP_TUNNEL_HEADER;
	if (family == 6 && !(l->options & LOCATOR_ZERO_CSUM) && !put_outer_csum(p->ctx, p->outer, len))
		return DROP_CHECKSUM_LENGTH;
	p->egress = p->slot;
	p->locator = p->from;
	return r;
}

static __always_inline enum reason bridged_arp(struct pkt *p)
{
	__u32 link = p->l3 - sizeof(struct ethhdr), r;
	struct ethhdr *eth;
	struct arp *arp;

	if (p->room < sizeof(*arp))
		return DROP_SHORT;
	r = arp_answer(p->ctx, link, p->l3, p->tenant, p->bridge);
	if (r == FWD_ARP)
		return answer_back(p, p->l3 + p->room, r);
	eth = at(p, link, sizeof(*eth));
	arp = at(p, p->l3, sizeof(*arp));
	if (!eth || !arp)
		return DROP_SHORT;
	if (!(eth->h_dest[0] & 1))
		return DROP_INNER_NOT_IP;
	if (sight_rate && arp->op == bpf_htons(ARP_REQUEST))
		want(p->slot, p->tenant, bpf_ntohl(*(__be32 *)arp->sender_ip), 0, low4(read32(arp->target_ip)));
	return DROP_FLOOD;
}

/* A solicitation that nobody answers here. */
static __always_inline void want_solicited(const struct pkt *p)
{
	struct nd *nd = at(p, p->l3, ND_SOLICIT_LEN);

	if (sight_rate && nd && nd->type == ND_SOLICIT)
		want(p->slot, p->tenant, half(p->src6) ^ half(p->src6 + 2), half(nd->target), half(nd->target + 2));
}

/* Is the frame at link for a station of the segment, or for its gateway? A global function: what it finds is, to the verifier, one state. */
__attribute__((noinline)) int known_station(struct xdp_md *ctx, __u32 link, __u32 segment)
{
	struct segment *s = bpf_map_lookup_elem(&segments, &segment);
	struct ethhdr *eth = ctx_at(ctx, link, sizeof(*eth));
	struct mac_key key = { .segment = segment };

	if (!s || !eth)
		return 0;
	mac_copy(key.mac, eth->h_dest);
	return mac_equal(eth->h_dest, s->mac) || bpf_map_lookup_elem(&macs, &key);
}

/* A parsed packet: is it a question that is answered here, is it for a group, and whose MAC does it go to? */
static __always_inline enum reason bridged_ip(struct pkt *p)
{
	__u32 link = p->l3 - sizeof(struct ethhdr), r;
	struct ethhdr *eth;

	if (solicits(p)) {
		r = solicited(p, link, p->bridge);
		if (r == FWD_ND)
			return answer_back(p, p->l3 + sizeof(struct nd), r);
		if (r != PASS_ND)
			return r;
		want_solicited(p);
	}
	eth = at(p, link, sizeof(*eth));
	if (!eth)
		return DROP_SHORT;
	if (eth->h_dest[0] & 1)
		return DROP_FLOOD;
	p->ours = known_station(p->ctx, link, p->bridge);
	return REASON_NONE;
}

/* Is it addressed to the very station that it is delivered to? Then its sender bridged it, and no router stands between. */
static __always_inline int bridged_to(const struct pkt *p, const __u8 *mac)
{
	struct ethhdr *eth;

	if (!bridging || !p->bridge || !p->ttl)
		return 0;
	eth = at(p, p->l3 - sizeof(*eth), sizeof(*eth));
	return eth && mac_equal(eth->h_dest, mac);
}
