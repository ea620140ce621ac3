package host

import (
	"net/netip"
	"slices"

	"roam/loader/route"
)

// outside is what Run acts on: the kernel's neighbour table, and the wire. Its tests put a model in its place.
type outside interface {
	resolve(e entry) error            // as if there were a packet for it
	forget(e entry) error             // one that is gone already is no error
	set(e entry, mac route.MAC) error // enter it, to be verified
	ask(p *port, e entry, holder route.MAC) error
}

// world is the outside of a running source.
type world struct {
	*kernel
	*asker
}

// Outcome is what became of a claim that was not simply taken: it labels roam_host_claims_total.
type Outcome string

// The outcomes.
const (
	OutcomeFrozen      Outcome = "frozen"      // refused: the host has moved too often
	OutcomeKept        Outcome = "kept"        // refused: the holder on the segment still answers
	OutcomeFailover    Outcome = "failover"    // taken: the holder on the segment is silent
	OutcomeDefended    Outcome = "defended"    // another site's, answered with a higher sequence: the holder here still answers
	OutcomeYielded     Outcome = "yielded"     // ours, which the holder's site answered so
	OutcomeQuarantined Outcome = "quarantined" // refused: that was moments ago
	OutcomeNotAllowed  Outcome = "not_allowed" // refused: mobility.allow does not list the address
	OutcomeLost        Outcome = "lost"        // ours, ended: the host did not answer mobility.probe
)

// Outcomes are all of them, in the order of the manual.
var Outcomes = []Outcome{OutcomeFrozen, OutcomeKept, OutcomeFailover, OutcomeDefended, OutcomeYielded, OutcomeQuarantined, OutcomeNotAllowed, OutcomeLost}

// Notice is something about a host that an operator should know.
type Notice struct {
	Kind     NoticeKind
	Key      route.Key
	Holder   route.MAC // who has the address, zero where that is no station here
	Claimant route.MAC // who wants it
	Frozen   Frozen    // with NoticeFrozen and NoticeThawed
}

// NoticeKind says what a notice is about.
type NoticeKind int

// The notices.
const (
	NoticeFrozen     NoticeKind = iota // a host moved once too often
	NoticeThawed                       // its time is over
	NoticeConflict                     // somebody claims the address of one that still answers; a zero claimant, or holder, is at another site
	NoticeFailover                     // or of one that does not, and gets it
	NoticeNotAllowed                   // a station has an address that no host may have
)

// leave is a host that is to leave, because another site has it with this mobility sequence; 0 where somebody says so by hand.
type leave struct {
	entry
	sequence uint32
	mac      route.MAC  // that it has there
	at       netip.Addr // the other site's locator, if known
	station  bool       // all that is said is that its MAC is there
}

func (s *Source) count(o Outcome) {
	s.mu.Lock()
	s.status.Claims[o]++
	s.mu.Unlock()
}

// admit decides whether a neighbour that is new here, or has another MAC, may be taken for what it is. If not the kernel is
// told what holds instead.
func (s *Source) admit(e entry, n neighbour) bool {
	s.allowed(e, n.mac)
	now, is := s.classify(e, n)
	if !is || now.key == (route.Key{}) || n.permanent {
		return true
	}
	before, was := s.told[e]
	was = was && before.key == now.key
	_, frozen := s.freezer.of(now.key)
	elsewhere := s.elsewhere(now)
	switch {
	case elsewhere && s.inQuarantine(now.key, now.mac):
		s.count(OutcomeQuarantined)
	case was && before.mac != now.mac && !frozen && s.dispute(e, now.mac, leave{}):
		return false // what the kernel has is corrected when it is decided
	case s.mayMove(e, now, before, was):
		if elsewhere {
			s.young[e] = s.now().Add(youngClaim)
		}
		return true
	default:
		s.count(OutcomeFrozen)
		s.turnAway(now.station)
	}
	s.restore(e)
	return false
}

// maxStrangers bounds how many addresses outside mobility.allow are told of, each once.
const maxStrangers = 1024

// allowed reports whether the segment takes an address for a host. A refusal is counted, and told of once.
func (s *Source) allowed(e entry, claimant route.MAC) bool {
	p := s.ports[e.link]
	if p == nil || !p.covers(e.addr) || p.allows(e.addr) ||
		slices.Contains(p.Gateway, e.addr) || slices.Contains(p.Own, e.addr) || slices.Contains(p.Routers, e.addr) {
		return true
	}
	s.count(OutcomeNotAllowed)
	key := hostKey(p.Tenant, e.addr)
	if _, told := s.strangers[key]; !told && len(s.strangers) < maxStrangers {
		s.strangers[key] = struct{}{}
		s.tell(Notice{Kind: NoticeNotAllowed, Key: key, Claimant: claimant})
	}
	return false
}

// elsewhere reports whether another site announces a host.
func (s *Source) elsewhere(t sighting) bool {
	_, elsewhere, _ := s.others(t.key, t.mac)
	return elsewhere
}

// mayMove counts a move, and reports whether it may be made. A host that is found where it was does not move. One that comes back does,
// also if the site it comes from has heard so already: by another address of its MAC.
func (s *Source) mayMove(e entry, now sighting, before told, was bool) bool {
	moves := s.elsewhere(now) || was && before.mac != now.mac || s.freezer.away(now.key)
	last := Frozen{Key: now.key, Here: was, MAC: before.mac}
	if z, frozen := s.freezer.of(now.key); frozen {
		return !moves && z.Here && z.MAC == now.mac
	}
	return !moves || !s.moved(e, last, place{now.mac})
}

// turnAway has frames for a station that is refused here come to the gateway all the same, since its address is elsewhere: switches have
// seen it speak.
func (s *Source) turnAway(st station) {
	if _, here := s.stations[st]; !here {
		s.macsTo(st.segment, st.mac, false)
	}
}

// stays reports whether a host is frozen, and not as this MAC's here: then nobody needs to be asked.
func (s *Source) stays(e entry, mac route.MAC) bool {
	p := s.ports[e.link]
	if p == nil {
		return false
	}
	z, frozen := s.freezer.of(hostKey(p.Tenant, e.addr))
	return frozen && !(z.Here && z.MAC == mac)
}

// moved counts a move of a host whose last good place is given, and reports whether that froze it.
func (s *Source) moved(e entry, last Frozen, to place) bool {
	p := s.ports[e.link]
	if p == nil || !s.freezer.moved(p.Freeze, last, to, s.now()) {
		return false
	}
	z, _ := s.freezer.of(last.Key)
	s.tell(Notice{Kind: NoticeFrozen, Key: last.Key, Holder: last.MAC, Claimant: to.mac, Frozen: z})
	return true
}

// restore has the kernel forget a claimant: the address is its holder's, if it has one here.
func (s *Source) restore(e entry) {
	err := error(nil)
	if holder, ok := s.neighbours[e]; ok {
		err = s.out.set(e, holder.mac)
	} else {
		err = s.out.forget(e)
	}
	if err != nil {
		s.log.Error("correct a neighbour entry", "addr", e.addr, "err", err)
	}
}

// yield lets a host go that lives elsewhere.
func (s *Source) yield(d leave) {
	n, ok := s.neighbours[d.entry]
	if _, twice := s.leaving[d.entry]; !ok || twice {
		return
	}
	if n.permanent {
		s.resume(d.entry)
		s.log.Warn("host lives elsewhere, but a permanent neighbour entry says here: leaving it", "addr", d.addr)
		return
	}
	if t, told := s.told[d.entry]; told && d.sequence > 0 && s.ports[d.link] != nil {
		s.freezer.left(s.ports[d.link].Freeze, t.key, s.now())
	}
	s.leaving[d.entry] = struct{}{}
	s.mark(s.told[d.entry].key, IsLeaving)
	s.suspend(d.entry) // the kernel takes its time to say that it is gone
	if err := s.out.forget(d.entry); err != nil {
		delete(s.leaving, d.entry)
		s.resume(d.entry)
		s.log.Error("delete a neighbour entry", "addr", d.addr, "err", err)
	}
}

// thaw ends the freezes whose time is over, and looks for those hosts: they may be here, and have been refused.
func (s *Source) thaw() {
	for _, z := range s.freezer.thaw(s.now()) {
		s.tell(Notice{Kind: NoticeThawed, Key: z.Key, Frozen: z})
		s.mu.Lock()
		e, err := s.locate(z.Key.Tenant, z.Key.Prefix.Addr())
		s.mu.Unlock()
		if err == nil {
			s.asked[e] = patience
			s.probe(e)
		}
	}
}

// Clear ends the freeze of a host, or the quarantine of who claims it, and looks for it here; false if there is neither.
func (s *Source) Clear(key route.Key) bool {
	s.mu.Lock()
	_, disputed := s.quarantines[key]
	delete(s.quarantines, key)
	s.mu.Unlock()
	if !s.freezer.clear(key) && !disputed {
		return false
	}
	_ = s.Resolve(key.Tenant, key.Prefix.Addr()) // a segment that is gone has no hosts
	return true
}

// Doing is what a host is in the middle of.
type Doing string

// What hosts are in the middle of.
const (
	Settled    Doing = ""
	IsFrozen   Doing = "frozen"
	InConflict Doing = "conflict" // somebody else claims its address
	IsLearning Doing = "learning" // it showed itself, or is wanted, and has not answered yet
	IsProbing  Doing = "probing"  // it is here, and has not answered the last question
	IsLeaving  Doing = "leaving"  // another site claims it, or it is let go already
)

// Doing says what a host is in the middle of; with IsFrozen, since when and for how long.
func (s *Source) Doing(key route.Key) (Doing, Frozen) {
	if z, ok := s.freezer.of(key); ok {
		return IsFrozen, z
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if q, ok := s.quarantines[key]; ok && s.now().Before(q.until) {
		return InConflict, Frozen{}
	}
	return s.doing[key], Frozen{}
}

// mark notes what a host is doing, for those who ask.
func (s *Source) mark(key route.Key, doing Doing) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if doing == Settled {
		delete(s.doing, key)
	} else if key != (route.Key{}) {
		s.doing[key] = doing
	}
}

// remember and keep load and save what outlives a restart.
func (s *Source) remember() {
	if s.state == "" {
		return
	}
	if err := s.freezer.load(s.state, s.names); err != nil { // no reason to leave all other hosts alone
		s.log.Error("which hosts were frozen is not known", "err", err)
	}
}

func (s *Source) keep() {
	if s.state == "" {
		return
	}
	if err := s.freezer.save(s.state, s.names); err != nil {
		s.log.Error("frozen hosts are not kept over a restart", "file", s.state, "err", err)
	}
}
