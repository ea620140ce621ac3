/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* From a tunnel packet to the packet inside, if everything about it is right.
 *
 * Only on an underlay port, only to one of our tunnel ends, only from a tunnel end that is known, only for a tenant: by
 * its number, or, where the encapsulation has no field for one, the tenant that the sender's locator belongs to. What is no
 * tunnel packet at all is the kernel's. The outer headers stay where they are: the walk goes on with l3 at the inner IP header.
 *
 * An encapsulation is one entry in tunnel_of(), which knows it by protocol and port, and one in open_tunnel(), which
 * steps over its header.
 */
#pragma once

#include "bridge.h"
#include "mtu.h"
#include "source.h"
#include "ttl.h"

enum tunnel {
	TUNNEL_NONE,
	TUNNEL_VXLAN,
	TUNNEL_GPE,
	TUNNEL_GENEVE,
	TUNNEL_GUE,
	TUNNEL_LISP,
	TUNNEL_GRE,
	TUNNEL_IP4,
	TUNNEL_IP6,
};

/* RFC 7348, section 5; draft-ietf-nvo3-vxlan-gpe. */
struct vxlan {
	__u8 flags;
	__u8 reserved[2];
	__u8 next;		/* GPE: next protocol */
	__be32 vni;		/* upper 24 bits */
};

/* What is usual: an Ethernet frame behind it. */
struct vxlan_frame {
	struct vxlan vxlan;
	struct ethhdr eth;
} __attribute__((packed));

#define GPE_P 0x04
#define GPE_OAM 0x01
#define NEXT_IPV4 1	/* of GPE and of LISP-GPE */
#define NEXT_IPV6 2
#define NEXT_ETHERNET 3

/* RFC 8926, section 3.4. */
struct geneve {
	__u8 options;		/* version 2 bits, length of the options in words of 4 bytes */
	__u8 flags;
	__be16 proto;
	__be32 vni;
};

#define GENEVE_CONTROL 0x80
#define GENEVE_CRITICAL 0x40

/* draft-ietf-intarea-gue, variant 0. */
struct gue {
	__u8 head;		/* variant 2 bits, control bit, length of the extensions in words of 4 bytes */
	__u8 proto;
	__be16 flags;
};

#define GUE_CONTROL 0x20

/* RFC 9300, section 5; RFC 9305. */
struct lisp {
	__u8 flags;
	__u8 nonce[2];
	__u8 next;		/* GPE */
	__be32 instance;	/* upper 24 bits, with flag I */
};

#define LISP_I 0x08
#define LISP_P 0x04
#define LISP_KEYS 0x03

/* RFC 2784, RFC 2890. */
struct gre {
	__be16 flags;
	__be16 proto;
};

#define GRE_CSUM 0x8000
#define GRE_KEY 0x2000
#define GRE_SEQUENCE 0x1000
#define GRE_UNKNOWN 0x4fff	/* routing, reserved bits and a version other than 0 */

#define ETH_P_BRIDGED 0x6558
#define OUTER_MAX (OFFSET_MAX / 2)	/* so far in, the inner headers would be out of the cursor's reach */

/* What open_tunnel() found. */
struct inner {
	__u16 l3;		/* offset of the inner packet, 0: refused */
	__be16 ethertype;
	__u32 vni;		/* or NO_VNI; the reason of a refusal */
};

#define NO_VNI 0xffffffff
#define VNI_MASK 0xffffff
#define VNI_GROUP 0x1000000	/* beside a VNI: the frame inside is for a group */

static __always_inline __u64 inner(__u32 l3, __be16 ethertype, __u32 vni)
{
	struct inner found = { .l3 = l3, .ethertype = ethertype, .vni = vni };

	return *(__u64 *)&found;
}

static __always_inline __u64 refuse(enum reason r)
{
	return inner(0, 0, r);
}

/* An Ethernet frame inside: unicast, and what it carries is judged like any inner packet. */
static __always_inline __u64 open_ethernet(struct xdp_md *ctx, __u32 off, __u32 end, __u32 vni)
{
	struct ethhdr *eth = ctx_at(ctx, off, sizeof(*eth));

	if (!eth || off + sizeof(*eth) > end)
		return refuse(DROP_TUNNEL_HEADER);
	if (eth->h_dest[0] & 1)
		return refuse(DROP_INNER_NOT_IP);
	return inner(off + sizeof(*eth), eth_proto(eth), vni);
}

static __always_inline __u64 open_proto(struct xdp_md *ctx, __u32 off, __u32 end, __u32 vni, __be16 proto)
{
	if (proto == bpf_htons(ETH_P_BRIDGED))
		return open_ethernet(ctx, off, end, vni);
	return inner(off, proto, vni);
}

static __always_inline __u64 open_next(struct xdp_md *ctx, __u32 off, __u32 end, __u32 vni, __u8 next)
{
	switch (next) {
	case NEXT_IPV4:
		return inner(off, bpf_htons(ETH_P_IP), vni);
	case NEXT_IPV6:
		return inner(off, bpf_htons(ETH_P_IPV6), vni);
	case NEXT_ETHERNET:
		return open_ethernet(ctx, off, end, vni);
	}
	return refuse(DROP_INNER_NOT_IP);
}

/* The header is an IP packet's, of the version that its first bits say. */
static __always_inline __u64 open_ip(struct xdp_md *ctx, __u32 off, __u32 vni)
{
	__u8 *first = ctx_at(ctx, off, 1);

	if (!first)
		return refuse(DROP_SHORT);
	return inner(off, *first >> 4 == 6 ? bpf_htons(ETH_P_IPV6) : bpf_htons(ETH_P_IP), vni);
}

static __always_inline __u64 open_gpe(struct xdp_md *ctx, const struct vxlan *vx, __u32 off, __u32 end)
{
	if (vx->flags & GPE_OAM)
		return refuse(DROP_TUNNEL_CONTROL);
	if ((vx->flags & (VXLAN_I | GPE_P)) != (VXLAN_I | GPE_P) || vx->flags >> 4)
		return refuse(DROP_TUNNEL_HEADER);
	return open_next(ctx, off + sizeof(*vx), end, bpf_ntohl(vx->vni) >> 8, vx->next);
}

static __always_inline __u64 open_geneve(struct xdp_md *ctx, const struct geneve *g, __u32 off, __u32 end)
{
	if (g->options >> 6)
		return refuse(DROP_TUNNEL_HEADER);
	if (g->flags & GENEVE_CONTROL)
		return refuse(DROP_TUNNEL_CONTROL);
	if (g->flags & GENEVE_CRITICAL)
		return refuse(DROP_TUNNEL_OPTION); /* we know no option at all */
	off += sizeof(*g) + (g->options & 0x3f) * 4;
	if (off > end)
		return refuse(DROP_TUNNEL_HEADER);
	return open_proto(ctx, off, end, bpf_ntohl(g->vni) >> 8, g->proto);
}

static __always_inline __u64 open_gue(struct xdp_md *ctx, const struct gue *g, __u32 off, __u32 end)
{
	__u8 proto = g->proto;

	if (g->head >> 6 == 1) /* variant 1: no header at all */
		return open_ip(ctx, off, NO_VNI);
	if (g->head >> 6)
		return refuse(DROP_TUNNEL_HEADER);
	if (g->head & GUE_CONTROL)
		return refuse(DROP_TUNNEL_CONTROL);
	if (g->flags)
		return refuse(DROP_TUNNEL_OPTION);
	off += sizeof(*g) + (g->head & 0x1f) * 4;
	if (off > end)
		return refuse(DROP_TUNNEL_HEADER);
	if (proto == IPPROTO_IPIP)
		return inner(off, bpf_htons(ETH_P_IP), NO_VNI);
	if (proto == IPPROTO_IPV6)
		return inner(off, bpf_htons(ETH_P_IPV6), NO_VNI);
	return refuse(DROP_INNER_NOT_IP);
}

static __always_inline __u64 open_lisp(struct xdp_md *ctx, const struct lisp *l, __u32 off, __u32 end)
{
	__u32 instance = l->flags & LISP_I ? bpf_ntohl(l->instance) >> 8 : NO_VNI;

	if (l->flags & LISP_KEYS)
		return refuse(DROP_TUNNEL_OPTION); /* encrypted (RFC 8061) */
	off += sizeof(*l);
	if (off >= end)
		return refuse(DROP_TUNNEL_HEADER);
	if (l->flags & LISP_P)
		return open_next(ctx, off, end, instance, l->next);
	return open_ip(ctx, off, instance);
}

/* RFC 2784, section 2.3: the checksum covers header and payload. */
static __always_inline int gre_checksum_right(struct xdp_md *ctx, __u32 off, __u32 end)
{
	__s64 sum = csum_bytes(ctx, off, end - off);

	return sum >= 0 && csum_fold(sum) == 0xffff;
}

static __always_inline __u64 open_gre(struct xdp_md *ctx, const struct gre *g, __u32 off, __u32 end)
{
	__u32 flags = bpf_ntohs(g->flags), vni = NO_VNI;
	__be16 proto = g->proto;
	__u32 at = off + sizeof(*g);

	if (flags & GRE_UNKNOWN)
		return refuse(DROP_TUNNEL_HEADER);
	if (flags & GRE_CSUM) {
		if (!gre_checksum_right(ctx, off, end))
			return refuse(DROP_TUNNEL_CHECKSUM);
		at += 4;
	}
	if (flags & GRE_KEY) {
		__be32 *key = ctx_at(ctx, at, sizeof(*key));

		if (!key)
			return refuse(DROP_TUNNEL_HEADER);
		vni = bpf_ntohl(*key);
		if (vni >> 24)
			return refuse(DROP_UNKNOWN_VNI);
		at += 4;
	}
	if (flags & GRE_SEQUENCE)
		at += 4;
	if (at > end)
		return refuse(DROP_TUNNEL_HEADER);
	return open_proto(ctx, at, end, vni, proto);
}

/* Steps over the header at off of a tunnel packet that ends at end; returns struct inner as a word. A global function: verified
 * once, by itself.
 */
__attribute__((noinline)) __u64 open_tunnel(struct xdp_md *ctx, __u32 off, __u32 end, __u32 kind)
{
	void *header = ctx_at(ctx, off, 8);

	off &= OFFSET_MAX;
	if (kind == TUNNEL_IP4)
		return inner(off, bpf_htons(ETH_P_IP), NO_VNI);
	if (kind == TUNNEL_IP6)
		return inner(off, bpf_htons(ETH_P_IPV6), NO_VNI);
	if (!header || off + (kind == TUNNEL_GRE || kind == TUNNEL_GUE ? 4 : 8) > end)
		return refuse(DROP_TUNNEL_HEADER);
	switch (kind) {
	case TUNNEL_GPE:
		return open_gpe(ctx, header, off, end);
	case TUNNEL_GENEVE:
		return open_geneve(ctx, header, off, end);
	case TUNNEL_GUE:
		return open_gue(ctx, header, off, end);
	case TUNNEL_LISP:
		return open_lisp(ctx, header, off, end);
	case TUNNEL_GRE:
		return open_gre(ctx, header, off, end);
	}
	return refuse(DROP_TUNNEL_HEADER);
}

/* The usual case, without the call. A group may be asked for somebody: tenant_of() knows whether it may here. */
static __always_inline __u64 open_vxlan(struct xdp_md *ctx, __u32 off, __u32 end)
{
	struct vxlan_frame *f = ctx_at(ctx, off, sizeof(*f));
	__u32 l3 = off + sizeof(*f), vni;

	if (!f || !(f->vxlan.flags & VXLAN_I) || l3 > end)
		return refuse(DROP_TUNNEL_HEADER);
	vni = bpf_ntohl(f->vxlan.vni) >> 8;
	if (f->eth.h_dest[0] & 1) {
		if (!bridging)
			return refuse(DROP_INNER_NOT_IP);
		vni |= VNI_GROUP;
	}
	return inner(l3, eth_proto(&f->eth), vni);
}

/* RFC 6040, section 4.2: what the two ECN fields become; 4 for a packet to drop. */
static __always_inline __u32 ecn_decap(__u32 inner, __u32 outer)
{
	if (outer == 3)
		return inner ? 3 : 4;
	if (outer == 1 && inner == 2)
		return 1;
	return inner;
}

/* Writes the ECN field of the inner header, and its checksum. */
static __always_inline enum reason ecn_apply(struct pkt *p)
{
	__u32 ecn = ecn_decap(p->tos & 3, p->outer_tos & 3);
	__u8 tos = (p->tos & ~3) | (ecn & 3);

	if (ecn > 3)
		return DROP_ECN;
	if (tos == p->tos)
		return REASON_NONE;
	if (shadow) {
		p->tos = tos;
		return REASON_NONE;
	}
	if (p->v6) {
		__u8 *b = at(p, p->l3, 2);

		if (!b)
			return DROP_SHORT;
		b[1] = (b[1] & 0xcf) | (ecn & 3) << 4;
	} else {
		struct iphdr *ip = at(p, p->l3, sizeof(*ip));

		if (!ip)
			return DROP_SHORT;
		ip->check = csum_replace(ip->check, bpf_htons(p->tos), bpf_htons(tos));
		ip->tos = tos;
	}
	p->tos = tos;
	return REASON_NONE;
}

static __always_inline enum tunnel tunnel_of_port(__be16 port)
{
	if (port == bpf_htons(vxlan_port))
		return TUNNEL_VXLAN;
	if (port == bpf_htons(vxlan_gpe_port))
		return TUNNEL_GPE;
	if (port == bpf_htons(geneve_port))
		return TUNNEL_GENEVE;
	if (port == bpf_htons(gue_port))
		return TUNNEL_GUE;
	if (port == bpf_htons(lisp_port))
		return TUNNEL_LISP;
	return TUNNEL_NONE;
}

/* What the packet is by its protocol and port: enum tunnel. A global function: what follows is verified once, not for each kind. */
__attribute__((noinline)) __u32 tunnel_of(struct xdp_md *ctx, __u32 proto, __u32 l4)
{
	struct udphdr *udp;

	switch (proto) {
	case IPPROTO_UDP:
		udp = ctx_at(ctx, l4, sizeof(*udp));
		return udp ? tunnel_of_port(udp->dest) : TUNNEL_NONE;
	case IPPROTO_GRE:
		return TUNNEL_GRE;
	case IPPROTO_IPIP:
		return TUNNEL_IP4;
	case IPPROTO_IPV6:
		return TUNNEL_IP6;
	}
	return TUNNEL_NONE;
}

/* The usual case, without the call. */
static __always_inline __u32 tunnel_kind(const struct pkt *p)
{
	struct udphdr *udp = at(p, p->l4, sizeof(*udp));

	if (p->proto == IPPROTO_UDP && udp && udp->dest == bpf_htons(vxlan_port))
		return TUNNEL_VXLAN;
	return tunnel_of(p->ctx, p->proto, p->l4);
}

/* Where the tunnel's header begins and its packet ends; end is 0 where lengths make no sense. */
static __always_inline __u32 tunnel_bounds(const struct pkt *p, __u32 *off)
{
	__u32 end = p->l3 + p->ip_len, len;
	struct udphdr *udp;

	*off = p->l4;
	if (p->proto != IPPROTO_UDP)
		return end;
	udp = at(p, p->l4, sizeof(*udp));
	if (!udp)
		return 0;
	len = bpf_ntohs(udp->len);
	*off = p->l4 + sizeof(*udp);
	return len < sizeof(*udp) || len > end - p->l4 ? 0 : p->l4 + len;
}

/* What was bridged, or is for a group. value is the VNI's. */
static __always_inline enum reason segment_of(struct pkt *p, __u32 kind, __u32 value)
{
	__u32 index = value & ~VNI_SEGMENT;
	struct segment *s = bpf_map_lookup_elem(&segments, &index);

	if (!(value & VNI_SEGMENT))
		return value ? DROP_INNER_NOT_IP : DROP_UNKNOWN_VNI;
	if (kind != TUNNEL_VXLAN || !s)
		return DROP_UNKNOWN_VNI;
	p->tenant = s->tenant;
	return REASON_NONE;
}

static __always_inline enum reason tenant_of(struct pkt *p, __u32 kind, __u32 vni)
{
	__u32 index = p->from, tenant;
	struct locator *l;

	if (vni == NO_VNI) {
		l = bpf_map_lookup_elem(&locators, &index);
		p->tenant = l ? l->tenant : 0;
		return p->tenant ? REASON_NONE : DROP_NO_TENANT;
	}
	tenant = find_front4(SPACE_VNI, bridging ? vni & VNI_MASK : vni);
	if (bridging) {
		/* Without a branch: to the verifier both kinds look alike from here. */
		p->bridge = (tenant & ~VNI_SEGMENT) & -(tenant / VNI_SEGMENT);
		p->outer = p->l3;
		if (tenant & VNI_SEGMENT || vni & VNI_GROUP)
			return segment_of(p, kind, tenant);
	}
	p->tenant = tenant;
	return tenant ? REASON_NONE : DROP_UNKNOWN_VNI;
}

/* Steps from the outer IP header to the inner one. */
static __always_inline enum reason step_inside(struct pkt *p, __u32 kind)
{
	union {
		__u64 word;
		struct inner found;
	} in;
	enum reason r;
	__u32 off, end;

	end = tunnel_bounds(p, &off);
	if (p->l4 > OUTER_MAX || !end)
		return DROP_TUNNEL_HEADER;
	p->from = find_outer_source(p);
	if (!p->from || p->from == LOCATOR_OWN)
		return DROP_UNKNOWN_LOCATOR;
	in.word = kind == TUNNEL_VXLAN ? open_vxlan(p->ctx, off, end) : open_tunnel(p->ctx, off, end, kind);
	if (!in.found.l3)
		return in.found.vni;
	if (in.found.l3 > OFFSET_MAX || in.found.l3 > end)
		return DROP_TUNNEL_HEADER;
	r = tenant_of(p, kind, in.found.vni);
	if (r)
		return r;
	p->tunnelled = 1;
	p->outer_ttl = p->ttl;
	p->outer_tos = p->tos;
	p->segment = NULL;
	p->ours = 1;
	p->ethertype = in.found.ethertype;
	p->l3 = in.found.l3;
	p->room = end - p->l3;
	return REASON_NONE;
}

/* What the outer header's fields mean for the inner one. */
static __always_inline enum reason merge(struct pkt *p, __u32 kind)
{
	enum reason r = ecn_apply(p);
	struct locator *l;
	__u32 index = p->from;

	if (!r && kind == TUNNEL_LISP && p->outer_ttl < p->ttl)
		r = ttl_set(p, p->outer_ttl);
	if (!r && p->proto == IPPROTO_TCP && mss_clamp) {
		l = bpf_map_lookup_elem(&locators, &index);
		if (l && l->mtu)
			mss(p, l->mtu);
	}
	return r;
}

static __always_inline enum reason decap(struct pkt *p)
{
	enum reason r;
	__u32 kind;

	if (!(p->port->role & ROLE_UNDERLAY) || is_later_fragment(p) || !p->ours)
		return REASON_NONE;
	kind = tunnel_kind(p);
	if (kind == TUNNEL_NONE || find_outer_destination(p) != LOCATOR_OWN)
		return REASON_NONE;
	if (is_fragment(p))
		return DROP_OUTER_FRAGMENT;
	r = step_inside(p, kind);
	if (r)
		return r;
	if (bridging && p->bridge && p->ethertype == bpf_htons(ETH_P_ARP))
		return bridged_arp(p);
	r = parse_ip(p);
	if (r)
		return r == PASS_NOT_IP ? DROP_INNER_NOT_IP : r;
	if (bridging && p->bridge)
		r = bridged_ip(p);
	if (r)
		return r;
	r = check_scope(p);
	if (r)
		return r >= DROP_SHORT || r == PASS_LINK_LOCAL ? r : DROP_MARTIAN; /* link-local: a probe, perhaps */
	return merge(p, kind);
}
