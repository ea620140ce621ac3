package host

import (
	"roam/loader/route"
)

// outside is what Run acts on: the kernel's neighbour table. Its tests put a model in its place.
type outside interface {
	resolve(e entry) error            // as if there were a packet for it
	forget(e entry) error             // one that is gone already is no error
	set(e entry, mac route.MAC) error // enter it, to be verified
}

// Outcome is what became of a claim that was not simply taken: it labels roam_host_claims_total.
type Outcome string

// The outcomes.
const (
	OutcomeFrozen Outcome = "frozen" // refused: the host has moved too often
)

// Outcomes are all of them, in the order of the manual.
var Outcomes = []Outcome{OutcomeFrozen}

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
	NoticeFrozen NoticeKind = iota // a host moved once too often
	NoticeThawed                   // its time is over
)

// leave is a host that is to leave, because another site has it with this mobility sequence; 0 where somebody says so by hand.
type leave struct {
	entry
	sequence uint32
}

func (s *Source) count(o Outcome) {
	s.mu.Lock()
	s.status.Claims[o]++
	s.mu.Unlock()
}

// admit decides whether a neighbour that is new here, or has another MAC, may be taken for what it is. If not the kernel is
// told what holds instead.
func (s *Source) admit(e entry, n neighbour) bool {
	now, is := s.classify(e, n)
	if !is || now.key == (route.Key{}) || n.permanent {
		return true
	}
	before, was := s.told[e]
	was = was && before.key == now.key
	if s.mayMove(e, now, before, was) {
		return true
	}
	s.count(OutcomeFrozen)
	s.restore(e)
	return false
}

// mayMove counts a move, and reports whether it may be made. A host that is found where it was does not move.
func (s *Source) mayMove(e entry, now sighting, before told, was bool) bool {
	_, elsewhere, _ := s.others(now.key, now.mac)
	moves := elsewhere || was && before.mac != now.mac
	last := Frozen{Key: now.key, Here: was, MAC: before.mac}
	if z, frozen := s.freezer.of(now.key); frozen {
		return !moves && z.Here && z.MAC == now.mac
	}
	return !moves || !s.moved(e, last, place{now.mac})
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
		s.log.Warn("host lives elsewhere, but a permanent neighbour entry says here: leaving it", "addr", d.addr)
		return
	}
	if t, told := s.told[d.entry]; told && d.sequence > 0 && s.ports[d.link] != nil {
		s.freezer.left(s.ports[d.link].Freeze, t.key, s.now())
	}
	s.leaving[d.entry] = struct{}{}
	if err := s.out.forget(d.entry); err != nil {
		delete(s.leaving, d.entry)
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

// Clear ends the freeze of a host and looks for it here; false if it is not frozen.
func (s *Source) Clear(key route.Key) bool {
	if !s.freezer.clear(key) {
		return false
	}
	_ = s.Resolve(key.Tenant, key.Prefix.Addr()) // a segment that is gone has no hosts
	return true
}

// Doing is what a host is in the middle of.
type Doing string

// What hosts are in the middle of.
const (
	Settled  Doing = ""
	IsFrozen Doing = "frozen"
)

// Doing says what a host is in the middle of; with IsFrozen, since when and for how long.
func (s *Source) Doing(key route.Key) (Doing, Frozen) {
	if z, ok := s.freezer.of(key); ok {
		return IsFrozen, z
	}
	return Settled, Frozen{}
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
