/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* Counting: once per packet, by port and reason, in memory of the CPU that handles it. */
#pragma once

#include "maps.h"
#include "pkt.h"

static __always_inline void count_add(struct counter *c, __u32 bytes)
{
	if (c) {
		c->packets++;
		c->bytes += bytes;
	}
}

/* Packets of a port that is not configured count under port 0 of the array's reasons: PASS_NO_PORT has no other use. */
static __always_inline void count(const struct pkt *p, enum reason r)
{
	__u32 key = p->slot * REASONS + r;

	count_add(bpf_map_lookup_elem(&counters, &key), p->bytes);
}

static __always_inline void count_locator(const struct pkt *p, __u32 locator)
{
	count_add(bpf_map_lookup_elem(&locator_counters, &locator), p->bytes);
}
