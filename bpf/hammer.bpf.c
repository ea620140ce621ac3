// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/* The reader of the host table's race test (bpf/test/hammer_test.go): it looks up known hosts, as many and as fast as
 * it can, with the data path's own look-up, while the writer works, and judges every answer.
 *
 * What an answer may be is known from a word per host. The writer numbers the changes of a host; it announces a change
 * in the upper half of the word, makes it, and then confirms it in the lower half. Odd numbers mean that the host is
 * there: an insertion adds 1, another value 2, a removal 3. A look-up takes the confirmed number before and the
 * announced one after, and its answer must be the value of a change in between; a host whose number was odd all the
 * time must not be missing. A value carries check bits of its host and the last bits of its number, so an answer that
 * belongs to another host, or is out of date, shows. The reads around a look-up are in order on x86; elsewhere this
 * would need barriers that BPF does not have.
 */
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "table.h"

enum sizes {
	HAMMER_HOSTS = 1 << 20,	/* of each family */
	HAMMER_ROUNDS = 4096,	/* look-ups in each family per run: a millisecond */
	CHECK_BITS = 11,
	CHANGE_BITS = 8,
};

enum verdict {
	VERDICT_RIGHT,		/* the value of a change that was current meanwhile */
	VERDICT_ABSENT,		/* no value, and the host was not there at some time meanwhile */
	VERDICT_MISSED,		/* no value, and the host was there all the time */
	VERDICT_OTHER,		/* another host's value */
	VERDICT_STALE,		/* a value of this host that was not current, or never written */
	VERDICTS,
};

struct change {
	__u32 confirmed;
	__u32 announced;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2 * HAMMER_HOSTS);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct change);
} changes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2 * VERDICTS);
	__type(key, __u32);
	__type(value, __u64);
} verdicts SEC(".maps");

/* Hosts are drawn below this number. */
const volatile __u32 hosts = HAMMER_HOSTS;

/* Any number to a scattered one. The Go test has the same. */
static __always_inline __u64 scatter(__u64 x)
{
	x ^= x >> 31;
	x *= 0x7FB5D329728EA185ULL;
	x ^= x >> 27;
	x *= 0x81DADEF4BC2DD44DULL;
	return x ^ x >> 33;
}

static __always_inline __u32 space_of(__u32 host)
{
	return 1 + host % 3 * 1999;
}

static __always_inline __u32 check_of(__u32 host)
{
	return 1 << (CHECK_BITS - 1) | (__u32)(scatter(host) >> (64 - CHECK_BITS + 1));
}

static __always_inline enum verdict judge(__u32 host, __u32 value, __u32 before, __u32 after)
{
	__u32 number = value & ((1 << CHANGE_BITS) - 1);

	if (!value) {
		/* Two apart and odd is one change of the value; more may hide a removal. */
		if ((before & 1) && (after == before || after == before + 2))
			return VERDICT_MISSED;
		return VERDICT_ABSENT;
	}
	if (value >> CHANGE_BITS != check_of(host))
		return VERDICT_OTHER;
	if (!(number & 1) || ((number - before) & ((1 << CHANGE_BITS) - 1)) > after - before)
		return VERDICT_STALE;
	return VERDICT_RIGHT;
}

static __always_inline int count_verdict(int family, enum verdict verdict)
{
	__u32 index = family * VERDICTS + verdict;
	__u64 *n = bpf_map_lookup_elem(&verdicts, &index);

	if (n)
		(*n)++;
	return verdict;
}

/* Global functions are verified once, not once per round. */
__noinline int hammer4(__u32 host)
{
	__u32 index = host;
	volatile struct change *c = bpf_map_lookup_elem(&changes, &index);
	__u32 before, value;

	if (!c)
		return 0;
	before = c->confirmed;
	value = find_host4(space_of(host), host * 0x9E3779B1U);
	return count_verdict(0, judge(host, value, before, c->announced));
}

__noinline int hammer6(__u32 host)
{
	__u64 hi = scatter(2 * (__u64)host + 1), lo = scatter(2 * (__u64)host + 2);
	__u32 index = HAMMER_HOSTS + host;
	volatile struct change *c = bpf_map_lookup_elem(&changes, &index);
	__u32 before, value;

	if (!c)
		return 0;
	before = c->confirmed;
	value = find_host6(space_of(host), hi, lo);
	return count_verdict(1, judge(host, value, before, c->announced));
}

SEC("xdp")
int hammer(struct xdp_md *ctx)
{
	for (int i = 0; i < HAMMER_ROUNDS; i++) {
		__u32 host = ((__u64)bpf_get_prandom_u32() * hosts) >> 32;

		hammer4(host);
		hammer6(host);
	}
	return XDP_DROP;
}

/* The two hashes, for comparison with their twins in Go: a number in, both hashes of hosts drawn from it out. */
struct hashes {
	__u64 in;
	__u64 hash4;
	__u64 hash6;
	__u64 tag6;
	__u32 bucket4[2];
	__u32 bucket6[2];
	__u32 front4;
	__u32 front6;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, struct hashes);
} hash_samples SEC(".maps");

__noinline int sample(__u32 index)
{
	struct hashes *h = bpf_map_lookup_elem(&hash_samples, &index);
	__u64 x;

	if (!h)
		return 0;
	x = h->in;
	h->hash4 = hash4(x >> 20, &hosts4_config);
	h->bucket4[0] = bucket_of(h->hash4 >> 32, hosts4_config.buckets);
	h->bucket4[1] = bucket_of(h->hash4, hosts4_config.buckets);
	h->hash6 = hash6(x, scatter(x), x >> 52, &hosts6_config);
	h->bucket6[0] = bucket_of(h->hash6 >> 32, hosts6_config.buckets);
	h->bucket6[1] = bucket_of(h->hash6, hosts6_config.buckets);
	h->front4 = front_at4(x >> 52, x);
	h->front6 = front_at6(x >> 52, x, scatter(x));
	h->tag6 = tag6(h->hash6, x >> 52);
	return 0;
}

SEC("xdp")
int hash_all(struct xdp_md *ctx)
{
	for (__u32 i = 0; i < 4096; i++)
		sample(i);
	return XDP_DROP;
}

/* Keeps the enums in the BTF, from which Go has them. */
const struct hammer_types {
	enum sizes sizes;
	enum verdict verdict;
} hammer_types __attribute__((used)) = {};

char LICENSE[] SEC("license") = "Dual BSD/GPL";
