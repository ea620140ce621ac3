package rib

import (
	"fmt"
	"log/slog"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"roam/loader/route"
)

// momentClock lets a test act at the moment when a report begins to be applied.
type momentClock struct {
	systemClock
	moment func()
}

func (c *momentClock) Now() time.Time {
	if f := c.moment; f != nil {
		c.moment = nil
		f()
	}
	return time.Now()
}

// beside reports long, has another source report short while it is being applied, and returns the sink that heard both.
func beside(t *testing.T, before, long, short []route.Change) *mirror {
	t.Helper()
	sink := newMirror()
	synctest.Test(t, func(t *testing.T) {
		clock := &momentClock{}
		r := New(Options{Clock: clock, Log: slog.New(slog.DiscardHandler)})
		r.AddSink(sink)
		one, other := r.Reporter("one", 1), r.Reporter("other", 2)
		done := make(chan error, 2)
		go func() { done <- r.Run(t.Context()) }()
		if err := one.Report(t.Context(), before); err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // the RIB has nothing to do
		sink.log = nil
		clock.moment = func() {
			go func() { done <- other.Report(t.Context(), short) }()
			synctest.Wait() // it waits for its turn
		}
		if err := one.Report(t.Context(), long); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	})
	return sink
}

func single() []route.Change {
	via := &route.Via{Locators: []route.Locator{{Address: netip.MustParseAddr("192.0.2.9"), Priority: 1, Weight: 100}}}
	return []route.Change{{Claim: route.Claim{Key: route.KeyOf(1, netip.MustParseAddr("198.51.100.1")), Via: via}}}
}

// A short report has its turn within a long one, whether that is settled bunch by bunch or as a whole.
func TestShortReportGoesFirst(t *testing.T) {
	for _, n := range []int{4 * bunch, brief + 4*bunch} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			short := single()
			heard := beside(t, nil, manyHosts(n), short)
			if len(heard.log) != n+1 || len(heard.extra) > 0 {
				t.Fatalf("%d decisions, of %d; said twice: %q", len(heard.log), n+1, heard.extra)
			}
			if got, want := heard.log[bunch], spell(heard.held[short[0].Key]); got != want {
				t.Errorf("after the first bunch came %s, not %s", got, want)
			}
		})
	}
}

// A key that is withdrawn and claimed again in one report is not seen as gone, although somebody waits.
func TestWithdrawnAndClaimedStaysWhole(t *testing.T) {
	for _, n := range []int{4 * bunch, brief + 4*bunch} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			many := manyHosts(n)
			again := many[0]
			again.Sequence = 7
			long := append([]route.Change{{Claim: route.Claim{Key: again.Key}, Withdraw: true}}, many[1:]...)
			heard := beside(t, many[:1], append(long, again), single())
			if len(heard.log) != n+1 || len(heard.held) != n+1 {
				t.Errorf("%d decisions about %d keys, want %d of each", len(heard.log), len(heard.held), n+1)
			}
			if d := heard.held[again.Key]; d.Sequence != 7 {
				t.Errorf("the key ended as %s", spell(d))
			}
		})
	}
}
