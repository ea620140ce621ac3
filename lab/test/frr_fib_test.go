package lab_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"roam/lab"
	"roam/loader/route"
	"roam/loader/source/fib"
)

// TestFRRInstalls reads the kernel's routes of a gateway made of FRR as Roam beside it would: EVPN's host routes come with
// nexthop objects, out of the bridge of the tenant's VNI, IPv6 ones behind an IPv4 tunnel end, and the other end's router
// MAC is what FRR made a neighbour of. FRR has them from another Roam.
func TestFRRInstalls(t *testing.T) {
	s := frr(t)
	gw1 := s.GW[lab.DC1]
	lines := `{"prefix":"10.1.0.99","local":true}` + "\n" + `{"prefix":"2001:db8:1::99","local":true}` + "\n"
	file := filepath.Join(s.Dir, "local.jsonl")
	if err := os.WriteFile(file, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	gw1.MustCtl("route", "import", file)
	source := fib.New(fib.Options{Tables: []fib.Table{{ID: 254, Tenant: 1, VNI: 7001, Locator: route.Locator{Priority: 1, Weight: 100}}}})
	heard := follow(t, s.Far, source)
	want := route.Locator{Address: addr("192.0.2.1"), Priority: 1, Weight: 100, RouterMAC: route.MAC{2, 0, 0, 0, 0, 1}}
	for _, prefix := range []string{"10.1.0.99/32", "2001:db8:1::99/128"} {
		s.Until(20*time.Second, prefix+" leads to gw1", func() error {
			got := heard.locators(prefix)
			if !slices.Equal(got, []route.Locator{want}) {
				return fmt.Errorf("it leads to %+v\n%s%s", got, s.Far.Run("ip", "route"), s.Far.Run("ip", "-6", "route"))
			}
			return nil
		})
	}
	if out := s.Far.Run("ip", "route"); !strings.Contains(out, "10.1.0.99 nhid") {
		t.Errorf("FRR used no nexthop object: the test shows less than it says\n%s", out)
	}
	gw1.MustCtl("route", "flush")
	s.Until(20*time.Second, "10.1.0.99 is gone", func() error {
		if got := heard.locators("10.1.0.99/32"); got != nil {
			return fmt.Errorf("it leads to %+v", got)
		}
		return nil
	})
}

// hearer is the plainest reporter: it holds what one source says.
type hearer struct {
	mu     sync.Mutex
	claims map[netip.Prefix]route.Claim
}

// follow runs a source in a namespace until the test ends.
func follow(t *testing.T, n *lab.Namespace, source route.Source) *hearer {
	h := &hearer{claims: make(map[netip.Prefix]route.Claim)}
	done := make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	go func() { done <- n.Do(func() error { return source.Run(ctx, h) }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return h
}

func (h *hearer) Begin(context.Context) error  { return nil }
func (h *hearer) Synced(context.Context) error { return nil }

func (h *hearer) Report(_ context.Context, changes []route.Change) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range changes {
		delete(h.claims, c.Prefix)
		if !c.Withdraw {
			h.claims[c.Prefix] = c.Claim
		}
	}
	return nil
}

func (h *hearer) locators(prefix string) []route.Locator {
	h.mu.Lock()
	defer h.mu.Unlock()
	if via := h.claims[netip.MustParsePrefix(prefix)].Via; via != nil {
		return via.Locators
	}
	return nil
}

// TestFRRGroups: zebra installs a route with two next hops as a group of nexthop objects; the group shrinks and grows.
func TestFRRGroups(t *testing.T) {
	s := lab.NewSites(t, bins, lab.Options{NoRoutes: true, FIBTable: 100})
	gw1 := s.GW[lab.DC1]
	gw1.Up()
	routes := func(hops ...string) (text string) {
		for _, hop := range hops {
			text += "ip route 10.1.0.21/32 " + hop + " table 100\n"
		}
		return text
	}
	frr := gw1.Namespace.FRRStatic(routes("192.0.2.2", "192.0.2.3"))
	leads := func(want ...string) {
		t.Helper()
		s.Until(10*time.Second, fmt.Sprintf("10.1.0.21 is behind %v", want), func() error {
			c, err := winner(gw1, "10.1.0.21")
			if err != nil {
				return err
			}
			var got []string
			for _, l := range c.Via {
				got = append(got, l.Address)
			}
			if fmt.Sprint(got) != fmt.Sprint(want) {
				return fmt.Errorf("it is behind %v; zebra:\n%s", got, frr.Show("show nexthop-group rib"))
			}
			return nil
		})
	}
	leads("192.0.2.2", "192.0.2.3")
	if out := gw1.Run("ip", "nexthop"); !strings.Contains(out, "group") {
		t.Errorf("zebra installed no group: the test shows less than it says\n%s", out)
	}
	frr.Show("configure terminal", "no "+strings.TrimSpace(routes("192.0.2.2")))
	leads("192.0.2.3")
	frr.Show("configure terminal", strings.TrimSpace(routes("192.0.2.4")))
	leads("192.0.2.3", "192.0.2.4")
	frr.Show("configure terminal", "no "+strings.TrimSpace(routes("192.0.2.4")), "no "+strings.TrimSpace(routes("192.0.2.3")))
	s.Until(10*time.Second, "nobody claims 10.1.0.21", func() error {
		if c, err := winner(gw1, "10.1.0.21"); err == nil {
			return fmt.Errorf("it has %+v", c)
		}
		return nil
	})
}
