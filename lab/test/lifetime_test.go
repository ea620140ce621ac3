package lab_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"roam/lab"
)

// TestRouterOutlivesMove: a guest that configured itself moves and is told nothing. The router that it learned at its old site has the same address and MAC at its
// new one, which goes on advertising it, so it is still there when its lifetime is over, and what the guest exchanges with the outside goes on.
func TestRouterOutlivesMove(t *testing.T) {
	const lifetime = 12 * time.Second // the least that is allowed
	s := lab.NewSites(t, bins, lab.Options{NoRoutes: true, Racks: true, Outside: true})
	for _, g := range s.GW {
		g.Config.Lifetime = lifetime.String()
	}
	for _, net := range lab.OutsideNets {
		s.GW[lab.DC2].SetRoute(net, "dc1")
	}
	guest := *s.H("h11")
	guest.Run("ip", "-6", "route", "del", "default")
	guest.IP("addr del " + guest.IP6.String() + "/64 dev eth0")
	guest.Sysctl("net.ipv6.conf.eth0.accept_ra", "1")
	peers(t, s, "")
	router := func() string { return guest.Run("ip", "-6", "route", "show", "default") }
	s.Until(20*time.Second, "the guest configures itself", func() error {
		out := guest.Run("ip", "-6", "-o", "addr", "show", "dev", "eth0", "scope", "global")
		if !strings.Contains(router(), "via fe80::1") || !strings.Contains(out, "inet6 ") {
			return fmt.Errorf("%s%s", router(), out)
		}
		address, _, _ := strings.Cut(strings.Fields(out)[3], "/")
		guest.IP6 = addr(address)
		return nil
	})
	guest.Announce()
	homeAt(s, lab.DC1, guest.IPs()...)
	reach(t, s, [2]*lab.Host{&guest, s.Out}, [2]*lab.Host{s.Out, &guest})
	list := flows(s, &guest, s.Out, 200)

	s.Replug(&guest, lab.DC2)
	guest.Announce()
	moved := time.Now()
	homeAt(s, lab.DC2, guest.IPs()...)
	for time.Since(moved) < lifetime+time.Second {
		progress(list, 50)
	}
	if out := router(); strings.Count(out, "\n") != 1 || !strings.Contains(out, "proto ra") || !strings.Contains(out, "expires ") {
		t.Errorf("routers of the guest:\n%s", out)
	}
	for _, f := range list {
		r := f.Stop()
		t.Logf("%s: %v", f, r)
		if lost := r.Lost(); lost > r.Sent/4 { // some in the move
			t.Errorf("%s: %d of %d lost", f, lost, r.Sent)
		}
	}
}
