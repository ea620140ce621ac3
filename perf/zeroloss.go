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
	What     string      `json:"what"`
	Hosts    int         `json:"hosts"`     // that packets go to
	Queue    int         `json:"queue"`     // frames that may wait in front of the forwarder; 0 in results of old
	LossFree search      `json:"loss_free"` // not one packet is lost up to there
	Times    []happening `json:"times"`
}

// happening is one time.
type happening struct {
	Seconds  float64       `json:"seconds"` // that it took
	Sending  float64       `json:"sending"` // seconds of them in which the generator had its CPU
	Trials   int           `json:"trials"`
	Sent     int           `json:"sent"`
	Lost     int           `json:"lost"`     // whatever the reason
	Lossy    int           `json:"lossy"`    // trials that lost some
	Overflow overflow      `json:"overflow"` // of them
	Refused  int           `json:"refused"`  // of them, by the data path's own counters: packets that ended otherwise than forwarded
	Deepest  int           `json:"deepest"`  // packets under way, at most
	Longest  time.Duration `json:"longest"`  // ns without an arrival though packets were under way
}

const (
	zeroLossPart  = 0.9
	zeroLossHost  = 1 << 10 // hosts that packets go to
	zeroLossQueue = 1 << 14 // frames, the most that the kernel allows; whether a card's 8,192 had done, the result says
	zeroLossBatch = 256     // frames that leave together: the pages of as many are used again, more have to be made anew on one core and freed on the other
	zeroLossTrial = 10      // times as long as others: for a while a queue hides that the forwarder is too slow
	zeroLossStall = 4 * time.Millisecond
	zeroLossHeld  = 10     // trials in a row that lose nothing
	stormMoves    = 20_000 // changes of one host's locator
)

// farther is the other locator, of a host that moves: also behind the far end of the cable.
var farther = far4.Next()

// runZeroLoss has a daemon forward at 90% of what it was found to forward without loss, and lets happen to it what may not cost a
// packet: first with few hosts, which all the tables' growth starts from, then with full tables and packets to all of them.
func runZeroLoss(l *lab.Lab, p plan, result *Result) (err error) {
	back, err := stepAside()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, back()) }()
	z, err := newZeroLoss(l)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, z.close()) }()
	result.ZeroLoss = nil
	p.trial *= zeroLossTrial
	result.Parts["zeroloss"].Rounds, result.Parts["zeroloss"].TrialMS = 1, int(p.trial/time.Millisecond)
	nothing := happens{"nothing", 3, func() error { time.Sleep(2 * time.Second); return nil }}
	few, err := z.measure(p, zeroLossHost, nothing, happens{"kill -9, start again", 3, z.crash}, happens{"upgrade to another binary", 3, z.upgrade},
		happens{"growth of the tables", 3, z.grow}, happens{fmt.Sprintf("%d moves", stormMoves), 5, z.storm},
		happens{"nothing, afterwards", 3, nothing.do})
	if err != nil {
		return err
	}
	if err := z.fill(p.live); err != nil {
		return err
	}
	full, err := z.measure(p, p.live, nothing, happens{"kill -9, start again", 1, z.crash}, happens{"upgrade to another binary", 1, z.upgrade})
	result.ZeroLoss = append(few, full...)
	return err
}

// newZeroLoss has a daemon forward, on a course of its own.
func newZeroLoss(l *lab.Lab) (*zeroLoss, error) {
	dir, err := os.MkdirTemp("", "roam-bin-")
	if err != nil {
		return nil, fmt.Errorf("make a folder for the programs: %w", err)
	}
	l.Defer(func() { os.RemoveAll(dir) })
	var bins [2]lab.Binaries
	for i, version := range []string{"bench", "newer"} {
		sub := filepath.Join(dir, version)
		if err := os.Mkdir(sub, 0o755); err != nil {
			return nil, err
		}
		if bins[i], err = lab.Build(sub, version); err != nil {
			return nil, err
		}
		if err := besideGenerator(&bins[i].Daemon); err != nil {
			return nil, err
		}
	}
	g := l.Gateway("gw", bins[0])
	c, err := newCourseAt(l, g.Namespace, stampVXLAN)
	if err != nil {
		return nil, err
	}
	c.batch = zeroLossBatch
	c.underlay()
	c.gw.IP("neighbour add " + farther.String() + " lladdr " + net.HardwareAddr(farMAC[:]).String() + " dev wan0 nud permanent")
	g.Config.Site, g.Config.Access, g.Config.Underlay, g.Config.Locators = "dc1", "lan0", []string{"wan0"}, []string{own4.String()}
	g.Config.Subnets, g.Config.Shared, g.Config.Own = []string{"10.0.0.0/8"}, []string{"10.255.255.1"}, []string{"10.255.255.2"}
	g.Config.Hosts, g.Config.RouteFile = 4*zeroLossHost, ""
	g.Up()
	z := &zeroLoss{course: c, g: g, newer: bins[1], client: api.NewClient(g.Config.Socket)}
	c.closers = append(c.closers, func() error { z.client.Close(); return nil })
	if err := errors.Join(c.queue(zeroLossQueue), z.moveAll(far4)); err != nil {
		return nil, errors.Join(err, c.close())
	}
	return z, nil
}

// happens is what may not cost a packet.
type happens struct {
	what  string
	times int
	do    func() error
}

// measure finds the loss-free rate of packets to some hosts, and offers 90% of it during each event.
func (z *zeroLoss) measure(p plan, hosts int, events ...happens) (rows []*zeroLossRow, err error) {
	offered := load{bytes: 60, length: p.trial, hosts: hosts, strict: true}
	found, err := lossFree(interrupted{z}, offered)
	if err == nil {
		err = found.hold(interrupted{z}, offered)
	}
	if err != nil {
		return nil, err
	}
	offered.rate = zeroLossPart * found.Rate
	for _, event := range events {
		progress("zero loss: %s, %s hosts, at %.2f Mpps", event.what, size(hosts), offered.rate/1e6)
		row := &zeroLossRow{What: event.what, Hosts: hosts, Queue: zeroLossQueue, LossFree: found}
		for range event.times {
			before := z.g.Counters()
			h, err := while(z, offered, event.do)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", event.what, err)
			}
			moved := z.g.Counters().Since(before)
			if h.Refused = refused(moved); h.Refused > 0 {
				progress("zero loss: %s: the data path refused packets: %v", event.what, moved)
			}
			if h.Lost > 0 {
				progress("zero loss: %s: %d packets lost, for want of room %+v; %v without an arrival", event.what, h.Lost, h.Overflow, h.Longest)
			}
			row.Times = append(row.Times, h)
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// refused are packets that did not end as forwarded ones.
func refused(moved lab.Counters) (packets int) {
	for reason, n := range moved {
		if !strings.HasPrefix(reason, "fwd_") {
			packets += int(n)
		}
	}
	return packets
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

// hold lowers a rate until it loses nothing for some time: a machine that is shared gets slower for seconds at a time.
func (s *search) hold(c offerer, l load) error {
	for held := 0; held < zeroLossHeld; {
		if s.Trials++; s.Rate < 1e4 || s.Trials > 100 {
			return errors.New("packets are lost at every rate: nothing can be told from that")
		}
		l.rate = s.Rate
		o, err := c.offer(l)
		if err != nil {
			return err
		}
		s.Packets += o.sent
		if held++; o.lost() > 0 {
			held, s.Rate = 0, 0.95*s.Rate
		}
	}
	return nil
}

// interrupted takes the forwarder's core away in the midst of each trial. With a long queue in front packets come from memory, not from a
// cache, and take longer: a rate at which the queue never gets short again would be found where no trial happens to meet a stall.
type interrupted struct{ offerer }

func (i interrupted) offer(l load) (outcome, error) {
	taken := make(chan error, 1)
	time.AfterFunc(l.length/4, func() { taken <- takeCPU(zeroLossStall) })
	o, err := i.offerer.offer(l)
	return o, errors.Join(err, <-taken)
}

// while offers until something is done.
func while(c offerer, l load, do func() error) (h happening, err error) {
	done := make(chan error, 1)
	start := time.Now()
	go func() {
		err := do()
		h.Seconds = time.Since(start).Seconds()
		done <- err
	}()
	for {
		o, err := c.offer(l)
		if err != nil {
			return h, errors.Join(err, <-done)
		}
		h.add(o)
		select {
		case err := <-done:
			return h, err
		default:
		}
	}
}

func (h *happening) add(o outcome) {
	h.sum(happening{
		Sending: float64(o.sent) / o.rate, Trials: 1, Sent: o.sent, Lost: o.lost(), Lossy: min(o.lost(), 1), Overflow: o.overflow, Deepest: o.deepest, Longest: o.stalls.Longest,
	})
}

// moveAll has the few hosts live behind a locator.
func (z *zeroLoss) moveAll(via netip.Addr) error { return z.move(zeroLossHost, via) }

func (z *zeroLoss) move(n int, via netip.Addr) error {
	hosts := make([]netip.Addr, n)
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

// fill makes the tables as large as so many hosts need, and has them all live at the far end.
func (z *zeroLoss) fill(hosts int) error {
	progress("zero loss: the tables are filled with %s hosts", size(hosts))
	if z.g.Config.Hosts < hosts {
		if err := z.growTo(hosts); err != nil {
			return err
		}
	}
	return z.move(hosts, far4)
}

func (z *zeroLoss) grow() error { return z.growTo(4 * z.g.Config.Hosts) }

func (z *zeroLoss) growTo(hosts int) error {
	z.g.Config.Hosts = hosts
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
	i := slices.IndexFunc(r.ZeroLoss, func(z *zeroLossRow) bool { return z.Queue > 0 && len(z.Times) > 0 })
	if i < 0 {
		return
	}
	fmt.Fprintf(b, "At %.0f%% of the rate up to which not one packet is lost, while this happens to the daemon. Daemon and generator share one core, forwarder and receiver the other, with a "+
		"queue of %d frames in front. *Lost* is every packet that was sent and has not arrived; *queue full* those of them that found no room there: the core was away for longer, or slower than "+
		"during the search. *Refused* is what the data path itself has counted otherwise than as forwarded.\n\n"+
		"| what happens | hosts | times, taking | packets, at Mpps of | lost | in trials | queue full | refused | most under way | longest without an arrival |\n"+
		"|---|---|---|---|---|---|---|---|---|---|\n", 100*zeroLossPart, r.ZeroLoss[i].Queue)
	for _, z := range r.ZeroLoss {
		var took []float64
		var all happening
		for _, h := range z.Times {
			took = append(took, h.Seconds)
			all.sum(h)
		}
		fmt.Fprintf(b, "| %s | %s | %d, %.2f s | %d, %.2f of %.2f | **%d** | %d of %d | %d | %d | %d | %.1f ms |\n", z.What, size(z.Hosts), len(took), summarize(took).Median,
			all.Sent, float64(all.Sent)/max(all.Sending, 1e-9)/1e6, z.LossFree.Rate/1e6, all.Lost, all.Lossy, all.Trials, all.Overflow.Queue, all.Refused, all.Deepest, all.Longest.Seconds()*1e3)
	}
	b.WriteString("\n")
}

func (h *happening) sum(more happening) {
	h.Sending += more.Sending
	h.Trials += more.Trials
	h.Sent += more.Sent
	h.Lost += more.Lost
	h.Lossy += more.Lossy
	h.Overflow.add(more.Overflow)
	h.Refused += more.Refused
	h.Deepest = max(h.Deepest, more.Deepest)
	h.Longest = max(h.Longest, more.Longest)
}
