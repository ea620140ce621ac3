package main

import (
	"errors"
	"testing"
	"time"

	"roam/lab"
	"roam/maps/bench"
)

// A stall that was not over when the generator was takes what was lost since it began; one that was has been summed up by the generator.
func TestJudge(t *testing.T) {
	table := bench.Timetable{Made: 10_000, First: 1e9, Last: 1e9 + 2e6, Paused: 1e6, Late: 5000}
	for _, test := range []struct {
		name       string
		received   int
		witness    bench.Witness
		lost       int
		want       stalls
		judged     bool
		lostOfThat float64
	}{
		{"nothing", 10_000, bench.Witness{Longest: 100}, 0, stalls{Longest: 100}, true, 0},
		{"too slow", 9000, bench.Witness{}, 1000, stalls{}, true, 0.1},
		{"one is over", 9500, bench.Witness{Stalls: 1, Aside: 2000, AsideLost: 492}, 8, stalls{1, 0, 2000, 492}, true, 0.001},
		{"one is not", 9500, bench.Witness{Stalls: 1, From: 8000, FromLost: 20, Until: 10_500}, 20, stalls{1, 0, 2000, 480}, true, 0.0025},
		{"nothing but", 4000, bench.Witness{Stalls: 9, Aside: 9000, AsideLost: 6000}, 0, stalls{9, 0, 9000, 6000}, false, 0.6},
	} {
		o := outcome{received: test.received}
		o.judge(&table, &test.witness)
		if o.lost() != test.lost || o.stalls != test.want || o.judged() != test.judged || o.loss() != test.lostOfThat {
			t.Errorf("%s: %d lost, %+v, judged %v, loss %v", test.name, o.lost(), o.stalls, o.judged(), o.loss())
		}
		if o.rate != 10_000/1e-3 || o.late != 5*time.Microsecond {
			t.Errorf("%s: rate %v, %v late", test.name, o.rate, o.late)
		}
	}
}

// A forwarder whose CPU is taken away has stalled, and what it lost is set aside; one that cannot keep up has not. The witness needs the
// generator to run meanwhile: on a busy machine it may take another trial.
func TestWitness(t *testing.T) {
	l := lab.New(t)
	c, err := newCourse(l, stampPlain)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close() //nolint:errcheck // the test has failed before, or has nothing to lose
	c.eager = true
	if err := startKernel(c, 1); err != nil {
		t.Fatal(err)
	}
	taken := load{bytes: 60, rate: 2e5, length: 150 * time.Millisecond, hosts: 1, capacity: 2e5}
	await(t, c, taken, "a CPU that was taken", func(o outcome) bool {
		return o.stalls.Longest > 10*time.Millisecond && o.stalls.Lost > 1000 && o.stalls.Sent >= o.stalls.Lost && o.lost() < o.stalls.Lost/10
	}, func() error { return takeCPU(40 * time.Millisecond) })

	all := load{bytes: 60, rate: rateMax, length: 50 * time.Millisecond, hosts: 1}
	o, err := c.offer(all)
	if err != nil {
		t.Fatal(err)
	}
	all.capacity = o.delivered()
	await(t, c, all, "a forwarder that is too slow", func(o outcome) bool { return o.judged() && o.lost() > 1000 }, func() error { return nil })
}

// await offers until an outcome is right.
func await(t *testing.T, c *course, l load, what string, right func(outcome) bool, beside func() error) {
	t.Helper()
	var o outcome
	for range 20 {
		done := make(chan error, 1)
		go func() { done <- beside() }()
		var err error
		o, err = c.offer(l)
		if err := errors.Join(err, <-done); err != nil {
			t.Fatal(err)
		}
		if right(o) {
			return
		}
	}
	t.Errorf("%s: of %d frames %d arrived, %d lost beside %+v", what, o.sent, o.received, o.lost(), o.stalls)
}
