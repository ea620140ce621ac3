package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"time"

	"roam/loader/api"
	"roam/loader/config"
	"roam/loader/datapath"
	"roam/loader/feed"
	"roam/loader/metrics"
	"roam/loader/mld"
	"roam/loader/probe"
	"roam/loader/rib"
	"roam/loader/route"
	"roam/maps"
)

// backend answers the control socket from the parts of the daemon.
func (d *daemon) backend() api.Backend {
	return api.Backend{Observer: observer{d}, Recorder: d.events, Tracer: tracer{d}, Routes: routes{d}, Feed: changes{d.feed, d}, Injector: injector{d}, Operator: operator{d}, Names: names{d}}
}

// injector implements api.Injector over the source of injected routes.
type injector struct{ d *daemon }

// Inject also has a host that is said to be here looked for: a neighbour that answers is a sighting, and raises the
// sequence that the host is announced with.
func (i injector) Inject(ctx context.Context, changes []route.Change) error {
	if err := i.d.inject.Inject(ctx, changes); err != nil {
		return err
	}
	for k := range changes {
		c := &changes[k]
		here := !c.Withdraw && c.Local != nil && c.Host()
		if here {
			_ = i.d.hosts.Resolve(c.Tenant, c.Prefix.Addr()) // an address outside all segments is nobody's neighbour
		}
		i.d.fabric.Told(c.Key, here)
	}
	return nil
}

// Flush also takes back what was said of hosts in fabrics.
func (i injector) Flush(ctx context.Context) (int, error) {
	n, err := i.d.inject.Flush(ctx)
	if err == nil {
		i.d.fabric.ToldNothing()
	}
	return n, err
}

// leftFabric takes the word back that hosts are here: another site has them, and a restart must not say it again.
func (d *daemon) leftFabric(ctx context.Context, keys []route.Key) {
	for _, key := range keys {
		entries, err := d.rib.Get(ctx, key.Tenant, key.Prefix.Addr())
		said := func(c rib.Claim) bool { return c.Source == api.SourceName && c.Local != nil }
		if err == nil && len(entries) > 0 && entries[0].Key == key && slices.ContainsFunc(entries[0].Claims, said) {
			err = d.inject.Inject(ctx, []route.Change{{Claim: route.Claim{Key: key}, Withdraw: true}})
		}
		if err != nil {
			d.log.Warn("a host left, but a restart would say again that it is here", "host", key.Prefix, "error", err)
		}
	}
}

// names implements api.Names over the configuration in force.
type names struct{ d *daemon }

func (n names) TenantID(name string) (route.TenantID, bool) {
	if t, ok := n.d.config.Load().TenantNamed(name); ok {
		return t.ID, true
	}
	return 0, false
}

func (n names) TenantName(id route.TenantID) string {
	if t, ok := n.d.config.Load().TenantNumbered(id); ok {
		return t.Name
	}
	return fmt.Sprint(id)
}

func (n names) SiteLocators(name string) (locators []route.Locator, own, ok bool) {
	c := n.d.config.Load()
	if name == c.Site {
		return nil, true, true
	}
	if s, ok := c.SiteNamed(name); ok {
		return s.Ways(), false, true
	}
	return nil, false, false
}

// held implements the API source's view of what it has injected.
type held struct{ d *daemon }

func (h held) Has(ctx context.Context, key route.Key) (bool, error) {
	entries, err := h.d.rib.Get(ctx, key.Tenant, key.Prefix.Addr())
	for _, e := range entries {
		if e.Key == key && slices.ContainsFunc(e.Claims, func(c rib.Claim) bool { return c.Source == api.SourceName }) {
			return true, err
		}
	}
	return false, err
}

func (h held) Each(ctx context.Context, f func(*route.Claim) error) error {
	return h.d.rib.Walk(ctx, rib.Filter{Source: api.SourceName}, func(e rib.Entry) error {
		for i := range e.Claims {
			if e.Claims[i].Source == api.SourceName {
				return f(&e.Claims[i].Claim)
			}
		}
		return nil
	})
}

// routes implements api.Routes over the RIB.
type routes struct{ d *daemon }

func (r routes) Lookup(ctx context.Context, tenant route.TenantID, address netip.Addr) ([]api.Claim, error) {
	entries, err := r.d.rib.Get(ctx, tenant, address)
	var out []api.Claim
	for _, e := range entries {
		for i := range e.Claims {
			out = append(out, r.d.claimOf(&e, i))
		}
	}
	if len(out) > 0 && out[0].Host() && out[0].Local != nil {
		out[0].Mobility.Designated = r.d.designatedAt(tenant, out[0].Key)
	}
	return out, err
}

func (r routes) Walk(ctx context.Context, filter api.Filter, f func(*api.Claim) error) error {
	within := rib.Filter{Tenant: filter.Tenant, Source: filter.Source, Within: filter.Within, Hosts: filter.Hosts}
	at := siteFilter(r.d.config.Load(), filter.Site)
	return r.d.rib.Walk(ctx, within, func(e rib.Entry) error {
		for i := range e.Claims {
			c := r.d.claimOf(&e, i)
			if filter.Best && !c.Best || filter.Source != "" && c.Source != filter.Source || !at(&c.Claim) {
				continue
			}
			if err := f(&c); err != nil {
				return err
			}
		}
		return nil
	})
}

// changes implements api.Feed.
type changes struct {
	*feed.Feed
	d *daemon
}

func (c changes) Settled() <-chan struct{} { return c.d.rib.AllSynced() }

// siteFilter chooses the claims that name a site or lead to one of its locators; "" is all.
func siteFilter(c *config.Config, site string) func(*route.Claim) bool {
	if site == "" {
		return func(*route.Claim) bool { return true }
	}
	locators := map[netip.Addr]bool{}
	if s, ok := c.SiteNamed(site); ok {
		for _, l := range s.Locators {
			locators[l.Address] = true
		}
	}
	return func(c *route.Claim) bool {
		return c.Site == site || c.Via != nil && slices.ContainsFunc(c.Via.Locators, func(l route.Locator) bool { return locators[l.Address] })
	}
}

func (d *daemon) claimOf(e *rib.Entry, i int) api.Claim {
	held := &e.Claims[i]
	c := api.Claim{Claim: held.Claim, Source: held.Source, Preference: held.Preference, Age: held.Age, Best: i == 0}
	if i == 0 {
		c.Why, c.Mobility = e.Why, d.mobility(e)
	}
	return c
}

// observer implements api.Observer.
type observer struct{ d *daemon }

func (o observer) Status(ctx context.Context) (api.Status, error) {
	d := o.d
	c := d.config.Load()
	s := api.Status{
		Version: version, Site: c.Site, Shadow: c.Datapath.Shadow, PID: os.Getpid(), UptimeSeconds: time.Since(d.started).Seconds(),
		Ports: d.ports(), Tables: d.tables(), Warnings: append([]string{}, c.Warnings...),
	}
	sources, err := d.sources(ctx)
	if err != nil {
		return s, err
	}
	s.Sources = sources
	for _, t := range c.Tenants {
		tenant := api.Tenant{Name: t.Name, ID: uint16(t.ID), VNI: t.VNI, Segments: []string{}}
		for _, seg := range t.Segments {
			tenant.Segments = append(tenant.Segments, seg.Name)
		}
		s.Tenants = append(s.Tenants, tenant)
	}
	s.Segments = d.segmentStates()
	s.Warnings = append(s.Warnings, d.electionWarnings()...)
	if d.drained.Load() {
		s.Warnings = append(s.Warnings, "this gateway is drained: roamctl gateway undrain puts it back into service")
	}
	for name, err := range d.failed.all() {
		s.Warnings = append(s.Warnings, fmt.Sprintf("%s: %v", name, err))
	}
	for _, f := range d.gateway.Doctor() {
		if f.Level == datapath.LevelError {
			s.Warnings = append(s.Warnings, fmt.Sprintf("%s: %s: %s", f.Port, f.What, f.Fix))
		}
	}
	for _, l := range d.gateway.Locators() {
		if !l.Up {
			s.Warnings = append(s.Warnings, fmt.Sprintf("locator %s: %s", l.Address, l.Why))
		}
	}
	for _, l := range d.mld.Links() {
		if l.Full != "" {
			s.Warnings = append(s.Warnings, fmt.Sprintf("%s: %s: %s", l.Interface, l.Full, mld.FullAdvice))
		}
	}
	for _, p := range d.probe.Statuses() {
		if p.Hole {
			s.Warnings = append(s.Warnings, fmt.Sprintf("locator %s: large packets get lost on the way: roamctl events --kind mtu_hole", p.Address))
		}
	}
	s.Warnings = append(s.Warnings, d.hookWarnings()...)
	slices.Sort(s.Warnings)
	return s, nil
}

func (d *daemon) ports() []api.Port {
	var list []api.Port
	for _, p := range d.gateway.Ports() {
		port := api.Port{Interface: p.Name, VLAN: p.VLAN, Roles: p.Roles, Mode: string(p.Mode), MTU: p.MTU}
		if p.Err != nil {
			port.Error = p.Err.Error()
		}
		list = append(list, port)
	}
	return list
}

func (d *daemon) tables() []api.Table {
	var list []api.Table
	for _, t := range d.gateway.Tables() {
		list = append(list, api.Table{Name: t.Name, Entries: t.Entries, Capacity: t.Capacity})
	}
	return list
}

func (d *daemon) sources(ctx context.Context) ([]api.Source, error) {
	status, err := d.rib.Sources(ctx)
	failed := d.failed.all()
	var list []api.Source
	for _, s := range status {
		src := api.Source{Name: s.Name, Up: true, Synced: s.Synced, Routes: uint64(s.Claims), Changes: s.Changes}
		problem := failed[s.Name]
		if problem == nil && s.Name == d.file.Name() {
			problem = d.file.Err()
		}
		if problem != nil {
			src.Up, src.Error = false, problem.Error()
		}
		list = append(list, src)
	}
	return list, err
}

func (o observer) Sites(ctx context.Context) (api.List[api.Site], error) {
	d := o.d
	c := d.config.Load()
	states, counts, err := d.locators()
	if err != nil {
		return nil, err
	}
	_, hosts, err := d.rib.Counts(ctx)
	if err != nil {
		return nil, err
	}
	probed := map[netip.Addr]probe.Status{}
	for _, p := range d.probe.Statuses() {
		probed[p.Address] = p
	}
	own := api.Site{Name: c.Site, Own: true}
	for _, h := range hosts {
		own.Hosts += uint64(h.Here)
	}
	for _, l := range c.Underlay.Locators {
		inside := l.Address
		if inside == l.Public {
			inside = netip.Addr{}
		}
		own.Locators = append(own.Locators, api.SiteLocator{
			Address: l.Public, Inside: inside, Encap: route.VXLAN.String(), RouterMAC: c.Underlay.RouterMAC.String(), State: "own",
			Priority: route.DefaultPriority, Weight: route.DefaultWeight,
		})
	}
	list := api.List[api.Site]{own}
	for _, s := range c.Sites {
		site := api.Site{Name: s.Name}
		for _, l := range s.Locators {
			sl := api.SiteLocator{
				Address: l.Address, Encap: l.Encap.String(), Priority: l.Priority, Weight: l.Weight, RouterMAC: l.RouterMAC.String(),
			}
			if st, ok := states[l.Address]; ok {
				sl.State, sl.MTU = stateName(st), st.MTU
				if p, ok := probed[l.Address]; ok {
					sl.Probe, sl.RoundTrip, sl.MTUHole = string(p.State), p.RoundTrip.Seconds(), p.Hole
				}
				sl.Packets, sl.Bytes = counts[st.Number].Packets, counts[st.Number].Bytes
			}
			site.Locators = append(site.Locators, sl)
		}
		if site.Hosts, err = d.hostsAt(ctx, s); err != nil {
			return nil, err
		}
		list = append(list, site)
	}
	return list, nil
}

// Sessions lists the neighbours that routes are heard from, and the locators that are watched.
func (o observer) Sessions(ctx context.Context) (api.List[api.Session], error) {
	sessions, err := o.d.bgp.Sessions(ctx)
	list := api.List[api.Session]{}
	for _, s := range sessions {
		out := api.Session{
			Protocol: "bgp", Neighbor: s.Neighbor, ASN: s.ASN, State: s.State, Up: s.State == "established", Flaps: s.Flaps,
			Why: s.Why, Received: s.Received, Taken: s.Taken,
		}
		since := s.Since
		if since.IsZero() {
			since = o.d.started
		}
		out.AgeSeconds = time.Since(since).Seconds()
		for _, f := range s.Families {
			out.Families = append(out.Families, f.String())
		}
		list = append(list, out)
	}
	return append(list, o.d.bfdSessions()...), err
}

// hostsAt counts the hosts whose winning claim leads to a site.
func (d *daemon) hostsAt(ctx context.Context, s config.Site) (n uint64, err error) {
	at := map[netip.Addr]bool{}
	for _, l := range s.Locators {
		at[l.Address] = true
	}
	err = d.rib.Walk(ctx, rib.Filter{Hosts: true}, func(e rib.Entry) error {
		if e.Via != nil && slices.ContainsFunc(e.Via.Locators, func(l route.Locator) bool { return at[l.Address] }) {
			n++
		}
		return nil
	})
	return n, err
}

func stateName(s datapath.LocatorState) string {
	switch {
	case s.Up:
		return "up"
	case s.Silent:
		return "down"
	}
	return "unresolved"
}

func (d *daemon) locators() (map[netip.Addr]datapath.LocatorState, []maps.Counter, error) {
	states := map[netip.Addr]datapath.LocatorState{}
	for _, s := range d.gateway.Locators() {
		states[s.Address] = s
	}
	counts, err := maps.ReadLocatorCounters(d.plane.Objects().LocatorCounters)
	return states, counts, err
}

func (o observer) Counters(context.Context) (api.Counters, error) {
	out := api.Counters{Reasons: []api.ReasonCount{}, Locators: []api.LocatorCount{}, Refused: []api.RefusedCount{}, Shadow: o.d.plane.Shadow()}
	snapshot, err := o.d.packets()
	if err != nil {
		return out, err
	}
	for _, p := range snapshot {
		out.Reasons = append(out.Reasons, api.ReasonCount{
			Port: p.Port, Reason: p.Reason, Verdict: string(maps.VerdictOf(p.Reason)), Packets: p.Packets, Bytes: p.Bytes,
		})
	}
	for port, n := range o.d.gateway.Refused() {
		if n > 0 {
			out.Refused = append(out.Refused, api.RefusedCount{Port: port, Packets: n})
		}
	}
	slices.SortFunc(out.Refused, func(a, b api.RefusedCount) int { return compareStrings(a.Port, b.Port) })
	states, counts, err := o.d.locators()
	for a, s := range states {
		c := counts[s.Number]
		out.Locators = append(out.Locators, api.LocatorCount{Locator: a.String(), Packets: c.Packets, Bytes: c.Bytes})
	}
	slices.SortFunc(out.Locators, func(a, b api.LocatorCount) int { return compareStrings(a.Locator, b.Locator) })
	return out, err
}

// packets reads the counters by port name and reason.
func (d *daemon) packets() ([]metrics.Packets, error) {
	counts, err := maps.ReadCounters(d.plane.Objects().Counters)
	if err != nil {
		return nil, err
	}
	names := d.gateway.SlotNames()
	var list []metrics.Packets
	for _, c := range counts {
		name, ok := names[c.Slot]
		if !ok {
			name = "none" // frames of interfaces and VLANs that are no port, or are none any more
		}
		list = append(list, metrics.Packets{Port: name, Reason: maps.ReasonName(c.Reason), Packets: c.Packets, Bytes: c.Bytes})
	}
	return mergePackets(list), nil
}
