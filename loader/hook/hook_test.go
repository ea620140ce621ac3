package hook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"roam/loader/route"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type names struct{}

func (names) TenantID(name string) (route.TenantID, bool) { return 1, name == "default" }
func (names) TenantName(route.TenantID) string            { return "default" }

// world is a hook at site cloud and a program that notes what it is told: "10.1.0.21 dc1>cloud".
type world struct {
	*testing.T
	*Hook
	state string

	mu      sync.Mutex
	told    []string
	events  []string
	notices []Notice
	answer  func(context.Context, Change) error
	end     func()
}

func newWorld(t *testing.T) *world {
	w := &world{T: t, state: filepath.Join(t.TempDir(), "hook"), end: func() {}}
	w.start(Options{})
	t.Cleanup(func() { w.end() })
	return w
}

// start is a new life over the same journal; AllSynced is the test's affair.
func (w *world) start(o Options) {
	w.Helper()
	w.end()
	o.Site, o.State, o.Names, o.Program, o.Parallel = "cloud", w.state, names{}, "/adapter", max(o.Parallel, 1)
	o.Segment = func(route.Key) string { return "web" }
	o.Place = func(d *route.Decision) string { return d.Site }
	o.Tell = func(n Notice) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.notices = append(w.notices, n)
	}
	if o.run == nil {
		o.run = w.program
	}
	var err error
	if w.Hook, err = New(o); err != nil {
		w.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	hook := w.Hook
	go func() { ended <- hook.Run(ctx) }()
	w.end = func() {
		cancel()
		if err := <-ended; err != nil {
			w.Error(err)
		}
		w.end = func() {}
	}
}

func (w *world) program(ctx context.Context, c Change) error {
	w.mu.Lock()
	w.told = append(w.told, fmt.Sprintf("%s %s>%s", c.Address, c.OldSite, c.NewSite))
	w.events = append(w.events, c.Event)
	answer := w.answer
	w.mu.Unlock()
	if answer == nil {
		return nil
	}
	return answer(ctx, c)
}

func (w *world) answers(f func(context.Context, Change) error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answer = f
}

// says has the RIB say where hosts are: "10.1.0.21 dc1", or without a site nowhere.
func (w *world) says(lines ...string) {
	w.Helper()
	var list []route.Decision
	for _, l := range lines {
		a, site, _ := strings.Cut(l, " ")
		list = append(list, route.Decision{Claim: route.Claim{Key: route.KeyOf(1, netip.MustParseAddr(a)), Site: site}, Gone: site == ""})
	}
	if err := w.Apply(w.Context(), list); err != nil {
		w.Fatal(err)
	}
}

func (w *world) synced() {
	w.Helper()
	if err := w.AllSynced(w.Context()); err != nil {
		w.Fatal(err)
	}
}

// expect waits until nothing moves, and compares what the program was told since.
func (w *world) expect(want ...string) {
	w.Helper()
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	if strings.Join(w.told, "\n") != strings.Join(want, "\n") {
		w.Errorf("told %q, want %q", w.told, want)
	}
	w.told = nil
}

// Hosts that come and go are told of, others are not, and nothing before all sources have reported.
func TestComesAndGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.says("10.1.0.21 cloud", "10.1.0.11 dc1")
		w.expect()
		w.synced()
		w.expect("10.1.0.21 >cloud")
		w.says("10.1.0.11 dc2", "10.1.0.21 cloud")
		w.expect()
		w.From(route.KeyOf(1, netip.MustParseAddr("10.1.0.11")), "dc2")
		w.says("10.1.0.11 cloud")
		w.expect("10.1.0.11 dc2>cloud")
		w.says("10.1.0.11 dc1")
		w.expect("10.1.0.11 cloud>dc1")
		w.says("10.1.0.11 dc2", "10.1.0.21")
		w.expect("10.1.0.21 cloud>")
		if n := len(w.hosts); n != 0 {
			t.Errorf("%d hosts are remembered, and none is here", n)
		}
		w.end()
	})
}

// While a run is under way its host's changes become one, or none.
func TestNewestCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.synced()
		hold := make(chan struct{})
		w.answers(func(context.Context, Change) error { <-hold; return nil })
		w.says("10.1.0.21 cloud")
		w.expect("10.1.0.21 >cloud")
		w.says("10.1.0.21 dc1")
		w.says("10.1.0.21 cloud")
		w.says("10.1.0.21 dc2")
		w.expect()
		hold <- struct{}{}
		w.expect("10.1.0.21 cloud>dc2")
		w.says("10.1.0.21 cloud")
		w.says("10.1.0.21 dc2")
		hold <- struct{}{}
		w.expect()
		w.end()
	})
}

// Not more run at a time than may, and one that takes long holds up its own host only.
func TestParallel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.start(Options{Parallel: 2})
		w.synced()
		hold := make(chan struct{})
		w.answers(func(_ context.Context, c Change) error {
			if c.Address == netip.MustParseAddr("10.1.0.1") {
				<-hold
			}
			return nil
		})
		w.says("10.1.0.1 cloud")
		synctest.Wait()
		w.says("10.1.0.2 cloud", "10.1.0.3 cloud", "10.1.0.1 dc1")
		synctest.Wait()
		if s := w.Status(); s.Waiting != 1 || s.Runs[OK] != 2 {
			t.Errorf("%+v", s)
		}
		close(hold)
		synctest.Wait()
		if s := w.Status(); s.Waiting != 0 || s.Runs[OK] != 4 {
			t.Errorf("%+v", s)
		}
		w.end()
	})
}

// A run that fails is repeated with its id, later each time; a change in between does not wait.
func TestFailsAndIsRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.synced()
		broken := errors.New("no such machine")
		w.answers(func(context.Context, Change) error { return broken })
		w.says("10.1.0.21 cloud")
		w.expect("10.1.0.21 >cloud")
		if s := w.Status(); s.Failing != 1 || !errors.Is(s.Last, broken) {
			t.Errorf("%+v", s)
		}
		time.Sleep(999 * time.Millisecond)
		w.expect()
		time.Sleep(time.Millisecond)
		w.expect("10.1.0.21 >cloud")
		time.Sleep(2 * time.Second)
		w.expect("10.1.0.21 >cloud")
		if w.events[0] != w.events[2] {
			t.Errorf("repeated with another id: %v", w.events)
		}
		if n := w.notices[2]; n.Attempt != 3 || n.Again != 4*time.Second || n.Outcome != Failed {
			t.Errorf("%+v", n)
		}
		w.says("10.1.0.21 dc1") // whether the program did half of its work nobody knows
		w.expect("10.1.0.21 >dc1")
		if w.events[3] == w.events[2] {
			t.Error("another change has the same id")
		}
		w.answers(nil)
		time.Sleep(time.Second)
		w.expect("10.1.0.21 >dc1")
		if s := w.Status(); s.Failing != 0 || s.Last != nil || s.Runs[Failed] != 4 || s.Runs[OK] != 1 {
			t.Errorf("%+v", s)
		}
		w.end()
	})
}

// A restart repeats what was under way with its id, tells of what happened meanwhile, and nothing twice.
func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.synced()
		w.says("10.1.0.1 cloud", "10.1.0.2 cloud", "10.1.0.3 cloud")
		synctest.Wait()
		w.told, w.events = nil, nil
		w.answers(func(ctx context.Context, _ Change) error { <-ctx.Done(); return ctx.Err() })
		w.says("10.1.0.4 cloud")
		w.expect("10.1.0.4 >cloud")
		w.answers(nil)
		w.start(Options{}) // kills it
		w.expect()
		w.says("10.1.0.1 cloud", "10.1.0.2 dc1", "10.1.0.4 cloud")
		w.synced() // 10.1.0.3 is nowhere
		synctest.Wait()
		slices := map[string]bool{}
		for _, s := range w.told {
			slices[s] = true
		}
		if len(w.told) != 3 || !slices["10.1.0.2 cloud>dc1"] || !slices["10.1.0.3 cloud>"] || !slices["10.1.0.4 >cloud"] {
			t.Errorf("told %q", w.told)
		}
		for i, s := range w.told {
			if s == "10.1.0.4 >cloud" && w.events[i+1] != w.events[0] {
				t.Errorf("repeated with another id: %v", w.events)
			}
		}
		w.told = nil
		w.start(Options{})
		w.says("10.1.0.1 cloud", "10.1.0.4 cloud")
		w.synced()
		w.expect()
		w.end()
	})
}

// What may have been done is undone, though nothing was to be told of.
func TestRestartInDoubt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.synced()
		w.answers(func(ctx context.Context, _ Change) error { <-ctx.Done(); return ctx.Err() })
		w.says("10.1.0.4 cloud")
		w.expect("10.1.0.4 >cloud")
		w.answers(nil)
		w.start(Options{})
		w.synced()
		w.expect("10.1.0.4 >")
		w.end()
	})
}

// A dry run says what would be run, and the next life runs it.
func TestDry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.start(Options{Dry: true})
		w.synced()
		w.says("10.1.0.21 cloud")
		w.expect()
		if len(w.notices) != 1 || w.notices[0].Outcome != DryRun || w.notices[0].NewSite != "cloud" {
			t.Errorf("%+v", w.notices)
		}
		w.start(Options{})
		w.says("10.1.0.21 cloud")
		w.synced()
		w.expect("10.1.0.21 >cloud")
		w.end()
	})
}

// More hosts at once than may wait are the RIB's to keep.
func TestFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.state = "" // and no journal, which is written to the disk for each
		w.start(Options{})
		w.synced()
		hold := make(chan struct{})
		w.answers(func(context.Context, Change) error { <-hold; return nil })
		a := netip.MustParseAddr("10.0.0.0")
		batch := make([]route.Decision, maxWaiting+10)
		for i := range batch {
			batch[i] = route.Decision{Claim: route.Claim{Key: route.KeyOf(1, a), Site: "cloud"}}
			a = a.Next()
		}
		if err := w.Apply(t.Context(), batch); err == nil || !strings.Contains(err.Error(), "no room for 10 more") {
			t.Errorf("%v", err)
		}
		close(hold)
		synctest.Wait()
		if err := w.Apply(t.Context(), batch); err != nil {
			t.Errorf("%v", err)
		}
		w.end()
	})
}

// A torn line is as if it had not been written; another that cannot be read is named.
func TestJournal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sub", "hook")
	j, notes, err := openJournal(path)
	if err != nil || len(notes) != 0 {
		t.Fatal(notes, err)
	}
	a := netip.MustParseAddr("2001:db8:1::21")
	c := &Change{Event: "1", Tenant: "default", Address: a, NewSite: "cloud"}
	if err := errors.Join(j.append(line{Begun: c}), j.append(line{Done: &done{"1", "default", a}})); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	j.close()
	for cut := range len(whole) + 1 {
		notes, err := replay(whole[:cut])
		got := []string{}
		for _, n := range notes {
			got = append(got, fmt.Sprintf("%s %s, told %q, under way %v", n.Tenant, n.Address, n.told, n.begun != nil))
		}
		want := []string{"", `default 2001:db8:1::21, told "", under way true`, `default 2001:db8:1::21, told "cloud", under way false`}
		if s := strings.Join(got, "\n"); err != nil || s != want[strings.Count(string(whole[:cut]), "\n")] {
			t.Fatalf("cut at %d: %s, %v", cut, s, err)
		}
	}
	if err := os.WriteFile(path, []byte("{}\nnonsense\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := openJournal(path); err == nil || !strings.Contains(err.Error(), "line 2") || !strings.Contains(err.Error(), path) {
		t.Errorf("%v", err)
	}
}

// script is a hook that runs a real program.
func script(t *testing.T, text string, timeout time.Duration) *Hook {
	t.Helper()
	path := filepath.Join(t.TempDir(), "hook")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o755); err != nil {
		t.Fatal(err)
	}
	k, err := New(Options{Program: path, Timeout: timeout, Names: names{}})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// The program reads one JSON object; what it says when it fails is in the error.
func TestExecute(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	c := Change{
		Event: "17", Attempt: 2, Site: "cloud", Tenant: "default", Segment: "web", Address: netip.MustParseAddr("10.1.0.21"),
		OldSite: "dc1", NewSite: "cloud", Sequence: 7,
	}
	if err := script(t, "pwd; cat >"+out, time.Minute).execute(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"event":"17","attempt":2,"site":"cloud","tenant":"default","segment":"web","address":"10.1.0.21",` +
		`"old_site":"dc1","new_site":"cloud","sequence":7}` + "\n"
	if string(text) != want || !json.Valid(text) {
		t.Errorf("read %s, want %s", text, want)
	}
	err = script(t, "echo no such; echo machine >&2; exit 3", time.Minute).execute(t.Context(), c)
	if err == nil || err.Error() != "exit status 3: no such machine" || outcomeOf(err) != Failed {
		t.Errorf("%v", err)
	}
	k := script(t, "", time.Minute)
	k.Program = "/nonexistent"
	if err := k.execute(t.Context(), c); outcomeOf(err) != Failed {
		t.Errorf("%v", err)
	}
}

// What the manual shows is what the program reads, key by key.
func TestManual(t *testing.T) {
	text, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, shown, _ := strings.Cut(string(text), "```json\n{\"event\"")
	shown, _, _ = strings.Cut(`{"event"`+shown, "\n```")
	var c Change
	if err := json.Unmarshal([]byte(shown), &c); err != nil {
		t.Fatalf("%v: %s", err, shown)
	}
	if again, err := json.Marshal(c); err != nil || string(again) != shown {
		t.Errorf("%s, %v, and the manual shows %s", again, err, shown)
	}
}

// A program whose time is over ends with what it has started.
func TestTimeout(t *testing.T) {
	pid := filepath.Join(t.TempDir(), "pid")
	var text []byte
	for timeout := 100 * time.Millisecond; len(text) == 0; timeout *= 2 { // until it came so far
		err := script(t, "sleep 1000 & echo $! >"+pid+"; wait", timeout).execute(t.Context(), Change{})
		want := fmt.Sprintf("it was killed after %v", timeout)
		if err == nil || outcomeOf(err) != Timeout || !strings.HasPrefix(err.Error(), want) {
			t.Fatalf("%v, want %s", err, want)
		}
		text, _ = os.ReadFile(pid)
	}
	stat := "/proc/" + strings.TrimSpace(string(text)) + "/stat"
	for {
		b, err := os.ReadFile(stat)
		if err != nil || strings.Contains(string(b), ") Z ") {
			return
		}
		time.Sleep(10 * time.Millisecond) // it was killed, and is not gone yet
	}
}
