// Package keep has goroutines run as long as there is something for them to do: one for each of a set, and again whenever what they
// need, an interface most of all, is there again.
package keep

import (
	"context"
	"sync"
	"time"
)

// Up calls serve until it returns nil or ctx ends: again after a while, or when wake says so; wake may be nil. tell is called with an error
// that differs from the last.
func Up(ctx context.Context, after time.Duration, wake <-chan struct{}, serve func(context.Context) error, tell func(error)) {
	for told := ""; ctx.Err() == nil; {
		err := serve(ctx)
		if err == nil || ctx.Err() != nil {
			return
		}
		if err.Error() != told {
			told = err.Error()
			tell(err)
		}
		select {
		case <-ctx.Done():
		case <-wake:
		case <-time.After(after):
		}
	}
}

// Set runs a goroutine for each of its members. The zero value is empty. One goroutine calls its methods.
type Set[T comparable] struct {
	group   sync.WaitGroup
	running map[T]context.CancelFunc
}

// Be makes members the set: who is new begins, whose name is missing is cancelled.
func (s *Set[T]) Be(ctx context.Context, members map[T]bool, run func(context.Context, T)) {
	if s.running == nil {
		s.running = map[T]context.CancelFunc{}
	}
	for m, stop := range s.running {
		if !members[m] {
			stop()
			delete(s.running, m)
		}
	}
	for m := range members {
		if s.running[m] == nil {
			session, stop := context.WithCancel(ctx)
			s.running[m] = stop
			s.group.Go(func() { run(session, m) })
		}
	}
}

// Wait returns when all have ended, which their context has to tell them.
func (s *Set[T]) Wait() { s.group.Wait() }
