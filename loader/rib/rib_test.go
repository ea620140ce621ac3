package rib

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"roam/loader/route"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// handClock is a clock that moves when told to.
type handClock struct {
	mu      sync.Mutex
	now     time.Time
	waiting map[chan time.Time]time.Time
}

func newClock() *handClock {
	return &handClock{now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), waiting: make(map[chan time.Time]time.Time)}
}

func (c *handClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *handClock) After(d time.Duration) <-chan time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	ch := make(chan time.Time, 1)
	if d <= 0 {
		ch <- c.now
	} else {
		c.waiting[ch] = c.now.Add(d)
	}
	return ch
}

func (c *handClock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
	for ch, at := range c.waiting {
		if !at.After(c.now) {
			ch <- c.now
			delete(c.waiting, ch)
		}
	}
}

// mirror is a sink that holds what it was told, fails on request, and insists that decisions differ from what it
// holds.
type mirror struct {
	mu      sync.Mutex
	changed *sync.Cond
	held    map[route.Key]route.Decision
	log     []string
	fail    func(route.Decision) error
	calls   int
	synced  int
	same    bool // a decision that changes nothing is all right: synchronisations and retries
	extra   []string
}

func newMirror() *mirror {
	m := &mirror{held: make(map[route.Key]route.Decision)}
	m.changed = sync.NewCond(&m.mu)
	return m
}

func (*mirror) Name() string { return "mirror" }

func (m *mirror) Apply(_ context.Context, decisions []route.Decision) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	defer m.changed.Broadcast()
	m.calls++
	for _, d := range decisions {
		if m.fail != nil {
			if err := m.fail(d); err != nil {
				return err
			}
		}
		before, had := m.held[d.Key]
		if !m.same && (d.Gone && !had || had && reflect.DeepEqual(before, d)) {
			m.extra = append(m.extra, spell(d))
		}
		m.log = append(m.log, spell(d))
		if d.Gone {
			delete(m.held, d.Key)
		} else {
			m.held[d.Key] = d
		}
	}
	return nil
}

func (m *mirror) AllSynced(context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	defer m.changed.Broadcast()
	m.synced++
	m.log = append(m.log, "all synced")
	return nil
}

// spell writes a decision as "10.1.0.7/32 via 192.0.2.2 (api) held".
func spell(d route.Decision) string {
	b := d.Prefix.String()
	switch {
	case d.Gone:
		return b + " gone"
	case d.Via != nil:
		b += " via"
		for _, l := range d.Via.Locators {
			b += " " + l.Address.String()
		}
	case d.Local != nil:
		b += fmt.Sprintf(" local %d.%d", d.Local.Link, d.Local.VLAN)
	default:
		b += " reject"
	}
	if !d.MAC.IsZero() {
		b += " " + d.MAC.String()
	}
	b += " (" + d.Source + ")"
	if d.Held {
		b += " held"
	}
	if d.Moved {
		b += " moved"
	}
	return b
}

// bench is a RIB that runs, with a hand-moved clock and a mirror.
type bench struct {
	*testing.T
	*RIB
	clock  *handClock
	mirror *mirror
	ctx    context.Context
}

func newBench(t *testing.T, o Options) *bench {
	b := &bench{T: t, clock: newClock(), mirror: newMirror(), ctx: context.Background()}
	o.Clock, o.Log = b.clock, slog.New(slog.NewTextHandler(io.Discard, nil))
	b.RIB = New(o)
	b.AddSink(b.mirror)
	return b
}

func (b *bench) start() {
	ctx, cancel := context.WithCancel(b.ctx)
	done := make(chan error)
	go func() { done <- b.RIB.Run(ctx) }()
	if err := b.do(ctx, func() {}); err != nil { // it runs: the clock may be moved
		b.Fatal(err)
	}
	b.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			b.Error(err)
		}
		if len(b.mirror.extra) > 0 {
			b.Errorf("decisions that changed nothing: %q", b.mirror.extra)
		}
	})
}

func (b *bench) report(to route.Reporter, changes ...route.Change) {
	b.Helper()
	if err := to.Report(b.ctx, changes); err != nil {
		b.Fatal(err)
	}
}

// told waits until what came of the reports has been told.
func (b *bench) told() { _ = b.do(b.ctx, func() {}) }

// sync makes a full report.
func (b *bench) sync(to route.Reporter, changes ...route.Change) {
	b.Helper()
	if err := to.Begin(b.ctx); err != nil {
		b.Fatal(err)
	}
	b.report(to, changes...)
	if err := to.Synced(b.ctx); err != nil {
		b.Fatal(err)
	}
}

// pass lets time go by, and what is due happen.
func (b *bench) pass(d time.Duration) {
	b.Helper()
	b.clock.advance(d)
	if err := b.do(b.ctx, func() { b.tick(b.clock.Now()) }); err != nil {
		b.Fatal(err)
	}
}

// heard checks what the mirror was told since the last time.
func (b *bench) heard(want ...string) {
	b.Helper()
	b.mirror.mu.Lock()
	defer b.mirror.mu.Unlock()
	if !slices.Equal(b.mirror.log, want) {
		b.Errorf("decisions\n\t%s\nwant\n\t%s", strings.Join(b.mirror.log, "\n\t"), strings.Join(want, "\n\t"))
	}
	b.mirror.log = nil
}

const addr7 = "10.1.0.7/32"

func key7(s string) route.Key { return route.Key{Tenant: 1, Prefix: netip.MustParsePrefix(s)} }

// claims: via some locators, on a port, rejected, withdrawn.
func via(prefix string, locators ...string) route.Change {
	v := &route.Via{}
	for _, l := range locators {
		v.Locators = append(v.Locators, route.Locator{Address: netip.MustParseAddr(l), Priority: 1, Weight: 100})
	}
	site := "dc" + locators[0][strings.LastIndexAny(locators[0], ".:")+1:] // 192.0.2.2 is dc2's
	return route.Change{Claim: route.Claim{Key: key7(prefix), Via: v, Site: site}}
}

func local(prefix string, link int) route.Change {
	return route.Change{Claim: route.Claim{Key: key7(prefix), Local: &route.Local{Link: link}, Site: "dc1"}}
}

func reject(prefix string) route.Change {
	return route.Change{Claim: route.Claim{Key: key7(prefix), Reject: true}}
}

func withdraw(prefix string) route.Change {
	return route.Change{Claim: route.Claim{Key: key7(prefix)}, Withdraw: true}
}

func (b *bench) four() (api, file, fib, host route.Reporter) {
	return b.Reporter("api", 40), b.Reporter("file", 30), b.Reporter("fib", 20), b.Reporter("host", 10)
}

func TestWhoWins(t *testing.T) {
	with := func(c route.Change, sequence uint32, pinned bool) route.Change {
		c.Sequence, c.Pinned = sequence, pinned
		return c
	}
	type claims struct{ api, file, fib, host, twin *route.Change }
	c := func(c route.Change) *route.Change { return &c }
	tests := map[string]struct {
		claims
		winner, why string
	}{
		"alone":           {claims{host: c(local(addr7, 3))}, "host", "host is the only source that claims it"},
		"preference":      {claims{api: c(via(addr7, "192.0.2.9")), file: c(via(addr7, "192.0.2.2"))}, "api", "api wins: it is preferred over file at equal sequence 0"},
		"preference, all": {claims{file: c(via(addr7, "192.0.2.9")), fib: c(via(addr7, "192.0.2.2")), host: c(local(addr7, 3))}, "file", "file wins: it is preferred over fib at equal sequence 0"},
		"sequence":        {claims{api: c(with(via(addr7, "192.0.2.9"), 4, false)), host: c(with(local(addr7, 3), 5, false))}, "host", "host wins: its sequence 5 is higher than 4 of api"},
		"sequence, large": {claims{api: c(via(addr7, "192.0.2.9")), host: c(with(local(addr7, 3), 1<<32-1, false))}, "host", "host wins: its sequence 4294967295 is higher than 0 of api"},
		"pinned":          {claims{api: c(with(via(addr7, "192.0.2.9"), 9, false)), fib: c(with(reject(addr7), 0, true))}, "fib", "fib wins: its claim is pinned, that of api is not"},
		"pinned, both":    {claims{api: c(with(via(addr7, "192.0.2.9"), 1, true)), fib: c(with(reject(addr7), 2, true))}, "fib", "fib wins: its sequence 2 is higher than 1 of api"},
		"locator":         {claims{fib: c(via(addr7, "192.0.2.9", "192.0.2.2")), twin: c(via(addr7, "192.0.2.3"))}, "fib", "fib wins: its locator is lower than that of bfi, all else being equal"},
		"locator, other":  {claims{fib: c(via(addr7, "192.0.2.9", "192.0.2.5")), twin: c(via(addr7, "192.0.2.3"))}, "bfi", "bfi wins: its locator is lower than that of fib, all else being equal"},
		"locator, ours":   {claims{fib: c(local(addr7, 3)), twin: c(via(addr7, "192.0.2.3"))}, "fib", "fib wins: its locator is lower than that of bfi, all else being equal"},
		"name":            {claims{fib: c(via(addr7, "192.0.2.3")), twin: c(via(addr7, "192.0.2.3"))}, "bfi", "bfi wins: its name sorts before fib, all else being equal"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			// In every order of arrival.
			sources := []int{0, 1, 2, 3, 4}
			for range 12 {
				b := newBench(t, Options{Locator: netip.MustParseAddr("192.0.2.1")})
				api, file, fib, host := b.four()
				to := []route.Reporter{api, file, fib, host, b.Reporter("bfi", 20)}
				b.start()
				for _, i := range sources {
					if change := []*route.Change{test.api, test.file, test.fib, test.host, test.twin}[i]; change != nil {
						b.report(to[i], *change)
					}
				}
				entries, err := b.Get(b.ctx, 1, netip.MustParseAddr("10.1.0.7"))
				if err != nil || len(entries) != 1 {
					t.Fatalf("%d entries, %v", len(entries), err)
				}
				e := entries[0]
				if e.Source != test.winner || e.Claims[0].Source != test.winner || e.Why() != test.why {
					t.Errorf("order %v: %s, %s", sources, e.Source, e.Why())
				}
				sources = append(sources[1:], sources[0])
				sources[1], sources[3] = sources[3], sources[1]
			}
		})
	}
}

// Sinks hear real differences, in order, and nothing else.
func TestDecisions(t *testing.T) {
	b := newBench(t, Options{Hold: func(route.Key) time.Duration { return 0 }})
	api, file, _, host := b.four()
	b.start()
	b.report(file, via(addr7, "192.0.2.2"))
	b.heard("10.1.0.7/32 via 192.0.2.2 (file)")
	b.report(file, via(addr7, "192.0.2.2"), via(addr7, "192.0.2.2"))
	b.report(host, local(addr7, 3))
	b.heard()
	b.report(api, reject(addr7), via("2001:db8::/32", "2001:db8:ff::2"))
	b.heard("10.1.0.7/32 reject (api)", "2001:db8::/32 via 2001:db8:ff::2 (api)")
	b.report(file, via(addr7, "192.0.2.3", "192.0.2.2")) // not the winner
	b.report(api, withdraw("10.1.0.8/32"))               // not known
	b.heard()
	b.report(api, withdraw(addr7))
	b.heard("10.1.0.7/32 via 192.0.2.3 192.0.2.2 (file)")
	b.report(file, withdraw(addr7))
	b.heard("10.1.0.7/32 local 3.0 (host)")
	b.report(host, withdraw(addr7), local("10.1.0.9/32", 3), withdraw("10.1.0.9/32"))
	b.heard("10.1.0.7/32 gone")
	// Withdrawn and claimed again in one report: never gone.
	b.report(host, local(addr7, 3))
	b.report(host, withdraw(addr7), local(addr7, 3))
	b.report(host, withdraw(addr7), local(addr7, 4))
	b.heard("10.1.0.7/32 local 3.0 (host)", "10.1.0.7/32 local 4.0 (host)")
	// Every part of a claim is a difference.
	c := local(addr7, 4)
	for _, change := range []func(){
		func() { c.MAC = route.MAC{2, 0, 0, 0, 0, 7} },
		func() { c.Sequence = 7 },
		func() { c.Pinned = true },
		func() { c.Site = "dc9" },
		func() { c.Local = &route.Local{Link: 4, VLAN: 5} },
	} {
		change()
		b.report(host, c)
		b.report(host, c)
		if d := b.mirror.held[c.Key]; !reflect.DeepEqual(d.Claim, c.Claim) {
			t.Errorf("decided %+v, claimed %+v", d.Claim, c.Claim)
		}
	}
	if len(b.mirror.log) != 5 {
		t.Errorf("%d decisions for 5 changes: %q", len(b.mirror.log), b.mirror.log)
	}
}

// A winner that says "here" and no more is completed by the claim that knows the port.
func TestCompletion(t *testing.T) {
	b := newBench(t, Options{})
	api, _, fib, host := b.four()
	b.start()
	b.sync(api)
	here := local(addr7, 0)
	b.report(api, here)
	b.heard("10.1.0.7/32 local 0.0 (api)")
	found := local(addr7, 3)
	found.MAC = route.MAC{2, 0, 0, 0, 0, 7}
	b.report(host, found)
	b.heard("10.1.0.7/32 local 3.0 02:00:00:00:00:07 (api)")
	b.report(fib, via(addr7, "192.0.2.2"))
	b.heard()
	b.report(host, withdraw(addr7))
	b.heard("10.1.0.7/32 local 0.0 (api)")
	b.report(host, found)
	b.report(api, withdraw(addr7))
	b.heard("10.1.0.7/32 local 3.0 02:00:00:00:00:07 (api)", "10.1.0.7/32 via 192.0.2.2 (fib) held")
}

func TestFullReport(t *testing.T) {
	b := newBench(t, Options{})
	api, file, _, _ := b.four()
	b.start()
	b.sync(api, via("10.1.0.1/32", "192.0.2.2"), via("10.1.0.2/32", "192.0.2.2"))
	b.sync(file, via("10.1.0.2/32", "192.0.2.3"), via("10.1.0.3/32", "192.0.2.3"))
	b.mirror.log = nil
	b.sync(api, via("10.1.0.1/32", "192.0.2.2"))
	b.heard("10.1.0.2/32 via 192.0.2.3 (file) moved")
	b.sync(api)
	b.heard("10.1.0.1/32 gone")
	if err := api.Synced(b.ctx); err != nil { // without Begin: nothing is stale
		t.Fatal(err)
	}
	// One that was begun and abandoned does not count.
	b.sync(api, via("10.1.0.1/32", "192.0.2.2"), via("10.1.0.4/32", "192.0.2.2"), via("10.1.0.5/32", "192.0.2.2"))
	for range 2 {
		if err := api.Begin(b.ctx); err != nil {
			t.Fatal(err)
		}
		b.report(api, via("10.1.0.1/32", "192.0.2.2"), via("10.1.0.4/32", "192.0.2.2"))
	}
	b.mirror.log = nil
	b.sync(api, via("10.1.0.1/32", "192.0.2.2"))
	slices.Sort(b.mirror.log)
	b.heard("10.1.0.4/32 gone", "10.1.0.5/32 gone")
}

func TestHold(t *testing.T) {
	type step struct {
		do   func(b *bench, api, host route.Reporter)
		want []string
	}
	apiVia := func(locator string) func(*bench, route.Reporter, route.Reporter) {
		return func(b *bench, api, _ route.Reporter) { b.report(api, via(addr7, locator)) }
	}
	apiGone := func(b *bench, api, _ route.Reporter) { b.report(api, withdraw(addr7)) }
	hostHere := func(b *bench, _, host route.Reporter) { b.report(host, local(addr7, 3)) }
	hostGone := func(b *bench, _, host route.Reporter) { b.report(host, withdraw(addr7)) }
	pass := func(d time.Duration) func(*bench, route.Reporter, route.Reporter) {
		return func(b *bench, _, _ route.Reporter) { b.pass(d) }
	}
	const (
		here = "10.1.0.7/32 local 3.0 (host)"
		away = "10.1.0.7/32 via 192.0.2.2 (api)"
		gone = "10.1.0.7/32 gone"
	)
	tests := map[string][]step{
		"moves away": {
			{hostHere, []string{here}},
			{apiVia("192.0.2.2"), []string{away + " held"}},
			{pass(29 * time.Second), nil},
			{pass(time.Second), []string{away}},
			{pass(time.Hour), nil},
		},
		"gone for a moment": {
			{hostHere, []string{here}},
			{hostGone, []string{gone}},
			{pass(10 * time.Second), nil},
			{apiVia("192.0.2.2"), []string{away + " held"}},
			{pass(29 * time.Second), nil},
			{pass(time.Second), []string{away}},
		},
		"gone for long": {
			{hostHere, []string{here}},
			{hostGone, []string{gone}},
			{pass(30 * time.Second), nil},
			{apiVia("192.0.2.2"), []string{away + " moved"}},
			{pass(30 * time.Second), []string{away}},
		},
		"gone for hours": {
			{hostHere, []string{here}},
			{hostGone, []string{gone}},
			{pass(time.Hour), nil},
			{apiVia("192.0.2.2"), []string{away}},
		},
		"moves on while held": {
			{hostHere, []string{here}},
			{apiVia("192.0.2.2"), []string{away + " held"}},
			{pass(20 * time.Second), nil},
			{apiVia("192.0.2.3"), []string{"10.1.0.7/32 via 192.0.2.3 (api) held"}},
			{pass(29 * time.Second), nil},
			{pass(time.Second), []string{"10.1.0.7/32 via 192.0.2.3 (api)"}},
		},
		"comes back while held": {
			{hostHere, []string{here}},
			{apiVia("192.0.2.2"), []string{away + " held"}},
			{apiGone, []string{here + " moved"}},
			{pass(time.Minute), []string{here}},
			{hostGone, []string{gone}},
			{pass(time.Hour), nil},
			{apiVia("192.0.2.2"), []string{away}},
		},
		"leaves again: the hold starts anew": {
			{hostHere, []string{here}},
			{apiVia("192.0.2.2"), []string{away + " held"}},
			{pass(20 * time.Second), nil},
			{apiGone, []string{here + " moved"}},
			{apiVia("192.0.2.2"), []string{away + " held"}},
			{pass(20 * time.Second), nil},
			{pass(10 * time.Second), []string{away}},
		},
		"gone while held": {
			{hostHere, []string{here}},
			{apiVia("192.0.2.2"), []string{away + " held"}},
			{hostGone, nil},
			{apiGone, []string{gone}},
			{pass(time.Minute), nil},
		},
		"never was here": {
			{apiVia("192.0.2.2"), []string{away}},
			{hostHere, nil},
			{apiVia("192.0.2.3"), []string{"10.1.0.7/32 via 192.0.2.3 (api) moved"}},
			{pass(29 * time.Second), nil},
			{pass(time.Second), []string{"10.1.0.7/32 via 192.0.2.3 (api)"}},
		},
	}
	for name, steps := range tests {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, Options{})
			api, host := b.Reporter("api", 40), b.Reporter("host", 10)
			b.start()
			b.sync(api)
			b.sync(host)
			b.heard("all synced")
			for i, s := range steps {
				t.Logf("step %d", i)
				s.do(b, api, host)
				b.heard(s.want...)
			}
		})
	}
}

// What a first report brings is not a move, whoever reports first.
func TestRestartHoldsNobody(t *testing.T) {
	b := newBench(t, Options{})
	api, _, _, host := b.four()
	b.start()
	b.sync(host, local(addr7, 3))
	b.sync(api, via(addr7, "192.0.2.2"))
	b.heard("10.1.0.7/32 local 3.0 (host)", "10.1.0.7/32 via 192.0.2.2 (api)")
}

func TestHoldTime(t *testing.T) {
	b := newBench(t, Options{Hold: func(k route.Key) time.Duration {
		if k == key7("10.1.0.8/32") {
			return 0
		}
		return 5 * time.Second
	}})
	api, _, _, host := b.four()
	b.start()
	b.sync(api)
	b.sync(host, local(addr7, 3), local("10.1.0.8/32", 3), local("10.2.0.0/24", 3))
	b.mirror.log = nil
	b.report(api, via(addr7, "192.0.2.2"), via("10.1.0.8/32", "192.0.2.2"), via("10.2.0.0/24", "192.0.2.2"))
	b.heard("10.1.0.7/32 via 192.0.2.2 (api) held", "10.1.0.8/32 via 192.0.2.2 (api)", "10.2.0.0/24 via 192.0.2.2 (api)")
	_, hosts, err := b.Counts(b.ctx)
	if want := []Hosts{{Tenant: 1, Away: 2, Held: 1, Moves: 2}}; err != nil || !slices.Equal(hosts, want) {
		t.Errorf("%+v %v", hosts, err)
	}
	// The RIB's own timer ends it.
	b.clock.advance(5 * time.Second)
	b.await("the hold to end", func() bool { return !b.mirror.held[key7(addr7)].Held })
	b.heard("10.1.0.7/32 via 192.0.2.2 (api)")
}

// await waits for the mirror.
func (b *bench) await(what string, cond func() bool) {
	b.Helper()
	b.awaitOn(b.mirror, what, cond)
}

func (b *bench) awaitOn(m *mirror, what string, cond func() bool) {
	b.Helper()
	late := false
	timer := time.AfterFunc(10*time.Second, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		late = true
		m.changed.Broadcast()
	})
	defer timer.Stop()
	m.mu.Lock()
	defer m.mu.Unlock()
	for !cond() {
		if late {
			b.Fatalf("waited in vain for %s", what)
		}
		m.changed.Wait()
	}
}

func TestAllSynced(t *testing.T) {
	closed := func(b *bench) bool {
		select {
		case <-b.AllSynced():
			return true
		default:
			return false
		}
	}
	t.Run("in order with the decisions", func(t *testing.T) {
		b := newBench(t, Options{})
		api, host := b.Reporter("api", 40), b.Reporter("host", 10)
		b.start()
		b.sync(api, via(addr7, "192.0.2.2"))
		b.report(host, local("10.1.0.8/32", 3))
		if closed(b) {
			t.Error("synced before host was")
		}
		b.sync(host, local("10.1.0.9/32", 3))
		if !closed(b) {
			t.Error("not synced")
		}
		b.heard("10.1.0.7/32 via 192.0.2.2 (api)", "10.1.0.8/32 local 3.0 (host)", "10.1.0.9/32 local 3.0 (host)",
			"10.1.0.8/32 gone", "all synced")
		b.sync(host)
		b.heard("10.1.0.9/32 gone")
	})
	t.Run("without sources", func(t *testing.T) {
		b := newBench(t, Options{})
		b.start()
		<-b.AllSynced()
		b.heard("all synced")
		b.Reporter("late", 1) // is not waited for
	})
	t.Run("a source that stays silent", func(t *testing.T) {
		b := newBench(t, Options{SyncTimeout: time.Minute})
		b.Reporter("bgp", 1)
		b.start()
		b.pass(time.Minute - 1)
		if closed(b) {
			t.Error("gave up too early")
		}
		b.clock.advance(1)
		<-b.AllSynced()
		b.heard("all synced")
	})
}

// speaker is a sink that waits for the other sources.
type speaker struct {
	*mirror
	name string
}

func (s *speaker) Name() string { return s.name }

func (s *speaker) OthersSynced(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.changed.Broadcast()
	s.log = append(s.log, "others synced")
	return nil
}

// A speaker begins when everybody else has reported, itself excepted, and has been told all of it by then.
func TestOthersSynced(t *testing.T) {
	b := newBench(t, Options{SyncTimeout: time.Minute})
	sp := &speaker{newMirror(), "bgp"}
	b.AddSink(sp)
	host, api, bgp := b.Reporter("host", 10), b.Reporter("api", 40), b.Reporter("bgp", 10)
	b.start()
	b.sync(bgp)
	b.sync(host, local(addr7, 3))
	b.sync(api, local("10.1.0.8/32", 4))
	b.sync(api, local("10.1.0.8/32", 4)) // only once
	heard := func(want ...string) {
		t.Helper()
		sp.mu.Lock()
		defer sp.mu.Unlock()
		if !slices.Equal(sp.log, want) {
			t.Errorf("heard %q, want %q", sp.log, want)
		}
	}
	heard("10.1.0.7/32 local 3.0 (host)", "10.1.0.8/32 local 4.0 (api)", "others synced", "all synced")

	b = newBench(t, Options{SyncTimeout: time.Minute})
	sp = &speaker{newMirror(), "bgp"}
	b.AddSink(sp)
	host = b.Reporter("host", 10)
	b.Reporter("bgp", 10)
	b.start()
	b.sync(host, local(addr7, 3))
	heard("10.1.0.7/32 local 3.0 (host)", "others synced") // although bgp itself has not

	b = newBench(t, Options{SyncTimeout: time.Minute})
	sp = &speaker{newMirror(), "bgp"}
	b.AddSink(sp)
	b.Reporter("fib", 10) // stays silent
	b.start()
	heard()
	b.pass(time.Minute)
	heard("all synced", "others synced")
}

// Between neighbours and routing protocol, which have one preference, the sequence decides, then the lowest locator:
// so every gateway comes to the same answer.
func TestSequenceDecides(t *testing.T) {
	for _, own := range []string{"192.0.2.1", "192.0.2.3"} {
		b := newBench(t, Options{Locator: netip.MustParseAddr(own)})
		host, bgp, api := b.Reporter("host", 10), b.Reporter("bgp", 10), b.Reporter("api", 40)
		b.start()
		numbered := func(c route.Change, sequence uint32) route.Change {
			c.Sequence = sequence
			return c
		}
		b.report(host, local(addr7, 3))
		b.report(bgp, numbered(via(addr7, "192.0.2.2"), 1))
		b.report(host, numbered(local(addr7, 3), 2))
		b.report(api, via(addr7, "192.0.2.9")) // what is typed counts as sequence 0
		b.heard("10.1.0.7/32 local 3.0 (host)", "10.1.0.7/32 via 192.0.2.2 (bgp)", "10.1.0.7/32 local 3.0 (host)")
		b.report(bgp, numbered(via(addr7, "192.0.2.2"), 2))
		if own == "192.0.2.1" {
			b.heard()
		} else {
			b.heard("10.1.0.7/32 via 192.0.2.2 (bgp)")
		}
		pinned := numbered(via(addr7, "192.0.2.8"), 0)
		pinned.Pinned = true
		b.report(bgp, pinned)
		b.mirror.mu.Lock()
		if d := b.mirror.held[key7(addr7)]; d.Via == nil || !d.Pinned {
			t.Errorf("pinned elsewhere, and %s", spell(d))
		}
		b.mirror.mu.Unlock()
	}
}

// Another gateway of our site is no other place: what is here stays here, whatever its locator.
func TestHome(t *testing.T) {
	b := newBench(t, Options{Locator: netip.MustParseAddr("192.0.2.9"), Site: "dc2"})
	host, bgp := b.Reporter("host", 10), b.Reporter("bgp", 10)
	b.start()
	b.report(bgp, via(addr7, "192.0.2.2")) // of dc2
	b.report(host, local(addr7, 3))
	b.heard("10.1.0.7/32 via 192.0.2.2 (bgp)", "10.1.0.7/32 local 3.0 (host)")
	entries, err := b.Get(b.ctx, 1, netip.MustParseAddr("10.1.0.7"))
	if err != nil || len(entries) != 1 || !strings.Contains(entries[0].Why(), "another gateway of this site") {
		t.Errorf("%v %v", entries, err)
	}
	elsewhere := via(addr7, "192.0.2.2")
	elsewhere.Site = "dc3"
	b.report(bgp, elsewhere)
	b.heard("10.1.0.7/32 via 192.0.2.2 (bgp)")
}

// A late sink is told everything, while changes go on.
func TestLateSink(t *testing.T) {
	b := newBench(t, Options{})
	api, _, _, _ := b.four()
	b.start()
	changes := manyHosts(3*window + 17)
	b.report(api, changes...)
	late := newMirror()
	late.same = true // changes reach it before the window they lie in
	b.AddSink(late)
	b.report(api, route.Change{Claim: changes[0].Claim, Withdraw: true})
	b.awaitOn(late, "everything", func() bool { return len(late.held) == len(changes)-1 })
	if !reflect.DeepEqual(late.held, b.mirror.held) {
		t.Error("the late sink holds something else")
	}
}

// A sink that asks is told everything again, and nobody else is.
func TestRetell(t *testing.T) {
	b := newBench(t, Options{})
	api, _, _, _ := b.four()
	chooser := newMirror()
	b.AddSink(chooser)
	b.Retell(chooser) // nothing is known yet
	b.start()
	changes := manyHosts(2*window + 17)
	b.report(api, changes...)
	chooser.mu.Lock()
	clear(chooser.held)
	chooser.mu.Unlock()
	b.Retell(chooser)
	b.awaitOn(chooser, "everything", func() bool { return len(chooser.held) == len(changes) })
	if len(chooser.extra) > 0 || chooser.synced > 1 {
		t.Errorf("told more than once: %q, synced %d times", chooser.extra, chooser.synced)
	}
}

// A sink that fails catches up: with what was claimed, and with what has gone.
func TestSinkBehind(t *testing.T) {
	b := newBench(t, Options{})
	api := b.Reporter("api", 40)
	b.start()
	b.mirror.same = true
	b.sync(api, via("10.1.0.1/32", "192.0.2.2"), via("10.1.0.2/32", "192.0.2.2"), via("10.1.0.3/32", "192.0.2.2"))
	status := func() SinkStatus {
		t.Helper()
		s, err := b.Sinks(b.ctx)
		if err != nil {
			t.Fatal(err)
		}
		return s[0]
	}
	full := errors.New("10.1.0.2/32: the table is full")
	fail := func(on bool) {
		b.mirror.mu.Lock()
		defer b.mirror.mu.Unlock()
		b.mirror.fail = func(d route.Decision) error {
			if on && d.Prefix.String() == "10.1.0.2/32" {
				return full
			}
			return nil
		}
	}
	fail(true)
	b.report(api, withdraw("10.1.0.2/32"), via("10.1.0.1/32", "192.0.2.9"))
	if s := status(); s.Behind != 2 || !errors.Is(s.Err, full) {
		t.Errorf("%+v", s)
	}
	b.report(api, withdraw("10.1.0.1/32"), via("10.1.0.4/32", "192.0.2.9"))
	if s := status(); s.Behind != 1 {
		t.Errorf("%+v", s)
	}
	// The first retry fails, too; the second is later.
	calls := func() int {
		b.mirror.mu.Lock()
		defer b.mirror.mu.Unlock()
		return b.mirror.calls
	}
	n := calls()
	b.clock.advance(retryFirst)
	b.await("a retry", func() bool { return b.mirror.calls == n+1 })
	b.pass(retryFirst)
	if s := status(); s.Behind != 1 || calls() != n+1 {
		t.Errorf("%+v after %d calls", s, calls()-n)
	}
	fail(false)
	b.clock.advance(retryFirst)
	b.await("10.1.0.2 to be gone", func() bool { _, ok := b.mirror.held[key7("10.1.0.2/32")]; return !ok })
	if s := status(); s.Behind != 0 || s.Err != nil {
		t.Errorf("%+v", s)
	}
	if len(b.mirror.held) != 2 {
		t.Errorf("holds %v", b.mirror.held)
	}
}

func TestBadReports(t *testing.T) {
	change := func(f func(*route.Change)) route.Change {
		c := via(addr7, "192.0.2.2")
		f(&c)
		return c
	}
	locator := func(f func(*route.Locator)) route.Change {
		return change(func(c *route.Change) { f(&c.Via.Locators[0]) })
	}
	tests := map[string]route.Change{
		"tenant 0 is outside 1..4000":    change(func(c *route.Change) { c.Tenant = 0 }),
		"tenant 4001 is outside 1..4000": change(func(c *route.Change) { c.Tenant = 4001 }),
		"no valid prefix":                change(func(c *route.Change) { c.Prefix = netip.Prefix{} }),
		"10.1.0.7/24 has bits set to the right of its length: write 10.1.0.0/24": change(func(c *route.Change) {
			c.Prefix = netip.MustParsePrefix("10.1.0.7/24")
		}),
		"::ffff:10.1.0.7/128 is an IPv4-mapped IPv6 prefix: write it as IPv4": change(func(c *route.Change) {
			c.Prefix = netip.MustParsePrefix("::ffff:10.1.0.7/128")
		}),
		"says neither via, local nor reject: say where packets go": change(func(c *route.Change) { c.Via = nil }),
		"says more than one of via, local and reject: say one":     change(func(c *route.Change) { c.Reject = true }),
		"01:00:5e:00:00:01 is a group address, no host's MAC":      change(func(c *route.Change) { c.MAC = route.MAC{1, 0, 0x5e, 0, 0, 1} }),
		"interface index -1 is negative":                           change(func(c *route.Change) { c.Via, c.Local = nil, &route.Local{Link: -1} }),
		"VLAN 4095 is outside 0..4094":                             change(func(c *route.Change) { c.Via, c.Local = nil, &route.Local{Link: 1, VLAN: 4095} }),
		"has 0 locators: name 1 to 64":                             change(func(c *route.Change) { c.Via = &route.Via{} }),
		"has 65 locators: name 1 to 64":                            change(func(c *route.Change) { c.Via = &route.Via{Locators: make([]route.Locator, 65)} }),
		"locator 0 has no address":                                 locator(func(l *route.Locator) { l.Address = netip.Addr{} }),
		"locator 224.0.0.1 is no address a tunnel can end at":      locator(func(l *route.Locator) { l.Address = netip.MustParseAddr("224.0.0.1") }),
		"locator 127.0.0.1 is no address a tunnel can end at":      locator(func(l *route.Locator) { l.Address = netip.MustParseAddr("127.0.0.1") }),
		"locator 0.0.0.0 is no address a tunnel can end at":        locator(func(l *route.Locator) { l.Address = netip.MustParseAddr("0.0.0.0") }),
		"locator fe80::1 is no address a tunnel can end at":        locator(func(l *route.Locator) { l.Address = netip.MustParseAddr("fe80::1") }),
		"locator 2001:db8::1%eth0 has a zone: leave it out":        locator(func(l *route.Locator) { l.Address = netip.MustParseAddr("2001:db8::1%eth0") }),
		"locator 192.0.2.2: unknown encapsulation encap(99): use one of vxlan, vxlan-gpe, geneve, gre, ipip, gue, lisp, geneve-l2, gre-nokey": locator(func(l *route.Locator) {
			l.Encap = 99
		}),
		"locator ::ffff:192.0.2.2 is an IPv4-mapped IPv6 address: write it as IPv4": locator(func(l *route.Locator) {
			l.Address = netip.MustParseAddr("::ffff:192.0.2.2")
		}),
		"locator 192.0.2.2: router MAC 03:00:00:00:00:00 is a group address": locator(func(l *route.Locator) {
			l.RouterMAC = route.MAC{3}
		}),
		"locator 192.0.2.2 is named twice": via(addr7, "192.0.2.2", "192.0.2.3", "192.0.2.2"),
	}
	b := newBench(t, Options{})
	api := b.Reporter("api", 40)
	b.start()
	for want, c := range tests {
		err := api.Report(b.ctx, []route.Change{via("10.1.0.1/32", "192.0.2.2"), c, via("10.1.0.2/32", "192.0.2.2")})
		if want = fmt.Sprintf("change 1 (%s): %s", c.Key, want); err == nil || err.Error() != want {
			t.Errorf("%v\nwant %s", err, want)
		}
	}
	b.heard() // nothing of it was applied
}

func TestGet(t *testing.T) {
	b := newBench(t, Options{})
	api, file, _, _ := b.four()
	b.start()
	b.report(api, via(addr7, "192.0.2.2"), via("0.0.0.0/0", "192.0.2.3"), via("10.1.0.0/24", "192.0.2.4"),
		via("::/0", "192.0.2.5"), via("2001:db8::/32", "192.0.2.6"), via("2001:db8::7/128", "192.0.2.7"),
		via("0.0.0.0/32", "192.0.2.8"))
	b.clock.advance(90 * time.Second)
	b.report(file, via(addr7, "192.0.2.9"))
	b.report(api, via(addr7, "192.0.2.2")) // says nothing new
	b.clock.advance(10 * time.Second)
	for addr, want := range map[string]string{
		"10.1.0.7":     "10.1.0.7/32 10.1.0.0/24 0.0.0.0/0",
		"10.1.0.8":     "10.1.0.0/24 0.0.0.0/0",
		"10.2.0.8":     "0.0.0.0/0",
		"0.0.0.0":      "0.0.0.0/32 0.0.0.0/0",
		"2001:db8::7":  "2001:db8::7/128 2001:db8::/32 ::/0",
		"2001:db9::7":  "::/0",
		"::":           "::/0",
		"::ffff:0:0:7": "::/0",
	} {
		entries, err := b.Get(b.ctx, 1, netip.MustParseAddr(addr))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range entries {
			got = append(got, e.Prefix.String())
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %s, want %s", addr, got, want)
		}
	}
	if entries, err := b.Get(b.ctx, 2, netip.MustParseAddr("10.1.0.7")); err != nil || len(entries) != 0 {
		t.Errorf("another tenant's: %v %v", entries, err)
	}
	if _, err := b.Get(b.ctx, 1, netip.Addr{}); err == nil {
		t.Error("no address, no error")
	}
	entries, err := b.Get(b.ctx, 1, netip.MustParseAddr("::ffff:10.1.0.7"))
	if err != nil {
		t.Fatal(err)
	}
	claims := entries[0].Claims
	if len(claims) != 2 || claims[0].Source != "api" || claims[0].Age != 100*time.Second || claims[0].Preference != 40 ||
		claims[1].Source != "file" || claims[1].Age != 10*time.Second || claims[1].Site != "dc9" ||
		claims[1].Via.Locators[0].Address != netip.MustParseAddr("192.0.2.9") {
		t.Errorf("%+v", claims)
	}
}

func TestWalk(t *testing.T) {
	b := newBench(t, Options{})
	api, file, _, _ := b.four()
	b.start()
	other := via("10.1.0.1/32", "192.0.2.2")
	other.Tenant = 2
	b.report(api, via("10.1.0.9/32", "192.0.2.2"), other, via("2001:db8::1/128", "192.0.2.2"), via("10.1.0.0/24", "192.0.2.2"),
		via("10.1.0.0/32", "192.0.2.2"))
	b.report(file, via("10.1.0.9/32", "192.0.2.2"), via("10.0.0.0/8", "192.0.2.2"))
	tests := []struct {
		filter Filter
		want   string
	}{
		{Filter{}, "1/10.0.0.0/8 1/10.1.0.0/24 1/10.1.0.0/32 1/10.1.0.9/32 1/2001:db8::1/128 2/10.1.0.1/32"},
		{Filter{Tenant: 2}, "2/10.1.0.1/32"},
		{Filter{Source: "file"}, "1/10.0.0.0/8 1/10.1.0.9/32"},
		{Filter{Source: "nobody"}, ""},
		{Filter{Hosts: true, Tenant: 1}, "1/10.1.0.0/32 1/10.1.0.9/32 1/2001:db8::1/128"},
		{Filter{Within: netip.MustParsePrefix("10.1.0.0/24")}, "1/10.1.0.0/24 1/10.1.0.0/32 1/10.1.0.9/32 2/10.1.0.1/32"},
		{Filter{Within: netip.MustParsePrefix("::/0")}, "1/2001:db8::1/128"},
	}
	for _, test := range tests {
		var got []string
		err := b.Walk(b.ctx, test.filter, func(e Entry) error {
			if got = append(got, e.Key.String()); len(e.Claims) == 0 || e.Via == nil {
				t.Errorf("%+v", e)
			}
			return nil
		})
		if s := strings.Join(got, " "); err != nil || s != test.want {
			t.Errorf("%+v: %s %v", test.filter, s, err)
		}
	}
	stop := errors.New("enough")
	if err := b.Walk(b.ctx, Filter{}, func(Entry) error { return stop }); !errors.Is(err, stop) {
		t.Error(err)
	}
	routes, hosts, err := b.Counts(b.ctx)
	if err != nil {
		t.Fatal(err)
	}
	routes = slices.DeleteFunc(routes, func(c Count) bool { return c.Claims == 0 })
	if want := []Count{{1, "api", 4, 4}, {1, "file", 2, 1}, {2, "api", 1, 1}}; !slices.Equal(routes, want) {
		t.Errorf("%+v", routes)
	}
	if want := []Hosts{{Tenant: 1, Away: 3}, {Tenant: 2, Away: 1}}; !slices.Equal(hosts, want) {
		t.Errorf("%+v", hosts)
	}
	sources, err := b.Sources(b.ctx)
	if err != nil || len(sources) != 4 || sources[0].Changes != 5 || sources[0].Claims != 5 || sources[1].Claims != 2 {
		t.Errorf("%+v %v", sources, err)
	}
}

func TestStopped(t *testing.T) {
	r := New(Options{})
	api := r.Reporter("api", 1)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := r.Run(ctx); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{
		"Begin":  api.Begin(context.Background()),
		"Report": api.Report(context.Background(), []route.Change{reject(addr7)}),
		"Synced": api.Synced(context.Background()),
		"late":   r.Reporter("late", 1).Begin(context.Background()),
	} {
		if !errors.Is(err, ErrStopped) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := r.Get(context.Background(), 1, netip.MustParseAddr("10.1.0.7")); !errors.Is(err, ErrStopped) {
		t.Error(err)
	}
	waiting := New(Options{}).Reporter("api", 1)
	if err := waiting.Begin(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
