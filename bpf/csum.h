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

#define FRAME_MAX 0x3fff

/* To the verifier the place after a piece looks the same whether the piece was there or not: it need not follow every combination. */
#define FORGET(off) asm volatile("%0 &= %1" : "+r"(off) : "i"(FRAME_MAX))

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
		FORGET(off);						\
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
		FORGET(off);						\
	} while (0)

/* The same over a frame of several pieces, copied out one after the other. */
static __always_inline __s64 csum_copied(struct xdp_md *ctx, __u32 off, __u32 len)
{
	__u32 buffer[32];
	__u64 sum = 0;

	for (int i = 0; i < 80; i++) {
		__u32 n = len < sizeof(buffer) ? len : sizeof(buffer);
		__s64 r;

		if (!n)
			return sum;
		if (n < sizeof(buffer))
			__builtin_memset(buffer, 0, sizeof(buffer));
		/* 1 to 128, in a way that the verifier follows: before Linux 6.8 it learns nothing from n != 0. */
		asm volatile("" : "+r"(n));
		n = ((n - 1) & (sizeof(buffer) - 1)) + 1;
		if (bpf_xdp_load_bytes(ctx, off, buffer, n))
			return -1;
		r = bpf_csum_diff(NULL, 0, buffer, sizeof(buffer), 0);
		if (r < 0)
			return -1;
		sum += (__u32)r;
		off += n;
		len -= n;
	}
	return len ? -1 : (__s64)sum;
}

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
	if (frags && start + off + len > end)
		return csum_copied(ctx, off, len);
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

/* Sum of an IPv4 header without options. */
static __always_inline __u64 csum_ip4(const struct iphdr *ip)
{
	const __u32 *w = (const __u32 *)ip;

	return (__u64)w[0] + w[1] + w[2] + w[3] + w[4];
}

/* The ICMPv6 checksum's sum over pseudo-header and message of the packet at off, or -1; right when it folds to 0xffff. */
static __always_inline __s64 csum_icmp6(struct xdp_md *ctx, __u32 off, __u32 len)
{
	struct ipv6hdr *ip = ctx_at(ctx, off, sizeof(*ip));
	__s64 sum;
	__u32 *w;

	if (!ip)
		return -1;
	w = (__u32 *)&ip->saddr;
	sum = csum_bytes(ctx, off + sizeof(*ip), len - sizeof(*ip));
	if (sum < 0)
		return -1;
	for (int i = 0; i < 8; i++)
		sum += w[i];
	return sum + bpf_htonl(len - sizeof(*ip)) + bpf_htonl(IPPROTO_ICMPV6);
}

/* Is the checksum of an IPv4 header of ihl words at off right? */
static __always_inline int csum_ip4_right(const struct pkt *p, const struct iphdr *ip, __u32 off, __u32 ihl)
{
	__u64 sum = csum_ip4(ip);

	if (ihl > 5) {
		__s64 options = csum_bytes(p->ctx, off + sizeof(*ip), ihl * 4 - sizeof(*ip));

		if (options < 0)
			return 0;
		sum += options;
	}
	return csum_right(sum);
}
