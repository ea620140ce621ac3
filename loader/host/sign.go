package host

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"roam/loader/route"
)

// Sign is what the data path saw of a host: a hint, which a probe confirms.
type Sign struct {
	Kind   SignKind
	Tenant route.TenantID
	Link   string // access port where it showed itself; of a wanted host, where the packet came in
	VLAN   uint16
	Inner  uint16     // second tag (QinQ), 0 for none
	MAC    route.MAC  // zero: a wanted host, to whom somebody sends and whom nobody has seen
	Addr   netip.Addr // not valid with SignRARP
	When   time.Time  // it was seen
}

// SignKind is what a sign says of the MAC that it came with.
type SignKind uint8

// The kinds.
const (
	SignClaim SignKind = iota // it has the address: ARP, neighbour discovery
	SignProbe                 // it means to take it, if nobody has it
	SignData                  // it sends with the address, perhaps for somebody else
	SignRARP                  // it is here; with what address it does not say
)

const (
	hintTicks   = 3                     // to ask for a host that showed itself: while it looks for duplicates (RFC 5227, RFC 4862) it is mute
	answerTime  = 20 * time.Millisecond // in which a sign is the answer to our question
	maxHints    = 16384                 // hosts that showed themselves and have not answered yet
	searchRest  = 10 * time.Second      // from one search for a wanted address to the next
	maxSearches = 256                   // in that time: the hosts that are here need room in the kernel's table
	signQueue   = 256                   // between the data path and Run
)

// hint is a host that showed itself and has not answered.
type hint struct {
	left  int // ticks to go on asking
	asked time.Time
	eager bool // it showed itself again before it could have answered
}

// Saw says what the data path saw. It returns once Run has taken it, or ctx has ended.
func (s *Source) Saw(ctx context.Context, g Sign) {
	select {
	case s.signs <- g:
	case <-ctx.Done():
	}
}

// heed acts on a sign and on those that wait behind it, up to a batch, and returns the neighbours that changed by that alone.
func (s *Source) heed(g Sign) map[entry]struct{} {
	changed := make(map[entry]struct{})
	for range batch {
		switch {
		case s.silent:
			s.believe(g, changed)
		case g.MAC.IsZero():
			s.search(g)
		case g.Kind == SignRARP:
			s.arrived(g)
		default:
			s.confirm(g)
		}
		select {
		case g = <-s.signs:
		default:
			return changed
		}
	}
	return changed
}

// again takes a sign of a host that the kernel has. It says nothing new, unless the host is about to be let go.
func (s *Source) again(e entry, g Sign) {
	if c, ok := s.contests[e]; ok && (!c.kept || c.again) {
		c.asked = s.now()
		s.askAloud(e) // the switches may have been told that it left
	}
	if _, goes := s.leaving[e]; goes {
		s.hints[e] = hint{left: hintTicks}
		s.shown(s.told[e].key, g.When)
	}
}

// confirm asks a host that showed itself. What it answers becomes a claim as any other neighbour. With the MAC of one that the kernel
// has the sign says nothing that is not known; with another, the address is claimed from it. Who merely sends with an address that is another station's,
// here or at another site, claims nothing: routers do so, and liars. That station is asked by its gateway again and again (see Probe), and when it is
// silent the address is nobody's.
func (s *Source) confirm(g Sign) {
	e, ok := s.entryOf(g)
	if !ok || !s.allowed(e, g.MAC) {
		return
	}
	n, found := s.neighbours[e]
	key := hostKey(g.Tenant, g.Addr)
	switch {
	case (!found || n.mac != g.MAC) && s.stays(e, g.MAC):
		s.count(OutcomeFrozen)
		s.turnAway(station{s.ports[e.link].Index, g.MAC})
		return
	case found && n.mac == g.MAC:
		s.again(e, g)
		return
	case found:
		if g.Kind == SignClaim && !n.permanent && s.told[e].key == key {
			s.dispute(e, g.MAC, leave{})
		}
		return
	case s.inQuarantine(key, g.MAC) && s.elsewhere(sighting{station: station{mac: g.MAC}, key: key}): // without a holder there is nobody to protect
		s.count(OutcomeQuarantined)
		return
	case g.Kind == SignData && s.anothers(key, g.MAC):
		return
	}
	h, waiting := s.hints[e]
	_, searched := s.searches[e]
	if waiting && s.now().Sub(h.asked) < answerTime {
		if !h.eager {
			h.eager = true
			s.hints[e], s.eager = h, append(s.eager, e)
		}
		return
	}
	if !waiting && len(s.hints) >= maxHints {
		s.unheeded()
		return
	}
	if waiting || searched {
		s.forgetQuestion(e)
	}
	delete(s.searches, e)
	s.hints[e] = hint{left: hintTicks, asked: s.now()}
	s.shown(key, g.When)
	s.mark(key, IsLearning)
	s.probe(e)
}

// forgetQuestion ends the question for a host: the kernel asks once a second, and the host may have come a moment after it did.
func (s *Source) forgetQuestion(e entry) {
	if err := s.out.forget(e); err != nil {
		s.log.Warn("ask for a host anew", "addr", e.addr, "err", err)
	}
}

// askEager asks those once more that announced themselves several times in a moment and have not answered: a machine announces an IPv6 address that it has
// just taken, and is asked for it, before it listens to the group of those who are asked.
func (s *Source) askEager() {
	list := s.eager
	s.eager = nil
	for _, e := range list {
		if h, waiting := s.hints[e]; waiting && h.eager && s.ports[e.link] != nil {
			s.forgetQuestion(e)
			s.probe(e)
		}
	}
}

// anothers reports whether another site announces a host with another MAC than this.
func (s *Source) anothers(key route.Key, mac route.MAC) bool {
	holder := s.holder(key)
	return !holder.IsZero() && holder != mac
}

// shown notes the first sign of a host that is on its way to be claimed.
func (s *Source) shown(key route.Key, when time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, before := s.firsts[key]; !before && !when.IsZero() {
		s.firsts[key] = when
	}
}

// FirstSign is when a host, whose claim is being reported, first showed itself here since it was elsewhere; false where the data path has seen no sign of
// it, as where the kernel alone found it.
func (s *Source) FirstSign(key route.Key) (time.Time, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	when, ok := s.firsts[key]
	return when, ok
}

// entryOf is where a host that showed itself would be a neighbour; false if this can be no host of ours.
func (s *Source) entryOf(g Sign) (entry, bool) {
	for link, p := range s.ports {
		if p.Tenant != g.Tenant || p.Link != g.Link || p.VLAN != g.VLAN || p.Inner != g.Inner {
			continue
		}
		for _, r := range p.Routers {
			if r == g.Addr || s.neighbours[entry{link, r}].mac == g.MAC {
				return entry{}, false
			}
		}
		no := !p.covers(g.Addr) || slices.Contains(p.Gateway, g.Addr) || slices.Contains(p.Own, g.Addr) ||
			slices.Contains(p.NotHost, g.MAC)
		return entry{link, g.Addr}, !no
	}
	return entry{}, false
}

// search looks for a wanted host on the segment that has its address. Nobody is told until it answers; one that does not is not
// looked for again before some time has passed, unless it shows itself.
func (s *Source) search(g Sign) {
	s.mu.Lock()
	e, err := s.locate(g.Tenant, g.Addr)
	s.mu.Unlock()
	if err != nil || !s.ports[e.link].allows(g.Addr) {
		return
	}
	_, found := s.neighbours[e]
	_, waiting := s.hints[e]
	_, searched := s.searches[e]
	if found || waiting || searched {
		return
	}
	if len(s.searches) >= maxSearches {
		s.unheeded()
		return
	}
	s.searches[e] = s.now().Add(searchRest)
	s.mark(hostKey(g.Tenant, g.Addr), IsLearning)
	s.probe(e)
}

func (s *Source) unheeded() {
	s.mu.Lock()
	s.status.Unheeded++
	s.mu.Unlock()
}

// settle ends the search for a host.
func (s *Source) settle(e entry) {
	p := s.ports[e.link]
	if p == nil {
		return
	}
	if _, here := s.told[e]; !here {
		s.mark(hostKey(p.Tenant, e.addr), Settled)
		s.mu.Lock()
		delete(s.firsts, hostKey(p.Tenant, e.addr))
		s.mu.Unlock()
	}
}

// askHints goes on asking the hosts that showed themselves, and forgets old searches.
func (s *Source) askHints() {
	for e, h := range s.hints {
		h.left--
		if h.left == 0 || s.ports[e.link] == nil {
			delete(s.hints, e)
			s.settle(e)
			continue
		}
		s.hints[e] = h
		s.probe(e)
	}
	now := s.now()
	for e, end := range s.searches {
		if now.After(end) {
			delete(s.searches, e)
			s.settle(e)
		}
	}
}
