/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* The rewrite: everything in front of the IP packet is replaced by what its next hop asks for.
 *
 * A tunnel's headers come ready-made in the adjacency; what depends on the packet is patched: lengths, source port or
 * flow label, TTL, DSCP and ECN, checksum. So an encapsulation is a template and a few offsets, not a code path.
 * Lengths come from the IP header, never from the frame, which may be padded.
 */
#pragma once

#include "csum.h"
#include "maps.h"

#define SOURCE_PORT_MIN 49152	/* RFC 7348 section 5: the dynamic range */

/* The outer headers that are patched. They lie within every frame that a template was copied to: what they do not cover themselves
 * an inner IP header does.
 */
union outer {
	struct {
		struct ethhdr eth;
		struct iphdr ip;
		struct udphdr udp;
	} __attribute__((packed)) v4;
	struct {
		struct ethhdr eth;
		struct ipv6hdr ip;
		struct udphdr udp;
	} __attribute__((packed)) v6;
};

/* Copies a template whose length is known here, in words that need no alignment. */
static __always_inline union outer *copy_header(const struct pkt *p, const struct adjacency *adj, const __u32 len)
{
	__u8 *to = at(p, 0, len);
	__u32 i = 0;

	if (!to)
		return NULL;
#pragma unroll
	for (; i + 8 <= len; i += 8)
		*(__u64 *)(to + i) = *(const __u64 *)(adj->header + i);
	if (len & 4) {
		*(__u32 *)(to + i) = *(const __u32 *)(adj->header + i);
		i += 4;
	}
	if (len & 2)
		*(__u16 *)(to + i) = *(const __u16 *)(adj->header + i);
	return (union outer *)to;
}

/* One line per template length in use. */
static __always_inline union outer *copy_template(const struct pkt *p, const struct adjacency *adj)
{
	switch (adj->len) {
	case 64: /* VXLAN over IPv4 */
		return copy_header(p, adj, 64);
	case 84: /* VXLAN over IPv6 */
		return copy_header(p, adj, 84);
	}
	return NULL;
}

static __always_inline __u8 outer_ttl_of(const struct pkt *p)
{
	/* A packet that comes from a tunnel takes its outer TTL along, less one: two gateways that each name the
	 * other cannot keep it for ever. */
	return p->tunnelled ? p->outer_ttl - 1 : 64;
}

static __always_inline void patch_ip4(const struct pkt *p, const struct adjacency *adj, struct iphdr *ip)
{
	__u16 len = adj->len - sizeof(struct ethhdr) + p->ip_len;
	__u8 ttl = outer_ttl_of(p);

	ip->tos = p->tos;
	ip->tot_len = bpf_htons(len);
	ip->ttl = ttl;
	ip->check = ~csum_fold32(adj->csum + bpf_htons(p->tos) + bpf_htons(len) + bpf_htons(ttl << 8));
}

static __always_inline void patch_ip6(const struct pkt *p, const struct adjacency *adj, struct ipv6hdr *ip)
{
	/* RFC 6438: the flow label spreads what has no port to do it. */
	*(__be32 *)ip = bpf_htonl(6u << 28 | (__u32)p->tos << 20 | (p->flow & 0xfffff));
	ip->payload_len = bpf_htons(adj->len - sizeof(struct ethhdr) - sizeof(*ip) + p->ip_len);
	ip->hop_limit = outer_ttl_of(p);
}

static __always_inline __u16 inner_proto(const struct pkt *p, const struct adjacency *adj)
{
	return p->v6 ? adj->proto6 : adj->proto4;
}

static __always_inline enum reason patch_proto(const struct pkt *p, const struct adjacency *adj)
{
	__u8 *field;

	if (!adj->proto)
		return REASON_NONE;
	field = at(p, adj->proto, 2);
	if (!field)
		return DROP_SHORT;
	if (adj->proto_size == 2)
		*(__u16 *)field = inner_proto(p, adj);
	else
		*field = inner_proto(p, adj);
	return REASON_NONE;
}

static __always_inline void patch_udp(const struct pkt *p, const struct adjacency *adj, struct udphdr *udp)
{
	udp->source = bpf_htons(SOURCE_PORT_MIN | p->flow >> 18);
	udp->len = bpf_htons(adj->len - adj->udp + p->ip_len);
}

/* The outer UDP checksum, over IPv6: all that is not in the template's sum. */
static __always_inline enum reason patch_udp_csum(const struct pkt *p, const struct adjacency *adj)
{
	__s64 payload = csum_bytes(p->ctx, adj->len, p->ip_len);
	union outer *out = at(p, 0, sizeof(out->v6));
	__u16 check;

	if (payload < 0)
		return DROP_CHECKSUM_LENGTH;
	if (!out)
		return DROP_SHORT;
	check = ~csum_fold((__u64)adj->csum + payload + out->v6.udp.source + 2 * (__u32)out->v6.udp.len + inner_proto(p, adj));
	out->v6.udp.check = check ? check : 0xffff;
	return REASON_NONE;
}

static __always_inline enum reason encap(struct pkt *p, const struct adjacency *adj)
{
	union outer *out;
	enum reason r;

	if (move_head(p, (int)p->l3 - adj->len))
		return DROP_HEADROOM;
	out = copy_template(p, adj);
	if (!out)
		return DROP_NEXTHOP;
	r = patch_proto(p, adj);
	if (r)
		return r;
	if (adj->flags & ADJ_IPV6) {
		patch_ip6(p, adj, &out->v6.ip);
		if (adj->udp)
			patch_udp(p, adj, &out->v6.udp);
		if (adj->flags & ADJ_UDP_CSUM)
			r = patch_udp_csum(p, adj);
	} else {
		patch_ip4(p, adj, &out->v4.ip);
		if (adj->udp)
			patch_udp(p, adj, &out->v4.udp);
	}
	if (r)
		return r;
	return p->tunnelled ? FWD_REENCAP : FWD_ENCAP;
}

/* Puts an Ethernet header, with a VLAN tag where the port has one, in front of the IP packet. */
static __always_inline enum reason deliver(struct pkt *p, const struct local *host, const struct port *out)
{
	__u32 len = sizeof(struct ethhdr) + (out->vlan ? sizeof(struct vlan_header) : 0);
	__be16 proto = p->v6 ? bpf_htons(ETH_P_IPV6) : bpf_htons(ETH_P_IP);
	struct ethhdr *eth;

	if (p->l3 != len && move_head(p, (int)p->l3 - (int)len))
		return DROP_HEADROOM;
	eth = at(p, 0, sizeof(*eth) + sizeof(struct vlan_header));
	if (!eth)
		return DROP_SHORT;
	mac_copy(eth->h_dest, host->mac);
	mac_copy(eth->h_source, out->mac);
	if (out->vlan) {
		struct vlan_header *tag = (void *)(eth + 1);

		eth_set_proto(eth, bpf_htons(ETH_P_8021Q));
		tag->tci = bpf_htons(out->vlan);
		tag->proto = proto;
	} else {
		eth_set_proto(eth, proto);
	}
	return FWD_DELIVER;
}
