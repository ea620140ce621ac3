package fib

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netns"
	"go.uber.org/goleak"

	"roam/loader/route"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// space is a network namespace of one test: an underlay interface with a network on it.
type space struct {
	*testing.T
	ns netns.NsHandle
}

// newSpace moves the test's goroutine into a new namespace, which ends with the test.
func newSpace(t *testing.T) *space {
	t.Helper()
	runtime.LockOSThread() // and never unlocked: the thread, and with it the namespace, ends with the goroutine
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	s := &space{t, ns}
	s.ip("link set lo up")
	s.ip("link add wan0 type veth peer name wan0-far")
	s.ip("link set wan0-far up")
	s.ip("addr add 192.0.2.1/24 dev wan0")
	s.ip("addr add 2001:db8:ff::1/64 dev wan0 nodad")
	s.ip("link set wan0 up")
	return s
}

func (s *space) ip(args string) {
	s.Helper()
	if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
		s.Fatalf("ip %s: %v\n%s", args, err, out)
	}
}

// settled waits until the kernel has said of the underlay's cable that it is up: it takes its time, and what it says then is
// a doubt.
func (s *space) settled() {
	s.Helper()
	for _, link := range []string{"wan0", "wan0-far"} {
		for end := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
			out, err := exec.Command("ip", "link", "show", link).CombinedOutput()
			if err == nil && strings.Contains(string(out), "state UP") {
				break
			}
			if time.Now().After(end) {
				s.Fatalf("%s does not come up: %v\n%s", link, err, out)
			}
		}
	}
}

// batch runs many ip commands in one process.
func (s *space) batch(commands string) {
	s.Helper()
	cmd := exec.Command("ip", "-batch", "-")
	cmd.Stdin = strings.NewReader(commands)
	if out, err := cmd.CombinedOutput(); err != nil {
		s.Fatalf("ip -batch: %v\n%s", err, out)
	}
}

// follow runs a source in the namespace until the test ends.
func (s *space) follow(o Options) (*Source, *twin) {
	s.Helper()
	source, heard := New(o), newTwin()
	s.run(source, heard)
	heard.await(s.T, "the first full report", func() bool { return heard.synced > 0 })
	return source, heard
}

func (s *space) run(source *Source, heard *twin) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if err := netns.Set(s.ns); err != nil {
			done <- err
			return
		}
		done <- source.Run(ctx, heard)
	}()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				s.Errorf("Run: %v", err)
			}
		})
	}
	s.Cleanup(stop)
	return stop
}

// twin is the plainest RIB: it holds what one source says.
type twin struct {
	mu      sync.Mutex
	changed *sync.Cond
	claims  map[route.Key]route.Claim
	fresh   map[route.Key]bool
	synced  int
	reports int
}

func newTwin() *twin {
	w := &twin{claims: make(map[route.Key]route.Claim)}
	w.changed = sync.NewCond(&w.mu)
	return w
}

func (w *twin) Begin(context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fresh = make(map[route.Key]bool)
	return nil
}

func (w *twin) Report(_ context.Context, changes []route.Change) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	defer w.changed.Broadcast()
	w.reports++
	for _, c := range changes {
		if err := c.Key.Valid(); err != nil {
			return err
		}
		if c.Withdraw {
			delete(w.claims, c.Key)
			continue
		}
		if (c.Via == nil) != c.Reject || c.Local != nil {
			return errors.New("a claim must be via or reject")
		}
		w.claims[c.Key] = c.Claim
		if w.fresh != nil {
			w.fresh[c.Key] = true
		}
	}
	return nil
}

func (w *twin) Synced(context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	defer w.changed.Broadcast()
	for k := range w.claims {
		if w.fresh != nil && !w.fresh[k] {
			delete(w.claims, k)
		}
	}
	w.fresh = nil
	w.synced++
	return nil
}

// await waits until cond holds; it is called with the twin locked, after every change.
func (w *twin) await(t *testing.T, what string, cond func() bool) {
	t.Helper()
	late := false
	timer := time.AfterFunc(20*time.Second, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		late = true
		w.changed.Broadcast()
	})
	defer timer.Stop()
	w.mu.Lock()
	defer w.mu.Unlock()
	for !cond() {
		if late {
			t.Fatalf("waited in vain for %s; %d claims are held: %.500s", what, len(w.claims), w.list())
		}
		w.changed.Wait()
	}
}

func (w *twin) list() string {
	var b strings.Builder
	for k, c := range w.claims {
		fmt.Fprintf(&b, "%s %s\n", k, where(c))
	}
	return b.String()
}

// where spells a claim's target: addresses with weights and router MACs, or "reject".
func where(c route.Claim) string {
	if c.Reject {
		return "reject"
	}
	var parts []string
	for _, l := range c.Via.Locators {
		part := fmt.Sprintf("%s*%d", l.Address, l.Weight)
		if !l.RouterMAC.IsZero() {
			part += "@" + l.RouterMAC.String()
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, " ")
}

// has waits for one prefix of tenant 1 to lead somewhere; "" waits for it to be gone.
func (w *twin) has(t *testing.T, prefix, to string) {
	t.Helper()
	k := route.Key{Tenant: 1, Prefix: netip.MustParsePrefix(prefix)}
	w.await(t, fmt.Sprintf("%s to lead to %q", prefix, to), func() bool {
		c, ok := w.claims[k]
		return !ok && to == "" || ok && where(c) == to
	})
}

var table100 = Table{ID: 100, Tenant: 1, VNI: 7001, Locator: route.Locator{Priority: 1, Weight: 100}}

// Each step is what a user types, and where the prefix leads afterwards.
func TestSteps(t *testing.T) {
	type step struct{ ip, prefix, to string }
	tests := map[string][]step{
		"host": {
			{"route add 10.1.0.7/32 via 192.0.2.2 table 100", "10.1.0.7/32", "192.0.2.2*100"},
			{"route replace 10.1.0.7/32 via 192.0.2.3 table 100", "10.1.0.7/32", "192.0.2.3*100"},
			{"route del 10.1.0.7/32 table 100", "10.1.0.7/32", ""},
		},
		"host, IPv6": {
			{"route add 2001:db8:1::7/128 via 2001:db8:ff::2 table 100", "2001:db8:1::7/128", "2001:db8:ff::2*100"},
			{"route replace 2001:db8:1::7/128 via 2001:db8:ff::3 table 100", "2001:db8:1::7/128", "2001:db8:ff::3*100"},
			{"route del 2001:db8:1::7/128 table 100", "2001:db8:1::7/128", ""},
		},
		"prefix and default": {
			{"route add 10.9.0.0/16 via 192.0.2.2 table 100", "10.9.0.0/16", "192.0.2.2*100"},
			{"route add default via 192.0.2.2 table 100", "0.0.0.0/0", "192.0.2.2*100"},
			{"-6 route add default via 2001:db8:ff::2 table 100", "::/0", "2001:db8:ff::2*100"},
		},
		"onlink": {
			{"route add 10.1.0.7/32 via 198.51.100.9 dev wan0 onlink table 100", "10.1.0.7/32", "198.51.100.9*100"},
		},
		"IPv4 behind an IPv6 next hop": {
			{"route add 10.1.0.7/32 via inet6 2001:db8:ff::2 dev wan0 table 100", "10.1.0.7/32", "2001:db8:ff::2*100"},
			{"route replace 10.1.0.7/32 via 192.0.2.3 table 100", "10.1.0.7/32", "192.0.2.3*100"},
		},
		"multipath": {
			{
				"route add 10.1.0.7/32 table 100 nexthop via 192.0.2.2 weight 3 nexthop via 192.0.2.3 weight 1",
				"10.1.0.7/32", "192.0.2.2*3 192.0.2.3*1",
			},
			{
				"route replace 10.1.0.7/32 table 100 nexthop via inet6 2001:db8:ff::2 dev wan0 nexthop via 192.0.2.3",
				"10.1.0.7/32", "192.0.2.3*1 2001:db8:ff::2*1",
			},
			{"route del 10.1.0.7/32 table 100", "10.1.0.7/32", ""},
		},
		"multipath, IPv6, grown and shrunk by one": {
			{
				"route add 2001:db8:1::7 table 100 nexthop via 2001:db8:ff::2 nexthop via 2001:db8:ff::3",
				"2001:db8:1::7/128", "2001:db8:ff::2*1 2001:db8:ff::3*1",
			},
			{
				"-6 route append 2001:db8:1::7 via 2001:db8:ff::4 table 100",
				"2001:db8:1::7/128", "2001:db8:ff::2*1 2001:db8:ff::3*1 2001:db8:ff::4*1",
			},
			{
				"-6 route del 2001:db8:1::7 via 2001:db8:ff::2 table 100",
				"2001:db8:1::7/128", "2001:db8:ff::3*1 2001:db8:ff::4*1",
			},
			{"-6 route del 2001:db8:1::7 via 2001:db8:ff::3 table 100", "2001:db8:1::7/128", "2001:db8:ff::4*100"},
			{"-6 route del 2001:db8:1::7 via 2001:db8:ff::4 table 100", "2001:db8:1::7/128", ""},
		},
		"one next hop twice": {
			{
				"route add 10.1.0.7/32 table 100 nexthop via 192.0.2.2 dev wan0 weight 3 nexthop via 192.0.2.2 dev wan0 weight 2",
				"10.1.0.7/32", "192.0.2.2*100",
			},
		},
		"weight above a byte": {
			{
				"route add 10.1.0.7/32 table 100 nexthop via 192.0.2.2 weight 256 nexthop via 192.0.2.3 weight 255",
				"10.1.0.7/32", "192.0.2.2*255 192.0.2.3*254",
			},
		},
		"lowest metric": {
			{"route add 10.1.0.7/32 via 192.0.2.2 table 100 metric 20", "10.1.0.7/32", "192.0.2.2*100"},
			{"route add 10.1.0.7/32 via 192.0.2.3 table 100 metric 10", "10.1.0.7/32", "192.0.2.3*100"},
			{"route add 10.1.0.7/32 via 192.0.2.4 table 100 metric 30", "10.1.0.7/32", "192.0.2.3*100"},
			{"route del 10.1.0.7/32 table 100 metric 10", "10.1.0.7/32", "192.0.2.2*100"},
			{"route del 10.1.0.7/32 table 100 metric 20", "10.1.0.7/32", "192.0.2.4*100"},
			{"route del 10.1.0.7/32 table 100 metric 30", "10.1.0.7/32", ""},
		},
		"equal metric: appended, prepended": {
			{"route add 10.1.0.7/32 via 192.0.2.2 table 100", "10.1.0.7/32", "192.0.2.2*100"},
			{"route append 10.1.0.7/32 via 192.0.2.3 table 100", "10.1.0.7/32", "192.0.2.2*100"},
			{"route prepend 10.1.0.7/32 via 192.0.2.4 table 100", "10.1.0.7/32", "192.0.2.4*100"},
			{"route del 10.1.0.7/32 via 192.0.2.4 table 100", "10.1.0.7/32", "192.0.2.2*100"},
			{"route del 10.1.0.7/32 via 192.0.2.2 table 100", "10.1.0.7/32", "192.0.2.3*100"},
			{"route replace 10.1.0.7/32 via 192.0.2.5 table 100", "10.1.0.7/32", "192.0.2.5*100"},
		},
		"rejects": {
			{"route add blackhole 10.1.0.7/32 table 100", "10.1.0.7/32", "reject"},
			{"route replace 10.1.0.7/32 via 192.0.2.2 table 100", "10.1.0.7/32", "192.0.2.2*100"},
			{"route replace unreachable 10.1.0.7/32 table 100", "10.1.0.7/32", "reject"},
			{"route add prohibit 2001:db8:1::7 table 100", "2001:db8:1::7/128", "reject"},
			{"route del prohibit 2001:db8:1::7 table 100", "2001:db8:1::7/128", ""},
			{"route del unreachable 10.1.0.7/32 table 100", "10.1.0.7/32", ""},
		},
		"not followed": {
			{"route add 10.1.0.7/32 dev wan0 table 100", "10.1.0.7/32", ""},
			{"route replace 10.1.0.7/32 via 192.0.2.2 table 100", "10.1.0.7/32", "192.0.2.2*100"},
			{"route replace 10.1.0.7/32 dev wan0 table 100", "10.1.0.7/32", ""},
			{"-6 route add 2001:db8:1::7 via fe80::2 dev wan0 table 100", "2001:db8:1::7/128", ""},
			{"route add throw 10.1.0.8/32 table 100", "10.1.0.8/32", ""},
			{"route add 10.1.0.9/32 tos 0x10 via 192.0.2.2 table 100", "10.1.0.9/32", ""},
		},
		"other tables": {
			{"route add 10.1.0.7/32 via 192.0.2.2 table 101", "10.1.0.7/32", ""},
			{"route add 10.1.0.7/32 via 192.0.2.2", "10.1.0.7/32", ""},
			{"route add 10.1.0.8/32 via 192.0.2.2 table 100", "10.1.0.8/32", "192.0.2.2*100"},
		},
		"nexthop objects": {
			{"nexthop add id 1 via 192.0.2.2 dev wan0", "10.1.0.7/32", ""},
			{"nexthop add id 2 via 192.0.2.3 dev wan0", "10.1.0.7/32", ""},
			{"nexthop add id 9 group 1,5/2,1", "10.1.0.7/32", ""},
			{"route add 10.1.0.7/32 nhid 1 table 100", "10.1.0.7/32", "192.0.2.2*100"},
			{"nexthop replace id 1 via 192.0.2.4 dev wan0", "10.1.0.7/32", "192.0.2.4*100"},
			{"route replace 10.1.0.7/32 nhid 9 table 100", "10.1.0.7/32", "192.0.2.3*1 192.0.2.4*5"},
			{"nexthop del id 2", "10.1.0.7/32", "192.0.2.4*100"},
			{"nexthop del id 1", "10.1.0.7/32", ""},
			{"nexthop add id 5 blackhole", "10.1.0.7/32", ""},
			{"route add 10.1.0.7/32 nhid 5 table 100", "10.1.0.7/32", "reject"},
		},
		"nexthop objects, IPv6": {
			{"-6 nexthop add id 1 via 2001:db8:ff::2 dev wan0", "2001:db8:1::7/128", ""},
			{"-6 nexthop add id 2 via 2001:db8:ff::3 dev wan0", "2001:db8:1::7/128", ""},
			{"nexthop add id 9 group 1,3/2", "2001:db8:1::7/128", ""},
			{"-6 route add 2001:db8:1::7 nhid 9 table 100", "2001:db8:1::7/128", "2001:db8:ff::2*3 2001:db8:ff::3*1"},
			{"nexthop replace id 9 group 1/2,2", "2001:db8:1::7/128", "2001:db8:ff::2*1 2001:db8:ff::3*2"},
			{"-6 nexthop replace id 2 via 2001:db8:ff::4 dev wan0", "2001:db8:1::7/128", "2001:db8:ff::2*1 2001:db8:ff::4*2"},
			{"nexthop del id 9", "2001:db8:1::7/128", ""},
			{"-6 route add 2001:db8:1::7 nhid 2 table 100", "2001:db8:1::7/128", "2001:db8:ff::4*100"},
			{"-6 nexthop replace id 2 dev wan0", "2001:db8:1::7/128", ""},
			{"-6 nexthop replace id 2 via 2001:db8:ff::5 dev wan0", "2001:db8:1::7/128", "2001:db8:ff::5*100"},
		},
		"encapsulated": {
			{
				"route add 10.1.0.7/32 encap ip id 7001 dst 192.0.2.2 dev wan0 table 100",
				"10.1.0.7/32", "192.0.2.2*100",
			},
			{
				"route replace 10.1.0.7/32 encap ip id 7002 dst 192.0.2.2 dev wan0 table 100", // of another tenant
				"10.1.0.7/32", "",
			},
			{
				"route replace 10.1.0.7/32 encap ip6 id 7001 dst 2001:db8:ff::2 dev wan0 table 100",
				"10.1.0.7/32", "2001:db8:ff::2*100",
			},
			{
				"route add 2001:db8:1::7 encap ip id 7001 dst 192.0.2.2 dev wan0 table 100",
				"2001:db8:1::7/128", "192.0.2.2*100",
			},
			{
				"route replace 10.1.0.7/32 table 100 nexthop encap ip id 7001 dst 192.0.2.2 dev wan0 weight 2 " +
					"nexthop encap ip id 7001 dst 192.0.2.3 dev wan0",
				"10.1.0.7/32", "192.0.2.2*2 192.0.2.3*1",
			},
			{"nexthop add id 1 encap ip id 7001 dst 192.0.2.4 dev wan0", "10.1.0.7/32", "192.0.2.2*2 192.0.2.3*1"},
			{"route replace 10.1.0.7/32 nhid 1 table 100", "10.1.0.7/32", "192.0.2.4*100"},
			{"nexthop replace id 1 encap ip id 7001 dst 192.0.2.5 dev wan0", "10.1.0.7/32", "192.0.2.5*100"},
		},
		// As zebra installs routes of EVPN: see TestRouters for where the router's MAC comes from.
		"onlink, out of the bridge of a tenant's VNI": {
			{"link add br7001 type bridge", "10.1.0.7/32", ""},
			{"link set br7001 up", "10.1.0.7/32", ""},
			{"neigh add 198.51.100.2 lladdr 02:00:00:00:00:02 dev br7001 extern_learn", "10.1.0.7/32", ""},
			{"nexthop add id 1 via 198.51.100.2 dev br7001 onlink", "10.1.0.7/32", ""},
			{"nexthop add id 2 via 198.51.100.3 dev br7001 onlink", "10.1.0.7/32", ""},
			{"nexthop add id 9 group 1/2", "10.1.0.7/32", ""},
			{"route add 10.1.0.7/32 nhid 1 table 100", "10.1.0.7/32", "198.51.100.2*100@02:00:00:00:00:02"},
			{"route replace 10.1.0.7/32 nhid 9 table 100", "10.1.0.7/32", "198.51.100.2*1@02:00:00:00:00:02 198.51.100.3*1"},
			{
				"-6 route add 2001:db8:1::7 via ::ffff:198.51.100.2 dev br7001 onlink table 100",
				"2001:db8:1::7/128", "198.51.100.2*100",
			},
		},
		"flush": {
			{"route add 10.1.0.7/32 via 192.0.2.2 table 100", "10.1.0.7/32", "192.0.2.2*100"},
			{"route flush table 100 root 10.1.0.0/16", "10.1.0.7/32", ""},
		},
		"interface down takes routes along in silence": {
			{"route add 10.1.0.7/32 via 192.0.2.2 table 100", "10.1.0.7/32", "192.0.2.2*100"},
			{"route add 2001:db8:1::7/128 via 2001:db8:ff::2 table 100", "2001:db8:1::7/128", "2001:db8:ff::2*100"},
			{"link set wan0 down", "10.1.0.7/32", ""},
			{"link set wan0 up", "2001:db8:1::7/128", ""},
			{"route add 10.1.0.7/32 via 192.0.2.2 table 100", "10.1.0.7/32", "192.0.2.2*100"},
			{"link del wan0", "10.1.0.7/32", ""},
		},
		"the last address gone takes routes along in silence": {
			{"route add 10.1.0.7/32 via 192.0.2.2 table 100", "10.1.0.7/32", "192.0.2.2*100"},
			{"addr del 192.0.2.1/24 dev wan0", "10.1.0.7/32", ""},
		},
	}
	for name, steps := range tests {
		t.Run(name, func(t *testing.T) {
			s := newSpace(t)
			_, heard := s.follow(Options{Tables: []Table{table100}})
			for i, step := range steps {
				t.Log("ip", step.ip)
				s.ip(step.ip)
				// Events come in order: once this one is heard, the step's were.
				marker := fmt.Sprintf("10.255.255.%d/32", i)
				s.ip("route add blackhole " + marker + " table 100")
				heard.has(t, marker, "reject")
				heard.has(t, step.prefix, step.to)
			}
		})
	}
}

// What an object says changes for all routes that use it, and nobody dumps the tables for it.
func TestNexthopOfMany(t *testing.T) {
	for compat, n := range []int{20_000, 4_000} { // in compatibility mode all routes are told of, and the socket is to hold them

		t.Run(fmt.Sprintf("nexthop_compat_mode %d", compat), func(t *testing.T) {
			s := newSpace(t)
			setCompat(t, compat)
			s.settled()
			s.ip("nexthop add id 1 via 192.0.2.2 dev wan0")
			s.ip("nexthop add id 2 via 192.0.2.3 dev wan0")
			s.ip("nexthop add id 9 group 1,10/2,11")
			var b strings.Builder
			for i := range n {
				fmt.Fprintf(&b, "route add 10.7.%d.%d/32 nhid %d table 100\n", i>>8, i&255, []int{1, 9}[i&1])
			}
			s.batch(b.String())
			source, heard := s.follow(Options{Tables: []Table{table100}})
			lead := func(counts map[string]int) {
				t.Helper()
				heard.await(t, fmt.Sprint(counts), func() bool {
					got := make(map[string]int)
					for _, c := range heard.claims {
						got[where(c)]++
					}
					return maps.Equal(got, counts)
				})
			}
			lead(map[string]int{"192.0.2.2*100": n / 2, "192.0.2.2*10 192.0.2.3*11": n / 2})
			s.ip("nexthop replace id 1 via 192.0.2.4 dev wan0")
			lead(map[string]int{"192.0.2.4*100": n / 2, "192.0.2.3*11 192.0.2.4*10": n / 2})
			s.ip("nexthop replace id 9 group 1,100/2,200")
			lead(map[string]int{"192.0.2.4*100": n / 2, "192.0.2.3*200 192.0.2.4*100": n / 2})
			s.ip("nexthop del id 1")
			lead(map[string]int{"192.0.2.3*100": n / 2})
			s.ip("nexthop del id 9")
			lead(map[string]int{})
			if dumps := source.Status().Dumps; dumps != 1 {
				t.Errorf("%d dumps: one is to be enough", dumps)
			}
		})
	}
}

// The router MAC of an onlink next hop is its neighbour's, as far as a routing daemon said so.
func TestRouters(t *testing.T) {
	s := newSpace(t)
	s.batch(`link add br7001 type bridge
link set br7001 up
neigh add 192.0.2.9 lladdr 02:00:00:00:00:07 dev br7001
route add 10.1.0.7/32 via 192.0.2.9 dev br7001 onlink table 100
route add 2001:db8:1::7 via ::ffff:192.0.2.9 dev br7001 onlink table 100
`)
	_, heard := s.follow(Options{Tables: []Table{table100}})
	heard.has(t, "10.1.0.7/32", "192.0.2.9*100") // the neighbour is anybody's
	s.ip("neigh replace 192.0.2.9 lladdr 02:00:00:00:00:09 dev br7001 extern_learn")
	heard.has(t, "10.1.0.7/32", "192.0.2.9*100@02:00:00:00:00:09")
	heard.has(t, "2001:db8:1::7/128", "192.0.2.9*100")
	s.ip("-6 neigh add ::ffff:192.0.2.9 lladdr 02:00:00:00:00:09 dev br7001 extern_learn")
	heard.has(t, "2001:db8:1::7/128", "192.0.2.9*100@02:00:00:00:00:09")
	s.ip("neigh replace 192.0.2.9 lladdr 02:00:00:00:00:0a dev br7001 extern_learn")
	heard.has(t, "10.1.0.7/32", "192.0.2.9*100@02:00:00:00:00:0a")
	s.ip("neigh del 192.0.2.9 dev br7001")
	heard.has(t, "10.1.0.7/32", "192.0.2.9*100")

	// What the configuration says of a locator counts for more.
	known := func(a netip.Addr) (route.Locator, string, bool) {
		return route.Locator{Address: a, Weight: 9, RouterMAC: route.MAC{2, 0, 0, 0, 0, 2}}, "dc2", true
	}
	_, heard = s.follow(Options{Tables: []Table{table100}, Known: known})
	heard.has(t, "2001:db8:1::7/128", "192.0.2.9*9@02:00:00:00:00:02")
}

// setCompat says whether the kernel repeats in each route what its nexthop object says.
func setCompat(t *testing.T, value int) {
	t.Helper()
	const compat = "/proc/sys/net/ipv4/nexthop_compat_mode" // of the calling thread's namespace
	if err := os.WriteFile(compat, fmt.Append(nil, value), 0); err != nil {
		t.Fatal(err)
	}
}

// A kernel that does not repeat in each route what its nexthop object says.
func TestNexthopsByName(t *testing.T) {
	s := newSpace(t)
	setCompat(t, 0)
	_, heard := s.follow(Options{Tables: []Table{table100}})
	s.ip("nexthop add id 1 via 192.0.2.2 dev wan0")
	s.ip("nexthop add id 2 via 192.0.2.3 dev wan0")
	s.ip("nexthop add id 9 group 1,5/2,1")
	s.ip("route add 10.1.0.7/32 nhid 9 table 100")
	heard.has(t, "10.1.0.7/32", "192.0.2.2*5 192.0.2.3*1")
	s.ip("nexthop replace id 2 via 192.0.2.4 dev wan0")
	heard.has(t, "10.1.0.7/32", "192.0.2.2*5 192.0.2.4*1")
	s.ip("-6 nexthop add id 3 via 2001:db8:ff::2 dev wan0")
	s.ip("-6 route add 2001:db8:1::7 nhid 3 table 100")
	heard.has(t, "2001:db8:1::7/128", "2001:db8:ff::2*100")
	s.ip("nexthop del id 3")
	heard.has(t, "2001:db8:1::7/128", "")
}

func TestKnownLocators(t *testing.T) {
	s := newSpace(t)
	mac := route.MAC{2, 0, 0, 0, 0, 2}
	known := func(a netip.Addr) (route.Locator, string, bool) {
		l := route.Locator{Address: a, Encap: route.Geneve, Port: 6082, Priority: 7, Weight: 9, RouterMAC: mac}
		return l, "dc2", a == netip.MustParseAddr("192.0.2.2")
	}
	s.batch(`route add 10.1.0.1/32 via 192.0.2.2 table 100
route add 10.1.0.2/32 via 192.0.2.3 table 100
route add 10.1.0.3/32 table 100 nexthop via 192.0.2.2 weight 3 nexthop via 192.0.2.3
`)
	table := table100
	table.Locator.Encap = route.GRE
	_, heard := s.follow(Options{Tables: []Table{table}, Known: known})
	heard.mu.Lock()
	defer heard.mu.Unlock()
	want := map[string]route.Claim{
		"10.1.0.1/32": {Site: "dc2", Via: &route.Via{Locators: []route.Locator{
			{Address: netip.MustParseAddr("192.0.2.2"), Encap: route.Geneve, Port: 6082, Priority: 7, Weight: 9, RouterMAC: mac},
		}}},
		"10.1.0.2/32": {Via: &route.Via{Locators: []route.Locator{
			{Address: netip.MustParseAddr("192.0.2.3"), Encap: route.GRE, Priority: 1, Weight: 100},
		}}},
		"10.1.0.3/32": {Via: &route.Via{Locators: []route.Locator{
			{Address: netip.MustParseAddr("192.0.2.2"), Encap: route.Geneve, Port: 6082, Priority: 7, Weight: 3, RouterMAC: mac},
			{Address: netip.MustParseAddr("192.0.2.3"), Encap: route.GRE, Priority: 1, Weight: 1},
		}}},
	}
	for prefix, claim := range want {
		claim.Key = route.Key{Tenant: 1, Prefix: netip.MustParsePrefix(prefix)}
		if diff := cmp.Diff(claim, heard.claims[claim.Key], cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
			cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
			t.Error(diff)
		}
	}
}

// Two tables of two tenants; one leaves, one comes, one changes its tenant.
func TestTables(t *testing.T) {
	s := newSpace(t)
	s.batch(`route add 10.1.0.7/32 via 192.0.2.2 table 100
route add 10.1.0.7/32 via 192.0.2.3 table 70000
route add 10.1.0.7/32 via 192.0.2.4 table 300
`)
	holds := func(source *Source, heard *twin, want string) {
		t.Helper()
		heard.await(t, want, func() bool {
			lines := strings.Split(strings.TrimSpace(heard.list()), "\n")
			slices.Sort(lines)
			return strings.Join(lines, ", ") == want
		})
	}
	l := table100.Locator
	source, heard := s.follow(Options{Tables: []Table{{ID: 100, Tenant: 1, Locator: l}, {ID: 70000, Tenant: 2, Locator: l}}})
	holds(source, heard, "1/10.1.0.7/32 192.0.2.2*100, 2/10.1.0.7/32 192.0.2.3*100")
	source.SetTables([]Table{{ID: 100, Tenant: 5, Locator: l}, {ID: 300, Tenant: 3, Locator: l}})
	holds(source, heard, "3/10.1.0.7/32 192.0.2.4*100, 5/10.1.0.7/32 192.0.2.2*100")
	source.SetTables(nil)
	heard.await(t, "nothing to be held", func() bool { return len(heard.claims) == 0 })
}

// What went while nobody looked is gone after a restart.
func TestRestart(t *testing.T) {
	s := newSpace(t)
	s.ip("route add 10.1.0.7/32 via 192.0.2.2 table 100")
	s.ip("route add 10.1.0.8/32 via 192.0.2.2 table 100")
	heard := newTwin()
	stop := s.run(New(Options{Tables: []Table{table100}}), heard)
	heard.has(t, "10.1.0.8/32", "192.0.2.2*100")
	stop()
	s.ip("route del 10.1.0.7/32 table 100")
	s.ip("route replace 10.1.0.8/32 via 192.0.2.3 table 100")
	s.run(New(Options{Tables: []Table{table100}}), heard)
	heard.has(t, "10.1.0.8/32", "192.0.2.3*100")
	heard.has(t, "10.1.0.7/32", "")
}

// A burst that the socket cannot hold.
func TestOverrun(t *testing.T) {
	const n = 50_000
	s := newSpace(t)
	heard := newTwin()
	gate := make(chan struct{})
	source := New(Options{Tables: []Table{table100}, ReceiveBuffer: 4096})
	s.run(source, heard)
	heard.await(t, "the first full report", func() bool { return heard.synced > 0 })
	heard.mu.Lock() // the source stands still at its next report
	go func() {
		<-gate
		heard.mu.Unlock()
	}()
	var burst strings.Builder
	for i := range n {
		fmt.Fprintf(&burst, "route add 10.7.%d.%d/32 via 192.0.2.2 table 100\n", i>>8, i&255)
	}
	s.batch(burst.String())
	close(gate)
	// A dump that was due anyway may find all of them before the loss is heard of, which asks for one more.
	heard.await(t, "all routes of the burst, after an overrun", func() bool { return len(heard.claims) == n && source.Status().Overruns > 0 })
	s.ip("route flush table 100")
	heard.await(t, "all routes to be gone", func() bool { return len(heard.claims) == 0 })
}

// Random changes, followed, lead to what a fresh dump finds.
func TestRandom(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	s := newSpace(t)
	setCompat(t, random.IntN(2))
	source, heard := s.follow(Options{Tables: []Table{table100}})
	for round := range 20 {
		var b strings.Builder
		for range 200 {
			b.WriteString(randomCommand(random))
		}
		cmd := exec.Command("ip", "-force", "-batch", "-")
		cmd.Stdin = strings.NewReader(b.String())
		_ = cmd.Run() // what the kernel refuses changes nothing
		_, fresh := s.follow(Options{Tables: []Table{table100}})
		fresh.mu.Lock()
		want := sorted(fresh.list())
		fresh.mu.Unlock()
		heard.await(t, fmt.Sprintf("round %d to agree with\n%s", round, want), func() bool { return sorted(heard.list()) == want })
	}
	t.Logf("%d dumps", source.Status().Dumps)
}

func sorted(lines string) string {
	list := strings.Split(lines, "\n")
	slices.Sort(list)
	return strings.Join(list, "\n")
}

func randomCommand(r *rand.Rand) string {
	verb := []string{"add", "replace", "append", "prepend", "del"}[r.IntN(5)]
	prefix, hop := fmt.Sprintf("10.1.0.%d/32", r.IntN(4)), fmt.Sprintf("192.0.2.%d", 2+r.IntN(3))
	family := ""
	if r.IntN(2) == 0 {
		prefix, hop = fmt.Sprintf("2001:db8:1::%d/128", r.IntN(4)), fmt.Sprintf("2001:db8:ff::%d", 2+r.IntN(3))
		family = "-6 "
	}
	metric := fmt.Sprintf("metric %d", 10+10*r.IntN(3))
	// Objects 1 to 3 and the groups 7 and 8 of them are of IPv4, 11 to 13, 17 and 18 of IPv6.
	base := 0
	if family != "" {
		base = 10
	}
	switch r.IntN(9) {
	case 5:
		return fmt.Sprintf("%snexthop replace id %d via %s dev wan0\n", family, base+1+r.IntN(3), hop)
	case 6:
		return fmt.Sprintf("nexthop replace id %d group %d,%d/%d,%d\n", base+7+r.IntN(2), base+1, 1+r.IntN(9), base+2+r.IntN(2), 1+r.IntN(9))
	case 7:
		if r.IntN(3) == 0 {
			return fmt.Sprintf("nexthop del id %d\n", base+[]int{1, 2, 3, 7, 8}[r.IntN(5)])
		}
		fallthrough
	case 8:
		return fmt.Sprintf("%sroute %s %s nhid %d table 100 %s\n", family, verb, prefix, base+[]int{1, 2, 3, 7, 8}[r.IntN(5)], metric)
	case 0:
		return fmt.Sprintf("%sroute %s blackhole %s table 100 %s\n", family, verb, prefix, metric)
	case 1:
		return fmt.Sprintf("%sroute %s %s dev wan0 table 100 %s\n", family, verb, prefix, metric)
	case 2:
		other := hop[:len(hop)-1] + "9"
		return fmt.Sprintf("%sroute %s %s table 100 %s nexthop via %s weight %d nexthop via %s\n",
			family, verb, prefix, metric, hop, 1+r.IntN(4), other)
	default:
		return fmt.Sprintf("%sroute %s %s via %s table 100 %s\n", family, verb, prefix, hop, metric)
	}
}

// A routing daemon as the writer.
func TestBird(t *testing.T) {
	if _, err := exec.LookPath("bird"); err != nil {
		t.Fatal("bird is not installed: apt-get install bird2")
	}
	s := newSpace(t)
	_, heard := s.follow(Options{Tables: []Table{table100}})
	dir := t.TempDir()
	config := filepath.Join(dir, "bird.conf")
	write := func(routes string) {
		t.Helper()
		text := "router id 192.0.2.1;\nprotocol device {}\n"
		for _, family := range []string{"4", "6"} {
			text += fmt.Sprintf("protocol kernel k%[1]s { kernel table 100; persist off; ipv%[1]s { export all; }; }\n", family)
		}
		if err := os.WriteFile(config, []byte(text+routes), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(`protocol static { ipv4; route 10.1.0.7/32 via 192.0.2.2; route 10.2.0.0/16 blackhole; }
protocol static { ipv6; route 2001:db8:1::7/128 via 2001:db8:ff::2; }
`)
	control := filepath.Join(dir, "bird.ctl")
	var out bytes.Buffer
	bird := exec.Command("bird", "-f", "-c", config, "-s", control, "-P", filepath.Join(dir, "bird.pid"))
	bird.Stdout, bird.Stderr = &out, &out
	if err := bird.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = bird.Process.Signal(os.Interrupt)
		_ = bird.Wait()
		if t.Failed() {
			t.Logf("bird:\n%s", &out)
		}
	})
	heard.has(t, "10.1.0.7/32", "192.0.2.2*100")
	heard.has(t, "10.2.0.0/16", "reject")
	heard.has(t, "2001:db8:1::7/128", "2001:db8:ff::2*100")

	write(`protocol static { ipv4; route 10.1.0.7/32 via 192.0.2.2 weight 2 via 192.0.2.3; }
protocol static { ipv6; route 2001:db8:1::7/128 via 2001:db8:ff::3; }
`)
	if out, err := exec.Command("birdc", "-s", control, "configure").CombinedOutput(); err != nil {
		t.Fatalf("birdc: %v\n%s", err, out)
	}
	heard.has(t, "10.1.0.7/32", "192.0.2.2*2 192.0.2.3*1")
	heard.has(t, "2001:db8:1::7/128", "2001:db8:ff::3*100")
	heard.has(t, "10.2.0.0/16", "")

	if out, err := exec.Command("birdc", "-s", control, "down").CombinedOutput(); err != nil {
		t.Fatalf("birdc: %v\n%s", err, out)
	}
	heard.await(t, "bird's routes to be gone", func() bool { return len(heard.claims) == 0 })
}

// Nothing that could arrive makes the decoders panic or run away.
func FuzzDecode(f *testing.F) {
	f.Add([]byte{2, 32, 0, 0, 100, 3, 0, 1, 0, 0, 0, 0, 8, 0, 1, 0, 10, 1, 0, 7, 8, 0, 5, 0, 192, 0, 2, 2})
	f.Add([]byte{2, 32, 0, 0, 100, 3, 0, 1, 0, 0, 0, 0, 12, 0, 9, 0, 8, 0, 0, 3, 1, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		s := New(Options{})
		if m, err := decodeRoute(b); err == nil {
			if !m.prefix.IsValid() {
				t.Errorf("prefix %v of a message that was accepted", m.prefix)
			}
			to, reason, sure := s.target(&table{Table: table100}, m)
			if reason == "" && sure && to.via != nil && len(to.via.Locators) == 0 {
				t.Error("a way without a locator")
			}
		}
		_, _, _ = decodeNexthop(b)
		_, _, _ = decodeLink(b)
	})
}
