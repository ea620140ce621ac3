package lab_test

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"roam/lab"
)

// hurried writes the rules of docs/prometheus with a patience of seconds instead of minutes.
func hurried(t *testing.T, dir string) (files []string) {
	t.Helper()
	for _, name := range []string{"recording.yaml", "alerts.yaml"} {
		text, err := os.ReadFile(filepath.Join(lab.Root(), "docs/prometheus", name))
		if err != nil {
			t.Fatal(err)
		}
		text = regexp.MustCompile(`for: \d+m`).ReplaceAll(text, []byte("for: 1s"))
		text = regexp.MustCompile(`\[\d+m\]`).ReplaceAll(text, []byte("[8s]"))
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	return files
}

// shoot sends UDP packets to an address, ten every ten milliseconds, until the returned function is called.
func shoot(t *testing.T, from *lab.Host, to string) (cease func()) {
	t.Helper()
	var conn net.Conn
	err := from.Do(func() (err error) {
		conn, err = net.Dial("udp", netip.AddrPortFrom(addr(to), 9).String())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		defer conn.Close()
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				for range 10 {
					_, _ = conn.Write([]byte("roam")) // refused, now and then: that is what is wanted
				}
			}
		}
	}()
	return func() { close(stop); <-done }
}

// TestObserve runs a real Prometheus with the documented rules over two gateways to which things happen: traffic, moves,
// drops, disagreement, failures. Each alert that can be provoked fires and clears, and every query of every dashboard
// finds something.
func TestObserve(t *testing.T) {
	s := lab.NewSites(t, bins, lab.Options{})
	third := s.Third(s.H("h11"))
	p := s.Prometheus(hurried(t, s.Dir)...)
	for site, g := range s.GW {
		g.Config.BGP = &lab.BGP{ASN: 65001 + site, Neighbors: []string{ // what each announces the other does not take: it would end what is provoked here
			fmt.Sprintf(`{address: 192.0.2.%d, asn: %d, import: {communities: ["65000:1"]}}`, 2-site, 65002-site),
		}}
		g.Config.BFD = "{interval: 300ms, multiplier: 3}"
		g.Config.Hook = "/bin/true"
	}
	s.Up()
	gw1, gw2, h11, h12, h21 := s.GW[lab.DC1], s.GW[lab.DC2], s.H("h11"), s.H("h12"), s.H("h21")
	reach(t, s, [2]*lab.Host{h12, h21}, [2]*lab.Host{h21, h11})
	list := flows(s, h12, h21, 400)

	s.Until(20*time.Second, "both gateways were scraped a few times", func() error {
		seen, err := p.Range("count_over_time(roam_scrape_success[10s]) >= 3", time.Now())
		if err == nil && len(seen) < 2 {
			err = fmt.Errorf("%d were", len(seen))
		}
		return err
	})
	late := s.Flow(third.Namespace, third.IP4, h11.Namespace, h11.IP4, 100, 100) // dc3 never learns of a move
	for _, site := range []int{lab.DC2, lab.DC1, lab.DC2} {
		s.Move(h11, site)
		reach(t, s, [2]*lab.Host{h12, h11})
	}

	late.AwaitArrivals(100, 10*time.Second) // sent on by gw1
	late.Stop()

	t.Log("dropped: a route says so")
	gw1.MustCtl("route", "add", "10.9.0.77", "--via", "192.0.2.2,priority=255")
	cease := shoot(t, h12, "10.9.0.77")
	p.AwaitAlert(gw1, "RoamDropping", true)
	cease()

	t.Log("two sites that each name the other")
	gw1.MustCtl("route", "add", "10.1.0.88", "--site", "dc2")
	gw2.MustCtl("route", "add", "10.1.0.88", "--site", "dc1")
	cease = shoot(t, h12, "10.1.0.88")
	p.AwaitAlert(gw2, "RoamSitesDisagree", true)
	cease()

	t.Log("a move whose host comes late")
	gw1.MustCtl("host", "move", h11.IP4.String(), "--to", "dc1")
	p.AwaitAlert(gw1, "RoamDropping", false)
	p.AwaitAlert(gw2, "RoamSitesDisagree", false)
	s.Replug(h11, lab.DC1)
	p.AwaitAlert(gw1, "RoamMoveOutageLong", true)

	t.Log("a bad route file, a bad configuration")
	routes, err := os.ReadFile(gw2.Config.RouteFile)
	if err != nil {
		t.Fatal(err)
	}
	write(t, gw2.Config.RouteFile, "- {prefix: nonsense}\n")
	good := gw2.Config
	gw2.Config.VNI = 0
	gw2.WriteConfig()
	_, _ = gw2.Ctl("reload")
	p.AwaitAlert(gw2, "RoamSourceDown", true)
	p.AwaitAlert(gw2, "RoamReloadFailed", true)
	write(t, gw2.Config.RouteFile, string(routes))
	gw2.Config = good
	gw2.WriteConfig()
	gw2.MustCtl("reload")

	t.Log("the underlay loses its route at one gateway, an interface vanishes at the other")
	lossless(t, s, list, 62, "while everything was watched")
	gw1.IP("route del 192.0.2.0/24 dev wan0")
	gw2.IP("link del lan0")
	p.AwaitAlert(gw1, "RoamLocatorDown", true)
	p.AwaitAlert(gw2, "RoamPortDetached", true)
	gw1.IP("route add 192.0.2.0/24 dev wan0 src 192.0.2.1")
	s.Cable(lab.End{In: gw2.Namespace, Name: "lan0"}, lab.End{In: s.Switch, Name: "gw2-lan", Bridge: "lan2"}, 1500, 1)
	p.AwaitAlert(gw1, "RoamLocatorDown", false)
	p.AwaitAlert(gw2, "RoamPortDetached", false)

	t.Log("a daemon dies")
	gw2.Daemon.Kill()
	p.AwaitAlert(gw2, "RoamGatewayDown", true)
	gw2.Start()
	gw2.AwaitReady()
	for _, name := range []string{"RoamGatewayDown", "RoamSourceDown", "RoamReloadFailed"} {
		p.AwaitAlert(gw2, name, false)
	}
	p.AwaitAlert(gw1, "RoamMoveOutageLong", false)
	s.Until(20*time.Second, "both gateways are seen for a while", func() error {
		seen, err := p.Range("count_over_time(roam_scrape_success[6s]) >= 5", time.Now())
		for _, one := range seen {
			if last := one.Points[len(one.Points)-1][0]; err == nil && time.Since(time.Unix(int64(last), 0)) > 2*time.Second {
				err = fmt.Errorf("%v is not", one.Labels)
			}
		}
		return err
	})
	dashboardsHaveData(t, p, gw1.Config.Metrics)
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// dashboardsHaveData runs the queries of all panels and annotations over the run.
func dashboardsHaveData(t *testing.T, p *lab.Prometheus, one string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(lab.Root(), "docs/grafana/*.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no dashboards: %v", err)
	}
	queries, until := 0, time.Now()
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var d struct {
			Title       string
			Templating  struct{ List []struct{ Multi bool } }
			Annotations struct {
				List []struct{ Target struct{ Expr string } }
			}
			Panels []shownPanel
		}
		if err := json.Unmarshal(text, &d); err != nil {
			t.Fatal(err)
		}
		instance := regexp.QuoteMeta(one)
		if d.Templating.List[1].Multi {
			instance = ".+"
		}
		variables := strings.NewReplacer("$instance", strings.ReplaceAll(instance, `\`, `\\`), "$__rate_interval", "5s", "$__range", "2m")
		find := func(title, expr string) []lab.Series {
			queries++
			series, err := p.Range(variables.Replace(expr), until)
			if err != nil || len(series) == 0 {
				t.Errorf("%s: %q finds nothing, %v: %s", filepath.Base(file), title, err, expr)
			}
			return series
		}
		page := drawing{from: float64(p.Started.Unix()), to: float64(until.Unix())}
		for _, a := range d.Annotations.List {
			page.mark(find("annotation", a.Target.Expr))
		}
		page.begin(d.Title, d.Panels)
		for _, panel := range d.Panels {
			var curves []curve
			for _, q := range panel.Targets {
				for _, s := range find(panel.Title, q.Expr) {
					curves = append(curves, named(q.LegendFormat, s))
				}
			}
			page.panel(panel, curves)
		}
		page.WriteString("</svg>\n")
		if os.Getenv("ROAM_DRAW") != "" {
			write(t, strings.TrimSuffix(file, "json")+"svg", page.String())
		}
	}
	t.Logf("%d queries of %d dashboards found data", queries, len(files))
}

// TestObserveScarcity is the rest of the alerts: of what runs short, and of what the kernel refuses. Each fires and clears.
func TestObserveScarcity(t *testing.T) {
	s := lab.NewSites(t, bins, lab.Options{})
	for _, g := range s.GW {
		g.Config.Probe = "{full_size_interval: 1s}"
	}
	p := s.Prometheus(hurried(t, s.Dir)...)
	s.Up()
	gw1, gw2 := s.GW[lab.DC1], s.GW[lab.DC2]
	reach(t, s, [2]*lab.Host{s.H("h12"), s.H("h21")})

	t.Log("a port in generic mode, a neighbor that does not answer, a switch that carries less than it should")
	good := gw1.Config
	gw1.Config.Mode = "generic"
	gw1.Config.BGP = &lab.BGP{ASN: 65001, Neighbors: []string{"{address: 192.0.2.9, asn: 65002}"}}
	gw1.WriteConfig()
	gw1.MustCtl("reload")
	s.Switch.IP("link set gw2-wan mtu 1400")
	for _, name := range []string{"RoamPortGeneric", "RoamSessionDown", "RoamMTUHole"} {
		p.AwaitAlert(gw1, name, true)
	}
	gw1.Config = good
	gw1.WriteConfig()
	gw1.MustCtl("reload")
	s.Switch.IP("link set gw2-wan mtu 2000")
	for _, name := range []string{"RoamPortGeneric", "RoamSessionDown", "RoamMTUHole"} {
		p.AwaitAlert(gw1, name, false)
	}

	t.Log("the kernel refuses the daemon every access to its tables")
	trace := gw2.Namespace.Start("strace", "-f", "-qq", "-o", "/dev/null", "-p", fmt.Sprint(gw2.Daemon.PID()), "-e", "trace=bpf", "-e", "inject=bpf:error=EPERM")
	p.AwaitAlert(gw2, "RoamScrapeIncomplete", true)
	gw2.Config.Hosts *= 2
	gw2.WriteConfig()
	_, _ = gw2.Ctl("reload")
	awaitEvent(s, gw2, "growth_failed", "hosts")
	p.AwaitAlert(gw2, "RoamHostTableNotGrowing", true) // what can be read is shown
	trace.Kill()
	for _, name := range []string{"RoamScrapeIncomplete", "RoamHostTableNotGrowing"} {
		p.AwaitAlert(gw2, name, false)
	}

	t.Log("more tunnel ends than the table of 4096 holds")
	var list strings.Builder
	for i := range 4200 {
		fmt.Fprintf(&list, `{"prefix": "10.66.%d.%d/32", "via": ["100.64.%d.%d"]}`+"\n", i/256, i%256, i/256, i%256)
	}
	gw2.MustCtl("route", "import", "--format", "jsonl", fileOf(t, list.String()))
	p.AwaitAlert(gw2, "RoamTableNearlyFull", true)
	p.AwaitAlert(gw2, "RoamSinkBehind", true)
	gw2.MustCtl("route", "flush")
	p.AwaitAlert(gw2, "RoamTableNearlyFull", false)
	p.AwaitAlert(gw2, "RoamSinkBehind", false)
}
