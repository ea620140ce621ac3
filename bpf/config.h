/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* Load-time constants. They are read-only once loaded, so the verifier removes what they switch off; changing one
 * means loading the program again and swapping the links, which loses nothing.
 *
 * To read one costs two instructions that stay. What packets seldom are is therefore asked first, where a constant is asked beside it.
 */
#pragma once

#include "abi.h"

struct table_config {
	__u64 seed[2];
	__u32 buckets;
	__u32 pad;
};

/* Seed and size of the host tables, copied by the loader from the tables' own headers. */
const volatile struct table_config hosts4_config = {};
const volatile struct table_config hosts6_config = {};

/* UDP ports on which tunnels arrive: RFC 7348, draft-ietf-nvo3-vxlan-gpe, RFC 8926, draft-ietf-intarea-gue, RFC 9300. */
const volatile __u16 vxlan_port = 4789;
const volatile __u16 vxlan_gpe_port = 4790;
const volatile __u16 geneve_port = 6081;
const volatile __u16 gue_port = 6080;
const volatile __u16 lisp_port = 4341;

/* What is asked of the sender inside a tunnel: enum source_rule. */
const volatile __u8 source_check = SOURCE_LOOSE;

/* TCP connections learn at their start what fits into the tunnel. */
const volatile _Bool mss_clamp = 1;

/* Some tenant has TENANT_KEEP_TTL. */
const volatile _Bool keep_ttl = 0;

/* Some segment has its hosts' packets leave elsewhere. */
const volatile _Bool egress_policy = 0;

/* Some segment has an l2vni: peers bridge to its hosts. */
const volatile _Bool bridging = 0;

/* DSCP of outer headers, or DSCP_COPY. */
const volatile __u8 outer_dscp = DSCP_COPY;

/* ICMP errors made here: so many a second to one sender, and so many at once. 0 makes none. */
const volatile __u32 icmp_rate = 10;
const volatile __u32 icmp_burst = 20;

/* Hosts that show themselves are reported so many times a second, each. 0 reports none: so it is in a dry run. */
const volatile __u32 sight_rate = 10;

/* Probes are answered so many times a second, of each locator. 0 answers none. */
const volatile __u32 probe_rate = 200;

/* Frames may be longer than a page: the program was loaded with the kernel's frags flag. */
const volatile _Bool frags = 0;

/* The program only looks: it counts what it would do, tells what it sees, and passes every frame as it came. Nothing below writes into a
 * frame, or changes its length, where this is set; see shadow.h. */
const volatile _Bool shadow = 0;

/* What the walk leaves behind beside its counters: enum run_mode. */
const volatile __u8 run = RUN_LIVE;
