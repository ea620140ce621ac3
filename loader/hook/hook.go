// Package hook runs a program when a host comes to this site, leaves it, or moves to or from it: an adapter that assigns the
// host's address in a cloud's API, a firewall's object, an entry in somebody's inventory.
//
// What counts is that the program hears, in the end, of every host where it is, whatever fails meanwhile. So the hook is told of
// states, not of steps: of each host it keeps what the program was told with success and what the RIB says now, and runs the
// program as long as they differ. Changes that come faster than it works are one change. Of one host one run is under way at a
// time, of all together a few; a run that fails is repeated, ever more slowly, with the same event id. Before each run the
// journal says that it begins, after it that it succeeded: a restart repeats what was under way, and compares the rest with what
// is so by then. A run may therefore be repeated though it did its work; it must be idempotent.
//
// Only hosts that are at this site, or were when the program was last told, cost anything. They are few beside the hosts of all
// sites.
package hook

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"roam/loader/due"
	"roam/loader/route"
)

// Change is what the program reads on its standard input, as one JSON object.
type Change struct {
	Event    string     `json:"event"`   // an id: a repeated run has the same, no other change ever has
	Attempt  int        `json:"attempt"` // from 1
	Site     string     `json:"site"`    // ours
	Tenant   string     `json:"tenant"`
	Segment  string     `json:"segment"` // here, "" where no segment has the address
	Address  netip.Addr `json:"address"`
	OldSite  string     `json:"old_site"` // "" for nowhere, or not known
	NewSite  string     `json:"new_site"` // "" for nowhere
	Sequence uint32     `json:"sequence"` // of the move (RFC 7432), 0 where nobody counts
}

// Outcome is how a run ended: it labels roam_hook_runs_total.
type Outcome string

// The outcomes.
const (
	OK      Outcome = "ok"
	Failed  Outcome = "failed"  // it could not be started, or exited with another status than 0
	Timeout Outcome = "timeout" // it was killed
	DryRun  Outcome = "dry_run" // it would have been run
)

// Outcomes are all of them.
var Outcomes = []Outcome{OK, Failed, Timeout, DryRun}

// Notice tells of a run that ended.
type Notice struct {
	Change
	Outcome Outcome
	Err     error         // of a run that failed, with what it said
	Again   time.Duration // until it is repeated, after a failure
}

// Names translates tenants.
type Names interface {
	TenantID(name string) (route.TenantID, bool)
	TenantName(id route.TenantID) string
}

// Options of a Hook.
type Options struct {
	Program  string
	Timeout  time.Duration // of a run
	Parallel int           // runs at a time
	Dry      bool          // say what would be run, and run nothing
	Site     string        // ours
	State    string        // the journal's file; "" for none
	Names    Names
	Log      *slog.Logger

	Segment func(route.Key) string              // names the segment of an address
	Place   func(d *route.Decision) string      // the site that a decision leads to, "" for nowhere
	Tell    func(Notice)                        // hears of every run; must not call back
	run     func(context.Context, Change) error // tests put theirs here
}

// Bounds of what waits and how long.
const (
	maxWaiting = 65536 // hosts; beyond that the RIB keeps their decisions and offers them again
	firstRetry = time.Second
	lastRetry  = 5 * time.Minute
)

// Hook is a sink of the RIB's, and a task. Methods but Run may be called from any goroutine.
type Hook struct {
	Options
	wake chan struct{}
	done sync.WaitGroup

	mu      sync.Mutex
	journal *journal
	hosts   map[route.Key]*host
	from    map[route.Key]string // where hosts come from that Apply is about to hear of
	queue   due.Queue[*host]
	running int
	failing int // hosts whose last run failed
	synced  bool
	runs    map[Outcome]uint64
	last    error // of the last run that failed
	lost    error // why the journal is not kept
}

// host is what the RIB says of one, and what the program was told.
type host struct {
	key      route.Key
	seen     bool // by the RIB, in this life
	site     string
	sequence uint32
	from     string  // before it came
	told     string  // site, with success
	begun    *Change // run, with success not known
	attempts int
	under    bool // way
	failed   bool // at the last attempt
	due.Turn      // of the next run
}

// pending reports whether the program has to be run.
func (h *host) pending() bool { return h.begun != nil || h.site != h.told }

// New returns a Hook that knows what an earlier life noted.
func New(o Options) (*Hook, error) {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	k := &Hook{
		Options: o, wake: make(chan struct{}, 1), hosts: make(map[route.Key]*host), from: make(map[route.Key]string),
		runs: make(map[Outcome]uint64),
	}
	if o.run == nil {
		k.run = k.execute
	}
	if o.Dry || o.State == "" {
		return k, nil
	}
	j, notes, err := openJournal(o.State)
	if err != nil {
		return nil, fmt.Errorf("journal of hooks.host_change: %w", err)
	}
	k.journal = j
	for _, n := range notes {
		if n.told != o.Site {
			n.told = "" // where else it is was told, and is of no interest any more
		}
		tenant, ok := o.Names.TenantID(n.Tenant)
		if !ok || n.told == "" && n.begun == nil {
			continue // or its tenant is gone
		}
		key := route.KeyOf(tenant, n.Address)
		k.hosts[key] = &host{key: key, told: n.told, site: n.told, begun: n.begun}
	}
	return k, nil
}

// Name implements route.Sink.
func (k *Hook) Name() string { return "hook" }

// String names the task.
func (k *Hook) String() string { return k.Name() }

// From says where a host comes from that moved to our site; what Apply hears does not tell.
func (k *Hook) From(key route.Key, site string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if h := k.hosts[key]; h != nil {
		h.from = site
	} else if len(k.from) < maxWaiting {
		k.from[key] = site
	}
}

// Apply implements route.Sink.
func (k *Hook) Apply(_ context.Context, decisions []route.Decision) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	refused := 0
	for i := range decisions {
		d := &decisions[i]
		if !d.Host() {
			continue
		}
		h, site := k.hosts[d.Key], k.Place(d)
		if h == nil {
			if site != k.Site {
				continue
			}
			if k.queue.Len() >= maxWaiting || !k.synced && len(k.hosts) >= maxWaiting {
				refused++
				continue
			}
			h = &host{key: d.Key, from: k.from[d.Key]}
			k.hosts[d.Key] = h
		}
		delete(k.from, d.Key)
		h.seen = true
		if h.site != site {
			h.attempts = 0 // another change: it need not wait because the last one failed
			h.Due = time.Time{}
		}
		h.site, h.sequence = site, d.Sequence
		k.arrange(h)
	}
	if refused > 0 {
		return fmt.Errorf("%d changes of hosts wait for hooks.host_change, and there is no room for %d more", maxWaiting, refused)
	}
	return nil
}

// AllSynced says that every source has reported: what an earlier life left here and nobody named is nowhere.
func (k *Hook) AllSynced(context.Context) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.synced = true
	for _, h := range k.hosts {
		if !h.seen {
			h.seen, h.site = true, ""
		}
		k.arrange(h)
	}
	return nil
}

// arrange puts a host where it belongs: among those that wait, or out of sight.
func (k *Hook) arrange(h *host) {
	switch {
	case h.under || !k.synced:
		return
	case h.pending():
		k.queue.Put(h)
	default:
		k.queue.Remove(h)
	}
	if !h.pending() && h.site != k.Site {
		delete(k.hosts, h.key)
	}
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// Run runs the program until ctx ends; what is under way then is killed, and repeated by the next life.
func (k *Hook) Run(ctx context.Context) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		if next := k.dispatch(ctx, time.Now()); !next.IsZero() {
			timer.Reset(time.Until(next))
		}
		select {
		case <-ctx.Done():
			k.done.Wait()
			if k.journal != nil {
				k.journal.close()
			}
			return nil
		case <-timer.C:
		case <-k.wake:
		}
	}
}

// dispatch starts what is due, and says when to come again.
func (k *Hook) dispatch(ctx context.Context, now time.Time) (next time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for k.running < max(1, k.Parallel) && k.queue.Len() > 0 && ctx.Err() == nil {
		h := k.queue.First()
		if h.Due.After(now) {
			return h.Due
		}
		k.queue.Remove(h)
		c := k.begin(h)
		h.under = true
		k.running++
		k.done.Go(func() { k.deliver(ctx, h, c) })
	}
	return time.Time{}
}

// begin composes a run and notes that it begins.
func (k *Hook) begin(h *host) Change {
	if c := h.begun; c == nil || c.NewSite != h.site {
		old := h.told
		if old == "" && c == nil {
			old = h.from
		}
		h.begun = &Change{
			Event: fmt.Sprintf("%016x", rand.Uint64()), Site: k.Site, Tenant: k.Names.TenantName(h.key.Tenant), Segment: k.Segment(h.key),
			Address: h.key.Prefix.Addr(), OldSite: old, NewSite: h.site, Sequence: h.sequence,
		}
		k.note(line{Begun: h.begun})
	}
	h.attempts++
	c := *h.begun
	c.Attempt = h.attempts
	return c
}

// deliver runs the program once.
func (k *Hook) deliver(ctx context.Context, h *host, c Change) {
	n := Notice{Change: c, Outcome: DryRun}
	if !k.Dry {
		n.Err = k.run(ctx, c)
		n.Outcome = outcomeOf(n.Err)
	}
	if n.Err != nil && ctx.Err() != nil {
		return // killed because we end: the next life repeats it
	}
	k.mu.Lock()
	h.under = false
	k.running--
	k.runs[n.Outcome]++
	if failed := n.Err != nil; failed != h.failed {
		h.failed = failed
		if failed {
			k.failing++
		} else {
			k.failing--
		}
	}
	if n.Err == nil {
		h.told, h.begun, h.attempts, h.Due = c.NewSite, nil, 0, time.Time{}
		h.from = ""
		k.note(line{Done: &done{c.Event, c.Tenant, c.Address}})
	} else {
		n.Again = min(firstRetry<<min(c.Attempt-1, 20), lastRetry)
		k.last = n.Err
		if h.site == c.NewSite {
			h.Due = time.Now().Add(n.Again)
		} else {
			h.attempts, n.Again = 0, 0
		}
	}
	k.arrange(h)
	k.mu.Unlock()
	k.Tell(n)
}

var errTimeout = errors.New("it was killed")

func outcomeOf(err error) Outcome {
	switch {
	case err == nil:
		return OK
	case errors.Is(err, errTimeout):
		return Timeout
	}
	return Failed
}

// note writes a line of the journal.
func (k *Hook) note(l line) {
	if k.journal == nil {
		return
	}
	err := k.journal.append(l)
	if err == nil && k.journal.wasteful(len(k.hosts)) {
		err = k.journal.rewrite(k.notes())
	}
	if k.lost = err; err != nil {
		k.Log.Error("what hooks.host_change was told is not kept over a restart", "file", k.State, "error", err)
	}
}

// notes are what the journal has to hold.
func (k *Hook) notes() (list []note) {
	for _, h := range k.hosts {
		if h.begun != nil || h.told != "" {
			list = append(list, note{Tenant: k.Names.TenantName(h.key.Tenant), Address: h.key.Prefix.Addr(), told: h.told, begun: h.begun})
		}
	}
	return list
}

// Status says how a Hook is doing.
type Status struct {
	Waiting int   // hosts the program has yet to hear of
	Failing int   // of them, those whose last run failed
	Last    error // why, of the last one; nil if none is failing
	Lost    error // why the journal is not kept, nil if it is
	Runs    map[Outcome]uint64
}

// Status returns the state of a Hook; a nil one is doing well.
func (k *Hook) Status() Status {
	if k == nil {
		return Status{}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	s := Status{Waiting: k.queue.Len() + k.running, Failing: k.failing, Lost: k.lost, Runs: make(map[Outcome]uint64, len(Outcomes))}
	for _, o := range Outcomes {
		s.Runs[o] = k.runs[o]
	}
	if s.Failing > 0 {
		s.Last = k.last
	}
	return s
}
