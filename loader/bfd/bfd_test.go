package bfd

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket/layers"

	"github.com/vishvananda/netns"
	"go.uber.org/goleak"
	"roam/loader/standing"
)

var (
	ours   = []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8:ff::1")}
	theirs = []netip.Addr{netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("2001:db8:ff::2")}
)

// wire gives the test a network namespace in which both gateways' addresses are on the loopback interface, and a knife
// to cut it. What it returns is meant for the test's goroutine, and so is opening sockets.
func wire(t *testing.T) (link func(state string)) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("needs root: it makes a network namespace")
	}
	runtime.LockOSThread() // for good: the thread ends with the test, and its namespace too
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ns.Close() })
	ip := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	for _, a := range slices.Concat(ours, theirs) {
		ip("addr", "add", netip.PrefixFrom(a, a.BitLen()).String(), "dev", "lo")
	}
	ip("link", "set", "lo", "up")
	return func(state string) { t.Helper(); ip("link", "set", "lo", state) }
}

// gateway is a speaker that runs, and the verdicts it has passed.
type gateway struct {
	*Speaker
	t        *testing.T
	verdicts chan map[netip.Addr]string
	stop     func()
}

func start(t *testing.T, config Config, remotes []netip.Addr) *gateway {
	t.Helper()
	g := &gateway{t: t, verdicts: make(chan map[netip.Addr]string, 64)}
	g.Speaker = New(Options{Config: &config, Log: slog.New(slog.DiscardHandler), Changed: func(out map[netip.Addr]string) { g.verdicts <- out }})
	if err := g.SetRemotes(remotes); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = g.Run(ctx) }()
	g.stop = func() { cancel(); <-done }
	t.Cleanup(g.stop)
	return g
}

// await waits until all sessions are in a state; what announces it to the test is only the speaker's own list.
func (g *gateway) await(state string) {
	g.t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		list := g.Sessions()
		if !slices.ContainsFunc(list, func(s Session) bool { return s.State != state }) {
			return
		}
		if time.Now().After(deadline) {
			g.t.Fatalf("not all sessions are %s: %+v", state, list)
		}
		time.Sleep(time.Millisecond)
	}
}

func (g *gateway) verdict() map[netip.Addr]string {
	g.t.Helper()
	select {
	case v := <-g.verdicts:
		return v
	case <-time.After(10 * time.Second):
		g.t.Fatal("no verdict")
		return nil
	}
}

func fast(locators []netip.Addr) Config {
	return Config{Locators: locators, Interval: 50 * time.Millisecond, Multiplier: 3, MinTTL: sentTTL}
}

// TestTwoSpeakers: two of ours come up in both families, notice a cut, come back damped, and part in peace.
func TestTwoSpeakers(t *testing.T) {
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) }) // the last of all
	link := wire(t)
	a, b := start(t, fast(ours), theirs), start(t, fast(theirs), ours)
	a.await("up")
	b.await("up")
	if list := a.Sessions(); len(list) != 2 || list[0].Remote != theirs[0] || list[1].Remote != theirs[1] || list[0].Local != ours[0] {
		t.Fatalf("sessions %+v", list)
	}
	for range 100 { // the poll ends
		if a.Sessions()[0].Detection == 150*time.Millisecond {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if got := a.Sessions()[0].Detection; got != 150*time.Millisecond {
		t.Errorf("detection time %v", got)
	}
	if len(a.verdicts) != 0 {
		t.Errorf("a verdict without a reason: %v", a.verdict())
	}

	link("down")
	cut := time.Now()
	for out := map[netip.Addr]string{}; len(out) < 2; {
		out = a.verdict()
	}
	took := time.Since(cut)
	t.Logf("out %v after the cut, detection time 150ms", took.Round(time.Millisecond))
	if took > 150*time.Millisecond+200*time.Millisecond {
		t.Errorf("it took %v", took)
	}
	if s := a.Sessions()[0]; s.State != "down" || s.Flaps != 1 || !strings.Contains(s.Why, "detection time") {
		t.Errorf("session %+v", s)
	}

	link("up")
	for {
		if s := a.Sessions()[0]; s.State == "up" {
			break
		}
		time.Sleep(time.Millisecond)
	}
	came := time.Now()
	if why := a.Out()[theirs[0]]; !strings.Contains(why, "up again") {
		t.Errorf("up, and not damped: %q", why)
	}
	for {
		if _, out := a.verdict()[theirs[0]]; !out {
			break
		}
	}
	if took := time.Since(came); took < standing.FirstHold-100*time.Millisecond || took > standing.FirstHold+500*time.Millisecond {
		t.Errorf("back after %v, want %v", took, standing.FirstHold)
	}

	b.stop()
	if s := a.Sessions()[0]; s.State != "down" || !strings.Contains(s.Why, "stopped speaking") {
		t.Errorf("after a goodbye: %+v", s)
	}
	if _, out := a.Out()[theirs[0]]; out {
		t.Error("a goodbye took the locator out")
	}
}

// TestNobodyThere: a locator whose gateway does not speak BFD stays in.
func TestNobodyThere(t *testing.T) {
	wire(t)
	a := start(t, fast(ours), theirs)
	time.Sleep(400 * time.Millisecond) // more than a detection time: nothing is to happen
	if len(a.Out()) != 0 || len(a.verdicts) != 0 {
		t.Errorf("out: %v", a.Out())
	}
	if s := a.Sessions()[0]; s.Why != "no answer yet" {
		t.Errorf("session %+v", s)
	}
}

// TestSpeakersWithKeys: with one key they come up; a key changed on one end parts them, and on both joins them again.
func TestSpeakersWithKeys(t *testing.T) {
	wire(t)
	with := func(locators []netip.Addr, key string) *Config {
		c := fast(locators)
		c.Auth = &Auth{Meticulous: true, ID: 1, Key: key}
		return &c
	}
	a, b := start(t, *with(ours, "one"), theirs), start(t, *with(theirs, "one"), ours)
	a.await("up")
	b.await("up")
	if err := a.SetConfig(with(ours, "two")); err != nil {
		t.Fatal(err)
	}
	a.await("down")
	b.await("down")
	for range 300 {
		if strings.Contains(a.Sessions()[0].Why, "refused") {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if s := a.Sessions()[0]; !strings.Contains(s.Why, "digest is wrong") {
		t.Errorf("nothing says that the keys differ: %+v", s)
	}
	if err := b.SetConfig(with(theirs, "two")); err != nil {
		t.Fatal(err)
	}
	a.await("up")
}

// TestStrangers: packets from too far away, from nobody we know, or for another session change nothing.
func TestStrangers(t *testing.T) {
	wire(t)
	a, b := start(t, fast(ours), theirs), start(t, fast(theirs), ours)
	a.await("up")
	b.await("up")
	none := newAuthenticator(nil)
	p := says(down)
	a.mu.Lock()
	p.YourDiscriminator = a.sessions[ends{ours[0], theirs[0]}].discriminator
	a.mu.Unlock()
	kill, err := encode(*p, &none)
	if err != nil {
		t.Fatal(err)
	}
	p.YourDiscriminator++
	stray, err := encode(*p, &none)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	a.receive(ends{ours[0], theirs[0]}, kill, sentTTL-1, now)
	a.receive(ends{ours[0], netip.MustParseAddr("192.0.2.3")}, kill, sentTTL, now)
	a.receive(ends{ours[1], theirs[1]}, kill, sentTTL, now)
	a.receive(ends{ours[0], theirs[0]}, stray, sentTTL, now)
	if s := a.Sessions(); s[0].Flaps != 0 || s[1].Flaps != 0 {
		t.Errorf("a stranger's packet had an effect: %+v", s)
	}
	a.receive(ends{ours[0], theirs[0]}, kill, sentTTL, now)
	if s := a.Sessions(); s[0].Flaps != 1 {
		t.Errorf("the real one had none: %+v", s)
	}
}

// TestLateTimer: a timer that fires late says that we were away, not that the other end was.
func TestLateTimer(t *testing.T) {
	for _, c := range []struct {
		lateness time.Duration
		want     layers.BFDState
	}{{0, down}, {late, down}, {500 * time.Millisecond, up}} {
		s := New(Options{Log: slog.New(slog.DiscardHandler)})
		p := &peer{end(up, 100*time.Millisecond, 3), &net.UDPConn{}}
		s.sessions[ends{p.local, p.remote}], s.standings[p.remote] = p, &standing.Standing{Up: true}
		now := p.deadAt.Add(c.lateness)
		if next := s.tick(now, c.lateness); p.state != c.want || !next.After(now) {
			t.Errorf("%v late: %v, look again in %v", c.lateness, p.state, next.Sub(now))
		}
		if s.tick(now.Add(100*time.Millisecond), time.Hour); p.state != down {
			t.Errorf("%v late: still %v when the time given has passed, too", c.lateness, p.state)
		}
	}
}

// TestPortTaken: what keeps us from listening is named, and overcome once it is gone.
func TestPortTaken(t *testing.T) {
	wire(t)
	other, err := listen(ours[0])
	if err != nil {
		t.Fatal(err)
	}
	config := fast(ours[:1])
	s := New(Options{Config: &config, Log: slog.New(slog.DiscardHandler), Changed: func(map[netip.Addr]string) {}})
	if err := s.SetRemotes(theirs); err == nil || !strings.Contains(err.Error(), "another BFD daemon") {
		t.Errorf("the port is taken: %v", err)
	}
	_ = other.Close()
	if err := s.SetRemotes(theirs); err != nil || len(s.Sessions()) != 1 {
		t.Errorf("the port is free: %v, %+v", err, s.Sessions())
	}
	s.goodbye()
}

// TestReconcile: sessions follow the configuration, and a locator that is not asked about is not out.
func TestReconcile(t *testing.T) {
	link := wire(t)
	a, b := start(t, fast(ours), theirs), start(t, fast(theirs), ours)
	a.await("up")
	link("down")
	b.await("down")
	for len(a.Out()) < 2 {
		a.verdict()
	}
	if err := a.SetRemotes(theirs[:1]); err != nil {
		t.Fatal(err)
	}
	if out := a.Out(); len(out) != 1 || len(a.Sessions()) != 1 {
		t.Errorf("out %v, sessions %+v", out, a.Sessions())
	}
	if err := a.SetConfig(nil); err != nil {
		t.Fatal(err)
	}
	if out := a.Out(); len(out) != 0 || len(a.Sessions()) != 0 {
		t.Errorf("out %v, sessions %+v", out, a.Sessions())
	}
	for out := map[netip.Addr]string{{}: ""}; len(out) != 0; {
		out = a.verdict()
	}
	link("up")
	config := fast(ours)
	if err := a.SetConfig(&config); err != nil {
		t.Fatal(err)
	}
	a.await("up")
	if n := len(a.Sessions()); n != 1 {
		t.Errorf("%d sessions", n)
	}
}
