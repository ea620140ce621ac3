/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* ARP (RFC 826) and neighbour discovery (RFC 4861) answered where the question arrives.
 *
 * A host asks for the MAC of an address. We know the answer when the address is a gateway address of its segment, or a
 * host that lives at another site: then the segment's MAC is the right one, because we are the way there. Everything
 * else is for the kernel, which owns this gateway's other addresses. Two questions look the same and are not: a host
 * that announces or probes its own address (RFC 5227, DAD) is never answered against it from the mobility table.
 *
 * Replies are made in the frame that asked and leave by the port it came from; VLAN tags stay. What asks inside a tunnel is
 * bridge.h's, which answers by the same functions.
 */
#pragma once

#include "lookup.h"
#include "parse.h"

#define ARP_ETHERNET 1
#define ARP_REQUEST 1
#define ARP_REPLY 2

struct arp {
	__be16 hardware;
	__be16 protocol;
	__u8 hardware_len;
	__u8 protocol_len;
	__be16 op;
	__u8 sender_mac[6];
	__u8 sender_ip[4];
	__u8 target_mac[6];
	__u8 target_ip[4];
} __attribute__((packed));

/* Neighbour solicitation, and an advertisement with its one option. */
struct nd {
	struct ipv6hdr ip;
	__u8 type;
	__u8 code;
	__u16 csum;
	__be32 flags;
	__be32 target[4];
	__u8 option;
	__u8 option_len;
	__u8 mac[6];
} __attribute__((packed));

#define ND_SOLICIT 135
#define ND_ADVERT 136
#define ND_ROUTER 0x80000000
#define ND_SOLICITED 0x40000000
#define ND_OVERRIDE 0x20000000
#define ND_TARGET_MAC 2
#define ND_SOLICIT_LEN (sizeof(struct ipv6hdr) + 24)	/* without options */

enum answer {
	ANSWER_NONE,
	ANSWER_GATEWAY,	/* it is our address */
	ANSWER_PROXY,	/* it lives elsewhere, and we are the way there */
	ANSWER_HERE,	/* it lives here, and who asks is behind a tunnel */
};

/* A probe is answered for the gateway's address only, and there by each gateway on its own segments: one behind a tunnel may be a
 * gateway's that has the address as well.
 */
static __always_inline int defends(enum answer answer, __u32 link)
{
	return answer == ANSWER_GATEWAY && !link;
}

/* Does another gateway on the segment answer, and take what is flooded? The designated one's word holds for a while only where there is
 * another: a daemon that died must not go on beside the one that stepped in.
 */
static __always_inline int stands_by(const struct segment *s)
{
	return s->flags & SEGMENT_STANDBY || (s->designated_until && bpf_ktime_get_ns() > s->designated_until);
}

/* Who answers for a next hop on a segment, and by which MAC. Who asks there hears of what lives elsewhere; who asks
 * through a tunnel, of what lives here: of each only one gateway speaks.
 */
static __always_inline enum answer answer_of(__u32 id, __u32 segment, int bridged, __u8 *mac)
{
	struct segment *s = bpf_map_lookup_elem(&segments, &segment);
	struct nexthop *nh = bpf_map_lookup_elem(&nexthops, &id), word;
	struct local *host;
	struct port *port;
	__u32 index;

	if (!id || !nh || !s || (!bridged && stands_by(s)))
		return ANSWER_NONE;
	*(__u64 *)&word = *(volatile __u64 *)nh;
	mac_copy(mac, s->mac);
	switch (word.kind) {
	case NH_GATEWAY:
		return s->flags & SEGMENT_STICK ? ANSWER_NONE : ANSWER_GATEWAY;
	case NH_ADJACENCY:
	case NH_SET:
	case NH_UNRESOLVED:
		return bridged ? ANSWER_NONE : ANSWER_PROXY;
	case NH_LOCAL:
		index = word.index;
		host = bridged ? bpf_map_lookup_elem(&locals, &index) : NULL;
		if (!host)
			return ANSWER_NONE;
		index = host->port;
		port = bpf_map_lookup_elem(&ports, &index);
		if (!port || port->segment != segment)
			return ANSWER_NONE;
		mac_copy(mac, host->mac); /* as it is announced */
		return ANSWER_HERE;
	}
	return ANSWER_NONE;
}

/* Another gateway that looks for a host asks whoever has it, not who knows the way: it would take our MAC for the host's. */
static __always_inline int asks_itself(const struct ethhdr *eth, __u32 segment, enum answer answer)
{
	struct mac_key key = { .segment = segment };
	__u32 *kind;

	if (answer != ANSWER_PROXY)
		return 0;
	mac_copy(key.mac, eth->h_source);
	kind = bpf_map_lookup_elem(&macs, &key);
	return kind && *kind == MAC_GATEWAY;
}

static __always_inline __u32 read32(const __u8 *b)
{
	return (__u32)b[0] << 24 | (__u32)b[1] << 16 | (__u32)b[2] << 8 | b[3];
}

/* Turns the request at l3, of the Ethernet header at link, into its reply: FWD_ARP, or PASS_ARP where it is not ours to answer. What
 * does not begin the frame came through a tunnel. A global function: verified once, for both.
 */
__attribute__((noinline)) __u32 arp_answer(struct xdp_md *ctx, __u32 link, __u32 l3, __u32 tenant, __u32 segment)
{
	struct arp *arp = ctx_at(ctx, l3, sizeof(*arp));
	struct ethhdr *eth = ctx_at(ctx, link, sizeof(*eth));
	__u32 sender, target;
	enum answer answer;
	__u8 mac[8] = {};
	__u8 tmp[4];

	if (!arp || !eth)
		return DROP_SHORT;
	if (arp->hardware != bpf_htons(ARP_ETHERNET) || arp->protocol != bpf_htons(ETH_P_IP) ||
	    arp->hardware_len != ETH_ALEN || arp->protocol_len != 4 || arp->op != bpf_htons(ARP_REQUEST) ||
	    arp->sender_mac[0] & 1 || eth->h_source[0] & 1)
		return PASS_ARP;
	sender = read32(arp->sender_ip);
	target = read32(arp->target_ip);
	if (sender == target)
		return PASS_ARP;
	answer = answer_of(find_host4(tenant, target), segment, !!link, mac);
	if (answer == ANSWER_NONE || (!sender && !defends(answer, link)) || asks_itself(eth, segment, answer))
		return PASS_ARP;
	if (shadow)
		return FWD_ARP;

	arp->op = bpf_htons(ARP_REPLY);
	__builtin_memcpy(tmp, arp->target_ip, 4);
	mac_copy(arp->target_mac, arp->sender_mac);
	__builtin_memcpy(arp->target_ip, arp->sender_ip, 4);
	mac_copy(arp->sender_mac, mac);
	__builtin_memcpy(arp->sender_ip, tmp, 4);
	mac_copy(eth->h_dest, eth->h_source);
	mac_copy(eth->h_source, mac);
	return FWD_ARP;
}

static __always_inline enum reason neigh_arp(struct pkt *p)
{
	__u32 r;

	if (!at(p, p->l3, sizeof(struct arp)))
		return DROP_SHORT;
	if (!p->segment)
		return PASS_ARP;
	r = arp_answer(p->ctx, 0, p->l3, p->tenant, p->port->segment);
	if (r == FWD_ARP)
		p->egress = p->slot;
	return r;
}

/* The sum of an advertisement's pseudo-header and message. */
static __always_inline __u64 csum_advertisement(const struct nd *nd)
{
	const __u32 *w = (const __u32 *)&nd->ip.saddr;
	__u64 sum = bpf_htonl(sizeof(*nd) - sizeof(nd->ip)) + bpf_htonl(IPPROTO_ICMPV6);

#pragma unroll
	for (__u32 i = 0; i < (sizeof(*nd) - 8) / 4; i++)
		sum += w[i];
	return sum;
}

/* Writes the advertisement over the solicitation, which is as long. */
static __always_inline enum reason nd_advertise(struct xdp_md *ctx, __u32 link, __u32 l3, __u32 flags, int to_all, const __u8 *mac)
{
	struct ethhdr *eth = ctx_at(ctx, link, sizeof(*eth));
	struct nd *nd = ctx_at(ctx, l3, sizeof(*nd));

	if (!eth || !nd)
		return DROP_SHORT;
	if (to_all) {
		/* RFC 4861 section 7.2.4: an answer to the unspecified address goes to all nodes. */
		__builtin_memset(&nd->ip.daddr, 0, 16);
		nd->ip.daddr.s6_addr[0] = 0xff;
		nd->ip.daddr.s6_addr[1] = 0x02;
		nd->ip.daddr.s6_addr[15] = 0x01;
		__builtin_memset(eth->h_dest, 0, 6);
		eth->h_dest[0] = 0x33;
		eth->h_dest[1] = 0x33;
		eth->h_dest[5] = 0x01;
	} else {
		nd->ip.daddr = nd->ip.saddr;
		mac_copy(eth->h_dest, eth->h_source);
		flags |= ND_SOLICITED;
	}
	mac_copy(eth->h_source, mac);
	__builtin_memcpy(&nd->ip.saddr, nd->target, 16);
	nd->ip.payload_len = bpf_htons(sizeof(*nd) - sizeof(nd->ip));
	nd->ip.hop_limit = 255;
	nd->type = ND_ADVERT;
	nd->csum = 0;
	nd->flags = bpf_htonl(flags);
	nd->option = ND_TARGET_MAC;
	nd->option_len = 1;
	mac_copy(nd->mac, mac);
	nd->csum = ~csum_fold(csum_advertisement(nd));
	return FWD_ND;
}

static __always_inline enum answer answer_nd(__u32 owner, const __be32 target[4], int bridged, __u8 *mac)
{
	__u32 tenant = owner >> 16, segment = owner & 0xffff;
	struct segment *s;
	const __be32 *ll;

	if (!ip6_link_local(target))
		return answer_of(find_address6(tenant, target), segment, bridged, mac);
	s = bpf_map_lookup_elem(&segments, &segment);
	if (!s || s->flags & SEGMENT_STICK || (!bridged && stands_by(s)))
		return ANSWER_NONE;
	mac_copy(mac, s->mac);
	ll = s->gateway_ll;
	return ll[0] && ll[0] == target[0] && ll[1] == target[1] && ll[2] == target[2] && ll[3] == target[3] ?
		ANSWER_GATEWAY : ANSWER_NONE;
}

/* Is the checksum of the ICMPv6 packet of len bytes right? A global function, so that no frame of the stack stands under csum_bytes()
 * but its caller's: together they may have 512 bytes.
 */
__attribute__((noinline)) int icmp6_right(struct xdp_md *ctx, __u32 l3, __u32 len)
{
	__s64 sum = csum_icmp6(ctx, l3, len);

	return sum >= 0 && csum_fold(sum) == 0xffff;
}

/* The same for a neighbour solicitation of len bytes, which has no extension headers and hop limit 255, and of which the checksum is
 * right; owner is the segment, and the tenant 16 bits up. An answer ends the frame.
 */
__attribute__((noinline)) __u32 nd_answer(struct xdp_md *ctx, __u32 link, __u32 l3, __u32 owner)
{
	struct nd *nd = ctx_at(ctx, l3, ND_SOLICIT_LEN);
	struct ethhdr *eth = ctx_at(ctx, link, sizeof(*eth));
	__u32 segment = owner & 0xffff, flags = ND_OVERRIDE, grow;
	struct segment *s;
	const __be32 *src;
	enum answer answer;
	__u8 mac[8] = {};
	int unspecified;

	/* RFC 4861 section 7.1.1. */
	if (!nd || !eth || nd->type != ND_SOLICIT || nd->code)
		return PASS_ND;
	src = nd->ip.saddr.s6_addr32;
	unspecified = !(src[0] | src[1] | src[2] | src[3]);
	if (ip6_multicast(src) || eth->h_source[0] & 1 || (unspecified && !ip6_multicast(nd->ip.daddr.s6_addr32)))
		return PASS_ND;
	answer = answer_nd(owner, nd->target, !!link, mac);
	if (answer == ANSWER_NONE || (unspecified && !defends(answer, link)) || asks_itself(eth, segment, answer))
		return PASS_ND;
	/* O = 1 even where RFC 4861 lets a proxy send 0: a host that just lost its neighbour to another site must
	 * replace the old MAC, not keep it. */
	s = bpf_map_lookup_elem(&segments, &segment);
	if (answer == ANSWER_GATEWAY && s && s->flags & SEGMENT_ROUTER)
		flags |= ND_ROUTER;
	if (shadow)
		return FWD_ND;
	grow = l3 + sizeof(*nd) - ctx_len(ctx);
	if (grow && bpf_xdp_adjust_tail(ctx, (int)grow))
		return PASS_ND;
	return nd_advertise(ctx, link, l3, flags, unspecified, mac);
}

/* May it be a neighbour solicitation? RFC 4861 section 7.1.1. */
static __always_inline int solicits(const struct pkt *p)
{
	return p->v6 && p->proto == IPPROTO_ICMPV6 && p->ttl == 255 && p->l4 == p->l3 + sizeof(struct ipv6hdr) &&
	       p->ip_len >= ND_SOLICIT_LEN && p->ip_len <= 512;
}

/* Answers what may be one, inside the Ethernet header at link. */
static __always_inline enum reason solicited(struct pkt *p, __u32 link, __u32 segment)
{
	return icmp6_right(p->ctx, p->l3, p->ip_len) ? nd_answer(p->ctx, link, p->l3, p->tenant << 16 | segment) : PASS_ND;
}

static __always_inline enum reason neigh_nd(struct pkt *p)
{
	__u32 r;

	if (!p->segment || !solicits(p))
		return PASS_ND;
	r = solicited(p, 0, p->port->segment);
	if (r == FWD_ND)
		p->egress = p->slot;
	return r;
}

static __always_inline enum reason neigh(struct pkt *p)
{
	if (p->ethertype == bpf_htons(ETH_P_ARP))
		return neigh_arp(p);
	return REASON_NONE;
}

/* Neighbour discovery hides behind an IPv6 header: called once that is parsed. */
static __always_inline enum reason neigh6(struct pkt *p)
{
	__u8 *type;

	if (!p->v6 || p->proto != IPPROTO_ICMPV6 || p->l4 >= p->l3 + p->ip_len)
		return REASON_NONE;
	type = at(p, p->l4, 1);
	if (!type)
		return DROP_SHORT;
	if (*type < 133 || *type > 137)
		return REASON_NONE;
	return neigh_nd(p);
}
