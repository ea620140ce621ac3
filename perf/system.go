package main

import (
	"cmp"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"time"

	"roam/lab"
)

// The system benchmark is RFC 2544 in small: for each forwarder and size of frame, the rate up to which next to nothing is lost, how
// long packets are under way below it, and what is delivered beyond. All forwarders are there from the beginning and take turns, so that
// whatever drifts meanwhile moves all of them; one that would use its CPU between its turns is stopped then.

// frames are what is sent, in bytes without the checksum; 0 is IMIX.
var frameKinds = []struct {
	name  string
	bytes int
}{{"64 bytes", 60}, {"IMIX", 0}, {"1518 bytes", 1514}}

// systemRow is what one forwarder does with one kind of frame.
type systemRow struct {
	Forwarder string        `json:"forwarder"`
	Plain     bool          `json:"plain,omitempty"` // it does not encapsulate
	Frame     string        `json:"frame"`
	Hosts     int           `json:"hosts"`         // that packets go to, at random
	Why       string        `json:"why,omitempty"` // it could not be measured
	Rounds    []systemRound `json:"rounds,omitempty"`

	bytes int
}

// systemRound is what it did in one round.
type systemRound struct {
	LossFree search    `json:"loss_free"`
	Beyond   []beyond  `json:"beyond"`
	Latency  []latency `json:"latency"`
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

var (
	overloads = []float64{1.5, 2, 0}
	underload = []float64{0.1, 0.5, 0.9}
)

// contestant is a forwarder on its course, with its rows.
type contestant struct {
	forwarder
	lab    *lab.Lab
	course *course // nil where it cannot run
	rows   []*systemRow
}

func runSystem(l *lab.Lab, p plan, result *Result) (err error) {
	result.System = nil
	back, err := stepAside()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, back()) }()
	var all []*contestant
	defer func() {
		for _, c := range all {
			err = errors.Join(err, c.leave())
		}
	}()
	for _, f := range forwarders {
		progress("system: %s gets ready", f.name)
		c, err := f.enter(l.TB, p)
		if err != nil {
			return err
		}
		all = append(all, c)
		result.System = append(result.System, c.rows...)
	}
	part, start := result.Parts["system"], time.Now()
	part.TrialMS = int(p.trial / time.Millisecond)
	for round := range p.searchRounds {
		if took := time.Since(start); round > 0 && took+took/time.Duration(round) > p.budget {
			break // a busy machine has trials repeated
		}
		part.Rounds++
		for _, c := range all {
			progress("system, round %d of %d: %s", round+1, p.searchRounds, c.name)
			if err := c.turn(p); err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
		}
	}
	result.Scaling, err = runScaling(l, p)
	return err
}

// enter puts a forwarder on a course, in a lab of its own. One that cannot run says why in its row.
func (f forwarder) enter(t lab.TB, p plan) (*contestant, error) {
	cannot := func(why error) (*contestant, error) {
		progress("system: %s cannot be measured: %v", f.name, why)
		first, _, _ := strings.Cut(why.Error(), "\n")
		return &contestant{forwarder: f, rows: []*systemRow{{Forwarder: f.name, Plain: f.plain, Why: first}}}, nil
	}
	if f.program != "" {
		if _, err := exec.LookPath(f.program); err != nil {
			return cannot(fmt.Errorf("%s is not installed: make bench does it", f.program))
		}
	}
	c := &contestant{forwarder: f, lab: lab.New(t)}
	stamp := uint32(stampVXLAN)
	if f.plain {
		stamp = stampPlain
	}
	var err error
	if c.course, err = newCourse(c.lab, stamp); err != nil {
		return nil, err
	}
	c.course.eager = true
	if err := c.works(p); err != nil {
		return cannot(errors.Join(err, c.leave()))
	}
	for _, frame := range frameKinds {
		for _, hosts := range []int{1, p.live} {
			if hosts == 1 || frame.bytes == 60 {
				c.rows = append(c.rows, &systemRow{Forwarder: f.name, Plain: f.plain, Frame: frame.name, Hosts: hosts, bytes: frame.bytes})
			}
		}
	}
	c.course.rest()
	return c, nil
}

// works starts the forwarder, and sees to it that it forwards.
func (c *contestant) works(p plan) error {
	if err := c.start(c.course, p.live); err != nil {
		return err
	}
	if err := c.course.promote(); err != nil {
		return err
	}
	o, err := c.course.offer(load{bytes: 60, rate: 1e4, length: 100 * time.Millisecond, hosts: 1, timed: true})
	if err != nil {
		return err
	}
	if half := o.quantile(0.5); o.received == 0 || half == 0 || half > 1e9 {
		return fmt.Errorf("of %d frames %d came out, half of them after %.0f ns: it does not do what its row says", o.sent, o.received, half)
	}
	return nil
}

func (c *contestant) leave() error {
	if c.course == nil {
		return nil
	}
	err := c.course.close()
	c.lab.Close()
	c.course = nil
	return err
}

// turn measures all rows once.
func (c *contestant) turn(p plan) error {
	if c.course == nil {
		return nil
	}
	c.course.resume()
	defer c.course.rest()
	for _, r := range c.rows {
		round, err := r.measure(c.course, load{bytes: r.bytes, length: p.trial, hosts: r.Hosts})
		if err != nil {
			return err
		}
		r.Rounds = append(r.Rounds, round)
	}
	return nil
}

func (r *systemRow) measure(c offerer, l load) (round systemRound, err error) {
	if round.LossFree, err = lossFree(c, l); err != nil {
		return round, err
	}
	rate := cmp.Or(round.LossFree.Rate, 1e5)
	l.capacity = round.LossFree.capacity
	for _, times := range overloads {
		l.rate = cmp.Or(rate*times, rateMax)
		o, err := c.offer(l)
		if err != nil {
			return round, err
		}
		round.Beyond = append(round.Beyond, beyond{times, o.rate, o.delivered()})
	}
	l.timed = true
	for _, part := range underload {
		l.rate = rate * part
		o, err := c.offer(l)
		if err != nil {
			return round, err
		}
		round.Latency = append(round.Latency, latency{part, o.quantile(0.5), o.quantile(0.9), o.quantile(0.99), o.quantile(0.999)})
	}
	return round, nil
}

// each is one figure of every round.
func (r *systemRow) each(figure func(systemRound) float64) (all []float64) {
	for _, round := range r.Rounds {
		all = append(all, figure(round))
	}
	return all
}

func (r *systemRow) lossFree() []float64 {
	return r.each(func(s systemRound) float64 { return s.LossFree.Rate })
}

// latency is the median of rounds, at a part of the loss-free rate.
func (r *systemRow) latency(part int) (l latency) {
	median := func(of func(latency) float64) float64 {
		return summarize(r.each(func(s systemRound) float64 { return of(s.Latency[part]) })).Median
	}
	return latency{
		underload[part], median(func(l latency) float64 { return l.P50 }), median(func(l latency) float64 { return l.P90 }),
		median(func(l latency) float64 { return l.P99 }), median(func(l latency) float64 { return l.P999 }),
	}
}

// searched is what all searches of the row took together.
func (r *systemRow) searched() (all search) {
	for _, round := range r.Rounds {
		s := round.LossFree
		all.Trials += s.Trials
		all.Again += s.Again
		all.Packets += s.Packets
		all.Stalls.add(s.Stalls)
	}
	return all
}

func (r *Result) writeSystem(b *strings.Builder) {
	if !slices.ContainsFunc(r.System, func(s *systemRow) bool { return len(s.Rounds) > 0 }) {
		return
	}
	r.writeRates(b)
	b.WriteString("### Latency under load\n\nµs from the generator's stamp to the far end of the cable, at parts of the loss-free rate, medians of the rounds; ")
	fmt.Fprintf(b, "frames leave in batches of %d, and the last of a batch waits for the others: below some µs this says nothing. ", genBatch)
	b.WriteString("Stalls are in it: where they are, p99.9 is theirs.\n\n")
	b.WriteString("| forwarder | frames | hosts | load | p50 | p90 | p99 | p99.9 |\n|---|---|---|---|---|---|---|---|\n")
	for _, s := range r.System {
		for part := range underload {
			if len(s.Rounds) == 0 {
				break
			}
			l := s.latency(part)
			fmt.Fprintf(b, "| %s | %s | %s | %.0f%% | %.1f | %.1f | %.1f | %.1f |\n", s.title(), s.Frame, size(s.Hosts), 100*l.Part, l.P50/1e3, l.P90/1e3, l.P99/1e3, l.P999/1e3)
		}
	}
	b.WriteString("\n")
	r.writeScaling(b)
}

func (r *Result) writeRates(b *strings.Builder) {
	part := r.Parts["system"]
	var all search
	for _, s := range r.System {
		one := s.searched()
		all.Trials, all.Again = all.Trials+one.Trials, all.Again+one.Again
	}
	fmt.Fprintf(b, "### Loss-free rate, and beyond\n\nOne core forwards and receives, another one generates. Mpps at which at most one packet in %.0f is lost while the "+
		"forwarder's core runs (search by halves; trials of %d ms; a loss counts when it is seen twice; median of %d rounds, in which all forwarders take turns, 10th to 90th percentile), and what is "+
		"delivered beyond. *Set aside* is the part of the search's packets that met a stall; of %d trials %d were repeated because stalls left less than half of them.\n\n",
		1/lossBound, part.TrialMS, part.Rounds, all.Trials, all.Again)
	b.WriteString("| forwarder | frames | hosts | loss-free | offered 1.5 × | offered 2 × | all that the generator can | set aside |\n|---|---|---|---|---|---|---|---|\n")
	for _, s := range r.System {
		if len(s.Rounds) == 0 {
			fmt.Fprintf(b, "| %s | not measured: %s | | | | | | |\n", s.title(), s.Why)
			continue
		}
		fmt.Fprintf(b, "| %s | %s | %s | %s |", s.title(), s.Frame, size(s.Hosts), s.rate())
		for i := range overloads {
			fmt.Fprintf(b, " %.2f of %.2f |", summarize(s.each(func(r systemRound) float64 { return r.Beyond[i].Delivered })).Median/1e6,
				summarize(s.each(func(r systemRound) float64 { return r.Beyond[i].Offered })).Median/1e6)
		}
		searched := s.searched()
		fmt.Fprintf(b, " %.1f%% |\n", 100*float64(searched.Stalls.Sent)/float64(searched.Packets))
	}
	b.WriteString("\n")
}

func (r *systemRow) title() string {
	if r.Plain {
		return r.Forwarder + " (no tunnel)"
	}
	return r.Forwarder
}

func (r *systemRow) rate() string {
	f := summarize(r.lossFree())
	if f.Median == 0 {
		return fmt.Sprintf("none: at every rate more than one packet in %.0f was lost", 1/lossBound)
	}
	return fmt.Sprintf("%.2f (%.2f–%.2f)", f.Median/1e6, f.P10/1e6, f.P90/1e6)
}
