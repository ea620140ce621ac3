package lab_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"roam/lab"
)

// TestNothingIsLostWhenTheDaemonIs keeps a stream running through everything that happens to a daemon: a crash, an
// orderly restart, an upgrade to another binary, and the growth of its tables.
func TestNothingIsLostWhenTheDaemonIs(t *testing.T) {
	s := up(t, lab.Options{Capacity: 1024})
	h11, h21 := s.H("h11"), s.H("h21")
	reach(t, s, [2]*lab.Host{h11, h21}, [2]*lab.Host{h21, h11})
	for _, step := range []struct {
		name string
		do   func(g *lab.Gateway)
	}{
		{"kill -9, and nobody there for a while", func(g *lab.Gateway) {
			g.Daemon.Kill()
		}},
		{"start over what is pinned", func(g *lab.Gateway) {
			g.Start()
			g.AwaitReady()
		}},
		{"kill -9 and restart at once", func(g *lab.Gateway) { g.Restart() }},
		{"orderly stop", func(g *lab.Gateway) { g.Stop() }},
		{"upgrade to a newly built binary", func(g *lab.Gateway) {
			g.Bins = newer
			g.Start()
			g.AwaitReady()
			if version := status(g).Version; version != "lab2" {
				t.Errorf("%s runs version %q", g.Name, version)
			}
		}},
		{"growth of the tables", func(g *lab.Gateway) {
			g.Config.Hosts = 100_000
			g.WriteConfig()
			g.MustCtl("reload")
			s.Until(10*time.Second, "the tables have grown", func() error {
				for _, table := range status(g).Tables {
					if strings.HasPrefix(table.Name, "hosts") && table.Capacity < 100_000 {
						return fmt.Errorf("%s holds %d", table.Name, table.Capacity)
					}
				}
				return nil
			})
		}},
		{"kill -9 and restart after the growth", func(g *lab.Gateway) { g.Restart() }},
	} {
		list := flows(s, h11, h21, 2000)
		for _, g := range s.GW {
			step.do(g)
			progress(list, 100)
		}
		lossless(t, s, list, 62, step.name)
	}
	if out := s.GW[lab.DC1].MustCtl("route", "list"); !strings.Contains(out, "10.1.0.21/32") {
		t.Errorf("routes after all that:\n%s", out)
	}
}

// TestRestartForgetsNothingInjected: what came through the control socket outlives the daemon, and what nobody says
// any more does not.
func TestRestartForgetsNothingInjected(t *testing.T) {
	s := up(t, lab.Options{NoRoutes: true})
	h11, h21 := s.H("h11"), s.H("h21")
	gw1, gw2 := s.GW[lab.DC1], s.GW[lab.DC2]
	for i := range 2 {
		gw1.MustCtl("route", "add", lab.HostRoute(h21.IPs()[i]), "--site", "dc2")
		gw2.MustCtl("route", "add", lab.HostRoute(h11.IPs()[i]), "--via", "192.0.2.1")
	}
	gw1.Route("10.1.0.22/32", "dc2")
	reach(t, s, [2]*lab.Host{h11, h21})
	list := flows(s, h11, h21, 2000)
	gw1.Daemon.Kill()
	gw1.Route("10.1.0.22/32", "")
	gw1.Start()
	gw1.AwaitReady()
	gw2.Restart()
	progress(list, 200)
	lossless(t, s, list, 62, "restart with injected routes")
	s.Until(5*time.Second, "the route that the file no longer holds is gone", func() error {
		if out := gw1.MustCtl("route", "list"); strings.Contains(out, "10.1.0.22") {
			return fmt.Errorf("still there:\n%s", out)
		}
		return nil
	})
}

// TestSecondDaemonIsRefused: two writers would ruin the tables.
func TestSecondDaemonIsRefused(t *testing.T) {
	s := up(t, lab.Options{})
	g := s.GW[lab.DC1]
	first := g.Daemon
	g.Start()
	if err := g.Daemon.Wait(10 * time.Second); err == nil || g.Daemon.Running() {
		t.Errorf("a second daemon over the same pins: %v\n%s", err, g.Daemon.Output())
	}
	if !first.Running() {
		t.Errorf("the first daemon ended: %s", first.Output())
	}
	reach(t, s, [2]*lab.Host{s.H("h11"), s.H("h21")})
}

// daemonStatus is what these tests read of `roamctl -o json status`.
type daemonStatus struct {
	Version string `json:"version"`
	Ports   []struct {
		Interface string `json:"interface"`
		Mode      string `json:"mode"`
	} `json:"ports"`
	Tables []struct {
		Name     string `json:"name"`
		Entries  uint64 `json:"entries"`
		Capacity uint64 `json:"capacity"`
	} `json:"tables"`
}

func status(g *lab.Gateway) (st daemonStatus) {
	g.JSON(&st, "status")
	return st
}
