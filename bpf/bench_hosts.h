/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* Where the hosts of the benchmark are. */
#pragma once

#include <linux/types.h>
#include <bpf/bpf_endian.h>

/* Where hosts are, and where those they hear from. */
#define BENCH_DST4 10
#define BENCH_SRC4 11
#define BENCH_DST6 0x20010db8
#define BENCH_SRC6 0x20010db9

/* Host number i, scattered over a /8 or a /64: both maps of numbers to addresses are one to one. */
static __always_inline __be32 bench_host4(__u32 net, __u32 i)
{
	return bpf_htonl(net << 24 | ((i * 0x9E3779B1U + 0x5BD1E9) & 0xffffff));
}

static __always_inline __u64 bench_host6(__u32 i)
{
	return (i + 1) * 0x9E3779B97F4A7C15ULL;
}
