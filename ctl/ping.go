package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"

	"github.com/urfave/cli/v2"

	"roam/loader/api"
)

// pinged is what `roamctl -o json ping` writes.
type pinged struct {
	Locator    netip.Addr `json:"locator"`
	Sent       int        `json:"sent"`
	Answered   int        `json:"answered"`
	MinSeconds float64    `json:"min_seconds"`
	AvgSeconds float64    `json:"avg_seconds"`
	MaxSeconds float64    `json:"max_seconds"`
	Probes     []api.Ping `json:"probes"`
}

func pingCommand() *cli.Command {
	return command("ping", "probe the tunnel to a locator; the far data path answers, not its daemon", "LOCATOR", ping,
		&cli.IntFlag{Name: "size", Usage: "`BYTES` of the IP packet inside; the least there can be where left out"},
		&cli.BoolFlag{Name: "df", Usage: "send it though it is larger than what is known to fit"},
		&cli.IntFlag{Name: "count", Usage: "stop after `N` probes, 0: when interrupted", Value: 4},
		&cli.DurationFlag{Name: "interval", Usage: "`TIME` between probes", Value: time.Second},
		&cli.DurationFlag{Name: "timeout", Usage: "`TIME` to wait for each answer", Value: time.Second})
}

func ping(c *cli.Context) error {
	locator, err := netip.ParseAddr(c.Args().First())
	if err != nil {
		return usage("give the address of another gateway's tunnel end, see roamctl site list", "%q is no address", c.Args().First())
	}
	request := api.PingRequest{Locator: locator.Unmap(), Size: c.Int("size"), DF: c.Bool("df"), Timeout: c.Duration("timeout").Seconds()}
	if c.Int("count") < 0 || c.Duration("interval") <= 0 || request.Timeout <= 0 {
		return usage("see roamctl ping --help", "count, interval and timeout count upwards")
	}
	daemon := client(c)
	sum := pinged{Locator: request.Locator, Probes: []api.Ping{}}
	for n := 1; c.Int("count") == 0 || n <= c.Int("count"); n++ {
		next := time.Now().Add(c.Duration("interval"))
		p, err := daemon.Ping(c.Context, request)
		if errors.Is(err, context.Canceled) {
			break
		}
		if err != nil {
			return err
		}
		sum.add(&p)
		if !asJSON(c) {
			pingLine(c.App.Writer, n, &p)
		}
		if n == c.Int("count") || !sleep(c.Context, time.Until(next)) {
			break
		}
	}
	return sum.end(c)
}

// sleep reports whether it was not interrupted.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

func pingLine(w io.Writer, n int, p *api.Ping) {
	if n == 1 {
		fmt.Fprintf(w, "ping %s through the tunnel: packets of %d bytes\n", p.Locator, p.Size)
	}
	switch {
	case p.Answered:
		fmt.Fprintf(w, "%d bytes from %s: seq=%d time=%.3f ms\n", p.Size, p.Locator, n, 1000*p.Seconds)
	case p.Why == "":
		fmt.Fprintf(w, "no answer from %s: seq=%d\n", p.Locator, n)
	default:
		fmt.Fprintf(w, "no answer from %s: seq=%d: %s\n", p.Locator, n, p.Why)
	}
}

func (s *pinged) add(p *api.Ping) {
	s.Sent++
	s.Probes = append(s.Probes, *p)
	if !p.Answered {
		return
	}
	s.Answered++
	if s.Answered == 1 || p.Seconds < s.MinSeconds {
		s.MinSeconds = p.Seconds
	}
	s.MaxSeconds = max(s.MaxSeconds, p.Seconds)
	s.AvgSeconds += (p.Seconds - s.AvgSeconds) / float64(s.Answered)
}

// end writes the summary; nothing answered is a failure.
func (s *pinged) end(c *cli.Context) error {
	if asJSON(c) {
		if err := show(c, s, nil); err != nil {
			return err
		}
	} else {
		lost := 0.0
		if s.Sent > 0 {
			lost = 100 * float64(s.Sent-s.Answered) / float64(s.Sent)
		}
		fmt.Fprintf(c.App.Writer, "\n%d sent, %d answered, %.0f%% lost", s.Sent, s.Answered, lost)
		if s.Answered > 0 {
			fmt.Fprintf(c.App.Writer, "; round trip min/avg/max %.3f/%.3f/%.3f ms", 1000*s.MinSeconds, 1000*s.AvgSeconds, 1000*s.MaxSeconds)
		}
		fmt.Fprintln(c.App.Writer)
	}
	if s.Answered == 0 && s.Sent > 0 {
		return &api.Error{
			Message: fmt.Sprintf("%s did not answer", s.Locator),
			Hint:    "other gateways than Roam's never do; roamctl site list and roamctl counters at both ends say more",
		}
	}
	return nil
}
