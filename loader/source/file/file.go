// Package file is the source of the routes in a file that an operator or a program writes, followed as it
// changes. Every change is a new full report, so what is no longer in the file is gone from the RIB.
//
// The tricky part is never to report what nobody meant. A file is read when its writer has closed it, not while
// it is being written; one that cannot be understood leaves the last good routes in force and is reported by Err;
// and one that vanishes is given a moment to come back, because editors replace files by moving them away first.
package file

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"roam/loader/route"
)

const (
	maxFile = 256 << 20
	absence = 2 * time.Second       // before a file that vanished counts as gone
	busy    = 50 * time.Millisecond // between looks at one that is being written; closing it is told a moment early
)

// Source follows one route file.
type Source struct {
	tenant  func(name string) (route.TenantID, bool)
	log     *slog.Logger
	absence time.Duration
	again   chan struct{} // Reload was called

	mu   sync.Mutex
	path string
	err  error
}

// New returns a source of the routes in the file at path; none where it is "". tenant finds a tenant by name, the
// default one where the name is empty.
func New(path string, tenant func(name string) (route.TenantID, bool), log *slog.Logger) *Source {
	return &Source{path: path, tenant: tenant, log: log, absence: absence, again: make(chan struct{}, 1)}
}

// Name is the source's in the RIB.
func (s *Source) Name() string { return "file" }

func (s *Source) String() string { return "source file" }

// Err is why the file is not in force as it stands, or nil. It is safe to call at any time.
func (s *Source) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Reload follows the file at path from now on, and reads it anew even where that is the same one: the names of
// tenants may mean something else. It is safe to call at any time.
func (s *Source) Reload(path string) {
	s.mu.Lock()
	s.path = path
	s.mu.Unlock()
	select {
	case s.again <- struct{}{}:
	default: // Run will see the path when it comes to the last call
	}
}

// Run reports the file until its context ends.
func (s *Source) Run(ctx context.Context, to route.Reporter) error {
	for {
		s.mu.Lock()
		path := s.path
		s.mu.Unlock()
		var err error
		if path == "" {
			s.note(nil)
			err = s.none(ctx, to)
		} else {
			err = s.follow(ctx, path, to)
		}
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// none reports nothing until Reload or the end.
func (s *Source) none(ctx context.Context, to route.Reporter) error {
	err := report(ctx, to, nil)
	if err == nil {
		select {
		case <-s.again:
		case <-ctx.Done():
		}
	}
	return err
}

// follow reports one file until Reload or the end.
func (s *Source) follow(ctx context.Context, path string, to route.Reporter) error {
	w, err := watch(path)
	if err != nil {
		return fmt.Errorf("watch %s: %w", path, err)
	}
	defer w.close()
	// The watch stands before the first read: nothing between them is missed.
	var later <-chan time.Time
	for {
		switch err := s.read(ctx, path, to); {
		case errors.Is(err, errBusy):
			later = time.After(busy)
		case err != nil:
			return err
		}
		for waiting := true; waiting; {
			select {
			case <-ctx.Done():
				return nil
			case <-s.again:
				return nil
			case err := <-w.failed:
				return fmt.Errorf("watch %s: %w", path, err)
			case <-later:
				waiting = false
			case <-w.changed:
				if err := w.aim(); err != nil {
					return fmt.Errorf("watch %s: %w", path, err)
				}
				if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
					later = time.After(s.absence)
					continue
				}
				waiting = false
			}
		}
		later = nil
	}
}

// read reports what the file says. One that is missing says nothing. One that is wrong leaves what is in force,
// also at the start: the data path then goes on with what an earlier daemon left. errBusy is one to come back to.
func (s *Source) read(ctx context.Context, path string, to route.Reporter) error {
	data, err := readFile(path)
	if errors.Is(err, errBusy) {
		return err
	}
	if errors.Is(err, fs.ErrNotExist) {
		s.note(fmt.Errorf("%s does not exist: it stands for no routes until it does", path))
		return report(ctx, to, nil)
	}
	var changes []route.Change
	if err == nil {
		changes, err = Parse(path, data, s.tenant)
	}
	if err == nil {
		err = report(ctx, to, changes)
	}
	if ctx.Err() != nil {
		return nil
	}
	s.note(err)
	return nil
}

// note keeps what is wrong with the file, and logs it once.
func (s *Source) note(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil && (s.err == nil || s.err.Error() != err.Error()) {
		s.log.Warn("route file", "error", err)
	}
	if err == nil && s.err != nil {
		s.log.Info("route file is in force again")
	}
	s.err = err
}

// report makes one full report.
func report(ctx context.Context, to route.Reporter, changes []route.Change) error {
	if err := to.Begin(ctx); err != nil {
		return err
	}
	if len(changes) > 0 {
		if err := to.Report(ctx, changes); err != nil {
			return err
		}
	}
	return to.Synced(ctx)
}

// errBusy is a file that somebody is writing.
var errBusy = errors.New("open for writing")

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() // and with it the lease
	// A read lease is refused while somebody has the file open for writing, and keeps writers waiting while we read.
	// Where it cannot be had at all (another's file, a network file system) events alone have to do.
	if _, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_RDLCK); errors.Is(err, unix.EAGAIN) {
		return nil, errBusy
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("%s: larger than %d bytes: use roamctl route import", path, maxFile)
	}
	return data, err
}
