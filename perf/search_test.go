package main

import (
	"math/rand/v2"
	"testing"
	"time"
)

// pretended is a forwarder that loses what it cannot do, on a machine that takes its CPU away now and then, or slows it down.
type pretended struct {
	capacity float64
	random   *rand.Rand
	stalls   float64 // probability of a trial with some, of up to all of it
	slow     float64 // probability of a trial at nine tenths of the capacity, with nothing to see of it
}

func (p *pretended) offer(l load) (o outcome, err error) {
	o.rate = min(l.rate, 6e6)
	o.sent = int(o.rate * l.length.Seconds())
	capacity := p.capacity
	if p.random.Float64() < p.slow {
		capacity *= 0.9
	}
	if l.capacity > 0 && p.random.Float64() < p.stalls {
		o.stalls = stalls{Times: 3, Longest: time.Millisecond, Sent: int(p.random.Float64() * float64(o.sent))}
		o.stalls.Lost = o.stalls.Sent / 2
	}
	clean := float64(o.sent-o.stalls.Sent) * min(1, capacity/o.rate)
	o.received = int(clean) + o.stalls.Sent - o.stalls.Lost
	if clean == float64(o.sent-o.stalls.Sent) {
		o.received = o.sent - o.stalls.Lost
	}
	return o, nil
}

// The rate that is found is the forwarder's, on a quiet machine as on a busy one.
func TestSearchInNoise(t *testing.T) {
	const capacity = 3e6
	for name, p := range map[string]pretended{
		"quiet":       {},
		"stalls":      {stalls: 0.5},
		"slow, too":   {stalls: 0.3, slow: 0.1},
		"hardly calm": {stalls: 0.9},
	} {
		p.capacity = capacity
		var found []float64
		again := 0
		for seed := range uint64(31) {
			p.random = rand.New(rand.NewPCG(seed, 1))
			s, err := lossFree(&p, load{length: 100 * time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			found = append(found, s.Rate)
			again += s.Again
		}
		if f := summarize(found); f.Median < 0.98*capacity || f.Median > capacity*1.001 {
			t.Errorf("%s: found %.2e (%.2e-%.2e) where %.2e is right", name, f.Median, f.P10, f.P90, capacity)
		}
		if (again > 0) != (p.stalls > 0) {
			t.Errorf("%s: %d trials repeated", name, again)
		}
	}
}

// A machine on which no trial can be judged is no proof of a rate.
func TestSearchWithoutCalm(t *testing.T) {
	s, err := lossFree(offering(func(l load) outcome {
		o := outcome{sent: 1000, received: 500, rate: l.rate}
		if l.capacity > 0 {
			o.stalls = stalls{Times: 1, Sent: 990, Lost: 500}
		}
		return o
	}), load{length: time.Millisecond})
	if err != nil || s.Rate != 0 || s.Again != searches*tries || s.Trials != s.Again {
		t.Errorf("%+v, %v", s, err)
	}
}

// A loss that is seen once may be that of a CPU that was slowed down.
func TestLossIsSeenTwice(t *testing.T) {
	for losses, want := range []float64{0: 0, 1: 0, 2: 0.01} {
		var s search
		turn := 0
		o, err := s.attempt(offering(func(load) outcome {
			turn++
			if turn <= losses {
				return outcome{sent: 1000, received: 990}
			}
			return outcome{sent: 1000, received: 1000}
		}), load{})
		if err != nil || o.loss() != want || s.Trials != min(losses+1, believed) {
			t.Errorf("%d losses: %v after %d trials, %v", losses, o.loss(), s.Trials, err)
		}
	}
}

type offering func(load) outcome

func (f offering) offer(l load) (outcome, error) { return f(l), nil }
