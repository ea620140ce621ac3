package lab_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"roam/lab"
)

// noBinaries stands in where no daemon is started.
var noBinaries = lab.Binaries{Daemon: "/bin/true", Ctl: "/bin/true"}

// TestSitesWithoutDaemons checks what the topology gives before any daemon runs: neighbours talk, underlays and
// routers answer, and the sites are apart. Otherwise a later test might pass for the wrong reason.
func TestSitesWithoutDaemons(t *testing.T) {
	for _, options := range []lab.Options{
		{}, {Outside: true}, {Role: "stick"}, {OneArmed: true}, {KernelFar: true}, {KernelFar: true, Underlay6: true},
	} {
		t.Run(fmt.Sprintf("%+v", options), func(t *testing.T) {
			s := lab.NewSites(t, noBinaries, options)
			h11, h12, h21 := s.H("h11"), s.H("h12"), s.H("h21")
			ping(t, h11, h12.IPs(), true)
			ping(t, h11, h21.IPs(), false)
			ping(t, &lab.Host{Namespace: s.GW[lab.DC1].Namespace}, addrs("192.0.2.2", "2001:db8:ff::2"), true)
			if s.R1 != nil && options.Role == "stick" {
				ping(t, h11, s.Out.IPs(), true)
				ping(t, s.Out, h12.IPs(), true)
			}
			if s.R1 != nil && options.Role != "stick" {
				ping(t, &lab.Host{Namespace: s.GW[lab.DC1].Namespace}, s.Out.IPs(), true)
			}
			s.Replug(h12, lab.DC2)
			ping(t, h21, h12.IPs(), true)
			ping(t, h11, h12.IPs(), false)
		})
	}
}

func addrs(list ...string) []netip.Addr {
	var found []netip.Addr
	for _, s := range list {
		found = append(found, netip.MustParseAddr(s))
	}
	return found
}

// ping checks that each address answers, or that none does.
func ping(t *testing.T, from *lab.Host, to []netip.Addr, want bool) {
	t.Helper()
	for _, ip := range to {
		deadline := "3"
		if !want {
			deadline = "1"
		}
		out, err := from.Try("ping", "-c", "1", "-n", "-w", deadline, "-i", "0.2", ip.String())
		if got := err == nil; got != want {
			t.Errorf("%s ping %s: answered %v\n%s", from.Name, ip, got, out)
		}
	}
}

// TestConfigOfBothRoles reads a rendered configuration as a person would: the keys that distinguish variants.
func TestConfigOfBothRoles(t *testing.T) {
	for _, test := range []struct {
		options lab.Options
		want    []string
	}{
		{lab.Options{Outside: true}, []string{"site: dc1", "role: default", "uplinks: [{interface: up0}]", `addresses: ["10.1.0.1"`}},
		{lab.Options{Role: "stick", Underlay6: true}, []string{"role: stick", `routers: ["10.1.0.254"`, `address: "2001:db8:ff::1"`}},
		{lab.Options{OneArmed: true, FIBTable: 100}, []string{"interfaces: [lan0]", "interface: lan0", "table: 100"}},
	} {
		s := lab.NewSites(t, noBinaries, test.options)
		text, err := s.GW[lab.DC1].Config.YAML()
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range test.want {
			if !strings.Contains(text, want) {
				t.Errorf("%+v: no %q in\n%s", test.options, want, text)
			}
		}
		s.Close()
	}
}

// TestUntil gives up in time and says what it waited for.
func TestUntil(t *testing.T) {
	fake := &recorder{T: t}
	l := lab.New(fake)
	defer l.Close()
	start := time.Now()
	func() {
		defer func() { _ = recover() }()
		l.Until(50*time.Millisecond, "the moon turns green", func() error { return fmt.Errorf("still white") })
	}()
	if !strings.Contains(fake.said, "the moon turns green: not within 50ms: still white") || time.Since(start) > 5*time.Second {
		t.Errorf("after %v: %q", time.Since(start), fake.said)
	}
}

// recorder is a TB that remembers why it failed.
type recorder struct {
	*testing.T
	said string
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.said = fmt.Sprintf(format, args...)
	panic(r.said)
}
