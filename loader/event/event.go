// Package event is the one vocabulary for what happens at a gateway: the log, the control socket and `roamctl events`
// tell of the same events in the same words. An event says what happened, why, and what to do where something is to
// be done.
//
// A Log keeps the last of them in memory, a ring of fixed size: a gateway whose million hosts move at once must not
// drown in its own story. So each kind has a quota in a span of time. What exceeds it is counted, not kept, and an
// event says how much that was: nothing is lost silently. A reader that is too slow for the ring learns how many it
// missed.
package event

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// Kind is what sort of thing happened; it labels roam_events_total and filters `roamctl events`.
type Kind string

// The kinds.
const (
	Move         Kind = "move"          // a host lives elsewhere than before
	Reached      Kind = "reached"       // the first packet went to a host by its new way
	Claim        Kind = "claim"         // another source has the word about a host, which stays where it is
	Frozen       Kind = "frozen"        // a host moved too often: it stays where it was
	Thawed       Kind = "thawed"        // and is free again
	Conflict     Kind = "conflict"      // somebody claims the address of a host that still answers: refused
	Failover     Kind = "failover"      // or of one that does not: it has it now
	Refused      Kind = "refused"       // a station has an address that no host may have
	LocatorUp    Kind = "locator_up"    // the underlay knows the way to a tunnel end
	LocatorDown  Kind = "locator_down"  // and no longer
	MTUHole      Kind = "mtu_hole"      // a size that the way to a tunnel end should carry gets lost
	MTUHealed    Kind = "mtu_healed"    // and no longer
	Designated   Kind = "designated"    // this gateway answers on a segment
	Standby      Kind = "standby"       // another one does
	PortUp       Kind = "port_up"       // the program runs on a port
	PortDown     Kind = "port_down"     // and no longer
	SourceUp     Kind = "source_up"     // an origin of routes reports
	SourceDown   Kind = "source_down"   // and no longer
	Hook         Kind = "hook"          // hooks.host_change has taken a change of a host
	HookFailed   Kind = "hook_failed"   // or not: it is run again
	Reload       Kind = "reload"        // the configuration was applied anew
	ReloadFailed Kind = "reload_failed" // or not: the earlier one stays in force
	Growth       Kind = "growth"        // the host table has more room
	GrowthFailed Kind = "growth_failed" // or not
	Upgrade      Kind = "upgrade"       // this daemon took over from an earlier one, whose packets go on
	Ready        Kind = "ready"         // every source has reported
	More         Kind = "more"          // events of one kind came faster than they are kept
)

// Kinds are all of them, in the order of the manual.
var Kinds = []Kind{
	Move, Reached, Claim, Frozen, Thawed, Conflict, Failover, Refused, LocatorUp, LocatorDown, MTUHole, MTUHealed, Designated, Standby, PortUp, PortDown, SourceUp, SourceDown, Hook, HookFailed, Reload, ReloadFailed, Growth,
	GrowthFailed, Upgrade, Ready, More,
}

// level says how loudly a kind is logged: what an operator has to act on is a warning.
func (k Kind) level() slog.Level {
	switch k {
	case Frozen, Conflict, Refused, LocatorDown, MTUHole, PortDown, SourceDown, HookFailed, ReloadFailed, GrowthFailed, More:
		return slog.LevelWarn
	}
	return slog.LevelInfo
}

// Event is one thing that happened.
type Event struct {
	Number  uint64    `json:"number"` // counts up from 1 as long as the daemon lives
	Time    time.Time `json:"time"`
	Kind    Kind      `json:"kind"`
	Subject string    `json:"subject"` // the host, locator, port, source it is about
	Tenant  string    `json:"tenant,omitempty"`
	What    string    `json:"what"`
	Why     string    `json:"why,omitempty"`
	Do      string    `json:"do,omitempty"` // what to do about it

	DetectionSeconds float64 `json:"detection_seconds,omitempty"` // of a move to here: from the host's first sign until it was decided

	// Of a host that was reached, as far as this gateway saw it.
	Detected               time.Time `json:"detected,omitzero"`                 // its first sign here
	Announced              time.Time `json:"announced,omitzero"`                // its claim was given to the sessions of BGP
	LastPacket             time.Time `json:"last_packet,omitzero"`              // it was last heard here, if it left
	FirstPacket            time.Time `json:"first_packet,omitzero"`             // a packet left for it by its new way
	EstimatedOutageSeconds float64   `json:"estimated_outage_seconds,omitzero"` // between those two
}

const (
	// Size is how many events a Log keeps.
	Size = 4096

	quota = 256 // of one kind within a span
	span  = 10 * time.Second
)

// Log keeps the last events. Safe for concurrent use.
type Log struct {
	log *slog.Logger
	now func() time.Time

	mu      sync.Mutex
	ring    [Size]Event // number n is at n % Size
	last    uint64      // number of the newest
	by      map[Kind]*tally
	ends    time.Time     // when the first of the current spans does; zero: none is current
	changed chan struct{} // closed and replaced at each event
}

// tally is what happened of one kind.
type tally struct {
	total uint64
	since time.Time // begin of the current span
	spent int       // of the quota
	over  int       // beyond it, not yet told
}

// New returns a Log that tells log of each event, too.
func New(log *slog.Logger) *Log {
	l := &Log{log: log, now: time.Now, by: make(map[Kind]*tally, len(Kinds)), changed: make(chan struct{})}
	for _, k := range Kinds {
		l.by[k] = &tally{}
	}
	return l
}

// Add notes an event; its number is given to it, and its time if it has none.
func (l *Log) Add(e Event) { l.Note(e.Kind, func() Event { return e }) }

// Note is Add for what may happen a million times at once: the event is composed only if it is kept. compose must not
// call the Log.
func (l *Log) Note(kind Kind, compose func() Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	l.settle(now)
	t := l.by[kind]
	t.total++
	if t.spent == quota {
		t.over++
		return
	}
	if t.spent++; t.spent == 1 {
		t.since = now
		if l.ends.IsZero() {
			l.ends = now.Add(span)
		}
	}
	e := compose()
	e.Kind = kind
	l.put(e, now)
}

// settle ends the spans that are over and tells what they had to leave out.
func (l *Log) settle(now time.Time) {
	if l.ends.IsZero() || now.Before(l.ends) {
		return
	}
	l.ends = time.Time{}
	for _, k := range Kinds {
		t := l.by[k]
		if t.spent == 0 {
			continue
		}
		if end := t.since.Add(span); now.Before(end) {
			if l.ends.IsZero() || end.Before(l.ends) {
				l.ends = end
			}
			continue
		}
		over := t.over
		t.spent, t.over = 0, 0
		if over > 0 {
			l.by[More].total++
			l.put(Event{
				Kind: More, Subject: string(k), What: fmt.Sprintf("%d more events of kind %s were counted and not kept", over, k),
				Why: fmt.Sprintf("at most %d of a kind are kept in %v", quota, span),
				Do:  "roam_events_total has the rate; roamctl host list has where each host is now",
			}, now)
		}
	}
}

func (l *Log) put(e Event, now time.Time) {
	l.last++
	if e.Number = l.last; e.Time.IsZero() {
		e.Time = now
	}
	l.ring[e.Number%Size] = e
	close(l.changed)
	l.changed = make(chan struct{})
	attrs := []slog.Attr{slog.String("event", string(e.Kind))}
	for _, a := range []slog.Attr{slog.String("tenant", e.Tenant), slog.String("why", e.Why), slog.String("do", e.Do)} {
		if a.Value.String() != "" {
			attrs = append(attrs, a)
		}
	}
	l.log.LogAttrs(context.Background(), e.Kind.level(), e.What, attrs...)
}

// Page is a part of the story.
type Page struct {
	Events  []Event         // in order
	Missed  uint64          // that came before the first of them and are no longer kept
	Changed <-chan struct{} // closed when there is more
}

// Since returns the kept events with numbers above after.
func (l *Log) Since(after uint64) Page {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.settle(l.now())
	p := Page{Changed: l.changed}
	first := after + 1
	if l.last >= Size && first <= l.last-Size {
		oldest := l.last - Size + 1
		p.Missed, first = oldest-first, oldest
	}
	for n := first; n <= l.last; n++ {
		p.Events = append(p.Events, l.ring[n%Size])
	}
	return p
}

// Totals says how often each kind happened, kept or not.
func (l *Log) Totals() map[Kind]uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	totals := make(map[Kind]uint64, len(l.by))
	for k, t := range l.by {
		totals[k] = t.total
	}
	return totals
}
