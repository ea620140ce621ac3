// Package affinity says which hosts should move together: those that talk to each other, by how much they do.
//
// Everybody talks to somebody, and so whoever merely connects what is connected gets one group of all hosts. Groups therefore
// have a size: pairs are joined from the busiest on, as long as what comes of it is no larger, and the traffic of the pairs that are left
// between groups is what the cut costs. That is Kruskal's algorithm with a bound; it is not the best cut, but the same one for
// the same traffic, and it looks at each pair once.
package affinity

import (
	"cmp"
	"net/netip"
	"slices"
)

// Host is one, in its tenant.
type Host struct {
	Tenant uint16
	Addr   netip.Addr
}

// Pair is the traffic between two hosts.
type Pair struct {
	A, B           Host
	Packets, Bytes uint64
}

// Group is hosts that should move together, and the traffic between them.
type Group struct {
	Hosts          []Host // ordered
	Packets, Bytes uint64
}

// Groups joins hosts to groups of at most size, the busiest group first, and returns what goes on between groups.
func Groups(pairs []Pair, size int) (groups []Group, cut []Pair) {
	pairs = slices.Clone(pairs)
	slices.SortFunc(pairs, func(p, q Pair) int {
		return cmp.Or(cmp.Compare(q.Bytes, p.Bytes), cmp.Compare(q.Packets, p.Packets), compare(p.A, q.A), compare(p.B, q.B))
	})
	f := forest{of: map[Host]Host{}, size: map[Host]int{}}
	for _, p := range pairs {
		f.join(p.A, p.B, size)
	}
	members := map[Host]*Group{}
	for h := range f.of {
		root := f.root(h)
		if members[root] == nil {
			members[root] = &Group{}
		}
		members[root].Hosts = append(members[root].Hosts, h)
	}
	for _, p := range pairs {
		if root := f.root(p.A); root == f.root(p.B) {
			members[root].Packets += p.Packets
			members[root].Bytes += p.Bytes
		} else {
			cut = append(cut, p)
		}
	}
	for _, g := range members {
		if len(g.Hosts) > 1 {
			slices.SortFunc(g.Hosts, compare)
			groups = append(groups, *g)
		}
	}
	slices.SortFunc(groups, func(g, h Group) int { return cmp.Or(cmp.Compare(h.Bytes, g.Bytes), compare(g.Hosts[0], h.Hosts[0])) })
	return groups, cut
}

func compare(a, b Host) int { return cmp.Or(cmp.Compare(a.Tenant, b.Tenant), a.Addr.Compare(b.Addr)) }

// forest is the hosts, each with one that is nearer to the root of its group.
type forest struct {
	of   map[Host]Host
	size map[Host]int // of roots
}

func (f forest) root(h Host) Host {
	parent, known := f.of[h]
	if !known {
		f.of[h], f.size[h] = h, 1
		return h
	}
	for parent != h {
		f.of[h] = f.of[parent]
		h, parent = parent, f.of[parent]
	}
	return h
}

func (f forest) join(a, b Host, limit int) {
	a, b = f.root(a), f.root(b)
	if a == b || f.size[a]+f.size[b] > limit {
		return
	}
	if f.size[a] < f.size[b] {
		a, b = b, a
	}
	f.of[b] = a
	f.size[a] += f.size[b]
}
