/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* Token buckets: how often something may happen for one key of an LRU hash. A key that was pushed out begins full again. */
#pragma once

#include "maps.h"

#define THOUSAND 1000ULL
#define SECONDS_MAX (3600 * 1000000000ULL)

/* Takes a token of a key's, of which there are rate more each second and burst at most. Two CPUs may both take the last one: no harm. */
static __always_inline int spend(void *map, const void *key, __u32 rate, __u32 burst)
{
	struct budget *b, fresh;
	__u64 now = bpf_ktime_get_ns(), spent, left;

	b = bpf_map_lookup_elem(map, key);
	if (!b) {
		fresh.since = now;
		fresh.left = (burst - 1) * THOUSAND;
		bpf_map_update_elem(map, key, &fresh, BPF_ANY);
		return 1;
	}
	spent = now - b->since;
	if (spent > SECONDS_MAX)
		spent = SECONDS_MAX;
	left = b->left + spent * rate / 1000000;
	if (left > burst * THOUSAND)
		left = burst * THOUSAND;
	if (left < THOUSAND)
		return 0;
	b->left = left - THOUSAND;
	b->since = now;
	return 1;
}
