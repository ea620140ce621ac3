package host

import (
	"context"
	"errors"
	"fmt"
	"net"
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

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"go.uber.org/goleak"

	"roam/loader/route"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// lan is two namespaces with a cable between them:
//
//	gateway lan0 10.1.0.2/24, 2001:db8:1::2/64  ───  eth0 of the neighbours, who have any address they like
type lan struct {
	testing.TB
	gateway, far netns.NsHandle
}

const farMAC = "02:00:00:00:0a:07"

// newLAN leaves the test's goroutine in the gateway's namespace.
func newLAN(t testing.TB) *lan {
	t.Helper()
	runtime.LockOSThread() // and never unlocked: the thread, and with it its namespace, ends with the goroutine
	l := &lan{TB: t}
	for _, ns := range []*netns.NsHandle{&l.far, &l.gateway} {
		var err error
		if *ns, err = netns.New(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ns.Close() })
	}
	l.plug()
	return l
}

// hurry makes neighbours fail within a second instead of many.
func (l *lan) hurry() {
	l.Helper()
	for _, family := range []string{"ipv4", "ipv6"} {
		for name, value := range map[string]string{"delay_first_probe_time": "1", "retrans_time_ms": "100"} {
			path := filepath.Join("/proc/sys/net", family, "neigh/lan0", name)
			if err := os.WriteFile(path, []byte(value), 0); err != nil {
				l.Fatal(err)
			}
		}
	}
}

// plug makes the cable; deleting lan0 unplugs it.
func (l *lan) plug() {
	l.Helper()
	l.ip("link add lan0 type veth peer name eth0")
	l.ip(fmt.Sprintf("link set eth0 netns /proc/self/fd/%d", 3), l.far)
	l.ip("addr add 10.1.0.2/24 dev lan0")
	l.ip("addr add 2001:db8:1::2/64 dev lan0 nodad")
	l.ip("link set lan0 up")
	l.hurry()
	l.inFar(func() {
		l.ip("link set eth0 address " + farMAC)
		l.ip("link set eth0 up")
	})
}

// ip runs a command in the current namespace; extra handles are its descriptors 3 and up.
func (l *lan) ip(args string, extra ...netns.NsHandle) {
	l.Helper()
	cmd := exec.Command("ip", strings.Fields(args)...)
	for _, ns := range extra {
		cmd.ExtraFiles = append(cmd.ExtraFiles, file(l.TB, ns))
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		l.Fatalf("ip %s: %v\n%s", args, err, out)
	}
}

func file(t testing.TB, ns netns.NsHandle) *os.File {
	f, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", int(ns)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func (l *lan) inFar(f func()) {
	l.Helper()
	if err := netns.Set(l.far); err != nil {
		l.Fatal(err)
	}
	defer func() {
		if err := netns.Set(l.gateway); err != nil {
			l.Fatal(err)
		}
	}()
	f()
}

// has gives the far end an address.
func (l *lan) has(addr string) {
	l.Helper()
	l.inFar(func() { l.ip("addr add " + addr + " dev eth0 " + nodad(addr)) })
}

func (l *lan) lacks(addr string) {
	l.Helper()
	l.inFar(func() { l.ip("addr del " + addr + " dev eth0") })
}

func nodad(addr string) string {
	if strings.Contains(addr, ":") {
		return "nodad"
	}
	return ""
}

// ping makes the gateway's kernel resolve an address.
func (l *lan) ping(addr string) {
	_ = exec.Command("ping", "-c1", "-W1", addr).Run()
}

func (l *lan) run(s *Source, heard *twin) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if err := netns.Set(l.gateway); err != nil {
			done <- err
			return
		}
		done <- s.Run(ctx, heard)
	}()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				l.Errorf("Run: %v", err)
			}
		})
	}
	l.Cleanup(stop)
	return stop
}

// twin is the plainest RIB and data path: it holds what the source says.
type twin struct {
	mu      sync.Mutex
	changed *sync.Cond
	claims  map[route.Key]route.Claim
	fresh   map[route.Key]bool
	macs    map[station]bool
	synced  int
	reports int // changes outside of full reports
}

func newTwin() *twin {
	w := &twin{claims: make(map[route.Key]route.Claim), macs: make(map[station]bool)}
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
	if w.fresh == nil {
		w.reports += len(changes)
	}
	for _, c := range changes {
		if c.Withdraw {
			delete(w.claims, c.Key)
			continue
		}
		if c.Local == nil || c.Via != nil || c.Reject || c.Local.Link == 0 {
			return errors.New("a claim must be local, on a port")
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
		if !w.fresh[k] {
			delete(w.claims, k)
		}
	}
	w.fresh = nil
	w.synced++
	return nil
}

func (w *twin) setMAC(segment int, mac route.MAC, present bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	defer w.changed.Broadcast()
	st := station{segment, mac}
	if w.macs[st] == present {
		panic(fmt.Sprintf("MAC %s was told %v twice", mac, present))
	}
	if w.macs[st] = present; !present {
		delete(w.macs, st)
	}
}

// await waits until cond holds; it is called with the twin locked, after every change.
func (w *twin) await(t testing.TB, what string, cond func() bool) {
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
			t.Fatalf("waited in vain for %s; held are %.500s", what, w.list())
		}
		w.changed.Wait()
	}
}

// list spells the claims and the MACs, one word each.
func (w *twin) list() string {
	var words []string
	for k, c := range w.claims {
		words = append(words, fmt.Sprintf("%s=%s", k.Prefix.Addr(), c.MAC))
	}
	for st := range w.macs {
		words = append(words, fmt.Sprintf("%d:%s", st.segment, st.mac))
	}
	slices.Sort(words)
	return strings.Join(words, " ")
}

// is waits for exactly these claims and MACs.
func (w *twin) is(t *testing.T, words ...string) {
	t.Helper()
	slices.Sort(words)
	want := strings.Join(words, " ")
	w.await(t, "exactly "+want, func() bool { return w.list() == want })
}

func segment() Segment {
	return Segment{
		Index: 3, Tenant: 1, Link: "lan0",
		Subnets: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/24"), netip.MustParsePrefix("2001:db8:1::/64")},
		Gateway: addrs("10.1.0.1", "2001:db8:1::1", "fe80::1"),
		Own:     addrs("10.1.0.2", "2001:db8:1::2"),
		Routers: addrs("10.1.0.254", "fe80::fe"),
		NotHost: []route.MAC{{2, 0, 0x5e, 0x10, 0, 1}},
	}
}

func addrs(list ...string) (all []netip.Addr) {
	for _, a := range list {
		all = append(all, netip.MustParseAddr(a))
	}
	return all
}

// follow runs a source with one segment.
func (l *lan) follow(o Options) (*Source, *twin) {
	l.Helper()
	heard := newTwin()
	if o.Segments == nil {
		o.Segments = []Segment{segment()}
	}
	o.MACs, o.Site = heard.setMAC, "dc1"
	s := New(o)
	l.run(s, heard)
	heard.await(l.TB, "the first full report", func() bool { return heard.synced > 0 })
	return s, heard
}

// hostWords are the claims and MACs of hosts at the far end.
func hostWords(list ...string) []string {
	words := []string{"3:" + farMAC}
	for _, a := range list {
		words = append(words, a+"="+farMAC)
	}
	return words
}

// A host is pinged, stays through the kernel's states, and fails.
func TestLifeOfAHost(t *testing.T) {
	for _, addr := range []string{"10.1.0.7/24", "2001:db8:1::7/64"} {
		t.Run(addr, func(t *testing.T) {
			l := newLAN(t)
			_, heard := l.follow(Options{})
			host := strings.Split(addr, "/")[0]
			l.has(addr)
			l.ping(host)
			heard.is(t, hostWords(host)...)

			heard.mu.Lock()
			c := heard.claims[hostKey(1, netip.MustParseAddr(host))]
			reports := heard.reports
			heard.mu.Unlock()
			lan0 := l.index("lan0")
			if c.Site != "dc1" || *c.Local != (route.Local{Link: lan0}) || c.Sequence != 0 || c.Pinned {
				t.Errorf("claim %+v of %+v", c, c.Local)
			}

			// Round the states and back; the last one is another host, to know that the others were heard.
			for _, state := range []string{"stale", "delay", "probe", "reachable", "stale", "noarp", "permanent", "reachable"} {
				l.ip(fmt.Sprintf("neigh change %s lladdr %s dev lan0 nud %s", host, farMAC, state))
			}
			l.ip("neigh add 10.1.0.99 lladdr " + farMAC + " dev lan0 nud permanent")
			heard.is(t, hostWords(host, "10.1.0.99")...)
			heard.mu.Lock()
			n := heard.reports - reports
			heard.mu.Unlock()
			if n != 1 {
				t.Errorf("%d changes were reported while a host only changed its state, 1 of another expected", n)
			}

			// Gone: it does not answer when it is asked again.
			l.lacks(addr)
			l.ip(fmt.Sprintf("neigh change %s lladdr %s dev lan0 nud probe", host, farMAC))
			heard.is(t, hostWords("10.1.0.99")...)

			// And back with another MAC.
			l.inFar(func() {
				l.ip("link set eth0 address 02:00:00:00:0a:08")
			})
			l.has(addr)
			l.ping(host)
			heard.is(t, append(hostWords("10.1.0.99"), "3:02:00:00:00:0a:08", host+"=02:00:00:00:0a:08")...)
		})
	}
}

func (l *lan) index(name string) int {
	l.Helper()
	out, err := exec.Command("ip", "-o", "link", "show", name).Output()
	if err != nil {
		l.Fatal(err)
	}
	var n int
	if _, err := fmt.Sscanf(string(out), "%d:", &n); err != nil {
		l.Fatal(err)
	}
	return n
}

// Who is on the wire, but is not a host that lives here.
func TestNotClaimed(t *testing.T) {
	l := newLAN(t)
	source, heard := l.follow(Options{})
	for _, n := range []string{
		"10.1.0.1", "2001:db8:1::1", // gateways
		"10.1.0.2", "2001:db8:1::2", // own
		"10.1.1.7", "2001:db8:2::7", // other subnets
		"10.1.0.0", "10.1.0.255", // network and broadcast
		"fe80::7", "169.254.0.7", // link-local
	} {
		l.ip("neigh add " + n + " lladdr " + farMAC + " dev lan0 nud permanent")
	}
	l.ip("neigh add 10.1.0.8 lladdr 02:00:5e:10:00:01 dev lan0 nud permanent") // answers with the gateway's MAC
	l.ip("neigh add 10.1.0.9 lladdr 03:00:00:00:00:09 dev lan0 nud permanent") // a group's
	l.ip("neigh add 10.1.0.10 lladdr 00:00:00:00:00:00 dev lan0 nud permanent")
	l.ip("neigh add proxy 10.1.0.11 dev lan0")
	l.ip("neigh add 10.1.0.7 lladdr " + farMAC + " dev lo nud permanent") // not our port
	heard.is(t)
	l.ip("neigh add 10.1.0.99 lladdr " + farMAC + " dev lan0 nud permanent")
	heard.is(t, hostWords("10.1.0.99")...)

	// To be proxied takes nothing from a neighbour.
	l.ip("neigh add proxy 10.1.0.99 dev lan0")
	l.ip("neigh add 10.1.0.98 lladdr " + farMAC + " dev lan0 nud permanent")
	heard.is(t, hostWords("10.1.0.98", "10.1.0.99")...)
	l.ip("neigh del 10.1.0.98 dev lan0")
	heard.is(t, hostWords("10.1.0.99")...)
	if n := source.Status().Hosts; n != 1 {
		t.Errorf("%d hosts are counted", n)
	}

	// The same from a dump.
	_, again := l.follow(Options{})
	again.is(t, hostWords("10.1.0.99")...)
}

// Routers are resolved unasked, known by MAC, and never claimed; what answers with a router's MAC is no host.
func TestRouters(t *testing.T) {
	l := newLAN(t)
	l.has("10.1.0.254/24")
	l.has("fe80::fe/64")
	_, heard := l.follow(Options{})
	heard.is(t, "3:"+farMAC)
	l.ip("neigh add 10.1.0.7 lladdr " + farMAC + " dev lan0 nud permanent") // proxied
	l.ip("neigh add 10.1.0.8 lladdr 02:00:00:00:00:08 dev lan0 nud permanent")
	heard.is(t, "10.1.0.8=02:00:00:00:00:08", "3:02:00:00:00:00:08", "3:"+farMAC)

	// The router gets another MAC: the neighbour with the old one is a host now.
	l.ip("neigh replace 10.1.0.254 lladdr 02:00:00:00:00:fe dev lan0 nud permanent")
	l.ip("neigh replace fe80::fe lladdr 02:00:00:00:00:fe dev lan0 nud permanent")
	heard.is(t, "10.1.0.7="+farMAC, "10.1.0.8=02:00:00:00:00:08",
		"3:02:00:00:00:00:08", "3:"+farMAC, "3:02:00:00:00:00:fe")
	// And one more: the neighbour that has it is none any more.
	l.ip("neigh replace 10.1.0.254 lladdr 02:00:00:00:00:08 dev lan0 nud permanent")
	heard.is(t, "10.1.0.7="+farMAC, "3:02:00:00:00:00:08", "3:"+farMAC, "3:02:00:00:00:00:fe")
}

func decision(addr string, via, local bool) route.Decision {
	d := route.Decision{Claim: route.Claim{Key: hostKey(1, netip.MustParseAddr(addr))}, Source: "api"}
	if via {
		d.Via = &route.Via{Locators: []route.Locator{{Address: netip.MustParseAddr("192.0.2.2")}}}
	}
	if local {
		d.Local = &route.Local{}
	}
	return d
}

// A host that lives elsewhere leaves the kernel's table, unless an operator wrote it there.
func TestForget(t *testing.T) {
	for _, addrs := range [][3]string{
		{"10.1.0.7", "10.1.0.8", "10.1.0.9"}, {"2001:db8:1::7", "2001:db8:1::8", "2001:db8:1::9"},
	} {
		l := newLAN(t)
		source, heard := l.follow(Options{})
		l.ip("neigh add " + addrs[0] + " lladdr " + farMAC + " dev lan0 nud stale")
		l.ip("neigh add " + addrs[1] + " lladdr " + farMAC + " dev lan0 nud permanent")
		l.ip("neigh add " + addrs[2] + " lladdr " + farMAC + " dev lan0 nud reachable")
		heard.is(t, hostWords(addrs[:]...)...)
		err := source.Apply(context.Background(), []route.Decision{
			decision(addrs[0], true, false), decision(addrs[1], true, false), decision(addrs[2], false, true),
		})
		if err != nil {
			t.Fatal(err)
		}
		heard.is(t, hostWords(addrs[1], addrs[2])...)
		source.Forget(1, netip.MustParseAddr(addrs[2]))
		source.Forget(2, netip.MustParseAddr(addrs[1]))
		source.Forget(1, netip.MustParseAddr("192.0.2.77"))
		heard.is(t, hostWords(addrs[1])...)
	}
}

// A host that was moved here by hand, and any other that is asked for, is resolved.
func TestResolve(t *testing.T) {
	l := newLAN(t)
	source, heard := l.follow(Options{})
	list := []string{"10.1.0.7", "2001:db8:1::7", "10.1.0.8"}
	for _, a := range list {
		l.has(a + map[bool]string{true: "/24", false: "/64"}[strings.Contains(a, ".")])
	}
	err := source.Apply(context.Background(), []route.Decision{decision(list[0], false, true), decision(list[1], false, true)})
	if err != nil {
		t.Fatal(err)
	}
	if err := source.Resolve(1, netip.MustParseAddr(list[2])); err != nil {
		t.Fatal(err)
	}
	heard.is(t, hostWords(list...)...)
}

func TestResolveErrors(t *testing.T) {
	l := newLAN(t)
	missing := segment()
	missing.Index, missing.Link = 4, "lan9"
	missing.Subnets = []netip.Prefix{netip.MustParsePrefix("10.9.0.0/24")}
	source, _ := l.follow(Options{Segments: []Segment{segment(), missing}})
	for addr, want := range map[string]string{
		"10.9.0.7":  "resolve 10.9.0.7: the segment's port lan9 is missing",
		"10.8.0.7":  "resolve 10.8.0.7: no segment of tenant 1 has it in its subnets",
		"224.0.0.1": "resolve 224.0.0.1: no segment of tenant 1 has it in its subnets",
	} {
		if err := source.Resolve(1, netip.MustParseAddr(addr)); err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
	if err := source.Resolve(2, netip.MustParseAddr("10.1.0.7")); err == nil {
		t.Error("resolved for a tenant that has no segment")
	}
	if got := source.Status().Missing; !slices.Equal(got, []string{"lan9"}) {
		t.Errorf("missing %q", got)
	}
}

// The port goes away, and comes back as another interface of the same name.
func TestPortComesBack(t *testing.T) {
	l := newLAN(t)
	_, heard := l.follow(Options{})
	l.has("10.1.0.7/24")
	l.ping("10.1.0.7")
	heard.is(t, hostWords("10.1.0.7")...)
	before := l.index("lan0")

	l.ip("link set lan0 down")
	heard.is(t)
	l.ip("link set lan0 up")
	l.ping("10.1.0.7")
	heard.is(t, hostWords("10.1.0.7")...)

	l.ip("link del lan0")
	heard.is(t)
	l.ip("link add filler type veth peer name filler2") // so that the index is another
	l.plug()
	l.has("10.1.0.7/24")
	l.ping("10.1.0.7")
	heard.is(t, hostWords("10.1.0.7")...)
	heard.mu.Lock()
	defer heard.mu.Unlock()
	for _, c := range heard.claims {
		if after := l.index("lan0"); after == before || c.Local.Link != after {
			t.Errorf("claimed on interface %d, lan0 was %d and is %d", c.Local.Link, before, after)
		}
	}
}

// Reload: other subnets, another tenant, another index, none.
func TestSetSegments(t *testing.T) {
	l := newLAN(t)
	source, heard := l.follow(Options{})
	l.ip("neigh add 10.1.0.7 lladdr " + farMAC + " dev lan0 nud permanent")
	l.ip("neigh add 10.2.0.7 lladdr " + farMAC + " dev lan0 nud permanent")
	heard.is(t, hostWords("10.1.0.7")...)

	seg := segment()
	source.SetSegments([]Segment{seg})
	seg.Subnets = append(seg.Subnets, netip.MustParsePrefix("10.2.0.0/16"))
	source.SetSegments([]Segment{seg})
	heard.is(t, hostWords("10.1.0.7", "10.2.0.7")...)
	seg.Tenant, seg.Index = 2, 5
	source.SetSegments([]Segment{seg})
	heard.await(t, "both to be tenant 2's", func() bool {
		_, a := heard.claims[hostKey(2, netip.MustParseAddr("10.1.0.7"))]
		_, b := heard.claims[hostKey(2, netip.MustParseAddr("10.2.0.7"))]
		return a && b && len(heard.claims) == 2 && heard.macs[station{5, mac(t, farMAC)}] && len(heard.macs) == 1
	})
	source.SetSegments(nil)
	heard.is(t)
}

func mac(t testing.TB, s string) route.MAC {
	m, err := route.ParseMAC(s)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// More changes than the socket holds, while the source stands still.
func TestOverrun(t *testing.T) {
	l := newLAN(t)
	source, heard := l.follow(Options{ReceiveBuffer: 4096})
	const n = 900 // the kernel keeps 1024
	batch := func(format string) {
		t.Helper()
		var b strings.Builder
		for round := range 12 {
			for i := range n {
				fmt.Fprintf(&b, format, i>>8, i&255, round)
			}
		}
		cmd := exec.Command("ip", "-force", "-batch", "-")
		cmd.Stdin = strings.NewReader(b.String())
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%.500s", err, out)
		}
	}
	seg := segment()
	seg.Subnets = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	source.SetSegments([]Segment{seg})
	l.ip("neigh add 10.8.0.7 lladdr " + farMAC + " dev lan0 nud permanent")
	heard.is(t, hostWords("10.8.0.7")...)

	heard.mu.Lock()
	batch("neigh replace 10.7.%d.%d lladdr 02:00:00:00:00:%02x dev lan0 nud permanent\n")
	heard.mu.Unlock()
	heard.await(t, "all neighbours, with their last MAC", func() bool {
		return len(heard.claims) == n+1 && len(heard.macs) == 2 && heard.macs[station{3, route.MAC{2, 0, 0, 0, 0, 11}}]
	})
	if source.Status().Overruns == 0 {
		t.Error("the burst did not overrun the socket: the test shows nothing")
	}
}

// A restart forgets what went meanwhile.
func TestRestart(t *testing.T) {
	l := newLAN(t)
	heard := newTwin()
	stop := l.run(New(Options{Segments: []Segment{segment()}}), heard)
	l.ip("neigh add 10.1.0.7 lladdr " + farMAC + " dev lan0 nud permanent")
	l.ip("neigh add 10.1.0.8 lladdr " + farMAC + " dev lan0 nud permanent")
	heard.is(t, hostWords("10.1.0.7", "10.1.0.8")[1:]...)
	stop()
	l.ip("neigh del 10.1.0.7 dev lan0")
	l.run(New(Options{Segments: []Segment{segment()}}), heard)
	heard.is(t, hostWords("10.1.0.8")[1:]...)
}

// A tagged segment lives on the VLAN device of its port; this kernel cannot make one, so the choice is tested alone.
func TestFindPort(t *testing.T) {
	link := func(index int, name string) netlink.LinkAttrs { return netlink.LinkAttrs{Index: index, Name: name} }
	vlan := func(index, parent, id int, name string) *netlink.Vlan {
		v := &netlink.Vlan{LinkAttrs: link(index, name), VlanId: id}
		v.ParentIndex = parent
		return v
	}
	links := []netlink.Link{
		vlan(9, 7, 5, "other.5"), vlan(8, 2, 5, "whatever"), vlan(4, 2, 6, "lan0.6"), vlan(10, 8, 20, "lan0.5.20"),
		&netlink.Veth{LinkAttrs: link(2, "lan0")}, &netlink.Veth{LinkAttrs: link(7, "other")},
	}
	tests := []struct {
		link  string
		vlan  uint16
		inner uint16
		index int // 0: missing
		local route.Local
	}{
		{"lan0", 0, 0, 2, route.Local{Link: 2}},
		{"lan0", 5, 0, 8, route.Local{Link: 2, VLAN: 5}},
		{"lan0", 5, 20, 10, route.Local{Link: 2, VLAN: 5, Inner: 20}},
		{"lan0", 5, 21, 0, route.Local{}},
		{"other", 5, 0, 9, route.Local{Link: 7, VLAN: 5}},
		{"other", 6, 0, 0, route.Local{}},
		{"lan1", 0, 0, 0, route.Local{}},
	}
	for _, test := range tests {
		p := &port{Segment: Segment{Link: test.link, VLAN: test.vlan, Inner: test.inner}}
		index, ok := p.find(links)
		if ok != (test.index != 0) || ok && (index != test.index || p.local != test.local) {
			t.Errorf("%s: found %d %v %+v", p.name(), index, ok, p.local)
		}
	}
}

func TestCovers(t *testing.T) {
	p := &port{Segment: Segment{Subnets: []netip.Prefix{
		netip.MustParsePrefix("10.1.0.0/24"), netip.MustParsePrefix("10.2.0.0/31"), netip.MustParsePrefix("10.3.0.5/32"),
		netip.MustParsePrefix("255.255.255.0/24"), netip.MustParsePrefix("2001:db8:1::/64"), netip.MustParsePrefix("fe80::/10"),
	}}}
	for addr, want := range map[string]bool{
		"10.1.0.0": false, "10.1.0.1": true, "10.1.0.254": true, "10.1.0.255": false, "10.1.1.1": false,
		"10.2.0.0": true, "10.2.0.1": true, "10.3.0.5": true, "255.255.255.255": false, "255.255.255.1": true,
		"2001:db8:1::": true, "2001:db8:1::7": true, "2001:db8:1:0:ffff:ffff:ffff:ffff": true, "2001:db8:2::": false,
		"fe80::7": false, "ff02::1": false, "224.0.0.1": false, "0.0.0.0": false, "127.0.0.1": false,
	} {
		if got := p.covers(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: %v", addr, got)
		}
	}
}

// neigh is a neighbour on interface 7 as the kernel tells of it.
func neigh(state int) netlink.Neigh {
	return netlink.Neigh{
		LinkIndex: 7, Family: netlink.FAMILY_V4, IP: net.IPv4(10, 1, 0, 7).To4(), State: state,
		HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 7},
	}
}

// What has no usable state is not there; what is removed in a usable state is only not used.
func TestStates(t *testing.T) {
	s := New(Options{})
	s.ports = map[int]*port{7: {Segment: segment()}}
	s.see(neigh(netlink.NUD_REACHABLE), true, map[entry]struct{}{})
	proxied := neigh(netlink.NUD_NONE)
	proxied.Flags = netlink.NTF_PROXY
	s.see(proxied, true, map[entry]struct{}{})
	if len(s.neighbours) != 1 {
		t.Error("a neighbour went because its address is proxied")
	}
	for state := 0; state <= netlink.NUD_PERMANENT; state = max(2*state, 1) {
		for _, exists := range []bool{true, false} {
			s.see(neigh(netlink.NUD_REACHABLE), true, map[entry]struct{}{})
			changed := make(map[entry]struct{})
			s.see(neigh(state), exists, changed)
			usable := state != netlink.NUD_NONE && state != netlink.NUD_INCOMPLETE && state != netlink.NUD_FAILED
			if got := len(s.neighbours) == 1; got != usable || (len(changed) == 0) != usable {
				t.Errorf("state %#x, exists %v: stays %v, %d changed", state, exists, got, len(changed))
			}
			incomplete := neigh(netlink.NUD_INCOMPLETE) // that it is being asked for is no news
			incomplete.HardwareAddr = nil
			if usable && !exists {
				s.see(incomplete, true, changed)
			}
			if lost := len(s.lost) == 1; lost != (usable && !exists) {
				t.Errorf("state %#x, exists %v: lost %v", state, exists, lost)
			}
		}
	}
}

// A host whose entry the kernel dropped for want of use is asked for: one that answers stays, another one goes.
func TestLost(t *testing.T) {
	for _, answers := range []bool{true, false} {
		l := newLAN(t)
		k, err := openKernel(defaultBuffer)
		if err != nil {
			t.Fatal(err)
		}
		events, stop := k.receive()
		s := New(Options{Segments: []Segment{segment()}})
		s.out = world{k, newAsker(s.log)}
		if !s.dump(k) {
			t.Fatal("no dump")
		}
		e := entry{l.index("lan0"), netip.MustParseAddr("10.1.0.7")}
		n := neigh(netlink.NUD_STALE)
		n.LinkIndex = e.link
		for _, exists := range []bool{true, false} {
			changed := make(map[entry]struct{})
			s.see(n, exists, changed)
			s.compare(changed)
		}
		if answers {
			l.has("10.1.0.7/24")
		}
		gone := make(map[entry]struct{})
		for range lostTicks + 1 {
			for e := range s.findLost() {
				gone[e] = struct{}{}
			}
		}
		if changes := s.compare(gone); len(changes) != 1 || !changes[0].Withdraw {
			t.Errorf("asked %d times without an answer, and %v changed", lostTicks, changes)
		}
		// The same again, and this time the answer counts.
		s.see(n, true, gone)
		s.see(n, false, gone)
		s.findLost()
		timeout := time.After(10 * time.Second)
		for len(s.lost) > 0 {
			select {
			case event := <-events:
				s.apply(event, gone)
			case <-timeout:
				t.Fatal("neither an answer nor a failure")
			}
		}
		s.lost[e] = 1 // a dump finds out just as well
		if !s.dump(k) || len(s.lost) != 0 {
			t.Error("still thought to be lost after a dump")
		}
		if found, is := s.neighbours[e]; is != answers || is && found.mac != mac(t, farMAC) {
			t.Errorf("answers %v: found %v %s", answers, is, found.mac)
		}
		stop()
	}
}
