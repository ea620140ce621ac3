/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* ARP (RFC 826) and neighbour discovery (RFC 4861) answered where the question arrives.
 *
 * A host asks for the MAC of an address. We know the answer when the address is a gateway address of its segment, or a
 * host that lives at another site: then the segment's MAC is the right one, because we are the way there. Everything
 * else is for the kernel, which owns this gateway's other addresses. Two questions look the same and are not: a host
 * that announces or probes its own address (RFC 5227, DAD) is never answered against it from the mobility table.
 *
 * Replies are made in the frame that asked and leave by the port it came from; VLAN tags stay.
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
};

static __always_inline enum answer answer_of(const struct pkt *p, __u32 id)
{
	struct nexthop *nh = bpf_map_lookup_elem(&nexthops, &id);

	if (!id || !nh)
		return ANSWER_NONE;
	switch (nh->kind) {
	case NH_GATEWAY:
		return p->segment->flags & SEGMENT_STICK ? ANSWER_NONE : ANSWER_GATEWAY;
	case NH_ADJACENCY:
	case NH_SET:
	case NH_UNRESOLVED:
		return ANSWER_PROXY;
	}
	return ANSWER_NONE;
}

static __always_inline __u32 read32(const __u8 *b)
{
	return (__u32)b[0] << 24 | (__u32)b[1] << 16 | (__u32)b[2] << 8 | b[3];
}

static __always_inline enum reason neigh_arp(struct pkt *p)
{
	struct arp *arp = at(p, p->l3, sizeof(*arp));
	struct ethhdr *eth = at(p, 0, sizeof(*eth));
	__u32 sender, target;
	enum answer answer;
	__u8 tmp[4];

	if (!arp || !eth)
		return DROP_SHORT;
	if (!p->segment || arp->hardware != bpf_htons(ARP_ETHERNET) || arp->protocol != bpf_htons(ETH_P_IP) ||
	    arp->hardware_len != ETH_ALEN || arp->protocol_len != 4 || arp->op != bpf_htons(ARP_REQUEST) ||
	    arp->sender_mac[0] & 1 || eth->h_source[0] & 1)
		return PASS_ARP;
	sender = read32(arp->sender_ip);
	target = read32(arp->target_ip);
	if (sender == target)
		return PASS_ARP;
	answer = answer_of(p, find_host4(p->tenant, target));
	if (answer == ANSWER_NONE || (answer == ANSWER_PROXY && !sender))
		return PASS_ARP;

	arp->op = bpf_htons(ARP_REPLY);
	__builtin_memcpy(tmp, arp->target_ip, 4);
	mac_copy(arp->target_mac, arp->sender_mac);
	__builtin_memcpy(arp->target_ip, arp->sender_ip, 4);
	mac_copy(arp->sender_mac, p->segment->mac);
	__builtin_memcpy(arp->sender_ip, tmp, 4);
	mac_copy(eth->h_dest, eth->h_source);
	mac_copy(eth->h_source, p->segment->mac);
	p->egress = p->slot;
	return FWD_ARP;
}

static __always_inline enum reason nd_advertise(struct pkt *p, __u32 flags, int to_all)
{
	int extra = (int)(p->l3 + sizeof(struct nd)) - (int)frame_len(p);
	struct ethhdr *eth;
	struct nd *nd;
	__s64 sum;

	if (move_tail(p, extra))
		return PASS_ND;
	eth = at(p, 0, sizeof(*eth));
	nd = at(p, p->l3, sizeof(*nd));
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
	mac_copy(eth->h_source, p->segment->mac);
	__builtin_memcpy(&nd->ip.saddr, nd->target, 16);
	nd->ip.payload_len = bpf_htons(sizeof(*nd) - sizeof(nd->ip));
	nd->ip.hop_limit = 255;
	nd->type = ND_ADVERT;
	nd->csum = 0;
	nd->flags = bpf_htonl(flags);
	nd->option = ND_TARGET_MAC;
	nd->option_len = 1;
	mac_copy(nd->mac, p->segment->mac);
	sum = csum_icmp6(p, p->l3, sizeof(*nd));
	if (sum < 0)
		return DROP_SHORT;
	nd = at(p, p->l3, sizeof(*nd));
	if (!nd)
		return DROP_SHORT;
	nd->csum = ~csum_fold(sum);
	p->egress = p->slot;
	return FWD_ND;
}

static __always_inline enum reason neigh_nd(struct pkt *p)
{
	struct nd *nd = at(p, p->l3, ND_SOLICIT_LEN);
	struct ethhdr *eth = at(p, 0, sizeof(*eth));
	int unspecified = !(p->src6[0] | p->src6[1] | p->src6[2] | p->src6[3]);
	enum answer answer;
	__be32 target[4];
	__u32 flags;
	__s64 sum;

	/* RFC 4861 section 7.1.1. */
	if (!p->segment || !nd || !eth || nd->type != ND_SOLICIT || nd->code || p->ttl != 255 ||
	    p->l4 != p->l3 + sizeof(struct ipv6hdr) || p->ip_len < ND_SOLICIT_LEN || p->ip_len > 512)
		return PASS_ND;
	if (ip6_multicast(p->src6) || eth->h_source[0] & 1 || (unspecified && !ip6_multicast(p->dst6)))
		return PASS_ND;
	__builtin_memcpy(target, nd->target, sizeof(target));
	if (ip6_link_local(target)) {
		const __be32 *ll = p->segment->gateway_ll;

		answer = ll[0] && ll[0] == target[0] && ll[1] == target[1] && ll[2] == target[2] && ll[3] == target[3] &&
				 !(p->segment->flags & SEGMENT_STICK) ?
				 ANSWER_GATEWAY : ANSWER_NONE;
	} else {
		answer = answer_of(p, find_address6(p->tenant, target));
	}
	if (answer == ANSWER_NONE || (answer == ANSWER_PROXY && unspecified))
		return PASS_ND;
	sum = csum_icmp6(p, p->l3, p->ip_len);
	if (sum < 0 || csum_fold(sum) != 0xffff)
		return PASS_ND;
	/* O = 1 even where RFC 4861 lets a proxy send 0: a host that just lost its neighbour to another site must
	 * replace the old MAC, not keep it. */
	flags = ND_OVERRIDE;
	if (answer == ANSWER_GATEWAY && p->segment->flags & SEGMENT_ROUTER)
		flags |= ND_ROUTER;
	return nd_advertise(p, flags, unspecified);
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
