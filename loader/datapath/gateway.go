package datapath

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"roam/loader/route"
	"roam/maps"
)

// Gateway is the data path as the RIB sees it: a sink that turns routes into table entries, follows the underlay, and
// keeps ports and segments as configured. Forwarding goes on when the process ends.
//
// Its methods are safe for concurrent use; one lock makes it the one writer that the tables want.
type Gateway struct {
	log      *slog.Logger
	plane    *Plane
	underlay *underlay
	paths    *pathMTUs
	refused  *maps.Refused // nil where the kernel cannot tell
	senders  *maps.Senders // nil where the kernel cannot tell

	mu       sync.Mutex
	table    *table
	spec     Spec
	placed   layout
	stations *stations
	foreign  bool                  // the stations here are known: frames to anybody else may be routed
	work     chan struct{}         // something waits for a grace period
	silent   map[netip.Addr]string // locators that do not answer, and why
	places   atomic.Pointer[places]
	tracer   tracer
	ways     atomic.Pointer[map[netip.Addr]*Way]                                                          // immutable: made anew by each refresh
	resolver func(own []netip.Addr, ports map[int]underlayPort, locators []netip.Addr) (*resolver, error) // newResolver, but in tests

	duty   sync.Mutex        // of who answers on a segment: guards what follows, and the segments' entries
	duties map[string]uint16 // indices of segments; never changed once it is here

	fragmenting bool // some way out carries less than some way in
	fragmentMTU int  // to which oversize packets are cut now
}

// NewGateway adopts what plane found pinned. Routes adopted so stay until AllSynced.
func NewGateway(plane *Plane, log *slog.Logger) (*Gateway, error) {
	t, err := openTable(plane.Objects(), plane.Hosts(), log)
	if err != nil {
		return nil, err
	}
	g := &Gateway{
		log: log, plane: plane, table: t, underlay: newUnderlay(log), paths: newPathMTUs(),
		stations: newStations(plane.Objects().Macs), foreign: plane.Adopted(), work: make(chan struct{}, 1),
		resolver: newResolver,
	}
	g.places.Store(&places{})
	g.tracer.gateway = g
	g.ways.Store(&map[netip.Addr]*Way{})
	g.watchRefused()
	if g.senders, err = maps.OpenSenders(); err != nil {
		log.Warn("when a host was last heard is not known", "error", err)
		g.senders = nil
	}
	if n := len(t.stale); n > 0 {
		log.Info("adopted pinned routes", "routes", n, "next_hops", t.nexthops.Len())
	}
	return g, nil
}

// Name is the sink's, in logs and status.
func (g *Gateway) Name() string { return "datapath" }

func (g *Gateway) String() string { return g.Name() }

// Apply makes decisions of the RIB true, in order. It goes on after one that fails; the error names each.
func (g *Gateway) Apply(_ context.Context, decisions []route.Decision) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.table.ready = g.ready()
	defer func() { g.table.ready = nil }()
	var failed []error
	for _, d := range decisions {
		if err := g.table.apply(d); err != nil {
			failed = append(failed, err)
			if len(failed) == 10 {
				failed = append(failed, errors.New("and more"))
				break
			}
		}
	}
	if g.table.unresolved {
		g.table.unresolved = false
		g.underlay.kick()
	}
	g.later()
	return errors.Join(failed...)
}

// FirstSeen says that the first packet to a host by its new way has been told of: the data path need not look for it any more. The RIB must
// know it before, or its next decision asks for it again.
func (g *Gateway) FirstSeen(key route.Key) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.table.seen(key)
}

// ready resolves locators that no route leads to yet, so that the first host that moves there loses nothing until the underlay is looked at
// again. One whose way is not known stays as it is: then it is asked for.
func (g *Gateway) ready() func(space, variant uint16) {
	var r *resolver
	return func(space, variant uint16) {
		if r == nil {
			var err error
			if r, err = newResolver(g.spec.Own, g.placed.underlay, nil); err != nil {
				r = &resolver{} // the next look at the underlay will say it
			}
		}
		a := g.table.locators.Key(variant).Address
		h, err := r.resolve(a)
		if err != nil {
			return
		}
		h.whole, h.MTU = h.MTU, g.paths.limit(a, h.MTU)
		if err := g.resolve(maps.Target{Tenant: space, Variant: variant}, h); err != nil {
			g.log.Debug("resolve a locator before its first route", "locator", a, "error", err)
		}
	}
}

// AllSynced says that every source has reported: adopted routes that nobody named again go.
func (g *Gateway) AllSynced(context.Context) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	dropped, err := g.table.dropStale()
	if dropped > 0 {
		g.log.Info("removed pinned routes that no source knows any more", "routes", dropped)
	}
	g.foreign = true
	g.later()
	return errors.Join(err, g.stations.dropStale(), g.writeSegments())
}

// later lets Run do what needs a grace period.
func (g *Gateway) later() {
	if g.table.nexthops.Reclaimable() {
		select {
		case g.work <- struct{}{}:
		default:
		}
	}
}

// SegmentIndex is the number of a segment in the tables, 0 for one that is not configured.
func (g *Gateway) SegmentIndex(name string) uint16 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.placed.segments[name]
}

// Run follows the underlay and tidies up behind grace periods until ctx ends.
func (g *Gateway) Run(ctx context.Context) error {
	tidied := make(chan error, 1)
	go func() { tidied <- g.tidy(ctx) }()
	hearing, stop := context.WithCancel(ctx)
	heard := make(chan struct{})
	go func() {
		defer close(heard)
		g.paths.listen(hearing, g.hearTooBig, func(err error) { g.log.Warn("path MTU discovery", "error", err) })
	}()
	err := g.underlay.run(ctx, g.refresh)
	stop()
	<-heard
	return errors.Join(err, <-tidied)
}

// tidy reclaims what deletions freed and settles displaced hosts. A short rest before each round lets many changes share one
// grace period, and the host whose move left the work behind be done with: who waits for the kernel keeps a processor from others for a while.
func (g *Gateway) tidy(ctx context.Context) error {
	const rest = 50 * time.Millisecond
	for {
		var what string
		var do func() error
		select {
		case <-ctx.Done():
			return nil
		case <-g.plane.Hosts().Work():
			what, do = "settle the host table", g.plane.Hosts().Settle
		case <-g.work:
			what, do = "reclaim next hops", g.reclaim
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(rest):
		}
		if err := do(); err != nil {
			g.log.Warn(what, "error", err)
		}
	}
}

// reclaim waits for a grace period without holding up changes.
func (g *Gateway) reclaim() error {
	g.mu.Lock()
	resting := g.table.nexthops.Rest()
	g.mu.Unlock()
	if err := g.plane.Grace().Wait(); err != nil {
		return err // what was to be freed is found again after a restart
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.table.free(resting)
	g.underlay.kick() // some locator may be out of use
	g.later()
	return nil
}

// refresh works out the way to every locator in use, and asks for neighbours that are missing or, to confirm, for all.
func (g *Gateway) refresh(confirm bool) (waiting bool, err error) {
	missing, waiting, err := g.follow(confirm)
	for _, h := range missing {
		err = errors.Join(err, ask(h.link, h.nextHop))
	}
	return waiting, err
}

// follow brings tunnels in line with what the kernel says of the underlay, and lists the neighbours that are to be asked for.
func (g *Gateway) follow(confirm bool) (missing []hop, waiting bool, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	number := g.placed.number
	r, err := g.survey()
	if err != nil || number != g.placed.number { // who placed the ports anew has asked for another look
		return nil, true, err
	}
	seen := map[netip.Addr]bool{}
	hops := map[netip.Addr]hop{}
	why := map[netip.Addr]error{}
	look := func(variant uint16) netip.Addr {
		a := g.table.locators.Key(variant).Address
		if !seen[a] {
			seen[a] = true
			w, asked := r.ways[a]
			if !asked {
				g.underlay.kick()
				why[a] = errUnasked
				return a
			}
			h := w.hop
			h.whole, h.MTU = h.MTU, g.paths.limit(a, h.MTU)
			hops[a], why[a] = h, w.why
			g.underlay.note(g.stateOf(a, variant, hops[a], why[a]))
			if !g.plane.Shadow() && (errors.Is(why[a], errUnresolved) || confirm && why[a] == nil && h.state&fixed == 0) {
				missing = append(missing, h)
			}
			waiting = waiting || why[a] != nil
		}
		return a
	}
	for variant := range g.table.known {
		look(variant)
	}
	for _, target := range g.table.nexthops.Variants() {
		a := look(target.Variant)
		if why[a] == errUnasked {
			continue
		}
		if why[a] != nil {
			g.table.nexthops.Unresolve(target.Tenant, target.Variant)
			continue
		}
		err = errors.Join(err, g.resolve(target, hops[a]))
	}
	g.doubt()
	err = errors.Join(err, g.table.nexthops.Balance())
	g.underlay.keep(seen)
	g.noteMTUs(hops, why)
	g.noteWays(hops, why)
	g.later()
	return missing, waiting, errors.Join(err, g.followMTU())
}

// survey asks the kernel for the way to every locator in use. The caller holds the lock, which is let go meanwhile: the kernel answers
// when it has done what others asked of it, and a host that moves must not wait for that.
func (g *Gateway) survey() (*resolver, error) {
	own, ports := g.spec.Own, g.placed.underlay
	var locators []netip.Addr
	for variant := range g.table.known {
		locators = append(locators, g.table.locators.Key(variant).Address)
	}
	for _, target := range g.table.nexthops.Variants() {
		locators = append(locators, g.table.locators.Key(target.Variant).Address)
	}
	g.mu.Unlock()
	defer g.mu.Lock()
	return g.resolver(own, ports, locators)
}

// noteMTUs tells the data path what fits on every way to an address, by which it clamps the TCP connections that arrive from there.
func (g *Gateway) noteMTUs(hops map[netip.Addr]hop, why map[netip.Addr]error) {
	fits := map[netip.Addr]int{}
	g.table.locators.EachVariant(func(key maps.LocatorKey) {
		if why[key.Address] != nil {
			return
		}
		mtu := hops[key.Address].MTU - overhead(route.Encap(key.Encap), key.Address)
		if least, ok := fits[key.Address]; !ok || mtu < least {
			fits[key.Address] = mtu
		}
	})
	for a, mtu := range fits {
		g.table.locators.SetMTU(a, uint16(max(0, min(mtu, 0xffff))))
	}
}

func (g *Gateway) resolve(target maps.Target, h hop) error {
	vni, ok := g.table.tenants.vni(target.Tenant)
	if !ok {
		g.table.nexthops.Unresolve(target.Tenant, target.Variant)
		return nil
	}
	a, err := template(h.path, g.tunnelTo(target.Variant, vni))
	if err == nil {
		err = g.table.nexthops.Resolve(target.Tenant, target.Variant, a)
	}
	if err != nil {
		return fmt.Errorf("locator %s: %w", h.Remote, err)
	}
	return nil
}

// tunnelTo is the tunnel to a locator's entry for one tenant.
func (g *Gateway) tunnelTo(variant uint16, vni uint32) tunnel {
	key := g.table.locators.Key(variant)
	return tunnel{
		VNI: vni, UDPPort: key.Port, Inner: key.RouterMAC, OwnMAC: g.spec.RouterMAC,
		UDPChecksum: key.Options&maps.LocatorZeroCsum == 0, ECN: key.Options&maps.LocatorNoECN == 0,
		Locator: g.table.locators.Number(variant), Encap: route.Encap(key.Encap),
	}
}

func (g *Gateway) stateOf(a netip.Addr, variant uint16, h hop, why error) LocatorState {
	s := LocatorState{Address: a, Up: why == nil, NextHop: h.nextHop, Number: g.table.locators.Number(variant)}
	if why != nil {
		s.Why = why.Error()
		return s
	}
	s.pathMTU = h.MTU
	s.Interface = g.placed.underlay[h.link].name
	s.MTU = h.MTU - overhead(route.Encap(g.table.locators.Key(variant).Encap), a)
	if why, silent := g.silent[a]; silent {
		s.Up, s.Silent, s.Why = false, true, why
	}
	return s
}

// Locators lists the locators in use and how they fare.
func (g *Gateway) Locators() []LocatorState { return g.underlay.list() }

// Close lets go of the tables. Forwarding goes on.
func (g *Gateway) Close() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.senders != nil {
		_ = g.senders.Close()
	}
	if g.refused == nil {
		return g.table.close()
	}
	return errors.Join(g.table.close(), g.refused.Close())
}

// TableState is how full a table is.
type TableState struct {
	Name              string
	Entries, Capacity uint64
}

// Tables lists the tables whose size matters.
func (g *Gateway) Tables() []TableState {
	g.mu.Lock()
	defer g.mu.Unlock()
	hosts := g.plane.Hosts()
	return []TableState{
		{"hosts4", uint64(hosts.Len4()), uint64(hosts.Cap())},
		{"hosts6", uint64(hosts.Len6()), uint64(hosts.Cap())},
		{"nexthops", uint64(g.table.nexthops.Len()), uint64(maps.Nexthops)},
		{"locators", uint64(g.table.locators.Len()), uint64(maps.Locators)},
	}
}
