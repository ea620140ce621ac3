// Package fabric claims the hosts of routed fabrics: segments where a router takes everything behind the access port, as in a
// cloud.
//
// There no host shows itself. The router answers ARP for everybody, drops announcements, and lets nothing through from or to an
// address that is assigned to nobody, so a host could not even send before somebody has assigned its address; what does arrive
// comes from the router's MAC, whoever sent it. So being told is the sighting: who says "here" of a host (roamctl host move, a
// route without locators) makes it a claim with port, next hop, and a mobility sequence above what other sites announce, by which
// they hear that it moved. It stands until another site claims the host with a higher sequence, or the word is taken back.
//
// What a restart says again is no new sighting: the host keeps the sequence that it had (see state), and takes none from anybody
// (see Apply).
package fabric

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"

	"roam/loader/route"
)

// Segment is a set of subnets behind the router of one port.
type Segment struct {
	Tenant  route.TenantID
	Link    string // interface name of the access port
	VLAN    uint16
	Inner   uint16
	Subnets []netip.Prefix
	NextHop route.MAC // the router's
}

// Options of a Source.
type Options struct {
	Segments []Segment
	Site     string       // ours, named in every claim
	Log      *slog.Logger // default: slog.Default()

	// Sequence, if set, is asked at each sighting: the highest mobility sequence that others announce the host with, and whether
	// they do so at another site. Called with a lock held: must not call back.
	Sequence func(key route.Key, mac route.MAC) (sequence uint32, elsewhere, ok bool)

	// Left, if set, hears of hosts that another site took over. Called from Run's goroutine.
	Left func(ctx context.Context, keys []route.Key)

	// State is a file that keeps the hosts' sequences over restarts, with tenants by the names that Names knows; "" for none.
	State string
	Names Names

	// Index finds an interface, 0 for none; default: the kernel's.
	Index func(name string) int
}

// Source claims hosts of fabrics. It implements route.Source and route.Sink; all methods but Run may be called from any
// goroutine.
type Source struct {
	Options
	wake  chan struct{}
	state *state // nil: none is kept

	mu       sync.Mutex
	hosts    map[route.Key]uint32 // that are here, with their sequence
	changed  map[route.Key]struct{}
	left     []route.Key
	replaced bool // segments or interfaces are new
}

// New returns a source for the network namespace that Run is called in.
func New(o Options) *Source {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Sequence == nil {
		o.Sequence = func(route.Key, route.MAC) (uint32, bool, bool) { return 0, false, false }
	}
	if o.Left == nil {
		o.Left = func(context.Context, []route.Key) {}
	}
	if o.Index == nil {
		o.Index = func(name string) int {
			if nic, err := net.InterfaceByName(name); err == nil {
				return nic.Index
			}
			return 0
		}
	}
	s := &Source{
		Options: o, wake: make(chan struct{}, 1), hosts: make(map[route.Key]uint32), changed: make(map[route.Key]struct{}),
	}
	if o.State != "" {
		s.state = &state{path: o.State, names: o.Names}
		s.remember()
	}
	return s
}

// remember takes what an earlier life left.
func (s *Source) remember() {
	hosts, err := s.state.load()
	if err != nil {
		s.Log.Error("the mobility sequences of hosts in a fabric begin anew", "error", err) // no reason to claim none
	}
	for key, sequence := range hosts {
		if s.segment(key) != nil {
			s.hosts[key] = sequence
		}
	}
}

// keep writes down what is about to be said.
func (s *Source) keep(changes []route.Change, whole bool) {
	if s.state == nil || len(changes) == 0 && !whole {
		return
	}
	var err error
	if whole {
		err = s.state.replace(changes)
	} else {
		err = s.state.add(changes)
	}
	if err == nil && !whole && s.state.wasteful(s.Len()) {
		s.LinksChanged() // a full report rewrites it
	}
	if err != nil {
		s.Log.Error("a restart forgets the mobility sequences of hosts in a fabric", "file", s.State, "error", err)
	}
}

// Len is how many hosts are here.
func (s *Source) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.hosts)
}

// Name implements route.Source and route.Sink.
func (s *Source) Name() string { return "fabric" }

// String names the task.
func (s *Source) String() string { return "source fabric" }

// SetSegments replaces the segments; a full report follows.
func (s *Source) SetSegments(segments []Segment) {
	s.mu.Lock()
	s.Segments, s.replaced = slices.Clone(segments), true
	for key := range s.hosts {
		if s.segment(key) == nil {
			delete(s.hosts, key)
		}
	}
	s.mu.Unlock()
	s.poke()
}

// LinksChanged says that an interface came or went.
func (s *Source) LinksChanged() {
	s.mu.Lock()
	s.replaced = s.replaced || len(s.hosts) > 0
	s.mu.Unlock()
	s.poke()
}

// Told takes somebody's word, given now, that a host is here (or not): a sighting. Hosts of other segments are not ours.
func (s *Source) Told(key route.Key, here bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, was := s.hosts[key]
	switch {
	case !here && was:
		delete(s.hosts, key)
	case here && key.Host() && s.segment(key) != nil:
		s.hosts[key] = max(s.hosts[key], s.sequence(key))
	default:
		return
	}
	s.changed[key] = struct{}{}
	s.poke()
}

// ToldNothing takes all words back.
func (s *Source) ToldNothing() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key := range s.hosts {
		s.changed[key] = struct{}{}
	}
	clear(s.hosts)
	s.poke()
}

// sequence is one above what another site announces, and what a gateway of ours does.
func (s *Source) sequence(key route.Key) uint32 {
	n, elsewhere, _ := s.Sequence(key, route.MAC{})
	if elsewhere {
		return max(n, n+1) // it ends at the largest, where the lowest locator decides
	}
	return n
}

// Apply implements route.Sink. Hosts that another site claims now have left. One that is said to be here, but not behind which
// port, is claimed without a sighting: this is how an earlier life's word comes back, and the host may have moved meanwhile.
func (s *Source) Apply(_ context.Context, decisions []route.Decision) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.Segments) == 0 {
		return nil
	}
	for i := range decisions {
		d := &decisions[i]
		sequence, was := s.hosts[d.Key]
		switch {
		case was && d.Via != nil && d.Site == s.Site:
			s.hosts[d.Key] = max(sequence, d.Sequence) // shared with another gateway of our site
		case was && (d.Via != nil || d.Reject):
			delete(s.hosts, d.Key)
			s.left = append(s.left, d.Key)
		case !was && d.Local != nil && d.Local.Link == 0 && d.Host() && s.segment(d.Key) != nil:
			s.hosts[d.Key] = d.Sequence
		default:
			continue
		}
		s.changed[d.Key] = struct{}{}
		s.poke()
	}
	return nil
}

// segment finds where a host of a fabric would be.
func (s *Source) segment(key route.Key) *Segment {
	for i := range s.Segments {
		g := &s.Segments[i]
		if g.Tenant == key.Tenant && slices.ContainsFunc(g.Subnets, func(p netip.Prefix) bool { return p.Contains(key.Prefix.Addr()) }) {
			return g
		}
	}
	return nil
}

func (s *Source) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Run implements route.Source. It returns nil when ctx ends, and an error when the RIB refuses a report.
func (s *Source) Run(ctx context.Context, to route.Reporter) error {
	s.mu.Lock()
	s.replaced = true
	s.mu.Unlock()
	for {
		if err := s.report(ctx, to); err != nil && ctx.Err() == nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.wake:
		}
	}
}

// report says what changed, or everything.
func (s *Source) report(ctx context.Context, to route.Reporter) error {
	changes, left, whole := s.take()
	s.keep(changes, whole)
	if whole {
		if err := to.Begin(ctx); err != nil {
			return err
		}
	}
	if len(changes) > 0 {
		if err := to.Report(ctx, changes); err != nil {
			return fmt.Errorf("report hosts of a fabric: %w", err)
		}
	}
	if whole {
		if err := to.Synced(ctx); err != nil {
			return err
		}
	}
	if len(left) > 0 {
		s.Left(ctx, left)
	}
	return nil
}

// take returns what is to be reported, and forgets that it is.
func (s *Source) take() (changes []route.Change, left []route.Key, whole bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	index := make(map[string]int)
	add := func(key route.Key) {
		sequence, here := s.hosts[key]
		g := s.segment(key)
		if !here || g == nil {
			changes = append(changes, route.Change{Claim: route.Claim{Key: key}, Withdraw: true})
			return
		}
		if _, looked := index[g.Link]; !looked {
			index[g.Link] = s.Index(g.Link)
		}
		changes = append(changes, route.Change{Claim: route.Claim{
			Key: key, Site: s.Site, Sequence: sequence,
			Local: &route.Local{Link: index[g.Link], VLAN: g.VLAN, Inner: g.Inner, NextHop: g.NextHop},
		}})
	}
	if whole = s.replaced; whole {
		for key := range s.hosts {
			add(key)
		}
	} else {
		for key := range s.changed {
			add(key)
		}
	}
	left, s.left, s.replaced = s.left, nil, false
	clear(s.changed)
	return changes, left, whole
}
