package rib

import (
	"context"
	"fmt"
	"slices"
	"time"

	"roam/loader/route"
)

// SyncedSink is a sink that wants to know, in order with its decisions, when every source has synced once (see
// RIB.AllSynced): what it holds from an earlier life and was not told since is stale.
type SyncedSink interface {
	route.Sink
	AllSynced(ctx context.Context) error
}

// Speaker is a sink that is a source as well, under the same name: it wants to know when all other sources have synced
// once and it has been told what came of it. Called at most once, from the RIB's goroutine; what it returns is only
// logged.
type Speaker interface {
	route.Sink
	OthersSynced(ctx context.Context) error
}

// A sink that fails is behind: the keys of the failed batch are remembered and their decisions, as they are by
// then, offered again. Until then new decisions reach it as ever; nothing waits for it.
type sink struct {
	to     route.Sink
	from   uint32           // records below it were handed over; 0 once the first synchronisation is done
	missed map[key]struct{} // not known to have been applied
	untold bool             // has not taken AllSynced, though it is time
	begun  bool             // was told that the other sources have synced
	err    error            // the last one, nil when nothing is missed

	retryAt  time.Time
	wait     time.Duration
	retrying bool
	queue    []key // of missed, still to do in this round
}

const (
	retryBatch = 64
	retryFirst = time.Second
	retryMost  = 30 * time.Second
)

// AddSink registers a sink, before Run or any time later; it is told everything, in windows between other work.
func (r *RIB) AddSink(to route.Sink) {
	r.own(func() {
		s := &sink{to: to, missed: make(map[key]struct{})}
		r.sinks = append(r.sinks, s)
		if r.table.len > 0 {
			s.from = 1
		}
		if r.ctx != nil && r.deadline.IsZero() {
			s.allSynced(r)
		}
		s.othersSynced(r)
	})
}

// Retell has a sink told everything once more, in windows between other work: it chose among decisions and chooses anew.
func (r *RIB) Retell(to route.Sink) {
	r.own(func() {
		for _, s := range r.sinks {
			if s.to == to && r.table.len > 0 {
				s.from = 1
			}
		}
	})
}

// deliver hands the queued decisions to every sink.
func (r *RIB) deliver() {
	if len(r.decisions) == 0 {
		return
	}
	for _, s := range r.sinks {
		s.apply(r, r.decisions)
	}
	clear(r.decisions) // hold on to no list that is no longer interned
	r.decisions = r.decisions[:0]
}

// apply reports whether the sink took the batch.
func (s *sink) apply(r *RIB, batch []route.Decision) bool {
	err := s.to.Apply(r.ctx, batch)
	if err == nil {
		if len(s.missed) > 0 {
			for i := range batch {
				delete(s.missed, keyOf(batch[i].Key))
			}
		}
		return true
	}
	for i := range batch {
		s.missed[keyOf(batch[i].Key)] = struct{}{}
	}
	s.fail(r, err)
	return false
}

func (s *sink) fail(r *RIB, err error) {
	if r.ctx.Err() != nil {
		return // everything fails at the end
	}
	if s.err == nil {
		r.log.Error("sink is behind: trying again until it has caught up", "sink", s.to.Name(), "err", err)
		s.wait = retryFirst
	}
	s.err = err
	if s.retryAt.IsZero() && !s.retrying {
		s.retryAt = r.clock.Now().Add(s.wait)
	}
}

// wake starts a round of retries when it is due.
func (s *sink) wake(now time.Time) {
	if s.retryAt.IsZero() || now.Before(s.retryAt) {
		return
	}
	s.retryAt, s.retrying = time.Time{}, true
	s.wait = min(2*s.wait, retryMost)
	for k := range s.missed {
		s.queue = append(s.queue, k)
	}
}

var always = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

// backlog is readable while a sink has something to catch up with right now.
func (r *RIB) backlog() <-chan struct{} {
	for _, s := range r.sinks {
		if s.from != 0 || s.retrying {
			return always
		}
	}
	return nil
}

// catchUp does one window of a first synchronisation, or one batch of retries, for each sink that needs it.
func (r *RIB) catchUp() {
	for _, s := range r.sinks {
		switch {
		case s.from != 0:
			s.first(r)
		case s.retrying:
			s.again(r)
		}
	}
}

func (s *sink) first(r *RIB) {
	to := min(s.from+window, r.table.end)
	batch := make([]route.Decision, 0, window)
	for i := s.from; i < to; i++ {
		if rec := r.table.at(i); rec.flags&recordUsed != 0 {
			batch = append(batch, r.decision(rec.key, r.answer(rec)))
		}
	}
	if len(batch) > 0 {
		s.apply(r, batch)
	}
	if s.from = to; to == r.table.end {
		s.from = 0
		if s.untold {
			s.allSynced(r)
		}
		s.othersSynced(r)
	}
}

func (s *sink) again(r *RIB) {
	batch := make([]route.Decision, 0, retryBatch)
	for len(s.queue) > 0 && len(batch) < retryBatch {
		last := len(s.queue) - 1
		k := s.queue[last]
		s.queue = s.queue[:last]
		if _, still := s.missed[k]; still {
			batch = append(batch, r.current(k))
		}
	}
	if len(batch) > 0 {
		s.apply(r, batch)
	}
	if len(s.queue) > 0 {
		return
	}
	if s.untold {
		s.allSynced(r)
	}
	if s.retrying = false; len(s.missed) > 0 || s.untold {
		s.retryAt = r.clock.Now().Add(s.wait)
		return
	}
	r.log.Info("sink has caught up", "sink", s.to.Name())
	s.queue, s.err = nil, nil
}

// allSynced tells the sink, once it has been given everything else.
func (s *sink) allSynced(r *RIB) {
	to, ok := s.to.(SyncedSink)
	if s.untold = ok; !ok || s.from != 0 {
		return
	}
	if err := to.AllSynced(r.ctx); err != nil {
		s.fail(r, fmt.Errorf("finish the first synchronisation: %w", err))
		return
	}
	s.untold = false
}

// othersSynced tells a speaker, once it is time.
func (s *sink) othersSynced(r *RIB) {
	to, ok := s.to.(Speaker)
	if !ok || s.begun || s.from != 0 || r.ctx == nil {
		return
	}
	waiting := func(o *source) bool { return o.expected && !o.synced && o.name != to.Name() }
	if !r.deadline.IsZero() && slices.ContainsFunc(r.sources[1:], waiting) {
		return
	}
	s.begun = true
	if err := to.OthersSynced(r.ctx); err != nil {
		r.log.Error("tell a speaker to begin", "sink", to.Name(), "err", err)
	}
}

// SinkStatus says how a sink keeps up.
type SinkStatus struct {
	Name   string
	Behind int   // keys whose decision it has not taken
	Err    error // why, nil when it is not behind
}

// Sinks returns the state of every sink, in order.
func (r *RIB) Sinks(ctx context.Context) (list []SinkStatus, err error) {
	err = r.do(ctx, func() {
		for _, s := range r.sinks {
			list = append(list, SinkStatus{Name: s.to.Name(), Behind: len(s.missed), Err: s.err})
		}
	})
	return list, err
}
