// Package designate has the gateways on one segment elect the one that answers there.
//
// All gateways of a segment share its address and MAC, and each routes what is sent to that MAC. But a question must have one answer, a frame that
// a switch floods must be forwarded once, and switches must see the shared MAC behind one port: for that one of them is designated. They
// find each other by hellos on the LAN (wire.go); an Election is what one of them makes of what it hears. It has no clock and no socket:
// a Designator (designate.go) brings both.
//
// The fitter comes first, then the higher priority, then the lower MAC. One that leaves or is cut off is replaced at once. One that is less fit
// otherwise has a moment, for the others may be about to be so as well; one with a lower priority has longer; and one that does as well
// stays: a gateway that comes back takes nothing away from it. Whoever takes over says so at once, and
// whoever is designated and hears of a better one that is gives in: two may be designated for the time of a frame, none only
// while one that died is not missed yet. Where the LAN splits, each part has one; where it heals, the better of them stays.
package designate

import (
	"cmp"
	"time"

	"roam/loader/route"
)

// Rank is how fit a gateway is.
type Rank uint8

// The ranks. Their numbers travel.
const (
	Leaving  Rank = iota // it is about to end, or is to be left out
	CutOff               // its ports towards other sites are down
	Isolated             // no other site answers it
	Starting             // it does not know yet who lives where
	Ready
)

func (r Rank) String() string {
	if int(r) < len(rankNames) {
		return rankNames[r]
	}
	return "unknown"
}

var rankNames = [...]string{"leaving", "cut off", "isolated", "starting", "ready"}

// Hello is what a gateway says of itself.
type Hello struct {
	MAC        route.MAC // its port's own: who it is
	Rank       Rank
	Priority   uint8
	Designated bool
	Hold       time.Duration // whoever hears nothing for so long may take it for dead; in ms on the wire
	Note       Note
}

// before is positive if a gateway comes before another.
func (h *Hello) before(o *Hello) int {
	return cmp.Or(cmp.Compare(h.Rank, o.Rank), cmp.Compare(h.Priority, o.Priority), compareMAC(o.MAC, h.MAC))
}

func compareMAC(a, b route.MAC) int {
	for i := range a {
		if n := cmp.Compare(a[i], b[i]); n != 0 {
			return n
		}
	}
	return 0
}

// State is what a gateway is on a segment.
type State string

// The states.
const (
	Down       State = "down"      // its port is
	Listening  State = "listening" // its port came up, and others had no time yet to be heard
	Standby    State = "standby"
	Designated State = "designated"
)

// Election is one gateway's view. The zero Election is of a port that is down. Its user serialises the calls, with times that do not go back.
type Election struct {
	Preempt time.Duration // how long a higher priority waits

	self   Hello
	state  State
	since  time.Time // of the state
	listen time.Time // until when others had no time to be heard
	ahead  time.Time // since when we come first and another one, which does not, is designated; zero: we do not
	peers  map[route.MAC]*peer

	patience time.Duration // how long that one is left in place
}

// maxPeers bounds what somebody who makes gateways up can cost.
const maxPeers = 64

type peer struct {
	Hello
	dead time.Time
}

// Say sets what this gateway says of itself. Designated is not looked at.
func (e *Election) Say(h Hello, now time.Time) {
	if e.peers == nil {
		e.peers, e.state, e.since = make(map[route.MAC]*peer), Down, now
	}
	e.self = h
	e.Tick(now)
}

// Up says that the port came up: everybody has our hold time to be heard. Of one that is up already it says nothing.
func (e *Election) Up(now time.Time) {
	if e.state == Down {
		e.become(Listening, now)
		e.listen = now.Add(e.self.Hold)
	}
	e.Tick(now)
}

// Down says that the port went down.
func (e *Election) Down(now time.Time) {
	clear(e.peers)
	e.become(Down, now)
}

// Hear takes a hello, and reports whether it is from somebody new.
func (e *Election) Hear(h Hello, now time.Time) (fresh bool) {
	if e.state == Down || h.MAC == e.self.MAC {
		return false
	}
	_, known := e.peers[h.MAC]
	if !known && len(e.peers) == maxPeers {
		return false
	}
	e.peers[h.MAC] = &peer{h, now.Add(h.Hold)}
	e.Tick(now)
	return !known
}

// Tick decides, as of now.
func (e *Election) Tick(now time.Time) {
	if e.state == Down {
		return
	}
	var first, designated *peer // of the others
	for mac, p := range e.peers {
		if !now.Before(p.dead) {
			delete(e.peers, mac)
			continue
		}
		if first == nil || p.before(&first.Hello) > 0 {
			first = p
		}
		if p.Designated && (designated == nil || p.before(&designated.Hello) > 0) {
			designated = p
		}
	}
	if e.shall(first, designated, now) {
		e.become(Designated, now)
	} else if e.state != Listening || !now.Before(e.listen) {
		e.become(Standby, now)
	}
}

// shall tells whether this gateway is to be designated, of the others the first and the designated one being these, or nil.
func (e *Election) shall(first, designated *peer, now time.Time) bool {
	ahead := e.ahead
	e.ahead = time.Time{}
	switch {
	case e.state == Designated:
		return designated == nil || designated.before(&e.self) < 0
	case e.state == Listening && now.Before(e.listen), first != nil && first.before(&e.self) > 0:
		return false
	case designated == nil, designated.Rank <= CutOff && e.self.Rank > designated.Rank:
		return true
	case designated.Rank == e.self.Rank && designated.Priority == e.self.Priority:
		return false
	case ahead.IsZero():
		ahead = now
	}
	e.ahead, e.patience = ahead, e.Preempt
	if designated.Rank < e.self.Rank {
		e.patience = e.self.Hold
	}
	return now.Sub(ahead) >= e.patience
}

func (e *Election) become(s State, now time.Time) {
	if e.state != s {
		e.state, e.since = s, now
	}
}

// Next is when to decide anew if nothing is heard, zero for never.
func (e *Election) Next() (next time.Time) {
	earlier := func(t time.Time) {
		if !t.IsZero() && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	for _, p := range e.peers {
		earlier(p.dead)
	}
	if e.state == Listening {
		earlier(e.listen)
	}
	if !e.ahead.IsZero() {
		earlier(e.ahead.Add(e.patience))
	}
	return next
}

// State is what this gateway is, and since when.
func (e *Election) State() (State, time.Time) { return e.state, e.since }

// Hello is what it says now.
func (e *Election) Hello() Hello {
	h := e.self
	h.Designated = e.state == Designated
	return h
}

// Others are the gateways that are heard, in no order.
func (e *Election) Others() []Hello {
	var list []Hello
	for _, p := range e.peers {
		list = append(list, p.Hello)
	}
	return list
}
