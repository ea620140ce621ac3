package lab_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"roam/lab"
)

// TestDocumentedFeeds: what the manual says of routes from a program. A list is followed over a crash of the daemon, a watch tells
// what came of it, and packets follow.
func TestDocumentedFeeds(t *testing.T) {
	s := up(t, lab.Options{NoRoutes: true})
	gw1, gw2, h11, h21 := s.GW[lab.DC1], s.GW[lab.DC2], s.H("h11"), s.H("h21")
	var routes string
	for i, host := range []*lab.Host{h11, h21} {
		for _, ip := range host.IPs() {
			routes += fmt.Sprintf("{\"prefix\":%q,\"site\":%q}\n", ip, lab.SiteNames[i])
		}
	}
	file := filepath.Join(s.Dir, "list.jsonl")
	write := func(text string) {
		t.Helper()
		f, err := os.OpenFile(file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteString(text); err != nil {
			t.Fatal(err)
		}
	}
	write("")
	ctl := func(g *lab.Gateway, args ...string) *lab.Process {
		return g.Namespace.Start(g.Bins.Ctl, append([]string{"--socket", g.Config.Socket, "route"}, args...)...)
	}
	said := func(p *lab.Process, text string) {
		t.Helper()
		if err := p.Said(text, 10*time.Second); err != nil {
			t.Fatal(err)
		}
	}
	watch := ctl(gw1, "watch", "--source", "api")
	said(watch, "synced")
	feeds := []*lab.Process{ctl(gw1, "import", "--follow", file), ctl(gw2, "import", "--follow", "--at-end", "withdraw", file)}
	write(routes)
	said(watch, "set    "+lab.HostRoute(h21.IP4)+"  default  192.0.2.2")
	reach(t, s, [2]*lab.Host{h11, h21}, [2]*lab.Host{h21, h11})

	gw1.Daemon.Kill()
	write(fmt.Sprintf("{\"prefix\":\"%s\",\"withdraw\":true}\nwrong\n", h21.IP6))
	gw1.Start()
	gw1.AwaitReady()
	said(feeds[0], "trying again until it is taken")
	said(feeds[0], "line 6: ")
	s.Until(10*time.Second, "what was withdrawn while the daemon was away is gone", func() error {
		if out := gw1.MustCtl("route", "list", "--source", "api"); strings.Contains(out, h21.IP6.String()) || !strings.Contains(out, h21.IP4.String()) {
			return fmt.Errorf("it has\n%s", out)
		}
		return nil
	})
	for _, p := range feeds {
		p.Signal(syscall.SIGTERM)
		if err := p.Wait(10 * time.Second); err == nil {
			t.Errorf("%s: a line was refused, and it ends well", p)
		}
	}
	if out := gw1.MustCtl("route", "export"); !strings.Contains(out, h21.IP4.String()) {
		t.Errorf("gw1's routes went with the list:\n%s", out)
	}
	if out := gw2.MustCtl("route", "export"); strings.Contains(out, "10.1.0.") {
		t.Errorf("gw2's routes outlive the list that is withdrawn:\n%s", out)
	}
}
