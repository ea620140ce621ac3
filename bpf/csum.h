/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* Internet checksums (RFC 1071): ones' complement sums of 16-bit words in memory order, so that no byte is swapped. */
#pragma once

#include "pkt.h"

static __always_inline __u16 csum_fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/* The same for a sum that fits 32 bits. */
static __always_inline __u16 csum_fold32(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	return sum + (sum >> 16);
}

/* Does a sum below 2^36 belong to data that holds its own right checksum? It is a multiple of 0xffff then. */
static __always_inline int csum_right(__u64 sum)
{
	__u32 s = (sum & 0xffff) + ((__u32)sum >> 16) + (__u32)(sum >> 32);

	return s == 0xffff || s == 2 * 0xffff;
}

/* A changed 16-bit word's effect on a checksum (RFC 1624, equation 3). */
static __always_inline __u16 csum_replace(__u16 csum, __u16 old, __u16 new)
{
	return ~csum_fold32((__u16)~csum + (__u16)~old + new);
}

/* A piece of a size that is a power of two, if length has that bit: up to 128 bytes by loads, beyond by a helper, whose call and
 * return take as long as adding up some 128 bytes.
 */
#define CSUM_PIECE(size)						\
	do {								\
		if (left & (size)) {					\
			__u32 *w = start + off;				\
									\
			if ((void *)w + (size) > end)			\
				return -1;				\
			_Pragma("unroll")				\
			for (int i = 0; i < (size) / 4; i++)		\
				sum += w[i];				\
			off += (size);					\
		}							\
	} while (0)

#define CSUM_LARGE_PIECE(size)						\
	do {								\
		if (left >= (size)) {					\
			void *piece = start + off;			\
			__s64 r;					\
									\
			if (piece + (size) > end)			\
				return -1;				\
			r = bpf_csum_diff(NULL, 0, piece, size, 0);	\
			if (r < 0)					\
				return -1;				\
			sum += (__u32)r;				\
			off += (size);					\
			left -= (size);					\
		}							\
	} while (0)

/* Sum over len bytes at off, or -1 where they leave the linear part of the frame or are too many. Pieces have
 * constant sizes because the verifier wants to see them, and at most 512 bytes because Linux 5.10 fails above.
 * A global function: verified once, by itself, instead of on every path that leads here.
 */
__attribute__((noinline)) __s64 csum_bytes(struct xdp_md *ctx, __u32 off, __u32 len)
{
	void *start = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	__u32 left = len;
	__u64 sum = 0;

	off &= OFFSET_MAX;
	for (int i = 0; i < 19; i++) {
		if (left < 512)
			break;
		CSUM_LARGE_PIECE(512);
	}
	if (left >= 512)
		return -1;
	CSUM_LARGE_PIECE(256);
	CSUM_PIECE(128);
	CSUM_PIECE(64);
	CSUM_PIECE(32);
	CSUM_PIECE(16);
	CSUM_PIECE(8);
	CSUM_PIECE(4);
	if (left & 2) {
		__u16 *half = start + off;

		if ((void *)(half + 1) > end)
			return -1;
		sum += *half;
		off += 2;
	}
	if (left & 1) {
		__u8 *byte = start + off;

		if ((void *)(byte + 1) > end)
			return -1;
		sum += *byte; /* padded with zero behind: the low byte in memory order on little endian */
	}
	return sum;
}

/* Is the checksum of an IPv4 header of ihl words at off right? */
static __always_inline int csum_ip4_right(const struct pkt *p, const struct iphdr *ip, __u32 off, __u32 ihl)
{
	const __u32 *w = (const __u32 *)ip;
	__u64 sum = (__u64)w[0] + w[1] + w[2] + w[3] + w[4];

	if (ihl > 5) {
		__s64 options = csum_bytes(p->ctx, off + sizeof(*ip), ihl * 4 - sizeof(*ip));

		if (options < 0)
			return 0;
		sum += options;
	}
	return csum_right(sum);
}
