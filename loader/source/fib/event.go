package fib

import "golang.org/x/sys/unix"

// event is one netlink message, or the news that some were lost.
type event struct {
	kind  uint16 // RTM_NEWROUTE …
	flags uint16 // NLM_F_REPLACE …
	data  []byte
	lost  bool
}

// apply brings an event into the tables and returns the place that may have changed.
func (s *Source) apply(e event) (place, bool) {
	if e.lost {
		s.mu.Lock()
		s.status.Overruns++
		s.mu.Unlock()
		s.log.Warn("kernel route changes were lost: dumping the tables")
		s.suspect()
		return place{}, false
	}
	switch e.kind {
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		return s.routeEvent(e)
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		s.linkEvent(e)
	case unix.RTM_NEWNEXTHOP, unix.RTM_DELNEXTHOP:
		s.nexthopEvent(e)
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
		s.neighborEvent(e)
	case unix.RTM_DELADDR:
		s.suspect()
	}
	return place{}, false
}

// linkEvent suspects everything when an interface starts or stops to carry packets.
func (s *Source) linkEvent(e event) {
	index, flags, ok := decodeLink(e.data)
	if !ok {
		return
	}
	const carries = unix.IFF_UP | unix.IFF_RUNNING | unix.IFF_LOWER_UP
	if e.kind == unix.RTM_DELLINK {
		delete(s.links, index)
		s.suspect()
		return
	}
	before, known := s.links[index]
	s.links[index] = flags & carries
	if !known || before != flags&carries {
		s.suspect()
	}
}

// routeEvent applies what is certain and suspects the rest. Certain are: a first route of its metric, a replacement
// where one of its metric is held at most, and the removal of exactly what is held.
func (s *Source) routeEvent(e event) (place, bool) {
	m, err := decodeRoute(e.data)
	if err != nil {
		s.suspect()
		return place{}, false
	}
	t := s.state[m.table]
	if t == nil || m.flags&unix.RTM_F_CLONED != 0 {
		return place{}, false
	}
	at := place{m.table, m.prefix}
	if e.kind == unix.RTM_DELROUTE && m.object != 0 && !s.holds(m.object) {
		return at, false // it went with its nexthop object
	}
	to, reason, sure := s.target(t, m)
	if !sure {
		s.suspect() // names a nexthop object that is not known yet
	}
	if e.kind == unix.RTM_DELROUTE {
		exact := func(p *path) bool { return p.metric == m.metric && p.target == to }
		if reason == "" && !t.remove(m.prefix, exact) {
			s.suspect()
		}
		return at, reason == ""
	}
	same := t.with(m.prefix, m.metric)
	replaces := e.flags&unix.NLM_F_REPLACE != 0 || reason == "" && m.siblings(same, to)
	if replaces && reason == "" && len(same) == 1 && same[0].target == to && same[0].object == m.object {
		return at, false // what a nexthop object's change has said already
	}
	if len(same) > 1 || len(same) == 1 && !replaces {
		s.suspect()
	}
	if replaces {
		t.remove(m.prefix, func(p *path) bool { return p.metric == m.metric })
	}
	if reason != "" {
		s.ignore(reason, at, m.object)
		return at, replaces
	}
	t.append(m.prefix, path{target: to, metric: m.metric, object: m.object})
	return at, true
}

// siblings reports whether the message is about IPv6 next hops of one route, of which each event names all.
func (m *message) siblings(same []*path, to target) bool {
	return m.family == unix.AF_INET6 && to.via != nil && len(same) == 1 && same[0].via != nil
}
