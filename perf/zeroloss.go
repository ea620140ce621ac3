package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"roam/lab"
	"roam/loader/api"
)

// zeroLossRow is what was lost at a part of the loss-free rate while something happened to the daemon, each time that it did.
type zeroLossRow struct {
	What    string    `json:"what"`
	Seconds []float64 `json:"seconds"` // that it took
	Rates   []float64 `json:"rates"`   // offered meanwhile, packets a second
	Sent    []int     `json:"sent"`
	Lost    []int     `json:"lost"`
}

const (
	zeroLossPart = 0.9
	zeroLossHost = 1 << 10 // hosts that packets go to
	stormMoves   = 20_000  // changes of one host's locator
)

// farther is the other locator, of a host that moves: also behind the far end of the cable.
var farther = far4.Next()

// runZeroLoss has a daemon forward at 90% of what it was found to forward without loss, and lets happen to it what may not cost a
// packet. What is lost when nothing happens is the machine's.
func runZeroLoss(l *lab.Lab, p plan, result *Result) (err error) {
	dir, err := os.MkdirTemp("", "roam-bin-")
	if err != nil {
		return fmt.Errorf("make a folder for the programs: %w", err)
	}
	l.Defer(func() { os.RemoveAll(dir) })
	var bins [2]lab.Binaries
	for i, version := range []string{"bench", "newer"} {
		sub := filepath.Join(dir, version)
		if err := os.Mkdir(sub, 0o755); err != nil {
			return err
		}
		if bins[i], err = lab.Build(sub, version); err != nil {
			return err
		}
		if err := besideGenerator(&bins[i].Daemon); err != nil {
			return err
		}
	}
	g := l.Gateway("gw", bins[0])
	c, err := newCourseAt(l, g.Namespace, stampVXLAN)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	c.underlay()
	c.gw.IP("neighbour add " + farther.String() + " lladdr " + net.HardwareAddr(farMAC[:]).String() + " dev wan0 nud permanent")
	g.Config.Site, g.Config.Access, g.Config.Underlay, g.Config.Locators = "dc1", "lan0", []string{"wan0"}, []string{own4.String()}
	g.Config.Subnets, g.Config.Shared, g.Config.Own = []string{"10.0.0.0/8"}, []string{"10.255.255.1"}, []string{"10.255.255.2"}
	g.Config.Hosts, g.Config.RouteFile = 4*zeroLossHost, ""
	g.Up()
	if err := c.own(); err != nil {
		return err
	}
	z := &zeroLoss{course: c, g: g, newer: bins[1], client: api.NewClient(g.Config.Socket)}
	defer z.client.Close()
	if err := z.moveAll(far4); err != nil {
		return err
	}
	offered := load{bytes: 60, length: 5 * p.trial, hosts: zeroLossHost}
	rate, err := c.lossFree(offered)
	if err != nil {
		return err
	}
	if rate == 0 {
		return fmt.Errorf("at every rate more than one packet in %.0f is lost: nothing can be told from that; try a quieter machine", 1/lossBound)
	}
	offered.rate = zeroLossPart * rate
	result.ZeroLoss = nil
	for _, step := range []struct {
		what string
		do   func() error
	}{
		{"nothing", func() error { time.Sleep(2 * time.Second); return nil }},
		{"kill -9, start again", z.crash},
		{"upgrade to another binary", z.upgrade},
		{"growth of the tables", z.grow},
		{fmt.Sprintf("%d moves", stormMoves), z.storm},
	} {
		progress("zero loss: %s, at %.2f Mpps", step.what, offered.rate/1e6)
		row := &zeroLossRow{What: step.what}
		for range tries {
			if err := z.while(row, offered, step.do); err != nil {
				return fmt.Errorf("%s: %w", step.what, err)
			}
		}
		result.ZeroLoss = append(result.ZeroLoss, row)
	}
	return nil
}

// besideGenerator keeps a daemon on the first CPU: who forwards at nine tenths of what a core can has none of it left for a daemon, and a
// gateway that does so has a core for it. The generator makes room, and offers less meanwhile.
func besideGenerator(daemon *string) error {
	script := *daemon + "-pinned"
	text := fmt.Sprintf("#!/bin/sh\nexec taskset -c 0 %s \"$@\"\n", *daemon)
	if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
		return fmt.Errorf("write the daemon's wrapper: %w", err)
	}
	*daemon = script
	return nil
}

type zeroLoss struct {
	*course
	g      *lab.Gateway
	newer  lab.Binaries
	client *api.Client
}

// while offers until something is done.
func (z *zeroLoss) while(row *zeroLossRow, l load, do func() error) error {
	done := make(chan error, 1)
	start := time.Now()
	var took time.Duration
	go func() {
		err := do()
		took = time.Since(start)
		done <- err
	}()
	sent, lost := 0, 0
	var rates []float64
	for {
		o, err := z.offer(l)
		if err != nil {
			return err
		}
		sent, lost, rates = sent+o.sent, lost+o.sent-o.received, append(rates, o.rate)
		select {
		case err := <-done:
			row.Seconds, row.Rates = append(row.Seconds, took.Seconds()), append(row.Rates, summarize(rates).Median)
			row.Sent, row.Lost = append(row.Sent, sent), append(row.Lost, lost)
			return err
		default:
		}
	}
}

// moveAll has all hosts live behind a locator.
func (z *zeroLoss) moveAll(via netip.Addr) error {
	hosts := make([]netip.Addr, zeroLossHost)
	for i := range hosts {
		hosts[i] = host4(destinations4, i)
	}
	text := list(hosts, via)
	_, err := z.client.Import(context.Background(), strings.NewReader(text), int64(len(text)), api.CSV, nil)
	return err
}

func (z *zeroLoss) crash() error {
	z.g.Daemon.Kill()
	z.g.Start()
	z.g.AwaitReady()
	return nil
}

func (z *zeroLoss) upgrade() error {
	if err := z.g.Daemon.Stop(syscall.SIGTERM); err != nil {
		return err
	}
	z.g.Bins, z.newer = z.newer, z.g.Bins
	z.g.Start()
	z.g.AwaitReady()
	return nil
}

func (z *zeroLoss) grow() error {
	z.g.Config.Hosts *= 4
	z.g.WriteConfig()
	if _, err := z.client.Reload(context.Background()); err != nil {
		return err
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		s, err := z.client.Status(context.Background())
		if err != nil {
			return err
		}
		grown := true
		for _, t := range s.Tables {
			if strings.HasPrefix(t.Name, "hosts") && t.Capacity < uint64(z.g.Config.Hosts) {
				grown = false
			}
		}
		if grown {
			return nil
		}
		if time.Now().After(end) {
			return errors.New("the tables have not grown within a minute")
		}
	}
}

// storm moves all hosts to and fro.
func (z *zeroLoss) storm() error {
	for i := range stormMoves / zeroLossHost {
		if err := z.moveAll([]netip.Addr{farther, far4}[i%2]); err != nil {
			return err
		}
	}
	return nil
}

func (r *Result) writeZeroLoss(b *strings.Builder) {
	if len(r.ZeroLoss) == 0 {
		return
	}
	fmt.Fprintf(b, "At %.0f%% of the loss-free rate, %d hosts, while this happens to the daemon; what is lost when nothing happens is the machine's. "+
		"Daemon and generator share one core, forwarder and receiver the other. "+
		"Each happens %d times, because a machine that is disturbed loses packets whatever happens: the least loss says what the event costs.\n\n"+
		"| what happens | takes | Mpps | least lost | of | each time |\n|---|---|---|---|---|---|\n", 100*zeroLossPart, zeroLossHost, tries)
	for _, z := range r.ZeroLoss {
		best := slices.Index(z.Lost, slices.Min(z.Lost))
		fmt.Fprintf(b, "| %s | %.2f s | %.2f | %d | %d | %s |\n", z.What, z.Seconds[best], z.Rates[best]/1e6, z.Lost[best], z.Sent[best],
			strings.Trim(fmt.Sprint(z.Lost), "[]"))
	}
	b.WriteString("\n")
}
