// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/* The least that a tunnel gateway can be which asks the kernel for its way: TTL, VXLAN to one remote end, bpf_fib_lookup() for the
 * outer packet. It checks nothing, knows no hosts and counts nothing: a lower bound of that design, to compare the walk with.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define AF_INET 2

const volatile __be32 fib_local = 0;
const volatile __be32 fib_remote = 0;
const volatile __u32 fib_vni = 0;

struct fib_outer {
	struct ethhdr eth;
	struct iphdr ip;
	struct udphdr udp;
	__be32 flags;
	__be32 vni;
} __attribute__((packed));

static __always_inline __u16 fold(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	return sum + (sum >> 16);
}

static __always_inline void write_outer(struct fib_outer *o, __u16 inner_len, __be16 source)
{
	const __u16 *w = (const __u16 *)&o->ip;
	__u32 sum = 0;

	o->eth.h_proto = bpf_htons(ETH_P_IP);
	o->ip = (struct iphdr){
		.version = 4, .ihl = 5, .ttl = 64, .protocol = IPPROTO_UDP, .frag_off = bpf_htons(0x4000),
		.tot_len = bpf_htons(inner_len + sizeof(*o) - sizeof(o->eth)), .saddr = fib_local, .daddr = fib_remote,
	};
#pragma unroll
	for (int i = 0; i < 10; i++)
		sum += w[i];
	o->ip.check = ~fold(sum);
	o->udp.source = source | bpf_htons(0xc000);
	o->udp.dest = bpf_htons(4789);
	o->udp.len = bpf_htons(inner_len + sizeof(o->udp) + 8);
	o->udp.check = 0;
	o->flags = bpf_htonl(0x08000000);
	o->vni = bpf_htonl(fib_vni << 8);
}

SEC("xdp")
int fib_forward(struct xdp_md *ctx)
{
	struct bpf_fib_lookup way = { .family = AF_INET, .ifindex = ctx->ingress_ifindex, .l4_protocol = IPPROTO_UDP };
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	struct iphdr *ip = (void *)(eth + 1);
	struct fib_outer *o;
	__u32 sum;

	if ((void *)(ip + 1) > end || eth->h_proto != bpf_htons(ETH_P_IP) || ip->ttl <= 1)
		return XDP_PASS;
	sum = ip->check + bpf_htons(0x0100);
	ip->check = sum + (sum >> 16);
	ip->ttl--;
	way.tot_len = bpf_ntohs(ip->tot_len) + sizeof(*o) - sizeof(*eth);
	way.ipv4_src = fib_local;
	way.ipv4_dst = fib_remote;
	if (bpf_xdp_adjust_head(ctx, -(int)sizeof(*o)))
		return XDP_DROP;
	o = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	if ((void *)(o + 1) + sizeof(*eth) + sizeof(*ip) > end)
		return XDP_DROP;
	ip = (void *)(o + 1) + sizeof(*eth);
	write_outer(o, bpf_ntohs(ip->tot_len) + sizeof(*eth), (__be16)ip->daddr);
	if (bpf_fib_lookup(ctx, &way, sizeof(way), 0) != BPF_FIB_LKUP_RET_SUCCESS)
		return XDP_DROP;
	__builtin_memcpy(o->eth.h_dest, way.dmac, ETH_ALEN);
	__builtin_memcpy(o->eth.h_source, way.smac, ETH_ALEN);
	return bpf_redirect(way.ifindex, 0);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
