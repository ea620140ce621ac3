// Package feed keeps the RIB's last decisions for readers that follow them at their own pace.
//
// It is a sink that never waits: a decision overwrites the oldest one of a ring, and a reader that was slower than the
// ring is long is told how much it has missed. So a reader costs the RIB nothing, however slow it is, and all readers
// together cost one ring. While nobody follows there is not even that.
package feed

import (
	"context"
	"sync"

	"roam/loader/route"
)

// Kept is how many decisions are kept: some 10 MB.
const Kept = 1 << 16

// Feed implements route.Sink. Its methods are safe for concurrent use.
type Feed struct {
	mu      sync.Mutex
	readers int
	ring    []route.Decision // decision n is at n % Kept; nil without readers
	last    uint64           // number of the last decision
	first   uint64           // of the first one that is, or was, kept since the ring was made
	changed chan struct{}    // closed with the next decision
}

// New returns a feed without readers.
func New() *Feed { return &Feed{changed: make(chan struct{})} }

// Name implements route.Sink.
func (f *Feed) Name() string { return "feed" }

// Apply implements route.Sink.
func (f *Feed) Apply(_ context.Context, decisions []route.Decision) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.readers == 0 {
		return nil
	}
	for i := range decisions {
		f.last++
		f.ring[f.last%Kept] = decisions[i]
	}
	close(f.changed)
	f.changed = make(chan struct{})
	return nil
}

// Follow has decisions kept from now on, until done is called. They have numbers above after.
func (f *Feed) Follow() (after uint64, done func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.readers++; f.readers == 1 {
		f.ring, f.first = make([]route.Decision, Kept), f.last+1
	}
	return f.last, sync.OnceFunc(func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.readers--; f.readers == 0 {
			f.ring = nil
		}
	})
}

// Changes copies decisions numbered above after into a slice, in order, and returns how many these are and how many before
// them are no longer kept. changed is closed when there are more than had been when Changes returned. Call it between Follow and
// done only.
func (f *Feed) Changes(after uint64, into []route.Decision) (n int, missed uint64, changed <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	oldest := max(f.first, f.last+1-min(f.last, Kept))
	if after+1 < oldest {
		missed = oldest - after - 1
		after += missed
	}
	for n < len(into) && after < f.last {
		after++
		into[n] = f.ring[after%Kept]
		n++
	}
	return n, missed, f.changed
}
