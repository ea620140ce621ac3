package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"roam/lab"
	"roam/loader/api"
)

// control is what the control plane is found to do: routes come through the daemon's socket, and what counts is when packets follow, on
// the wire, as in bgp.go.
type control struct {
	Hosts     int       `json:"hosts"`             // half of them IPv6
	Imported  []float64 `json:"imported_seconds"`  // until the daemon has taken all
	Forwarded []float64 `json:"forwarded_seconds"` // until packets follow a sample of them
	Maps      int       `json:"maps_bytes"`        // of BPF
	Anonymous int       `json:"anonymous_bytes"`   // more than before the import
	Adopted   int       `json:"adopted_bytes"`     // all of it, after a restart
	Restart   []float64 `json:"restart_seconds"`   // from the start until ready, after kill -9
	Idle      []float64 `json:"idle_seconds"`      // from a change until packets follow, nothing else going on
	Churn     []float64 `json:"churn_seconds"`     // the same while others change
	Rate      float64   `json:"churn_rate"`        // changes a second that were reached meanwhile
}

const (
	churnRate  = 10_000
	singleRest = 2 * time.Millisecond // at most, between two single changes
	churnBatch = 100                  // changes in one request: as many requests a second as a busy source of routes makes
)

func runControl(l *lab.Lab, p plan, result *Result) error {
	dir, err := os.MkdirTemp("", "roam-bin-")
	if err != nil {
		return fmt.Errorf("make a folder for the programs: %w", err)
	}
	l.Defer(func() { os.RemoveAll(dir) })
	bins, err := lab.Build(dir, "bench")
	if err != nil {
		return err
	}
	s := lab.NewSites(l, bins, lab.Options{NoRoutes: true, KernelFar: true, Capacity: p.routes/2 + 4096})
	gen := s.Stand("gen", 9)
	gen.Addresses("wan0", hopB.String()+"/24")
	w, err := openWire(gen)
	if err != nil {
		return err
	}
	defer w.close()
	b := &controlBench{s: s, g: s.GW[lab.DC1], w: w, control: &control{Hosts: p.routes}}
	b.g.Config.Peers = nil
	b.g.Up()
	b.client = api.NewClient(b.g.Config.Socket)
	defer b.client.Close()
	if err := w.ask(s.H("h11")); err != nil {
		return err
	}
	for _, step := range []func(plan) error{b.imports, b.restart, b.idle, b.churn} {
		if err := step(p); err != nil {
			return err
		}
	}
	result.Control = b.control
	return nil
}

// controlBench is a gateway under test with somebody who watches the wire.
type controlBench struct {
	*control
	s      *lab.Sites
	g      *lab.Gateway
	w      *wire
	client *api.Client
	random *rand.Rand
}

// routed is host i of the import: even ones are IPv4.
func routed(i int) netip.Addr {
	if i%2 == 0 {
		return host4(20, i/2)
	}
	return host6(sources6, i/2)
}

// list is an import of hosts by way of a locator.
func list(hosts []netip.Addr, via netip.Addr) string {
	var b strings.Builder
	for _, h := range hosts {
		fmt.Fprintf(&b, "%s,default,%s,vxlan,1,100\n", lab.HostRoute(h), via)
	}
	return b.String()
}

// drawn4 are n IPv4 hosts of the import: those that the wire understands.
func (b *controlBench) drawn4(n int) []netip.Addr {
	if b.random == nil {
		b.random = rand.New(rand.NewPCG(1, 1))
	}
	hosts := make([]netip.Addr, n)
	for i, k := range b.random.Perm(b.Hosts / 2)[:n] {
		hosts[i] = routed(2 * k)
	}
	return hosts
}

// imports has the daemon learn everything, and again after it has forgotten everything.
func (b *controlBench) imports(p plan) error {
	all := make([]netip.Addr, b.Hosts)
	for i := range all {
		all[i] = routed(i)
	}
	text := list(all, hopA)
	before, _ := b.g.Memory()
	for try := range p.imports {
		progress("control: import %d of %d, %d hosts", try+1, p.imports, b.Hosts)
		var imported time.Duration
		sample := append(b.drawn4(min(1000, b.Hosts/4)), routed(b.Hosts/2*2-2))
		forwarded, err := b.w.timed(sample, hopA, func() error {
			start := time.Now()
			err := b.load(text)
			imported = time.Since(start)
			return err
		})
		if err != nil {
			return err
		}
		b.Imported, b.Forwarded = append(b.Imported, imported.Seconds()), append(b.Forwarded, max(forwarded, imported.Seconds()))
		if try+1 < p.imports {
			if _, err := b.client.Flush(context.Background()); err != nil {
				return err
			}
			if err := b.w.ask(b.s.H("h11")); err != nil { // what was seen no longer counts
				return err
			}
		}
	}
	if err := rest(b.g.Daemon.PID()); err != nil {
		return err
	}
	b.Anonymous, b.Maps = b.g.Memory()
	b.Anonymous -= before
	return nil
}

func (b *controlBench) load(text string) error {
	_, err := b.client.Import(context.Background(), strings.NewReader(text), int64(len(text)), api.CSV, nil)
	return err
}

// restart kills the daemon and starts it over what it has left.
func (b *controlBench) restart(p plan) error {
	for range p.imports {
		b.g.Daemon.Kill()
		start := time.Now()
		b.g.Start()
		b.g.AwaitReady()
		b.Restart = append(b.Restart, time.Since(start).Seconds())
	}
	if err := rest(b.g.Daemon.PID()); err != nil {
		return err
	}
	b.Adopted, _ = b.g.Memory()
	return nil
}

// idle changes one host at a time.
func (b *controlBench) idle(p plan) (err error) {
	b.Idle, err = b.singles(p.changes)
	return err
}

func (b *controlBench) singles(n int) (took []float64, err error) {
	progress("control: %d changes, one at a time", n)
	for i, host := range b.drawn4(n) {
		time.Sleep(time.Duration(b.random.Int64N(int64(singleRest)))) // not in step with what others do
		update := api.NewRoute{Prefix: lab.HostRoute(host), Via: []api.Locator{{Address: hopB, Encap: "vxlan", Priority: 1, Weight: 100}}}
		seconds, err := b.w.timed([]netip.Addr{host}, hopB, func() error { return b.client.Add(context.Background(), update) })
		if err != nil {
			return nil, fmt.Errorf("change %d: %w", i+1, err)
		}
		took = append(took, seconds)
	}
	slices.Sort(took)
	return took, nil
}

// churn changes single ones again while others change all the time.
func (b *controlBench) churn(p plan) (err error) {
	if err := b.load(list(b.drawn4(b.Hosts/4), hopA)); err != nil { // those of the last step may be among them, and count as new
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	type end struct {
		rate float64
		err  error
	}
	ended := make(chan end, 1)
	go func() {
		rate, err := b.disturb(ctx)
		ended <- end{rate, err}
	}()
	b.Churn, err = b.singles(p.changes)
	stop()
	e := <-ended
	b.Rate = e.rate
	return errors.Join(err, e.err)
}

// disturb moves IPv6 hosts, which nobody watches, to and fro.
func (b *controlBench) disturb(ctx context.Context) (rate float64, err error) {
	batches := min(b.Hosts/2/churnBatch, 100)
	start, changes := time.Now(), 0
	for n := 0; ctx.Err() == nil; n++ {
		hosts := make([]netip.Addr, 0, churnBatch)
		for i := range churnBatch {
			hosts = append(hosts, routed(2*(n%batches*churnBatch+i)+1))
		}
		via := hopB
		if n/batches%2 == 1 {
			via = hopA
		}
		if err := b.load(list(hosts, via)); err != nil {
			return 0, err
		}
		changes += churnBatch
		time.Sleep(time.Until(start.Add(time.Duration(changes) * time.Second / churnRate)))
	}
	return float64(changes) / time.Since(start).Seconds(), nil
}

// goals of the control plane.
func (c *control) goals() []goal {
	if c == nil {
		return nil
	}
	perHost := func(bytes int) []float64 { return []float64{float64(bytes) / float64(c.Hosts)} }
	return []goal{
		{fmt.Sprintf("%d routes imported and forwarding", c.Hosts), 2, false, " s", c.Forwarded, slices.Min(c.Forwarded)},
		{"map memory per host", 100, false, " bytes", perHost(c.Maps), perHost(c.Maps)[0]},
		{"RssAnon per host, of the import", 300, false, " bytes", perHost(c.Anonymous), perHost(c.Anonymous)[0]},
		{fmt.Sprintf("change to packet, 99th percentile, %d changes a second beside", churnRate), 1, false, " ms", []float64{1000 * percentile(c.Churn, 0.99)}, 1000 * percentile(c.Churn, 0.99)},
	}
}

func (r *Result) writeControl(b *strings.Builder) {
	c := r.Control
	if c == nil {
		return
	}
	fmt.Fprintf(b, "%d hosts, half of them IPv6, through the daemon's socket; generator, captures and daemon share the CPUs. Times are taken on the wire: packets "+
		"have come out of tunnels to the right locator.\n\n| | |\n|---|---|\n", c.Hosts)
	seconds := func(what string, s []float64) {
		f := summarize(s)
		fmt.Fprintf(b, "| %s | %.2f s (%.2f–%.2f) |\n", what, f.Median, f.P10, f.P90)
	}
	seconds("import: the daemon has taken all", c.Imported)
	seconds("import: packets follow a sample and the last", c.Forwarded)
	fmt.Fprintf(b, "| import rate | %.0f routes a second |\n", float64(c.Hosts)/summarize(c.Imported).Median)
	fmt.Fprintf(b, "| map memory | %.0f bytes a host |\n| RssAnon, of the import | %.0f bytes a host |\n| RssAnon, all of it after a restart | %.0f bytes a host |\n",
		float64(c.Maps)/float64(c.Hosts), float64(c.Anonymous)/float64(c.Hosts), float64(c.Adopted)/float64(c.Hosts))
	seconds("kill -9, start: ready", c.Restart)
	for _, l := range []struct {
		what string
		took []float64
	}{{"idle", c.Idle}, {fmt.Sprintf("beside %.0f changes a second", c.Rate), c.Churn}} {
		fmt.Fprintf(b, "| change to packet, %s: p50, p90, p99, p99.9 of %d | %.2f, %.2f, %.2f, %.2f ms |\n", l.what, len(l.took),
			1000*percentile(l.took, 0.5), 1000*percentile(l.took, 0.9), 1000*percentile(l.took, 0.99), 1000*percentile(l.took, 0.999))
	}
	b.WriteString("\n")
}
