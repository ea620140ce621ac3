package rib

import (
	"context"
	"fmt"
	"math/bits"
	"slices"
	"sync"
	"time"

	"roam/loader/route"
)

// source is one origin of claims, and its end of the RIB.
type source struct {
	rib        *RIB
	id         uint8
	name       string
	preference int
	expected   bool // registered before Run: AllSynced waits for it
	synced     bool // has finished a full report
	full       bool // is in the middle of one

	// lap is the mark of claims heard in the current full report (0 or claimLap). Begin flips it; Synced removes
	// what still carries the other one.
	lap uint8

	changes uint64
	changed time.Time
}

const maxSources = 255

// Reporter registers a source and returns its end of the RIB; a second call with the same name returns the same
// one. Among claims of equal sequence the higher preference wins. Sources registered before Run are waited for
// (AllSynced). Call it before Run or from another goroutine than that which starts Run. It panics on the 256th source.
func (r *RIB) Reporter(name string, preference int) route.Reporter {
	var s *source
	r.own(func() { s = r.register(name, preference) })
	if s == nil {
		return stoppedReporter{}
	}
	return s
}

func (r *RIB) register(name string, preference int) *source {
	for _, s := range r.sources[1:] {
		if s.name == name {
			return s
		}
	}
	if len(r.sources) > maxSources {
		panic(fmt.Sprintf("rib: no room for source %q: %d are registered", name, maxSources))
	}
	s := &source{rib: r, id: uint8(len(r.sources)), name: name, preference: preference, expected: r.ctx == nil}
	r.sources = append(r.sources, s)
	return s
}

// Begin starts a full report. A report that was begun and never finished is forgotten: only what is heard from now
// on counts.
func (s *source) Begin(ctx context.Context) error {
	unfinished := false
	err := s.rib.do(ctx, func() {
		if unfinished = s.full; !unfinished {
			s.full = true
			s.lap ^= claimLap
		}
	})
	if err != nil || !unfinished {
		return err
	}
	return s.sweep(context.WithoutCancel(ctx), func(c *claim) bool {
		c.flags = (c.flags | claimLap) ^ s.lap // the other lap's mark
		return true
	})
}

// Report checks the whole batch in the caller's goroutine and then applies it window by window; once the first
// window is taken, only the end of the RIB keeps the rest from following.
func (s *source) Report(ctx context.Context, changes []route.Change) error {
	if err := validate(changes); err != nil {
		return err
	}
	for len(changes) > 0 {
		n := min(window, len(changes))
		if err := s.rib.do(ctx, func() { s.apply(changes[:n]) }); err != nil {
			return err
		}
		changes, ctx = changes[n:], context.WithoutCancel(ctx)
	}
	return nil
}

// Synced ends a full report: what was held from this source and was not heard since Begin is gone.
func (s *source) Synced(ctx context.Context) error {
	full := false
	if err := s.rib.do(ctx, func() { full = s.full }); err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	if full {
		err := s.sweep(ctx, func(c *claim) bool { return c.flags&claimLap == s.lap })
		if err != nil {
			return err
		}
	}
	return s.rib.do(ctx, func() {
		s.full, s.synced = false, true
		s.rib.checkSynced()
	})
}

// sweep shows every claim of the source to keep, window by window, and removes those it does not keep.
func (s *source) sweep(ctx context.Context, keep func(*claim) bool) error {
	for from, more := uint32(1), true; more; from += window {
		err := s.rib.do(ctx, func() {
			r := s.rib
			to := min(from+window, r.table.end)
			more = to < r.table.end
			for i := from; i < to; i++ {
				rec := r.table.at(i)
				if c := r.held(rec, s.id); c != nil && !keep(c) {
					s.withdraw(i)
				}
			}
			r.settle(s)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

const (
	bunch = 32  // changes whose slots are read at once
	brief = 512 // changes that are settled bunch by bunch; of more, only where somebody waits: it costs a bulk report some percents
)

func (s *source) apply(changes []route.Change) {
	r := s.rib
	s.changed = r.clock.Now()
	since := r.seconds(s.changed)
	mayEnd := sync.OnceValue(func() bool { return r.distinct(changes) })
	var keys [bunch]key
	var hashes [bunch]uint64
	for part := range slices.Chunk(changes, bunch) {
		if len(r.touched) > 0 && (len(changes) <= brief || r.waiting.Load() > 0) && mayEnd() {
			r.settle(s)
			r.giveTurn()
		}
		for i := range part {
			keys[i] = keyOf(part[i].Key)
			hashes[i] = r.table.hash(keys[i])
		}
		r.table.warm(hashes[:len(part)])
		for i := range part {
			s.change(&part[i], keys[i], hashes[i], since)
		}
	}
	r.settle(s)
}

// distinct reports whether no key comes twice. It may be wrong about keys that have one hash: then a window is as long as it would have been.
func (r *RIB) distinct(changes []route.Change) bool {
	size := 1 << bits.Len(uint(2*len(changes)))
	r.seen = slices.Grow(r.seen[:0], size)[:size]
	clear(r.seen)
	for i := range changes {
		h := r.table.hash(keyOf(changes[i].Key)) | 1 // 0 is free
		at := int(h>>32) & (size - 1)
		for ; r.seen[at] != 0; at = (at + 1) & (size - 1) {
			if r.seen[at] == h {
				return false
			}
		}
		r.seen[at] = h
	}
	return true
}

func (s *source) change(c *route.Change, k key, hash uint64, since uint32) {
	at, found := s.rib.table.findHashed(k, hash)
	switch {
	case !c.Withdraw:
		if !found {
			at = s.rib.table.insert(k, hash)
		}
		s.claim(at, &c.Claim, since)
	case found:
		s.withdraw(at)
	}
}

func (s *source) claim(at uint32, c *route.Claim, since uint32) {
	r := s.rib
	n := claim{
		target: r.targets.hold(c), sequence: c.Sequence, since: since, mac: c.MAC, source: s.id, flags: s.lap,
	}
	if c.Pinned {
		n.flags |= claimPinned
	}
	rec := r.table.at(at)
	if old := r.held(rec, s.id); old != nil && old.says(n) {
		old.flags = n.flags
		r.targets.drop(n.target)
		return
	}
	r.touch(at)
	if old, ok := r.take(rec, s.id); ok {
		r.targets.drop(old.target)
	}
	r.put(rec, n)
	s.changes++
}

func (s *source) withdraw(at uint32) {
	r := s.rib
	rec := r.table.at(at)
	if r.held(rec, s.id) == nil {
		return
	}
	r.touch(at)
	old, _ := r.take(rec, s.id)
	r.targets.drop(old.target)
	s.changes++
}

// stoppedReporter is what a source gets that registers after the end.
type stoppedReporter struct{}

func (stoppedReporter) Begin(context.Context) error                  { return ErrStopped }
func (stoppedReporter) Report(context.Context, []route.Change) error { return ErrStopped }
func (stoppedReporter) Synced(context.Context) error                 { return ErrStopped }
