package mld

import (
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"

	"roam/loader/route"
)

// port is one link: which groups it listens to and what remains to be said of them. What is said is decided here, without a
// clock or a socket; serve brings both.
type port struct {
	name    string
	limit   int
	wake    chan struct{} // there is something to say
	missing chan struct{} // hosts were left out, and there is room for some again

	mu      sync.Mutex
	link    Link
	hosts   map[[16]byte]struct{} // that are listened for: those elsewhere, and Link.Own
	members map[group]int         // how many of them a group has
	full    bool                  // a host was left out

	speaking bool // else nothing is queued: begin says it all
	version1 time.Time
	querier  netip.Addr

	// Changes (RFC 3810, section 6.1): each is said at once and, robustness being 2, once more.
	changes map[group]change
	fresh   []group // to be said the first time; each once
	again   []batch // to be said once more, in order of time

	// Answers (section 6.2).
	single   map[group]struct{} // that were asked for by name, and when
	singleAt time.Time
	all      pass
	next     pass // asked for while all is under way

	changed bool // the last report was of changes: answers get their turn
}

// change is one that the switch has not been told of often enough.
type change struct {
	left   int
	queued bool // in fresh
	silent bool // nothing was said of the group yet, so that it may be forgotten in silence
}

type batch struct {
	at     time.Time
	groups []group
}

// pass is an answer to a query for everything. Its reports divide the response delay in equal parts, and each goes out at a random
// moment of its own part.
type pass struct {
	groups []group
	part   time.Time // begin of the next report's part
	at     time.Time // in it
	length time.Duration
}

func newPort(name string, limit int, missing chan struct{}) *port {
	p := &port{
		name: name, limit: limit, wake: make(chan struct{}, 1), missing: missing, hosts: map[[16]byte]struct{}{}, members: map[group]int{},
	}
	p.end()
	return p
}

// become changes the link. All hosts must be told of again: what it newly covers is not known here.
func (p *port) become(link Link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	old := p.link.Own
	p.link, p.full = link, false
	for b := range p.hosts {
		if a := netip.AddrFrom16(b); !p.owns(a) && (!p.covers(a) || slices.Contains(old, a)) {
			p.leave(a)
		}
	}
	for _, a := range link.Own {
		p.join(a)
	}
}

func (p *port) owns(a netip.Addr) bool { return slices.Contains(p.link.Own, a) }

func (p *port) covers(a netip.Addr) bool {
	return slices.ContainsFunc(p.link.Subnets, func(s netip.Prefix) bool { return s.Contains(a) })
}

// settle listens for a host or not, and reports whether it is the first that had to be left out. Repeating it changes nothing.
func (p *port) settle(a netip.Addr, elsewhere bool) (becameFull bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.covers(a) || p.owns(a) {
		return false
	}
	if !elsewhere {
		p.leave(a)
		p.relieve()
		return false
	}
	if p.join(a) || p.full {
		return false
	}
	p.full = true
	return true
}

// relieve asks for the hosts that were left out when there is room for many: asking is dear.
func (p *port) relieve() {
	if p.full && len(p.members) <= p.limit-p.limit/8 && len(p.changes) <= p.limit {
		p.full = false
		poke(p.missing)
	}
}

// join reports whether there was room. Changes that wait count as well: hosts that come and go faster than it can be said fill no memory.
func (p *port) join(a netip.Addr) bool {
	if _, ok := p.hosts[a.As16()]; ok {
		return true
	}
	g := groupOf(a)
	if p.members[g] == 0 && !p.owns(a) && (len(p.members) >= p.limit || len(p.changes) >= 2*p.limit) {
		return false
	}
	p.hosts[a.As16()] = struct{}{}
	if p.members[g]++; p.members[g] == 1 {
		p.change(g)
	}
	return true
}

func (p *port) leave(a netip.Addr) {
	if _, ok := p.hosts[a.As16()]; !ok {
		return
	}
	delete(p.hosts, a.As16())
	g := groupOf(a)
	if p.members[g]--; p.members[g] == 0 {
		delete(p.members, g)
		p.change(g)
	}
}

// change has it said that a group was joined or left, whichever it is by then.
func (p *port) change(g group) {
	if !p.speaking {
		return
	}
	c, waits := p.changes[g]
	if !waits {
		c.silent = p.members[g] > 0
	}
	if c.left = robustness; !c.queued {
		c.queued = true
		p.fresh = append(p.fresh, g)
	}
	p.changes[g] = c
	poke(p.wake)
}

// begin says everything anew, to a switch that knows nothing.
func (p *port) begin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.speaking = true
	for g := range p.members {
		p.change(g)
	}
}

// end forgets what was to be said.
func (p *port) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.speaking, p.version1, p.querier = false, time.Time{}, netip.Addr{}
	p.changes, p.fresh, p.again = map[group]change{}, nil, nil
	p.single, p.all, p.next = map[group]struct{}{}, pass{}, pass{}
}

// ask takes a query, and reports whether all groups are to be named anew; room is how many a report holds.
func (p *port) ask(now time.Time, q question, room int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if q.version == 1 { // RFC 3810, section 8.2.1
		p.version1 = now.Add(version1Lasts)
	}
	if now.Before(p.version1) {
		room = 1
	}
	if q.group.IsUnspecified() {
		p.querier = q.from
		switch {
		case len(p.all.groups) == 0:
			p.all = p.pass(now, q.delay, room)
		case len(p.next.groups) == 0: // one behind that under way answers however many questions
			p.next = p.pass(now, q.delay, room)
		default:
			return false
		}
		return true
	}
	g := groupOf(q.group)
	if p.members[g] == 0 || !solicitedNet.Contains(q.group) {
		return false
	}
	at := now.Add(within(q.delay))
	if len(p.single) == 0 || at.Before(p.singleAt) {
		p.singleAt = at
	}
	p.single[g] = struct{}{}
	return false
}

// within is a random part of a duration.
func within(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return rand.N(d)
}

func (p *port) pass(now time.Time, delay time.Duration, room int) pass {
	groups := slices.Collect(maps.Keys(p.members))
	length := delay / time.Duration(max(1, (len(groups)+room-1)/room))
	return pass{groups: groups, part: now, at: now.Add(within(length)), length: length}
}

// say returns the one report that is due, or nil, and when to ask again: never where that is zero.
func (p *port) say(now time.Time, mac route.MAC, room int) (frame []byte, next time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	version1 := now.Before(p.version1)
	if version1 {
		room = 1
	}
	first, second := p.sayChanges, p.sayAnswers
	if p.changed {
		first, second = second, first
	}
	list := first(now, room)
	if len(list) == 0 {
		list = second(now, room)
	}
	switch {
	case len(list) == 0:
		return nil, p.due()
	case version1:
		return report1(mac, list[0]), time.Time{}
	}
	return report(mac, list), time.Time{}
}

func (p *port) sayChanges(now time.Time, room int) (list []record) {
	for len(p.again) > 0 && !now.Before(p.again[0].at) && len(list) < room {
		b := &p.again[0]
		g := b.groups[0]
		if c, waits := p.changes[g]; waits && !c.queued { // else it was said often enough, or is to be said anew
			list = p.sayChange(list, g, c)
		}
		if b.groups = b.groups[1:]; len(b.groups) == 0 {
			p.again = p.again[1:]
		}
	}
	var repeat []group
	for len(p.fresh) > 0 && len(list) < room {
		g := p.fresh[0]
		p.fresh = p.fresh[1:]
		c := p.changes[g]
		if c.queued = false; c.silent && p.members[g] == 0 {
			delete(p.changes, g)
			continue
		}
		list = p.sayChange(list, g, c)
		repeat = append(repeat, g)
	}
	if len(repeat) > 0 {
		at := now.Add(within(repeatWithin))
		if n := len(p.again); n > 0 && at.Before(p.again[n-1].at) {
			at = p.again[n-1].at
		}
		p.again = append(p.again, batch{at, repeat})
	}
	p.relieve()
	if len(list) > 0 {
		p.changed = true
	}
	return list
}

func (p *port) sayChange(list []record, g group, c change) []record {
	k := leaves
	if p.members[g] > 0 {
		k = joins
	}
	c.silent = false
	if c.left--; c.left == 0 {
		delete(p.changes, g)
	} else {
		p.changes[g] = c
	}
	return append(list, record{g, k})
}

func (p *port) sayAnswers(now time.Time, room int) (list []record) {
	if len(p.single) > 0 && !now.Before(p.singleAt) {
		for g := range p.single {
			if len(list) == room {
				break
			}
			delete(p.single, g)
			list = p.sayMember(list, g)
		}
	}
	for len(list) == 0 && len(p.all.groups) > 0 && !now.Before(p.all.at) {
		a := &p.all
		for len(a.groups) > 0 && len(list) < room {
			list = p.sayMember(list, a.groups[0])
			a.groups = a.groups[1:]
		}
		a.part = a.part.Add(a.length)
		if a.at = a.part.Add(within(a.length)); len(a.groups) == 0 {
			p.all, p.next = p.next, pass{}
		}
	}
	if len(list) > 0 {
		p.changed = false
	}
	return list
}

func (p *port) sayMember(list []record, g group) []record {
	if p.members[g] == 0 {
		return list
	}
	return append(list, record{g, isListener})
}

// due is when there is something to say, if nothing happens until then.
func (p *port) due() (at time.Time) {
	earlier := func(there bool, t time.Time) {
		if there && (at.IsZero() || t.Before(at)) {
			at = t
		}
	}
	if len(p.again) > 0 {
		earlier(true, p.again[0].at)
	}
	earlier(len(p.single) > 0, p.singleAt)
	earlier(len(p.all.groups) > 0, p.all.at)
	return at
}

func (p *port) status(now time.Time) Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := Status{Interface: p.name, Groups: len(p.members), Querier: p.querier, Version: 2}
	if now.Before(p.version1) {
		s.Version = 1
	}
	if p.full {
		s.Full = fullWhy(p.limit)
	}
	return s
}
