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

// often lets a test move a host more than an operator would want.
const often = "{freeze: {moves: 1000}}"

// shown is what roamctl host show says of a host.
type shown struct {
	State, Site, MAC string
	History          []happened
}

func show(g *lab.Gateway, ip netip.Addr) (h shown) {
	g.JSON(&h, "host", "show", ip.String())
	return h
}

// refused is how many claims a gateway did not simply take, of one outcome.
func refused(g *lab.Gateway, outcome string) (n int) {
	text, _ := g.Scrape()
	for line := range strings.Lines(text) {
		if count, ok := strings.CutPrefix(line, fmt.Sprintf("roam_host_claims_total{outcome=%q} ", outcome)); ok {
			_, _ = fmt.Sscan(count, &n)
		}
	}
	return n
}

// gone waits until a gateway has found that a host is not there any more.
func gone(s *lab.Sites, g *lab.Gateway, h *lab.Host) {
	s.Helper()
	for _, ip := range h.IPs() {
		s.Until(5*time.Second, fmt.Sprintf("%s finds that %s has left", g.Name, ip), func() error {
			if state := show(g, ip).State; state != "away" && state != "held" {
				return fmt.Errorf("it is %s", state)
			}
			return nil
		})
	}
}

// TestFreeze: a host that moves once too often stays at its last good place, for both gateways, over a restart, and until somebody
// clears it. Then it is found where it is without a word of its own.
func TestFreeze(t *testing.T) {
	s := lab.NewSites(t, bins, lab.Options{NoRoutes: true})
	gw1, gw2, h11 := s.GW[lab.DC1], s.GW[lab.DC2], s.H("h11")
	for _, g := range s.GW {
		g.Config.Mobility = "{freeze: {moves: 3, window: 1h}}"
	}
	peers(t, s, "")
	h11.Announce()
	homeAt(s, lab.DC1, h11.IPs()...)
	for move := 1; move <= 3; move++ {
		s.Replug(h11, move%2)
		h11.Announce()
		homeAt(s, move%2, h11.IPs()...)
		gone(s, s.GW[1-move%2], h11) // back before that, it would never have left
	}
	twin := s.Twin(h11, lab.DC2) // or it would not stay where nobody answers
	s.Replug(h11, lab.DC1)
	h11.Announce()
	for _, ip := range h11.IPs() {
		if e := awaitEvent(s, gw1, "frozen", ip.String()); !strings.Contains(e.Why, "4 times") || !strings.Contains(e.Do, "roamctl host clear "+ip.String()) {
			t.Errorf("%+v", e)
		}
	}
	stays := func(when string) {
		t.Helper()
		before := refused(gw1, "frozen")
		h11.Announce()
		s.Until(10*time.Second, "gw1 refuses the host "+when, func() error {
			if n := refused(gw1, "frozen"); n < before+2 {
				return fmt.Errorf("refused %d times, before %d", n, before)
			}
			return nil
		})
		homeAt(s, lab.DC2, h11.IPs()...)
		for _, ip := range h11.IPs() {
			if h := show(gw1, ip); h.State != "frozen" || h.Site != "dc2" {
				t.Errorf("%s: %+v", when, h)
			}
		}
	}
	stays("that moved once too often")
	if h := show(gw1, h11.IP4); len(h.History) != 4 || h.History[0].Kind != "move" || h.History[3].Kind != "frozen" {
		t.Errorf("history %+v", h.History)
	}
	if out := gw1.MustCtl("host", "list"); strings.Count(out, " frozen ") != 2 {
		t.Errorf("host list:\n%s", out)
	}
	gw1.Restart()
	s.Until(20*time.Second, "gw1 hears of the host again", func() error {
		_, err := winner(gw1, h11.IP4.String())
		if err == nil {
			_, err = winner(gw1, h11.IP6.String())
		}
		return err
	})
	stays("after a restart")

	s.Unplug(twin)
	for _, ip := range h11.IPs() {
		gw1.MustCtl("host", "clear", ip.String())
	}
	start := time.Now()
	homeAt(s, lab.DC1, h11.IPs()...)
	t.Logf("found %v after it was cleared", time.Since(start))
	gone(s, gw2, h11)
	if _, err := gw1.Ctl("host", "clear", h11.IP4.String()); err == nil || !strings.Contains(err.Error(), "not frozen") {
		t.Errorf("cleared twice: %v", err)
	}
}

// TestLiar: a second machine on the LAN says a hundred times a second, by ARP and by neighbour advertisements, that it has a host's addresses.
// The host, which answers, loses no packet that the gateway brings; one event tells of each address.
func TestLiar(t *testing.T) {
	s := lab.NewSites(t, bins, lab.Options{NoRoutes: true})
	peers(t, s, "")
	h11, h21, gw1 := s.H("h11"), s.H("h21"), s.GW[lab.DC1]
	for _, h := range []*lab.Host{h11, h21} {
		h.Announce()
		homeAt(s, h.Site, h.IPs()...)
	}
	reach(t, s, [2]*lab.Host{h21, h11})
	var list []*lab.Flow
	for i := range 2 {
		list = append(list, s.Flow(h21.Namespace, h21.IPs()[i], h11.Namespace, h11.IPs()[i], 500, 64))
	}
	progress(list, 100)
	liar := s.Liar(h11, lab.DC1)
	for range 20 {
		liar.Announce()
		progress(list, 50)
	}
	lossless(t, s, list, 62, "a liar")
	homeAt(s, lab.DC1, h11.IPs()...)
	for _, ip := range h11.IPs() {
		e := awaitEvent(s, gw1, "conflict", ip.String())
		if !strings.Contains(e.What, liar.MAC) || !strings.Contains(e.Why, h11.MAC) {
			t.Errorf("%+v", e)
		}
		if h := show(gw1, ip); h.State != "conflict" || h.MAC != h11.MAC || len(h.History) != 1 {
			t.Errorf("%+v", h)
		}
	}
	if n := refused(gw1, "kept"); n < 4 {
		t.Errorf("%d claims were refused", n)
	}
	if n := refused(gw1, "failover"); n != 0 {
		t.Errorf("%d claims were taken", n)
	}
}

// TestLiarSendsData: a machine sends what pretends to come from a host, on its LAN and at the other site. That is no claim: nobody is asked, nothing is announced, and
// the host loses nothing. Once the host is silent, and its gateway has let it go, the address is taken to be where it is used.
func TestLiarSendsData(t *testing.T) {
	for _, at := range []int{lab.DC1, lab.DC2} {
		t.Run("at "+lab.SiteNames[at], func(t *testing.T) {
			s := lab.NewSites(t, bins, lab.Options{NoRoutes: true})
			peers(t, s, "")
			h11, h12, h21, gw1 := s.H("h11"), s.H("h12"), s.H("h21"), s.GW[lab.DC1]
			for _, h := range []*lab.Host{h11, h12, h21} {
				h.Announce()
				homeAt(s, h.Site, h.IPs()...)
			}
			victim := map[int]*lab.Host{lab.DC1: h21, lab.DC2: h12}[at] // by way of the gateway: a switch hides the rest
			reach(t, s, [2]*lab.Host{h21, h11}, [2]*lab.Host{h21, h12}, [2]*lab.Host{h11, h21})
			var asks []*lab.Echo
			for _, ip := range h11.IPs() {
				know(h21, ip, lladdr(h21, ip)) // what the liar makes of its neighbours' caches is not the gateways' to prevent
				asks = append(asks, s.Echo(h21.Namespace, ip, 5*time.Millisecond))
			}
			for _, e := range asks {
				e.AwaitReplies(20, 5*time.Second)
			}
			liar := s.Liar(h11, at)
			var lies []*lab.Flow
			for i := range 2 {
				know(liar, victim.IPs()[i], lladdr(map[int]*lab.Host{lab.DC1: h11, lab.DC2: h21}[at], victim.IPs()[i])) // or it would ask, which is a claim
				lies = append(lies, s.Flow(liar.Namespace, liar.IPs()[i], victim.Namespace, victim.IPs()[i], 500, 64))
			}
			for range 5 {
				progress(lies, 50)
				for _, e := range asks {
					e.AwaitReplies(20, 5*time.Second)
				}
			}
			homeAt(s, lab.DC1, h11.IPs()...)
			for i, e := range asks {
				r := e.Stop()
				t.Logf("%s: %v", e, r)
				if r.Lost() != 0 {
					t.Errorf("%s: %v", e, r)
				}
				if h := show(gw1, h11.IPs()[i]); h.MAC != h11.MAC {
					t.Errorf("%+v", h)
				}
			}
			for _, outcome := range []string{"failover", "defended"} {
				if n := refused(gw1, outcome); n != 0 {
					t.Errorf("%d claims: %s", n, outcome)
				}
			}
			if at == lab.DC2 {
				s.Unplug(h11)
				homeAt(s, lab.DC2, h11.IPs()...)
			}
		})
	}
}

// lladdr is the MAC that a host has of another's address.
func lladdr(h *lab.Host, ip netip.Addr) string {
	f := strings.Fields(h.Run("ip", "neigh", "show", ip.String(), "dev", "eth0"))
	if i := slices.Index(f, "lladdr"); i >= 0 {
		return f[i+1]
	}
	return ""
}

// know makes a host believe for ever that an address has this MAC.
func know(h *lab.Host, ip netip.Addr, mac string) {
	h.IP(fmt.Sprintf("neigh replace %s lladdr %s dev eth0 nud permanent", ip, mac))
}

// TestProxyOfTheDead: a router answers for a host that is gone whenever anybody asks. That keeps nobody alive: the host is let go when it has not answered
// itself for the time that mobility.probe gives it.
func TestProxyOfTheDead(t *testing.T) {
	s := lab.NewSites(t, bins, lab.Options{NoRoutes: true})
	peers(t, s, "")
	h11, gw1 := s.H("h11"), s.GW[lab.DC1]
	h11.Announce()
	homeAt(s, lab.DC1, h11.IPs()...)
	proxy := s.Crowd(lab.DC1, h11.IP4, 1)
	if h := show(gw1, h11.IP4); h.MAC != h11.MAC {
		t.Fatalf("while it lives: %+v", h)
	}
	answered := proxy.Answered()
	s.Unplug(h11)
	for _, g := range s.GW {
		s.Until(10*time.Second, g.Name+" lets h11 go", func() error {
			if h, err := winner(g, h11.IP4.String()); err == nil {
				return fmt.Errorf("it has %+v", h)
			}
			return nil
		})
	}
	t.Logf("the proxy answered %d times after it was gone", proxy.Answered()-answered)
	if proxy.Answered() == answered {
		t.Error("nobody asked the proxy: this shows nothing")
	}
	if n := refused(gw1, "lost"); n == 0 {
		t.Error("it was not let go for its silence")
	}
}

// TestProxyARPRouter: the same with a router of the segment that does proxy ARP and proxy ND for the host, as the kernel does it. It answers whoever asks for the
// host; the gateway asks the host alone, so that its answers do not keep it alive.
func TestProxyARPRouter(t *testing.T) {
	s := lab.NewSites(t, bins, lab.Options{NoRoutes: true, Racks: true})
	peers(t, s, "")
	h11, h12, h21, gw1 := s.H("h11"), s.H("h12"), s.H("h21"), s.GW[lab.DC1]
	router := machine(s, "h12", 60)
	for _, h := range []*lab.Host{h11, h12, h21, router} {
		h.Announce()
		homeAt(s, h.Site, h.IPs()...)
	}
	reach(t, s, [2]*lab.Host{h21, h11})
	for _, key := range []string{"ipv4.conf.all.forwarding", "ipv4.conf.all.proxy_arp", "ipv6.conf.all.forwarding", "ipv6.conf.all.proxy_ndp"} {
		router.Sysctl("net."+key, "1")
	}
	for _, family := range []string{"ipv4", "ipv6"} {
		router.Sysctl("net."+family+".neigh.eth0.proxy_delay", "0")
	}
	router.Bridge("beyond", 1500)
	router.IP("route add "+lab.HostRoute(h11.IP4)+" dev beyond",
		"route add "+lab.HostRoute(h11.IP6)+" dev beyond", "neigh add proxy "+h11.IP6.String()+" dev eth0")
	s.Unplug(h11)
	for _, ip := range h11.IPs() {
		s.Until(5*time.Second, "the router answers for "+ip.String(), func() error {
			h12.IP("neigh flush all")
			_, _ = h12.Try("ping", "-n", "-c", "1", "-W", "1", ip.String())
			if mac := lladdr(h12, ip); mac != router.MAC {
				return fmt.Errorf("h12 has %q", mac)
			}
			return nil
		})
	}
	for _, ip := range h11.IPs() {
		for _, g := range s.GW {
			s.Until(10*time.Second, fmt.Sprintf("%s lets %s go", g.Name, ip), func() error {
				if c, err := winner(g, ip.String()); err == nil {
					return fmt.Errorf("it has %+v", c)
				}
				return nil
			})
		}
	}
	if lost, failover := refused(gw1, "lost"), refused(gw1, "failover"); lost != 2 || failover != 0 {
		t.Errorf("%d let go for their silence, %d taken by the router", lost, failover)
	}
}

// TestFailover: a standby takes over the addresses of a machine that went silent, as keepalived does: it announces them. It has them within a second.
func TestFailover(t *testing.T) {
	s := lab.NewSites(t, bins, lab.Options{NoRoutes: true})
	peers(t, s, "")
	h11, h21, gw1 := s.H("h11"), s.H("h21"), s.GW[lab.DC1]
	for _, h := range []*lab.Host{h11, h21} {
		h.Announce()
		homeAt(s, h.Site, h.IPs()...)
	}
	reach(t, s, [2]*lab.Host{h21, h11})
	standby := s.Liar(h11, lab.DC1)
	var list []*lab.Flow
	for i := range 2 {
		f := s.Flow(h21.Namespace, h21.IPs()[i], h11.Namespace, h11.IPs()[i], 500, 64)
		f.Or(standby.Namespace)
		list = append(list, f)
	}
	progress(list, 100)
	s.Unplug(h11)
	standby.Announce()
	progress(list, 300)
	for _, f := range list {
		r := f.Stop()
		t.Logf("%s: outage %v", f, r.Gap)
		if r.Gap > time.Second {
			t.Errorf("%s: %v", f, r)
		}
	}
	for _, ip := range h11.IPs() {
		awaitEvent(s, gw1, "failover", ip.String())
		for _, g := range s.GW {
			s.Until(5*time.Second, g.Name+" has the standby's MAC", func() error {
				if h := show(g, ip); h.MAC != standby.MAC {
					return fmt.Errorf("%+v", h)
				}
				return nil
			})
		}
	}
}

// TestLiarElsewhere: a machine at another site says that it has the addresses of a host that still answers. Its gateway believes it, the
// host's does not and says so, and the claim is not made again: the host is where it was, and stays reachable.
func TestLiarElsewhere(t *testing.T) {
	s := lab.NewSites(t, bins, lab.Options{NoRoutes: true})
	peers(t, s, "")
	h11, h12, gw1, gw2 := s.H("h11"), s.H("h12"), s.GW[lab.DC1], s.GW[lab.DC2]
	h11.Announce()
	homeAt(s, lab.DC1, h11.IPs()...)
	reach(t, s, [2]*lab.Host{h12, h11})
	liar := s.Liar(h11, lab.DC2)
	echo := s.Echo(s.H("h21").Namespace, h11.IP4, 10*time.Millisecond)
	echo.AwaitReplies(20, 5*time.Second)
	for range 10 {
		liar.Announce()
		echo.AwaitReplies(10, 5*time.Second)
	}
	for _, ip := range h11.IPs() {
		awaitEvent(s, gw1, "conflict", ip.String())
		if e := awaitEvent(s, gw2, "conflict", ip.String()); !strings.Contains(e.What, liar.MAC) {
			t.Errorf("%+v", e)
		}
	}
	homeAt(s, lab.DC1, h11.IPs()...)
	r := echo.Stop()
	t.Logf("echo: %v", r)
	if n := refused(gw2, "quarantined"); n == 0 || r.Gap > time.Second {
		t.Errorf("%d claims in quarantine, echo %v", n, r)
	}
}

// TestAllow: a host outside the list is not learned, is told of once, and is learned when the list has it.
func TestAllow(t *testing.T) {
	s := lab.NewSites(t, bins, lab.Options{NoRoutes: true})
	h11, h12, gw1 := s.H("h11"), s.H("h12"), s.GW[lab.DC1]
	gw1.Config.Mobility = `{allow: [10.1.0.11/32, "2001:db8:1::11/128"]}`
	peers(t, s, "")
	for range 3 {
		h12.Announce()
	}
	h11.Announce()
	homeAt(s, lab.DC1, h11.IPs()...)
	for _, ip := range h12.IPs() {
		if e := awaitEvent(s, gw1, "refused", ip.String()); !strings.Contains(e.Why, h12.MAC) {
			t.Errorf("%+v", e)
		}
		if c, err := winner(gw1, ip.String()); err == nil {
			t.Errorf("learned %+v", c)
		}
	}
	count := 0
	for _, e := range events(gw1) {
		if e.Kind == "refused" {
			count++
		}
	}
	if n := refused(gw1, "not_allowed"); count != 2 || n < 2 {
		t.Errorf("%d events, %d refused", count, n)
	}
	gw1.Config.Mobility = `{allow: [10.1.0.0/24, "2001:db8:1::/64"]}`
	gw1.WriteConfig()
	gw1.MustCtl("reload")
	h12.Announce()
	homeAt(s, lab.DC1, h12.IPs()...)
}

// TestRARP: a guest moves and says nothing; its hypervisor sends one RARP. Its gateway knows by the other's announcements what addresses it has,
// and the one where it was, what it had there.
func TestRARP(t *testing.T) {
	s := lab.NewSites(t, bins, lab.Options{NoRoutes: true, Alone: true})
	for _, g := range s.GW {
		g.Config.Mobility = often
	}
	peers(t, s, "")
	h11 := s.H("h11")
	h11.Announce()
	homeAt(s, lab.DC1, h11.IPs()...)
	for move := 1; move <= 4; move++ {
		site := move % 2
		gone(s, s.GW[site], h11) // before the first one it was never there
		s.Replug(h11, site)
		start := time.Now()
		h11.Arrive()
		for _, ip := range h11.IPs() {
			e := awaitNthEvent(s, s.GW[site], "move", ip.String(), move)
			took := e.Time.Sub(start)
			t.Logf("move %d, %s: detected after %v", move, ip, took)
			if took > 50*time.Millisecond {
				t.Errorf("move %d, %s: detected after %v", move, ip, took)
			}
		}
		homeAt(s, site, h11.IPs()...)
	}
}
