/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* From a tunnel packet to the packet inside, if everything about it is right.
 *
 * Only on an underlay port, only to one of our tunnel ends, only from a tunnel end that is known, only for a VNI that
 * is a tenant's. What is no tunnel packet at all is the kernel's. The outer headers stay where they are: the walk goes
 * on with l3 at the inner IP header.
 */
#pragma once

#include "lookup.h"
#include "parse.h"

struct vxlan {
	__u8 flags;
	__u8 reserved[3];
	__be32 vni;		/* upper 24 bits */
	struct ethhdr inner;
} __attribute__((packed));

#define VXLAN_I 0x08
#define OUTER_MAX (OFFSET_MAX / 2)	/* so far in, the inner headers would be out of the cursor's reach */

static __always_inline __u32 lookup_locator(const struct pkt *p, __u32 addr4, const __be32 addr6[4])
{
	return p->v6 ? lookup_host6(SPACE_LOCATOR, addr6) : lookup_host4(SPACE_LOCATOR, addr4);
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

/* Steps from the outer UDP header to the inner IP header. */
static __always_inline enum reason decap_vxlan(struct pkt *p, __u32 udp_len)
{
	__u32 off = p->l4 + sizeof(struct udphdr);
	struct vxlan *vx = at(p, off, sizeof(*vx));
	__u32 tenant;

	if (!vx || udp_len < sizeof(struct udphdr) + sizeof(*vx))
		return DROP_TUNNEL_HEADER;
	if (!(vx->flags & VXLAN_I))
		return DROP_TUNNEL_HEADER;
	tenant = lookup_host4(SPACE_VNI, bpf_ntohl(*(__be32 *)&vx->vni) >> 8);
	if (!tenant)
		return DROP_UNKNOWN_VNI;
	if (vx->inner.h_dest[0] & 1)
		return DROP_INNER_NOT_IP;
	p->tenant = tenant;
	p->ethertype = eth_proto(&vx->inner);
	p->l3 = off + sizeof(*vx);
	p->room = udp_len - sizeof(struct udphdr) - sizeof(*vx);
	return REASON_NONE;
}

static __always_inline enum reason decap(struct pkt *p)
{
	struct udphdr *udp;
	enum reason r;
	__u32 from, udp_len;

	if (!(p->port->role & ROLE_UNDERLAY) || p->proto != IPPROTO_UDP || p->later_fragment)
		return REASON_NONE;
	udp = at(p, p->l4, sizeof(*udp));
	if (!udp || udp->dest != bpf_htons(vxlan_port) || !p->ours)
		return REASON_NONE;
	udp_len = bpf_ntohs(udp->len);
	if (lookup_locator(p, p->dst4, p->dst6) != LOCATOR_OWN)
		return REASON_NONE;
	if (p->fragment)
		return DROP_OUTER_FRAGMENT;
	if (p->l4 > OUTER_MAX || udp_len < sizeof(*udp) || udp_len > p->ip_len - (p->l4 - p->l3))
		return DROP_TUNNEL_HEADER;
	from = lookup_locator(p, p->src4, p->src6);
	if (!from || from == LOCATOR_OWN)
		return DROP_UNKNOWN_LOCATOR;
	r = decap_vxlan(p, udp_len);
	if (r)
		return r;
	p->tunnelled = 1;
	p->from = from;
	p->outer_ttl = p->ttl;
	p->outer_tos = p->tos;
	p->segment = NULL;
	p->ours = 1;
	r = parse_ip(p);
	if (r)
		return r == PASS_NOT_IP ? DROP_INNER_NOT_IP : r;
	r = check_scope(p);
	if (r)
		return r >= DROP_SHORT ? r : DROP_MARTIAN;
	return ecn_apply(p);
}
