package fib

import (
	"slices"

	"golang.org/x/sys/unix"
)

// holds tells whether a nexthop object is known.
func (s *Source) holds(id uint32) bool {
	_, ok := s.nexthops[id]
	return ok
}

// nexthopEvent notes an object's change. One that was not known is used by no route yet, and by no group.
func (s *Source) nexthopEvent(e event) {
	id, n, err := decodeNexthop(e.data)
	switch {
	case err != nil:
		s.suspect()
	case e.kind == unix.RTM_DELNEXTHOP:
		s.forget(id)
	default:
		old, known := s.nexthops[id]
		s.nexthops[id] = n
		if known && !old.equal(n) {
			s.stale[id] = struct{}{}
		}
	}
}

// forget takes an object out, and out of the groups it is a member of, as the kernel does: a group without members goes
// too. The kernel says so as well, later and not to all routes.
func (s *Source) forget(id uint32) {
	delete(s.nexthops, id)
	s.stale[id] = struct{}{}
	only := map[uint32]struct{}{id: {}}
	for g, n := range s.nexthops {
		if !n.contains(only) {
			continue
		}
		n.group = slices.DeleteFunc(slices.Clone(n.group), func(m member) bool { return m.id == id })
		s.nexthops[g] = n
		s.stale[g] = struct{}{}
		if len(n.group) == 0 {
			delete(s.nexthops, g)
		}
	}
}

// retarget brings what happened to nexthop objects to the routes that use them, and adds their places to changed. It
// walks the tables once, however many objects changed: some 100 ms for a million routes.
func (s *Source) retarget(changed map[place]struct{}) {
	if len(s.stale) == 0 {
		return
	}
	for id, n := range s.nexthops {
		if n.contains(s.stale) { // groups do not nest
			s.stale[id] = struct{}{}
		}
	}
	for id := range s.stale {
		if _, ok := s.shunned[id]; ok {
			s.suspect() // a route that is not held may be one to follow now
		}
	}
	for _, t := range s.state {
		now := make(map[uint32]resolved)
		for prefix, head := range t.paths {
			for p := head; p != nil; p = p.next {
				if _, ok := s.stale[p.object]; ok {
					s.move(t, place{t.ID, prefix}, p, now)
					changed[place{t.ID, prefix}] = struct{}{}
				}
			}
		}
	}
	clear(s.stale)
}

// resolved is what an object says to the routes of one table.
type resolved struct {
	target
	reason string // not to follow them; noNextHop also where the object is gone
}

// move gives a path what its object says now, or takes it out.
func (s *Source) move(t *table, at place, p *path, now map[uint32]resolved) {
	r, ok := now[p.object]
	if !ok {
		r.target, r.reason, _ = s.resolve(t, p.object)
		now[p.object] = r
	}
	if r.reason == "" {
		p.target = r.target
		return
	}
	t.remove(at.prefix, func(q *path) bool { return q == p })
	if s.holds(p.object) {
		s.ignore(r.reason, at, p.object)
	}
}

// resolve says where routes lead that use an object. It is not sure where the object, or a member of it, is not known.
func (s *Source) resolve(t *table, id uint32) (to target, reason string, sure bool) {
	hops, reject, sure := s.objectHops(id)
	switch {
	case !sure:
		return target{}, noNextHop, false
	case reject:
		return target{}, "", true
	}
	to, reason = s.join(t, hops)
	return to, reason, true
}

// objectHops resolves a nexthop object; not ok where it, or a member of it, is not known.
func (s *Source) objectHops(id uint32) (hops []hop, reject, ok bool) {
	n, ok := s.nexthops[id]
	if !ok {
		return nil, false, false
	}
	reject = n.blackhole
	for _, m := range n.group {
		g, ok := s.nexthops[m.id]
		if !ok {
			return nil, false, false
		}
		reject = reject || g.blackhole // the kernel takes such a one as an only member
		for _, h := range g.hops {
			h.weight = m.weight
			hops = append(hops, h)
		}
	}
	return append(hops, n.hops...), reject, true
}
