/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* Load-time constants. They are read-only once loaded, so the verifier removes what they switch off; changing one
 * means loading the program again and swapping the links, which loses nothing.
 */
#pragma once

#include "abi.h"

struct table_config {
	__u64 seed[2];
	__u32 buckets;
	__u32 records;
};

/* Seed and size of the host tables, copied by the loader from the tables' own headers. */
const volatile struct table_config hosts4_config = {};
const volatile struct table_config hosts6_config = {};

/* UDP port on which tunnels arrive (RFC 7348: 4789). */
const volatile __u16 vxlan_port = 4789;

/* A dry run for `roamctl explain`: leaves a walk_report behind. */
const volatile _Bool dry = 0;
