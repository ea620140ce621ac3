// Package host says which hosts live here: what the kernel's neighbour table holds on the access ports, and what the data path sees
// there once it has answered a probe.
//
// A neighbour with a link-layer address is a host that lives here: a claim with its port and its MAC. The kernel's
// states behind that (reachable, stale, delay, probe) come and go while the host stays, and change nothing; only a
// neighbour that failed or was removed withdraws the claim. What the kernel says is taken as it is: an entry that is
// merely stale still claims, with the lowest preference of all sources, so that any other source that knows better
// wins. When one does (the RIB decides that the host lives elsewhere) the entry is deleted, lest the kernel deliver
// to the old MAC, or the claim return when the other one goes.
//
// Never claimed: gateway and own addresses, configured routers, link-local, multicast and broadcast addresses,
// addresses outside the segment's subnets, and addresses that answer with the MAC of a gateway or a router (they are
// proxied, and live elsewhere). Of routers the MAC is known all the same: the data path must tell frames to somebody
// on the segment from frames to the gateway.
//
// Each claim carries a mobility sequence. A host that is seen here for the first time, or with another MAC, takes the
// larger of what others announce its address and its MAC with, plus one if they do so at another site (RFC 7432, section 15,
// and RFC 9721); all addresses of a MAC have its highest. A host that comes back while nobody else claims it starts
// at 0 again. What a restart finds in the table is no sighting: it may have left meanwhile, and is asked.
//
// The kernel also removes entries that it merely has not used for a while, once it holds more than gc_thresh1 of them
// (128, unless raised): the data path delivers without it, so none is ever used for long. That says nothing about the
// host. Such a host stays claimed and is asked for again; its claim goes when it does not answer.
//
// The kernel hears little by itself, and ignores announcements of hosts that it does not know. The data path sees every sign of a
// host (see Sign): it is taken for a hint, the kernel asks the host, and its answer is a neighbour like any other. A host
// that is wanted is looked for in the same way.
//
// An address belongs to whoever has it and answers (see contest), may not move too often (see Freeze), and is let go when its host does
// not answer any more (see Probe): for that we ask by ourselves, one station at a time (see asker).
//
// A tagged segment is seen through the kernel's VLAN device on its port; without one its hosts are not seen.
package host

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

// Segment is a subnet set behind one access port. Segments of one source share no port and VLAN.
type Segment struct {
	Index   int // as the data path numbers it
	Tenant  route.TenantID
	Link    string // interface name of the access port
	VLAN    uint16 // tag on it, 0 for none
	Inner   uint16 // second tag (QinQ), 0 for none
	Subnets []netip.Prefix
	Gateway []netip.Addr   // shared by all sites
	Own     []netip.Addr   // this gateway's
	Routers []netip.Addr   // other routers on the segment; link-local ones, too
	NotHost []route.MAC    // MACs that are never a host's: the gateway's, foreign ones
	Freeze  Freeze         // how often a host may move
	Probe   Probe          // how it is confirmed that a host is still here
	Allow   []netip.Prefix // who may be a host, empty: all of the subnets
}

// Options of a Source.
type Options struct {
	Segments []Segment
	Site     string       // ours, named in every claim
	Locator  netip.Addr   // ours: between equals the lowest one wins
	Log      *slog.Logger // default: slog.Default()

	// MACs, if set, hears which MACs are here: those of hosts and routers, each once per segment however many
	// addresses it has. Called from Run's goroutine; must not call back.
	MACs func(segment int, mac route.MAC, present bool)

	// Moved, if set, hears of each host that was here and lives at another site now. Called from Run's goroutine; must not call back.
	Moved func(segment int, addr netip.Addr)

	// Sequence, if set, is asked at each new sighting: the highest mobility sequence that others announce the host
	// with, by its address or its MAC, and whether they do so at another site. Called from Run's goroutine.
	Sequence func(key route.Key, mac route.MAC) (sequence uint32, elsewhere, ok bool)

	// Holder, if set, is the MAC that another site announces a host with, zero where none does or it names none. Called from Run's goroutine.
	Holder func(key route.Key) route.MAC

	// Addresses, if set, lists the hosts that others announce with a MAC. Called from Run's goroutine.
	Addresses func(tenant route.TenantID, mac route.MAC) []netip.Addr

	// Tell, if set, hears what an operator should know. Called from Run's goroutine; must not call back.
	Tell func(Notice)

	// State is a file that keeps which hosts are frozen over restarts, with tenants by the names that Names knows; "" for none.
	State string
	Names Names

	// Passive has it ask nobody and change nothing: the kernel's neighbours, and hosts by their own word, are taken as they are.
	Passive bool

	// ReceiveBuffer is the netlink socket's, in bytes; default 4 MiB.
	ReceiveBuffer int
}

// Status says how a Source is doing.
type Status struct {
	Hosts    int
	Missing  []string // segments whose port does not exist now, as "lan0" or "lan0 VLAN 5"
	Dumps    uint64
	Overruns uint64
	Unheeded uint64 // signs of hosts that were one too many
	Frozen   int
	Claims   map[Outcome]uint64 // that were not simply taken
}

// Source follows the neighbour table. It implements route.Source and route.Sink; all methods but Run may be called
// from any goroutine.
type Source struct {
	log    *slog.Logger
	site   string
	at     netip.Addr // our locator
	macsTo func(int, route.MAC, bool)
	others func(route.Key, route.MAC) (uint32, bool, bool)
	known  func(route.TenantID, route.MAC) []netip.Addr
	holder func(route.Key) route.MAC
	moves  func(int, netip.Addr)
	tell   func(Notice)
	state  string
	names  Names
	now    func() time.Time
	buffer int
	silent bool
	wake   chan struct{} // something below asks for attention
	signs  chan Sign

	mu       sync.Mutex // guards what follows; never held while waiting
	segments []Segment
	replaced bool // segments are new
	forget   []leave
	resolve  []entry
	shared   []entry              // hosts that another gateway of our site announces, and that are not known here
	departed map[departure]uint32 // stations that others announce, with what sequence
	adopt    map[entry]uint32     // hosts that another gateway of our site announces, with what sequence
	here     map[route.Key]entry  // the hosts that are claimed
	ports    map[int]*port        // by index of the interface that holds the neighbours
	status   Status
	freezer  *freezer // locks itself

	quarantines map[route.Key]quarantined
	vacant      map[route.Key]vacancy   // hosts that were here moments ago, and nobody has had since
	went        []moved                 // of those, which another site has now
	gaveIn      map[route.Key]time.Time // claims of ours that another site answered: until when the host is looked for here if it goes there
	doing       map[route.Key]Doing     // what is not settled
	firsts      map[route.Key]time.Time // first signs of hosts that are not claimed yet

	// Of Run's goroutine.
	out        outside
	neighbours map[entry]neighbour
	told       map[entry]told
	stations   map[station]presence
	asked      map[entry]int            // to be resolved: attempts left
	lost       map[entry]int            // removed by the kernel for want of use: attempts left
	hints      map[entry]hint           // showed themselves and have not answered
	eager      []entry                  // of them: to be asked once more
	searches   map[entry]time.Time      // wanted and looked for: until when not again
	bound      map[station][]netip.Addr // that a station had when it was last here
	watches    watches
	paced      time.Time // no host is asked whether it is still here before
	contests   map[entry]*contest
	accused    map[entry]accused
	strangers  map[route.Key]struct{} // told of as not allowed
	suspended  map[entry]struct{}
	young      map[entry]time.Time // claimed although another site had it: until when that may be answered
	defences   map[entry]defence   // our answers to other sites
	leaving    map[entry]struct{}  // told to go: the kernel has yet to say that they went
	theirs     []entry             // hosts of another gateway of our site: to be looked for here, too
	doubtful   []entry             // found at the start without having been seen lately: to be confirmed
	dumped     bool                // once at least
	ticks      int
	doubt      time.Time // when to dump, zero for no doubt
}

// entry names a neighbour.
type entry struct {
	link int // interface index
	addr netip.Addr
}

// neighbour is one with a link-layer address.
type neighbour struct {
	mac       route.MAC
	permanent bool // an operator wrote it
}

// port is where a segment's neighbours are.
type port struct {
	Segment
	local route.Local
	down  bool // it has no carrier
}

type station struct {
	segment int
	mac     route.MAC
}

// vacancy is where a host was that nobody has, and until when that counts.
type vacancy struct {
	segment int
	until   time.Time
}

// moved is a host that was on a segment here and is at another site.
type moved struct {
	segment int
	addr    netip.Addr
}

// departure is a station that is said to be elsewhere.
type departure struct {
	tenant route.TenantID
	mac    route.MAC
}

// presence is how many addresses a station has, and the highest mobility sequence among them.
type presence struct {
	addresses int
	suspended int // of them: another site claims them, and they have not answered yet
	sequence  uint32
}

const (
	defaultBuffer = 4 << 20
	batch         = 4096
	settle        = 20 * time.Millisecond // from a doubt to its dump
	retry         = 2 * time.Second       // after a dump that failed
	tick          = time.Second           // between attempts to resolve what does not answer
	patience      = 30                    // ticks to go on asking for a host: it may still be on its way here
	routerTicks   = 10                    // between attempts to find a router, which never end
	lostTicks     = 3                     // to ask for a host that was removed for want of use
	lostProbes    = 256                   // at most in one tick, as for those to be confirmed
)

// New returns a source for the interfaces of the network namespace that Run is called in.
func New(o Options) *Source {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.MACs == nil {
		o.MACs = func(int, route.MAC, bool) {}
	}
	if o.Moved == nil {
		o.Moved = func(int, netip.Addr) {}
	}
	if o.Sequence == nil {
		o.Sequence = func(route.Key, route.MAC) (uint32, bool, bool) { return 0, false, false }
	}
	if o.Holder == nil {
		o.Holder = func(route.Key) route.MAC { return route.MAC{} }
	}
	if o.Addresses == nil {
		o.Addresses = func(route.TenantID, route.MAC) []netip.Addr { return nil }
	}
	if o.Tell == nil {
		o.Tell = func(Notice) {}
	}
	if o.ReceiveBuffer == 0 {
		o.ReceiveBuffer = defaultBuffer
	}
	return &Source{
		log: o.Log, site: o.Site, at: o.Locator, macsTo: o.MACs, others: o.Sequence, buffer: o.ReceiveBuffer, silent: o.Passive, segments: slices.Clone(o.Segments),
		known: o.Addresses, holder: o.Holder, moves: o.Moved, tell: o.Tell, state: o.State, names: o.Names, now: time.Now, freezer: newFreezer(), status: Status{Claims: make(map[Outcome]uint64)},
		departed:   make(map[departure]uint32),
		adopt:      make(map[entry]uint32),
		wake:       make(chan struct{}, 1),
		signs:      make(chan Sign, signQueue),
		here:       make(map[route.Key]entry),
		neighbours: make(map[entry]neighbour),
		told:       make(map[entry]told),
		stations:   make(map[station]presence),
		asked:      make(map[entry]int),
		lost:       make(map[entry]int),
		hints:      make(map[entry]hint),
		searches:   make(map[entry]time.Time),
		leaving:    make(map[entry]struct{}),
		contests:   make(map[entry]*contest),
		accused:    make(map[entry]accused),
		bound:      make(map[station][]netip.Addr),
		strangers:  make(map[route.Key]struct{}),
		suspended:  make(map[entry]struct{}),
		young:      make(map[entry]time.Time),
		defences:   make(map[entry]defence),

		quarantines: make(map[route.Key]quarantined), gaveIn: make(map[route.Key]time.Time), vacant: make(map[route.Key]vacancy), doing: make(map[route.Key]Doing), firsts: make(map[route.Key]time.Time),
		watches: watches{of: make(map[entry]*watch)},
	}
}

// Name implements route.Source and route.Sink.
func (s *Source) Name() string { return "host" }

// String names the task.
func (s *Source) String() string { return "source host" }

// Status returns the source's state.
func (s *Source) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.status
	st.Hosts, st.Claims = len(s.here), maps.Clone(st.Claims)
	st.Frozen = len(s.freezer.all())
	return st
}

// SetSegments replaces the segments; a full report follows at once. The same ones again change nothing.
func (s *Source) SetSegments(segments []Segment) {
	s.mu.Lock()
	s.segments, s.replaced = slices.Clone(segments), true
	s.mu.Unlock()
	s.poke()
}

// Forget deletes the kernel's neighbour entry of a host, if it has one on a segment of the tenant and no operator
// made it permanent. The claim goes when the kernel confirms.
func (s *Source) Forget(tenant route.TenantID, addr netip.Addr) {
	s.mu.Lock()
	e, ok := s.here[hostKey(tenant, addr)]
	if ok {
		s.forget = append(s.forget, leave{entry: e})
	}
	s.mu.Unlock()
	if ok {
		s.poke()
	}
}

// Departed says that others announce a MAC with a mobility sequence. If it is higher than ours the station has moved, and
// with it all its addresses on the tenant's segments: their neighbour entries are deleted as by Forget (RFC 7432, section 15).
// Where each of them is now others will tell; an address that is here after all is seen again.
func (s *Source) Departed(tenant route.TenantID, mac route.MAC, sequence uint32) {
	s.mu.Lock()
	d := departure{tenant, mac}
	s.departed[d] = max(s.departed[d], sequence)
	s.mu.Unlock()
	s.poke()
}

// Resolve asks the kernel to resolve an address on the tenant's segment that covers it, again and again for half a
// minute; what it finds becomes a claim. The error says that there is no such segment, or that its port is missing.
func (s *Source) Resolve(tenant route.TenantID, addr netip.Addr) error {
	s.mu.Lock()
	e, err := s.locate(tenant, addr)
	if err == nil {
		s.resolve = append(s.resolve, e)
	}
	s.mu.Unlock()
	if err != nil {
		return fmt.Errorf("resolve %s: %w", addr, err)
	}
	s.poke()
	return nil
}

// locate finds where an address would be a neighbour.
func (s *Source) locate(tenant route.TenantID, addr netip.Addr) (entry, error) {
	for link, p := range s.ports {
		if p.Tenant == tenant && p.covers(addr) {
			return entry{link, addr}, nil
		}
	}
	for _, seg := range s.segments {
		if p := (port{Segment: seg}); seg.Tenant == tenant && p.covers(addr) {
			return entry{}, fmt.Errorf("the segment's port %s is missing", p.name())
		}
	}
	return entry{}, fmt.Errorf("no segment of tenant %d has it in its subnets", tenant)
}

// Apply implements route.Sink: hosts that live elsewhere now are forgotten, with all addresses of their MAC, and hosts
// that were said to be here (moved by hand) are resolved. A host that another gateway of our site announces is shared:
// its sequence becomes ours; one that it announces and that is not known here is looked for: it may be behind both. So is one that nobody
// announces any more and that somebody here claimed in vain. Apply only takes
// notes; Run acts on them.
func (s *Source) Apply(_ context.Context, decisions []route.Decision) error {
	notes := false
	s.mu.Lock()
	for i := range decisions {
		d := &decisions[i]
		switch {
		case d.Via != nil && d.Site == s.site && s.site != "":
			if e, ok := s.here[d.Key]; ok {
				s.adopt[e], notes = d.Sequence, true
			} else if e, err := s.locate(d.Tenant, d.Prefix.Addr()); err == nil && d.Host() {
				s.shared, notes = append(s.shared, e), true
			}
		case d.Via != nil:
			if e, ok := s.here[d.Key]; ok {
				gone := leave{entry: e, sequence: d.Sequence, mac: d.MAC}
				if len(d.Via.Locators) > 0 {
					gone.at = d.Via.Locators[0].Address
				}
				if d.Pinned {
					gone.sequence = 0 // by hand: nothing answers it
				}
				s.forget, notes = append(s.forget, gone), true
			}
			if v, was := s.vacant[d.Key]; was {
				delete(s.vacant, d.Key)
				s.went, notes = append(s.went, moved{v.segment, d.Prefix.Addr()}), true
			}
			if d.Sequence > 0 && !d.MAC.IsZero() {
				s.departed[departure{d.Tenant, d.MAC}], notes = d.Sequence, true
			}
		case d.Gone:
			_, disputed := s.quarantines[d.Key]
			if _, gaveIn := s.gaveIn[d.Key]; !disputed && !gaveIn {
				continue
			}
			delete(s.quarantines, d.Key) // which protected who has just gone
			delete(s.gaveIn, d.Key)
			if e, err := s.locate(d.Tenant, d.Prefix.Addr()); err == nil {
				s.resolve, notes = append(s.resolve, e), true
			}
		case d.Local != nil && d.Local.Link == 0 && d.Host():
			if e, err := s.locate(d.Tenant, d.Prefix.Addr()); err == nil {
				s.resolve, notes = append(s.resolve, e), true
			}
		}
	}
	s.mu.Unlock()
	if notes {
		s.poke()
	}
	return nil
}

func (s *Source) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Run implements route.Source. It returns nil when ctx ends, and an error when the kernel cannot be followed or the
// RIB refuses a report. What was claimed stays claimed.
func (s *Source) Run(ctx context.Context, to route.Reporter) error {
	k, err := openKernel(s.buffer)
	if err != nil {
		return fmt.Errorf("follow neighbours: %w", err)
	}
	s.remember()
	defer s.keep()
	asks := newAsker(s.log)
	defer asks.close()
	s.out = world{k, asks}
	if s.silent {
		s.out = nowhere{}
	}
	events, stop := k.receive()
	defer stop()
	err = s.follow(ctx, k, events, asks.answers, to)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func (s *Source) follow(ctx context.Context, k *kernel, events <-chan event, answers <-chan heard, to route.Reporter) error {
	s.doubt = time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	verdicts, pending := time.NewTimer(time.Hour), false
	defer verdicts.Stop()
	probes, next := time.NewTimer(time.Hour), time.Time{}
	defer probes.Stop()
	for {
		if at := s.nextProbe(); !at.Equal(next) {
			if next = at; !at.IsZero() {
				probes.Reset(time.Until(at))
			}
		}
		if len(s.contests)+len(s.eager) > 0 && !pending {
			verdicts.Reset(settle)
			pending = true
		}
		var due <-chan time.Time
		if !s.doubt.IsZero() {
			timer.Reset(time.Until(s.doubt))
			due = timer.C
		}
		var err error
		select {
		case <-ctx.Done():
			return nil
		case <-s.wake:
			err = s.report(ctx, to, nil, s.attend()...)
		case a := <-answers:
			err = s.report(ctx, to, nil, s.hear(a)...)
		case <-probes.C:
			next = time.Time{}
			err = s.report(ctx, to, s.askPresent())
		case <-verdicts.C:
			pending = false
			s.askEager()
			err = s.report(ctx, to, s.decide())
		case g := <-s.signs:
			err = s.report(ctx, to, s.heed(g))
		case <-ticker.C:
			s.askAgain()
			s.findTheirs()
			s.askHints()
			s.thaw()
			s.tellConflicts()
			err = s.report(ctx, to, s.findLost())
		case <-due:
			err = s.resync(ctx, k, to)
		case e, ok := <-events:
			if !ok {
				return errors.New("follow neighbours: the netlink socket was closed")
			}
			err = s.report(ctx, to, s.take(e, events))
		}
		if err != nil {
			return err
		}
		s.keep()
	}
}

// attend does what other goroutines asked for, and returns the claims that come of it.
func (s *Source) attend() (changes []route.Change) {
	s.mu.Lock()
	forget, resolve, departed, adopt, replaced := s.forget, s.resolve, s.departed, s.adopt, s.replaced
	s.theirs = append(s.theirs, s.shared...)
	went := s.went
	s.forget, s.resolve, s.shared, s.went, s.replaced = nil, nil, nil, nil, false
	s.departed, s.adopt = make(map[departure]uint32), make(map[entry]uint32)
	s.mu.Unlock()
	forget = append(forget, s.withStation(departed)...) // a station that moved brings all its addresses
	if replaced {
		clear(s.strangers)
		s.doubt = time.Now()
	}
	for _, d := range forget {
		s.answered(d)
	}
	for _, m := range went {
		s.moves(m.segment, m.addr)
	}
	for _, e := range resolve {
		s.asked[e] = patience
		s.probe(e)
	}
	for e, sequence := range adopt {
		changes = append(changes, s.raise(e, sequence)...)
	}
	return changes
}

// withStation lists the neighbours whose station others announce with a higher sequence than ours.
func (s *Source) withStation(departed map[departure]uint32) (list []leave) {
	here := make(map[station]uint32)
	for d, sequence := range departed {
		for _, p := range s.ports {
			st := station{p.Index, d.mac}
			if is, ok := s.stations[st]; ok && p.Tenant == d.tenant && is.sequence < sequence {
				here[st] = max(here[st], sequence)
			}
		}
	}
	if len(here) == 0 {
		return nil
	}
	for e, t := range s.told {
		if sequence, gone := here[t.station]; gone && t.key != (route.Key{}) {
			list = append(list, leave{entry: e, sequence: sequence, mac: t.mac, station: true})
		}
	}
	return list
}

// askAgain goes on asking for what has not answered yet.
func (s *Source) askAgain() {
	for e := range s.asked {
		s.asked[e]--
		if _, found := s.neighbours[e]; found || s.asked[e] == 0 || s.ports[e.link] == nil {
			delete(s.asked, e)
		} else {
			s.probe(e)
		}
	}
	if s.ticks++; s.ticks%routerTicks == 0 {
		s.findRouters()
	}
	n := min(len(s.doubtful), lostProbes)
	for _, e := range s.doubtful[:n] {
		if _, still := s.neighbours[e]; still && s.ports[e.link] != nil {
			s.probe(e)
		}
	}
	s.doubtful = s.doubtful[n:]
}

// findTheirs looks for hosts of the other gateways of our site, as many as in a tick are looked for otherwise. Those behind a port that is
// down wait for it.
func (s *Source) findTheirs() {
	var later []entry
	probes := 0
	for i, e := range s.theirs {
		p := s.ports[e.link]
		if _, known := s.neighbours[e]; known || p == nil {
			continue
		}
		if p.down {
			later = append(later, e)
			continue
		}
		s.probe(e)
		if probes++; probes == lostProbes {
			later = append(later, s.theirs[i+1:]...)
			break
		}
	}
	s.theirs = later
}

// findLost asks for the hosts that the kernel has no entry for any more, and returns those that gave no answer.
func (s *Source) findLost() map[entry]struct{} {
	gone := make(map[entry]struct{})
	probes := 0
	for e := range s.lost {
		if s.lost[e] == 0 {
			delete(s.lost, e)
			delete(s.neighbours, e)
			gone[e] = struct{}{}
			continue
		}
		if probes++; probes > lostProbes {
			break
		}
		s.lost[e]--
		s.probe(e)
	}
	return gone
}

func (s *Source) probe(e entry) {
	if err := s.out.resolve(e); err != nil {
		s.log.Warn("resolve a neighbour", "addr", e.addr, "err", err)
	}
}

// findRouters asks for the configured routers that have no MAC yet.
func (s *Source) findRouters() {
	for link, p := range s.ports {
		for _, r := range p.Routers {
			if _, ok := s.neighbours[entry{link, r}]; !ok {
				s.probe(entry{link, r})
			}
		}
	}
}

// suspect asks for a dump soon.
func (s *Source) suspect() {
	if s.doubt.IsZero() {
		s.doubt = time.Now().Add(settle)
	}
}

func hostKey(tenant route.TenantID, addr netip.Addr) route.Key {
	return route.Key{Tenant: tenant, Prefix: netip.PrefixFrom(addr, addr.BitLen())}
}
