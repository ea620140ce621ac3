/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* A packet larger than its way out carries is refused here, before anything of it is changed; and a TCP connection is
 * told at its start what will fit, so that most never come to that.
 *
 * What follows the IP packet in the frame, padding or a trailer, is no part of it but counts when the frame is sent:
 * where both together are too large, the end is cut off, or the port would refuse the frame where no counter sees it.
 */
#pragma once

#include <linux/tcp.h>

#include "csum.h"
#include "pkt.h"

static __always_inline enum reason mtu(struct pkt *p)
{
	__u32 tail = p->bytes - p->l3;

	if (p->ip_len > p->mtu)
		return DROP_MTU;
	if (tail > p->mtu && !shadow && move_tail(p, (int)p->ip_len - (int)tail))
		return DROP_MTU;
	return REASON_NONE;
}

#define TCP_OPTION_END 0
#define TCP_OPTION_NOP 1
#define TCP_OPTION_MSS 2
#define TCP_OPTIONS_MAX 40

/* Lowers the MSS option of the SYN at l4 (RFC 9293, section 3.7.1; RFC 4459, section 3.2), and its checksum. What is malformed
 * stays as it is: it is for the host to judge. A global function: verified once, by itself.
 */
__attribute__((noinline)) int mss_lower(struct xdp_md *ctx, __u32 l4, __u32 end, __u32 mss)
{
	struct tcphdr *tcp = ctx_at(ctx, l4, sizeof(*tcp));
	__u32 off = l4 + sizeof(*tcp);

	if (shadow || !tcp || l4 + tcp->doff * 4 > end)
		return 0;
	end = l4 + tcp->doff * 4;
	for (int i = 0; i < TCP_OPTIONS_MAX && off + 4 <= end; i++) {
		__u8 *option;
		__u32 old;

		if (off > OFFSET_MAX)
			return 0;
		/* To the verifier every round now looks like the one before. */
		asm volatile("%0 &= %1" : "+r"(off) : "i"(OFFSET_MAX));
		option = ctx_at(ctx, off, 4);
		if (!option || option[0] == TCP_OPTION_END)
			return 0;
		if (option[0] == TCP_OPTION_NOP) {
			off++;
			continue;
		}
		if (option[0] == TCP_OPTION_MSS && option[1] == 4) {
			__be16 from, to;

			old = option[2] << 8 | option[3];
			if (old <= mss)
				return 0;
			from = bpf_htons(old);
			to = bpf_htons(mss);
			option[2] = mss >> 8;
			option[3] = mss;
			if ((off - l4) & 1) { /* an odd place: the value spans two words of the sum */
				from = __builtin_bswap16(from);
				to = __builtin_bswap16(to);
			}
			tcp = ctx_at(ctx, l4, sizeof(*tcp));
			if (tcp)
				tcp->check = csum_replace(tcp->check, from, to);
			return 1;
		}
		if (option[1] < 2)
			return 0;
		off += option[1];
	}
	return 0;
}

/* A connection's first packets carry what their sender takes: no more than fits into mtu. 0 is not known. */
static __always_inline void mss(const struct pkt *p, __u32 mtu)
{
	__u32 headers = (p->v6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr)) + sizeof(struct tcphdr);
	__u8 *flags;

	if (p->proto != IPPROTO_TCP || !mss_clamp || is_later_fragment(p) || p->l4 + sizeof(struct tcphdr) > p->l3 + p->ip_len)
		return;
	flags = at(p, p->l4 + 13, 1);
	if (flags && *flags & 0x02 && mtu > headers)
		mss_lower(p->ctx, p->l4, p->l3 + p->ip_len, mtu - headers);
}
