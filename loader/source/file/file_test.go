package file

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"roam/loader/route"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func tenants(name string) (route.TenantID, bool) {
	id, ok := map[string]route.TenantID{"": 1, "default": 1, "blue": 2}[name]
	return id, ok
}

func locator(s string) route.Locator {
	return route.Locator{Address: netip.MustParseAddr(s), Priority: 1, Weight: 100}
}

func claim(prefix string, locators ...route.Locator) route.Change {
	return route.Change{Claim: route.Claim{
		Key: route.Key{Tenant: 1, Prefix: netip.MustParsePrefix(prefix)}, Via: &route.Via{Locators: locators},
	}}
}

var right = `
# Hosts that moved.
- prefix: 10.1.0.7/32
  via: [192.0.2.2]
- {prefix: "2001:db8:1::7", tenant: blue, mac: 02:00:00:00:00:07, pinned: true, via: "2001:db8:ff::2"}
- prefix: 10.2.0.0/16
  tenant: default
  via:
    - {address: 192.0.2.2, encap: vxlan, priority: 2, weight: 50, router_mac: "02:00:00:00:00:09"}
    - 192.0.2.3
`

func TestParse(t *testing.T) {
	blue := claim("2001:db8:1::7/128", locator("2001:db8:ff::2"))
	blue.Tenant, blue.MAC, blue.Pinned = 2, route.MAC{2, 0, 0, 0, 0, 7}, true
	first := route.Locator{Address: netip.MustParseAddr("192.0.2.2"), Priority: 2, Weight: 50, RouterMAC: route.MAC{2, 0, 0, 0, 0, 9}}
	got, err := Parse("routes.yaml", []byte(right), tenants)
	if err != nil {
		t.Fatal(err)
	}
	want := []route.Change{claim("10.1.0.7/32", locator("192.0.2.2")), blue, claim("10.2.0.0/16", first, locator("192.0.2.3"))}
	opts := cmp.Options{cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })}
	if d := cmp.Diff(want, got, opts); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
	for _, empty := range []string{"", "# nothing\n", "[]", "---\n"} {
		if got, err := Parse("routes.yaml", []byte(empty), tenants); err != nil || len(got) != 0 {
			t.Errorf("%q: %v, %v", empty, got, err)
		}
	}
}

func TestWrong(t *testing.T) {
	for _, test := range []struct{ in, want string }{
		{"prefix: 10.1.0.7/32", `r:1:1: a list of routes is expected: start each with "- prefix: ..."`},
		{"- 10.1.0.7/32", `r:1:3: a mapping with the keys prefix, tenant, mac, pinned, via is expected`},
		{"- [", `r:1:3: not YAML: sequence end token ']' not found`},
		{"- {prefix: 10.1.0.7/32, via: 192.0.2.2}\n---\n- {}", `r:3:1: one document is expected: remove the second "---"`},
		{"- {prefix: 10.1.0.7/32, locator: 192.0.2.2}", `r:1:25: unknown key locator: known here are prefix, tenant, mac, pinned, via
r:1:3: via is missing: give the locators, such as via: [192.0.2.2]`},
		{"- {via: 192.0.2.2}", `r:1:3: prefix is missing`},
		{"- {prefix: , via: 192.0.2.2}", `r:1:3: prefix is missing`},
		{"- {prefix: [10.1.0.7], via: 192.0.2.2}", `r:1:12: a single value is expected`},
		{"- {prefix: 10.1.0.256, via: 192.0.2.2}", `r:1:12: "10.1.0.256" is no prefix such as 10.1.0.7/32 or "2001:db8:1::7/128"`},
		{"- {prefix: 10.1.0.7/24, via: 192.0.2.2}", `r:1:12: 10.1.0.7/24 has bits set to the right of its length: write 10.1.0.0/24`},
		{"- {prefix: 224.0.0.5/32, via: 192.0.2.2}", `r:1:12: 224.0.0.5 is a multicast address`},
		{"- {prefix: \"::ffff:10.1.0.7\", via: 192.0.2.2}", `r:1:12: ::ffff:10.1.0.7 is an IPv4-mapped IPv6 address: write 10.1.0.7`},
		{"- {prefix: 10.1.0.7, tenant: red, via: 192.0.2.2}", `r:1:30: no tenant is named "red": add it to the configuration, or correct the name`},
		{"- {prefix: 10.1.0.7, mac: 020000000007, via: 192.0.2.2}", `r:1:27: "020000000007" is not a MAC address such as 02:00:00:00:00:01`},
		{"- {prefix: 10.1.0.7, mac: \"ff:ff:ff:ff:ff:ff\", via: 192.0.2.2}", `r:1:27: ff:ff:ff:ff:ff:ff is a multicast MAC address: a station's has an even first byte`},
		{"- {prefix: 10.1.0.7, pinned: maybe, via: 192.0.2.2}", `r:1:30: "maybe" is neither true nor false`},
		{"- {prefix: 10.1.0.7}", `r:1:3: via is missing: give the locators, such as via: [192.0.2.2]`},
		{"- {prefix: 10.1.0.7, via: []}", `r:1:27: via is missing: give the locators, such as via: [192.0.2.2]`},
		{"- {prefix: 10.1.0.7, via: [gw2]}", `r:1:28: "gw2" is no address such as 192.0.2.2 or "2001:db8:ff::2"`},
		{"- {prefix: 10.1.0.7, via: [127.0.0.1]}", `r:1:28: 127.0.0.1 is a loopback address`},
		{"- {prefix: 10.1.0.7, via: [192.0.2.2, 192.0.2.2]}", `r:1:39: locator 192.0.2.2 is given twice`},
		{"- {prefix: 10.1.0.7, via: [{encap: vxlan}]}", `r:1:28: address is missing`},
		{"- {prefix: 10.1.0.7, via: [{address: 192.0.2.2, encap: x}]}", `r:1:56: unknown encapsulation "x": use one of vxlan, vxlan-gpe, geneve, gre, ipip, gue, lisp, geneve-l2, gre-nokey`},
		{"- {prefix: 10.1.0.7, via: [{address: 192.0.2.2, priority: 256, weight: 0}]}", `r:1:59: "256" is no number from 0 to 255
r:1:72: "0" is no number from 1 to 255`},
		{"- {prefix: 10.1.0.7, via: 192.0.2.2}\n- {prefix: 10.1.0.7/32, via: 192.0.2.3}", `r:2:12: 10.1.0.7/32 is already on line 1: give all its locators there`},
		{"- &a {prefix: 10.1.0.7, via: 192.0.2.2}", `r:1:3: a mapping with the keys prefix, tenant, mac, pinned, via is expected`},
	} {
		got, err := Parse("r", []byte(test.in), tenants)
		if err == nil || err.Error() != test.want {
			t.Errorf("%s\n got %v\nwant %s", test.in, err, test.want)
		}
		if got != nil {
			t.Errorf("%s: an error and routes", test.in)
		}
	}
}

func TestManyErrors(t *testing.T) {
	_, err := Parse("r", []byte(strings.Repeat("- {}\n", 1000)), tenants)
	if lines := strings.Split(err.Error(), "\n"); len(lines) != maxErrors+1 || lines[maxErrors] != "r: and more" {
		t.Errorf("%d lines: %v", len(lines), lines[len(lines)-1])
	}
}

// fakeRIB hands every full report on.
type fakeRIB struct {
	reports chan string
	heard   []string
}

func (r *fakeRIB) Begin(context.Context) error { r.heard = nil; return nil }

func (r *fakeRIB) Report(_ context.Context, changes []route.Change) error {
	for _, c := range changes {
		r.heard = append(r.heard, c.Prefix.String())
	}
	return nil
}

func (r *fakeRIB) Synced(ctx context.Context) error {
	select {
	case r.reports <- strings.Join(r.heard, " "):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// follower runs a source on a path.
type follower struct {
	*testing.T
	*Source
	path    string
	reports chan string
	warned  chan string
}

func follow(t *testing.T, path string) *follower { return followFor(t, path, 50*time.Millisecond) }

// followFor takes the file for gone after a while.
func followFor(t *testing.T, path string, absence time.Duration) *follower {
	f := &follower{T: t, path: path, reports: make(chan string), warned: make(chan string, 100)}
	f.Source = New(path, tenants, slog.New(slog.NewTextHandler(notes{f.warned}, nil)))
	f.absence = absence
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- f.Source.Run(ctx, &fakeRIB{reports: f.reports}) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("ended with %v", err)
		}
	})
	return f
}

// notes hands log lines on.
type notes struct{ to chan string }

func (n notes) Write(b []byte) (int, error) {
	n.to <- string(b)
	return len(b), nil
}

func (f *follower) expect(want string) {
	f.Helper()
	for {
		select {
		case got := <-f.reports:
			if got == want {
				return
			}
			f.Fatalf("reported %q, want %q", got, want)
		case <-time.After(10 * time.Second):
			f.Fatalf("nothing was reported, want %q; error %v", want, f.Err())
		}
	}
}

// expectError waits for a log line and checks that nothing was reported.
func (f *follower) expectError(want string) {
	f.Helper()
	select {
	case got := <-f.reports:
		f.Fatalf("reported %q, want the error %q", got, want)
	case line := <-f.warned:
		if !strings.Contains(line, want) {
			f.Fatalf("logged %q, want %q", line, want)
		}
	case <-time.After(10 * time.Second):
		f.Fatalf("no error %q", want)
	}
	if err := f.Err(); err == nil || !strings.Contains(err.Error(), want) {
		f.Fatalf("Err is %v, want %q", err, want)
	}
}

func file(hosts ...int) []byte {
	var b strings.Builder
	for _, h := range hosts {
		fmt.Fprintf(&b, "- {prefix: 10.1.0.%d, via: 192.0.2.2}\n", h)
	}
	return []byte(b.String())
}

func (f *follower) write(path string, data []byte) {
	f.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		f.Fatal(err)
	}
}

func (f *follower) must(err error) {
	f.Helper()
	if err != nil {
		f.Fatal(err)
	}
}

func TestFollow(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "sub", "routes.yaml")
	f := follow(t, path)
	f.expect("")
	f.expectError("does not exist")

	f.must(os.Mkdir(filepath.Dir(path), 0o755))
	f.expect("") // still missing
	f.write(path, file(1))
	f.expect("10.1.0.1/32")

	f.write(path, file(1, 2))
	f.expect("10.1.0.1/32 10.1.0.2/32")

	f.write(path+".new", file(3))
	f.must(os.Rename(path+".new", path))
	f.expect("10.1.0.3/32")
	<-f.warned // in force again

	f.write(path, []byte("- {prefix: 10.1.0.300, via: 192.0.2.2}\n"))
	f.expectError(path + ":1:12: ")
	f.write(path, file(4))
	f.expect("10.1.0.4/32")
	<-f.warned // in force again
	if err := f.Err(); err != nil {
		t.Errorf("Err is still %v", err)
	}

	f.must(os.Remove(path))
	f.expect("")
}

// A writer that is not done is not read, however long it takes.
func TestHalfWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "routes.yaml")
	if err := os.WriteFile(path, file(1, 2), 0o600); err != nil {
		t.Fatal(err)
	}
	f := follow(t, path)
	f.expect("10.1.0.1/32 10.1.0.2/32")
	w, err := os.Create(path) // empties it
	f.must(err)
	_, err = w.Write(file(3))
	f.must(err)
	f.must(w.Sync())
	// A folder makes an event that is looked into, after those of the unfinished write.
	f.must(os.Mkdir(filepath.Join(filepath.Dir(path), "other"), 0o700))
	select {
	case got := <-f.reports:
		t.Fatalf("a half-written file was reported: %q", got)
	case <-time.After(100 * time.Millisecond):
	}
	_, err = w.Write(file(4))
	f.must(err)
	f.must(w.Close())
	f.expect("10.1.0.3/32 10.1.0.4/32")
}

// Some editors move the file away before they write the new one: nothing is withdrawn in between.
func TestMovedAwayAndBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "routes.yaml")
	if err := os.WriteFile(path, file(1), 0o600); err != nil {
		t.Fatal(err)
	}
	f := followFor(t, path, time.Hour)
	f.expect("10.1.0.1/32")
	f.must(os.Rename(path, path+"~"))
	f.write(path, file(2))
	f.expect("10.1.0.2/32")
}

// A link that is swung to another folder, as Kubernetes does with its volumes.
func TestLink(t *testing.T) {
	dir := t.TempDir()
	for i, name := range []string{"one", "two"} {
		if err := errors.Join(os.Mkdir(filepath.Join(dir, name), 0o755), os.WriteFile(filepath.Join(dir, name, "r"), file(i+1), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	link := filepath.Join(dir, "routes.yaml")
	if err := os.Symlink("one/r", link); err != nil {
		t.Fatal(err)
	}
	f := follow(t, link)
	f.expect("10.1.0.1/32")
	f.must(os.Symlink("two/r", link+".new"))
	f.must(os.Rename(link+".new", link))
	f.expect("10.1.0.2/32")
	f.write(filepath.Join(dir, "two", "r"), file(3))
	f.expect("10.1.0.3/32")
}

func TestReload(t *testing.T) {
	dir := t.TempDir()
	one, two := filepath.Join(dir, "one"), filepath.Join(dir, "two")
	for i, path := range []string{one, two} {
		if err := os.WriteFile(path, file(i+1), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f := follow(t, "")
	f.expect("")
	f.Reload(one)
	f.expect("10.1.0.1/32")
	f.Reload(one)
	f.expect("10.1.0.1/32")
	f.Reload(two)
	f.expect("10.1.0.2/32")
	f.Reload("")
	f.expect("")
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(right))
	f.Add([]byte("[{prefix: 10.1.0.7, via: [{address: 192.0.2.2, weight: 1}]}]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		changes, err := Parse("f", data, tenants)
		if err != nil {
			return
		}
		seen := make(map[route.Key]bool)
		for _, c := range changes {
			valid := slices.ContainsFunc(c.Via.Locators, func(l route.Locator) bool { return l.Valid() == nil })
			if err := errors.Join(c.Key.Valid(), route.ValidPrefix(c.Prefix), c.MAC.Valid()); err != nil || !valid || seen[c.Key] {
				t.Fatalf("%v: %v, seen %t", c, err, seen[c.Key])
			}
			seen[c.Key] = true
		}
	})
}
