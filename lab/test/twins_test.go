package lab_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"roam/lab"
)

// twins are dc1's two gateways, and dc2's.
type twins struct {
	*lab.Sites
	a, b *lab.Gateway // of dc1: the designated one at the start, and the standby
}

// newTwins starts two gateways at dc1 and one at dc2. They know each other by BGP only.
func newTwins(t *testing.T, mobility string) *twins {
	t.Helper()
	s := lab.NewSites(t, bins, lab.Options{NoRoutes: true})
	w := &twins{s, s.GW[lab.DC1], s.Sibling(bins)}
	for _, g := range w.all() {
		g.Config.Mobility = mobility
	}
	w.launch(w.all()...)
	return w
}

// launch starts gateways, and finds out which is designated.
func (w *twins) launch(list ...*lab.Gateway) {
	w.Helper()
	for _, g := range list {
		g.Launch()
	}
	for _, g := range list {
		g.AwaitReady()
	}
	if w.oneDesignated() == w.b {
		w.a, w.b = w.b, w.a
	}
}

// oneDesignated waits until dc1's gateways are ready and one of them is designated.
func (w *twins) oneDesignated() (found *lab.Gateway) {
	w.Helper()
	w.Until(20*time.Second, "one of two gateways is designated, and both are ready", func() error {
		found = nil
		for _, g := range []*lab.Gateway{w.a, w.b} {
			s, err := segmentOf(g)
			if err != nil {
				return err
			}
			for _, heard := range s.Gateways {
				if heard.Rank != "ready" || len(s.Gateways) != 2 {
					return fmt.Errorf("%s hears %+v", g.Name, s)
				}
			}
			if s.State == "designated" && found != nil {
				return fmt.Errorf("both are designated")
			}
			if s.State == "designated" {
				found = g
			}
		}
		if found == nil {
			return fmt.Errorf("none is designated")
		}
		return nil
	})
	return found
}

func (w *twins) all() []*lab.Gateway { return []*lab.Gateway{w.a, w.b, w.GW[lab.DC2]} }

// elected is what these tests read of a segment in roamctl status.
type elected struct {
	State    string
	Gateways []struct {
		Rank       string
		Designated bool
	}
}

func segmentOf(g *lab.Gateway) (elected, error) {
	var status struct{ Segments []elected }
	out, err := g.Ctl("-o", "json", "status")
	if err == nil {
		err = decode(out, &status)
	}
	if err != nil || len(status.Segments) == 0 {
		return elected{}, fmt.Errorf("%v, status %s", err, out)
	}
	return status.Segments[0], nil
}

func (w *twins) awaitState(g *lab.Gateway, want string) {
	w.Helper()
	w.Until(20*time.Second, g.Name+" is "+want, func() error {
		is, err := segmentOf(g)
		if err == nil && is.State != want {
			err = fmt.Errorf("it is %s", is.State)
		}
		return err
	})
}

// fail takes a gateway's machine off both networks in one moment, and ends what runs on it.
func (w *twins) fail(g *lab.Gateway) {
	w.Helper()
	w.Sever(g.Name + "-lan")
	w.Sever(g.Name + "-wan")
	g.Daemon.Kill()
	g.Run(bins.Daemon, "--detach", "--config", g.ConfigFile())
}

// repair brings the machine back, as after a boot.
func (w *twins) repair(g *lab.Gateway) {
	w.Helper()
	w.Switch.Plug(g.Name+"-wan", "wan")
	w.Switch.Plug(g.Name+"-lan", map[string]string{"gw1": "lan1-a", "gw1b": "lan1-b"}[g.Name])
	g.Start()
	g.AwaitReady()
}

// everyWay waits until dc2 has both gateways of dc1 for a host.
func (w *twins) everyWay(h *lab.Host, locators ...string) {
	w.Helper()
	for _, ip := range h.IPs() {
		w.Until(30*time.Second, fmt.Sprintf("gw2 reaches %s by %v", ip, locators), func() error {
			c, err := winner(w.GW[lab.DC2], ip.String())
			if err != nil {
				return err
			}
			var have []string
			for _, l := range c.Via {
				have = append(have, l.Address)
			}
			if fmt.Sprint(have) != fmt.Sprint(locators) || c.Site != "dc1" {
				return fmt.Errorf("it has %+v", c)
			}
			return nil
		})
	}
}

// gaps ends the streams and tells how long each was silent at most. A gateway that died is missed in half a second; a bound that
// a busy machine cannot break still tells that from a session's hold time and from hosts' caches, of a minute and more.
func gaps(t *testing.T, list []*lab.Flow, during string) {
	t.Helper()
	for _, f := range list {
		f.Halt()
	}
	for _, f := range list {
		r := f.Stop()
		t.Logf("%s: %s: %v lost, longest gap %v", during, f, r.Lost(), r.Gap.Round(time.Millisecond))
		if r.Gap > 5*time.Second || r.Received == 0 {
			t.Errorf("%s: flow %s: %v", during, f, r)
		}
	}
}

// TestTwins: of two gateways on one segment either may die, under streams of 1,000 packets a second each way, and come back.
func TestTwins(t *testing.T) {
	w := newTwins(t, "")
	h11, h12, h21 := w.H("h11"), w.H("h12"), w.H("h21")
	w.foundBy(h11, h12, h21)
	w.everyWay(h11, "192.0.2.1", "192.0.2.11")
	w.everyWay(h12, "192.0.2.1", "192.0.2.11")
	reach(t, w.Sites, [2]*lab.Host{h12, h21}, [2]*lab.Host{h21, h12})

	for _, step := range []struct {
		what        string
		fails, left *lab.Gateway
	}{
		{"the designated gateway dies", w.a, w.b},
		{"the standby dies", w.a, w.b},
	} {
		list := flows(w.Sites, h12, h21, 4000)
		w.fail(step.fails)
		progress(list, 500)
		w.awaitState(step.left, "designated")
		progress(list, 200)
		gaps(t, list, step.what)

		list = flows(w.Sites, h12, h21, 4000)
		w.repair(step.fails)
		w.awaitState(step.fails, "standby")
		w.everyWay(h12, "192.0.2.1", "192.0.2.11")
		progress(list, 500)
		lossless(t, w.Sites, list, 62, "it comes back after "+step.what)
	}
}

// settled waits until every gateway has a host at a site with a sequence: dc1's gateways as their own, dc2's by both, or the other way round.
func (w *twins) settled(h *lab.Host, site int, sequence uint32) {
	w.Helper()
	for _, g := range w.all() {
		knows(w.Sites, g, h, site, sequence)
	}
	if site == lab.DC1 {
		w.everyWay(h, "192.0.2.1", "192.0.2.11")
	}
	for _, g := range w.all() {
		for _, ip := range h.IPs() {
			if is := show(g, ip); is.Site != lab.SiteNames[site] || is.State == "conflict" || is.State == "frozen" {
				w.Fatalf("%s shows %s as %+v", g.Name, ip, is)
			}
		}
	}
}

// move replugs a host, has it announce itself, and waits until everybody knows, and those where it was have let go.
func (w *twins) move(h *lab.Host, site int, sequence uint32) {
	w.Helper()
	w.Replug(h, site)
	h.Announce()
	w.settled(h, site, sequence)
	for _, g := range w.all() {
		if g.Config.Site != lab.SiteNames[site] {
			gone(w.Sites, g, h)
		}
	}
}

// moves counts what a gateway tells of a host's moves.
func moves(g *lab.Gateway, ip string) (n int) {
	for _, e := range events(g) {
		if e.Kind == "move" && e.Subject == ip {
			n++
		}
	}
	return n
}

// TestTwinsShareHosts: a host of a site is both gateways' and neither's: being seen by the other one is no move, and a move raises its
// sequence by one. What the other gateway forwards, and the other gateway itself, are taken for no host.
func TestTwinsShareHosts(t *testing.T) {
	w := newTwins(t, "")
	h11, h12, h21 := w.H("h11"), w.H("h12"), w.H("h21")
	w.foundBy(h11, h12, h21)
	for _, h := range []*lab.Host{h11, h12} {
		w.settled(h, lab.DC1, 0)
	}
	w.settled(h21, lab.DC2, 0)
	list := flows(w.Sites, h12, h21, 400)
	for move := 1; move <= 4; move++ {
		site := move % 2
		w.move(h11, site, uint32(move))
		reach(t, w.Sites, [2]*lab.Host{h12, h11}, [2]*lab.Host{h21, h11})
	}
	lossless(t, w.Sites, list, 62, "hosts that did not move")
	for _, g := range w.all() {
		for _, ip := range h11.IPs() {
			if n := moves(g, ip.String()); n != 4 {
				t.Errorf("%s tells of %d moves of %s: %+v", g.Name, n, ip, events(g))
			}
		}
		for _, kind := range []string{"conflict", "frozen", "failover", "refused"} {
			for _, e := range events(g) {
				if e.Kind == kind {
					t.Errorf("%s tells of %+v", g.Name, e)
				}
			}
		}
		for _, own := range append(w.a.Config.Own, w.b.Config.Own...) {
			if c, err := winner(g, own); err == nil {
				t.Errorf("%s takes a gateway for a host: %+v", g.Name, c)
			}
		}
	}
	w.settled(h12, lab.DC1, 0)
	w.settled(h21, lab.DC2, 0)
}

// TestTwinsHandOver: the designated gateway loses a port, is drained, or is stopped, and the other one does its work at once. What it had learnt it learns again
// from the other one.
func TestTwinsHandOver(t *testing.T) {
	w := newTwins(t, "")
	h12, h21 := w.H("h12"), w.H("h21")
	w.foundBy(h12, h21)
	both := []string{"192.0.2.1", "192.0.2.11"}
	w.everyWay(h12, both...)
	reach(t, w.Sites, [2]*lab.Host{h12, h21}, [2]*lab.Host{h21, h12})
	for _, step := range []struct {
		what     string
		do, undo func(g *lab.Gateway)
		left     bool // the other one is the only way to the host
	}{
		{
			"the access port goes down",
			func(g *lab.Gateway) { w.Switch.IP("link set " + g.Name + "-lan down") },
			func(g *lab.Gateway) { w.Switch.IP("link set " + g.Name + "-lan up") }, true,
		},
		{
			"the underlay port goes down",
			func(g *lab.Gateway) { w.Switch.IP("link set " + g.Name + "-wan down") },
			func(g *lab.Gateway) { w.Switch.IP("link set " + g.Name + "-wan up") }, false,
		},
		{
			"it is drained",
			func(g *lab.Gateway) { g.MustCtl("gateway", "drain") },
			func(g *lab.Gateway) { g.MustCtl("gateway", "undrain") }, true,
		},
		{
			"the daemon is stopped",
			func(g *lab.Gateway) { g.Stop() },
			func(g *lab.Gateway) { g.Start(); g.AwaitReady() }, false,
		},
	} {
		goes, stays := w.a, w.b
		if w.oneDesignated() == w.b {
			goes, stays = w.b, w.a
		}
		list := flows(w.Sites, h12, h21, 2000)
		step.do(goes)
		w.awaitState(stays, "designated")
		if step.left {
			w.everyWay(h12, stays.Config.Locators...)
		}
		progress(list, 200)
		gaps(t, list, step.what)
		step.undo(goes)
		w.awaitState(goes, "standby")
		w.everyWay(h12, both...)
	}
}

// TestTwinsSplit: where the segment splits between two gateways each part has one that answers, and where it heals one of them stays.
func TestTwinsSplit(t *testing.T) {
	w := newTwins(t, "{probe: {interval: 200ms, lost: 3}}") // so soon the part without the host withdraws it
	h12, h21 := w.H("h12"), w.H("h21")
	w.foundBy(h12, h21)
	w.everyWay(h12, "192.0.2.1", "192.0.2.11")
	reach(t, w.Sites, [2]*lab.Host{h12, h21}, [2]*lab.Host{h21, h12})
	for range 2 {
		list := flows(w.Sites, h12, h21, 400)
		w.Sever("gw1-down")
		w.awaitState(w.b, "designated")
		w.awaitState(w.a, "designated")
		progress(list, 200)
		w.Switch.Plug("gw1-down", "lan1")
		w.oneDesignated()
		progress(list, 200)
		gaps(t, list, "the segment splits and heals")
	}
}

// TestTwinsMove: a gateway dies while a host moves to its site, and sessions are cut while one moves: in the end it is in one place.
func TestTwinsMove(t *testing.T) {
	w := newTwins(t, "")
	h11, h12, h21 := w.H("h11"), w.H("h12"), w.H("h21")
	w.foundBy(h11, h12, h21)
	w.settled(h11, lab.DC1, 0)
	w.move(h11, lab.DC2, 1)

	w.Replug(h11, lab.DC1)
	h11.Announce()
	w.fail(w.a)
	for _, g := range []*lab.Gateway{w.b, w.GW[lab.DC2]} {
		knows(w.Sites, g, h11, lab.DC1, 2)
	}
	w.awaitState(w.b, "designated")
	reach(t, w.Sites, [2]*lab.Host{h21, h11}, [2]*lab.Host{h12, h11}, [2]*lab.Host{h11, h21})
	w.repair(w.a)
	w.settled(h11, lab.DC1, 2)

	mend := firewall(w.Sites, "tcp dport 179")
	w.Replug(h11, lab.DC2)
	h11.Announce()
	knows(w.Sites, w.GW[lab.DC2], h11, lab.DC2, 3)
	mend()
	w.settled(h11, lab.DC2, 3)
	h12.IP("neigh flush dev eth0") // the switches still send h11's MAC to where it was
	reach(t, w.Sites, [2]*lab.Host{h12, h11}, [2]*lab.Host{h21, h11})
}

// foundBy has each gateway speak to the hosts of its site.
func (w *twins) foundBy(hosts ...*lab.Host) {
	w.Helper()
	for _, h := range hosts {
		at := []*lab.Gateway{w.GW[lab.DC2]}
		if h.Site == lab.DC1 {
			at = []*lab.Gateway{w.a, w.b}
		}
		for _, g := range at {
			for _, ip := range h.IPs() {
				w.Until(10*time.Second, fmt.Sprintf("%s finds %s", g.Name, ip), func() error {
					out, err := g.Try("ping", "-n", "-c", "1", "-W", "1", ip.String())
					if err != nil {
						return fmt.Errorf("%w: %s", err, out)
					}
					return nil
				})
			}
		}
	}
}

// newTwinsOfFRR starts two gateways at dc1 beside FRR at dc2, which is told of both by lines of its configuration.
func newTwinsOfFRR(t *testing.T, bfd string, lines ...string) *twins {
	t.Helper()
	s := lab.NewSites(t, bins, lab.Options{NoRoutes: true, FRRFar: true})
	c := &s.GW[lab.DC1].Config
	c.GatewayMAC, c.L2VNI, c.Peers, c.Mobility, c.BFD = "02:00:5e:10:00:01", 10, nil, often, bfd
	w := &twins{s, s.GW[lab.DC1], s.Sibling(bins)}
	s.FRR.StartBFD()
	s.FRR.Show(append([]string{"configure terminal"}, lines...)...)
	w.launch(w.a, w.b)
	for _, h := range s.Hosts {
		h.Announce()
	}
	return w
}

// frrHasBoth waits until FRR has a host from both gateways, and would miss either.
func (w *twins) frrHasBoth(h *lab.Host) {
	w.Helper()
	for _, ip := range h.IPs() {
		w.Until(30*time.Second, "FRR has "+ip.String()+" from both gateways", func() error {
			out := w.FRR.Show("show bgp " + map[bool]string{true: "ipv4", false: "ipv6"}[ip.Is4()] + " unicast " + lab.HostRoute(ip))
			if !strings.Contains(out, "2 available") {
				return fmt.Errorf("it shows\n%s", out)
			}
			return nil
		})
	}
	w.Until(30*time.Second, "FRR hears both by BFD", func() error {
		if out := w.FRR.Show("show bfd peers brief"); strings.Count(out, " up ") != 2 {
			return fmt.Errorf("it shows\n%s", out)
		}
		return nil
	})
}

// documentedTwins are the lines that docs/bgp.md tells to give FRR for two gateways.
func documentedTwins(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(lab.Root(), "docs", "bgp.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, after, found := strings.Cut(string(text), "```\nbfd\n")
	block, _, closed := strings.Cut(after, "\n```")
	if !found || !closed {
		t.Fatal("docs/bgp.md shows no configuration of FRR that begins with bfd")
	}
	return append([]string{"bfd"}, strings.Split(block, "\n")...)
}

// TestTwinsTowardsFRR: to an EVPN peer of another make two gateways of a site are two next hops of one host, of which it uses the lowest. Where the
// machine of one dies, that peer goes on with the other as soon as BFD misses the dead one, and comes back to it.
func TestTwinsTowardsFRR(t *testing.T) {
	w := newTwinsOfFRR(t, "{interval: 100ms, multiplier: 3}", documentedTwins(t)...)
	h12, h31 := w.H("h12"), w.H("h31")
	w.frrHasBoth(h12)
	reach(t, w.Sites, [2]*lab.Host{h12, h31}, [2]*lab.Host{h31, h12})
	for _, step := range []struct {
		what        string
		fails, left *lab.Gateway
	}{
		{"the designated gateway dies", w.a, w.b},
		{"the one that took over dies", w.b, w.a},
	} {
		list := flows(w.Sites, h12, h31, 2000)
		w.fail(step.fails)
		w.awaitState(step.left, "designated")
		progress(list, 200)
		gaps(t, list, step.what)

		list = flows(w.Sites, h12, h31, 2000)
		w.repair(step.fails)
		w.awaitState(step.fails, "standby")
		w.frrHasBoth(h12)
		progress(list, 200)
		gaps(t, list, "it comes back after "+step.what)
	}
}
