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

// TestMovePlan: a plan is carried out in waves, each of which is seen to be right through the tunnel; one that is not is taken back.
func TestMovePlan(t *testing.T) {
	s := lab.NewSites(t, bins, lab.Options{})
	s.GW[lab.DC1].Config.Probe = "off" // else whether the plan is refused, or taken back, is a race with the probes
	s.Up()
	gw1, gw2, h11, h12 := s.GW[lab.DC1], s.GW[lab.DC2], s.H("h11"), s.H("h12")
	reach(t, s, [2]*lab.Host{h11, s.H("h21")}, [2]*lab.Host{h12, s.H("h21")})
	for _, h := range []*lab.Host{h11, h12} {
		s.Until(10*time.Second, h.Name+" is known", func() error { _, err := gw1.Ctl("host", "show", h.IP4.String()); return err })
	}
	plan := filepath.Join(s.Dir, "plan.yaml")
	write := func(text string) {
		if err := os.WriteFile(plan, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}

	// Beyond the tunnel is no data path any more, but for ARP all is well: that is found once the wave is in force.
	gw2.Stop()
	gw2.Run(gw2.Bins.Daemon, "--config", gw2.ConfigFile(), "--detach")
	write(fmt.Sprintf("- {hosts: [%q], to: dc2}\n", h12.IP4))
	out, err := gw1.Ctl("host", "move", "--plan", plan, "--yes", "--wait", "1s")
	if err == nil || !strings.Contains(err.Error(), "wave 1 of 1: not right within 1s: dc2 at 192.0.2.2 does not answer a probe") ||
		!strings.Contains(out, "rolled_back") {
		t.Errorf("a move to where nobody answers: %v\n%s", err, out)
	}
	if out := gw1.MustCtl("route", "export"); strings.Contains(out, h12.IP4.String()) {
		t.Errorf("it was not taken back:\n%s", out)
	}
	if out := gw1.MustCtl("host", "show", h12.IP4.String()); !strings.Contains(out, "lan0") {
		t.Errorf("it does not live here any more:\n%s", out)
	}
	gw2.Up()

	// The destination first, then the site that it left.
	s.Replug(h11, lab.DC2)
	write(fmt.Sprintf("- {hosts: [%q, %q], to: dc2}\n", h11.IP4, h11.IP6))
	for _, g := range []*lab.Gateway{gw2, gw1} {
		if out := g.MustCtl("host", "move", "--plan", plan); !strings.Contains(out, "nothing was changed") {
			t.Errorf("%s: without --yes:\n%s", g.Name, out)
		}
		out := g.MustCtl("host", "move", "--plan", plan, "--yes", "--wave", "1", "--wait", "10s")
		if strings.Count(out, "moved") != 2 || !strings.Contains(out, "2 waves are in force and right") {
			t.Errorf("%s:\n%s", g.Name, out)
		}
	}
	reach(t, s, [2]*lab.Host{h12, h11}, [2]*lab.Host{h11, h12}, [2]*lab.Host{h11, s.H("h21")})
	if out := gw1.MustCtl("host", "move", "--plan", plan, "--yes"); strings.Count(out, "there") != 2 {
		t.Errorf("given again:\n%s", out)
	}

	// And all of it back, with one command for each gateway: the plan is at two, each has a journal of its own.
	s.Replug(h11, lab.DC1)
	for _, g := range []*lab.Gateway{gw1, gw2} {
		if out := g.MustCtl("host", "move", "--plan", plan, "--undo", "--yes"); strings.Count(out, "rolled_back") != 2 || !strings.Contains(out, "2 waves are taken back") {
			t.Errorf("%s: undone:\n%s", g.Name, out)
		}
		if out := g.MustCtl("route", "export"); strings.Contains(out, h11.IP4.String()) {
			t.Errorf("%s: it was not taken back:\n%s", g.Name, out)
		}
	}
	reach(t, s, [2]*lab.Host{h12, h11}, [2]*lab.Host{h11, s.H("h21")})

	// Where the gateway of the destination is asked, it says what it does not allow.
	gw2.Config.Mobility = "{allow: [" + h12.IP4.String() + "/32]}"
	gw2.WriteConfig()
	gw2.MustCtl("reload")
	out, err = gw1.Ctl("host", "move", "--plan", plan, "--ask", "dc2="+gw2.Config.Socket)
	if err == nil || !strings.Contains(out, "dc2 says: mobility.allow of segment") {
		t.Errorf("a move to where it is not allowed: %v\n%s", err, out)
	}
}
