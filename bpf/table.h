/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* The host table: an exact match of (space, address).
 *
 * The tricky part is reading while the daemon writes. A reader sees each 64-bit slot whole. The writer never removes
 * a key's old copy before every program that might have missed the new one has ended, so two probes in a fixed order
 * are enough; and an IPv6 address is reached only through its slot, so the address dependency orders the loads on
 * arm64 too. Nothing outside this header and package maps knows the layout.
 */
#pragma once

#include <bpf/bpf_endian.h>

#include "config.h"
#include "maps.h"

#define MIX1 0x9FB21C651E98DF25ULL
#define MIX2 0xD6E8FEB86659FD93ULL
#define MIX3 0xA0761D6478BD642FULL

static __always_inline __u64 hash4(__u64 key, const volatile struct table_config *t)
{
	__u64 x = (key ^ t->seed[0]) * (t->seed[1] | 1);

	x ^= x >> 32;
	x *= MIX1;
	return x ^ x >> 29;
}

static __always_inline __u64 hash6(__u64 hi, __u64 lo, __u32 space, const volatile struct table_config *t)
{
	__u64 x = (hi ^ t->seed[0]) * (t->seed[1] | 1);

	x ^= x >> 32;
	x = (x + lo) * MIX1;
	x ^= x >> 32;
	x = (x + space) * MIX2;
	return x ^ x >> 29;
}

/* Maps 32 hash bits onto any number of buckets without a division. */
static __always_inline __u32 bucket_of(__u32 hash, __u32 buckets)
{
	return ((__u64)hash * buckets) >> 32;
}

/* The low bits of the slot that has this tag above them, or 0. */
static __always_inline __u32 slot_find(const struct bucket *b, __u64 tag, const __u32 bits)
{
#pragma unroll
	for (int i = 0; i < HOST_SLOTS; i++) {
		__u64 slot = *(volatile __u64 *)&b->slot[i];

		if (slot >> bits == tag)
			return slot & ((1 << bits) - 1);
	}
	return 0;
}

static __always_inline __u32 bucket_find4(__u32 index, __u64 key)
{
	struct bucket *b = bpf_map_lookup_elem(&hosts4, &index);

	return b ? slot_find(b, key, VALUE_BITS) : 0;
}

#define TAG_SHIFT (VALUE_BITS + UNIT_BITS)
#define SPACE_SHIFT (TAG_SHIFT + TAG_BITS)
#define BUCKET6_WORDS (sizeof(struct bucket6) / sizeof(__u64))

static __always_inline __u64 tag6(__u64 hash, __u32 space)
{
	return (__u64)space << TAG_BITS | (hash * MIX3) >> (64 - TAG_BITS);
}

/* The value in a slot of this bucket, if its address is this one, else 0. */
static __always_inline __u32 slot_value6(const struct bucket6 *b, __u64 slot, __u64 hi, __u64 lo)
{
	const struct address6 *a = (const struct address6 *)b + (slot >> VALUE_BITS & ((1 << UNIT_BITS) - 1));

	return a->hi == hi && a->lo == lo ? slot & ((1 << VALUE_BITS) - 1) : 0;
}

/* The value in the slot that is word number at of hosts6, if it is this host's, else 0. */
static __always_inline __u32 place_value6(__u32 at, __u32 space, __u64 hi, __u64 lo)
{
	__u32 index = at / BUCKET6_WORDS;
	struct bucket6 *b = bpf_map_lookup_elem(&hosts6, &index);
	__u64 slot;

	if (!b)
		return 0;
	slot = ((volatile __u64 *)b)[at % BUCKET6_WORDS];
	return slot >> SPACE_SHIFT == space ? slot_value6(b, slot, hi, lo) : 0;
}

/* A host that waits for its slot. The kernel may reuse a hash element under a reader that has just found it, so the
 * element holds no answer but the place of a slot, which tells whose it is. A global function: what is rare needs no room on
 * the stack of the walk.
 */
__attribute__((noinline)) __u32 overflow_find(__u32 space, __u64 hi, __u64 lo)
{
	struct overflow_key key = { .addr = { hi, hi >> 32, lo, lo >> 32 }, .space = space };
	__u32 *at = bpf_map_lookup_elem(&host_overflow, &key);

	return at ? place_value6(*(volatile __u32 *)at, space, hi, lo) : 0;
}

static __always_inline __u32 lookup_host4(__u32 space, __u32 addr)
{
	const volatile struct table_config *t = &hosts4_config;
	__u64 key = (__u64)space << 32 | addr;
	__u64 hash = hash4(key, t);
	__u32 value;

	value = bucket_find4(bucket_of(hash >> 32, t->buckets), key);
	if (value)
		return value;
	value = bucket_find4(bucket_of(hash, t->buckets), key);
	if (value)
		return value;
	return overflow_find(space, 0, (__u64)bpf_htonl(addr) << 32 | bpf_htonl(0xffff));
}

/* The second line is asked for with the first, not when a slot tells that it is needed: two waits for memory are one. Two hosts
 * of one tag are one pair in 2^29, and then the address tells.
 */
static __always_inline __u32 bucket_find6(__u32 index, __u64 tag, __u64 hi, __u64 lo)
{
	struct bucket6 *b = bpf_map_lookup_elem(&hosts6, &index);

	if (!b)
		return 0;
	(void)*(volatile __u64 *)&b->addr[HOST6_SLOTS - 1];
#pragma unroll
	for (int i = 0; i < HOST6_SLOTS; i++) {
		__u64 slot = *(volatile __u64 *)&b->slot[i];
		__u32 value = slot >> TAG_SHIFT == tag ? slot_value6(b, slot, hi, lo) : 0;

		if (value)
			return value;
	}
	return 0;
}

/* Where one host in six is, and who waits for a slot. A global function: see find_host4(). */
__attribute__((noinline)) __u32 second_host6(__u32 space, __u64 hi, __u64 lo)
{
	__u64 hash = hash6(hi, lo, space, &hosts6_config);
	__u32 value = bucket_find6(bucket_of(hash, hosts6_config.buckets), tag6(hash, space), hi, lo);

	return value ? value : overflow_find(space, hi, lo);
}

static __always_inline __u32 lookup_host6(__u32 space, __u64 hi, __u64 lo)
{
	__u64 hash = hash6(hi, lo, space, &hosts6_config);
	__u32 value = bucket_find6(bucket_of(hash >> 32, hosts6_config.buckets), tag6(hash, space), hi, lo);

	return value ? value : second_host6(space, hi, lo);
}

/* The same as calls: a global function is verified once, and is in the program once. What every packet needs is in place. */

/* The value of an IPv4 address (host byte order) in a space, or 0. */
__attribute__((noinline)) __u32 find_host4(__u32 space, __u32 addr)
{
	return lookup_host4(space, addr);
}

/* The value of an IPv6 address in a space, or 0; hi and lo are its halves as they lie in memory. */
__attribute__((noinline)) __u32 find_host6(__u32 space, __u64 hi, __u64 lo)
{
	return lookup_host6(space, hi, lo);
}

/* The same for the gateway's own spaces, whose few keys every tunnel packet asks for: each has one slot in front of the table
 * by its address, unless another took it, and is in the table as well. Nobody from outside chooses these keys.
 */
static __always_inline __u32 front_at4(__u32 space, __u32 addr)
{
	return (addr ^ space << 20) * FRONT_MIX >> FRONT_SHIFT;
}

static __always_inline __u32 front_at6(__u32 space, __u64 hi, __u64 lo)
{
	__u64 sum = hi + lo;

	return front_at4(space, sum ^ sum >> 32);
}

static __always_inline __u64 front_slot(void *table, __u32 buckets, __u32 at)
{
	__u32 index = buckets + at / HOST_SLOTS;
	struct bucket *b = bpf_map_lookup_elem(table, &index);

	return b ? *(volatile __u64 *)&b->slot[at % HOST_SLOTS] : 0;
}

static __always_inline __u32 find_front4(__u32 space, __u32 addr)
{
	__u64 slot = front_slot(&hosts4, hosts4_config.buckets, front_at4(space, addr));

	if (slot >> VALUE_BITS == ((__u64)space << 32 | addr))
		return slot & ((1 << VALUE_BITS) - 1);
	return find_host4(space, addr);
}

/* A slot has no tag here. */
static __always_inline __u32 find_front6(__u32 space, __u64 hi, __u64 lo)
{
	__u32 at = front_at6(space, hi, lo), index = hosts6_config.buckets + at / FRONT6_SLOTS;
	__u32 value = place_value6(index * BUCKET6_WORDS + at % FRONT6_SLOTS, space, hi, lo);

	return value ? value : find_host6(space, hi, lo);
}
