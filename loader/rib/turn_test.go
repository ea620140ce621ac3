package rib

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"roam/loader/route"
)

// at is a change that names a site.
func at(site string, c route.Change) route.Change {
	c.Site = site
	return c
}

// What is told of hosts that turn to another home or source, and for how long nobody knew a way.
func TestTurned(t *testing.T) {
	type step func(b *bench, api, host route.Reporter)
	apiSays := func(c route.Change) step { return func(b *bench, api, _ route.Reporter) { b.report(api, c) } }
	hostSays := func(c route.Change) step { return func(b *bench, _, host route.Reporter) { b.report(host, c) } }
	pass := func(d time.Duration) step { return func(b *bench, _, _ route.Reporter) { b.pass(d) } }
	const preferred = "api wins: it is preferred over host at equal sequence 0"
	for name, test := range map[string]struct {
		steps []step
		want  []string
	}{
		"new, again, gone":  {[]step{hostSays(local(addr7, 3)), hostSays(local(addr7, 3)), hostSays(withdraw(addr7))}, nil},
		"another port here": {[]step{hostSays(local(addr7, 3)), hostSays(local(addr7, 4))}, nil},
		"away in one step": {
			[]step{hostSays(local(addr7, 3)), pass(time.Hour), apiSays(via(addr7, "192.0.2.2"))},
			[]string{"moved by api after 0s: local 3.0 (host) -> via 192.0.2.2 (api) held: " + preferred},
		},
		"from one site to another": {
			[]step{apiSays(via(addr7, "192.0.2.2")), apiSays(via(addr7, "192.0.2.3"))},
			[]string{"moved by api after 0s: via 192.0.2.2 (api) -> via 192.0.2.3 (api) moved: api is the only source that claims it"},
		},
		"another gateway of its site, then both": {
			[]step{apiSays(via(addr7, "192.0.2.2")), apiSays(at("dc2", via(addr7, "192.0.2.3"))), apiSays(via(addr7, "192.0.2.2", "192.0.2.3"))}, nil,
		},
		"gone, then at another gateway of its site": {
			[]step{apiSays(via(addr7, "192.0.2.2")), apiSays(withdraw(addr7)), apiSays(at("dc2", via(addr7, "192.0.2.3")))}, nil,
		},
		"from here to another gateway of our site": {
			[]step{hostSays(local(addr7, 3)), apiSays(at("dc1", via(addr7, "192.0.2.9")))},
			[]string{"passed on by api after 0s: local 3.0 (host) -> via 192.0.2.9 (api) held: " + preferred},
		},
		"claimed by hand, then found": {
			[]step{apiSays(via(addr7, "192.0.2.2")), apiSays(local(addr7, 0)), pass(3 * time.Second), hostSays(local(addr7, 3))},
			[]string{"moved by host after 3s: via 192.0.2.2 (api) -> local 3.0 (api) moved: " + preferred},
		},
		"gone, then elsewhere": {
			[]step{hostSays(local(addr7, 3)), hostSays(withdraw(addr7)), pass(2 * time.Second), apiSays(via(addr7, "192.0.2.2"))},
			[]string{"moved by api after 2s: local 3.0 (host) -> via 192.0.2.2 (api) held: api is the only source that claims it"},
		},
		"gone, then back":        {[]step{hostSays(local(addr7, 3)), hostSays(withdraw(addr7)), hostSays(local(addr7, 4))}, nil},
		"switched off for hours": {[]step{hostSays(local(addr7, 3)), hostSays(withdraw(addr7)), pass(time.Hour), apiSays(via(addr7, "192.0.2.2"))}, nil},
		"another source, same place": {
			[]step{hostSays(via(addr7, "192.0.2.2")), apiSays(via(addr7, "192.0.2.2"))},
			[]string{"passed on by api after 0s: via 192.0.2.2 (host) -> via 192.0.2.2 (api): " + preferred},
		},
		"prefixes do not move": {[]step{apiSays(via("10.2.0.0/16", "192.0.2.2")), apiSays(via("10.2.0.0/16", "192.0.2.3"))}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			b := newBench(t, Options{Site: "dc1", Turned: func(turn Turn) {
				verb := "passed on"
				if turn.Moved {
					verb = "moved"
				}
				got = append(got, fmt.Sprintf("%s by %s after %v: %s -> %s: %s", verb, turn.Cause, turn.Outage,
					spell(turn.Before)[len(addr7)+1:], spell(turn.After)[len(addr7)+1:], turn.Why()))
			}})
			api, host := b.Reporter("api", 40), b.Reporter("host", 10)
			b.start()
			b.sync(api)
			b.sync(host)
			moves := 0
			for _, do := range test.steps {
				do(b, api, host)
			}
			b.told()
			if !slices.Equal(got, test.want) {
				t.Errorf("got  %q\nwant %q", got, test.want)
			}
			for _, line := range got {
				if line[0] == 'm' {
					moves++
				}
			}
			if _, hosts, err := b.Counts(b.ctx); err != nil || len(hosts) > 0 && hosts[0].Moves != uint64(moves) {
				t.Errorf("told of %d moves, counted %+v, %v", moves, hosts, err)
			}
			if name == "gone, then elsewhere" && len(b.gaps) > 0 {
				t.Errorf("%d gaps left open", len(b.gaps))
			}
		})
	}
}

// note is a sink that writes down when it is called.
type note func(string)

func (n note) Name() string { return "note" }

func (n note) Apply(context.Context, []route.Decision) error {
	n("sink")
	return nil
}

// Who has to know of a turn beforehand hears of it before the sinks, and who only tells of it does not keep them waiting.
func TestTurnsAroundSinks(t *testing.T) {
	var got []string
	write := func(what string) { got = append(got, what) }
	b := newBench(t, Options{Site: "dc1", Turning: func(*Turn) { write("turning") }, Turned: func(Turn) { write("turned") }})
	b.AddSink(note(write))
	api, host := b.Reporter("api", 40), b.Reporter("host", 10)
	b.start()
	b.sync(api, via(addr7, "192.0.2.2"))
	b.sync(host)
	got = nil
	b.report(api, via(addr7, "192.0.2.3"))
	b.told()
	if want := []string{"turning", "sink", "turned"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A first report brings knowledge, not news.
func TestTurnedFirstReport(t *testing.T) {
	b := newBench(t, Options{Turned: func(turn Turn) { t.Errorf("told of %v", turn.After) }})
	api, host := b.Reporter("api", 40), b.Reporter("host", 10)
	b.start()
	b.sync(host, local(addr7, 3))
	b.sync(api, via(addr7, "192.0.2.2"))
}

// Hosts on their way are remembered only so many.
func TestGapsAreBounded(t *testing.T) {
	b := newBench(t, Options{})
	for i := range maxGaps {
		b.openGap(key{addr: [16]byte{byte(i >> 8), byte(i)}, tenant: 1, bits: 128}, route.Decision{})
	}
	b.openGap(key{tenant: 2}, route.Decision{})
	if len(b.gaps) != maxGaps {
		t.Errorf("%d gaps", len(b.gaps))
	}
	start := time.Now()
	for range 20 * maxGaps {
		b.openGap(key{tenant: 2}, route.Decision{})
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("more than a million hosts took %v to be turned away", took)
	}
	b.clock.advance(longGap)
	b.openGap(key{tenant: 2}, route.Decision{})
	if len(b.gaps) != 1 {
		t.Errorf("%d gaps after a while", len(b.gaps))
	}
}
