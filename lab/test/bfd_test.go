package lab_test

import (
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"roam/lab"
)

// watched is what these tests read of a session.
type watched struct {
	Protocol, Neighbor, Local, State, Why string
	Flaps                                 int
	Up                                    bool
}

func bfdSessions(g *lab.Gateway) (list []watched) {
	g.JSON(&list, "session", "list")
	return slices.DeleteFunc(list, func(w watched) bool { return w.Protocol != "bfd" })
}

// allUp waits until a gateway has so many sessions, all up.
func allUp(s *lab.Lab, g *lab.Gateway, sessions int) {
	s.Helper()
	s.Until(10*time.Second, g.Name+" has its sessions up", func() error {
		list := bfdSessions(g)
		if len(list) != sessions || slices.ContainsFunc(list, func(w watched) bool { return !w.Up }) {
			return fmt.Errorf("%+v", list)
		}
		return nil
	})
}

// locator is a locator's state in `roamctl site list`.
func locator(g *lab.Gateway, address string) string {
	var sites []struct {
		Locators []struct{ Address, State string }
	}
	g.JSON(&sites, "site", "list")
	for _, site := range sites {
		for _, l := range site.Locators {
			if l.Address == address {
				return l.State
			}
		}
	}
	return "not listed"
}

func awaitLocator(s *lab.Lab, g *lab.Gateway, address, state string, limit time.Duration) {
	s.Helper()
	s.Until(limit, fmt.Sprintf("%s takes %s to be %s", g.Name, address, state), func() error {
		if is := locator(g, address); is != state {
			return fmt.Errorf("it is %s: %+v", is, bfdSessions(g))
		}
		return nil
	})
}

// metrics reads what a gateway tells Prometheus.
func metrics(t *testing.T, g *lab.Gateway) string {
	t.Helper()
	var conn net.Conn
	err := g.Do(func() (err error) {
		conn, err = net.Dial("tcp", "127.0.0.1:9177")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET /metrics HTTP/1.0\r\n\r\n")
	text, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestLocatorLost: each site has two ways in. One of them is cut in the middle, where nobody sees a link go down, and
// the flows that took it are on the other within a second; it is let back in when it has stayed up for a while, and that
// loses nothing.
func TestLocatorLost(t *testing.T) {
	s := lab.NewSites(t, bins, lab.Options{TwoWays: true})
	for _, g := range s.GW {
		g.Config.BFD = "{interval: 100ms, multiplier: 3, auth: {key: lab}}"
	}
	s.Up()
	h11, h21, gw1 := s.H("h11"), s.H("h21"), s.GW[lab.DC1]
	reach(t, s, [2]*lab.Host{h11, h21})
	for _, g := range s.GW {
		allUp(s.Lab, g, 4)
	}

	var list []*lab.Flow
	for range 4 { // each flow takes one way, and of sixteen some take the other
		list = append(list, flows(s, h11, h21, 800)...)
	}
	s.Sever("gw2-wan")
	cut := time.Now()
	awaitLocator(s.Lab, gw1, "192.0.2.2", "down", 2*time.Second)
	t.Logf("192.0.2.2 is down %v after the cut", time.Since(cut).Round(time.Millisecond))
	if is := locator(gw1, "198.18.0.2"); is != "up" {
		t.Errorf("the other locator is %s", is)
	}
	if down := awaitEvent(s, gw1, "locator_down", "192.0.2.2"); !strings.HasPrefix(down.Why, "BFD: ") {
		t.Errorf("the event: %+v", down)
	}
	if text := metrics(t, gw1); !strings.Contains(text, `roam_locator_up{locator="192.0.2.2"} 0`) ||
		!strings.Contains(text, `roam_locator_up{locator="198.18.0.2"} 1`) {
		t.Errorf("metrics:\n%s", text)
	}
	progress(list, 20)
	hit := 0
	for _, f := range list {
		r := f.Stop()
		if r.Lost() > 0 {
			hit++
			t.Logf("%s: gap %v, %d of %d lost", f, r.Gap.Round(time.Millisecond), r.Lost(), r.Sent)
		}
		if r.Gap > time.Second {
			t.Errorf("%s: %v", f, r)
		}
	}
	if hit == 0 || hit == len(list) {
		t.Errorf("%d of %d flows were hit: there are not two ways", hit, len(list))
	}

	list = flows(s, h11, h21, 800)
	s.Switch.Plug("gw2-wan", "wan")
	healed := time.Now()
	for _, g := range s.GW {
		allUp(s.Lab, g, 4)
	}
	if is := locator(gw1, "192.0.2.2"); is != "down" {
		t.Errorf("up again for a moment, and it is %s", is)
	}
	awaitLocator(s.Lab, gw1, "192.0.2.2", "up", 10*time.Second)
	t.Logf("192.0.2.2 is back in %v after the cable healed", time.Since(healed).Round(time.Millisecond))
	awaitLocator(s.Lab, s.GW[lab.DC2], "192.0.2.1", "up", 10*time.Second)
	progress(list, 20)
	lossless(t, s, list, 62, "the way back in")

	// An orderly stop is no failure, and neither is a crash where there is no other gateway to go to.
	list = flows(s, h11, h21, 800)
	s.GW[lab.DC2].Stop()
	progress(list, 100)
	for _, address := range []string{"192.0.2.2", "198.18.0.2"} {
		if is := locator(gw1, address); is != "up" {
			t.Errorf("dc2 said goodbye, and %s is %s", address, is)
		}
	}
	s.GW[lab.DC2].Start()
	s.GW[lab.DC2].AwaitReady()
	allUp(s.Lab, gw1, 4)
	s.GW[lab.DC2].Daemon.Kill()
	awaitLocator(s.Lab, gw1, "192.0.2.2", "down", 5*time.Second)
	awaitLocator(s.Lab, gw1, "198.18.0.2", "down", 5*time.Second)
	progress(list, 20)
	s.GW[lab.DC2].Start()
	s.GW[lab.DC2].AwaitReady()
	awaitLocator(s.Lab, gw1, "192.0.2.2", "up", 10*time.Second)
	progress(list, 100)
	lossless(t, s, list, 62, "restarts of the far daemon")
}
