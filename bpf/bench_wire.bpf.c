// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/* Both ends of the wire of the system benchmark: a generator that keeps to a timetable, and a sink that counts what arrives and says
 * how long it was under way.
 *
 * The generator runs as a test run with live frames, whose batches leave together: it waits once for each, at its first packet, and
 * stamps and numbers every packet as it makes it. Waiting keeps the core, as a generator with a core of its own may. Words are composed
 * for a little-endian machine.
 *
 * The tricky part is to tell a forwarder that is too slow from one whose CPU was taken away. Both lose packets; but the slow one has some
 * arrive all the time. So the generator, whose CPU is another one, looks at the sink once a batch: where packets are under way and none
 * arrives for longer than it takes to deliver a good part of a queue, that is a stall, and what was sent during it, until the queue is
 * short again, is set aside together with what of it was lost. The sink knows what was lost by the numbers. What a stall means is for the
 * reader to say: the generator cannot know who took the CPU.
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
#define PAUSE 50000		/* ns: later than that, the generator's own CPU was taken away */
#define QUEUE_SHORT 64		/* packets under way */
#define AFTERMATH 1024		/* packets after a stall in which the queue gets short, or never does */
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
	__u64 start;		/* ns; the first packet sets it, and being late moves it */
	__u64 first, last;	/* ns: of packets so far */
	__u64 made;		/* frames so far */
	__u64 late;		/* ns: the latest batch */
	__u64 paused;		/* ns: of pauses in all */
};

struct timetable wire_timetable = {};

/* What the generator sees of the sink. */
struct witness {
	__u64 patience;		/* ns, set before a run: silence for longer is a stall */
	__u64 longest;		/* ns of silence */
	__u64 deepest;		/* packets under way, at most */
	__u64 stalls;
	__u64 aside;		/* packets set aside */
	__u64 aside_lost;	/* of them */
	__u64 at, made, next, lost; /* when something had last arrived: ns, and the counts then */
	__u64 from, from_lost;	/* the counts before the stall that is not over */
	__u64 until;		/* made: it is over then at the latest; 0: there is none */
};

struct witness wire_witness = {};

/* Whose counts the witness looks at. */
__u32 wire_sink_cpu = 0;

/* Offset of the stamp, and the number behind it, in what arrives; 0: it is counted alone. */
__u32 wire_stamp = 0;
__u32 wire_timed = 0;		/* packets are timed, too */

/* Numbers say which run a packet is of: forwarders with long queues deliver some of the last one late. */
__u64 wire_run = 0;
#define RUN_SHIFT 40

#define BUCKETS 512		/* eight for each power of two of ns */

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, BUCKETS);
	__type(key, __u32);
	__type(value, __u64);
} wire_took SEC(".maps");

struct arrivals {
	__u64 received;
	__u64 next;		/* number of the packet after the last one */
	__u64 lost;		/* before it */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct arrivals);
} wire_sunk SEC(".maps");

/* A queue in front of the forwarder, as long as the ring of a card: the end of a cable has room for 256 frames. A thread of the kernel on the
 * forwarder's CPU takes 8 at a time from it, puts them into the cable, and has them forwarded before it takes more.
 */
struct {
	__uint(type, BPF_MAP_TYPE_CPUMAP);
	__uint(max_entries, 1);	/* CPUs, which the loader counts */
	__type(key, __u32);
	__type(value, struct bpf_cpumap_val);
} wire_queue SEC(".maps");

__u32 wire_queued = 0;		/* the generator's frames go through it */

struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} wire_cable SEC(".maps");

SEC("xdp/cpumap")
int wire_hand_over(struct xdp_md *ctx)
{
	return bpf_redirect_map(&wire_cable, 0, XDP_DROP);
}

/* Where frames found no room, on their way through the queue. */
struct overflow {
	__u64 queue;
	__u64 cable;		/* its end at the forwarder */
	__u64 behind;		/* the end of the cable behind the forwarder */
};

struct overflow wire_overflow = {};

__u32 wire_queue_id = 0;

SEC("tp_btf/xdp_cpumap_enqueue")
int wire_enqueue(__u64 *ctx)
{
	__u32 map = ctx[0], drops = ctx[2];

	if (map == wire_queue_id)
		wire_overflow.queue += drops;
	return 0;
}

/* The thread hands over to the cable that it says frames have come from. What others on this machine lose meanwhile counts as lost behind. */
SEC("tp_btf/xdp_devmap_xmit")
int wire_xmit(__u64 *ctx)
{
	__u32 drops = ctx[3];

	if (drops && ctx[0] == ctx[1])
		wire_overflow.cable += drops;
	else if (drops)
		wire_overflow.behind += drops;
	return 0;
}

struct wire_frame {
	struct ethhdr eth;
	struct iphdr ip;
	struct udphdr udp;
	__u64 stamp;
	__u64 number;
} __attribute__((packed, aligned(2)));

static long clock_reached(__u32 i, void *due)
{
	return bpf_ktime_get_ns() >= *(__u64 *)due;
}

/* A stall is over when the queue is short. One that never gets short belongs to a forwarder that is too slow: then it has to end, too. */
static __always_inline void end_stall(struct witness *w, __u64 made, __u64 next, __u64 lost)
{
	if (!w->until || (made > next + QUEUE_SHORT && made <= w->until))
		return;
	w->aside += made - w->from;
	w->aside_lost += lost - w->from_lost;
	w->until = 0;
}

static __always_inline void watch(__u64 made, __u64 now)
{
	struct witness *w = &wire_witness;
	volatile struct arrivals *seen;
	__u64 next, lost;
	__u32 zero = 0;

	seen = bpf_map_lookup_percpu_elem(&wire_sunk, &zero, wire_sink_cpu);
	if (!seen)
		return;
	next = seen->next;
	lost = seen->lost; /* after next: then it holds all that was lost before it */
	if (next < made && made - next > w->deepest)
		w->deepest = made - next;
	if (next != w->next || next >= made) {
		end_stall(w, made, next, lost);
		w->at = now;
		w->made = made;
		w->next = next;
		w->lost = lost;
		return;
	}
	if (now - w->at > w->longest)
		w->longest = now - w->at;
	if (now - w->at <= w->patience)
		return;
	if (!w->until) {
		w->from = w->made;
		w->from_lost = w->lost;
		w->stalls++;
	}
	w->until = made + AFTERMATH;
}

/* Returns the time. */
static __always_inline __u64 wait_for(__u64 due, __u64 now)
{
	struct timetable *t = &wire_timetable;
	__u64 late = now - due;

	if (now <= due) {
		bpf_loop(WAIT_MAX, clock_reached, &due, 0);
		return bpf_ktime_get_ns();
	}
	if (late > t->late)
		t->late = late;
	t->start += late; /* making up for it would be a burst, which overloads the forwarder */
	if (late > PAUSE)
		t->paused += late;
	return now;
}

static __always_inline void keep_timetable(void)
{
	__u64 n = wire_timetable.made++, now;

	if (n & wire_timetable.batch)
		return;
	now = bpf_ktime_get_ns();
	if (!n)
		wire_timetable.start = wire_timetable.first = now;
	now = wait_for(wire_timetable.start + (n / (wire_timetable.batch + 1) * wire_timetable.gap >> 10), now);
	watch(n, now);
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
	f->number = wire_run << RUN_SHIFT | (wire_timetable.made - 1);
	f->stamp = wire_timetable.last = bpf_ktime_get_ns();
	return wire_queued ? bpf_redirect_map(&wire_queue, wire_sink_cpu, XDP_ABORTED) : XDP_TX;
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

static __always_inline void time_packet(__u64 ns)
{
	__u32 bucket = bucket_of(ns);
	__u64 *n = bpf_map_lookup_elem(&wire_took, &bucket);

	if (n)
		++*n;
}

/* One that was overtaken has been counted as lost: nothing here does that. */
static __always_inline void follow(struct arrivals *a, __u64 number)
{
	if (number < a->next)
		return;
	a->lost += number - a->next;
	a->next = number + 1;
}

SEC("xdp")
int wire_sink(struct xdp_md *ctx)
{
	__u32 off = wire_stamp & 0xff, zero = 0;
	void *data = (void *)(long)ctx->data;
	__u64 *stamp = data + off;
	struct arrivals *a;

	a = bpf_map_lookup_elem(&wire_sunk, &zero);
	if (!a)
		return XDP_DROP;
	if (off) {
		if ((void *)(stamp + 2) > (void *)(long)ctx->data_end || stamp[1] >> RUN_SHIFT != wire_run)
			return XDP_DROP;
		follow(a, stamp[1] & ((1ULL << RUN_SHIFT) - 1));
		if (wire_timed)
			time_packet(bpf_ktime_get_ns() - stamp[0]);
	}
	a->received++;
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
