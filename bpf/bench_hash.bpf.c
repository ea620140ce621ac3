// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/* The walk of bench.bpf.c with a BPF hash for each family in place of the host table. */
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>

#define find_host4 table_find_host4
#define lookup_host4 table_lookup_host4
#define find_front4 table_find_front4
#define find_front6 table_find_front6
#define find_host6 table_find_host6
#define lookup_host6 table_lookup_host6
#include "table.h"
#undef find_host4
#undef lookup_host4
#undef find_front4
#undef find_front6
#undef find_host6
#undef lookup_host6

struct hash4_key {
	__u32 space;
	__u32 addr;
};

struct hash6_key {
	__u32 space;
	__be32 addr[4];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1); /* loader */
	__type(key, struct hash4_key);
	__type(value, __u32);
} bench_peer4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1); /* loader */
	__type(key, struct hash6_key);
	__type(value, __u32);
} bench_peer6 SEC(".maps");

static __always_inline __u32 lookup_host4(__u32 space, __u32 addr)
{
	struct hash4_key key = { .space = space, .addr = bpf_htonl(addr) };
	__u32 *value = bpf_map_lookup_elem(&bench_peer4, &key);

	return value ? *value : 0;
}

static __always_inline __u32 lookup_host6(__u32 space, __u64 hi, __u64 lo)
{
	struct hash6_key key = { .space = space, .addr = { hi, hi >> 32, lo, lo >> 32 } };
	__u32 *value = bpf_map_lookup_elem(&bench_peer6, &key);

	return value ? *value : 0;
}

__attribute__((noinline)) __u32 find_host4(__u32 space, __u32 addr)
{
	return lookup_host4(space, addr);
}

__attribute__((noinline)) __u32 find_host6(__u32 space, __u64 hi, __u64 lo)
{
	return lookup_host6(space, hi, lo);
}

static __always_inline __u32 find_front4(__u32 space, __u32 addr)
{
	return find_host4(space, addr);
}

static __always_inline __u32 find_front6(__u32 space, __u64 hi, __u64 lo)
{
	return find_host6(space, hi, lo);
}

#include "bench.bpf.c"
