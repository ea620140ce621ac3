package lab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

const netnsDir = "/run/netns"

// Namespace is one machine of the lab: a named network namespace. Commands run in it see the files and mounts of
// everybody else: `ip netns exec` would give them a mount namespace of their own, and every BPF pin made inside
// would end with the process.
type Namespace struct {
	Name string // as the topology calls it, such as "gw1"

	lab  *Lab
	full string // as the kernel knows it: unique on this machine
	ns   netns.NsHandle
	nl   *netlink.Handle
}

// Namespace creates a machine with its loopback up. Addresses are usable at once: no duplicate address detection,
// no router advertisements.
func (l *Lab) Namespace(name string) *Namespace {
	l.Helper()
	n := &Namespace{Name: name, lab: l, full: l.prefix + name}
	l.must(onThread(func() (err error) {
		n.ns, err = netns.NewNamed(n.full)
		return err
	}), "create namespace %s", name)
	l.Defer(func() {
		if n.nl != nil {
			n.nl.Close()
		}
		_ = n.ns.Close()
		if err := netns.DeleteNamed(n.full); err != nil {
			l.Logf("delete namespace %s: %v", name, err)
		}
	})
	nl, err := netlink.NewHandleAt(n.ns)
	l.must(err, "open netlink in %s", name)
	n.nl = nl
	for _, key := range []string{"accept_dad", "dad_transmits", "accept_ra", "router_solicitations"} {
		for _, scope := range []string{"all", "default"} {
			n.Sysctl("net.ipv6.conf."+scope+"."+key, "0")
		}
	}
	n.IP("link set lo up")
	return n
}

// Do runs fn on a thread inside the namespace. Sockets opened there stay in it and may be used from anywhere.
// Safe from any goroutine.
func (n *Namespace) Do(fn func() error) error {
	return onThread(func() error {
		if err := netns.Set(n.ns); err != nil {
			return fmt.Errorf("enter namespace %s: %w", n.Name, err)
		}
		return fn()
	})
}

// onThread runs fn, which may change the thread's namespace, and gives the thread back only if it could be
// restored: otherwise the thread ends with its goroutine.
func onThread(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		home, err := netns.Get()
		if err != nil {
			done <- err
			return
		}
		defer home.Close()
		err = fn()
		if netns.Set(home) == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}

// Sysctl sets a kernel setting of this namespace, written with dots.
func (n *Namespace) Sysctl(key, value string) {
	n.lab.Helper()
	path := "/proc/sys/" + strings.ReplaceAll(key, ".", "/")
	n.lab.must(n.Do(func() error { return os.WriteFile(path, []byte(value), 0) }), "set %s in %s", key, n.Name)
}

// IP feeds lines to iproute2 (`ip -batch`): one process, however many lines.
func (n *Namespace) IP(lines ...string) {
	n.lab.Helper()
	cmd := n.Command(context.Background(), "ip", "-batch", "-")
	cmd.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		n.lab.Fatalf("ip in %s: %v\n%s", n.Name, err, out)
	}
}

// Command prepares a command inside the namespace.
func (n *Namespace) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "nsenter", append([]string{"--net=" + netnsDir + "/" + n.full, name}, args...)...)
}

// Try runs a command of at most half a minute and returns what it printed on both streams.
func (n *Namespace) Try(name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	out, err := n.Command(ctx, name, args...).CombinedOutput()
	if ctx.Err() != nil {
		err = fmt.Errorf("still running after 30 s")
	}
	return string(out), err
}

// Run is Try that fails the test.
func (n *Namespace) Run(name string, args ...string) string {
	n.lab.Helper()
	out, err := n.Try(name, args...)
	if err != nil {
		n.lab.Fatalf("%s in %s: %v\n%s", strings.Join(append([]string{name}, args...), " "), n.Name, err, out)
	}
	return out
}
