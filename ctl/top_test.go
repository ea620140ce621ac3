package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/charmbracelet/x/ansi"
	"golang.org/x/sys/unix"

	"roam/loader/api"
	"roam/loader/api/apitest"
)

// samples are two looks at a busy gateway, two seconds apart.
func samples() (before, now sample) {
	status, _ := (&apitest.Daemon{}).Status(context.Background())
	counters := func(times uint64) api.Counters {
		return api.Counters{
			Reasons: []api.ReasonCount{
				{Port: "lan0", Reason: "fwd_encap", Verdict: "forwarded", Packets: 2_468_000 * times, Bytes: 1_234_000_000 * times},
				{Port: "wan0", Reason: "fwd_deliver", Verdict: "forwarded", Packets: 400_000 * times, Bytes: 600_000_000 * times},
				{Port: "lan0", Reason: "pass_arp", Verdict: "passed", Packets: 6 * times, Bytes: 360 * times},
				{Port: "lan0", Reason: "drop_mtu", Verdict: "dropped", Packets: 46_912 * times, Bytes: 93_824_000 * times},
				{Port: "wan0", Reason: "drop_ttl", Verdict: "dropped", Packets: 7, Bytes: 420},
			},
			Locators: []api.LocatorCount{{Locator: "192.0.2.2", Packets: 2_468_000 * times, Bytes: 1_234_000_000 * times}},
		}
	}
	at := time.Unix(1000, 0)
	return sample{at, status, counters(3)}, sample{at.Add(2 * time.Second), status, counters(4)}
}

// The screen in the manual is what the command shows.
func TestTopScreenOfTheManual(t *testing.T) {
	before, now := samples()
	r := ratesOf(before, now)
	s := screen{width: 80, height: 24, shown: &r}
	screenOfManual(t, "top", ansi.Strip(strings.Join(s.fit(), "\n"))+"\n")
}

// Whatever the size, nothing is wider or higher than it, and what is left out is said.
func TestTopFits(t *testing.T) {
	before, now := samples()
	for width := 1; width < 100; width += 3 {
		for height := 1; height < 30; height++ {
			r := ratesOf(before, now)
			lines := screen{width: width, height: height, shown: &r}.fit()
			if len(lines) > height {
				t.Fatalf("%d lines in %d", len(lines), height)
			}
			for _, line := range lines {
				if w := ansi.StringWidth(line); w > width {
					t.Fatalf("a line of %d in %d: %q", w, width, line)
				}
			}
			if cut := len(r.lines()) > height-1; cut != strings.Contains(strings.Join(lines, ""), "enlarge") && width > 60 {
				t.Errorf("%dx%d: cut %v\n%s", width, height, cut, strings.Join(lines, "\n"))
			}
		}
	}
}

func TestRates(t *testing.T) {
	before, now := samples()
	r := ratesOf(before, now)
	if r.Verdicts["forwarded"] != 1_434_000 || r.Verdicts["dropped"] != 23_456 || len(r.Reasons) != 4 || r.Locators[0].Bits != 4_936_000_000 {
		t.Errorf("%+v", r)
	}
	if r := ratesOf(now, before); r.Reasons[0].Packets < 0 {
		t.Errorf("a counter that was begun anew: %+v", r.Reasons[0])
	}
	for v, want := range map[float64]string{0: "0 pps", 7: "7 pps", 999: "999 pps", 1234: "1.23 kpps", 23456: "23.5 kpps", 1e6: "1.00 Mpps", 345e9: "345 Gpps"} {
		if got := pps(v); got != want {
			t.Errorf("%v is %s, want %s", v, got, want)
		}
	}
}

// busy counts on with each look.
type busy struct {
	*apitest.Daemon
	looks *atomic.Uint64
}

func (b busy) Counters(ctx context.Context) (api.Counters, error) {
	c, err := b.Daemon.Counters(ctx)
	c.Reasons[0].Packets = 1_000_000 * b.looks.Add(1)
	return c, err
}

func serveBusy(t *testing.T) string {
	d := daemon()
	backend := d.Backend()
	backend.Observer = busy{d, new(atomic.Uint64)}
	return serveBackend(t, backend)
}

// Without a terminal it measures and ends.
func TestTopPlain(t *testing.T) {
	socket := serveBusy(t)
	out, stderr, code := ctl(t, socket, "top --interval 100ms --count 2")
	if code != 0 || strings.Count(out, "REASON ") != 2 || !strings.Contains(out, "fwd_encap  lan0  ") || strings.Contains(out, "\x1b") {
		t.Errorf("%d %s\n%s", code, stderr, out)
	}
	out, _, _ = ctl(t, socket, "-o json top --interval 100ms")
	var r rates
	if err := json.Unmarshal([]byte(out), &r); err != nil || r.Reasons[0].Reason != "fwd_encap" || r.Reasons[0].Packets <= 0 {
		t.Errorf("%v: %s", err, out)
	}
	if _, stderr, code := ctl(t, socket, "top --interval 1ms"); code != 2 || !strings.Contains(stderr, "too short") {
		t.Errorf("%d %s", code, stderr)
	}
}

// pty is a pseudo-terminal: the test holds the master, the command gets the terminal.
type pty struct {
	*testing.T
	master, terminal *os.File

	mu      sync.Mutex
	text    bytes.Buffer
	changed chan struct{}
}

func newPTY(t *testing.T, width, height int) *pty {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	terminal, err := os.OpenFile(filepath.Join("/dev/pts", fmt.Sprint(number)), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	p := &pty{T: t, master: master, terminal: terminal, changed: make(chan struct{}, 1)}
	p.resize(width, height)
	return p
}

// follow keeps what is written until the terminal is closed.
func (p *pty) follow() {
	buffer := make([]byte, 4096)
	for {
		n, err := p.master.Read(buffer)
		p.mu.Lock()
		p.text.Write(buffer[:n])
		p.mu.Unlock()
		select {
		case p.changed <- struct{}{}:
		default:
		}
		if err != nil {
			return
		}
	}
}

func (p *pty) resize(width, height int) {
	p.Helper()
	size := unix.Winsize{Col: uint16(width), Row: uint16(height)}
	if err := unix.IoctlSetWinsize(int(p.master.Fd()), unix.TIOCSWINSZ, &size); err != nil {
		p.Fatal(err)
	}
}

// await waits for a text, and forgets what came before it.
func (p *pty) await(text string) string {
	p.Helper()
	deadline := time.After(10 * time.Second)
	for {
		p.mu.Lock()
		seen := p.text.String()
		if before, after, found := strings.Cut(seen, text); found {
			p.text.Reset()
			p.text.WriteString(after)
			p.mu.Unlock()
			return before
		}
		p.mu.Unlock()
		select {
		case <-p.changed:
		case <-deadline:
			p.Fatalf("no %q in %q", text, seen)
		}
	}
}

// On a terminal it draws a screen, follows its size, and leaves the terminal as it was.
func TestTopTerminal(t *testing.T) {
	t.Setenv("TERM", "xterm")
	socket := serveBusy(t)
	p := newPTY(t, 100, 30)
	before, err := unix.IoctlGetTermios(int(p.terminal.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); p.follow() }()
	code := make(chan int, 1)
	go func() {
		code <- run(t.Context(), []string{"roamctl", "--socket", socket, "top", "--interval", "100ms"}, p.terminal, p.terminal, os.Stderr)
	}()
	p.await(ansi.SetModeAltScreenSaveCursor)
	p.await("q quits")
	p.await("fwd_encap")
	p.resize(40, 5)
	if err := unix.Kill(os.Getpid(), unix.SIGWINCH); err != nil { // the kernel tells who has it as controlling terminal
		t.Fatal(err)
	}
	p.await("enlarge the window")
	if _, err := p.master.WriteString("q"); err != nil {
		t.Fatal(err)
	}
	if c := <-code; c != 0 {
		t.Errorf("exit status %d", c)
	}
	p.await(ansi.ResetModeAltScreenSaveCursor)
	after, err := unix.IoctlGetTermios(int(p.terminal.Fd()), unix.TCGETS)
	if err != nil || *after != *before {
		t.Errorf("the terminal is left changed: %v", err)
	}
	p.terminal.Close()
	<-done
	p.master.Close()
}
