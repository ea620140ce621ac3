/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* Sightings: who shows himself on an access port, and who is missed.
 *
 * The daemon cannot learn this from the kernel, which hears no ARP and ND that is answered here, and ignores announcements of hosts
 * that it does not know. So each sign of a host that the tables do not have at this port goes into a ring: what it says of
 * itself (ARP, ND, RARP), or that it sends at all. It is a hint and no proof: whoever reads the ring asks the host. The other way
 * round an address of our subnets that somebody sends to, and that no table has, is wanted. Of a host that moved the first packet by its
 * new way is told, too: that is when its outage ends.
 *
 * Nothing here changes the packet or its way. What makes it cheap: a sender is looked up once in a while, because the
 * word that says so is compared first; everything else happens in global functions, verified once and off the hot path. Each
 * address has a ration, so has each asker, and all that is wanted together: a scan of a subnet must not crowd
 * out the one host that moved. Gateways are not hosts, here or where they stood before. Routers are told from hosts by the reader.
 */
#pragma once

#include "budget.h"
#include "count.h"
#include "neigh.h"

#define SIGHT_BURST 5
#define WANTED_RATE 1	/* a second: one address */
#define ASKER_RATE 20	/* one who asks */
#define ASKER_BURST 50
#define ALL_RATE 200
#define ALL_BURST 400
#define RARP_REQUEST 3
#define ND_SOURCE_MAC 1

/* An address of either family as two halves in memory order: IPv4 is ::ffff:a.b.c.d. */
static __always_inline __u64 low4(__u32 addr)
{
	return (__u64)bpf_htonl(addr) << 32 | bpf_htonl(0xffff);
}

static __always_inline __u64 half(const __be32 a[2])
{
	return (__u64)a[1] << 32 | a[0];
}

static __always_inline int is4(__u64 hi, __u64 lo)
{
	return !hi && (__u32)lo == bpf_htonl(0xffff);
}

static __always_inline __u64 mac_word(const __u8 *mac)
{
	return *(const __u32 *)mac | (__u64) * (const __u16 *)(mac + 4) << 32;
}

static __always_inline __u32 find_halves(__u32 space, __u64 hi, __u64 lo)
{
	return is4(hi, lo) ? find_host4(space, bpf_ntohl(lo >> 32)) : find_host6(space, hi, lo);
}

static __always_inline __u32 subnet(__u32 tenant, __u64 hi, __u64 lo)
{
	__u32 space = SPACE_SUBNETS + tenant;

	return is4(hi, lo) ? find_prefix4(space, bpf_ntohl(lo >> 32)) : find_prefix6(space, hi, lo);
}

static __always_inline int ration(enum sight_ration what, __u32 tenant, __u64 hi, __u64 lo, __u32 rate, __u32 burst)
{
	struct sight_key key = { .hi = hi, .lo = lo, .tenant = tenant, .ration = what };

	return spend(&sight_budgets, &key, rate, burst);
}

static __always_inline void tell(struct sighting *s)
{
	__u32 kind = s->kind;

	s->when = bpf_ktime_get_ns();
	if (bpf_ringbuf_output(&sightings, s, sizeof(*s), 0))
		kind = SIGHT_NONE;
	count_add(bpf_map_lookup_elem(&sight_counters, &kind), sizeof(*s));
}

/* Do the tables have it as it shows itself? Data may come by way of a neighbour: there the MAC says nothing. */
static __always_inline int known_here(__u32 id, __u32 slot, const __u8 *mac, __u32 kind)
{
	struct nexthop *nh = bpf_map_lookup_elem(&nexthops, &id), word;
	struct local *local;

	if (!id || !nh)
		return 0;
	*(__u64 *)&word = *(volatile __u64 *)nh;
	switch (word.kind) {
	case NH_GATEWAY:
	case NH_OWN:
	case NH_BLACKHOLE:
		return 1;
	case NH_LOCAL:
		id = word.index;
		local = bpf_map_lookup_elem(&locals, &id);
		return local && local->port == slot && (kind == SIGHT_DATA || mac_equal(local->mac, mac));
	}
	return 0;
}

static __always_inline int is_gateway(const struct port *port, const __u8 *mac)
{
	struct mac_key key = { .segment = port->segment };
	__u32 index = port->segment;
	struct segment *s = bpf_map_lookup_elem(&segments, &index);
	__u32 *kind;

	if (!s || mac_equal(s->mac, mac) || mac_equal(port->mac, mac))
		return 1;
	mac_copy(key.mac, mac);
	kind = bpf_map_lookup_elem(&macs, &key);
	return kind && *kind != MAC_HERE;
}

/* Reports a host by the sign that it gave; where is the port's slot, and the kind of sign 16 bits up. */
__attribute__((noinline)) int sight(__u32 where, __u32 tenant, __u64 mac, __u64 hi, __u64 lo)
{
	struct sighting s = { .addr = { hi, hi >> 32, lo, lo >> 32 }, .tenant = tenant, .port = where, .kind = where >> 16 };
	__u32 slot = s.port, kind = s.kind;
	struct port *port = bpf_map_lookup_elem(&ports, &slot);

	if (!port || mac & 1 || is_gateway(port, (__u8 *)&mac))
		return 0;
	if (kind == SIGHT_RARP)
		lo = mac;
	else if (known_here(find_halves(tenant, hi, lo), slot, (__u8 *)&mac, kind) || !subnet(tenant, hi, lo))
		return 0;
	mac_copy(s.mac, &mac);
	if (ration(RATION_SEEN, tenant, hi, lo, sight_rate, SIGHT_BURST))
		tell(&s);
	return 0;
}

/* Reports an address that somebody misses. */
__attribute__((noinline)) int want(__u32 slot, __u32 tenant, __u64 asker, __u64 hi, __u64 lo)
{
	struct sighting s = { .addr = { hi, hi >> 32, lo, lo >> 32 }, .tenant = tenant, .port = slot, .kind = SIGHT_WANTED };

	if (find_halves(tenant, hi, lo) || !subnet(tenant, hi, lo))
		return 0;
	if (ration(RATION_WANTED, tenant, hi, lo, WANTED_RATE, SIGHT_BURST) &&
	    ration(RATION_ASKER, tenant, 0, asker, ASKER_RATE, ASKER_BURST) &&
	    ration(RATION_ALL, 0, 0, 0, ALL_RATE, ALL_BURST))
		tell(&s);
	return 0;
}

/* An ARP or RARP message at l3. */
__attribute__((noinline)) int sight_arp(struct xdp_md *ctx, __u32 slot, __u32 tenant, __u32 l3)
{
	struct arp *arp = ctx_at(ctx, l3, sizeof(*arp));
	__u32 sender, target, op, kind = SIGHT_ARP_REPLY;
	__u64 mac;

	if (!arp || arp->hardware != bpf_htons(ARP_ETHERNET) || arp->protocol != bpf_htons(ETH_P_IP) ||
	    arp->hardware_len != ETH_ALEN || arp->protocol_len != 4)
		return 0;
	op = bpf_ntohs(arp->op);
	mac = mac_word(arp->sender_mac);
	sender = read32(arp->sender_ip);
	target = read32(arp->target_ip);
	if (op == RARP_REQUEST)
		return sight(slot | SIGHT_RARP << 16, tenant, mac, 0, 0);
	if (op != ARP_REQUEST && op != ARP_REPLY)
		return 0;
	if (sender == target) {
		kind = SIGHT_ARP_ANNOUNCE;
	} else if (op == ARP_REQUEST && !sender) {
		kind = SIGHT_ARP_PROBE;
		sender = target;
	} else if (op == ARP_REQUEST) {
		kind = SIGHT_ARP_REQUEST;
		want(slot, tenant, sender, 0, low4(target));
	}
	return sight(slot | kind << 16, tenant, mac, 0, low4(sender));
}

/* What asks or tells in neighbour discovery (RFC 4861, sections 4.3 and 4.4). Its checksum is not looked at: a hint. */
static __always_inline int sight_nd(struct xdp_md *ctx, __u32 slot, __u32 tenant, __u32 l3, __u64 mac)
{
	struct nd *nd = ctx_at(ctx, l3, ND_SOLICIT_LEN), *whole = ctx_at(ctx, l3, sizeof(*whole));
	__u64 hi, lo, source_hi, source_lo;
	__u32 kind = SIGHT_ND_ADVERT;
	int asks;

	if (!nd || nd->code || nd->ip.hop_limit != 255)
		return 0;
	asks = nd->type == ND_SOLICIT;
	hi = half(nd->target);
	lo = half(nd->target + 2);
	source_hi = half(nd->ip.saddr.s6_addr32);
	source_lo = half(nd->ip.saddr.s6_addr32 + 2);
	if (whole && whole->option_len == 1 && whole->option == (asks ? ND_SOURCE_MAC : ND_TARGET_MAC))
		mac = mac_word(whole->mac);
	if (asks && !(source_hi | source_lo)) {
		kind = SIGHT_ND_DAD;
	} else if (asks) {
		kind = SIGHT_ND_SOLICIT;
		want(slot, tenant, source_hi ^ source_lo, hi, lo);
		hi = source_hi;
		lo = source_lo;
	}
	return sight(slot | kind << 16, tenant, mac, hi, lo);
}

/* An IPv4 or IPv6 packet at l3, as a host sent it. The packet has been parsed: its header is there. */
__attribute__((noinline)) int sight_ip(struct xdp_md *ctx, __u32 slot, __u32 tenant, __u32 l3)
{
	struct iphdr *ip4 = ctx_at(ctx, l3, sizeof(*ip4));
	struct nd *nd = ctx_at(ctx, l3, sizeof(nd->ip) + 1);
	struct ethhdr *eth = ctx_at(ctx, 0, sizeof(*eth));
	__u32 where = slot | SIGHT_DATA << 16;
	__u64 mac;

	if (!ip4 || !eth)
		return 0;
	mac = mac_word(eth->h_source);
	if (ip4->version == 4)
		return sight(where, tenant, mac, 0, low4(bpf_ntohl(ip4->saddr)));
	if (!nd)
		return 0;
	if (nd->ip.nexthdr == IPPROTO_ICMPV6 && (nd->type == ND_SOLICIT || nd->type == ND_ADVERT))
		return sight_nd(ctx, slot, tenant, l3, mac);
	return sight(where, tenant, mac, half(nd->ip.saddr.s6_addr32), half(nd->ip.saddr.s6_addr32 + 2));
}

/* A packet at l3 that goes to the kernel because no table has its destination. */
__attribute__((noinline)) int want_ip(struct xdp_md *ctx, __u32 slot, __u32 tenant, __u32 l3)
{
	struct iphdr *ip4 = ctx_at(ctx, l3, sizeof(*ip4));
	struct ipv6hdr *ip6 = ctx_at(ctx, l3, sizeof(*ip6));

	if (ip4 && ip4->version == 4)
		return want(slot, tenant, bpf_ntohl(ip4->saddr), 0, low4(bpf_ntohl(ip4->daddr)));
	if (!ip6)
		return 0;
	return want(slot, tenant, half(ip6->saddr.s6_addr32) ^ half(ip6->saddr.s6_addr32 + 2),
		    half(ip6->daddr.s6_addr32), half(ip6->daddr.s6_addr32 + 2));
}

static __always_inline __u64 who4(__u32 tenant, __u32 addr)
{
	return (__u64)tenant << 32 | addr;
}

static __always_inline __u64 who6(__u32 tenant, __u64 hi, __u64 lo)
{
	__u64 who = ((__u64)tenant << 52 ^ hi) + hosts6_config.seed[0];

	who = who * (hosts6_config.seed[1] | 1) + lo;
	return who ^ who >> 32; /* the last bytes of an address, in which neighbours differ, are the highest here, of which the word keeps nothing */
}

/* Did this come by moments ago? The word that is left says who, and when: 16 jiffies are one moment. For IPv4 it is exact, since
 * tenant and address have as many bits as are kept of a product that is one to one. For IPv6 the seed keeps others from
 * finding an address whose word is the same.
 */
static __always_inline int lately(void *words, __u64 who)
{
	__u64 hash = who * MIX1, word = hash << 20 | (bpf_jiffies64() >> 4 & 0xfffff), *entry;
	__u32 index = (hash >> 32) % SEEN_ENTRIES;

	entry = bpf_map_lookup_elem(words, &index);
	if (!entry || *(volatile __u64 *)entry == word)
		return 1;
	*(volatile __u64 *)entry = word;
	return 0;
}

/* Reports that a packet left for a host that moved: until the daemon takes the flag from its next hop, once a second at most. In a storm of moves
 * that is every packet, so its ration is asked for once in a moment.
 */
__attribute__((noinline)) int first(__u32 slot, __u32 tenant, __u64 hi, __u64 lo)
{
	struct sighting s = { .addr = { hi, hi >> 32, lo, lo >> 32 }, .tenant = tenant, .port = slot, .kind = SIGHT_FIRST };

	if (lately(&awaited, is4(hi, lo) ? who4(tenant, bpf_ntohl(lo >> 32)) : who6(tenant, hi, lo)))
		return 0;
	if (ration(RATION_FIRST, tenant, hi, lo, 1, 1))
		tell(&s);
	return 0;
}

static __always_inline void sight_link(const struct pkt *p)
{
	if ((p->ethertype == bpf_htons(ETH_P_ARP) || p->ethertype == bpf_htons(ETH_P_RARP)) && p->segment && sight_rate)
		sight_arp(p->ctx, p->slot, p->tenant, p->l3);
}

static __always_inline int seen_lately(const struct pkt *p)
{
	return lately(&seen, p->v6 ? who6(p->tenant, half(p->src6), half(p->src6 + 2)) : who4(p->tenant, p->src4));
}

static __always_inline void sight_source(const struct pkt *p)
{
	if (p->segment && sight_rate && (!seen_lately(p) || (p->v6 && p->proto == IPPROTO_ICMPV6)))
		sight_ip(p->ctx, p->slot, p->tenant, p->l3);
}

/* Of a packet that was sent: is it one that somebody waits for? Of all others this costs a bit of the word that led them. */
static __always_inline void sight_first(const struct pkt *p)
{
	if (__builtin_expect(!(p->nexthop.flags & NHF_AWAITED), 1) || !sight_rate || shadow)
		return;
	if (p->v6)
		first(p->slot, p->tenant, half(p->dst6), half(p->dst6 + 2));
	else
		first(p->slot, p->tenant, 0, low4(p->dst4));
}

static __always_inline void want_destination(const struct pkt *p)
{
	if (sight_rate)
		want_ip(p->ctx, p->slot, p->tenant, p->l3);
}
