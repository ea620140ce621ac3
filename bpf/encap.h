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

/* Copies a template in two halves of fixed size, which overlap as far as it is shorter than both: so no length is a path
 * of its own. at() is asked for what is patched, which no frame is too short for.
 */
static __always_inline union outer *copy_halves(const struct pkt *p, const struct adjacency *adj, const __u32 half, const __u32 patched)
{
	__u32 rest = adj->len - half;
	__u8 *to, *second;

	if (rest > half)
		return NULL;
	second = at(p, rest, half);
	to = at(p, 0, patched);
	if (!second || !to)
		return NULL;
#pragma unroll
	for (__u32 i = 0; i < half; i += 8)
		*(__u64 *)(to + i) = *(const __u64 *)(adj->header + i);
#pragma unroll
	for (__u32 i = 0; i < half; i += 8)
		*(__u64 *)(second + i) = *(const __u64 *)(adj->header + rest + i);
	return (union outer *)to;
}

static __always_inline __u8 outer_ttl_of(const struct pkt *p, const struct adjacency *adj)
{
	/* A packet that comes from a tunnel takes its outer TTL along, less one: two gateways that each name the
	 * other cannot keep it for ever. */
	if (p->tunnelled)
		return p->outer_ttl - 1;
	return adj->flags & ADJ_COPY_TTL ? p->ttl : 64;
}

/* DSCP as the operator wants it; ECN only where the far end gives it back (RFC 6040, section 4.1; RFC 9601). */
static __always_inline __u8 outer_tos_of(const struct pkt *p, const struct adjacency *adj)
{
	__u8 dscp = outer_dscp;

	dscp = dscp == DSCP_COPY ? p->tos & 0xfc : dscp << 2;

	return adj->flags & ADJ_ECN ? dscp | (p->tos & 3) : dscp;
}

static __always_inline void patch_ip4(const struct pkt *p, const struct adjacency *adj, struct iphdr *ip)
{
	__u16 len = adj->len - sizeof(struct ethhdr) + p->ip_len;
	__u8 ttl = outer_ttl_of(p, adj), tos = outer_tos_of(p, adj);

	ip->tos = tos;
	ip->tot_len = bpf_htons(len);
	ip->ttl = ttl;
	ip->check = ~csum_fold32(adj->csum[p->v6 & 1] + bpf_htons(tos) + bpf_htons(len) + bpf_htons(ttl << 8));
}

static __always_inline void patch_ip6(const struct pkt *p, const struct adjacency *adj, struct ipv6hdr *ip)
{
	/* RFC 6438: the flow label spreads what has no port to do it. */
	*(__be32 *)ip = bpf_htonl(6u << 28 | (__u32)outer_tos_of(p, adj) << 20 | (p->flow & 0xfffff));
	ip->payload_len = bpf_htons(adj->len - sizeof(struct ethhdr) - sizeof(*ip) + p->ip_len);
	ip->hop_limit = outer_ttl_of(p, adj);
}

static __always_inline enum reason patch_proto(const struct pkt *p, const struct adjacency *adj)
{
	__u16 proto = p->v6 ? adj->proto6 : adj->proto4;
	__u8 *field;

	if (!adj->proto)
		return REASON_NONE;
	field = at(p, adj->proto, 2);
	if (!field)
		return DROP_SHORT;
	if (adj->proto_size == 2)
		*(__u16 *)field = proto;
	else
		*field = *(__u8 *)&proto;
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
	check = ~csum_fold((__u64)adj->csum[p->v6 & 1] + payload + out->v6.udp.source + 2 * (__u32)out->v6.udp.len);
	out->v6.udp.check = check ? check : 0xffff;
	return REASON_NONE;
}

/* 34 (IP in IP) to 64 bytes (VXLAN). */
static __always_inline enum reason write_outer4(const struct pkt *p, const struct adjacency *adj)
{
	union outer *out = copy_halves(p, adj, 32, sizeof(out->v4));

	if (!out)
		return DROP_NEXTHOP;
	patch_ip4(p, adj, &out->v4.ip);
	if (adj->udp)
		patch_udp(p, adj, &out->v4.udp);
	return patch_proto(p, adj);
}

/* 54 to 84 bytes. */
static __always_inline enum reason write_outer6(const struct pkt *p, const struct adjacency *adj)
{
	union outer *out = copy_halves(p, adj, 48, sizeof(out->v6));
	enum reason r;

	if (!out)
		return DROP_NEXTHOP;
	patch_ip6(p, adj, &out->v6.ip);
	if (adj->udp)
		patch_udp(p, adj, &out->v6.udp);
	r = patch_proto(p, adj);
	return !r && adj->flags & ADJ_UDP_CSUM ? patch_udp_csum(p, adj) : r;
}

static __always_inline enum reason encap(struct pkt *p, const struct adjacency *adj)
{
	enum reason r;

	if (shadow)
		return p->tunnelled ? FWD_REENCAP : FWD_ENCAP;
	if (move_head(p, (int)p->l3 - adj->len))
		return DROP_HEADROOM;
	r = adj->flags & ADJ_IPV6 ? write_outer6(p, adj) : write_outer4(p, adj);
	if (r)
		return r;
	return p->tunnelled ? FWD_REENCAP : FWD_ENCAP;
}

/* The length of a port's link header: Ethernet, and its tags. */
static __always_inline __u32 link_len(const struct port *port)
{
	__u32 tags = port->vlan ? port->inner_vlan ? 2 : 1 : 0;

	return sizeof(struct ethhdr) + tags * sizeof(struct vlan_header);
}

/* Writes the link header of a frame that leaves by a port, in front of its IP packet. */
static __always_inline enum reason put_link(const struct pkt *p, const struct port *port, const __u8 mac[6])
{
	__be16 proto = p->v6 ? bpf_htons(ETH_P_IPV6) : bpf_htons(ETH_P_IP);
	struct ethhdr *eth = at(p, 0, sizeof(*eth) + 2 * sizeof(struct vlan_header));
	struct vlan_header *tag = (void *)(eth + 1);

	if (!eth)
		return DROP_SHORT;
	mac_copy(eth->h_dest, mac);
	mac_copy(eth->h_source, port->mac);
	if (!port->vlan) {
		eth_set_proto(eth, proto);
		return REASON_NONE;
	}
	eth_set_proto(eth, port->tag_proto);
	tag->tci = bpf_htons(port->vlan);
	if (port->inner_vlan) {
		tag->proto = bpf_htons(ETH_P_8021Q);
		tag++;
		tag->tci = bpf_htons(port->inner_vlan);
	}
	tag->proto = proto;
	return REASON_NONE;
}

/* Gives the packet to a station on a port. */
static __always_inline enum reason deliver(struct pkt *p, const __u8 mac[6], const struct port *out)
{
	__u32 len = link_len(out);
	enum reason r;

	if (shadow)
		return FWD_DELIVER;
	if (p->l3 != len && move_head(p, (int)p->l3 - (int)len))
		return DROP_HEADROOM;
	r = put_link(p, out, mac);
	return r ? r : FWD_DELIVER;
}
