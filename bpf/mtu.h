/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* A packet larger than its way out carries is refused here, before anything of it is changed.
 *
 * What follows the IP packet in the frame, padding or a trailer, is no part of it but counts when the frame is sent:
 * where both together are too large, the end is cut off, or the port would refuse the frame where no counter sees it.
 */
#pragma once

#include "pkt.h"

static __always_inline enum reason mtu(struct pkt *p)
{
	__u32 tail = p->bytes - p->l3;

	if (p->ip_len > p->mtu)
		return DROP_MTU;
	if (tail > p->mtu && move_tail(p, (int)p->ip_len - (int)tail))
		return DROP_MTU;
	return REASON_NONE;
}
