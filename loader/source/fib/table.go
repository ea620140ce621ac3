package fib

import (
	"net/netip"

	"roam/loader/route"
)

// table is what is believed to be in one kernel table.
type table struct {
	Table
	paths map[netip.Prefix]*path // lowest metric first; equal metrics in the kernel's order
}

// path is one way to a prefix.
type path struct {
	target
	metric uint32
	object uint32 // nexthop object it uses, 0 for none
	next   *path
}

// target is where a path leads; comparable.
type target struct {
	via  *route.Via // nil: reject
	site string
}

func (t *table) change(prefix netip.Prefix, p *path) route.Change {
	return route.Change{Claim: route.Claim{
		Key: route.Key{Tenant: t.Tenant, Prefix: prefix},
		Via: p.via, Reject: p.via == nil, Site: p.site,
	}}
}

// append adds a path behind those of the same metric.
func (t *table) append(prefix netip.Prefix, n path) {
	head := t.paths[prefix]
	link := &head
	for *link != nil && (*link).metric <= n.metric {
		link = &(*link).next
	}
	n.next, *link = *link, &n
	t.paths[prefix] = head
}

// remove takes out the first path that f chooses and reports whether there was one.
func (t *table) remove(prefix netip.Prefix, f func(*path) bool) bool {
	head := t.paths[prefix]
	for link := &head; *link != nil; link = &(*link).next {
		if f(*link) {
			*link = (*link).next
			if t.paths[prefix] = head; head == nil {
				delete(t.paths, prefix)
			}
			return true
		}
	}
	return false
}

// with returns the paths of one metric.
func (t *table) with(prefix netip.Prefix, metric uint32) (paths []*path) {
	for p := t.paths[prefix]; p != nil; p = p.next {
		if p.metric == metric {
			paths = append(paths, p)
		}
	}
	return paths
}
