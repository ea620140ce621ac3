package datapath

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"roam/lab"
)

func prefixes(list ...string) (out []netip.Prefix) {
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func addresses(list ...string) (out []netip.Addr) {
	for _, s := range list {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

func accessSpec() PortSpec {
	return PortSpec{
		Name: "lan0", Access: true,
		Subnets: prefixes("10.1.0.0/24", "2001:db8:1::/64"),
		Own:     addresses("10.1.0.3", "2001:db8:1::3"),
		Gateway: addresses("10.1.0.254", "2001:db8:1::fe", "fe80::1"),
	}
}

// kernelState is all that Set may touch, as the system's own tools show it.
func (s *site) kernelState() string {
	s.t.Helper()
	out := s.gw.Run("sh", "-c", "cd /proc/sys/net && grep -r . ipv4/ip_forward ipv4/conf ipv6/conf 2>/dev/null | grep -v stable_secret")
	out += s.gw.Run("ip", "-o", "addr")
	out += s.gw.Run("ip", "route") + s.gw.Run("ip", "-6", "route")
	out += s.gw.Run("sh", "-c", "ip -d link | grep -o '^[0-9]*: [^:]*: <[^>]*>\\|promiscuity [0-9]* *allmulti [0-9]*'")
	var lines []string
	for line := range strings.Lines(out) {
		lines = append(lines, strings.Join(strings.Fields(line), " "))
	}
	return strings.Join(lines, "\n")
}

// difference lists the lines that only one of two states has.
func difference(before, after string) string {
	count := make(map[string]int)
	for line := range strings.Lines(before + "\n") {
		count[line]--
	}
	for line := range strings.Lines(after + "\n") {
		count[line]++
	}
	var b strings.Builder
	for _, line := range sortedKeys(count) {
		switch n := count[line]; {
		case n < 0:
			b.WriteString("- " + line)
		case n > 0:
			b.WriteString("+ " + line)
		}
	}
	return b.String()
}

func (s *site) plane() (*Plane, *Kernel) {
	s.t.Helper()
	p := s.open()
	return p, p.Kernel()
}

func TestKernelSetAndRestore(t *testing.T) {
	s := newSite(t)
	s.gw.Sysctl("net.ipv4.conf.all.rp_filter", "1")
	s.gw.Sysctl("net.ipv4.conf.wan0.forwarding", "1") // alone: must still do so at the end
	s.gw.Sysctl("net.ipv4.conf.wan0.send_redirects", "0")
	s.gw.Sysctl("net.ipv6.conf.wan0.accept_ra", "1") // as a host does: it must go on listening
	s.gw.Sysctl("net.ipv6.conf.lan0.accept_ra", "1")
	p, k := s.plane()
	before := s.kernelState()
	ports := []PortSpec{accessSpec(), {Name: "wan0", Underlay: true}}
	s.in("set", func() error { return k.Set(ports) })
	set := s.kernelState()
	for _, want := range []string{
		"ipv4/ip_forward:1", "ipv6/conf/all/forwarding:1",
		"ipv4/conf/lan0/rp_filter:2", "ipv4/conf/wan0/rp_filter:2",
		"ipv4/conf/all/send_redirects:0", "ipv4/conf/lan0/send_redirects:0",
		"ipv4/conf/lan0/arp_ignore:1", "ipv4/conf/lan0/arp_announce:2", "ipv4/conf/wan0/arp_ignore:0",
		"ipv6/conf/lan0/accept_ra:0", "ipv6/conf/wan0/accept_ra:2",
		"10.1.0.3/24", "2001:db8:1::3/64", "10.1.0.254/32", "2001:db8:1::fe/128",
		"10.1.0.0/24 dev lan0", "2001:db8:1::/64 dev lan0",
		"promiscuity 1 allmulti 1",
	} {
		if !strings.Contains(set, want) {
			t.Errorf("%q is not there after Set:\n%s", want, difference(before, set))
		}
	}
	if strings.Contains(set, "fe80::1/") {
		t.Error("the shared link-local address must not be in the kernel")
	}
	if strings.Contains(set, "tentative") {
		t.Error("a shared address is under duplicate address detection")
	}
	s.in("set again", func() error { return k.Set(ports) })
	if d := difference(set, s.kernelState()); d != "" {
		t.Errorf("setting twice changed\n%s", d)
	}
	s.close(p) // another process undoes it
	p, k = s.plane()
	s.in("set by the next process", func() error { return k.Set(ports) })
	if d := difference(set, s.kernelState()); d != "" {
		t.Errorf("the next process changed\n%s", d)
	}
	s.in("restore", k.Restore)
	if d := difference(before, s.kernelState()); d != "" {
		t.Errorf("not restored:\n%s", d)
	}
	s.close(p)
}

// What somebody had set already is theirs and stays.
func TestKernelKeepsWhatWasRight(t *testing.T) {
	s := newSite(t)
	s.gw.Sysctl("net.ipv4.ip_forward", "1")
	s.gw.Addresses("lan0", "10.1.0.3/24")
	s.gw.Addresses("lo", "10.1.0.254/32")
	s.gw.IP("link set lan0 promisc on")
	p, k := s.plane()
	defer s.close(p)
	before := s.kernelState()
	s.in("set", func() error { return k.Set([]PortSpec{accessSpec()}) })
	// Somebody changes their mind about a setting that was ours.
	s.gw.Sysctl("net.ipv4.conf.lan0.arp_announce", "1")
	s.in("restore", k.Restore)
	want := strings.Replace(before, "ipv4/conf/lan0/arp_announce:0", "ipv4/conf/lan0/arp_announce:1", 1)
	if d := difference(want, s.kernelState()); d != "" {
		t.Errorf("after restore:\n%s", d)
	}
}

// Another configuration takes back what only the earlier one wanted.
func TestKernelFollowsTheConfiguration(t *testing.T) {
	s := newSite(t)
	p, k := s.plane()
	defer s.close(p)
	before := s.kernelState()
	first := accessSpec()
	s.in("set", func() error { return k.Set([]PortSpec{first, {Name: "wan0", Underlay: true}}) })
	second := first
	second.Own, second.Gateway = addresses("10.1.0.4"), addresses("10.1.0.254")
	s.in("set another", func() error { return k.Set([]PortSpec{second}) })
	now := s.kernelState()
	for want, there := range map[string]bool{
		"10.1.0.3/24": false, "10.1.0.4/24": true, "10.1.0.254/32": true, "2001:db8:1::fe/128": false,
		"2001:db8:1::/64 dev lan0": true, "ipv4/conf/wan0/send_redirects:1": true,
	} {
		if strings.Contains(now, want) != there {
			t.Errorf("%q there: %v, want %v", want, !there, there)
		}
	}
	s.in("set nothing", func() error { return k.Set(nil) })
	if d := difference(before, s.kernelState()); d != "" {
		t.Errorf("left of an empty configuration:\n%s", d)
	}
}

// Without an own address, the subnet's route and its source make the kernel find hosts.
func TestKernelResolvesWithoutOwnAddress(t *testing.T) {
	s := newSite(t)
	s.gw.IP("addr del 10.1.0.1/24 dev lan0")
	p, k := s.plane()
	defer s.close(p)
	spec := accessSpec()
	spec.Own = nil
	s.in("set", func() error { return k.Set([]PortSpec{spec}) })
	if route := s.gw.Run("ip", "route", "get", "10.1.0.2"); !strings.Contains(route, "dev lan0 src 10.1.0.254") {
		t.Errorf("route to a host: %s", route)
	}
	s.gw.Run("ping", "-c1", "-W2", "-I", "10.1.0.254", "10.1.0.2")
	s.left.Addresses("eth0", "2001:db8:1::2/64")
	s.Until(5*time.Second, "the kernel finds an IPv6 host", func() error {
		_, err := s.gw.Try("sh", "-c", "ping -c1 -W1 2001:db8:1::2 >/dev/null; ip neigh show 2001:db8:1::2 | grep -q lladdr")
		return err
	})
}

// The kernel answers ARP for its own address only, and never asks in the name of a shared one.
func TestKernelARP(t *testing.T) {
	s := newSite(t)
	s.gw.IP("addr del 10.1.0.1/24 dev lan0")
	p, k := s.plane()
	defer s.close(p)
	s.in("set", func() error { return k.Set([]PortSpec{accessSpec()}) })
	arping := func(target string) error {
		_, err := s.left.Try("sh", "-c", fmt.Sprintf("ping -c1 -W1 %s >/dev/null; ip neigh show %s | grep -q lladdr", target, target))
		return err
	}
	if err := arping("10.1.0.3"); err != nil {
		t.Errorf("the own address is not answered for: %v", err)
	}
	if err := arping("10.1.0.254"); err == nil {
		t.Error("the kernel answered for a shared address")
	}
	s.left.IP("neigh flush dev eth0")
	s.gw.IP("neigh flush dev lan0")
	// The answer to this finds nobody, as nobody answers for the shared address here: what counts is who asked for the host.
	_, _ = s.gw.Try("ping", "-c1", "-W1", "-I", "10.1.0.254", "10.1.0.2")
	if n := s.gw.Run("ip", "neigh", "show", "10.1.0.2"); !strings.Contains(n, "lladdr") {
		t.Errorf("the host was not found: %s", n)
	}
	if n := s.left.Run("ip", "neigh", "show", "10.1.0.254"); strings.Contains(n, "lladdr") {
		t.Errorf("a host learned the shared address from the kernel: %s", n)
	}
}

func TestKernelVLAN(t *testing.T) {
	s := newSite(t)
	p, k := s.plane()
	defer s.close(p)
	before := s.kernelState()
	spec := accessSpec()
	spec.VLAN = 100
	if got := spec.Device(); got != "lan0.100" {
		t.Fatalf("device %s", got)
	}
	err := s.gw.Do(func() error { return k.Set([]PortSpec{spec}) })
	if _, none := s.gw.Try("ip", "link", "add", "link", "wan0", "name", "probe", "type", "vlan", "id", "1"); none != nil {
		// A kernel without VLAN devices, as some test machines have it, is told apart and named.
		if err == nil || !strings.Contains(err.Error(), "8021q") {
			t.Errorf("without VLAN devices: %v", err)
		}
		return
	}
	s.gw.Run("ip", "link", "del", "probe")
	if err != nil {
		t.Fatal(err)
	}
	now := s.kernelState()
	for _, want := range []string{"ipv4/conf/lan0.100/arp_announce:2", "10.1.0.3/24", ": lan0.100@lan0: <"} {
		if !strings.Contains(now, want) {
			t.Errorf("%q is not there:\n%s", want, difference(before, now))
		}
	}
	s.in("restore", k.Restore)
	if d := difference(before, s.kernelState()); d != "" {
		t.Errorf("not restored:\n%s", d)
	}
	if got := vlanName("averylongname0", 4094); got != "averylongn.4094" {
		t.Errorf("VLAN device of a long name: %q", got)
	}
}

// An interface that comes back is set up anew, and what was noted of its predecessor does no harm.
func TestKernelInterfaceReturns(t *testing.T) {
	s := newSite(t)
	p, k := s.plane()
	defer s.close(p)
	ports := []PortSpec{accessSpec()}
	s.in("set", func() error { return k.Set(ports) })
	s.left.IP("link del eth0")
	s.in("set without the interface", func() error { return k.Set(ports) })
	s.Cable(lab.End{In: s.left, Name: "eth0"}, lab.End{In: s.gw, Name: "lan0"}, 1500, 1)
	before := s.kernelState()
	s.in("set with a new interface", func() error { return k.Set(ports) })
	now := s.kernelState()
	for _, want := range []string{"10.1.0.3/24", "promiscuity 1 allmulti 1", "ipv4/conf/lan0/arp_announce:2"} {
		if !strings.Contains(now, want) {
			t.Errorf("%q is not there:\n%s", want, difference(before, now))
		}
	}
	s.in("restore", k.Restore)
	if now := s.kernelState(); strings.Contains(now, "10.1.0.3/24") || strings.Contains(now, "ipv4/ip_forward:1") {
		t.Errorf("not restored:\n%s", now)
	}
}

func TestKernelRefusesBadPorts(t *testing.T) {
	s := newSite(t)
	p, k := s.plane()
	defer s.close(p)
	s.gw.Sysctl("net.ipv6.conf.wan0.disable_ipv6", "1")
	for _, c := range []struct {
		port PortSpec
		want []string
	}{
		{PortSpec{Name: ""}, []string{"no interface name"}},
		{PortSpec{Name: "../../kernel"}, []string{"no interface name"}},
		{PortSpec{Name: "all"}, []string{"no interface name"}},
		{PortSpec{Name: "lan0", VLAN: 4095}, []string{"VLAN 4095"}},
		{
			PortSpec{Name: "lan0", Access: true, Subnets: prefixes("10.1.0.0/24"), Own: addresses("10.9.0.1")},
			[]string{"10.9.0.1", "none of its subnets"},
		},
		{
			PortSpec{Name: "wan0", Access: true, Subnets: prefixes("2001:db8::/64"), Own: addresses("2001:db8::1")},
			[]string{"wan0", "IPv6 is switched off", "disable_ipv6"},
		},
	} {
		err := s.gw.Do(func() error { return k.Set([]PortSpec{c.port}) })
		for _, want := range c.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%+v: %v, want %q", c.port, err, want)
			}
		}
	}
}

func TestParseSetting(t *testing.T) {
	for _, s := range []setting{
		sysctl("net/ipv4/conf/lan0.5/rp_filter"),
		keptSetting{"net/ipv4/conf/x/forwarding"},
		addressSetting{"lan0", netip.MustParsePrefix("2001:db8::1/64")},
		routeSetting{link: "lan0", subnet: netip.MustParsePrefix("10.0.0.0/8")},
		nowhereSetting{"eth0", netip.MustParsePrefix("2001:db8:1::/64")},
		flagSetting{"lan0", "promisc"},
		vlanSetting{link: "lan0", id: 7},
	} {
		got, err := parseSetting(s.String())
		if err != nil || got != s {
			t.Errorf("%q became %#v, %v", s.String(), got, err)
		}
		if rank(s.String()) < 0 {
			t.Errorf("%q has no place in the order of undoing", s.String())
		}
	}
	for _, bad := range []string{"", "x", "sysctl ../../etc/passwd", "sysctl net/../kernel/panic", "address lan0 nonsense", "vlan lan0 70000", "keep /etc"} {
		if s, err := parseSetting(bad); err == nil {
			t.Errorf("%q became %#v", bad, s)
		}
	}
}

// What was set in one namespace is never undone in another, where the same names mean other things.
func TestJournalOfAnotherNamespace(t *testing.T) {
	s := newSite(t)
	s.right.Sysctl("net.ipv4.ip_forward", "1")
	p, k := s.plane()
	s.in("set", func() error { return k.Set([]PortSpec{{Name: "wan0", Uplink: true}}) })
	s.in("attach", func() error { return p.Attach("wan0", Native) })
	s.close(p)
	elsewhere := func(f func(p *Plane) error) error {
		return s.right.Do(func() error {
			p, err := Open(Options{Pin: s.pin, Log: quiet()})
			if err != nil {
				return err
			}
			return errors.Join(f(p), p.Close())
		})
	}
	set := func(p *Plane) error { return p.Kernel().Set([]PortSpec{{Name: "eth0", Uplink: true}}) }
	if err := elsewhere(set); !errors.Is(err, ErrNamespace) {
		t.Errorf("set elsewhere while a port is attached here: %v, want ErrNamespace", err)
	}
	if err := elsewhere(func(p *Plane) error { return p.DetachOthers(nil) }); err != nil {
		t.Fatal(err)
	}
	if err := elsewhere(set); err != nil {
		t.Errorf("set elsewhere when no port is left here: %v", err)
	}
	if err := s.gw.Do(func() error { return Remove(s.pin, quiet()) }); err != nil {
		t.Errorf("remove: %v", err)
	}
	if got := strings.TrimSpace(s.right.Run("cat", "/proc/sys/net/ipv4/ip_forward")); got != "1" {
		t.Errorf("ip_forward elsewhere is %s", got)
	}
}

func TestJournalOfAnotherKind(t *testing.T) {
	s := newSite(t)
	s.close(s.open())
	pins := &pins{dir: s.pin}
	m, err := pins.open(1)
	if err != nil {
		t.Fatal(err)
	}
	defer m.close()
	if err := pinCopy(m.maps["ports"].Clone, pins.path(settingsName)); err != nil {
		t.Fatal(err)
	}
	p, k := s.plane()
	defer s.close(p)
	if err := s.gw.Do(k.Restore); !errors.Is(err, ErrLayout) {
		t.Errorf("%v, want ErrLayout", err)
	}
}
