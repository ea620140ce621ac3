// Package apitest is a daemon without a data path: a Backend in memory for tests of the control socket and of the
// command.
package apitest

import (
	"cmp"
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"roam/loader/api"
	"roam/loader/event"
	"roam/loader/feed"
	"roam/loader/route"
)

// Daemon implements every part of an api.Backend. It knows the tenants default and blue, and the sites dc1, which
// is its own, dc2 and dc3. Its fields may be set before it is used.
type Daemon struct {
	mu     sync.Mutex
	Claims []api.Claim // sorted by key; of one key the best first

	Checks    api.List[api.Check]
	Events    *event.Log // those of Happened where nil
	Failure   error      // of every method, where set
	Explained api.ExplainRequest
	Verdicts  map[netip.Addr]api.MoveChecked // of moves that are looked at
	OwnSite   string                         // as status has it; dc1 where empty

	*feed.Feed // of what wins; made with the backend

	Packets []api.TracedPacket // what a trace tells; those of Traffic where nil
	Lost    uint64             // by every trace
	Asked   api.TraceRequest   // for the last trace
	Ended   chan struct{}      // hears of each trace that has ended, where set; has to be read
}

// Backend returns the daemon as the server wants it.
func (d *Daemon) Backend() api.Backend {
	if d.Feed == nil {
		d.Feed = feed.New()
	}
	return api.Backend{Observer: d, Recorder: d.events(), Tracer: d, Routes: d, Feed: d, Injector: d, Operator: d, Names: d}
}

// Happened is what the daemon remembers unless told otherwise.
func Happened() *event.Log {
	l := event.New(slog.New(slog.DiscardHandler))
	l.Add(api.Event{
		Kind: event.Move, Subject: "10.1.0.9", Tenant: "default", What: "10.1.0.9 moved from dc2 to here",
		Why: "api wins: its sequence 2 is higher than 1 of host",
	})
	l.Add(api.Event{
		Kind: event.LocatorDown, Subject: "192.0.2.2", What: "locator 192.0.2.2 is out of reach", Why: "no route",
		Do: "ip route get 192.0.2.2",
	})
	return l
}

func (d *Daemon) events() *event.Log {
	if d.Events == nil {
		d.Events = Happened()
	}
	return d.Events
}

// Locator is a locator with the defaults.
func Locator(address string) route.Locator {
	return route.Locator{Address: netip.MustParseAddr(address), Priority: route.DefaultPriority, Weight: route.DefaultWeight}
}

// Know adds a claim of another source than the control socket.
func (d *Daemon) Know(source string, c route.Claim) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.put(source, c)
}

// Injected returns how many claims came through the socket.
func (d *Daemon) Injected() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := 0
	for i := range d.Claims {
		if d.Claims[i].Source == api.SourceName {
			n++
		}
	}
	return n
}

func compare(a, b route.Key) int {
	return cmp.Or(cmp.Compare(a.Tenant, b.Tenant), a.Prefix.Compare(b.Prefix))
}

// find returns where the claims of a key are.
func (d *Daemon) find(key route.Key) (from, to int) {
	from, _ = slices.BinarySearchFunc(d.Claims, key, func(c api.Claim, k route.Key) int { return compare(c.Key, k) })
	for to = from; to < len(d.Claims) && d.Claims[to].Key == key; to++ {
	}
	return from, to
}

// put holds a claim; what came through the socket wins.
func (d *Daemon) put(source string, c route.Claim) {
	d.remove(source, c.Key)
	from, to := d.find(c.Key)
	at := to
	if source == api.SourceName {
		at = from
	}
	d.Claims = slices.Insert(d.Claims, at, api.Claim{Claim: c, Source: source, Preference: 100, Age: time.Minute, Mobility: stateOf(c)})
	d.rank(c.Key)
}

func (d *Daemon) injected(key route.Key) bool {
	from, to := d.find(key)
	return slices.ContainsFunc(d.Claims[from:to], func(c api.Claim) bool { return c.Source == api.SourceName })
}

func stateOf(c route.Claim) api.Mobility {
	switch {
	case c.Pinned:
		return api.Mobility{State: "sticky"}
	case c.Local != nil:
		return api.Mobility{State: "here"}
	}
	return api.Mobility{State: "away"}
}

func (d *Daemon) remove(source string, key route.Key) bool {
	from, to := d.find(key)
	for i := from; i < to; i++ {
		if d.Claims[i].Source == source {
			d.Claims = slices.Delete(d.Claims, i, i+1)
			d.rank(key)
			return true
		}
	}
	return false
}

func (d *Daemon) rank(key route.Key) {
	from, to := d.find(key)
	for i := from; i < to; i++ {
		source := d.Claims[i].Source
		d.Claims[i].Best, d.Claims[i].Why = i == from, nil
		if i == from {
			d.Claims[i].Why = func() string { return source + " wins" }
		}
	}
	d.tell(key)
}

// tell has the feed know what wins for a key.
func (d *Daemon) tell(key route.Key) {
	if d.Feed == nil {
		return
	}
	decision := route.Decision{Claim: route.Claim{Key: key}, Gone: true}
	if from, to := d.find(key); from < to {
		decision = route.Decision{Claim: d.Claims[from].Claim, Source: d.Claims[from].Source}
	}
	_ = d.Apply(context.Background(), []route.Decision{decision}) // never fails
}

// Settled implements api.Feed: this daemon has no start.
func (d *Daemon) Settled() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}

// Status implements api.Observer.
func (d *Daemon) Status(context.Context) (api.Status, error) {
	return api.Status{
		Version: "test", Site: cmp.Or(d.OwnSite, "dc1"), PID: 7, UptimeSeconds: 3700,
		Ports: api.List[api.Port]{
			{Interface: "lan0", Roles: []string{"access"}, Mode: "native", MTU: 1500},
			{Interface: "wan0", Roles: []string{"underlay"}, MTU: 2000, Error: "no such interface"},
		},
		Tables:  api.List[api.Table]{{Name: "hosts4", Entries: 512, Capacity: 1024}},
		Sources: api.List[api.Source]{{Name: "api", Up: true, Synced: true, Routes: 1, Changes: 2}},
		Tenants: api.List[api.Tenant]{{Name: "default", ID: 1, VNI: 7001, Segments: []string{"web"}}, {Name: "blue", ID: 2, VNI: 7002}},
		Segments: api.List[api.Segment]{{
			Name: "web", Tenant: "default", Interface: "lan0", State: "standby", SinceSeconds: 60, Gateways: api.List[api.SegmentGateway]{
				{MAC: "02:00:00:00:00:0a", Address: netip.MustParseAddr("10.1.0.2"), Site: "dc1", Rank: "ready", Priority: 100, Own: true},
				{MAC: "02:00:00:00:00:0b", Address: netip.MustParseAddr("10.1.0.3"), Site: "dc1", Rank: "ready", Priority: 100, Designated: true},
			},
		}},
		Warnings: api.List[string]{"tenants[0].segments[0].dhcp_relay: not acted on yet"},
	}, d.Failure
}

// Shadow implements api.Observer.
func (d *Daemon) Shadow(_ context.Context, group int) (api.ShadowReport, error) {
	a := func(n byte) netip.Addr { return netip.AddrFrom4([4]byte{10, 1, 0, n}) }
	return api.ShadowReport{
		Seconds: 3700, Here: 3, Seen: 4, MTU: 1450,
		Obstacles: api.List[api.ShadowHost]{
			{Address: a(7), MAC: "02:00:00:00:00:07", Tenant: "default", Port: "lan0", Packets: 90, Largest: 8900, Sends: api.List[api.ShadowSign]{{Kind: "multicast", Packets: 12}, {Kind: "too_big"}}},
			{MAC: "02:00:00:00:00:08", Tenant: "default", Port: "lan0", Packets: 2, Largest: 328, Sends: api.List[api.ShadowSign]{{Kind: "dhcp", Packets: 2}}},
		},
		Groups: api.List[api.ShadowGroup]{{Tenant: "default", Hosts: api.List[netip.Addr]{a(7), a(9)}, Packets: 80, Bytes: 9000}},
		Cut:    api.ShadowCut{Pairs: uint64(group), Bytes: 100, Obstacles: 1, Full: api.List[string]{"pairs"}},
	}, d.Failure
}

// Sites implements api.Observer.
func (d *Daemon) Sites(context.Context) (api.List[api.Site], error) {
	return api.List[api.Site]{
		{Name: "dc1", Own: true, Hosts: 1, Locators: api.List[api.SiteLocator]{{Address: netip.MustParseAddr("192.0.2.1"), Encap: "vxlan", Priority: 1, Weight: 100, State: "own"}}},
		{Name: "dc2", Locators: api.List[api.SiteLocator]{{Address: netip.MustParseAddr("192.0.2.2"), Encap: "vxlan", Priority: 1, Weight: 100, State: "up", MTU: 1950, Probe: "answers", RoundTrip: 0.00025, Packets: 10, Bytes: 1000}, {Address: netip.MustParseAddr("2001:db8:ff::2"), Encap: "vxlan", Priority: 1, Weight: 100, State: "unresolved"}}},
	}, d.Failure
}

// Sessions implements api.Observer.
func (d *Daemon) Sessions(context.Context) (api.List[api.Session], error) {
	return api.List[api.Session]{
		{
			Protocol: "bgp", Neighbor: netip.MustParseAddr("192.0.2.2"), Up: true, State: "established", AgeSeconds: 3700,
			Flaps: 1, Why: "hold-timer-expired", ASN: 65002, Families: api.List[string]{"evpn"}, Received: 12, Taken: 10,
		},
		{Protocol: "bgp", Neighbor: netip.MustParseAddr("192.0.2.3"), State: "active", ASN: 65003, Families: api.List[string]{"evpn", "ipv4"}},
		{
			Protocol: "bfd", Neighbor: netip.MustParseAddr("192.0.2.2"), Local: netip.MustParseAddr("192.0.2.1"), Up: true,
			State: "up", AgeSeconds: 60, DetectionSeconds: 0.3,
		},
	}, d.Failure
}

// Counters implements api.Observer.
func (d *Daemon) Counters(context.Context) (api.Counters, error) {
	return api.Counters{
		Reasons: api.List[api.ReasonCount]{
			{Port: "lan0", Reason: "fwd_encap", Verdict: "forwarded", Packets: 10, Bytes: 1000},
			{Port: "lan0", Reason: "drop_ttl", Verdict: "dropped"},
		},
		Locators: api.List[api.LocatorCount]{{Locator: "192.0.2.2", Packets: 10, Bytes: 1000}},
	}, d.Failure
}

// Lookup implements api.Routes.
func (d *Daemon) Lookup(_ context.Context, tenant route.TenantID, address netip.Addr) ([]api.Claim, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []api.Claim
	for bits := address.BitLen(); bits >= 0; bits-- {
		p, err := address.Prefix(bits)
		if err != nil {
			return nil, err
		}
		from, to := d.find(route.Key{Tenant: tenant, Prefix: p})
		out = append(out, d.Claims[from:to]...)
	}
	return out, d.Failure
}

// Walk implements api.Routes.
func (d *Daemon) Walk(_ context.Context, filter api.Filter, f func(*api.Claim) error) error {
	d.mu.Lock()
	claims := slices.Clone(d.Claims)
	d.mu.Unlock()
	for i := range claims {
		c := &claims[i]
		within := !filter.Within.IsValid() || filter.Within.Bits() <= c.Prefix.Bits() && filter.Within.Contains(c.Prefix.Addr())
		if filter.Tenant != 0 && filter.Tenant != c.Tenant || filter.Site != "" && filter.Site != c.Site || filter.Source != "" && filter.Source != c.Source ||
			filter.Hosts && !c.Host() || filter.Best && !c.Best || !within {
			continue
		}
		if err := f(c); err != nil {
			return err
		}
	}
	return d.Failure
}

// Inject implements api.Injector.
func (d *Daemon) Inject(_ context.Context, changes []route.Change) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.Failure != nil {
		return d.Failure
	}
	if len(changes) > 1000 && len(d.Claims) == 0 { // an import into nothing: sort once
		for i := range changes {
			d.Claims = append(d.Claims, api.Claim{Claim: changes[i].Claim, Source: api.SourceName, Best: true})
		}
		slices.SortFunc(d.Claims, func(a, b api.Claim) int { return compare(a.Key, b.Key) })
		for i := range d.Claims {
			d.tell(d.Claims[i].Key)
		}
		return nil
	}
	for i := range changes { // before any is applied
		if changes[i].Withdraw && !d.injected(changes[i].Key) {
			return &api.Error{Message: changes[i].Prefix.String() + " was not injected", Hint: "roamctl route get shows who says so", Status: 404}
		}
	}
	for i := range changes {
		if changes[i].Withdraw {
			d.remove(api.SourceName, changes[i].Key)
		} else {
			d.put(api.SourceName, changes[i].Claim)
		}
	}
	return nil
}

// Flush implements api.Injector.
func (d *Daemon) Flush(context.Context) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	before := len(d.Claims)
	gone := slices.Clone(d.Claims)
	d.Claims = slices.DeleteFunc(d.Claims, func(c api.Claim) bool { return c.Source == api.SourceName })
	for i := range gone {
		d.rank(gone[i].Key)
	}
	return before - len(d.Claims), d.Failure
}

// CheckMoves implements api.Operator: Verdicts has what it says.
func (d *Daemon) CheckMoves(moves []api.MoveCheck) (list api.List[api.MoveChecked]) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range moves {
		list = append(list, d.Verdicts[moves[i].Address])
	}
	return list
}

// Explain implements api.Operator.
func (d *Daemon) Explain(_ context.Context, request api.ExplainRequest) (api.Explanation, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.Explained = request
	return api.Explanation{
		Verdict: "forwarded", Reason: "fwd_encap", Text: "into the tunnel to 192.0.2.2",
		Steps:  api.List[api.ExplainStep]{{Step: "lookup", Found: "10.1.0.7/32 via 192.0.2.2", Why: "api wins"}},
		Input:  api.List[string]{"Ethernet", "IPv4"},
		Output: []string{"Ethernet", "IPv4", "UDP 4789", "VXLAN 7001"}, Egress: "wan0",
	}, d.Failure
}

// Traffic is what a trace tells of unless told otherwise: one packet that goes into a tunnel, and one that is dropped.
func Traffic() []api.TracedPacket {
	at := time.Date(2026, 11, 25, 12, 0, 0, 123456000, time.UTC)
	host, peer := netip.MustParseAddr("10.1.0.9"), netip.MustParseAddr("10.1.0.21")
	return []api.TracedPacket{
		{
			Time: at, Reason: "fwd_encap", Verdict: "forwarded", Tenant: "default", In: "lan0", Out: "wan0", Source: host, Destination: peer,
			Protocol: 6, SourcePort: 40000, DestinationPort: 443, To: netip.MustParseAddr("192.0.2.2"), Length: 66, LengthAfter: 116,
			Before: slices.Repeat([]byte{1}, 66), After: slices.Repeat([]byte{2}, 116),
		},
		{
			Time: at.Add(time.Millisecond), Reason: "drop_tunnel_loop", Verdict: "dropped", Tenant: "default", In: "wan0", Source: peer,
			Destination: netip.MustParseAddr("10.1.0.99"), Protocol: 1, From: netip.MustParseAddr("192.0.2.2"), Length: 1034, LengthAfter: 1034,
			Before: slices.Repeat([]byte{3}, 256), After: slices.Repeat([]byte{3}, 256),
		},
	}
}

// trace implements api.Trace: it tells what there is, and goes on until it is stopped.
type trace struct {
	d   *Daemon
	out chan api.TracedPacket
}

// Trace implements api.Tracer.
func (d *Daemon) Trace(_ context.Context, request api.TraceRequest) (api.Trace, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.Failure != nil {
		return nil, d.Failure
	}
	d.Asked = request
	packets := d.Packets
	if packets == nil {
		packets = Traffic()
	}
	t := trace{d, make(chan api.TracedPacket, len(packets))}
	for _, p := range packets {
		if request.Bytes == 0 {
			p.Before, p.After = nil, nil
		}
		t.out <- p
	}
	return t, nil
}

func (t trace) Packets() <-chan api.TracedPacket { return t.out }
func (t trace) Lost() (uint64, error)            { return t.d.Lost, nil }

func (t trace) Stop() (uint64, error) {
	close(t.out)
	if t.d.Ended != nil {
		t.d.Ended <- struct{}{}
	}
	return t.d.Lost, nil
}

// Ping implements api.Operator: 192.0.2.2 answers what fits into 1450 bytes, 192.0.2.3 never, and others are not known.
func (d *Daemon) Ping(_ context.Context, r api.PingRequest) (api.Ping, error) {
	p := api.Ping{Locator: r.Locator, Size: max(r.Size, 36)}
	switch {
	case r.Locator == netip.MustParseAddr("192.0.2.3"):
		p.Why = "it has never answered a probe"
	case r.Locator != netip.MustParseAddr("192.0.2.2"):
		return p, &api.Error{Message: r.Locator.String() + " is no locator that is known here", Hint: "roamctl site list shows them", Status: 404}
	case p.Size > 1450:
		p.Why = "more than the 1450 bytes that fit"
	default:
		p.Answered, p.Seconds = true, 0.00025
	}
	return p, d.Failure
}

// Doctor implements api.Operator.
func (d *Daemon) Doctor(context.Context) (api.List[api.Check], error) { return d.Checks, d.Failure }

// Reload implements api.Operator.
func (d *Daemon) Reload(context.Context) (api.Reloaded, error) {
	return api.Reloaded{Changes: api.List[string]{"site dc3 added"}}, d.Failure
}

// Clear implements api.Operator: 10.1.0.9 is frozen.
func (d *Daemon) Clear(key route.Key) bool {
	return key == route.KeyOf(1, netip.MustParseAddr("10.1.0.9"))
}

// Drain implements api.Operator.
func (d *Daemon) Drain(bool) {}

// TenantID implements api.Names.
func (d *Daemon) TenantID(name string) (route.TenantID, bool) {
	id, ok := map[string]route.TenantID{"": 1, "default": 1, "blue": 2}[name]
	return id, ok
}

// TenantName implements api.Names.
func (d *Daemon) TenantName(id route.TenantID) string { return []string{"", "default", "blue"}[id] }

// SiteLocators implements api.Names.
func (d *Daemon) SiteLocators(name string) (locators []route.Locator, own, ok bool) {
	switch name {
	case "dc1":
		return nil, true, true
	case "dc2":
		return []route.Locator{Locator("192.0.2.2"), Locator("2001:db8:ff::2")}, false, true
	case "dc3":
		return []route.Locator{Locator("192.0.2.3")}, false, true
	}
	return nil, false, false
}
