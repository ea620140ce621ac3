package lab_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"roam/lab"
	"roam/loader/route"
)

// wayFound is what these tests read of a locator in `roamctl site list`.
type wayFound struct {
	Address, State, Probe string
	MTU                   int
	RoundTrip             float64 `json:"round_trip_seconds"`
	MTUHole               bool    `json:"mtu_hole"`
}

func probed(g *lab.Gateway, address string) wayFound {
	var sites []struct{ Locators []wayFound }
	g.JSON(&sites, "site", "list")
	for _, site := range sites {
		for _, l := range site.Locators {
			if l.Address == address {
				return l
			}
		}
	}
	return wayFound{}
}

func awaitProbe(s *lab.Lab, g *lab.Gateway, address string, limit time.Duration, what string, want func(wayFound) bool) wayFound {
	s.Helper()
	var is wayFound
	s.Until(limit, fmt.Sprintf("%s finds %s %s", g.Name, address, what), func() error {
		if is = probed(g, address); !want(is) {
			return fmt.Errorf("%+v", is)
		}
		return nil
	})
	return is
}

func answers(f wayFound) bool { return f.State == "up" && f.Probe == "answers" && f.RoundTrip > 0 }

// firewall has the switch drop what a rule matches; the returned function lets it through again.
func firewall(s *lab.Sites, rule string) (lift func()) {
	s.Switch.Run("nft", "add", "table", "bridge", "lab")
	s.Switch.Run("nft", "add", "chain", "bridge", "lab", "fw", "{ type filter hook forward priority 0; }")
	s.Switch.Run("nft", "add", "rule", "bridge", "lab", "fw", rule+" counter drop")
	return func() { s.Switch.Run("nft", "delete", "table", "bridge", "lab") }
}

// TestProbeAndBFD: each site has two ways in, and both means of watching. Each is taken away alone.
func TestProbeAndBFD(t *testing.T) {
	s := lab.NewSites(t, bins, lab.Options{TwoWays: true})
	for _, g := range s.GW {
		g.Config.BFD = "{interval: 100ms, multiplier: 3}"
	}
	s.Up()
	h11, h21, gw1, gw2 := s.H("h11"), s.H("h21"), s.GW[lab.DC1], s.GW[lab.DC2]
	reach(t, s, [2]*lab.Host{h11, h21})
	ends := []string{"192.0.2.2", "198.18.0.2"}
	for _, g := range s.GW {
		allUp(s.Lab, g, 4)
	}
	for _, a := range ends {
		awaitProbe(s.Lab, gw1, a, 15*time.Second, "answering", answers)
	}

	// A firewall that lets only tunnels through.
	list := flows(s, h11, h21, 400)
	lift := firewall(s, "udp dport 4784")
	s.Until(5*time.Second, "BFD is down", func() error {
		if all := bfdSessions(gw1); slices.ContainsFunc(all, func(w watched) bool { return w.Up }) {
			return fmt.Errorf("%+v", all)
		}
		return nil
	})
	progress(list, 50)
	for _, a := range ends {
		if is := probed(gw1, a); !answers(is) {
			t.Errorf("BFD alone is lost: %+v", is)
		}
	}
	lift()
	allUp(s.Lab, gw1, 4)
	lossless(t, s, list, 62, "without BFD")

	// A firewall that lets only BFD through, on one of the ways: flows leave it within a second.
	for range 3 {
		list = append(list[:0], flows(s, h11, h21, 400)...)
	}
	lift = firewall(s, "ip daddr 192.0.2.2 udp dport 4789")
	cut := time.Now()
	awaitLocator(s.Lab, gw1, "192.0.2.2", "down", time.Second)
	t.Logf("192.0.2.2 is down %v after its tunnel was cut", time.Since(cut).Round(time.Millisecond))
	if all := bfdSessions(gw1); len(all) != 4 || slices.ContainsFunc(all, func(w watched) bool { return !w.Up }) {
		t.Errorf("BFD: %+v", all)
	}
	if is := probed(gw1, "198.18.0.2"); !answers(is) {
		t.Errorf("the other way: %+v", is)
	}
	s.Until(5*time.Second, "an event tells why", func() error {
		list := events(gw1)
		if !slices.ContainsFunc(list, func(e happened) bool {
			return e.Kind == "locator_down" && e.Subject == "192.0.2.2" && strings.Contains(e.Why, "probes through the tunnel are not answered")
		}) {
			return fmt.Errorf("%+v", list)
		}
		return nil
	})
	progress(list, 50)
	for _, f := range list {
		if r := f.Stop(); r.Gap > time.Second {
			t.Errorf("%s: %v", f, r)
		}
	}
	lift()
	lifted := time.Now()
	damped(t, s.Lab, gw1, lifted)

	// The far daemon dies, and its data path lives.
	list = flows(s, h11, h21, 400)
	gw2.Daemon.Kill()
	s.Until(5*time.Second, "BFD notices", func() error {
		if all := bfdSessions(gw1); slices.ContainsFunc(all, func(w watched) bool { return w.Up }) {
			return fmt.Errorf("%+v", all)
		}
		return nil
	})
	progress(list, 100)
	for _, a := range ends {
		if is := probed(gw1, a); !answers(is) {
			t.Errorf("the far daemon alone is dead: %+v", is)
		}
	}
	if out := gw1.MustCtl("ping", ends[0], "--count", "2", "--interval", "10ms"); !strings.Contains(out, "2 sent, 2 answered, 0% lost") {
		t.Errorf("ping without a far daemon:\n%s", out)
	}
	gw2.Start()
	gw2.AwaitReady()
	progress(list, 50)
	lossless(t, s, list, 62, "the death of the far daemon")
}

// TestProbeHole: a switch on the way carries less than it should, and says nothing. It is found, kept to, and forgotten when it is mended.
func TestProbeHole(t *testing.T) {
	s := lab.NewSites(t, bins, lab.Options{})
	for _, g := range s.GW {
		g.Config.Probe = "{full_size_interval: 1s}"
	}
	s.Up()
	h11, h21, gw1 := s.H("h11"), s.H("h21"), s.GW[lab.DC1]
	reach(t, s, [2]*lab.Host{h11, h21})
	before := awaitProbe(s.Lab, gw1, "192.0.2.2", 15*time.Second, "answering", answers)
	if before.MTU != 1950 || before.MTUHole {
		t.Errorf("at first: %+v", before)
	}

	s.Switch.IP("link set gw2-wan mtu 1400")
	is := awaitProbe(s.Lab, gw1, "192.0.2.2", 30*time.Second, "with a hole", func(f wayFound) bool { return f.MTUHole && f.MTU < 1400 })
	if is.MTU > 1350 || is.MTU < 1342 || !answers(is) {
		t.Errorf("found %+v, want an MTU of 1350 or a little less", is)
	}
	e := awaitEvent(s, gw1, "mtu_hole", "192.0.2.2")
	t.Logf("%s: %s", e.What, e.Do)
	if text := metrics(t, gw1); !strings.Contains(text, `roam_locator_mtu_hole{locator="192.0.2.2"} 1`) {
		t.Errorf("metrics do not tell")
	}
	// Hosts hear of it now, who lost their large packets in silence before.
	s.Until(10*time.Second, "the host is told what fits", func() error {
		out, err := h11.Try("ping", "-n", "-c", "1", "-W", "1", "-M", "do", "-s", "1400", h21.IP4.String())
		if text := out + fmt.Sprint(err); !strings.Contains(text, fmt.Sprintf("mtu=%d", is.MTU)) && !strings.Contains(text, fmt.Sprintf("mtu = %d", is.MTU)) {
			return fmt.Errorf("%s", text)
		}
		return nil
	})
	if out, err := gw1.Ctl("ping", "192.0.2.2", "--size", "1360"); err == nil || !strings.Contains(err.Error()+out, "does not fit into the tunnel") {
		t.Errorf("a ping that does not fit: %v\n%s", err, out)
	}
	if out, err := gw1.Ctl("ping", "192.0.2.2", "--size", "1360", "--df", "--count", "1"); err == nil || !strings.Contains(out, fmt.Sprintf("no more than %d bytes are known to pass", is.MTU)) {
		t.Errorf("a ping that is lost: %v\n%s", err, out)
	}
	if out := gw1.MustCtl("ping", "192.0.2.2", "--size", fmt.Sprint(is.MTU), "--count", "1"); !strings.Contains(out, fmt.Sprintf("%d bytes from 192.0.2.2: seq=1", is.MTU)) {
		t.Errorf("a ping that fits:\n%s", out)
	}

	s.Switch.IP("link set gw2-wan mtu 2000")
	awaitProbe(s.Lab, gw1, "192.0.2.2", 15*time.Second, "whole again", func(f wayFound) bool { return !f.MTUHole && f.MTU == 1950 })
	awaitEvent(s, gw1, "mtu_healed", "192.0.2.2")
}

// TestPing: by every encapsulation, over both underlays, at the smallest size, the largest, and more; tshark finds nothing wrong with any of it.
func TestPing(t *testing.T) {
	for _, underlay6 := range []bool{false, true} {
		t.Run(fmt.Sprintf("underlay6=%v", underlay6), func(t *testing.T) {
			s := up(t, lab.Options{NoRoutes: true, Underlay6: underlay6})
			for e := route.VXLAN; e.Valid() == nil; e++ {
				pingBy(t, s, e, [2]string{"192.0.2.2", "2001:db8:ff::2"}[map[bool]int{true: 1}[underlay6]])
			}
		})
	}
}

func pingBy(t *testing.T, s *lab.Sites, e route.Encap, far string) {
	t.Helper()
	for _, g := range s.GW {
		g.Config.Peers[0].Locators[0].Encap = e.String()
		g.WriteConfig()
		g.MustCtl("reload")
	}
	for _, h := range s.Hosts { // a tunnel without a field for the tenant is his whose routes take it
		s.GW[1-h.Site].MustCtl("route", "add", h.IP4.String(), "--site", lab.SiteNames[h.Site])
	}
	gw1 := s.GW[lab.DC1]
	var is wayFound
	s.Until(15*time.Second, "probes and the list of sites agree about "+e.String(), func() error {
		is = probed(gw1, far)
		out, err := gw1.Ctl("ping", far, "--size", fmt.Sprint(is.MTU+1), "--df")
		if !answers(is) || err == nil || !strings.Contains(out+err.Error(), fmt.Sprintf("the interface takes no more than %d", is.MTU)) {
			return fmt.Errorf("%+v: %s, %w", is, out, err)
		}
		return nil
	})
	c := s.Switch.Capture("gw1-wan", "not arp and not icmp6")
	out := gw1.MustCtl("ping", far, "--count", "3", "--interval", "1ms")
	if !strings.Contains(out, "3 sent, 3 answered, 0% lost; round trip min/avg/max ") {
		t.Errorf("%s:\n%s", e, out)
	}
	out = gw1.MustCtl("ping", far, "--count", "1", "--size", fmt.Sprint(is.MTU))
	if !strings.Contains(out, fmt.Sprintf("%d bytes from %s: seq=1 time=", is.MTU, far)) {
		t.Errorf("%s, %d bytes:\n%s", e, is.MTU, out)
	}
	filter := dissector[e]
	if e == route.IPIP && strings.Contains(far, ":") {
		filter = "ipv6" // inside a probe is what is outside
	}
	c.AwaitPackets(8, filter, 20*time.Second)
	c.Stop()
	if faults := c.Faults(); len(faults) > 0 {
		t.Errorf("%s: %d broken packets, such as %q", e, len(faults), faults[:min(3, len(faults))])
	}
	if text := s.GW[lab.DC2].MustCtl("counters"); !strings.Contains(text, "fwd_probe") || strings.Contains(text, "drop_probe") {
		t.Errorf("%s: the far end's counters:\n%s", e, text)
	}
	if text := gw1.MustCtl("counters"); !strings.Contains(text, "pass_probe") {
		t.Errorf("%s: our counters:\n%s", e, text)
	}
}

// TestPingKernel: a VXLAN gateway that is no Roam never answers, and nothing follows from that.
func TestPingKernel(t *testing.T) {
	s := up(t, lab.Options{KernelFar: true})
	gw1 := s.GW[lab.DC1]
	reach(t, s, [2]*lab.Host{s.H("h11"), s.H("h21")})
	out, err := gw1.Ctl("ping", "192.0.2.2", "--count", "2", "--interval", "10ms")
	if err == nil || !strings.Contains(out, "it has never answered a probe") || !strings.Contains(out, "2 sent, 0 answered, 100% lost") {
		t.Errorf("%v\n%s", err, out)
	}
	if is := probed(gw1, "192.0.2.2"); is.State != "up" || is.Probe != "unknown" {
		t.Errorf("%+v", is)
	}
	for _, c := range []struct{ locator, want string }{
		{"192.0.2.77", "192.0.2.77 is no locator that is known here"},
		{"192.0.2.1", "192.0.2.1 is our own tunnel end"},
	} {
		if out, err := gw1.Ctl("ping", c.locator); err == nil || !strings.Contains(err.Error()+out, c.want) {
			t.Errorf("ping %s: %v\n%s", c.locator, err, out)
		}
	}
	reach(t, s, [2]*lab.Host{s.H("h11"), s.H("h21")})
}
