/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* Where packets cross the border of a host's subnet: at the site where the host is, or at the one that its policy names, its home
 * above all, where a firewall that keeps state has to see both directions.
 *
 * A policy is a host's, and lists prefixes and the ways by which the host exchanges packets with them. Both directions take one
 * way: so what a host here sends goes to its home, and so does what somebody here sends to it, though it may live next door. The
 * gateway at home treats a packet as if the host were on its own segment: it looks up where it goes, which may well be the tunnel that it
 * came by. That is the second exception from "never from tunnel to tunnel", and like the first it takes from both TTLs.
 *
 * Where both ends have a home, a packet passes the sender's and then the receiver's, and the answer the same two the other
 * way round. Other packets out of tunnels have come by their way, and are delivered. What is said in a host's own subnet crosses no
 * border: its list has the subnet as WAY_SUBNET. The gateway answers for itself wherever it is asked.
 */
#pragma once

#include "source.h"

/* May what is to become of the packet be changed? Not what is not for us, for the gateway itself, or dropped on purpose. */
static __always_inline int may_leave_elsewhere(const struct pkt *p, enum reason r)
{
	if (r && r != PASS_NO_ROUTE)
		return 0;
	return p->nexthop.kind != NH_GATEWAY && p->nexthop.kind != NH_OWN && p->nexthop.kind != NH_BLACKHOLE;
}

/* What comes in by an uplink was not sent by a host here, whatever it says. */
static __always_inline __u32 way_of_sender(const struct pkt *p)
{
	return p->tunnelled || !(p->port->role & ROLE_UPLINK) ? way_of_source(p) : 0;
}

/* Is the way WAY_HERE? Without a branch: to the verifier both answers look alike from here. */
static __always_inline __u32 is_here(__u32 way)
{
	return ((way ^ WAY_HERE) - 1) >> 31;
}

/* Is this gateway one at which a packet out of a tunnel has to turn round? */
static __always_inline int by_way_of_home(const struct pkt *p)
{
	return egress_policy && p->home;
}

/* r is what the look-up came to. */
static __always_inline enum reason egress(struct pkt *p, enum reason r)
{
	__u32 from, way;
	struct nexthop *nh;

	if (!egress_policy || !may_leave_elsewhere(p, r))
		return r;
	from = way_of_sender(p);
	if (from == WAY_SUBNET)
		return r;
	way = way_of_destination(p);
	p->home = is_here(from) | is_here(way);
	if (p->tunnelled && (from != WAY_HERE || way_leads_to(way, p->from)))
		return r;
	if (from > WAY_HERE)
		way = from;
	if (way <= WAY_HERE)
		return r;
	nh = bpf_map_lookup_elem(&nexthops, &way);
	if (!nh)
		return DROP_NEXTHOP;
	*(__u64 *)&p->nexthop = *(volatile __u64 *)nh;
	p->nexthop_id = way;
	p->exact = 0;
	p->by_policy = 1;
	return REASON_NONE;
}
