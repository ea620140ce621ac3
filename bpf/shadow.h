/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* Shadow mode: the walk decides and does nothing, and what hosts send is noted for who plans their move.
 *
 * The walk's steps stop short of their first write where load-time constant shadow is set, and say what they would have done: so its
 * reasons are the live ones, and the frame is the kernel's as it came, by one verdict. Noted is what a router in the way would end
 * (by host), and who talks to whom (by pair, both ends in our subnets: with the rest of the world every group would be one).
 * Notes are bounded: what was not heard of for longest makes room. A switch shows a port what is flooded or meant for it: of
 * neighbours that talk to each other only a mirror port shows more.
 */
#pragma once

#include "sight.h"

#define DHCP_SERVER 67
#define DHCP6_SERVER 547

struct shadow_note {
	struct shadow_key host;
	__u64 to_hi, to_lo;
	__u32 signs;		/* a bit for each */
	__u32 len;
	__u32 largest;
};

/* 00-00-5e-00-01 and -02 (RFC 9568), 00-00-0c-07-ac, 00-00-0c-9f-f, 00-07-b4. */
static __always_inline int virtual_mac(const __u8 *m)
{
	__u32 first = m[0] << 16 | m[1] << 8 | m[2], next = m[3] << 8 | m[4];

	return (first == 0x00005e && (next == 0x0001 || next == 0x0002)) ||
	       (first == 0x00000c && (next == 0x07ac || next >> 4 == 0x9ff)) || first == 0x0007b4;
}

static __always_inline void shadow_pair(const struct shadow_note *n, __u32 tenant)
{
	struct shadow_pair key = { .a_hi = n->host.hi, .a_lo = n->host.lo, .b_hi = n->to_hi, .b_lo = n->to_lo, .tenant = tenant };
	struct counter fresh = {}, *c;

	if (key.a_hi > key.b_hi || (key.a_hi == key.b_hi && key.a_lo > key.b_lo)) {
		key.a_hi = n->to_hi;
		key.a_lo = n->to_lo;
		key.b_hi = n->host.hi;
		key.b_lo = n->host.lo;
	}
	c = bpf_map_lookup_elem(&shadow_pairs, &key);
	if (!c) {
		bpf_map_update_elem(&shadow_pairs, &key, &fresh, BPF_NOEXIST);
		c = bpf_map_lookup_elem(&shadow_pairs, &key);
	}
	if (!c)
		return;
	__sync_fetch_and_add(&c->packets, 1);
	__sync_fetch_and_add(&c->bytes, n->len);
}

static __always_inline void shadow_host(const struct shadow_note *n, __u32 slot, const __u8 *mac)
{
	struct shadow_host fresh = { .port = slot }, *h = bpf_map_lookup_elem(&shadow_hosts, &n->host);

	if (!h) {
		bpf_map_update_elem(&shadow_hosts, &n->host, &fresh, BPF_NOEXIST);
		h = bpf_map_lookup_elem(&shadow_hosts, &n->host);
	}
	if (!h)
		return;
#pragma unroll
	for (int i = 0; i < SHADOW_SIGNS; i++)
		if (n->signs >> i & 1)
			__sync_fetch_and_add(&h->count[i], 1);
	__sync_fetch_and_add(&h->bytes, n->len);
	if (h->largest < n->largest)
		h->largest = n->largest;
	mac_copy(h->mac, mac);
}

static __always_inline int speaks_dhcp(struct xdp_md *ctx, __u32 l4, __u32 port)
{
	struct udphdr *udp = ctx_at(ctx, l4, sizeof(*udp));

	return udp && (udp->dest == bpf_htons(port) || udp->source == bpf_htons(port));
}

/* What kind of destination it is: multicast, broadcast, a neighbour, or nothing of these. */
static __always_inline __u32 shadow_signs(const struct shadow_note *n, const __u8 *to_mac, __u32 tenant, __u32 ttl, int nd)
{
	__u32 to4 = bpf_ntohl(n->to_lo >> 32);
	int v4 = is4(n->to_hi, n->to_lo);

	if (v4 ? to4 >> 28 == 14 : (__u8)n->to_hi == 0xff)
		return nd ? 0 : 1 << SHADOW_MULTICAST;
	if (v4 && (to4 == 0xffffffff || to_mac[0] == 0xff))
		return 1 << SHADOW_BROADCAST;
	if ((ttl == 1 || ttl == 255) && !nd && subnet(tenant, n->to_hi, n->to_lo))
		return 1 << (ttl == 1 ? SHADOW_TTL_ONE : SHADOW_TTL_MAX);
	return 0;
}

/* Notes the IP packet of len bytes at l3, which has been parsed; where is the port's slot and 16 bits up the tenant, what the
 * protocol and 16 bits up the offset of what it carries. A global function: verified once, and absent without shadow mode.
 */
__attribute__((noinline)) int shadow_ip(struct xdp_md *ctx, __u32 where, __u32 l3, __u32 what, __u32 len)
{
	struct iphdr *ip4 = ctx_at(ctx, l3, sizeof(*ip4));
	struct ipv6hdr *ip6 = ctx_at(ctx, l3, sizeof(*ip6));
	struct ethhdr *eth = ctx_at(ctx, 0, sizeof(*eth));
	__u32 tenant = where >> 16, proto = what & 0xff, l4 = what >> 16, ttl;
	struct shadow_note n = { .len = len };
	__u8 *type;
	int nd = 0;

	if (!ip4 || !eth)
		return 0;
	n.host.tenant = tenant;
	if (ip4->version == 4) {
		n.host.lo = low4(bpf_ntohl(ip4->saddr));
		n.to_lo = low4(bpf_ntohl(ip4->daddr));
		ttl = ip4->ttl;
	} else {
		if (!ip6)
			return 0;
		n.host.hi = half(ip6->saddr.s6_addr32);
		n.host.lo = half(ip6->saddr.s6_addr32 + 2);
		n.to_hi = half(ip6->daddr.s6_addr32);
		n.to_lo = half(ip6->daddr.s6_addr32 + 2);
		ttl = ip6->hop_limit;
		type = ctx_at(ctx, l4, 1);
		nd = proto == IPPROTO_ICMPV6 && type && *type >= 130 && (*type <= 137 || *type == 143); /* and listener discovery */
	}
	n.signs = shadow_signs(&n, eth->h_dest, tenant, ttl, nd);
	if (proto == IPPROTO_UDP && speaks_dhcp(ctx, l4, n.host.hi ? DHCP6_SERVER : DHCP_SERVER))
		n.signs = 1 << SHADOW_DHCP;
	if (virtual_mac(eth->h_source))
		n.signs |= 1 << SHADOW_VIRTUAL_MAC;
	if (!mss_clamp || proto != IPPROTO_TCP)
		n.largest = len;
	if (!subnet(tenant, n.host.hi, n.host.lo)) {
		if (!n.signs || (n.host.lo != low4(0) && (n.host.hi & 0xffff) != bpf_htons(0xfe80)))
			return 0;
		n.host.hi = 0;
		n.host.lo = mac_word(eth->h_source);
		n.host.link = 1;
	}
	n.signs |= 1 << SHADOW_PACKETS;
	shadow_host(&n, where & 0xffff, eth->h_source);
	if (!n.host.link && subnet(tenant, n.to_hi, n.to_lo))
		shadow_pair(&n, tenant);
	return 0;
}

/* Of ARP only this is of interest: whose address lies behind a MAC that is shared. */
__attribute__((noinline)) int shadow_arp(struct xdp_md *ctx, __u32 where, __u32 l3)
{
	struct arp *arp = ctx_at(ctx, l3, sizeof(*arp));
	struct shadow_note n = { .signs = 1 << SHADOW_VIRTUAL_MAC };

	if (!arp || !virtual_mac(arp->sender_mac))
		return 0;
	n.host.tenant = where >> 16;
	n.host.lo = low4(read32(arp->sender_ip));
	if (subnet(n.host.tenant, 0, n.host.lo))
		shadow_host(&n, where & 0xffff, arp->sender_mac);
	return 0;
}

static __always_inline void observe(const struct pkt *p)
{
	if (shadow && run != RUN_DRY && p->segment)
		shadow_ip(p->ctx, p->slot | p->tenant << 16, p->l3, p->proto | p->l4 << 16, p->ip_len);
}

static __always_inline void observe_link(const struct pkt *p)
{
	if (shadow && run != RUN_DRY && p->segment && p->ethertype == bpf_htons(ETH_P_ARP))
		shadow_arp(p->ctx, p->slot | p->tenant << 16, p->l3);
}
