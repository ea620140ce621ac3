package datapath

import (
	"sort"

	"roam/loader/route"
	"roam/maps"
)

// members spreads the buckets of a set over its locators in proportion to their weights.
func (t *table) members(space uint16, locators []route.Locator) (string, error) {
	variants := make([]uint16, len(locators))
	weights := make([]int, len(locators))
	for i, l := range locators {
		n, err := t.variant(space, l)
		if err != nil {
			return "", err
		}
		variants[i], weights[i] = n, int(l.Weight)
	}
	return maps.MembersOf(spread(variants, weights, maps.SetMembers)), nil
}

// spread gives each of n buckets to a member, in proportion to the weights within one bucket. Each bucket ranks the
// members by a hash of both (rendezvous hashing), so that a member that goes gives up only its own buckets.
func spread(members []uint16, weights []int, n int) []uint16 {
	type bid struct {
		bucket, member int
		score          uint64
	}
	quota := quotas(weights, n)
	bids := make([]bid, 0, n*len(members))
	for b := range n {
		for m, id := range members {
			bids = append(bids, bid{b, m, score(uint16(b), id)})
		}
	}
	sort.Slice(bids, func(i, j int) bool { return bids[i].score > bids[j].score })
	out := make([]uint16, n)
	taken := make([]bool, n)
	for _, x := range bids {
		if !taken[x.bucket] && quota[x.member] > 0 {
			taken[x.bucket] = true
			quota[x.member]--
			out[x.bucket] = members[x.member]
		}
	}
	return out
}

// quotas are the bucket counts by largest remainder: a weight of less than half a bucket may get none.
func quotas(weights []int, n int) []int {
	total := 0
	for _, w := range weights {
		total += w
	}
	quota := make([]int, len(weights))
	order := make([]int, len(weights))
	left := n
	for i, w := range weights {
		order[i] = i
		quota[i] = w * n / max(total, 1)
		left -= quota[i]
	}
	sort.SliceStable(order, func(i, j int) bool {
		a, b := order[i], order[j]
		return weights[a]*n%max(total, 1) > weights[b]*n%max(total, 1)
	})
	for i := 0; left > 0; i++ {
		quota[order[i%len(order)]]++
		left--
	}
	return quota
}

// score is stable over restarts: flows must not move because the daemon did.
func score(bucket, member uint16) uint64 {
	x := (uint64(bucket)<<32 | uint64(member)) * 0x9FB21C651E98DF25
	x ^= x >> 29
	x *= 0xD6E8FEB86659FD93
	return x ^ x>>32
}
