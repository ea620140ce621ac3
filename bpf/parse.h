/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* Link and IP headers into struct pkt: who received the frame, and whether the packet makes sense.
 *
 * A packet that a router must not forward for reasons of its header alone ends here. What comes behind the header is
 * read only for the flow hash, the tunnel and neighbour discovery.
 */
#pragma once

#include "csum.h"
#include "maps.h"

/* tags is the outer VLAN, and the inner one 12 bits up. */
static __always_inline __u32 port_slot(__u32 ifindex, __u32 tags, __u32 probe)
{
	__u32 hash = ifindex * 0x9E3779B1U + tags * 0x85EBCA6BU;

	return ((hash >> 24) + probe) % PORTS;
}

static __always_inline enum reason port_find(struct pkt *p, __u16 vlan, __u16 inner)
{
	__u32 ifindex = p->ctx->ingress_ifindex;

#pragma unroll
	for (__u32 i = 0; i < PORT_PROBES; i++) {
		__u32 slot = port_slot(ifindex, vlan | inner << 12, i);
		struct port *port = bpf_map_lookup_elem(&ports, &slot);

		if (port && port->ifindex == ifindex && port->vlan == vlan && port->inner_vlan == inner) {
			p->port = port;
			p->slot = slot;
			return REASON_NONE;
		}
	}
	return PASS_NO_PORT;
}

static __always_inline int is_tag(__be16 proto)
{
	return proto == bpf_htons(ETH_P_8021Q) || proto == bpf_htons(ETH_P_8021AD);
}

/* Steps over a VLAN tag, if one is there. */
static __always_inline enum reason parse_tag(struct pkt *p, __u16 *vlan)
{
	struct vlan_header *tag;

	if (!is_tag(p->ethertype))
		return REASON_NONE;
	tag = at(p, p->l3, sizeof(*tag));
	if (!tag)
		return DROP_SHORT;
	*vlan = bpf_ntohs(tag->tci) & 0xfff;
	p->ethertype = tag->proto;
	p->l3 += sizeof(*tag);
	return REASON_NONE;
}

static __always_inline enum reason parse_link(struct pkt *p)
{
	struct ethhdr *eth = at(p, 0, sizeof(*eth));
	enum reason r;
	__u16 vlan = 0, inner = 0;

	if (!eth)
		return DROP_SHORT;
	p->l3 = sizeof(*eth);
	p->ethertype = eth_proto(eth);
	if (is_tag(p->ethertype)) {
		r = parse_tag(p, &vlan);
		if (!r)
			r = parse_tag(p, &inner);
		if (r)
			return r;
	}
	r = port_find(p, vlan, inner);
	if (r)
		return r;
	p->tenant = p->port->tenant;
	if (p->port->role & ROLE_ACCESS) {
		__u32 index = p->port->segment;

		if (index)
			p->segment = bpf_map_lookup_elem(&segments, &index);
	}
	p->multicast = eth->h_dest[0] & 1;
	p->ours = mac_equal(eth->h_dest, p->port->mac) || (p->segment && mac_equal(eth->h_dest, p->segment->mac));
	return REASON_NONE;
}

/* RFC 1812 section 5.3.7, RFC 6890: no packet comes from these, and none is sent to these by a router. */
static __always_inline int martian4(__u32 src, __u32 dst)
{
	__u32 s = src >> 24, d = dst >> 24;

	return s == 0 || s == 127 || s >= 224 || d == 0 || d == 127 || (d >= 240 && dst != 0xffffffff);
}

static __always_inline enum reason parse_ip4(struct pkt *p)
{
	struct iphdr *ip = at(p, p->l3, sizeof(*ip));
	__u32 ihl, len;

	if (!ip)
		return DROP_SHORT;
	ihl = *(__u8 *)ip - 0x40; /* less the version: out of range unless it is 4 */
	len = bpf_ntohs(ip->tot_len);
	if (ihl - 5 > 10 || len < ihl * 4 || len > p->room)
		return DROP_IP_HEADER;
	p->v6 = 0;
	p->proto = ip->protocol;
	p->ttl = ip->ttl;
	p->tos = ip->tos;
	p->frag = bpf_ntohs(ip->frag_off);
	p->ip_len = len;
	p->src4 = bpf_ntohl(ip->saddr);
	p->dst4 = bpf_ntohl(ip->daddr);
	p->l4 = p->l3 + ihl * 4;
	return csum_ip4_right(p, ip, p->l3, ihl) ? REASON_NONE : DROP_IP_CHECKSUM;
}

struct ip6_extension {
	__u8 next;
	__u8 len;
	__be16 offset;	/* of a fragment header */
};

#define EXTENSIONS_MAX 6

struct extensions {
	__u16 l4;	/* offset behind them */
	__u8 proto;	/* of what is there; IPPROTO_NONE where nothing is, or too deep: the addresses must do for the flow hash */
	__u8 pad;
	__u16 frag;	/* as IPv4 has it */
	__u16 pad2;
};

static __always_inline int is_extension(__u8 proto)
{
	return proto == IPPROTO_HOPOPTS || proto == IPPROTO_ROUTING || proto == IPPROTO_DSTOPTS || proto == IPPROTO_FRAGMENT;
}

/* Follows the extension headers of a packet that ends at end, as far as the flow hash cares; returns struct extensions
 * as a word. A global function: verified once, by itself, instead of on every path that leads here.
 */
__attribute__((noinline)) __u64 walk_extensions(struct xdp_md *ctx, __u32 l4, __u32 end, __u8 proto)
{
	void *start = (void *)(long)ctx->data;
	void *data_end = (void *)(long)ctx->data_end;
	struct extensions out = {};

	for (int i = 0; i < EXTENSIONS_MAX && is_extension(proto); i++) {
		struct ip6_extension *ext = start + (l4 & OFFSET_MAX);

		if (l4 > OFFSET_MAX || l4 + 8 > end || (void *)(ext + 1) > data_end)
			goto none;
		if (proto == IPPROTO_FRAGMENT) {
			__u16 frag = bpf_ntohs(ext->offset);

			out.frag |= frag >> 3 | (frag & 1 ? IP_MF : 0);
			l4 += 8;
		} else {
			l4 += (ext->len + 1) * 8;
		}
		proto = ext->next;
		if (out.frag & IP_OFFSET)
			goto none;
	}
	if (l4 > OFFSET_MAX || l4 > end || is_extension(proto))
		goto none;
	out.proto = proto;
	out.l4 = l4;
	return *(__u64 *)&out;
none:
	out.proto = IPPROTO_NONE;
	out.l4 = l4 & OFFSET_MAX;
	return *(__u64 *)&out;
}

/* Moves l4 and proto behind the extension headers. */
static __always_inline void parse_extensions(struct pkt *p)
{
	union {
		__u64 word;
		struct extensions found;
	} ext = { .word = walk_extensions(p->ctx, p->l4, p->l3 + p->ip_len, p->proto) };

	p->l4 = ext.found.l4;
	p->proto = ext.found.proto;
	p->frag = ext.found.frag | IP_DF;
}

static __always_inline int ip6_multicast(const __be32 a[4])
{
	return (a[0] & bpf_htonl(0xff000000)) == bpf_htonl(0xff000000);
}

/* RFC 4291 section 2.5 and RFC 6890: unspecified, loopback and IPv4-mapped addresses are on no wire. */
static __always_inline int ip6_on_no_wire(const __be32 a[4])
{
	return !a[0] && !a[1] && (a[2] == bpf_htonl(0xffff) || (!a[2] && bpf_ntohl(a[3]) <= 1));
}

static __always_inline int martian6(const __be32 src[4], const __be32 dst[4])
{
	return ip6_multicast(src) || ip6_on_no_wire(src) || ip6_on_no_wire(dst);
}

static __always_inline enum reason parse_ip6(struct pkt *p)
{
	struct ipv6hdr *ip = at(p, p->l3, sizeof(*ip));
	__u32 first;

	if (!ip)
		return DROP_SHORT;
	first = bpf_ntohl(*(__be32 *)ip);
	p->ip_len = bpf_ntohs(ip->payload_len) + sizeof(*ip);
	if (first >> 28 != 6 || p->ip_len > p->room)
		return DROP_IP_HEADER;
	p->v6 = 1;
	p->proto = ip->nexthdr;
	p->ttl = ip->hop_limit;
	p->tos = first >> 20;
	p->frag = IP_DF;
	__builtin_memcpy(p->src6, &ip->saddr, sizeof(p->src6));
	__builtin_memcpy(p->dst6, &ip->daddr, sizeof(p->dst6));
	p->l4 = p->l3 + sizeof(*ip);
	if (is_extension(p->proto))
		parse_extensions(p);
	return REASON_NONE;
}

static __always_inline enum reason parse_ip(struct pkt *p)
{
	if (p->ethertype == bpf_htons(ETH_P_IP))
		return parse_ip4(p);
	if (p->ethertype == bpf_htons(ETH_P_IPV6))
		return parse_ip6(p);
	return PASS_NOT_IP;
}

static __always_inline int ip6_link_local(const __be32 a[4])
{
	return (a[0] & bpf_htonl(0xffc00000)) == bpf_htonl(0xfe800000);
}

/* Most addresses have a first octet about which nothing needs to be known. */
static __always_inline int ordinary4(__u32 addr)
{
	__u32 first = addr >> 24;

	return first - 1 < 223 && first != 127 && first != 169;
}

/* Addresses that end a packet's way through a router, whatever the tables say. */
static __always_inline enum reason check_scope(const struct pkt *p)
{
	if (p->v6) {
		if (ip6_multicast(p->dst6))
			return PASS_MULTICAST;
		if (martian6(p->src6, p->dst6))
			return DROP_MARTIAN;
		if (ip6_link_local(p->src6) || ip6_link_local(p->dst6))
			return PASS_LINK_LOCAL;
		return REASON_NONE;
	}
	if (ordinary4(p->src4) && ordinary4(p->dst4))
		return REASON_NONE;
	if (p->dst4 >> 28 == 14 || p->dst4 == 0xffffffff)
		return PASS_MULTICAST;
	if (martian4(p->src4, p->dst4))
		return DROP_MARTIAN;
	if (p->src4 >> 16 == 0xa9fe || p->dst4 >> 16 == 0xa9fe)
		return PASS_LINK_LOCAL;
	return REASON_NONE;
}
