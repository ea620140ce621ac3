package lab_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"roam/lab"
)

// machine plugs one more host in at the site of another one.
func machine(s *lab.Sites, beside string, n int) *lab.Host {
	s.Helper()
	m := *s.H(beside)
	m.IP4, m.IP6 = addr(fmt.Sprintf("10.1.0.%d", n)), addr(fmt.Sprintf("2001:db8:1::%d", n))
	m.MAC = fmt.Sprintf("02:00:00:00:50:%02d", n)
	return s.Twin(&m, m.Site)
}

// oneHome waits until every gateway has one claim of a host, at its site and with its MAC.
func oneHome(s *lab.Sites, site int, ip netip.Addr, mac string) {
	s.Helper()
	for _, g := range s.GW {
		s.Until(30*time.Second, fmt.Sprintf("%s knows %s at %s only, with %s", g.Name, ip, lab.SiteNames[site], mac), func() error {
			if _, err := winner(g, ip.String()); err != nil {
				return err
			}
			var found struct{ Routes []claimed }
			g.JSON(&found, "route", "get", ip.String())
			list := slices.DeleteFunc(found.Routes, func(c claimed) bool { return !strings.HasPrefix(c.Prefix, ip.String()+"/") })
			if h := show(g, ip); len(list) != 1 || list[0].Site != lab.SiteNames[site] || !strings.EqualFold(h.MAC, mac) {
				return fmt.Errorf("it has %+v, %+v", list, h)
			}
			return nil
		})
	}
}

// noQuarrel checks that no gateway has told of some kinds of trouble with a host.
func noQuarrel(t *testing.T, s *lab.Sites, when string, kinds ...string) {
	t.Helper()
	for _, g := range s.GW {
		for _, e := range events(g) {
			if slices.Contains(kinds, e.Kind) {
				t.Errorf("%s: %s tells of %+v", when, g.Name, e)
			}
		}
	}
}

// takeover waits until a machine is the master of its group and its addresses answer at both sites, with one home for all gateways.
func takeover(t *testing.T, s *lab.Sites, k *lab.Keepalived, group lab.VRRP, echoes []*lab.Echo, when string) {
	t.Helper()
	k.AwaitMaster(10 * time.Second)
	start := time.Now()
	for _, e := range echoes {
		e.AwaitReplies(1, 30*time.Second)
		t.Logf("%s: %s answers %v after the new master said so", when, e, time.Since(start).Round(time.Millisecond))
	}
	for family, ip := range group.IPs() {
		mac := k.MAC
		if group.Virtual {
			mac = group.MAC(family)
		}
		oneHome(s, k.Site, ip, mac)
	}
	for _, e := range echoes {
		e.AwaitReplies(10, 30*time.Second)
	}
	for _, e := range events(s.GW[k.Site]) {
		if e.Kind == "move" && e.Time.After(start.Add(-time.Second)) {
			t.Logf("%s: %v after that: %s", when, e.Time.Sub(start).Round(time.Millisecond), e.What)
		}
	}
}

// TestVRRP: two machines with keepalived share an address of each family. The master fails, the other one takes over, and the first one comes back: inside
// a site, where VRRP is multicast, and between sites, where the machines speak to each other's own addresses. Nobody is suspected of anything, as long as one machine
// has the address. When the first one comes back both have it until the other one has heard of that: on a busy machine for so long that it is a conflict indeed.
func TestVRRP(t *testing.T) {
	t.Parallel()
	for _, far := range []int{lab.DC1, lab.DC2} {
		for _, virtual := range []bool{true, false} {
			t.Run(fmt.Sprintf("to %s, virtual MAC %t", lab.SiteNames[far], virtual), func(t *testing.T) {
				s := lab.NewSites(t, bins, lab.Options{NoRoutes: true, Racks: true})
				group := lab.VRRP{Group: 0x50, IP4: addr("10.1.0.50"), IP6: addr("2001:db8:1::50"), Virtual: virtual, Unicast: far == lab.DC2}
				first, second := machine(s, "h11", 51), machine(s, []string{"h12", "h22"}[far], 52)
				peers(t, s, "")
				for _, h := range []*lab.Host{first, second, s.H("h11"), s.H("h21")} {
					h.Announce()
					homeAt(s, h.Site, h.IPs()...)
				}
				reach(t, s, [2]*lab.Host{first, second}, [2]*lab.Host{second, first})
				master := first.Keepalived(group, 150, second)
				var echoes []*lab.Echo
				for _, from := range []string{"h11", "h21"} {
					for _, ip := range group.IPs() {
						echoes = append(echoes, s.Echo(s.H(from).Namespace, ip, 10*time.Millisecond))
					}
				}
				takeover(t, s, master, group, echoes, "at first")
				standby := second.Keepalived(group, 100, first)
				master.Die(s)
				takeover(t, s, standby, group, echoes, "the master failed")
				noQuarrel(t, s, "with one master at a time", "conflict", "frozen", "refused")
				s.Replug(first, first.Site)
				first.Announce() // its own addresses: they were let go, and it need not speak with them otherwise
				master = first.Keepalived(group, 150, second)
				takeover(t, s, master, group, echoes, "the master is back")
				noQuarrel(t, s, "with two masters for a moment", "frozen", "refused")
				for _, h := range []*lab.Host{first, second} {
					for _, ip := range h.IPs() {
						oneHome(s, h.Site, ip, h.MAC)
					}
				}
			})
		}
	}
}
