// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/* What the benchmark runs: the packet walk itself, inside a wrapper that turns every repeat into a new packet.
 *
 * A test run hands the program the frame as its last repeat left it. The wrapper therefore undoes what the walk did,
 * and draws the next addresses. The same wrapper around an empty program is timed too, and the difference is the
 * walk's cost. Two things make that difference honest. The wrapper adjusts the head of the frame even where nothing
 * has to be undone, so that both sides pay for it. And it stores whole words, each of which holds all of what the
 * walk will load from it: a load that needs a store still under way and bytes beside it waits for both, which no
 * packet that came from a network card makes it do.
 *
 * bench_hash.bpf.c and bench_trie.bpf.c run the same walk over the kernel's own maps. Words are composed for a
 * little-endian machine.
 */
#include "datapath.bpf.c"
#include "bench_hosts.h"

/* Fixed by the loader: which frame this is. */
struct frame {
	__u32 bytes;		/* length of the frame as it arrives */
	__u32 link;		/* offset of the Ethernet header in front of the IP header that is looked up */
	__u32 window;		/* packets timed together, a power of two, less one */
	__u8 v6;		/* family of that header */
	__u8 live;		/* live frames come with their head restored */
	__u8 bare;		/* bytes of the headers below, where no Ethernet header stands in front of that IP header; a multiple of 4 */
	__u8 pad;
	__u8 outer[56];		/* from the outer IP header on */
};

const volatile struct frame bench_frame = {};

/* Which host a packet goes to: number first + (random & mask), where the mask is one less than a power of two. */
struct traffic {
	__u64 random;
	__u32 first;
	__u32 destinations;	/* mask */
	__u32 sources;		/* mask */
	__u32 egress;		/* port of a bare redirect */
};

struct traffic bench_traffic = {};

/* How long each window of packets took: a disturbance of the machine shows in the windows that it hit, and only there. */
#define WINDOWS 1024

struct stopwatch {
	__u64 packets;
	__u64 started;		/* the window under way, ns */
	__u32 took[WINDOWS];	/* ns, the last windows */
};

struct stopwatch bench_stopwatch = {};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct counter);
} bench_sunk SEC(".maps");

#define BENCH_TTL 64
#define BENCH_CALLS 8

static __always_inline __u32 draw(void)
{
	bench_traffic.random = bench_traffic.random * 6364136223846793005ULL + 1442695040888963407ULL;
	return bench_traffic.random >> 33;
}

static __always_inline __u32 draw_destination(void)
{
	return bench_traffic.first + (draw() & bench_traffic.destinations);
}

/* UDP to a host: 20 bytes of header whose sum follows the addresses. */
static __always_inline void restore4(__u8 *ip, __u32 len)
{
	__be32 dst = bench_host4(BENCH_DST4, draw_destination());
	__be32 src = bench_host4(BENCH_SRC4, draw() & bench_traffic.sources);
	__u64 first = 0x45 | (__u64)bpf_htons(len) << 16;
	__u32 ttl = BENCH_TTL | IPPROTO_UDP << 8;
	__u16 check = ~csum_fold((first >> 32) + (__u32)first + ttl + src + dst);

	*(__u64 *)ip = first;
	*(__u64 *)(ip + 8) = (__u64)src << 32 | (__u32)check << 16 | ttl;
	*(__u64 *)(ip + 16) = (__u64)bpf_htonl(5000 << 16 | 6000) << 32 | dst;
}

static __always_inline void restore6(__u8 *ip, __u32 len)
{
	*(__u64 *)ip = 0x60 | (__u64)bpf_htons(len - sizeof(struct ipv6hdr)) << 32 | (__u64)IPPROTO_UDP << 48 |
		       (__u64)BENCH_TTL << 56;
	*(__u64 *)(ip + 8) = bpf_htonl(BENCH_SRC6);
	*(__u64 *)(ip + 16) = bench_host6(draw() & bench_traffic.sources);
	*(__u64 *)(ip + 24) = bpf_htonl(BENCH_DST6);
	*(__u64 *)(ip + 32) = bench_host6(draw_destination());
	*(__u32 *)(ip + 40) = bpf_htonl(5000 << 16 | 6000);
}

/* What delivery wrote its Ethernet header over. Every word is whole for the walk, whose loads are of 4 bytes over IPv4. */
static __always_inline void restore_outer(__u8 *ip)
{
	__u32 len = bench_frame.bare;

#pragma unroll
	for (__u32 i = 0; i + 8 <= sizeof(bench_frame.outer); i += 8) {
		if (i + 8 <= len)
			*(__u64 *)(ip + i) = *(const volatile __u64 *)(bench_frame.outer + i);
	}
	if (len & 4)
		*(__u32 *)(ip + len - 4) = *(const volatile __u32 *)(bench_frame.outer + len - 4);
}

static __always_inline void restore_link(__u8 *link)
{
	*(__u64 *)link = 0x0200010000000002ULL; /* to 02:00:00:00:00:01 from 00:02:... */
	*(__u32 *)(link + 8) = 0x02000000;
	*(__u16 *)(link + 12) = bench_frame.v6 ? bpf_htons(ETH_P_IPV6) : bpf_htons(ETH_P_IP);
}

static __always_inline void watch(void)
{
	__u64 n = ++bench_stopwatch.packets, now;

	if (n & bench_frame.window)
		return;
	now = bpf_ktime_get_ns();
	bench_stopwatch.took[n / (bench_frame.window + 1) % WINDOWS] = now - bench_stopwatch.started;
	bench_stopwatch.started = now;
}

/* The next packet, where the last one was. */
static __always_inline int restore(struct xdp_md *ctx)
{
	__u32 len = bench_frame.bytes - bench_frame.link - sizeof(struct ethhdr);
	__u64 now = ctx->data_end - ctx->data;
	__u8 *link, *end;

	if (!bench_frame.live)
		watch();
	asm volatile("" : "+r"(now)); /* or the compiler adds to a pointer what the verifier does not let it */
	if (!bench_frame.live && bpf_xdp_adjust_head(ctx, (int)now - (int)bench_frame.bytes))
		return -1;
	link = (void *)(long)ctx->data + bench_frame.link;
	end = (void *)(long)ctx->data_end;
	if (link + sizeof(struct ethhdr) + sizeof(struct ipv6hdr) + 4 > end)
		return -1;
	if (bench_frame.bare)
		restore_outer((__u8 *)(long)ctx->data + sizeof(struct ethhdr));
	else
		restore_link(link);
	if (bench_frame.v6)
		restore6(link + sizeof(struct ethhdr), len);
	else
		restore4(link + sizeof(struct ethhdr), len);
	return 0;
}

SEC("xdp")
int bench_walk(struct xdp_md *ctx)
{
	struct pkt p = { .ctx = ctx };

	if (restore(ctx))
		return XDP_ABORTED;
	p.bytes = frame_len(&p);
	return finish(&p, go(&p));
}

/* The walk as it is while somebody traces, for a load with RUN_TRACED. */
SEC("xdp")
int bench_traced(struct xdp_md *ctx)
{
	if (restore(ctx))
		return XDP_ABORTED;
	trace_begin(ctx);
	bpf_tail_call(ctx, &programs, PROGRAM_WALK);
	return XDP_ABORTED;
}

SEC("xdp")
int bench_empty(struct xdp_md *ctx)
{
	return restore(ctx) ? XDP_ABORTED : XDP_TX;
}

SEC("xdp")
int bench_redirect(struct xdp_md *ctx)
{
	return restore(ctx) ? XDP_ABORTED : bpf_redirect_map(&tx_ports, bench_traffic.egress, XDP_DROP);
}

/* Does nothing but come back. */
__attribute__((noinline)) int bench_return(__u32 n)
{
	asm volatile("" : "+r"(n));
	return n;
}

/* What calls cost that are in the walk: most of it is the way back, where the kernel guards it against speculation. */
SEC("xdp")
int bench_calls(struct xdp_md *ctx)
{
	__u32 n = 0;

	if (restore(ctx))
		return XDP_ABORTED;
#pragma unroll
	for (int i = 0; i < BENCH_CALLS; i++)
		n = bench_return(n);
	return n ? XDP_ABORTED : XDP_TX;
}

/* For the kernel to forward. */
SEC("xdp")
int bench_pass(struct xdp_md *ctx)
{
	return restore(ctx) ? XDP_ABORTED : XDP_PASS;
}

/* The far end of the wire. */
SEC("xdp")
int bench_sink(struct xdp_md *ctx)
{
	__u32 zero = 0;

	count_add(bpf_map_lookup_elem(&bench_sunk, &zero), ctx->data_end - ctx->data);
	return XDP_DROP;
}

/* The floor of a test run. */
SEC("xdp")
int bench_noop(struct xdp_md *ctx)
{
	return XDP_TX;
}
