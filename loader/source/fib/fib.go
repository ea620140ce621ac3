// Package fib follows kernel routing tables: whatever a routing daemon, or a person with ip(8), writes there becomes
// a claim. A route's next hop is the locator behind which the prefix lives.
//
// The kernel tells of changes over netlink, but not of all of them: an interface that goes down takes its IPv4
// routes along in silence, so does an address that was a route's source. And a burst may overrun the socket. So the
// table here is a guess that is kept good by events and made right by dumps: every doubt (a silent event, an overrun, an
// event that does not fit what is held) asks for a dump, doubts that come together share one, and a dump becomes a full
// report, after which nothing stale is left.
//
// A route may name a nexthop object or a group of them (ip-nexthop(8)); zebra installs all its routes so. What an object
// says changes without a word about the routes that use it, so each path remembers its object, see nexthop.go.
//
// A next hop is the address of a gateway, or the far end of a tunnel that the route itself names (encap ip). Routes of
// EVPN lead out of the bridge of the tenant's VNI and name the other end as if it were a neighbour there (onlink); its
// router MAC, which inner Ethernet headers need, is what the routing daemon told the kernel of that neighbour.
//
// The subscription comes before the first dump. Events older than a dump may then be applied after it; they come in
// order, so the table ends up right.
//
// Among routes to one prefix the lowest metric wins, as in the kernel. Not followed, counted and logged once each:
// routes without a next hop address (dev only), with a next hop that no tunnel can end at, for a TOS or a source,
// and types that name no remote place. Blackhole, unreachable and prohibit routes become rejects.
package fib

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"roam/loader/route"
)

// Table is a kernel routing table to follow.
type Table struct {
	ID     uint32 // as in ip route show table ID
	Tenant route.TenantID
	VNI    uint32 // of the tenant: what next hops behind a tunnel must name, where they name one; 0: anything
	// Locator completes each next hop address: encapsulation, port, priority, and the weight of a route that has one
	// next hop only. Its Address is not used.
	Locator route.Locator
}

// Options of a Source.
type Options struct {
	Tables []Table
	Log    *slog.Logger // default: slog.Default()

	// Known, if set, says what else is known about a next hop: the configured locator with this address, and its
	// site's name. Called from Run's goroutine.
	Known func(netip.Addr) (l route.Locator, site string, ok bool)

	// ReceiveBuffer is the netlink socket's, in bytes; default 8 MiB, some ten thousand changes.
	ReceiveBuffer int
}

// Status says how a Source is doing.
type Status struct {
	Routes   int            // prefixes followed
	Ignored  map[string]int // routes not followed at the last dump or since, by reason
	Dumps    uint64
	Overruns uint64
}

// Source follows kernel tables. It implements route.Source; Status and SetTables may be called from any goroutine.
type Source struct {
	log    *slog.Logger
	known  func(netip.Addr) (route.Locator, string, bool)
	buffer int
	kick   chan struct{} // the tables were changed

	mu     sync.Mutex // guards what follows
	tables []Table
	status Status

	// Of Run's goroutine.
	kernel   *kernel
	interner route.Interner
	state    map[uint32]*table // by kernel table
	nexthops map[uint32]nexthop
	stale    map[uint32]struct{}    // nexthop objects that changed, whose routes were not looked at yet
	shunned  map[uint32]struct{}    // nexthop objects of routes that are not followed
	routers  map[neighbor]route.MAC // what was asked of the kernel since the last dump
	links    map[int32]uint32       // interface flags as last seen
	doubt    time.Time              // when to dump, zero for no doubt
	took     time.Duration          // by the last dump and its report
}

const (
	defaultBuffer = 8 << 20
	batch         = 4096                  // changes in one report
	settle        = 50 * time.Millisecond // from a doubt to its dump: doubts come in flocks
	retry         = 2 * time.Second       // after a dump that failed
)

// New returns a source that follows the given tables of the network namespace that Run is called in.
func New(o Options) *Source {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Known == nil {
		o.Known = func(netip.Addr) (route.Locator, string, bool) { return route.Locator{}, "", false }
	}
	if o.ReceiveBuffer == 0 {
		o.ReceiveBuffer = defaultBuffer
	}
	return &Source{
		log: o.Log, known: o.Known, buffer: o.ReceiveBuffer, tables: slices.Clone(o.Tables),
		kick:   make(chan struct{}, 1),
		status: Status{Ignored: make(map[string]int)},
		stale:  make(map[uint32]struct{}), shunned: make(map[uint32]struct{}),
		routers: make(map[neighbor]route.MAC), links: make(map[int32]uint32),
	}
}

// Name implements route.Source.
func (s *Source) Name() string { return "fib" }

// String names the task.
func (s *Source) String() string { return "source fib" }

// Status returns a copy of the source's state.
func (s *Source) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.status
	st.Ignored = maps.Clone(st.Ignored)
	return st
}

// SetTables replaces the tables to follow; the next full report, which starts at once, forgets the others. Tables
// that stay as they are cost that report and nothing else.
func (s *Source) SetTables(tables []Table) {
	s.mu.Lock()
	s.tables = slices.Clone(tables)
	s.mu.Unlock()
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// Run implements route.Source. It returns nil when ctx ends, and an error when the kernel cannot be followed or the
// RIB refuses a report.
func (s *Source) Run(ctx context.Context, to route.Reporter) error {
	k, err := openKernel(s.buffer)
	if err != nil {
		return fmt.Errorf("follow kernel routes: %w", err)
	}
	s.kernel = k
	events, stop := k.receive()
	defer stop()
	err = s.follow(ctx, k, events, to)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func (s *Source) follow(ctx context.Context, k *kernel, events <-chan event, to route.Reporter) error {
	if err := s.resync(ctx, k, to); err != nil {
		return err
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		var due <-chan time.Time
		if !s.doubt.IsZero() {
			timer.Reset(time.Until(s.doubt))
			due = timer.C
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.kick:
			s.doubt = time.Now()
		case <-due:
			if err := s.resync(ctx, k, to); err != nil {
				return err
			}
		case e, ok := <-events:
			if !ok {
				return errors.New("follow kernel routes: the netlink socket was closed")
			}
			if err := s.report(ctx, to, s.take(e, events)); err != nil {
				return err
			}
		}
	}
}

// place names one prefix of one kernel table.
type place struct {
	table  uint32
	prefix netip.Prefix
}

// take applies an event and all that wait behind it, up to a batch, and returns the places that may have changed. What
// happened to nexthop objects meanwhile is looked up in the tables once.
func (s *Source) take(e event, events <-chan event) map[place]struct{} {
	changed := make(map[place]struct{})
	for range batch {
		if p, ok := s.apply(e); ok {
			changed[p] = struct{}{}
		}
		var ok bool
		select {
		case e, ok = <-events:
			if ok {
				continue
			}
		default:
		}
		break
	}
	s.retarget(changed)
	return changed
}

// report tells what the places hold now.
func (s *Source) report(ctx context.Context, to route.Reporter, changed map[place]struct{}) error {
	if len(changed) == 0 {
		return nil
	}
	changes := make([]route.Change, 0, len(changed))
	for p := range changed {
		t := s.state[p.table]
		if path := t.paths[p.prefix]; path != nil {
			changes = append(changes, t.change(p.prefix, path))
		} else {
			key := route.Key{Tenant: t.Tenant, Prefix: p.prefix}
			changes = append(changes, route.Change{Claim: route.Claim{Key: key}, Withdraw: true})
		}
	}
	s.count()
	return to.Report(ctx, changes)
}

// resync dumps the tables and makes a full report of them. A dump that fails is tried again later; what was held
// stays meanwhile.
func (s *Source) resync(ctx context.Context, k *kernel, to route.Reporter) error {
	started := time.Now()
	s.doubt = time.Time{}
	if err := s.dump(k); err != nil {
		s.log.Error("dump kernel routes: trying again", "err", err, "in", retry)
		s.doubt = started.Add(retry)
		return nil
	}
	s.count()
	if err := to.Begin(ctx); err != nil {
		return err
	}
	changes := make([]route.Change, 0, batch)
	for _, t := range s.state {
		for prefix, path := range t.paths {
			if changes = append(changes, t.change(prefix, path)); len(changes) == batch {
				if err := to.Report(ctx, changes); err != nil {
					return err
				}
				changes = changes[:0]
			}
		}
	}
	if err := to.Report(ctx, changes); err != nil {
		return err
	}
	s.took = time.Since(started)
	return to.Synced(ctx)
}

// suspect asks for a dump soon. Under constant doubt dumps take at most half of the time.
func (s *Source) suspect() {
	if s.doubt.IsZero() {
		s.doubt = time.Now().Add(settle + s.took)
	}
}

// ignore counts a route that is not followed, and says so the first time. A change of its nexthop object, if it has one,
// may make it one that is.
func (s *Source) ignore(reason string, p place, object uint32) {
	if object != 0 {
		s.shunned[object] = struct{}{}
	}
	s.mu.Lock()
	first := s.status.Ignored[reason] == 0
	s.status.Ignored[reason]++
	s.mu.Unlock()
	if first {
		s.log.Warn("not followed: "+reason, "prefix", p.prefix, "table", p.table)
	}
}

func (s *Source) count() {
	n := 0
	for _, t := range s.state {
		n += len(t.paths)
	}
	s.mu.Lock()
	s.status.Routes = n
	s.mu.Unlock()
}
