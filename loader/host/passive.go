package host

import "roam/loader/route"

// nowhere is the outside of a passive source: nothing is asked, and nothing changed.
type nowhere struct{}

func (nowhere) resolve(entry) error               { return nil }
func (nowhere) forget(entry) error                { return nil }
func (nowhere) set(entry, route.MAC) error        { return nil }
func (nowhere) ask(*port, entry, route.MAC) error { return errNoOwnAddress }

// believe takes a host that says what address it has for a neighbour. It may be wrong, which who may not ask cannot know; the
// kernel's next word about the address counts more.
func (s *Source) believe(g Sign, changed map[entry]struct{}) {
	if g.MAC.IsZero() || g.Kind != SignClaim {
		return
	}
	e, ok := s.entryOf(g)
	if !ok || !s.allowed(e, g.MAC) || s.neighbours[e].permanent || s.neighbours[e].mac == g.MAC {
		return
	}
	s.neighbours[e] = neighbour{mac: g.MAC}
	changed[e] = struct{}{}
}
