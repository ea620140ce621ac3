/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* The kernel's half of a pass, for drivers that run native XDP on a finished socket buffer (veth).
 *
 * There the kernel has already judged the frame by its destination MAC, and "for another host" stays written on the
 * buffer although the walk has put the port's MAC into the frame: the packet would be dropped without a word. Drivers
 * that build the buffer after XDP judge afresh, and need nothing of this.
 */
#pragma once

#include <linux/pkt_cls.h>

#include "maps.h"
#include "parse.h"

#define PACKET_HOST 0
#define PACKET_OTHERHOST 3

SEC("tc")
int accept(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data;
	struct ethhdr *eth = data;

	if (skb->pkt_type != PACKET_OTHERHOST || (void *)(eth + 1) > (void *)(long)skb->data_end)
		return TC_ACT_UNSPEC;
#pragma unroll
	for (__u32 i = 0; i < PORT_PROBES; i++) {
		__u32 slot = port_slot(skb->ingress_ifindex, 0, i);
		struct port *port = bpf_map_lookup_elem(&ports, &slot);

		if (port && port->ifindex == skb->ingress_ifindex && mac_equal(eth->h_dest, port->mac)) {
			bpf_skb_change_type(skb, PACKET_HOST);
			break;
		}
	}
	return TC_ACT_UNSPEC;
}
