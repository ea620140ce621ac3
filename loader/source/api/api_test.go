package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"roam/loader/api"
	"roam/loader/route"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type fakeNames struct{ without string }

func (n fakeNames) TenantID(name string) (route.TenantID, bool) {
	id, ok := map[string]route.TenantID{"": 1, "default": 1, "blue": 2}[name]
	return id, ok && (n.without == "" || name != n.without)
}

func (fakeNames) TenantName(id route.TenantID) string { return []string{"", "default", "blue"}[id] }

func (fakeNames) SiteLocators(string) ([]route.Locator, bool, bool) { return nil, false, false }

// fakeRIB is a Reporter and Held that remembers what it was told, by key, as text.
type fakeRIB struct {
	sync.Mutex
	routes, heard map[route.Key]route.Claim
	refuse        error
	hold          chan struct{} // until it is closed, long changes are under way; nil: never
}

func newRIB() *fakeRIB { return &fakeRIB{routes: make(map[route.Key]route.Claim)} }

func (r *fakeRIB) Begin(context.Context) error {
	r.Lock()
	defer r.Unlock()
	r.heard = make(map[route.Key]route.Claim)
	return nil
}

func (r *fakeRIB) Report(_ context.Context, changes []route.Change) error {
	if r.hold != nil && len(changes) > short {
		<-r.hold
	}
	r.Lock()
	defer r.Unlock()
	if r.refuse != nil {
		return r.refuse
	}
	for _, c := range changes {
		for _, m := range []map[route.Key]route.Claim{r.routes, r.heard} {
			switch {
			case m == nil:
			case c.Withdraw:
				delete(m, c.Key)
			default:
				m[c.Key] = c.Claim
			}
		}
	}
	return nil
}

func (r *fakeRIB) Synced(context.Context) error {
	r.Lock()
	defer r.Unlock()
	r.routes, r.heard = r.heard, nil
	return nil
}

func (r *fakeRIB) Has(_ context.Context, key route.Key) (bool, error) {
	r.Lock()
	defer r.Unlock()
	_, ok := r.routes[key]
	return ok, nil
}

func (r *fakeRIB) Each(_ context.Context, f func(*route.Claim) error) error {
	r.Lock()
	all := slices.Collect(maps.Values(r.routes))
	r.Unlock()
	return claimsOf(changesOf(all))(f)
}

func changesOf(claims []route.Claim) []route.Change {
	out := make([]route.Change, len(claims))
	for i := range claims {
		out[i].Claim = claims[i]
	}
	return out
}

// state is everything held, one sorted line each.
func (r *fakeRIB) state() string {
	r.Lock()
	defer r.Unlock()
	return text(slices.Collect(maps.Values(r.routes)))
}

func text(claims []route.Claim) string {
	w := api.NewRouteWriter(api.JSONL, fakeNames{})
	var lines []string
	for i := range claims {
		lines = append(lines, string(w.Append(nil, &claims[i])))
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}

// start runs a source on a journal until stop is called.
func start(t *testing.T, path string, rib *fakeRIB) (s *Source, stop func()) {
	t.Helper()
	s = New(path, fakeNames{}, rib, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, rib) }()
	select {
	case <-s.Ready():
	case err := <-done:
		cancel()
		t.Fatalf("did not start: %v", err)
	}
	return s, sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("ended with %v", err)
		}
	})
}

func add(prefix, via string) route.Change {
	c := route.Change{Claim: route.Claim{Key: route.Key{Tenant: 1, Prefix: netip.MustParsePrefix(prefix)}}}
	if via == "" {
		c.Local = &route.Local{}
		return c
	}
	c.Via = &route.Via{Locators: []route.Locator{{Address: netip.MustParseAddr(via), Priority: 1, Weight: 100}}}
	return c
}

func del(prefix string) route.Change {
	return route.Change{Claim: route.Claim{Key: route.Key{Tenant: 1, Prefix: netip.MustParsePrefix(prefix)}}, Withdraw: true}
}

func TestRoutesOutliveTheDaemon(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sub", "routes.jsonl")
	rib := newRIB()
	s, stop := start(t, path, rib)
	defer stop()
	for _, changes := range [][]route.Change{
		{add("10.0.0.1/32", "192.0.2.2"), add("2001:db8::1/128", "2001:db8:ff::2"), add("10.0.0.2/32", "")},
		{add("10.0.0.1/32", "192.0.2.3")},
		{del("10.0.0.2/32")},
	} {
		if err := s.Inject(t.Context(), changes); err != nil {
			t.Fatal(err)
		}
	}
	want := rib.state()
	stop()
	if !strings.Contains(want, "192.0.2.3") || strings.Contains(want, "10.0.0.2") || strings.Count(want, "\n") != 2 {
		t.Fatalf("held\n%s", want)
	}
	fresh := newRIB()
	_, stop = start(t, path, fresh)
	stop()
	if got := fresh.state(); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	if data, _ := os.ReadFile(path); len(data) == 0 || bytes.Contains(data, []byte("begin")) {
		t.Errorf("the journal was not compacted:\n%s", data)
	}
}

func TestWithdrawWhatIsNotThere(t *testing.T) {
	s, stop := start(t, filepath.Join(t.TempDir(), "j"), newRIB())
	defer stop()
	var e *api.Error
	err := s.Inject(t.Context(), []route.Change{del("10.0.0.7/32")})
	if !errors.As(err, &e) || e.Status != 404 || !strings.Contains(e.Hint, "route get 10.0.0.7 ") {
		t.Errorf("got %#v", err)
	}
}

func TestFlush(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j")
	rib := newRIB()
	s, stop := start(t, path, rib)
	defer stop()
	if err := s.Inject(t.Context(), []route.Change{add("10.0.0.1/32", "192.0.2.2"), add("10.0.0.2/32", "192.0.2.2")}); err != nil {
		t.Fatal(err)
	}
	if n, err := s.Flush(t.Context()); n != 2 || err != nil || rib.state() != "" {
		t.Errorf("flushed %d, %v; held\n%s", n, err, rib.state())
	}
	if err := s.Inject(t.Context(), []route.Change{add("10.0.0.3/32", "192.0.2.2")}); err != nil {
		t.Fatal(err)
	}
	stop()
	data, _ := os.ReadFile(path)
	if want := `{"prefix":"10.0.0.3/32","tenant":"default","via":["192.0.2.2"]}` + "\n"; string(data) != want {
		t.Errorf("journal is\n%swant\n%s", data, want)
	}
}

// What the RIB refuses is not on disk either.
func TestRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j")
	rib := newRIB()
	s, stop := start(t, path, rib)
	defer stop()
	if err := s.Inject(t.Context(), []route.Change{add("10.0.0.1/32", "192.0.2.2")}); err != nil {
		t.Fatal(err)
	}
	want, _ := os.ReadFile(path)
	rib.Lock()
	rib.refuse = errors.New("no")
	rib.Unlock()
	if err := s.Inject(t.Context(), []route.Change{add("10.0.0.2/32", "192.0.2.2"), add("10.0.0.3/32", "192.0.2.2")}); err == nil {
		t.Error("accepted")
	}
	if got, _ := os.ReadFile(path); string(got) != string(want) {
		t.Errorf("journal is\n%swant\n%s", got, want)
	}
}

// A disk that refuses leaves the RIB as it was, and a daemon that says so.
func TestDiskRefuses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j")
	j, _, err := openJournal(path, fakeNames{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	j.close()
	readOnly, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer readOnly.Close()
	j.file = readOnly
	rib := newRIB()
	s := New(path, fakeNames{}, rib, slog.New(slog.DiscardHandler))
	k := &keeper{Source: s, journal: j, disk: newDisk(j), to: rib}
	if err := k.take(t.Context(), work{changes: []route.Change{add("10.0.0.1/32", "192.0.2.2")}}); err == nil || rib.state() != "" {
		t.Errorf("error %v, held\n%s", err, rib.state())
	}
	if err := j.append(nil); err == nil || !strings.Contains(err.Error(), "restart the daemon") {
		t.Errorf("a journal in doubt was written: %v", err)
	}
}

// A disk that fails later: nobody is told that his change is kept, and nothing more is taken.
func TestDiskFails(t *testing.T) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0) // writes succeed, syncs do not
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	j := &journal{path: "j", file: null, out: newOut(), names: fakeNames{}}
	d := newDisk(j)
	answers := make(chan error, 3)
	for range 3 {
		if err := j.append([]route.Change{add("10.0.0.1/32", "192.0.2.2")}); err != nil {
			t.Fatal(err)
		}
		d.await(answers)
	}
	d.finish()
	for range 3 {
		if err := <-answers; err == nil || !strings.Contains(err.Error(), "in force, but the machine may not remember it") {
			t.Errorf("answered with %v", err)
		}
	}
	if err := j.append(nil); err == nil {
		t.Error("a journal in doubt was written")
	}
}

// A crash may leave any number of bytes: what is found then is the state after some whole change, and no earlier
// one than the last that had been answered.
func TestTornAnywhere(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j")
	j, _, err := openJournal(path, fakeNames{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	rib := newRIB()
	type step struct {
		size  int64
		state string
	}
	steps := []step{{}}
	for _, changes := range [][]route.Change{
		{add("10.0.0.1/32", "192.0.2.2")},
		{add("10.0.0.2/32", "192.0.2.2"), add("10.0.0.1/32", "192.0.2.3"), del("10.0.0.2/32"), add("10.0.0.4/32", "")},
		{del("10.0.0.1/32")},
		nil, // flush
		{add("10.0.0.5/32", "192.0.2.2"), add("10.0.0.6/32", "192.0.2.2")},
	} {
		if changes == nil {
			err = errors.Join(j.flush(), rib.Begin(t.Context()), rib.Synced(t.Context()))
		} else {
			err = errors.Join(j.append(changes), rib.Report(t.Context(), changes))
		}
		if err != nil {
			t.Fatal(err)
		}
		steps = append(steps, step{j.size, rib.state()})
	}
	j.close()
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for size := range len(whole) + 1 {
		torn := filepath.Join(t.TempDir(), "torn")
		if err := os.WriteFile(torn, whole[:size], 0o600); err != nil {
			t.Fatal(err)
		}
		want := ""
		for _, s := range steps {
			if s.size <= int64(size) {
				want = s.state
			}
		}
		j, changes, err := openJournal(torn, fakeNames{}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		if got := text(claims(changes)); got != want {
			t.Fatalf("%d bytes:\n%s\ngot\n%swant\n%s", size, whole[:size], got, want)
		}
		// And it goes on from there.
		if err := j.append([]route.Change{add("10.9.9.9/32", "192.0.2.9")}); err != nil {
			t.Fatal(err)
		}
		j.close()
		j, changes, err = openJournal(torn, fakeNames{}, slog.New(slog.DiscardHandler))
		if err != nil || len(changes) != strings.Count(want, "\n")+1 {
			t.Fatalf("%d bytes, one more change: %d routes, %v", size, len(changes), err)
		}
		j.close()
	}
}

func claims(changes []route.Change) []route.Claim {
	out := make([]route.Claim, len(changes))
	for i := range changes {
		out[i] = changes[i].Claim
	}
	return out
}

func TestDamage(t *testing.T) {
	good := `{"prefix":"10.0.0.1/32","tenant":"default","via":["192.0.2.2"]}` + "\n"
	for _, test := range []struct{ in, want string }{
		{good + "garbage\n" + good, "line 2: "},
		{good + "{\"begin\":2}\n" + good + "{\"commit\":2}\n", "line 4: begin or commit stands at a wrong place"},
		{"{\"commit\":2}\n", "line 1: begin or commit stands at a wrong place"},
		{"{\"begin\":1}\n" + good + good, `line 3: {"commit":1} is expected`},
		{strings.Repeat("x", 70000) + "\n", "line 1: longer than 65536 bytes"},
		{`{"prefix":"10.0.0.1/33","via":["192.0.2.2"]}` + "\n", `line 1: "10.0.0.1/33" is no prefix`},
	} {
		path := filepath.Join(t.TempDir(), "j")
		if err := os.WriteFile(path, []byte(test.in), 0o600); err != nil {
			t.Fatal(err)
		}
		s := New(path, fakeNames{}, newRIB(), slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		err := s.Run(ctx, newRIB())
		cancel()
		if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), "move the file away") {
			t.Errorf("%.100q\n got %v\nwant %s", test.in, err, test.want)
		}
		if after, _ := os.ReadFile(path); string(after) != test.in {
			t.Errorf("a damaged journal was changed: %.100q", after)
		}
		if err := s.Inject(t.Context(), []route.Change{add("10.0.0.1/32", "192.0.2.2")}); err == nil {
			t.Error("a source that does not run takes changes")
		}
	}
}

// Routes of a tenant that has gone wait in the file until it is back.
func TestOrphans(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j")
	rib := newRIB()
	s, stop := start(t, path, rib)
	blue := add("10.0.0.1/32", "192.0.2.2")
	blue.Tenant = 2
	if err := s.Inject(t.Context(), []route.Change{blue, add("10.0.0.1/32", "192.0.2.3")}); err != nil {
		t.Fatal(err)
	}
	want := rib.state()
	stop()
	j, changes, err := openJournal(path, fakeNames{without: "blue"}, slog.New(slog.DiscardHandler))
	if err != nil || len(changes) != 1 {
		t.Fatalf("%d routes, %v", len(changes), err)
	}
	if err := j.rewrite(claimsOf(changes)); err != nil {
		t.Fatal(err)
	}
	j.close()
	back := newRIB()
	_, stop = start(t, path, back)
	stop()
	if got := back.state(); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// Random changes with restarts in between, against what the RIB was told.
func TestRandom(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	path := filepath.Join(t.TempDir(), "j")
	rib := newRIB()
	s, stop := start(t, path, rib)
	defer func() { stop() }()
	for i := range 300 {
		switch n := rng.IntN(20); {
		case n == 0:
			want := rib.state()
			stop()
			rib = newRIB()
			s, stop = start(t, path, rib)
			if got := rib.state(); got != want {
				t.Fatalf("after %d changes: got\n%swant\n%s", i, got, want)
			}
		case n == 1:
			if _, err := s.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
		default:
			changes := make([]route.Change, 1+rng.IntN(4))
			for k := range changes {
				changes[k] = add(fmt.Sprintf("10.0.0.%d/32", rng.IntN(16)), fmt.Sprintf("192.0.2.%d", 1+rng.IntN(9)))
				if has, _ := rib.Has(t.Context(), changes[k].Key); has && rng.IntN(2) == 0 {
					changes[k] = route.Change{Claim: route.Claim{Key: changes[k].Key}, Withdraw: true}
				}
			}
			if err := s.Inject(t.Context(), changes); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func FuzzJournal(f *testing.F) {
	f.Add([]byte("{\"begin\":2}\n{\"prefix\":\"10.0.0.1/32\",\"via\":[\"192.0.2.2\"]}\n{\"withdraw\":{\"prefix\":\"10.0.0.1/32\",\"tenant\":\"\"}}\n{\"commit\":2}\n{\"flush\":true}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "j")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		j, changes, err := openJournal(path, fakeNames{}, slog.New(slog.DiscardHandler))
		if err != nil {
			return
		}
		want := text(claims(changes))
		if err := j.append([]route.Change{add("10.9.9.9/32", ""), del("10.9.9.9/32")}); err != nil {
			t.Fatal(err)
		}
		had := strings.Contains(want, `"10.9.9.9/32","tenant":"default"`)
		j.close()
		j, changes, err = openJournal(path, fakeNames{}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		j.close()
		if got := text(claims(changes)); got != want && !had {
			t.Fatalf("got\n%swant\n%s", got, want)
		}
	})
}

func BenchmarkInject(b *testing.B) {
	const n = 1_000_000
	changes := make([]route.Change, n)
	via := add("10.0.0.0/32", "192.0.2.2").Via
	for i := range changes {
		changes[i].Claim = route.Claim{Key: route.KeyOf(1, netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})), Via: via}
	}
	for b.Loop() {
		b.StopTimer()
		path := filepath.Join(b.TempDir(), "j")
		j, _, err := openJournal(path, fakeNames{}, slog.New(slog.DiscardHandler))
		if err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		start := time.Now()
		if err := j.append(changes); err != nil {
			b.Fatal(err)
		}
		j.close()
		written := time.Now()
		j, loaded, err := openJournal(path, fakeNames{}, slog.New(slog.DiscardHandler))
		if err != nil || len(loaded) != n {
			b.Fatal(len(loaded), err)
		}
		j.close()
		b.ReportMetric(written.Sub(start).Seconds(), "s/append")
		b.ReportMetric(time.Since(written).Seconds(), "s/load")
	}
}

// A change makes next to no garbage: hundreds a second would have the collector at work all the time, and each change wait for it now and then.
func TestChangesMakeLittleGarbage(t *testing.T) {
	j, _, err := openJournal(filepath.Join(t.TempDir(), "j"), fakeNames{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer j.close()
	const writes = 100
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range writes {
		if err := j.append([]route.Change{add("10.0.0.1/32", "192.0.2.2")}); err != nil {
			t.Fatal(err)
		}
	}
	runtime.ReadMemStats(&after)
	if each := (after.TotalAlloc - before.TotalAlloc) / writes; each > 16<<10 {
		t.Errorf("%d bytes for each change", each)
	}
}
