/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* A packet that cannot go on is turned into a message to its sender: packet too big, time exceeded.
 *
 * The walk notes in a map of this CPU what is wrong and calls program icmp (a tail call), whose code is verified and cached apart from
 * the walk's. There the packet is parsed once more, cut to what an error quotes, and given the two headers. A sender on one of
 * our ports is answered by the way it came, through the station that sent the frame, whatever our tables know; one behind a
 * tunnel is looked up like any host. A packet that cannot be turned is dropped, by the reason that it came with.
 *
 * Nothing is ever said about an ICMP error, a later fragment, or a packet that a group received (RFC 1122, section 3.2.2;
 * RFC 4443, section 2.4), nor while a host moves: errors tear connections down. Each sender has a budget of messages.
 */
#pragma once

#include "budget.h"
#include "ecmp.h"
#include "encap.h"
#include "mtu.h"
#include "source.h"

struct error4 {
	struct iphdr ip;
	__u8 type;
	__u8 code;
	__u16 csum;
	__be16 unused;
	__be16 mtu;
} __attribute__((packed));

struct error6 {
	struct ipv6hdr ip;
	__u8 type;
	__u8 code;
	__u16 csum;
	__be32 mtu;
} __attribute__((packed));

#define ERROR4_MAX 576		/* RFC 1812, section 4.3.2.3 */
#define ERROR6_MAX 1280		/* RFC 4443, section 2.4 */
#define ERROR_TOS 0xc0		/* RFC 1812, section 4.3.2.5: internetwork control */
#define ERROR_TTL 64
#define ICMP_FRAG_NEEDED 4
#define ICMP6_TOO_BIG 2
#define ICMP6_TIME_EXCEEDED 3

/* Lets the kernel fragment: the packet goes to it by the tenant's fragment port, and its pieces come back there. */
static __always_inline enum reason to_fragment(struct pkt *p, const struct tenant *t)
{
	__u32 slot = t->fragment;
	struct port *out = bpf_map_lookup_elem(&ports, &slot);
	enum reason r;

	if (!out || !out->ifindex)
		return DROP_MTU;
	p->mtu = out->mtu;
	r = mtu(p);
	if (r)
		return r;
	p->egress = slot;
	r = deliver(p, t->fragment_mac, out);
	return r == FWD_DELIVER ? FWD_FRAGMENT : r;
}

/* Notes what is wrong and goes over to program icmp; comes back only if that is not there. */
static __always_inline enum reason complain_by_icmp(struct pkt *p, enum reason r)
{
	__u32 zero = 0;
	struct complaint *c = bpf_map_lookup_elem(&complaints, &zero);

	if (!icmp_rate || !c)
		return r;
	c->reason = r;
	c->slot = p->slot;
	c->tenant = p->tenant;
	c->bytes = p->bytes;
	c->l3 = p->l3;
	c->room = p->room;
	c->mtu = p->mtu;
	c->ethertype = p->ethertype;
	c->tunnelled = p->tunnelled;
	bpf_tail_call(p->ctx, &programs, PROGRAM_ICMP);
	return r;
}

static __always_inline int read_complaint(struct pkt *p, const struct complaint *c)
{
	__u32 index;

	p->slot = c->slot;
	p->tenant = c->tenant;
	p->bytes = c->bytes;
	p->l3 = c->l3;
	p->room = c->room;
	p->mtu = c->mtu;
	p->ethertype = c->ethertype;
	p->tunnelled = c->tunnelled;
	p->port = bpf_map_lookup_elem(&ports, &p->slot);
	if (!p->port)
		return -1;
	index = p->port->segment;
	if (!p->tunnelled && p->port->role & ROLE_ACCESS && index)
		p->segment = bpf_map_lookup_elem(&segments, &index);
	return parse_ip(p) ? -1 : 0;
}

static __always_inline int in_budget(const struct pkt *p)
{
	struct icmp_source key = { .tenant = p->tenant };

	if (p->v6) {
		__builtin_memcpy(key.addr, p->src6, sizeof(key.addr));
	} else {
		key.addr[2] = bpf_htonl(0xffff);
		key.addr[3] = bpf_htonl(p->src4);
	}
	return spend(&icmp_sources, &key, icmp_rate, icmp_burst);
}

/* Cuts the frame behind what is quoted, and puts room for a link header and an error's headers in front of it. */
static __always_inline int make_room(struct pkt *p, __u32 quote, __u32 link, __u32 headers)
{
	if (move_tail(p, (int)(p->l3 + quote) - (int)frame_len(p)))
		return -1;
	if (move_head(p, (int)p->l3 - (int)(link + headers)))
		return -1;
	p->l3 = link;
	p->l4 = link + (p->v6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr));
	p->ip_len = headers + quote;
	p->tos = ERROR_TOS;
	p->ttl = ERROR_TTL;
	p->frag = 0;
	return 0;
}

static __always_inline int turn4(struct pkt *p, enum reason why, __be32 from, __u32 link)
{
	__u32 quote = p->ip_len;
	struct error4 *e;
	__s64 sum;

	if (quote > ERROR4_MAX - sizeof(*e))
		quote = ERROR4_MAX - sizeof(*e);
	if (!from || make_room(p, quote, link, sizeof(*e)))
		return -1;
	e = at(p, p->l3, sizeof(*e));
	if (!e)
		return -1;
	p->dst4 = p->src4;
	p->src4 = bpf_ntohl(from);
	p->proto = IPPROTO_ICMP;
	__builtin_memset(e, 0, sizeof(*e));
	*(__u8 *)e = 0x45;
	e->ip.tos = ERROR_TOS;
	e->ip.tot_len = bpf_htons(p->ip_len);
	e->ip.frag_off = bpf_htons(IP_DF);
	e->ip.ttl = ERROR_TTL;
	e->ip.protocol = IPPROTO_ICMP;
	e->ip.saddr = from;
	e->ip.daddr = bpf_htonl(p->dst4);
	e->ip.check = ~csum_fold(csum_ip4(&e->ip));
	if (why == DROP_MTU) {
		e->type = ICMP_UNREACHABLE;
		e->code = ICMP_FRAG_NEEDED;
		e->mtu = bpf_htons(p->mtu);
	} else {
		e->type = ICMP_TIME_EXCEEDED;
	}
	sum = csum_bytes(p->ctx, p->l4, p->ip_len - sizeof(e->ip));
	e = at(p, p->l3, sizeof(*e));
	if (sum < 0 || !e)
		return -1;
	e->csum = ~csum_fold(sum);
	return 0;
}

static __always_inline int turn6(struct pkt *p, enum reason why, const __be32 from[4], __u32 link)
{
	__u32 quote = p->ip_len;
	struct error6 *e;
	__s64 sum;

	if (quote > ERROR6_MAX - sizeof(*e))
		quote = ERROR6_MAX - sizeof(*e);
	if (!from[0] || make_room(p, quote, link, sizeof(*e)))
		return -1;
	e = at(p, p->l3, sizeof(*e));
	if (!e)
		return -1;
	__builtin_memcpy(p->dst6, p->src6, sizeof(p->dst6));
	__builtin_memcpy(p->src6, from, sizeof(p->src6));
	p->proto = IPPROTO_ICMPV6;
	*(__be32 *)e = bpf_htonl(6u << 28 | ERROR_TOS << 20);
	e->ip.payload_len = bpf_htons(p->ip_len - sizeof(e->ip));
	e->ip.nexthdr = IPPROTO_ICMPV6;
	e->ip.hop_limit = ERROR_TTL;
	__builtin_memcpy(&e->ip.saddr, p->src6, sizeof(p->src6));
	__builtin_memcpy(&e->ip.daddr, p->dst6, sizeof(p->dst6));
	e->type = why == DROP_MTU ? ICMP6_TOO_BIG : ICMP6_TIME_EXCEEDED;
	e->code = 0;
	e->csum = 0;
	/* RFC 8200, section 5: no link of ours may say less, whatever fits. */
	e->mtu = why != DROP_MTU ? 0 : bpf_htonl(p->mtu < ERROR6_MAX ? ERROR6_MAX : p->mtu);
	sum = csum_icmp6(p->ctx, p->l3, p->ip_len);
	e = at(p, p->l3, sizeof(*e));
	if (sum < 0 || !e)
		return -1;
	e->csum = ~csum_fold(sum);
	return 0;
}

/* Turns the packet. Its sender can reach the address that the message comes from: our own on its segment, or one of the tenant. */
static __always_inline int turn(struct pkt *p, enum reason why, __u32 link)
{
	struct tenant *t = bpf_map_lookup_elem(&tenants, &p->tenant);
	struct segment *s = p->segment;

	if (p->v6) {
		if (s && s->icmp6[0])
			return turn6(p, why, s->icmp6, link);
		return t ? turn6(p, why, t->icmp6, link) : -1;
	}
	if (s && s->icmp4)
		return turn4(p, why, s->icmp4, link);
	return t ? turn4(p, why, t->icmp4, link) : -1;
}

/* Back through the station that sent the frame. */
static __always_inline int answer_port(struct pkt *p, enum reason why)
{
	struct ethhdr *eth = at(p, 0, sizeof(*eth));
	__u8 mac[8] = {};

	if (!eth || eth->h_source[0] & 1)
		return -1;
	mac_copy(mac, eth->h_source);
	if (turn(p, why, link_len(p->port)) || p->ip_len > p->port->mtu || put_link(p, p->port, mac))
		return -1;
	p->egress = p->slot;
	return 0;
}

/* Back through a tunnel, to where the sender lives, or by the way that the one it spoke to names. */
static __always_inline int answer_tunnel(struct pkt *p, enum reason why)
{
	__u32 way = egress_policy ? way_of_destination(p) : 0;
	struct adjacency *adj;
	struct nexthop *nh;

	if (turn(p, why, sizeof(struct ethhdr)))
		return -1;
	p->tunnelled = 0;
	p->nexthop_id = way > WAY_HERE ? way : find_destination(p, p->tenant);
	if (!p->nexthop_id)
		p->nexthop_id = cover_destination(p, p->tenant);
	nh = bpf_map_lookup_elem(&nexthops, &p->nexthop_id);
	if (!nh)
		return -1;
	*(__u64 *)&p->nexthop = *(volatile __u64 *)nh;
	if (p->nexthop.kind != NH_ADJACENCY && p->nexthop.kind != NH_SET)
		return -1;
	if (adjacency(p, &adj) || p->ip_len > adj->mtu || encap(p, adj) > FWD_REENCAP)
		return -1;
	p->egress = adj->port;
	p->locator = adj->locator;
	return 0;
}

static __always_inline enum reason answer(struct pkt *p)
{
	__u32 zero = 0;
	struct complaint *c = bpf_map_lookup_elem(&complaints, &zero);
	enum reason why;

	if (!c)
		return DROP_NEXTHOP;
	why = c->reason;
	if (read_complaint(p, c))
		return why;
	if (is_later_fragment(p) || icmp_error(p) || !in_budget(p))
		return why;
	p->egress = p->slot;
	if (!shadow && (p->tunnelled ? answer_tunnel(p, why) : answer_port(p, why)))
		return why;
	return why == DROP_MTU ? FWD_TOO_BIG : FWD_EXPIRED;
}
