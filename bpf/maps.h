/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* Every map, in the order a packet meets them. Sizes marked "loader" are set before creation.
 *
 * Records that the daemon writes while the program reads them lie in BPF_F_MMAPABLE arrays: their values are cache
 * line aligned and are written with aligned stores through mmap. bpf_map_update_elem would tear them.
 */
#pragma once

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "abi.h"

/* Link and tenant. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, PORTS);
	__type(key, __u32);
	__type(value, struct port);
	__uint(map_flags, BPF_F_MMAPABLE);
} ports SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SEGMENTS);
	__type(key, __u32);
	__type(value, struct segment);
	__uint(map_flags, BPF_F_MMAPABLE);
} segments SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, TENANTS);
	__type(key, __u32);
	__type(value, struct tenant);
	__uint(map_flags, BPF_F_MMAPABLE);
} tenants SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1 << 20);
	__type(key, struct mac_key);
	__type(value, __u32);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} macs SEC(".maps");

/* Look-up. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2); /* loader: buckets, the lines in front, and one for the header */
	__type(key, __u32);
	__type(value, struct bucket);
	__uint(map_flags, BPF_F_MMAPABLE);
} hosts4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2); /* loader: as hosts4, and before the header those of hosts that wait */
	__type(key, __u32);
	__type(value, struct bucket6);
	__uint(map_flags, BPF_F_MMAPABLE);
} hosts6 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, OVERFLOW_ENTRIES);
	__type(key, struct overflow_key);
	__type(value, __u32);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} host_overflow SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 1 << 20);
	__type(key, struct lpm4_key);
	__type(value, __u32);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} prefixes4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 1 << 20);
	__type(key, struct lpm6_key);
	__type(value, __u32);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} prefixes6 SEC(".maps");

/* Next hop. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, NEXTHOPS);
	__type(key, __u32);
	__type(value, struct nexthop);
	__uint(map_flags, BPF_F_MMAPABLE);
} nexthops SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SETS);
	__type(key, __u32);
	__type(value, struct set);
	__uint(map_flags, BPF_F_MMAPABLE);
} sets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, ADJACENCIES);
	__type(key, __u32);
	__type(value, struct adjacency);
	__uint(map_flags, BPF_F_MMAPABLE);
} adjacencies SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, NEXTHOPS);
	__type(key, __u32);
	__type(value, struct local);
	__uint(map_flags, BPF_F_MMAPABLE);
} locals SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, LOCATORS);
	__type(key, __u32);
	__type(value, struct locator);
	__uint(map_flags, BPF_F_MMAPABLE);
} locators SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP);
	__uint(max_entries, PORTS);
	__type(key, __u32);
	__type(value, __u32);
} tx_ports SEC(".maps");

/* Errors to senders. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct complaint);
} complaints SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, ICMP_SOURCES);
	__type(key, struct icmp_source);
	__type(value, struct budget);
} icmp_sources SEC(".maps");

/* Who shows himself. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SEEN_ENTRIES);
	__type(key, __u32);
	__type(value, __u64);
} seen SEC(".maps");

/* Who is waited for, and was sent something moments ago. Not shared between generations. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SEEN_ENTRIES);
	__type(key, __u32);
	__type(value, __u64);
} awaited SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, SIGHT_BUDGETS);
	__type(key, struct sight_key);
	__type(value, struct budget);
} sight_budgets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, SIGHTINGS_SIZE);
} sightings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SIGHT_KINDS);
	__type(key, __u32);
	__type(value, struct counter);
} sight_counters SEC(".maps");

/* What shadow mode notes. Without it they have one entry, and nothing looks at it. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1); /* loader: SHADOW_HOSTS in shadow mode */
	__type(key, struct shadow_key);
	__type(value, struct shadow_host);
} shadow_hosts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1); /* loader: SHADOW_PAIRS in shadow mode */
	__type(key, struct shadow_pair);
	__type(value, struct counter);
} shadow_pairs SEC(".maps");

/* What happened. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, PORTS * REASONS);
	__type(key, __u32);
	__type(value, struct counter);
} counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, LOCATORS);
	__type(key, __u32);
	__type(value, struct counter);
} locator_counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct walk_report);
} report SEC(".maps");

/* Who asked to be told. Not shared between generations but while somebody traces. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct trace_filters);
} trace_wishes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct trace_note);
} trace_notes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096); /* loader: a page, or TRACE_RING_SIZE while somebody traces */
} trace_ring SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, TRACE_FILTERS);
	__type(key, __u32);
	__type(value, struct counter);
} trace_lost SEC(".maps");
