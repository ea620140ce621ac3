package main

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"roam/lab"
)

// The system benchmark is RFC 2544 in small: for each forwarder and size of frame, the rate up to which next to nothing is lost, how
// long packets are under way below it, and what is delivered beyond.
const (
	// lossBound is what "next to nothing" is. A virtual machine that loses its processor for a tenth of a millisecond loses more than
	// the 256 frames that a cable's end holds, whoever forwards; so a rate counts if one of a few trials stays within the bound.
	lossBound = 1e-4
	tries     = 3
	searches  = 8 // halvings of what is left
	rateMax   = 12e6
)

// frames are what is sent, in bytes without the checksum; 0 is IMIX.
var frameKinds = []struct {
	name  string
	bytes int
}{{"64 bytes", 60}, {"IMIX", 0}, {"1518 bytes", 1514}}

// systemRow is what one forwarder does with one kind of frame.
type systemRow struct {
	Forwarder string    `json:"forwarder"`
	Plain     bool      `json:"plain,omitempty"` // it does not encapsulate
	Frame     string    `json:"frame"`
	Hosts     int       `json:"hosts"`         // that packets go to, at random
	Why       string    `json:"why,omitempty"` // it could not be measured
	LossFree  []float64 `json:"loss_free"`     // packets a second, of each round
	Beyond    []beyond  `json:"beyond,omitempty"`
	Latency   []latency `json:"latency,omitempty"`
}

// beyond is what is delivered where more is offered than can be.
type beyond struct {
	Times     float64 `json:"times"` // of the loss-free rate; 0 for as much as the generator can
	Offered   float64 `json:"offered"`
	Delivered float64 `json:"delivered"`
}

// latency is how long packets were under way, in ns, at a part of the loss-free rate.
type latency struct {
	Part                float64 `json:"part"`
	P50, P90, P99, P999 float64
}

func runSystem(l *lab.Lab, p plan, result *Result) error {
	result.System = nil
	for _, f := range forwarders {
		rows, err := f.measure(l.TB, p)
		if err != nil {
			return err
		}
		result.System = append(result.System, rows...)
	}
	result.Parts["system"].Rounds, result.Parts["system"].Repeats = p.searchRounds, int(p.trial/time.Millisecond)
	var err error
	result.Scaling, err = runScaling(l, p)
	return err
}

// measure puts a forwarder to the test, in a lab of its own. One that cannot run says why in its row.
func (f forwarder) measure(t lab.TB, p plan) (rows []*systemRow, err error) {
	cannot := func(why error) ([]*systemRow, error) {
		progress("system: %s cannot be measured: %v", f.name, why)
		first, _, _ := strings.Cut(why.Error(), "\n")
		return []*systemRow{{Forwarder: f.name, Plain: f.plain, Why: first}}, nil
	}
	if f.program != "" {
		if _, err := exec.LookPath(f.program); err != nil {
			return cannot(fmt.Errorf("%s is not installed: make bench does it", f.program))
		}
	}
	l := lab.New(t)
	defer l.Close()
	stamp := uint32(stampVXLAN)
	if f.plain {
		stamp = stampPlain
	}
	c, err := newCourse(l, stamp)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	if err := f.start(c, p.live); err != nil {
		return cannot(err)
	}
	if o, err := c.offer(load{bytes: 60, rate: 1e4, length: 100 * time.Millisecond, hosts: 1, timed: true}); err != nil {
		return nil, err
	} else if o.received == 0 || o.quantile(0.5) == 0 || o.quantile(0.5) > 1e9 {
		return cannot(fmt.Errorf("of %d frames %d came out, half of them after %.0f ns: it does not do what its row says", o.sent, o.received, o.quantile(0.5)))
	}
	for _, frame := range frameKinds {
		for _, hosts := range []int{1, p.live} {
			if hosts > 1 && frame.bytes != 60 {
				continue
			}
			progress("system: %s, %s, %s hosts", f.name, frame.name, size(hosts))
			r := &systemRow{Forwarder: f.name, Plain: f.plain, Frame: frame.name, Hosts: hosts}
			if err := r.measure(c, frame.bytes, p); err != nil {
				return nil, err
			}
			rows = append(rows, r)
		}
	}
	return rows, nil
}

func (r *systemRow) measure(c *course, bytes int, p plan) error {
	offered := load{bytes: bytes, length: p.trial, hosts: r.Hosts}
	for range p.searchRounds {
		rate, err := c.lossFree(offered)
		if err != nil {
			return err
		}
		r.LossFree = append(r.LossFree, rate)
	}
	rate := summarize(r.LossFree).Median
	if rate == 0 {
		r.Why = fmt.Sprintf("at every rate more than one packet in %.0f was lost", 1/lossBound)
		rate = 1e5
	}
	for _, times := range []float64{1, 1.5, 2, 0} {
		l := offered
		if l.rate = rate * times; times == 0 {
			l.rate = rateMax
		}
		o, err := c.offer(l)
		if err != nil {
			return err
		}
		r.Beyond = append(r.Beyond, beyond{times, o.rate, o.delivered()})
	}
	for _, part := range []float64{0.1, 0.5, 0.9} {
		l := offered
		l.rate, l.timed = rate*part, true
		o, err := c.offer(l)
		if err != nil {
			return err
		}
		r.Latency = append(r.Latency, latency{part, o.quantile(0.5), o.quantile(0.9), o.quantile(0.99), o.quantile(0.999)})
	}
	return nil
}

// lossFree searches for the highest rate within the bound, 0 where there is none. What was offered counts, not what was asked for.
func (c *course) lossFree(l load) (best float64, err error) {
	l.rate = rateMax
	o, err := c.offer(l)
	if err != nil {
		return 0, err
	}
	low, high := 0.0, min(o.rate, 1.5*o.delivered())
	for range searches {
		l.rate = (low + high) / 2
		o, err := c.attempt(l)
		if err != nil {
			return 0, err
		}
		if o.loss() > lossBound {
			high = l.rate
			continue
		}
		low, best = l.rate, max(best, o.rate)
	}
	return best, nil
}

// attempt offers a rate until it is within the bound, a few times at most, and returns the trial with the least loss.
func (c *course) attempt(l load) (best outcome, err error) {
	for try := range tries {
		o, err := c.offer(l)
		if err != nil {
			return best, err
		}
		if try == 0 || o.loss() < best.loss() {
			best = o
		}
		if best.loss() <= lossBound {
			break
		}
	}
	return best, nil
}

func (r *Result) writeSystem(b *strings.Builder) {
	if len(r.System) == 0 {
		return
	}
	part := r.Parts["system"]
	fmt.Fprintf(b, "### Loss-free rate, and beyond\n\nOne core forwards and receives, another one generates. Mpps at which at most one packet in %.0f is lost "+
		"(search by halves; trials of %d ms, the best of %d; median of %d searches, lowest and highest), and what is delivered beyond.\n\n", 1/lossBound, part.Repeats, tries, part.Rounds)
	b.WriteString("| forwarder | frames | hosts | loss-free | offered 1.5 × | offered 2 × | all that the generator can |\n|---|---|---|---|---|---|---|\n")
	for _, s := range r.System {
		if s.Why != "" && len(s.Beyond) == 0 {
			fmt.Fprintf(b, "| %s | not measured: %s | | | | | |\n", s.title(), s.Why)
			continue
		}
		fmt.Fprintf(b, "| %s | %s | %s | %s |", s.title(), s.Frame, size(s.Hosts), s.rate())
		for _, o := range s.Beyond[1:] {
			fmt.Fprintf(b, " %.2f of %.2f |", o.Delivered/1e6, o.Offered/1e6)
		}
		b.WriteString("\n")
	}
	b.WriteString("\n### Latency under load\n\nµs from the generator's stamp to the far end of the cable, at parts of the loss-free rate; ")
	fmt.Fprintf(b, "frames leave in batches of %d, and the last of a batch waits for the others: below some µs this says nothing.\n\n", genBatch)
	b.WriteString("| forwarder | frames | hosts | load | p50 | p90 | p99 | p99.9 |\n|---|---|---|---|---|---|---|---|\n")
	for _, s := range r.System {
		for _, l := range s.Latency {
			fmt.Fprintf(b, "| %s | %s | %s | %.0f%% | %.1f | %.1f | %.1f | %.1f |\n", s.title(), s.Frame, size(s.Hosts), 100*l.Part, l.P50/1e3, l.P90/1e3, l.P99/1e3, l.P999/1e3)
		}
	}
	b.WriteString("\n")
	r.writeScaling(b)
}

func (s *systemRow) title() string {
	if s.Plain {
		return s.Forwarder + " (no tunnel)"
	}
	return s.Forwarder
}

func (s *systemRow) rate() string {
	if s.Why != "" {
		return "none: " + s.Why
	}
	f := summarize(s.LossFree)
	return fmt.Sprintf("%.2f (%.2f–%.2f)", f.Median/1e6, f.P10/1e6, f.P90/1e6)
}
