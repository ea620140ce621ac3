// Package bgp speaks BGP: it is a source of what neighbours announce, and a sink that announces who lives here.
//
// The sessions, their state machines and the wire are GoBGP's, as a library; what routes mean is decided here. Routes
// are read before the library's policies and kept in a table of our own (table.go), which knows more than BGP's best
// path does: several gateways of one site are one place, a mobility sequence outranks everything, and a session that was lost
// says nothing about the hosts behind it (session.go). The library's table holds our own announcements only.
//
// EVPN routes of types 2 and 5 become claims (translate.go), and the winning claims that say "here" become routes of
// type 2, or 5 where the MAC is unknown or it is a prefix (announce.go); host routes also as plain unicast, for routers
// that know no EVPN. The next hop is a locator of ours, never the session's address, so that a route means the same
// whatever reflectors it passes.
//
// At a start nobody is called before all other sources have reported, and every neighbour is told everything before
// the mark that ends it: so no neighbour that kept our routes over a restart drops one that is about to be announced.
package bgp

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"roam/loader/route"
)

// Options of a Source.
type Options struct {
	Config *Config      // nil: nobody to speak to
	Log    *slog.Logger // default: slog.Default()

	// Departed, if set, hears of each MAC that is announced by another site without an address, with its sequence.
	// Called from Run's goroutine; must not call back.
	Departed func(tenant route.TenantID, mac route.MAC, sequence uint32)

	// Announced, if set, hears of each host and prefix that lives here when it has been given to the sessions, and when that was begun. Called from
	// Run's goroutine; must not call back.
	Announced func(key route.Key, at time.Time)

	// Restarted says that forwarding has gone on over a restart of the process: neighbours are asked to keep what they
	// know of us (RFC 4724).
	Restarted bool
}

// Source is the speaker. It implements route.Source and route.Sink; all methods but Run may be called from any
// goroutine.
type Source struct {
	log     *slog.Logger
	departs func(route.TenantID, route.MAC, uint32)
	leaves  func(route.Key, time.Time)
	wake    chan struct{} // something below asks for attention
	release chan struct{} // closed when all other sources have reported
	once    sync.Once

	mu      sync.Mutex // guards what follows; never held while waiting
	config  *Config
	here    map[route.Key]lodger   // what is to be announced
	changed map[route.Key]struct{} // of these, what differs from what was
	ignored map[string]uint64      // routes not taken, by reason
	silent  bool                   // nothing is announced

	speaking *speaker // nil: none

	tableMu sync.RWMutex // guards the table, and the sessions that its answers depend on; taken before mu where both are
	table   *table

	restarted bool // of Run's goroutine
}

// New returns a source for the network namespace that Run is called in.
func New(o Options) *Source {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Departed == nil {
		o.Departed = func(route.TenantID, route.MAC, uint32) {}
	}
	if o.Announced == nil {
		o.Announced = func(route.Key, time.Time) {}
	}
	return &Source{
		log: o.Log, departs: o.Departed, leaves: o.Announced, config: o.Config, restarted: o.Restarted,
		wake: make(chan struct{}, 1), release: make(chan struct{}),
		here: make(map[route.Key]lodger), changed: make(map[route.Key]struct{}), ignored: make(map[string]uint64),
	}
}

// Name implements route.Source and route.Sink.
func (s *Source) Name() string { return "bgp" }

// String names the task.
func (s *Source) String() string { return "source bgp" }

func (s *Source) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// SetConfig replaces the configuration, nil for none. Neighbours that come or go leave the others alone; any other
// difference starts the speaker anew, which neighbours take for a restart. An equal one changes nothing.
func (s *Source) SetConfig(c *Config) {
	s.mu.Lock()
	s.config = c
	s.mu.Unlock()
	s.poke()
}

// OthersSynced says that all other sources have reported: what is to be announced is complete.
func (s *Source) OthersSynced(context.Context) error {
	s.once.Do(func() { close(s.release) })
	return nil
}

// Apply implements route.Sink. It only takes notes; Run acts on them.
func (s *Source) Apply(_ context.Context, decisions []route.Decision) error {
	s.mu.Lock()
	for i := range decisions {
		d := &decisions[i]
		was, had := s.here[d.Key]
		if d.Gone || d.Local == nil {
			if had {
				delete(s.here, d.Key)
				s.changed[d.Key] = struct{}{}
			}
			continue
		}
		is := lodger{mac: d.MAC, sequence: d.Sequence, pinned: d.Pinned}
		if !had || was != is {
			s.here[d.Key] = is
			s.changed[d.Key] = struct{}{}
		}
	}
	notes := len(s.changed) > 0
	s.mu.Unlock()
	if notes {
		s.poke()
	}
	return nil
}

// Withhold has nothing announced, what was being withdrawn, or everything again. The same word again changes nothing.
func (s *Source) Withhold(all bool) {
	s.mu.Lock()
	changes := s.silent != all
	s.silent = all
	for key := range s.here {
		if changes {
			s.changed[key] = struct{}{}
		}
	}
	s.mu.Unlock()
	s.poke()
}

func (s *Source) ownSite() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.config == nil {
		return ""
	}
	return s.config.Site
}

// Sequence returns the highest mobility sequence that a host is announced with elsewhere, by its address or by its
// MAC, and whether the one that announces it is at another site. Not ok: nobody announces either.
func (s *Source) Sequence(key route.Key, mac route.MAC) (sequence uint32, elsewhere, ok bool) {
	own := s.ownSite()
	s.tableMu.RLock()
	defer s.tableMu.RUnlock()
	if s.table == nil {
		return 0, false, false
	}
	for _, p := range []*path{s.table.best(keyOf(key)), s.table.highest(station{key.Tenant, mac})} {
		if p == nil || ok && p.sequence < sequence {
			continue
		}
		away := s.table.origins[p.origin].site != own
		elsewhere = away || ok && elsewhere && p.sequence == sequence
		sequence, ok = p.sequence, true
	}
	return sequence, elsewhere, ok
}

// Holder is the MAC that another site announces a host with, zero where none does or it names none. Safe for concurrent use.
func (s *Source) Holder(key route.Key) route.MAC {
	own := s.ownSite()
	s.tableMu.RLock()
	defer s.tableMu.RUnlock()
	if s.table == nil {
		return route.MAC{}
	}
	p := s.table.best(keyOf(key))
	if p == nil || s.table.origins[p.origin].site == own {
		return route.MAC{}
	}
	return p.mac
}

// Addresses lists the hosts that are announced with a MAC, each once, as many as a station may well have. Safe for concurrent use.
func (s *Source) Addresses(tenant route.TenantID, mac route.MAC) []netip.Addr {
	s.tableMu.RLock()
	defer s.tableMu.RUnlock()
	if s.table == nil {
		return nil
	}
	return s.table.addresses(station{tenant, mac})
}

// Sessions lists the neighbours, in the order of the configuration.
func (s *Source) Sessions(ctx context.Context) ([]Session, error) {
	s.mu.Lock()
	at := s.speaking
	s.mu.Unlock()
	if at == nil {
		return nil, nil
	}
	return at.sessionList(ctx)
}

// Standings says how the neighbours fare, in no order. Unlike Sessions it costs the same with a million routes.
func (s *Source) Standings() []Standing {
	s.mu.Lock()
	at := s.speaking
	s.mu.Unlock()
	if at == nil {
		return nil
	}
	return at.standings()
}

// Ignored returns how many routes were not taken, by reason.
func (s *Source) Ignored() map[string]uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make(map[string]uint64, len(s.ignored))
	for why, n := range s.ignored {
		list[why] = n
	}
	return list
}

// Run implements route.Source. It returns nil when ctx ends, and an error when the speaker cannot work or the RIB
// refuses a report. What was claimed stays claimed.
func (s *Source) Run(ctx context.Context, to route.Reporter) error {
	for ctx.Err() == nil {
		s.mu.Lock()
		c := s.config
		s.mu.Unlock()
		var err error
		if c == nil {
			err = s.idle(ctx, to)
		} else {
			err = s.speak(ctx, c, to)
		}
		if err != nil && ctx.Err() == nil {
			return err
		}
		s.restarted = true
	}
	return nil
}

// idle reports that there is nothing, and waits for a configuration.
func (s *Source) idle(ctx context.Context, to route.Reporter) error {
	if err := to.Begin(ctx); err != nil {
		return err
	}
	if err := to.Synced(ctx); err != nil {
		return err
	}
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-s.wake:
			s.mu.Lock()
			configured := s.config != nil
			s.mu.Unlock()
			if configured {
				return nil
			}
		}
	}
	return nil
}

// ignore counts a route that is not taken, and says so the first time.
func (s *Source) ignore(why string, from netip.Addr, what fmt.Stringer) {
	s.mu.Lock()
	s.ignored[why]++
	first := s.ignored[why] == 1
	s.mu.Unlock()
	if first {
		s.log.Warn("route not taken: "+why, "route", what, "neighbour", from)
	}
}

const defaultReopen = 5 * time.Minute
