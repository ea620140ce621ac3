// Package rib decides, for every key, which of its claims counts.
//
// One goroutine owns everything; callers hand it functions over a channel and wait. There is no lock, and nothing
// inside needs to ask who else is looking. What could take long is cut into windows (of a report, a sweep, a walk,
// a sink's first synchronisation), and other callers get their turn between two of them: a million routes from one
// source delay the move of one host from another by milliseconds. A window of a report ends early where somebody waits, and a short report
// is one of many short windows: a hundred routes delay a move by a tenth of a millisecond.
//
// Within a window the RIB notes each key's answer before it is touched, applies every change, and only then
// compares. So sinks hear about real differences alone, and a key that is withdrawn and claimed again in one window
// is never seen as gone. For that a window never ends early where a key comes twice.
//
// A claim wins by the first of these that differs: pinned, higher sequence, higher preference of its source, "here"
// rather than at another gateway of our site, lower locator address, name of its source. A winner that says "here, but I do not know the port" (a move by hand) is
// completed by the best claim that does: claims of one site are merged, not contended.
//
// Sinks are called from the RIB's goroutine, one after another, in the order they were added. They must not call
// back into the RIB, and must not keep the slice they are given.
package rib

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"

	"roam/loader/route"
)

// ErrStopped is returned to callers once Run has ended.
var ErrStopped = errors.New("the RIB has stopped")

const (
	window = 4096 // changes, records, or decisions handled before the next caller gets a turn

	// DefaultHold is how long a departed host's packets may be tunnelled on.
	DefaultHold = 30 * time.Second
	// DefaultSyncTimeout is how long a silent source may keep AllSynced from happening: the restart time that
	// RFC 4724 suggests for a routing session.
	DefaultSyncTimeout = 120 * time.Second
)

// Options of a RIB. The zero value serves.
type Options struct {
	Log   *slog.Logger // default: slog.Default()
	Clock Clock        // default: the system's

	// Hold says how long a host that left for another site is held, and one that moved between others known as moved;
	// called from the RIB's goroutine, once per move. Zero or less means not at all. Default: DefaultHold for every host.
	Hold func(route.Key) time.Duration

	// Turning hears of every host that gets another home or whose word passes to another source, before the sinks do. Turned hears of it
	// when they have been told, and the report has been answered unless somebody else has his turn in its midst. Both are called from the
	// RIB's goroutine, must be quick and must not call back. Nil hears nothing.
	Turning func(*Turn)
	Turned  func(Turn)

	// Locator is our own tunnel end: it stands for claims that say "here" where the lowest locator decides.
	Locator netip.Addr

	// Site is ours: a claim that says "here" is not contended by another gateway of it.
	Site string

	// SyncTimeout bounds the wait for sources that were registered but never finish a full report.
	SyncTimeout time.Duration
}

// RIB holds every source's claims. Make one with New, register sources and sinks, then Run it. Methods other than
// New and Run may be called from any goroutine, except from inside a sink.
type RIB struct {
	log         *slog.Logger
	clock       Clock
	holdTime    func(route.Key) time.Duration
	turning     func(*Turn)
	turned      func(Turn)
	locator     netip.Addr
	site        string
	syncTimeout time.Duration

	commands  chan func()
	waiting   atomic.Int32  // callers that have not had their turn
	started   chan struct{} // closed when Run begins: from then on its goroutine owns what follows
	stopped   chan struct{}
	allSynced chan struct{}

	ctx       context.Context // Run's, for the sinks
	epoch     time.Time       // claim.since counts from here
	deadline  time.Time       // of the wait for first reports; zero once that is over
	sources   []*source       // by id; 0 is nobody
	sinks     []*sink
	table     table
	targets   targets
	holds     holds
	gaps      map[key]gap
	gapsSwept time.Time
	counts    counts
	touched   []touch
	decisions []route.Decision
	turns     []Turn
	given     bool     // a turn, in the midst of another's report
	seen      []uint64 // hashes of a report's keys, kept to be used again
}

// New returns a RIB that knows nothing.
func New(o Options) *RIB {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Clock == nil {
		o.Clock = systemClock{}
	}
	if o.Hold == nil {
		o.Hold = func(route.Key) time.Duration { return DefaultHold }
	}
	if o.SyncTimeout == 0 {
		o.SyncTimeout = DefaultSyncTimeout
	}
	return &RIB{
		log: o.Log, clock: o.Clock, holdTime: o.Hold, turning: o.Turning, turned: o.Turned, locator: o.Locator, site: o.Site, syncTimeout: o.SyncTimeout,
		commands:  make(chan func()),
		started:   make(chan struct{}),
		stopped:   make(chan struct{}),
		allSynced: make(chan struct{}),
		epoch:     o.Clock.Now(),
		sources:   make([]*source, 1),
		table:     newTable(),
		targets:   newTargets(o.Site),
		holds:     newHolds(),
		gaps:      make(map[key]gap),
		counts:    make(counts, route.MaxTenant+1),
	}
}

// String names the task.
func (r *RIB) String() string { return "rib" }

// AllSynced is closed when every source registered before Run has finished one full report and the sinks have been
// given what came of it, or when Options.SyncTimeout has passed.
func (r *RIB) AllSynced() <-chan struct{} { return r.allSynced }

// Run works until ctx ends; it returns nil then. Call it once.
func (r *RIB) Run(ctx context.Context) error {
	r.ctx = ctx
	r.deadline = r.clock.Now().Add(r.syncTimeout)
	close(r.started)
	defer close(r.stopped)
	r.checkSynced()

	var timer <-chan time.Time
	var armed time.Time
	for {
		if next := r.nextDeadline(); !next.Equal(armed) {
			armed, timer = next, nil
			if !next.IsZero() {
				timer = r.clock.After(next.Sub(r.clock.Now()))
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case command := <-r.commands:
			command()
			r.tell()
		case <-timer:
			armed = time.Time{}
			r.tick(r.clock.Now())
		case <-r.backlog():
			r.catchUp()
		}
	}
}

// do runs f in the RIB's goroutine and waits for it. Once taken, f is waited for whatever becomes of ctx: the
// caller must know whether its change happened.
func (r *RIB) do(ctx context.Context, f func()) error {
	done := make(chan struct{})
	r.waiting.Add(1)
	select {
	case r.commands <- func() { r.waiting.Add(-1); defer close(done); f() }:
		<-done
		return nil
	case <-r.stopped:
		r.waiting.Add(-1)
		return ErrStopped
	case <-ctx.Done():
		r.waiting.Add(-1)
		return ctx.Err()
	}
}

// giveTurn has a caller that waits go first, between two parts of a report. Who had his turn so does not give one himself.
func (r *RIB) giveTurn() {
	if r.given || r.waiting.Load() == 0 {
		return
	}
	r.tellNow() // before more happens: a Turn's Why is of what is
	select {
	case command := <-r.commands:
		r.given = true
		command()
		r.given = false
		r.tellNow()
	default:
	}
}

// own runs f with the RIB to itself: in its goroutine when that runs, at once before.
func (r *RIB) own(f func()) {
	select {
	case <-r.started:
		_ = r.do(context.Background(), f) // after the end there is nothing left to change
	default:
		f()
	}
}

func (r *RIB) nextDeadline() time.Time {
	next := r.deadline
	earlier := func(t time.Time) {
		if !t.IsZero() && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	earlier(r.holds.next())
	for _, s := range r.sinks {
		earlier(s.retryAt)
	}
	return next
}

func (r *RIB) tick(now time.Time) {
	r.release(now)
	for _, s := range r.sinks {
		s.wake(now)
	}
	if !r.deadline.IsZero() && !now.Before(r.deadline) {
		for _, s := range r.sources[1:] {
			if s.expected && !s.synced {
				r.log.Warn("source has not finished its first report: going on without it", "source", s.name,
					"waited", r.syncTimeout)
			}
		}
		r.finishSync()
	}
}

func (r *RIB) checkSynced() {
	if r.deadline.IsZero() {
		return
	}
	for _, s := range r.sinks {
		s.othersSynced(r)
	}
	for _, s := range r.sources[1:] {
		if s.expected && !s.synced {
			return
		}
	}
	r.finishSync()
}

// finishSync tells the sinks before the channel: who waits on that may rely on the sinks.
func (r *RIB) finishSync() {
	r.deadline = time.Time{}
	for _, s := range r.sinks {
		s.allSynced(r)
		s.othersSynced(r)
	}
	close(r.allSynced)
}

// touch is a record's answer before the current window changed it.
type touch struct {
	record uint32
	before answer
}

// touch remembers a record's answer once per window.
func (r *RIB) touch(i uint32) {
	rec := r.table.at(i)
	if rec.flags&recordTouched != 0 {
		return
	}
	rec.flags |= recordTouched
	r.touched = append(r.touched, touch{record: i, before: r.answer(rec)})
}

// settle ends a window: every touched record is compared with what it was, and the sinks hear the differences.
// Cause is the source whose changes these are.
func (r *RIB) settle(cause *source) {
	for _, t := range r.touched {
		rec := r.table.at(t.record)
		rec.flags &^= recordTouched
		after := r.answer(rec)
		if after != t.before {
			r.counts.answer(rec, t.before, after, &r.targets)
			turn, news := r.turn(rec, t.before, after, cause)
			r.hold(rec, t.before, after, turn.Moved, cause.synced)
			if news {
				r.note(turn, rec, after)
			}
			r.decide(rec.key, after)
		}
		if after == (answer{}) {
			r.table.remove(t.record)
		}
	}
	r.touched = r.touched[:0]
	r.targets.collect()
	r.deliver()
}

// decide queues the decision for a key; deliver hands the queue to the sinks.
func (r *RIB) decide(k key, a answer) {
	if len(r.decisions) == window {
		r.deliver()
	}
	r.decisions = append(r.decisions, r.decision(k, a))
}

func (r *RIB) decision(k key, a answer) route.Decision {
	if a == (answer{}) {
		return route.Decision{Claim: route.Claim{Key: k.route()}, Gone: true}
	}
	t := r.targets.at(a.target)
	d := route.Decision{
		Claim: route.Claim{
			Key: k.route(), Via: t.via, Local: t.local, Reject: t.reject, Site: t.site,
			MAC: a.mac, Sequence: a.sequence, Pinned: a.pinned,
		},
		Source: r.sources[a.source].name,
	}
	if a.completedBy != 0 {
		d.Local = r.targets.at(a.completedBy).local
	}
	left, moved := r.holds.of(k)
	d.Held, d.Moved = d.Via != nil && left, moved && !(d.Via != nil && left)
	if moved {
		_, d.Awaited = r.holds.awaited[k]
	}
	return d
}

// current is the decision for a key as things stand.
func (r *RIB) current(k key) route.Decision {
	i, ok := r.table.find(k)
	if !ok {
		return r.decision(k, answer{})
	}
	return r.decision(k, r.answer(r.table.at(i)))
}

func (r *RIB) seconds(t time.Time) uint32 {
	return uint32(max(t.Sub(r.epoch), 0) / time.Second)
}
