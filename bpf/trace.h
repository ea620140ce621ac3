/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* Tracing: what happens to chosen packets is told to who asked, with the frame as it came in and as it is at the end.
 *
 * All of it is in a second instance of the program over the same tables, which is in the place of the first only while somebody
 * traces (RUN_TRACED): the first pays nothing. There program traced is attached. It draws the packet for each filter, keeps the frame
 * as it came, if anybody wants that, and goes over to the walk by a tail call, so that the walk is the very same. At its single
 * exit the packet is noted and compared with the filters.
 *
 * An event is put together in memory of this CPU, on which nothing else walks meanwhile, because the ring wants its size in
 * advance. A ring that is full loses the event and counts it for each who asked.
 */
#pragma once

#include "count.h"
#include "ecmp.h"
#include "neigh.h"

#define ALL_PACKETS (1ULL << 32)

static __always_inline struct trace_note *this_note(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&trace_notes, &zero);
}

static __always_inline struct trace_filters *wishes(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&trace_wishes, &zero);
}

/* Keeps the first bytes of the frame: its linear part, which holds more of it than that. Returns how many. */
__attribute__((noinline)) int trace_copy(struct xdp_md *ctx, __u32 end, __u32 bytes)
{
	struct trace_note *note = this_note();
	__u32 n = 0;
	__u8 *to;

	if (!note)
		return 0;
	to = note->event.frame[end & 1];
	for (int i = 0; i < TRACE_BYTES / 8; i++, n += 8) {
		__u64 *word = ctx_at(ctx, i * 8, 8);

		if (!word || n + 8 > bytes)
			break;
		*(__u64 *)(to + i * 8) = *word;
	}
	for (int i = 0; i < 7; i++, n++) {
		__u8 *byte = ctx_at(ctx, n, 1);

		if (!byte || n >= bytes || n >= TRACE_BYTES)
			break;
		to[n & (TRACE_BYTES - 1)] = *byte;
	}
	return n;
}

static __always_inline void trace_begin(struct xdp_md *ctx)
{
	struct trace_filters *f = wishes();
	struct trace_note *note = this_note();
	__u32 lot = bpf_get_prandom_u32(), asked = 0, bytes = 0;

	if (!f || !note)
		return;
#pragma unroll
	for (int i = 0; i < TRACE_FILTERS; i++) {
		if (lot >= f->filter[i].share)
			continue;
		asked |= 1 << i;
		if (bytes < f->filter[i].bytes)
			bytes = f->filter[i].bytes;
	}
	note->event.filters = asked;
	note->event.captured[0] = bytes ? trace_copy(ctx, 0, bytes) : 0;
}

static __always_inline int same_address(const __be32 a[4], const __be32 b[4])
{
	const __u64 *x = (const __u64 *)a, *y = (const __u64 *)b;

	return x[0] == y[0] && x[1] == y[1];
}

/* Whether what is noted is what a filter asks for: by how many bytes of the frame, and one. */
__attribute__((noinline)) __u32 trace_chosen(__u32 number)
{
	struct trace_filters *all = wishes();
	struct trace_note *note = this_note();
	const struct trace_event *e;
	const struct trace_filter *f;

	if (!all || !note)
		return 0;
	e = &note->event;
	f = &all->filter[number & (TRACE_FILTERS - 1)];
	if (!(f->reasons[e->reason >> 6 & 1] >> (e->reason & 63) & 1))
		return 0;
	if (f->tenant && f->tenant != e->tenant)
		return 0;
	if (f->locator && f->locator != e->locator && f->locator != e->from)
		return 0;
	if ((f->host[0] | f->host[1] | f->host[2] | f->host[3]) && !same_address(f->host, e->src) && !same_address(f->host, e->dst))
		return 0;
	return f->bytes + 1;
}

static __always_inline void trace_count_lost(const struct trace_event *e)
{
#pragma unroll
	for (int i = 0; i < TRACE_FILTERS; i++) {
		__u32 key = i;

		if (e->filters >> i & 1)
			count_add(bpf_map_lookup_elem(&trace_lost, &key), e->bytes);
	}
}

/* Where the IP or ARP header is now, of which the walk knows where it was: whatever changed the frame did so in front of it, but for
 * answers, which are as long as they say, or did not move.
 */
static __always_inline __u32 trace_l3(const struct trace_note *note)
{
	const struct trace_event *e = &note->event;

	switch (e->reason) {
	case FWD_ARP:
	case FWD_ND:
		return note->l3;
	case FWD_TOO_BIG:
	case FWD_EXPIRED:
		return e->bytes_after - note->ip_len;
	}
	return note->l3 + e->bytes_after - e->bytes;
}

static __always_inline void trace_pair4(struct trace_event *e, const void *src, const void *dst)
{
	e->src[2] = e->dst[2] = bpf_htonl(0xffff);
	e->src[3] = *(__be32 *)src;
	e->dst[3] = *(__be32 *)dst;
}

/* Of an ARP message, who speaks and whom it is about; of a frame that is no packet, nothing. */
static __always_inline void trace_addresses(struct xdp_md *ctx, struct trace_event *e, __be16 ethertype, __u32 l3)
{
	__builtin_memset(e->src, 0, sizeof(e->src));
	__builtin_memset(e->dst, 0, sizeof(e->dst));
	if (l3 > OFFSET_MAX)
		return;
	if (ethertype == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = ctx_at(ctx, l3, sizeof(*ip));

		if (ip && *(__u8 *)ip >> 4 == 4)
			trace_pair4(e, &ip->saddr, &ip->daddr);
	} else if (ethertype == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip = ctx_at(ctx, l3, sizeof(*ip));

		if (ip && *(__u8 *)ip >> 4 == 6) {
			__builtin_memcpy(e->src, &ip->saddr, sizeof(e->src));
			__builtin_memcpy(e->dst, &ip->daddr, sizeof(e->dst));
		}
	} else if (ethertype == bpf_htons(ETH_P_ARP)) {
		struct arp *arp = ctx_at(ctx, l3, sizeof(*arp));

		if (arp)
			trace_pair4(e, arp->sender_ip, arp->target_ip);
	}
}

/* A later fragment of IPv4 has no ports; one of IPv6 has no protocol either. */
static __always_inline int trace_later4(struct xdp_md *ctx, __be16 ethertype, __u32 l3)
{
	struct iphdr *ip = ctx_at(ctx, l3, sizeof(*ip));

	return ethertype == bpf_htons(ETH_P_IP) && (!ip || ip->frag_off & bpf_htons(IP_OFFSET));
}

static __always_inline void trace_ports(struct xdp_md *ctx, struct trace_event *e, __u32 l4)
{
	__be16 *ports;

	switch (e->proto) {
	case IPPROTO_TCP:
	case IPPROTO_UDP:
	case IPPROTO_SCTP:
	case IPPROTO_DCCP:
	case IPPROTO_UDPLITE:
		ports = l4 <= OFFSET_MAX ? ctx_at(ctx, l4, 4) : NULL;
		if (ports) {
			e->sport = bpf_ntohs(ports[0]);
			e->dport = bpf_ntohs(ports[1]);
		}
	}
}

/* The locator that a next hop leads to, be it reached or not. */
static __always_inline __u32 trace_locator(__u32 id)
{
	struct nexthop *nh = bpf_map_lookup_elem(&nexthops, &id), word;

	if (!nh)
		return 0;
	*(__u64 *)&word = *(volatile __u64 *)nh;
	id = word.index;
	if (word.kind == NH_ADJACENCY) {
		struct adjacency *adj = bpf_map_lookup_elem(&adjacencies, &id);

		return adj ? adj->locator : 0;
	}
	if (word.kind == NH_UNRESOLVED) {
		struct locator *l = bpf_map_lookup_elem(&locators, &id);

		return l ? l->number : 0;
	}
	return 0;
}

static __always_inline void trace_complete(struct xdp_md *ctx, struct trace_note *note)
{
	struct trace_event *e = &note->event;
	__u32 l3 = trace_l3(note);

	e->egress = e->reason < PASS_NO_PORT ? note->egress : 0;
	if (!e->locator)
		e->locator = trace_locator(note->nexthop);
	e->sport = e->dport = 0;
	trace_addresses(ctx, e, note->ethertype, l3);
	if (l3 <= OFFSET_MAX && !trace_later4(ctx, note->ethertype, l3))
		trace_ports(ctx, e, l3 + note->l4 - note->l3);
}

/* Tells what is noted to who asked for it. A global function: verified once, by itself. */
__attribute__((noinline)) int trace_tell(struct xdp_md *ctx)
{
	struct trace_note *note = this_note();
	struct trace_event *e;
	__u32 asked = 0, bytes = 0;

	if (!note)
		return 0;
	e = &note->event;
	trace_complete(ctx, note);
#pragma unroll
	for (int i = 0; i < TRACE_FILTERS; i++) {
		__u32 wanted = e->filters >> i & 1 ? trace_chosen(i) : 0;

		asked |= !!wanted << i;
		bytes = wanted > bytes ? wanted : bytes;
	}
	e->filters = asked;
	if (!asked)
		return 0;
	e->when = bpf_ktime_get_ns();
	e->captured[1] = bytes > 1 ? trace_copy(ctx, 1, bytes - 1) : 0;
	if (bpf_ringbuf_output(&trace_ring, e, bytes > 1 ? sizeof(*e) : offsetof(struct trace_event, frame), 0))
		trace_count_lost(e);
	return 0;
}

/* Notes what became of a packet that was drawn: without a branch, because the verifier comes here by every way there is. */
static __always_inline void trace_end(const struct pkt *p, enum reason r)
{
	struct trace_note *note = this_note();
	struct trace_event *e;

	if (!note || !note->event.filters)
		return;
	e = &note->event;
	e->reason = r;
	e->bytes = p->bytes;
	e->bytes_after = frame_len(p);
	e->port = p->slot;
	e->tenant = p->tenant;
	e->locator = p->locator;
	e->from = p->from;
	e->proto = p->proto;
	note->egress = p->egress;
	note->nexthop = p->member_id ? p->member_id : p->nexthop_id;
	note->l3 = p->l3;
	note->l4 = p->l4;
	note->ip_len = p->ip_len;
	note->ethertype = p->ethertype;
	trace_tell(p->ctx);
}
