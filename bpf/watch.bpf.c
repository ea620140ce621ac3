// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/* What the walk cannot see: packets that a driver refused after the program had returned.
 *
 * The program asks for a redirect; whether the port takes the packet shows later, to the kernel's tracepoints alone: it may not
 * be queued (xdp_redirect_err), or be refused when a bulk is sent (xdp_devmap_xmit), and XDP_TX fails inside the driver
 * (xdp_exception). These programs count by interface, and only for interfaces that the map holds; others, and those of other
 * network namespaces that have the same number, are not ours.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

/* The little that is read of kernel structures; their offsets are relocated when the program is loaded. */
struct ns_common {
	unsigned int inum;
} __attribute__((preserve_access_index));

struct net {
	struct ns_common ns;
} __attribute__((preserve_access_index));

typedef struct {
	struct net *net;
} __attribute__((preserve_access_index)) possible_net_t;

struct net_device {
	int ifindex;
	possible_net_t nd_net;
} __attribute__((preserve_access_index));

/* An entry of a devmap. */
struct bpf_dtab_netdev {
	struct net_device *dev;
} __attribute__((preserve_access_index));

struct bpf_prog;

/* The network namespace that the ports are in. */
const volatile __u32 namespace = 0;

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);	/* interface index */
	__type(value, __u64);	/* packets */
} refused SEC(".maps");

static __always_inline void count(const struct net_device *dev, __u64 packets)
{
	__u32 index = BPF_CORE_READ(dev, ifindex);
	__u64 *sum;

	if (BPF_CORE_READ(dev, nd_net.net, ns.inum) != namespace)
		return;
	sum = bpf_map_lookup_elem(&refused, &index);
	if (sum)
		__sync_fetch_and_add(sum, packets);
}

SEC("tp_btf/xdp_redirect_err")
int BPF_PROG(unqueued, const struct net_device *from, const struct bpf_prog *program, const void *to, int err, __u32 map_type)
{
	const struct bpf_dtab_netdev *entry = to;

	if (map_type == BPF_MAP_TYPE_DEVMAP)
		count(BPF_CORE_READ(entry, dev), 1);
	return 0;
}

SEC("tp_btf/xdp_devmap_xmit")
int BPF_PROG(unsent, const struct net_device *from, const struct net_device *to, int sent, int drops, int err)
{
	if (drops > 0)
		count(to, drops);
	return 0;
}

SEC("tp_btf/xdp_exception")
int BPF_PROG(unreturned, const struct net_device *dev, const struct bpf_prog *program, __u32 action)
{
	if (action == XDP_TX)
		count(dev, 1);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
