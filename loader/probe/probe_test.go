package probe

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// wire is a Tunnel whose far ends do as the test says.
type wire struct {
	mu      sync.Mutex
	sent    map[netip.Addr]int
	far     func(to netip.Addr, size int) (answers bool, after time.Duration)
	answers chan Answer
	closed  chan struct{}
}

func newWire(far func(to netip.Addr, size int) (bool, time.Duration)) *wire {
	return &wire{sent: map[netip.Addr]int{}, far: far, answers: make(chan Answer, 4096), closed: make(chan struct{})}
}

func (w *wire) Send(to netip.Addr, size int, token uint64, sequence uint16) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sent[to]++
	if yes, after := w.far(to, size); yes {
		time.AfterFunc(after, func() { w.answers <- Answer{From: to, Token: token, Sequence: sequence, Size: size} })
	}
	return size, nil
}

func (w *wire) Receive() (Answer, error) {
	select {
	case a := <-w.answers:
		return a, nil
	case <-w.closed:
		return Answer{}, os.ErrClosed
	}
}

func (w *wire) Close() error { close(w.closed); return nil }

func (w *wire) count(a netip.Addr) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.sent[a]
}

func (w *wire) does(far func(to netip.Addr, size int) (bool, time.Duration)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.far = far
}

func always(netip.Addr, int) (bool, time.Duration) { return true, time.Millisecond }
func never(netip.Addr, int) (bool, time.Duration)  { return false, 0 }

func upTo(mtu int) func(netip.Addr, int) (bool, time.Duration) {
	return func(_ netip.Addr, size int) (bool, time.Duration) { return size <= mtu, time.Millisecond }
}

// bench is a Prober at work.
type bench struct {
	*Prober
	*wire
	mu      sync.Mutex
	changed int
	found   []int
}

var usual = &Config{Interval: 100 * time.Millisecond, Multiplier: 3, FullSize: 5 * time.Second}

func start(t *testing.T, c *Config, far func(netip.Addr, int) (bool, time.Duration), locators int) *bench {
	t.Helper()
	b := &bench{wire: newWire(far)}
	b.Prober = New(Options{
		Config: c, Tunnel: b.wire, Log: slog.New(slog.NewTextHandler(io.Discard, nil)), RoundTrip: func(time.Duration) {},
		Changed: func() { b.mu.Lock(); b.changed++; b.mu.Unlock() },
		Found:   func(_ netip.Addr, size int) { b.mu.Lock(); b.found = append(b.found, size); b.mu.Unlock() },
	})
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	b.SetWays(ways(locators))
	return b
}

func locator(n int) netip.Addr {
	return netip.MustParseAddr(fmt.Sprintf("192.0.%d.%d", n/250, 1+n%250))
}

func ways(n int) (list []Way) {
	for i := range n {
		list = append(list, Way{Address: locator(i), Key: "a", Known: true, Whole: 1450, Least: 36})
	}
	return list
}

// told is what was told so far.
func (b *bench) told() (changed int, found []int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.changed, slices.Clone(b.found)
}

func (b *bench) states(t *testing.T, want State) {
	t.Helper()
	for _, s := range b.Statuses() {
		if s.State != want {
			t.Errorf("%s is %s, want %s", s.Address, s.State, want)
		}
	}
}

// A locator that answered and stops to is silent within four intervals; it is let back in when it has answered for a second.
func TestSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, usual, always, 1)
		time.Sleep(time.Second)
		b.states(t, Answers)
		b.does(never)
		time.Sleep(410 * time.Millisecond)
		b.states(t, Silent)
		b.does(always)
		time.Sleep(900 * time.Millisecond)
		b.states(t, Silent)
		time.Sleep(310 * time.Millisecond)
		b.states(t, Answers)
		if n, _ := b.told(); n != 2 {
			t.Errorf("told %d times, want 2", n)
		}
		s := b.Statuses()[0]
		if s.Sent < 20 || s.Lost < 3 || s.Lost > 6 || s.RoundTrip != time.Millisecond || s.Hole {
			t.Errorf("%+v", s)
		}
	})
}

// One that never answers is unknown for ever, and is asked ever more rarely; when it does, at the usual pace.
func TestUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, usual, never, 1)
		time.Sleep(time.Hour)
		b.states(t, Unknown)
		if n := b.count(locator(0)); n < 300 || n > 400 {
			t.Errorf("%d probes in an hour, want one every %v and a few", n, slowest)
		}
		b.does(always)
		time.Sleep(slowest + 10*time.Millisecond)
		b.states(t, Answers)
		before := b.count(locator(0))
		time.Sleep(time.Second)
		if n := b.count(locator(0)) - before; n < 9 || n > 12 {
			t.Errorf("%d probes in a second", n)
		}
		if n, _ := b.told(); n != 0 {
			t.Errorf("told %d times of nothing", n)
		}
	})
}

// A far end that is further away than three intervals answers all the same.
func TestLongWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, usual, func(netip.Addr, int) (bool, time.Duration) { return true, 700 * time.Millisecond }, 1)
		time.Sleep(time.Minute)
		b.states(t, Answers)
		s := b.Statuses()[0]
		if n, _ := b.told(); n != 0 || s.Lost != 0 || s.RoundTrip != 700*time.Millisecond || s.Hole {
			t.Errorf("told %d times, %+v", n, s)
		}
	})
}

// Another tunnel to the same address may be one that the far end does not know: nothing that was found counts any more. A way that is gone
// for a while is not the far end's fault.
func TestAnotherWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, usual, always, 1)
		time.Sleep(time.Second)
		b.SetWays([]Way{{Address: locator(0)}})
		b.does(never)
		time.Sleep(time.Minute)
		b.states(t, Answers)
		b.SetWays(ways(1))
		time.Sleep(time.Second)
		b.states(t, Silent)
		another := ways(1)
		another[0].Key = "b"
		b.SetWays(another)
		time.Sleep(time.Minute)
		b.states(t, Unknown)
		b.SetWays(nil)
		if len(b.Statuses()) != 0 {
			t.Error("one that is not in use is probed")
		}
		if n, _ := b.told(); n != 2 {
			t.Errorf("told %d times, want 2", n)
		}
	})
}

// A thousand locators cost no more than MaxRate probes a second, each its share, and none at the same time.
func TestThousand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, &Config{Interval: 100 * time.Millisecond, Multiplier: 3}, always, 1000)
		time.Sleep(10 * time.Second)
		b.states(t, Answers)
		total := 0
		for i := range 1000 {
			n := b.count(locator(i))
			total += n
			if n < 18 || n > 23 {
				t.Errorf("%s was probed %d times in 10 s, want 20", locator(i), n)
			}
		}
		if total > 10*MaxRate+1000 {
			t.Errorf("%d probes in 10 s", total)
		}
		b.does(never)
		time.Sleep(2010 * time.Millisecond)
		b.states(t, Silent)
	})
}

// The largest size that passes is found within a few bytes and told again and again, until all pass.
func TestHole(t *testing.T) {
	for _, mtu := range []int{1449, 1442, 1400, 1280, 700, 100, 37} {
		t.Run(fmt.Sprint(mtu), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := start(t, usual, always, 1)
				time.Sleep(20 * time.Second)
				b.does(upTo(mtu))
				time.Sleep(30 * time.Second)
				_, found := b.told()
				if len(found) == 0 || found[0] > mtu || found[0] < mtu-precision {
					t.Errorf("found %v, want %d", found, mtu)
				}
				if s := b.Statuses()[0]; !s.Hole || s.State != Answers {
					t.Errorf("%+v", s)
				}
				time.Sleep(30 * time.Second)
				again := 0
				if _, found = b.told(); len(found) > 0 {
					again = found[len(found)-1]
				}
				if len(found) < 3 || again != found[0] {
					t.Errorf("told %v: want it said again", found)
				}
				if mtu/2 >= 36 {
					b.does(upTo(mtu / 2))
					time.Sleep(60 * time.Second)
					_, found = b.told()
					if last := found[len(found)-1]; last > mtu/2 || last < mtu/2-precision {
						t.Errorf("narrower: told %v, want %d", found, mtu/2)
					}
				}
				b.does(always)
				time.Sleep(15 * time.Second)
				if _, found = b.told(); found[len(found)-1] != 0 || b.Statuses()[0].Hole {
					t.Errorf("healed: told %v", found)
				}
			})
		})
	}
}

// Losing everything is no hole, and neither is losing one in ten.
func TestNoHole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, usual, always, 1)
		time.Sleep(20 * time.Second)
		b.does(never)
		time.Sleep(time.Minute)
		n := 0
		b.does(func(netip.Addr, int) (bool, time.Duration) { n++; return n%10 != 0, time.Millisecond })
		time.Sleep(time.Hour)
		if _, found := b.told(); len(found) != 0 {
			t.Errorf("found %v", found)
		}
	})
}

// Turned off, nothing is sent and nobody is silent; by hand one can ask all the same.
func TestOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, usual, always, 2)
		time.Sleep(time.Second)
		b.does(never)
		time.Sleep(time.Second)
		b.states(t, Silent)
		b.SetConfig(nil)
		before := b.count(locator(0))
		b.SetWays(ways(2))
		time.Sleep(time.Minute)
		if n := b.count(locator(0)) - before; n != 0 || len(b.Statuses()) != 0 {
			t.Errorf("%d probes sent, %v", n, b.Statuses())
		}
		b.does(upTo(100))
		for size, answered := range map[int]bool{100: true, 101: false} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			e, err := b.Ping(ctx, locator(0), size)
			if err != nil || e.Answered != answered || e.Size != size {
				t.Errorf("ping of %d: %+v, %v", size, e, err)
			}
			cancel()
		}
		b.SetConfig(usual)
		b.SetWays(ways(2))
		time.Sleep(time.Second)
		b.states(t, Answers)
	})
}

// What nobody asked for is no answer, and neither is what comes from elsewhere.
func TestForged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, usual, never, 2)
		token := uint64(0)
		time.Sleep(150 * time.Millisecond)
		b.Prober.mu.Lock()
		for k, q := range b.Prober.sent {
			if q.to == locator(0) {
				token = k
			}
		}
		b.Prober.mu.Unlock()
		for i := range uint64(100) {
			b.answers <- Answer{From: locator(0), Token: i}
		}
		b.answers <- Answer{From: locator(1), Token: token}
		time.Sleep(10 * time.Second)
		b.states(t, Unknown)
	})
}
