// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/* Both ends of the wire of the system benchmark: a generator that keeps to a timetable, and a sink that counts what arrives and says
 * how long it was under way.
 *
 * The generator runs as a test run with live frames, whose batches leave together: it waits once for each, at its first packet, and
 * stamps every packet as it makes it. Waiting keeps the core, as a generator with a core of its own may. Words are composed for a
 * little-endian machine.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "bench_hosts.h"

#define WIRE_TTL 64
#define AWAY 50000		/* ns */
#define WAIT_MAX (1 << 22)	/* looks at the clock: far longer than any gap */

enum wire_mix {
	MIX_NONE,		/* all frames are as long as they were given to the test run */
	MIX_IMIX,		/* 7 of 12 short, 4 of 590 bytes, 1 of 1514 */
};

/* Set before a run. */
struct timetable {
	__u64 gap;		/* between batches, ns times 1024 */
	__u64 random;
	__u32 batch;		/* frames, a power of two, less one */
	__u32 hosts;		/* mask: packets go to number (random & mask) */
	__u32 mix;
	__u32 pad;
	__u64 start;		/* ns; the first packet sets it, and whoever was kept away for long moves it: what was missed is not made up for */
	__u64 first, last;	/* ns: of packets so far */
	__u64 made;		/* frames so far */
	__u64 away;		/* times that the timetable was moved */
};

struct timetable wire_timetable = {};

/* Offset of the stamp in what arrives; 0: it is counted alone. */
__u32 wire_stamp = 0;

#define BUCKETS 512		/* eight for each power of two of ns */

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, BUCKETS);
	__type(key, __u32);
	__type(value, __u64);
} wire_took SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} wire_sunk SEC(".maps");

struct wire_frame {
	struct ethhdr eth;
	struct iphdr ip;
	struct udphdr udp;
	__u64 stamp;
} __attribute__((packed, aligned(2)));

static long clock_reached(__u32 i, void *due)
{
	return bpf_ktime_get_ns() >= *(__u64 *)due;
}

static __always_inline void keep_timetable(void)
{
	__u64 n = wire_timetable.made++, due, now;

	if (n & wire_timetable.batch)
		return;
	if (!n)
		wire_timetable.start = wire_timetable.first = bpf_ktime_get_ns();
	due = wire_timetable.start + (n / (wire_timetable.batch + 1) * wire_timetable.gap >> 10);
	now = bpf_ktime_get_ns();
	if (now > due + AWAY) {
		wire_timetable.away++;
		wire_timetable.start += now - due;
	} else if (now <= due) {
		bpf_loop(WAIT_MAX, clock_reached, &due, 0);
	}
}

static __always_inline __u32 frame_bytes(__u32 given)
{
	__u32 turn = wire_timetable.made % 12;

	if (wire_timetable.mix == MIX_NONE)
		return given;
	return turn < 7 ? 60 : turn < 11 ? 590 : 1514;
}

static __always_inline __u16 ip_checksum(const struct iphdr *ip)
{
	const __u16 *w = (const __u16 *)ip;
	__u32 sum = 0;

#pragma unroll
	for (int i = 0; i < 10; i++)
		sum += w[i];
	sum = (sum & 0xffff) + (sum >> 16);
	return ~(sum + (sum >> 16));
}

SEC("xdp")
int wire_generate(struct xdp_md *ctx)
{
	__u64 given = ctx->data_end - ctx->data;
	struct wire_frame *f;
	__u32 bytes;

	asm volatile("" : "+r"(given)); /* or the compiler keeps half of each pointer, which the verifier does not let it */
	keep_timetable();
	bytes = frame_bytes(given);
	if (bytes != given && bpf_xdp_adjust_tail(ctx, (int)bytes - (int)given))
		return XDP_ABORTED;
	f = (void *)(long)ctx->data;
	if ((void *)(f + 1) > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
	wire_timetable.random = wire_timetable.random * 6364136223846793005ULL + 1442695040888963407ULL;
	/* Pages come back with what their last way has written. */
	*(__u64 *)&f->eth = 0x0200010000000002ULL; /* to 02:00:00:00:00:01 from 02:00:00:00:00:02 */
	*(__u32 *)(f->eth.h_source + 2) = 0x02000000;
	f->eth.h_proto = bpf_htons(ETH_P_IP);
	f->ip = (struct iphdr){
		.version = 4, .ihl = 5, .ttl = WIRE_TTL, .protocol = IPPROTO_UDP, .tot_len = bpf_htons(bytes - sizeof(f->eth)),
		.saddr = bench_host4(BENCH_SRC4, 0),
	};
	f->ip.daddr = bench_host4(BENCH_DST4, wire_timetable.random >> 33 & wire_timetable.hosts);
	f->ip.check = ip_checksum(&f->ip);
	f->udp.source = bpf_htons(5000);
	f->udp.dest = bpf_htons(6000);
	f->udp.check = 0;
	f->udp.len = bpf_htons(bytes - sizeof(f->eth) - sizeof(f->ip));
	f->stamp = wire_timetable.last = bpf_ktime_get_ns();
	return XDP_TX;
}

static __always_inline __u32 bucket_of(__u64 ns)
{
	__u32 power = 0;

	if (ns < 8)
		return ns;
#pragma unroll
	for (int step = 32; step; step /= 2) {
		if (ns >> step >> power)
			power += step;
	}
	return power * 8 + (ns >> (power - 3) & 7);
}

static __always_inline void add(void *map, __u32 key)
{
	__u64 *n = bpf_map_lookup_elem(map, &key);

	if (n)
		++*n;
}

SEC("xdp")
int wire_sink(struct xdp_md *ctx)
{
	__u32 off = wire_stamp & 0xff;
	void *data = (void *)(long)ctx->data;
	__u64 *stamp = data + off;

	add(&wire_sunk, 0);
	if (off && (void *)(stamp + 1) <= (void *)(long)ctx->data_end)
		add(&wire_took, bucket_of(bpf_ktime_get_ns() - *stamp));
	return XDP_DROP;
}

/* What one program between both ends does at least. */
struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} wire_out SEC(".maps");

SEC("xdp")
int wire_redirect(struct xdp_md *ctx)
{
	return bpf_redirect_map(&wire_out, 0, XDP_DROP);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
