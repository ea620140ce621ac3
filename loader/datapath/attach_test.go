package datapath

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"

	"roam/lab"
	"roam/maps"
)

// stranger is an XDP program of somebody else's.
func stranger(t *testing.T) *ebpf.Program {
	t.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "stranger", Type: ebpf.XDP, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()}, // XDP_PASS
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

func TestAttachRefusesForeign(t *testing.T) {
	s := newSite(t)
	p := s.open()
	defer s.close(p)
	other := stranger(t)
	id, err := programID(other)
	if err != nil {
		t.Fatal(err)
	}
	check := func(how string) {
		t.Helper()
		before := s.state()
		err := s.gw.Do(func() error { return p.Attach("lan0", Native) })
		if err == nil {
			t.Fatalf("%s: attached over a foreign program", how)
		}
		for _, want := range []string{"lan0", fmt.Sprint("program ", id), "stranger", "ip link set dev lan0 xdp off"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %q is not in the error: %v", how, want, err)
			}
		}
		if after := s.state(); after != before {
			t.Errorf("%s: state changed from\n%s\nto\n%s", how, before, after)
		}
	}
	set := func(fd int) {
		s.in("set foreign program", func() error {
			l, err := netlink.LinkByName("lan0")
			if err != nil {
				return err
			}
			return netlink.LinkSetXdpFd(l, fd)
		})
	}
	set(other.FD())
	check("by netlink")
	set(-1)
	var l link.Link
	s.in("attach foreign program", func() (err error) {
		f, err := FactsOf("lan0")
		if err != nil {
			return err
		}
		l, err = link.AttachXDP(link.XDPOptions{Program: other, Interface: f.Index, Flags: link.XDPDriverMode})
		return err
	})
	check("by a link")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	s.in("attach", func() error { return p.Attach("lan0", Native) })
}

func TestAttachModes(t *testing.T) {
	s := newSite(t)
	var said strings.Builder
	var p *Plane
	s.in("open", func() (err error) {
		p, err = Open(Options{Pin: s.pin, Hosts: testHosts, Log: slog.New(slog.NewTextHandler(&said, nil))})
		return err
	})
	defer s.close(p)
	attach := func(mode Mode) (uint32, bool) {
		t.Helper()
		s.in("attach", func() error { return p.Attach("lan0", mode) })
		return s.gw.XDP("lan0")
	}
	if _, native := attach(Generic); native {
		t.Error("asked for generic, got native")
	}
	if !strings.Contains(said.String(), "generic mode") {
		t.Errorf("generic mode was not said loudly: %q", said.String())
	}
	if _, native := attach(Native); !native {
		t.Error("asked for native, stayed generic")
	}
	before := s.state()
	attach(Native)
	if after := s.state(); after != before {
		t.Errorf("attaching twice changed the state from\n%s\nto\n%s", before, after)
	}
	list := p.Attached()
	if len(list) != 1 || list[0].Name != "lan0" || list[0].Mode != Native || list[0].MTU != 1500 || list[0].Program == 0 {
		t.Errorf("attached: %+v", list)
	}
	s.in("detach", func() error { return p.Detach("lan0") })
	if id, _ := s.gw.XDP("lan0"); id != 0 || len(p.Attached()) != 0 {
		t.Errorf("program %d after detach, attached %+v", id, p.Attached())
	}
	s.in("detach twice", func() error { return p.Detach("lan0") })
}

// What the kernel refuses with a number comes back as a sentence with a way out.
func TestAttachErrors(t *testing.T) {
	s := newSite(t)
	p := s.open()
	defer s.close(p)
	s.gw.IP("link add big0 type veth peer name big1", "link set big1 mtu 9000",
		"link add many0 numtxqueues 1 numrxqueues 1 type veth peer name many1 numtxqueues 4 numrxqueues 4")
	for _, c := range []struct {
		port string
		want []string
	}{
		{"absent0", []string{"absent0", "no such interface", "correct its name"}},
		{"big0", []string{"big0", "MTU", "3520"}},
		{"many0", []string{"many0", "transmit queues", "ethtool -L"}},
		{"lo", []string{"lo", "no native XDP", "datapath.mode to generic"}},
	} {
		before := s.listing()
		err := s.gw.Do(func() error { return p.Attach(c.port, Native) })
		if err == nil {
			t.Errorf("%s: attached", c.port)
			continue
		}
		for _, want := range c.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %q is not in the error: %v", c.port, want, err)
			}
		}
		if after := s.listing(); after != before {
			t.Errorf("%s: left behind:\n%s", c.port, after)
		}
	}
	if err := s.gw.Do(func() error { return p.Attach("absent0", Native) }); !errors.Is(err, ErrNoInterface) {
		t.Errorf("%v, want ErrNoInterface", err)
	}
	s.in("generic where there is no native", func() error { return p.Attach("lo", Generic) })
}

func TestAttachInAnotherNamespace(t *testing.T) {
	s := newSite(t)
	p := s.open()
	s.forward(p)
	s.close(p)
	err := s.left.Do(func() error { // eth0 there has the index of lan0 here
		p, err := Open(Options{Pin: s.pin, Log: quiet()})
		if err != nil {
			return err
		}
		defer p.Close()
		return p.Attach("eth0", Native)
	})
	if err == nil || !strings.Contains(err.Error(), "another network namespace") {
		t.Errorf("%v, want an error about another network namespace", err)
	}
	s.tidy()
}

// A port whose interface is missing at first is told of when it comes.
func TestWatchTellsOfExpected(t *testing.T) {
	s := newSite(t)
	p := s.open()
	defer s.close(p)
	s.in("expect", func() error { return p.DetachOthers([]string{"late0"}) })
	told := make(chan PortChange, 10)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- s.gw.Do(func() error {
			return p.Watch(ctx, func(c PortChange) error { told <- c; return p.Attach(c.Name, Generic) })
		})
	}()
	defer func() { cancel(); <-ended }()
	s.gw.IP("link add late0 type veth peer name late1", "link set late0 up")
	select {
	case c := <-told:
		if c.Name != "late0" || c.Gone || c.Index == 0 {
			t.Errorf("told %+v", c)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("nobody told of the new interface")
	}
	s.Until(5*time.Second, "it is attached", func() error {
		if id, _ := s.gw.XDP("late0"); id == 0 {
			return errors.New("no program")
		}
		return nil
	})
}

func TestDetachOthers(t *testing.T) {
	s := newSite(t)
	p := s.open()
	s.forward(p)
	s.close(p)
	p = s.open()
	defer s.close(p)
	s.in("keep lan0", func() error { return p.DetachOthers([]string{"lan0"}) })
	if id, _ := s.gw.XDP("wan0"); id != 0 {
		t.Errorf("wan0 still runs program %d", id)
	}
	if id, _ := s.gw.XDP("lan0"); id == 0 {
		t.Error("lan0 lost its program")
	}
}

// An interface that goes takes its attachment along; when one of that name comes, its port works again.
func TestWatch(t *testing.T) {
	s := newSite(t)
	p := s.open()
	s.forward(p)
	events := make(chan PortChange, 100)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	changed := func(c PortChange) error {
		events <- c
		if c.Gone {
			return nil
		}
		return s.place(p, c)
	}
	go func() { ended <- s.gw.Do(func() error { return p.Watch(ctx, changed) }) }()
	await := func(what string, is func(PortChange) bool) PortChange {
		t.Helper()
		limit := time.After(10 * time.Second)
		for {
			select {
			case c := <-events:
				if is(c) {
					return c
				}
			case <-limit:
				t.Fatalf("no news that %s", what)
			}
		}
	}
	first := await("lan0 is there", func(c PortChange) bool { return c.Name == "lan0" && !c.Gone })
	s.left.IP("link del eth0")
	await("lan0 is gone", func(c PortChange) bool { return c.Name == "lan0" && c.Gone })
	s.Until(5*time.Second, "the dead attachment is removed", func() error {
		if list := s.listing(); strings.Contains(list, fmt.Sprintf("links/%d", first.Index)) {
			return errors.New(list)
		}
		return nil
	})
	s.Cable(lab.End{In: s.left, Name: "eth0"}, lab.End{In: s.gw, Name: "lan0"}, 1500, 1)
	s.left.Addresses("eth0", "10.1.0.2/24")
	s.gw.Addresses("lan0", "10.1.0.1/24")
	s.left.IP("route add default via 10.1.0.1")
	back := await("lan0 is back", func(c PortChange) bool { return c.Name == "lan0" && !c.Gone })
	if back.Index == first.Index || back.Was != 0 {
		t.Errorf("it came back as %+v after %+v", back, first)
	}
	s.Until(10*time.Second, "lan0 runs the program again", func() error {
		if id, native := s.gw.XDP("lan0"); id == 0 || !native {
			return fmt.Errorf("program %d", id)
		}
		return nil
	})
	s.in("restore the host", func() error { return forwardBoth(p, s.left.MAC("eth0"), s.right.MAC("eth0")) })
	flow := s.Flow(s.right, rightAddr, s.left, leftAddr, 500, 64)
	flow.AwaitArrivals(100, 5*time.Second)
	s.gw.IP("link set wan0 mtu 1400")
	await("wan0 has another MTU", func(c PortChange) bool { return c.Name == "wan0" && c.MTU == 1400 })
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("watch ended with %v", err)
	}
	s.close(p)
	s.tidy()
}

// place enters a port under its new index, as the owner of the tables does.
func (s *site) place(p *Plane, c PortChange) error {
	ports, err := maps.OpenPorts(p.Objects())
	if err != nil {
		return err
	}
	defer ports.Close()
	slot, err := ports.Put(maps.Port{
		Ifindex: uint32(c.Index), Role: maps.RoleUplink, Tenant: testSpace, Mac: c.MAC, Mtu: uint16(c.MTU),
	})
	if err != nil {
		return err
	}
	return p.SetTx(slot, c.Name)
}

// The devmap entry of an interface that comes back is restored under its old slot too.
func TestWatchRestoresTx(t *testing.T) {
	s := newSite(t)
	p := s.open()
	defer s.close(p)
	const slot = 77
	s.in("attach", func() error {
		return errors.Join(p.Attach("wan0", Native), p.SetTx(slot, "wan0"))
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.gw.Do(func() error { return p.Watch(ctx, nil) }) }()
	defer func() { cancel(); <-ended }()
	index := func() (v uint32) {
		_ = p.Objects().TxPorts.Lookup(uint32(slot), &v)
		return v
	}
	was := index()
	s.right.IP("link del eth0")
	s.Until(5*time.Second, "the entry is gone", func() error {
		if v := index(); v != 0 {
			return fmt.Errorf("it is %d", v)
		}
		return nil
	})
	s.Cable(lab.End{In: s.right, Name: "eth0"}, lab.End{In: s.gw, Name: "wan0"}, 1500, 1)
	s.Until(10*time.Second, "the entry is back", func() error {
		if v := index(); v == 0 || v == was {
			return fmt.Errorf("it is %d, was %d", v, was)
		}
		return nil
	})
	if err := p.ClearTx(slot); err != nil {
		t.Fatal(err)
	}
	if v := index(); v != 0 {
		t.Errorf("the entry is %d after ClearTx", v)
	}
	if err := p.ClearTx(slot); err != nil {
		t.Errorf("clear twice: %v", err)
	}
}

func TestFacts(t *testing.T) {
	s := newSite(t)
	p := s.open()
	defer s.close(p)
	s.in("attach", func() error { return p.Attach("wan0", Native) })
	var f Facts
	s.in("look", func() (err error) {
		f, err = FactsOf("wan0")
		return err
	})
	if f.Driver != "veth" || f.MTU != 1500 || f.RxQueues != 1 || f.MTULimit != 3520 || !f.Up || !f.Carrier ||
		f.Mode != Native || f.Program == 0 {
		t.Errorf("facts: %+v", f)
	}
	if want := FeatureBasic | FeatureRedirect | FeatureTransmit; !f.FeaturesKnown || f.Features&want != want {
		t.Errorf("features %#x (known: %v), want %#x", f.Features, f.FeaturesKnown, want)
	}
	card := Facts{Name: "card0", Driver: "ice", StripsVLAN: true}
	if err := card.SeesTags(); err == nil || !strings.Contains(err.Error(), "ethtool -K card0 rxvlan off") {
		t.Errorf("a card that strips tags: %v", err)
	}
	if err := f.SeesTags(); err != nil {
		t.Errorf("veth: %v", err)
	}
	if _, err := FactsOf("absent0"); err == nil {
		t.Error("facts of an absent interface")
	}
}

func TestDoctor(t *testing.T) {
	s := newSite(t)
	p := s.open()
	defer s.close(p)
	lan := PortSpec{
		Name: "lan0", Access: true, Subnets: prefixes("10.1.0.0/24"), Own: addresses("10.1.0.1"), Gateway: addresses("10.1.0.254"),
	}
	wan := PortSpec{Name: "wan0", Underlay: true}
	look := func() (found string) {
		s.in("look", func() error {
			for _, f := range p.Doctor([]PortSpec{lan, wan}) {
				found += fmt.Sprintln(f.Level, f.Port, f.What, "->", f.Fix)
			}
			return nil
		})
		return found
	}
	expect := func(what string, want ...string) {
		t.Helper()
		found := look()
		for _, w := range want {
			if !strings.Contains(found, w) {
				t.Errorf("%s: %q was not found in\n%s", what, w, found)
			}
		}
		if len(want) == 0 && found != "" {
			t.Errorf("%s: found\n%s", what, found)
		}
	}
	expect("nothing is set", "lan0 no XDP program", "ip_forward is 0 instead of 1", "flag lan0 promisc is off")
	s.in("set", func() error {
		return errors.Join(p.Kernel().Set([]PortSpec{lan, wan}), p.Attach("lan0", Native), p.Attach("wan0", Native))
	})
	expect("small underlay", "warning wan0 MTU 1500 leaves hosts 1450 bytes")
	s.gw.IP("link set wan0 mtu 1570")
	s.right.IP("link set eth0 mtu 1570")
	expect("all is well")
	s.right.Run("ethtool", "-K", "eth0", "gro", "off")
	expect("redirects are lost", "error wan0 packets that XDP sends out here are lost", "gro on")
	s.right.Run("ethtool", "-K", "eth0", "gro", "on")
	expect("redirects are taken again")
	lan.VLAN = 5
	s.gw.Run("ethtool", "-K", "lan0", "rxvlan", "on")
	expect("tags", "ethtool -K PEER txvlan off")
	lan.VLAN = 0
	lan.Own = nil
	expect("no own address", "own_addresses")
}
