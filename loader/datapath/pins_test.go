package datapath

import (
	"errors"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"roam/lab"
	"roam/maps"
)

// site is one gateway between two hosts, for tests of what is attached and pinned:
//
//	left eth0 ---- lan0 gw wan0 ---- eth0 right
//	10.1.0.2     10.1.0.1  10.2.0.1     10.2.0.2
//
// The kernel of gw does not forward: what arrives at the other side went through the program and its host table.
type site struct {
	*lab.Lab
	t               *testing.T
	pin             string
	left, gw, right *lab.Namespace
	step            Step
}

var (
	leftAddr  = netip.MustParseAddr("10.1.0.2")
	rightAddr = netip.MustParseAddr("10.2.0.2")
)

const (
	testSpace = 1
	testHosts = 1024
)

func newSite(t *testing.T) *site {
	t.Helper()
	l := lab.New(t)
	s := &site{Lab: l, t: t, left: l.Namespace("left"), gw: l.Namespace("gw"), right: l.Namespace("right")}
	l.Cable(lab.End{In: s.left, Name: "eth0"}, lab.End{In: s.gw, Name: "lan0"}, 1500, 1)
	l.Cable(lab.End{In: s.right, Name: "eth0"}, lab.End{In: s.gw, Name: "wan0"}, 1500, 1)
	s.left.Addresses("eth0", "10.1.0.2/24")
	s.gw.Addresses("lan0", "10.1.0.1/24")
	s.gw.Addresses("wan0", "10.2.0.1/24")
	s.right.Addresses("eth0", "10.2.0.2/24")
	s.left.IP("route add default via 10.1.0.1")
	s.right.IP("route add default via 10.2.0.1")
	s.gw.Sysctl("net.ipv4.ip_forward", "0")
	s.pin = filepath.Join(l.BPFFS("bpf"), "roam")
	return s
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// in runs f in the gateway's namespace and fails the test with its error.
func (s *site) in(what string, f func() error) {
	s.t.Helper()
	if err := s.gw.Do(f); err != nil {
		s.t.Fatalf("%s: %v", what, err)
	}
}

func (s *site) tryOpen() (p *Plane, err error) {
	err = s.gw.Do(func() (err error) {
		p, err = Open(Options{Pin: s.pin, Hosts: testHosts, Log: quiet(), Step: s.step})
		return err
	})
	return p, err
}

func (s *site) open() *Plane {
	s.t.Helper()
	p, err := s.tryOpen()
	if err != nil {
		s.t.Fatalf("open: %v", err)
	}
	return p
}

func (s *site) close(p *Plane) {
	s.t.Helper()
	if err := p.Close(); err != nil {
		s.t.Fatalf("close: %v", err)
	}
}

// forward attaches both ports and enters both hosts as local deliveries.
func (s *site) forward(p *Plane) {
	s.t.Helper()
	s.in("forward", func() error {
		return forwardBoth(p, s.left.MAC("eth0"), s.right.MAC("eth0"))
	})
}

// forwardBoth is also what a crashing child calls: it takes no test.
func forwardBoth(p *Plane, leftMAC, rightMAC string) error {
	ports, err := maps.OpenPorts(p.Objects())
	if err != nil {
		return err
	}
	defer ports.Close()
	nexthops, err := maps.OpenNexthops(p.Objects())
	if err != nil {
		return err
	}
	defer nexthops.Close()
	for _, end := range []struct {
		port string
		host netip.Addr
		mac  string
	}{{"lan0", leftAddr, leftMAC}, {"wan0", rightAddr, rightMAC}} {
		f, err := FactsOf(end.port)
		if err != nil {
			return err
		}
		slot, err := ports.Put(maps.Port{
			Ifindex: uint32(f.Index), Role: maps.RoleUplink, Tenant: testSpace, Mac: macFrom(linkMAC(end.port)), Mtu: 1500,
		})
		if err != nil {
			return err
		}
		id, err := nexthops.Acquire(maps.Target{Kind: maps.KindLocal, Tenant: testSpace, Port: slot, MAC: macFrom(end.mac)})
		if err != nil {
			return err
		}
		if err := p.Hosts().Put(testSpace, end.host, id); err != nil {
			return err
		}
		if err := p.SetTx(slot, end.port); err != nil {
			return err
		}
		if err := p.Attach(end.port, Native); err != nil {
			return err
		}
	}
	return nil
}

// listing is what a pin folder holds, one line each.
func (s *site) listing() string {
	s.t.Helper()
	var lines []string
	err := filepath.WalkDir(s.pin, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		line, _ := filepath.Rel(s.pin, path)
		if d.Type()&fs.ModeSymlink != 0 {
			target, _ := os.Readlink(path)
			line += " -> " + target
		}
		lines = append(lines, line)
		return nil
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.t.Fatalf("list pins: %v", err)
	}
	return strings.Join(lines, "\n")
}

// What the layout of the pin folder rests on: if a kernel behaves otherwise, this says where to look.
func TestBPFFSFacts(t *testing.T) {
	dir := lab.New(t).BPFFS("bpf")
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := os.Mkdir(at("with.dot"), 0o700); err == nil {
		t.Error("a name with a dot was taken")
	}
	if _, err := os.Create(at("file")); err == nil {
		t.Error("a regular file was taken")
	}
	for _, name := range []string{"full", "full/inner", "empty", "other"} {
		if err := os.Mkdir(at(name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Rename(at("other"), at("full")); !errors.Is(err, unix.ENOTEMPTY) {
		t.Errorf("rename onto a folder that holds something: %v, want ENOTEMPTY", err)
	}
	if err := unix.Rename(at("other"), at("empty")); err != nil {
		t.Errorf("rename onto an empty folder: %v", err)
	}
	for _, link := range [][2]string{{"full", "live"}, {"empty", "next"}} {
		if err := os.Symlink(link[0], at(link[1])); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Rename(at("next"), at("live")); err != nil {
		t.Fatalf("rename a symbolic link onto another: %v", err)
	}
	if target, _ := os.Readlink(at("live")); target != "empty" {
		t.Errorf("live points to %s after the rename", target)
	}
}

func TestPinsOneProcess(t *testing.T) {
	s := newSite(t)
	p := s.open()
	before := s.listing()
	_, err := s.tryOpen()
	if !errors.Is(err, ErrLocked) {
		t.Fatalf("a second open gave %v, want ErrLocked", err)
	}
	if want := "process"; !strings.Contains(err.Error(), want) {
		t.Errorf("the error names no process: %v", err)
	}
	if err := s.gw.Do(func() error { return Remove(s.pin, quiet()) }); !errors.Is(err, ErrLocked) {
		t.Errorf("remove under a running daemon gave %v, want ErrLocked", err)
	}
	if after := s.listing(); after != before {
		t.Errorf("refused processes left traces:\n%s", after)
	}
	s.close(p)
	s.close(s.open())
}

func TestPinsMountsWhereThereIsNone(t *testing.T) {
	l := lab.New(t)
	dir := filepath.Join(l.Dir, "plain", "roam")
	l.Defer(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	var warnings strings.Builder
	p, err := openPins(dir, slog.New(slog.NewTextHandler(&warnings, nil)))
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	if there, err := onBPFFS(dir); !there || err != nil {
		t.Errorf("%s is not on a BPF file system: %v", dir, err)
	}
	if !strings.Contains(warnings.String(), "mounted a BPF file system") {
		t.Errorf("no warning: %q", warnings.String())
	}
}

func TestPinsBadPaths(t *testing.T) {
	l := lab.New(t)
	for path, want := range map[string]string{
		"relative/path":                      "absolute path",
		"/":                                  "absolute path",
		"":                                   "absolute path",
		filepath.Join(l.BPFFS("bpf"), "a.b"): "no name with a dot",
	} {
		if p, err := openPins(path, quiet()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want an error about %q", path, err, want)
			if err == nil {
				_ = p.close()
			}
		}
	}
}

func TestRemove(t *testing.T) {
	s := newSite(t)
	p := s.open()
	s.forward(p)
	s.in("kernel", func() error {
		return p.Kernel().Set([]PortSpec{{Name: "wan0", Uplink: true}})
	})
	s.close(p)
	s.in("remove", func() error { return Remove(s.pin, quiet()) })
	if left := s.listing(); left != "" {
		t.Errorf("left behind:\n%s", left)
	}
	for _, port := range []string{"lan0", "wan0"} {
		if id, _ := s.gw.XDP(port); id != 0 {
			t.Errorf("%s still runs program %d", port, id)
		}
	}
	if got := s.gw.Run("cat", "/proc/sys/net/ipv4/ip_forward"); strings.TrimSpace(got) != "0" {
		t.Errorf("ip_forward is %s after remove", got)
	}
	s.in("remove nothing", func() error { return Remove(s.pin, quiet()) })
}

// linkMAC reads an interface's MAC in the namespace of the calling thread.
func linkMAC(name string) string {
	b, err := netlinkMAC(name)
	if err != nil {
		return ""
	}
	return b
}
