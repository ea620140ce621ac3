package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/charmbracelet/x/term"
	"github.com/urfave/cli/v2"

	"roam/loader/api"
)

func topCommand() *cli.Command {
	return command("top", "rates by reason, locator and port, live", "", func(c *cli.Context) error {
		every, count := c.Duration("interval"), c.Int("count")
		if every < 100*time.Millisecond {
			return usage("use one of at least 100ms, such as --interval 2s", "an interval of %v is too short", every)
		}
		look := func() (sample, error) { return takeSample(c.Context, client(c)) }
		if screen, ok := terminal(c.App.Writer); ok && !asJSON(c) && !c.IsSet("count") {
			return runScreen(c.Context, c.App.Reader, screen, every, look)
		}
		return printRates(c, every, max(count, 1), look)
	},
		&cli.DurationFlag{Name: "interval", Aliases: []string{"i"}, Value: time.Second, Usage: "measure over `TIME`"},
		&cli.IntFlag{Name: "count", Aliases: []string{"n"}, Usage: "print `N` measurements instead of a screen; one where the output is no terminal"})
}

// terminal tells whether a screen can be drawn on what the output goes to.
func terminal(w io.Writer) (*os.File, bool) {
	f, ok := w.(*os.File)
	return f, ok && term.IsTerminal(f.Fd()) && os.Getenv("TERM") != "dumb" && os.Getenv("TERM") != ""
}

// printRates writes measurements one below the other.
func printRates(c *cli.Context, every time.Duration, count int, look func() (sample, error)) error {
	before, err := look()
	for n := 0; err == nil && n < count; n++ {
		select {
		case <-c.Context.Done():
			return nil // that is how it may end
		case <-time.After(every):
		}
		var now sample
		if now, err = look(); err != nil {
			break
		}
		r := ratesOf(before, now)
		if before = now; asJSON(c) {
			err = json.NewEncoder(c.App.Writer).Encode(r)
			continue
		}
		if n > 0 {
			fmt.Fprintln(c.App.Writer)
		}
		_, err = io.WriteString(c.App.Writer, strings.Join(r.lines(), "\n")+"\n")
	}
	return err
}

// sample is what there is to compare at one moment.
type sample struct {
	at       time.Time
	status   api.Status
	counters api.Counters
}

func takeSample(ctx context.Context, from *api.Client) (s sample, err error) {
	if s.status, err = from.Status(ctx); err != nil {
		return s, err
	}
	s.counters, err = from.Counters(ctx)
	s.at = time.Now()
	return s, err
}

// rates is what happened between two samples; packets and bits are per second.
type rates struct {
	Site     string             `json:"site"`
	Version  string             `json:"version"`
	Seconds  float64            `json:"seconds"` // between the two
	Verdicts map[string]float64 `json:"packets_by_verdict"`
	Ports    []portRate         `json:"ports"`
	Reasons  []reasonRate       `json:"reasons"` // those that happened, most frequent first
	Locators []locatorRate      `json:"locators"`
	Warnings []string           `json:"warnings"`
}

type portRate struct {
	Port    string  `json:"port"`
	Mode    string  `json:"mode"`
	Packets float64 `json:"packets"`
	Bits    float64 `json:"bits"`
}

type reasonRate struct {
	Port    string  `json:"port"`
	Verdict string  `json:"verdict"`
	Reason  string  `json:"reason"`
	Packets float64 `json:"packets"`
	Bits    float64 `json:"bits"`
}

type locatorRate struct {
	Locator string  `json:"locator"`
	Packets float64 `json:"packets"`
	Bits    float64 `json:"bits"`
}

// ratesOf compares two samples. A counter that went back was begun anew, and counts from zero.
func ratesOf(before, now sample) rates {
	r := rates{
		Site: now.status.Site, Version: now.status.Version, Seconds: now.at.Sub(before.at).Seconds(),
		Verdicts: map[string]float64{"forwarded": 0, "passed": 0, "dropped": 0},
		Ports:    []portRate{}, Reasons: []reasonRate{}, Locators: []locatorRate{}, Warnings: append([]string{}, now.status.Warnings...),
	}
	per := func(was, is uint64) float64 {
		if is < was {
			was = 0
		}
		return float64(is-was) / max(r.Seconds, 1e-3)
	}
	modes, ports := map[string]string{}, map[string]*portRate{}
	for _, p := range now.status.Ports {
		name := p.Interface
		if p.VLAN != 0 {
			name += fmt.Sprintf(".%d", p.VLAN)
		}
		modes[name], ports[name] = cmp.Or(p.Mode, "none"), &portRate{Port: name}
	}
	type key struct{ port, reason string }
	was := map[key]api.ReasonCount{}
	for _, n := range before.counters.Reasons {
		was[key{n.Port, n.Reason}] = n
	}
	for _, n := range now.counters.Reasons {
		old := was[key{n.Port, n.Reason}]
		one := reasonRate{n.Port, n.Verdict, n.Reason, per(old.Packets, n.Packets), 8 * per(old.Bytes, n.Bytes)}
		if one.Packets == 0 {
			continue
		}
		r.Reasons = append(r.Reasons, one)
		r.Verdicts[one.Verdict] += one.Packets
		if p := ports[n.Port]; p != nil {
			p.Packets, p.Bits = p.Packets+one.Packets, p.Bits+one.Bits
		}
	}
	for name, p := range ports {
		p.Mode = modes[name]
		r.Ports = append(r.Ports, *p)
	}
	locators := map[string]api.LocatorCount{}
	for _, l := range before.counters.Locators {
		locators[l.Locator] = l
	}
	for _, l := range now.counters.Locators {
		old := locators[l.Locator]
		r.Locators = append(r.Locators, locatorRate{l.Locator, per(old.Packets, l.Packets), 8 * per(old.Bytes, l.Bytes)})
	}
	slices.SortFunc(r.Ports, func(a, b portRate) int { return cmp.Compare(a.Port, b.Port) })
	slices.SortFunc(r.Reasons, func(a, b reasonRate) int {
		return cmp.Or(cmp.Compare(b.Packets, a.Packets), cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.Port, b.Port))
	})
	return r
}

// lines are the rates as text, without regard to a screen's size.
func (r rates) lines() []string {
	var b strings.Builder
	fmt.Fprintf(&b, "roamd %s at site %s, over %.1f s\nforwarded %s, passed %s, dropped %s\n\n", r.Version, r.Site, r.Seconds,
		pps(r.Verdicts["forwarded"]), pps(r.Verdicts["passed"]), pps(r.Verdicts["dropped"]))
	w := newTable(&b)
	row(w, "PORT", "MODE", "PACKETS", "BITS")
	for _, p := range r.Ports {
		row(w, p.Port, p.Mode, pps(p.Packets), bps(p.Bits))
	}
	_ = w.Flush() // into memory
	fmt.Fprintln(&b)
	row(w, "LOCATOR", "PACKETS", "BITS")
	for _, l := range r.Locators {
		row(w, l.Locator, pps(l.Packets), bps(l.Bits))
	}
	_ = w.Flush()
	fmt.Fprintln(&b)
	row(w, "REASON", "PORT", "PACKETS", "BITS")
	for _, n := range r.Reasons {
		row(w, n.Reason, n.Port, pps(n.Packets), bps(n.Bits))
	}
	_ = w.Flush()
	if len(r.Reasons) == 0 {
		fmt.Fprintln(&b, "no packet met the data path")
	}
	if len(r.Warnings) > 0 {
		fmt.Fprintf(&b, "\nWARNINGS\n")
		for _, text := range r.Warnings {
			fmt.Fprintln(&b, "  "+text)
		}
	}
	return strings.Split(strings.TrimRight(b.String(), "\n"), "\n")
}

func pps(v float64) string { return scaled(v, "pps") }
func bps(v float64) string { return scaled(v, "bit/s") }

// scaled writes a number with three digits that count.
func scaled(v float64, unit string) string {
	for _, step := range []struct {
		from   float64
		prefix string
	}{{1e9, "G"}, {1e6, "M"}, {1e3, "k"}} {
		if v >= step.from {
			return fmt.Sprintf("%.*f %s%s", max(0, 2-digits(v/step.from)), v/step.from, step.prefix, unit)
		}
	}
	return fmt.Sprintf("%.0f %s", v, unit)
}

func digits(v float64) int {
	switch {
	case v >= 100:
		return 2
	case v >= 10:
		return 1
	}
	return 0
}
