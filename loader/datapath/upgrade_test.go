package datapath

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"roam/lab"
)

func netlinkMAC(name string) (string, error) {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return "", err
	}
	return l.Attrs().HardwareAddr.String(), nil
}

func macFrom(s string) (mac [6]byte) {
	b, _ := net.ParseMAC(s)
	copy(mac[:], b)
	return mac
}

// state is everything a failed transaction must leave alone: names and targets in the pin folder, the programs on the
// ports, the maps behind the pins, and the hosts.
func (s *site) state() string {
	s.t.Helper()
	var b strings.Builder
	fmt.Fprintln(&b, s.listing())
	for _, port := range []string{"lan0", "wan0"} {
		id, native := s.gw.XDP(port)
		fmt.Fprintln(&b, port, "runs", id, native)
	}
	pins := &pins{dir: s.pin}
	numbers, err := pins.generations()
	if err != nil {
		s.t.Fatal(err)
	}
	for _, n := range numbers {
		g, err := pins.open(n)
		if err != nil {
			s.t.Fatal(err)
		}
		id, _ := programID(g.program)
		fmt.Fprintln(&b, "generation", n, "program", id)
		for _, name := range sortedKeys(g.maps) {
			fmt.Fprintf(&b, "%s %x\n", name, digest(s.t, g.maps[name]))
		}
		_ = g.close()
	}
	return b.String()
}

// digest is a map's identity and its content, in short: arrays of a million entries are told by their id alone.
func digest(t *testing.T, m *ebpf.Map) string {
	t.Helper()
	info, err := m.Info()
	if err != nil {
		t.Fatal(err)
	}
	id, _ := info.ID()
	s := fmt.Sprint(id)
	if m.MaxEntries() > 4096 || m.Type() == ebpf.PerCPUArray || m.Type() == ebpf.LPMTrie {
		return s
	}
	var key, value []byte
	for entries := m.Iterate(); entries.Next(&key, &value); {
		if len(bytes.Trim(value, "\x00")) > 0 {
			s += fmt.Sprintf(" %x=%x", key, value)
		}
	}
	return s
}

// recording returns a step that notes the names.
func recording(names *[]string) Step {
	return func(name string) error {
		*names = append(*names, name)
		return nil
	}
}

var errInjected = errors.New("injected failure")

// failing returns a step that fails at the n-th call.
func failing(n int) Step {
	return func(string) error {
		if n--; n == -1 {
			return errInjected
		}
		return nil
	}
}

func (s *site) steps(op func(*Plane) error) []string {
	s.t.Helper()
	var names []string
	s.step = recording(&names)
	p := s.open()
	s.step = nil
	if op != nil {
		names = nil
		s.in("record steps", func() error { return op(p) })
	}
	s.close(p)
	return names
}

// chosen are the steps to fail at: all, but of the many that each pin one map only the first, one in the middle, and the
// last, since the verifier takes its time for every start.
func chosen(steps []string) []int {
	var all, pinning []int
	for i, name := range steps {
		if strings.HasPrefix(name, "pin ") && name != "pin "+programName {
			pinning = append(pinning, i)
			continue
		}
		all = append(all, i)
	}
	if n := len(pinning); n > 0 {
		all = append(all, pinning[0], pinning[n/2], pinning[n-1])
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// critical is how many of the steps come before the transaction is committed; after that a failure cannot undo it.
func critical(t *testing.T, steps []string) int {
	t.Helper()
	i := slices.Index(steps, "commit")
	if i < 0 {
		t.Fatalf("no commit among the steps %q", steps)
	}
	return i + 1
}

func TestOpenFailsAtEachStep(t *testing.T) {
	s := newSite(t)
	steps := s.steps(nil)
	s.in("remove", func() error { return Remove(s.pin, quiet()) })
	empty := s.listing()
	for _, i := range chosen(steps[:critical(t, steps)]) {
		s.step = failing(i)
		if _, err := s.tryOpen(); !errors.Is(err, errInjected) {
			t.Fatalf("step %q: %v, want the injected failure", steps[i], err)
		}
		if got := strings.TrimPrefix(s.listing(), "."); got != empty {
			t.Fatalf("after a failure at %q the folder holds\n%s", steps[i], got)
		}
	}
}

func TestUpgradeFailsAtEachStep(t *testing.T) {
	s := newSite(t)
	p := s.open()
	s.forward(p)
	s.close(p)
	steps := s.steps(nil)
	if got := strings.Count(strings.Join(steps, "\n"), "swap port"); got != 2 {
		t.Fatalf("%d ports were swapped, want 2: %q", got, steps)
	}
	flow := s.Flow(s.left, leftAddr, s.right, rightAddr, 1000, 64)
	flow.AwaitArrivals(10, 5*time.Second)
	before := s.state()
	for _, i := range chosen(steps) {
		s.step = failing(i)
		p, err := s.tryOpen()
		if i >= critical(t, steps) {
			if err != nil {
				t.Fatalf("a failure at %q, after the commit, failed the upgrade: %v", steps[i], err)
			}
			s.close(p)
			continue
		}
		if !errors.Is(err, errInjected) {
			t.Fatalf("step %q: %v, want the injected failure", steps[i], err)
		}
		if after := s.state(); after != before {
			t.Fatalf("a failure at %q changed the state from\n%s\nto\n%s", steps[i], before, after)
		}
	}
	s.step = nil
	s.close(s.open())
	s.tidy()
	if r := flow.Stop(); !r.Perfect() {
		t.Errorf("traffic: %v", r)
	}
}

func TestAttachFailsAtEachStep(t *testing.T) {
	s := newSite(t)
	attach := func(p *Plane) error { return p.Attach("lan0", Native) }
	steps := s.steps(attach)
	if len(steps) != 2 {
		t.Fatalf("steps of an attachment: %q", steps)
	}
	s.in("remove", func() error { return Remove(s.pin, quiet()) })
	p := s.open()
	before := s.state()
	for i := range steps {
		p.step = failing(i)
		if err := s.gw.Do(func() error { return attach(p) }); !errors.Is(err, errInjected) {
			t.Fatalf("step %q: %v, want the injected failure", steps[i], err)
		}
		if after := strings.Replace(s.state(), "\nlinks\n", "\n", 1); after != before {
			t.Fatalf("a failure at %q changed the state from\n%s\nto\n%s", steps[i], before, after)
		}
	}
	p.step = nil
	s.in("attach", func() error { return attach(p) })
	s.close(p)
}

// Restarts and upgrades are the same: the program is loaded anew and takes the place of the one that runs.
func TestUpgradeLosesNothing(t *testing.T) {
	s := newSite(t)
	p := s.open()
	s.forward(p)
	flow := s.Flow(s.left, leftAddr, s.right, rightAddr, 2000, 64)
	back := s.Flow(s.right, rightAddr, s.left, leftAddr, 2000, 64)
	flow.AwaitArrivals(100, 5*time.Second)
	seen := make(map[uint32]bool)
	for range 5 {
		s.close(p)
		flow.AwaitArrivals(50, 5*time.Second) // nobody is there
		p = s.open()
		if !p.Adopted() {
			t.Fatal("the tables were not adopted")
		}
		id, native := s.gw.XDP("lan0")
		if seen[id] || !native {
			t.Fatalf("program %d (native: %v) is not a new one", id, native)
		}
		seen[id] = true
		back.AwaitArrivals(50, 5*time.Second)
	}
	s.close(p)
	s.tidy()
	for _, f := range []*lab.Flow{flow, back} {
		if r := f.Stop(); !r.Perfect() {
			t.Errorf("%s: %v", f, r)
		}
	}
}

// tidy checks that nothing of an interrupted transaction is left: one generation, live, run by every port.
func (s *site) tidy() {
	s.t.Helper()
	pins := &pins{dir: s.pin}
	numbers, err := pins.generations()
	if err != nil || len(numbers) != 1 {
		s.t.Fatalf("generations %v, %v: want one", numbers, err)
	}
	if live, err := pins.live(); err != nil || live != numbers[0] {
		s.t.Fatalf("generation %d is live, %v: want %d", live, err, numbers[0])
	}
	g, err := pins.open(numbers[0])
	if err != nil {
		s.t.Fatal(err)
	}
	defer g.close()
	want, _ := programID(g.program)
	indexes, err := pins.list(linksName, "")
	if err != nil {
		s.t.Fatal(err)
	}
	for _, index := range indexes {
		s.in("look at ports", func() error {
			l, err := netlink.LinkByIndex(index)
			if err != nil {
				return err
			}
			if got := l.Attrs().Xdp.ProgId; got != uint32(want) {
				return fmt.Errorf("%s runs program %d, the live generation is %d", l.Attrs().Name, got, want)
			}
			return nil
		})
	}
}

// A child of the test process does one operation and kills itself at a step: nothing is undone, as in a crash.
const (
	crashOp   = "ROAM_TEST_CRASH_OP"
	crashStep = "ROAM_TEST_CRASH_STEP"
	crashPin  = "ROAM_TEST_CRASH_PIN"
)

func init() {
	op := os.Getenv(crashOp)
	if op == "" {
		return
	}
	n, _ := strconv.Atoi(os.Getenv(crashStep))
	die := func(string) error {
		if n--; n == -1 {
			_ = unix.Kill(os.Getpid(), unix.SIGKILL)
			select {}
		}
		return nil
	}
	err := crash(op, os.Getenv(crashPin), die)
	fmt.Fprintln(os.Stderr, "not killed:", err)
	os.Exit(1)
}

func crash(op, pin string, die Step) error {
	o := Options{Pin: pin, Hosts: testHosts, Log: quiet()}
	if op == "open" {
		o.Step = die
	}
	p, err := Open(o)
	if err != nil {
		return err
	}
	p.step = die
	switch op {
	case "attach":
		return p.Attach("lan0", Native)
	case "grow":
		return p.Grow(4 * testHosts)
	}
	return nil
}

func (s *site) crash(op string, step int) {
	s.t.Helper()
	cmd := s.gw.Command(context.Background(), os.Args[0])
	cmd.Env = append(os.Environ(), crashOp+"="+op, crashStep+"="+strconv.Itoa(step), crashPin+"="+s.pin)
	out, err := cmd.CombinedOutput()
	if state := cmd.ProcessState; state == nil || state.String() != "signal: killed" {
		s.t.Fatalf("the child at step %d of %s was not killed: %v\n%s", step, op, err, out)
	}
}

func TestCrashAtEachStep(t *testing.T) {
	s := newSite(t)
	first := s.steps(nil)
	s.in("remove", func() error { return Remove(s.pin, quiet()) })
	for _, i := range chosen(first) {
		s.crash("open", i)
		s.close(s.open())
		s.tidy()
		s.in("remove", func() error { return Remove(s.pin, quiet()) })
	}

	attach := func(p *Plane) error { return p.Attach("lan0", Native) }
	for _, i := range chosen(s.steps(attach)) {
		s.in("remove", func() error { return Remove(s.pin, quiet()) })
		s.crash("attach", i)
		p := s.open()
		s.in("attach again", func() error { return attach(p) })
		s.close(p)
		s.tidy()
	}

	p := s.open()
	s.forward(p)
	s.close(p)
	upgrade := s.steps(nil)
	flow := s.Flow(s.left, leftAddr, s.right, rightAddr, 1000, 64)
	flow.AwaitArrivals(10, 5*time.Second)
	for _, i := range chosen(upgrade) {
		s.crash("open", i)
		flow.AwaitArrivals(20, 5*time.Second)
		s.close(s.open())
		s.tidy()
	}
	if r := flow.Stop(); !r.Perfect() {
		t.Errorf("traffic over %d crashes: %v", len(upgrade), r)
	}
}

// Two crashes in a row, each in the critical section: links run three different programs.
func TestCrashUponCrash(t *testing.T) {
	s := newSite(t)
	p := s.open()
	s.forward(p)
	s.close(p)
	steps := s.steps(nil)
	second := slices.IndexFunc(steps, func(name string) bool { return strings.HasPrefix(name, "swap port") }) + 1
	flow := s.Flow(s.left, leftAddr, s.right, rightAddr, 1000, 64)
	for range 3 {
		s.crash("open", second)
	}
	a, _ := s.gw.XDP("lan0")
	b, _ := s.gw.XDP("wan0")
	if a == b {
		t.Fatalf("both ports run program %d: the crashes came too late or too early", a)
	}
	s.close(s.open())
	s.tidy()
	if r := flow.Stop(); !r.Perfect() {
		t.Errorf("traffic: %v", r)
	}
}

func TestHostsSurviveTheProcess(t *testing.T) {
	s := newSite(t)
	p := s.open()
	hosts := map[netip.Addr]uint32{
		netip.MustParseAddr("10.9.8.7"):    17,
		netip.MustParseAddr("2001:db8::1"): 18,
	}
	for a, v := range hosts {
		if err := p.Hosts().Put(testSpace, a, v); err != nil {
			t.Fatal(err)
		}
	}
	s.close(p)
	p = s.open()
	defer s.close(p)
	for a, v := range hosts {
		if got, ok := p.Hosts().Get(testSpace, a); !ok || got != v {
			t.Errorf("%s: %d, %v after a restart, want %d", a, got, ok, v)
		}
	}
}

func TestOpenRefusesBrokenPins(t *testing.T) {
	s := newSite(t)
	p := s.open()
	s.forward(p)
	s.close(p)
	live := filepath.Join(s.pin, liveName)
	gen, err := os.Readlink(live)
	if err != nil {
		t.Fatal(err)
	}
	flow := s.Flow(s.left, leftAddr, s.right, rightAddr, 1000, 64)
	refused := func(what string, want ...string) {
		t.Helper()
		before := s.listing()
		p, err := s.tryOpen()
		if err == nil {
			s.close(p)
			t.Fatalf("%s: opened", what)
		}
		for _, w := range want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %q is not in the error: %v", what, w, err)
			}
		}
		if after := s.listing(); after != before {
			t.Errorf("%s: the refusal changed the folder to\n%s", what, after)
		}
		flow.AwaitArrivals(10, 5*time.Second)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Remove(live))
	must(os.Symlink("elsewhere", live))
	refused("live points elsewhere", "elsewhere", "--detach")
	must(os.Remove(live))
	must(os.Symlink(gen, live))

	prog, err := ebpf.LoadPinnedProgram(filepath.Join(live, programName), nil)
	must(err)
	defer prog.Close()
	must(os.Remove(filepath.Join(live, programName)))
	refused("no complete generation", "no complete generation", "--detach")
	must(prog.Pin(filepath.Join(s.pin, gen, programName)))

	m, err := ebpf.LoadPinnedMap(filepath.Join(live, "nexthops"), nil)
	must(err)
	defer m.Close()
	must(os.Remove(filepath.Join(live, "nexthops")))
	refused("a map is missing", "nexthops", "not pinned", "--detach")
	must(m.Pin(filepath.Join(s.pin, gen, "nexthops")))

	s.close(s.open())
	if r := flow.Stop(); !r.Perfect() {
		t.Errorf("traffic: %v", r)
	}
}
