package host

import (
	"time"

	"roam/loader/route"
)

// A contest is about an address that is a host's here and that somebody else claims: another station of the segment, or another site. The
// holder is asked, alone. If it answers it keeps the address, and the claimant is quarantined: one on the segment is
// ignored, to another site we answer with a higher sequence. If it is silent, this is a failover or a move, and the claimant gets it.
//
// A site whose claim is young when it is answered was the claimant, and does not answer in turn: it lets the host go, and asks the station that it was
// claimed for. If that still answers there are two, and it is not claimed for it again before the quarantine is over. If it is silent it has handed
// the address back (VRRP, keepalived), and may have it again.
//
// A machine that hands an address over may answer once more before it does, while the next one announces it already. So who has answered is asked once more
// a moment later, and if it is silent then the claimant gets the address after all; and an operator is told of a conflict only if it lasts.
//
// A machine that has an address with a virtual router's MAC sends ARP requests with it and with its own MAC: so who claims an address from such a MAC is asked
// for it, and unless it answers nobody is told.
//
// Where neither claim is young, because each site
// had its host before it heard of the other's, both answer; then the one whose answer is answered for the same station gives in, unless its
// locator is the lower one.
type contest struct {
	claimant route.MAC // on the segment, zero for none
	proxy    route.MAC // who answers for the holder, and so claims nothing
	there    leave     // what another site claims, with sequence zero for nothing
	asked    time.Time // the holder, the last time
	until    time.Time // the holder may answer; once it has, that it need not be asked again
	kept     bool      // it has
	again    bool      // and somebody has claimed it since
	handing  bool      // it has, and may be handing the address over
	second   bool      // it had before, to the same claim
}

const (
	verdict        = 200 * time.Millisecond // for the holder to answer
	contestRest    = 500 * time.Millisecond // from one question to the next: what claims a flood brings
	youngClaim     = 2 * time.Second        // in which a site hears that the holder still answers
	quarantineTime = 10 * time.Second
	lasting        = 500 * time.Millisecond // of a conflict that is told of: both questions have been answered, also at the other site
	maxContests    = 4096
)

// defence is our answer to another site's claim, which that site has until then to answer.
type defence struct {
	against route.MAC
	until   time.Time
}

// quarantined is a station whose claim to an address is not believed.
type quarantined struct {
	mac    route.MAC
	holder route.MAC // zero: at another site
	since  time.Time
	until  time.Time
	told   bool
}

// accused is a station of ours whose claim another site answered, or the holder here, if its MAC is a virtual router's: what it answers to our question says that
// it is no failover.
type accused struct {
	key    route.Key
	mac    route.MAC
	holder route.MAC // zero: at another site
	asked  time.Time
}

// virtual reports whether a MAC is that of a virtual router (RFC 5798, section 7.3), of either family.
func virtual(mac route.MAC) bool {
	return mac[0] == 0 && mac[1] == 0 && mac[2] == 0x5e && mac[3] == 0 && (mac[4] == 1 || mac[4] == 2)
}

// dispute opens a contest, or adds a claim to the one under way. False: the holder cannot be asked. Where there are too many contests already
// claims on the segment are refused: who floods it must not get by that what he would not get otherwise.
func (s *Source) dispute(e entry, claimant route.MAC, there leave) bool {
	c, ok := s.contests[e]
	asked := s.now() // the answer may be there before the question returns
	switch {
	case ok && c.kept && there.sequence > 0 && !there.station:
		// What is claimed on the segment can wait until the holder is to be asked again; what another site claims goes there meanwhile.
		if s.question(e) == nil {
			c.asked, c.until, c.kept, c.handing = asked, asked.Add(verdict), false, false
		}
	case ok:
	case len(s.contests) >= maxContests && !claimant.IsZero():
		s.unheeded()
		s.restore(e)
		return true
	case len(s.contests) >= maxContests || s.question(e) != nil:
		return false
	default:
		c = &contest{asked: asked, until: asked.Add(verdict)}
		s.contests[e] = c
	}
	if !claimant.IsZero() && claimant != c.proxy {
		c.claimant = claimant
	}
	if there.sequence > 0 && (c.there.sequence == 0 || c.there.station || !there.station && there.sequence > c.there.sequence) {
		c.there = there
	}
	c.again = true
	if there.sequence > 0 {
		s.suspend(e)
	}
	doing := InConflict
	if c.claimant.IsZero() {
		doing = IsLeaving
	}
	s.mark(s.told[e].key, doing)
	return true
}

// question asks the holder of an address.
func (s *Source) question(e entry) error {
	p, n := s.ports[e.link], s.neighbours[e]
	if p == nil || n.mac.IsZero() {
		return errNoOwnAddress
	}
	return s.out.ask(p, e, n.mac)
}

// askAloud asks the holder of an address before everybody: switches may have been told that it left, and its answer turns them back.
func (s *Source) askAloud(e entry) {
	if p := s.ports[e.link]; p != nil {
		_ = s.out.ask(p, e, broadcast) // where that fails the host is found by what it sends
	}
}

// hear takes an answer. Only the holder's own MAC counts: a proxy that answers for a dead host does not keep it alive, nor does it get the address,
// for it would answer for anybody: a standby does not hear what others are asked. Nor counts an answer to an earlier question, from before the host moved.
func (s *Source) hear(a heard) []route.Change {
	if c, ok := s.accused[a.entry]; ok && c.mac == a.mac && !a.at.Before(c.asked) && a.at.Before(c.asked.Add(verdict)) {
		s.convict(a.entry, c)
	}
	if s.neighbours[a.entry].mac != a.mac {
		if c, ok := s.contests[a.entry]; ok && a.solicited && !a.at.Before(c.asked) {
			c.proxy = a.mac
			if c.claimant == a.mac {
				c.claimant = route.MAC{}
				s.restore(a.entry)
			}
		}
		return nil
	}
	s.alive(a.entry)
	c, ok := s.contests[a.entry]
	if !ok || c.kept && (!c.again || c.handing) || a.at.Before(c.asked) {
		return nil
	}
	c.kept, c.again, c.until = true, false, s.now().Add(contestRest)
	return s.uphold(a.entry, c)
}

// uphold leaves an address with its holder.
func (s *Source) uphold(e entry, c *contest) (changes []route.Change) {
	t := s.told[e]
	s.mark(t.key, Settled) // but for the quarantine
	news := false
	if !c.claimant.IsZero() {
		s.count(OutcomeKept)
		if virtual(t.mac) {
			s.accuse(e, accused{key: t.key, mac: c.claimant, holder: t.mac})
		} else {
			news = s.quarantine(t.key, t.mac, c.claimant)
		}
		s.restore(e)
	}
	switch {
	case c.there.sequence == 0:
	case c.second && t.sequence > c.there.sequence: // that has been answered
		s.resume(e)
	case c.there.station: // its MAC is elsewhere, too, but nobody there claims this address
		s.resume(e)
		s.askAloud(e)
	default:
		s.count(OutcomeDefended)
		s.resume(e)
		s.defences[e] = defence{c.there.mac, s.now().Add(youngClaim)}
		news = s.quarantine(t.key, t.mac, route.MAC{}) || news
		s.askAloud(e)
		changes = s.raise(e, next(c.there.sequence))
	}
	if c.handing = news && !c.second; c.handing {
		c.until = s.now().Add(verdict)
		return changes
	}
	c.claimant, c.there = route.MAC{}, leave{}
	return changes
}

// decide ends the contests whose time is over: it returns the neighbours that changed.
func (s *Source) decide() map[entry]struct{} {
	changed := make(map[entry]struct{})
	now := s.now()
	for e, c := range s.contests {
		if now.Before(c.until) {
			continue
		}
		delete(s.contests, e)
		t, held := s.told[e]
		s.mark(t.key, Settled)
		switch {
		case !held: // the holder went by itself
		case c.handing:
			if s.question(e) != nil {
				s.resume(e)
				continue
			}
			s.contests[e] = &contest{claimant: c.claimant, proxy: c.proxy, there: c.there, asked: now, until: now.Add(verdict), second: true}
		case c.kept && c.again:
			if !s.dispute(e, c.claimant, c.there) {
				s.concede(e, c, changed)
			}
		case !c.kept:
			s.concede(e, c, changed)
		}
	}
	for e, until := range s.young {
		if !now.Before(until) {
			delete(s.young, e)
		}
	}
	for e, answer := range s.defences {
		if !now.Before(answer.until) {
			delete(s.defences, e)
		}
	}
	for e, c := range s.accused {
		if !now.Before(c.asked.Add(verdict)) {
			delete(s.accused, e)
		}
	}
	s.mu.Lock()
	for key, q := range s.quarantines {
		if !now.Before(q.until) {
			delete(s.quarantines, key)
		}
	}
	s.mu.Unlock()
	return changed
}

// concede gives an address to whoever claims it.
func (s *Source) concede(e entry, c *contest, changed map[entry]struct{}) {
	if c.second {
		s.mu.Lock()
		delete(s.quarantines, s.told[e].key)
		s.mu.Unlock()
	}
	switch {
	case c.there.sequence == 0 && c.claimant.IsZero(): // a proxy's: whether the holder is here is asked in its turn
		return
	case c.there.sequence == 0:
	case !c.second && s.told[e].sequence > c.there.sequence: // another address of its station has answered: all of them are here
		s.resume(e)
		s.askAloud(e)
		return
	default:
		s.yield(leave{entry: e, sequence: c.there.sequence})
		return
	}
	n := neighbour{mac: c.claimant}
	before := s.told[e]
	now, is := s.classify(e, n)
	if !is || now.key != before.key || !s.mayMove(e, now, before, true) {
		s.count(OutcomeFrozen)
		s.restore(e)
		return
	}
	s.count(OutcomeFailover)
	s.tell(Notice{Kind: NoticeFailover, Key: now.key, Holder: before.mac, Claimant: c.claimant})
	s.neighbours[e] = n
	if err := s.out.set(e, n.mac); err != nil {
		s.log.Error("correct a neighbour entry", "addr", e.addr, "err", err)
	}
	changed[e] = struct{}{}
}

// quarantine notes that a claim was not believed, and reports whether that is news; a zero claimant is at another site.
func (s *Source) quarantine(key route.Key, holder, claimant route.MAC) (news bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	q, known := s.quarantines[key]
	if !known || q.mac != claimant || !now.Before(q.until) {
		q, news = quarantined{mac: claimant, holder: holder, since: now}, true
	}
	q.until = now.Add(quarantineTime)
	s.quarantines[key] = q
	return news
}

// tellConflicts tells of the claims that were not believed and are still there, and forgets what was long ago.
func (s *Source) tellConflicts() {
	var list []Notice
	now := s.now()
	s.mu.Lock()
	for key, q := range s.quarantines {
		if !q.told && now.Sub(q.since) >= lasting {
			q.told = true
			s.quarantines[key] = q
			list = append(list, Notice{Kind: NoticeConflict, Key: key, Holder: q.holder, Claimant: q.mac})
		}
	}
	for key, until := range s.gaveIn {
		if !now.Before(until) {
			delete(s.gaveIn, key)
		}
	}
	for key, v := range s.vacant {
		if !now.Before(v.until) {
			delete(s.vacant, key)
		}
	}
	s.mu.Unlock()
	for _, n := range list {
		s.tell(n)
	}
}

// inQuarantine reports whether a station's claim to an address is not believed at present.
func (s *Source) inQuarantine(key route.Key, mac route.MAC) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	q, ok := s.quarantines[key]
	return ok && q.mac == mac && s.now().Before(q.until)
}

// answered acts on another site's claim to a host that is here.
func (s *Source) answered(d leave) {
	until, young := s.young[d.entry]
	t, held := s.told[d.entry]
	switch _, frozen := s.freezer.of(t.key); {
	case !held || d.sequence == 0 || frozen:
	case young && s.now().Before(until): // we are the claimant
		s.mu.Lock()
		s.gaveIn[t.key] = s.now().Add(quarantineTime)
		s.mu.Unlock()
		if !d.mac.IsZero() && t.mac != d.mac { // plain unicast routes do not say whose it is
			s.accuse(d.entry, accused{key: t.key, mac: t.mac})
		}
	case s.outbid(d): // so are they, and one has to give in
		s.count(OutcomeYielded)
		s.quarantine(t.key, route.MAC{}, t.mac)
	case s.dispute(d.entry, route.MAC{}, d):
		return
	}
	s.yield(d)
}

// outbid reports whether another site answers our answer, and goes first.
func (s *Source) outbid(d leave) bool {
	answer, ours := s.defences[d.entry]
	return ours && s.now().Before(answer.until) && answer.against == d.mac && d.at.IsValid() && d.at.Less(s.at)
}

// accuse asks a station whether it has an address that it claimed in vain. Where nobody can be asked, the holder is believed.
func (s *Source) accuse(e entry, c accused) {
	c.asked = s.now()
	s.accused[e] = c
	if p := s.ports[e.link]; p == nil || s.out.ask(p, e, c.mac) != nil {
		s.convict(e, c)
	}
}

func (s *Source) convict(e entry, c accused) {
	delete(s.accused, e)
	if c.holder.IsZero() {
		s.count(OutcomeYielded)
	}
	s.quarantine(c.key, c.holder, c.mac)
}
