// Package api is the source of the routes that came through the control socket. The RIB holds them; a journal on
// disk (journal.go) lets them outlive the daemon. There is no third copy.
//
// The tricky part is that disk and RIB change as one. A change is written ahead and only then reported; if the RIB
// refuses it, the journal is cut back to where it was. It is answered for when the disk has it (disk.go), which packets need
// not wait for. What a crash can leave is therefore a change that is on disk and was never answered for, which is either
// outcome the caller had to expect.
//
// One change after another is written, and reported in that order; but a short one does not wait for a long one (keeper.go).
package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"roam/loader/api"
	"roam/loader/route"
	"roam/loader/tidy"
)

// Held is what the RIB holds from this source.
type Held interface {
	// Has tells whether a key was injected.
	Has(ctx context.Context, key route.Key) (bool, error)
	// Each calls f for every injected claim; f may keep nothing of it but the Via. An error of f ends it.
	Each(ctx context.Context, f func(*route.Claim) error) error
}

// Source keeps injected routes. Its methods are safe for concurrent use, and wait until Run has reported what is on
// disk.
type Source struct {
	path  string
	names api.Names
	held  Held
	log   *slog.Logger
	short chan work
	long  chan work     // waits for the long change that is under way
	ready chan struct{} // closed once synced
	gone  chan struct{} // closed when Run has returned
}

// work is a change on its way to the goroutine that owns the journal.
type work struct {
	changes []route.Change
	flush   func(context.Context, *journal, route.Reporter) error // instead of changes
	done    chan error
}

// short is how many changes the RIB takes in one go. More of them are a long change.
const short = 16

// New returns the source whose journal is the file at path.
func New(path string, names api.Names, held Held, log *slog.Logger) *Source {
	return &Source{
		path: path, names: names, held: held, log: log,
		short: make(chan work), long: make(chan work), ready: make(chan struct{}), gone: make(chan struct{}),
	}
}

// Name is the source's in the RIB.
func (s *Source) Name() string { return api.SourceName }

func (s *Source) String() string { return "source " + s.Name() }

// Ready is closed once everything on disk is in the RIB.
func (s *Source) Ready() <-chan struct{} { return s.ready }

// Run reports what is on disk, and then changes as they are asked for. It fails on a journal that cannot be read
// rather than overwriting it. It may be called once.
func (s *Source) Run(ctx context.Context, to route.Reporter) error {
	defer close(s.gone)
	j, changes, err := openJournal(s.path, s.names, s.log)
	if err != nil {
		return fmt.Errorf("keep injected routes: %w", err)
	}
	defer j.close()
	if err := s.restore(ctx, to, changes); err != nil {
		return err
	}
	close(s.ready)
	k := &keeper{Source: s, journal: j, disk: newDisk(j), to: to}
	k.run(ctx)
	return nil
}

func (s *Source) restore(ctx context.Context, to route.Reporter, changes []route.Change) error {
	err := to.Begin(ctx)
	if err == nil && len(changes) > 0 {
		err = to.Report(ctx, changes)
	}
	if err == nil {
		err = to.Synced(ctx)
	}
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("restore injected routes from %s: %w", s.path, err)
	}
	if len(changes) > 1<<16 {
		tidy.Later() // the RIB has them now
	}
	return ctx.Err()
}

// Inject applies changes all or nothing; see api.Injector.
func (s *Source) Inject(ctx context.Context, changes []route.Change) error {
	return s.ask(ctx, work{changes: changes})
}

func (s *Source) mustHave(ctx context.Context, key route.Key) error {
	has, err := s.held.Has(ctx, key)
	if err != nil || has {
		return err
	}
	return &api.Error{
		Message: fmt.Sprintf("%s was not injected into tenant %s", key.Prefix, s.names.TenantName(key.Tenant)),
		Hint:    fmt.Sprintf("roamctl route get %s shows who says so; only injected routes can be withdrawn here", key.Prefix.Addr()),
		Status:  404,
	}
}

// Flush withdraws everything and returns how much that was.
func (s *Source) Flush(ctx context.Context) (int, error) {
	n := 0
	flush := func(ctx context.Context, j *journal, to route.Reporter) error {
		if err := s.held.Each(ctx, func(*route.Claim) error { n++; return nil }); err != nil {
			return err
		}
		// An empty full report is a flush in the RIB, and takes no list of what to withdraw.
		before := j.size
		if err := j.flush(); err != nil {
			return fmt.Errorf("keep injected routes: %w: nothing was changed", err)
		}
		err := to.Begin(ctx)
		if err == nil {
			err = to.Synced(ctx)
		}
		if err != nil {
			return errors.Join(err, j.cut(before))
		}
		return nil
	}
	err := s.ask(ctx, work{flush: flush})
	return n, err
}

// ask hands work to Run. Once it is taken, it is done whether or not the caller waits.
func (s *Source) ask(ctx context.Context, w work) error {
	w.done = make(chan error, 1)
	to := s.short
	if w.flush != nil || len(w.changes) > short {
		to = s.long
	}
	select {
	case to <- w:
	case <-s.gone:
		return &api.Error{Message: "injected routes are not served", Hint: "the daemon is stopping, or could not read " + s.path + ": see its log", Status: 503}
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-w.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *Source) compact(ctx context.Context, j *journal) {
	err := j.rewrite(func(write func(*route.Claim) error) error { return s.held.Each(ctx, write) })
	if err != nil && ctx.Err() == nil {
		s.log.Warn("compact the journal of injected routes", "file", s.path, "error", err)
	}
}
