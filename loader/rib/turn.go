package rib

import (
	"runtime"
	"slices"
	"time"

	"roam/loader/route"
)

// Turn is news of a host that was known before: somebody else has the word about it, or it lives elsewhere.
type Turn struct {
	Before, After route.Decision
	Moved         bool
	When          time.Time
	Detection     time.Duration // from the host's first sign, for Options.Turning to fill in
	// Outage is how long this gateway knew no way to a host that moved: zero where one home replaced another in one
	// step. Its resolution is the RIB's clock's.
	Outage  time.Duration
	Awaited bool          // the data path tells of the first packet that goes to its new home
	Cause   string        // the source whose report did it
	Why     func() string // what the winner won by; to be called during a callback only
}

// A gap is the time in which a host is on its way: withdrawn at one place and not yet claimed at another, or said to be
// here and not yet found on a port. Gaps are remembered apart from the table, like holds, and only so many, and not
// for ever: a host that stays away for minutes was switched off, and did not move.
type gap struct {
	since  time.Time
	before route.Decision
}

const (
	maxGaps    = 1 << 16
	longGap    = 5 * time.Minute
	sweepEvery = 10 * time.Second // a million withdrawn hosts must not make for a million sweeps
)

// turn is what a changed answer means, and whether that is news. What a first full report brings is knowledge.
func (r *RIB) turn(rec *record, before, after answer, cause *source) (t Turn, news bool) {
	if !cause.synced || !rec.host() {
		return t, false
	}
	from, to := r.reachable(before), r.reachable(after)
	if from && !to {
		r.openGap(rec.key, r.decision(rec.key, before))
		return t, false
	}
	t.Cause, t.When = cause.name, r.clock.Now()
	switch {
	case !to:
		return t, false
	case from:
		if t.Moved = r.targets.elsewhere(before.target, after.target); !t.Moved && before.source == after.source {
			return t, false
		}
		t.Before = r.decision(rec.key, before)
	default:
		g, ok := r.gaps[rec.key]
		if !ok {
			return t, false
		}
		delete(r.gaps, rec.key)
		t.Before, t.Outage = g.before, t.When.Sub(g.since)
		if t.Moved = t.Outage < longGap && !r.samePlace(g.before, r.decision(rec.key, after)); !t.Moved {
			return t, false
		}
		if before.source == 0 { // else it was counted when the claim changed
			r.counts.of(rec.tenant).moves++
		}
	}
	return t, true
}

// tell gives turns to Options.Turned, once the sinks have what came of them, and after whoever waits for a word of the RIB: a host that moves does
// not wait for a line in a log.
func (r *RIB) tell() {
	if len(r.turns) == 0 {
		return
	}
	runtime.Gosched()
	r.tellNow()
}

func (r *RIB) tellNow() {
	for _, t := range r.turns {
		r.turned(t)
	}
	clear(r.turns)
	r.turns = r.turns[:0]
}

// note says that a turn is about to happen, and has it told afterwards.
func (r *RIB) note(t Turn, rec *record, after answer) {
	t.After = r.decision(rec.key, after)
	t.Awaited = t.Moved && t.After.Awaited
	t.Why = func() string { return r.entry(rec, t.When, nil).Why() }
	if r.turning != nil {
		r.turning(&t)
	}
	if r.turned != nil {
		r.turns = append(r.turns, t)
	}
}

// reachable tells whether packets for a host have somewhere to go.
func (r *RIB) reachable(a answer) bool {
	if a.source == 0 {
		return false
	}
	local := r.targets.at(a.target).local
	return local == nil || local.Link != 0 || a.completedBy != 0
}

func (r *RIB) openGap(k key, before route.Decision) {
	now := r.clock.Now()
	if len(r.gaps) == maxGaps && now.Sub(r.gapsSwept) >= sweepEvery {
		r.gapsSwept = now
		for old, g := range r.gaps {
			if now.Sub(g.since) >= longGap {
				delete(r.gaps, old)
			}
		}
	}
	if _, open := r.gaps[k]; !open && len(r.gaps) < maxGaps {
		r.gaps[k] = gap{now, before}
	}
}

// samePlace tells whether two decisions, of different times, lead to one home.
func (r *RIB) samePlace(a, b route.Decision) bool {
	switch {
	case sameHome(a.Local, a.Via, a.Site, b.Local, b.Via, b.Site, r.site):
		return true
	case a.Local != nil || b.Local != nil:
		return false
	case a.Via == nil || b.Via == nil:
		return a.Via == b.Via
	}
	return slices.Equal(a.Via.Locators, b.Via.Locators)
}
