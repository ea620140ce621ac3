package main

import (
	"testing"
	"time"

	"roam/lab"
)

// A long queue bridges that the forwarder's CPU is taken away; a short one does not, and what is lost then found no room there.
func TestQueue(t *testing.T) {
	for _, test := range []struct {
		frames int
		right  func(outcome) bool
	}{
		{zeroLossQueue, func(o outcome) bool { return o.lost() == 0 && o.overflow.Queue == 0 && o.deepest > 1000 }},
		{512, func(o outcome) bool { return o.lost() > 1000 && o.overflow.Queue == o.lost() }},
	} {
		l := lab.New(t)
		c, err := newCourse(l, stampPlain)
		if err != nil {
			t.Fatal(err)
		}
		defer c.close() //nolint:errcheck // the test has failed before, or has nothing to lose
		c.eager = true
		if err := c.gw.Do(func() error { return c.wire.Out.Put(uint32(0), uint32(c.wan0)) }); err != nil {
			t.Fatal(err)
		}
		if err := c.attach(c.wire.Redirect); err != nil {
			t.Fatal(err)
		}
		if err := c.queue(test.frames); err != nil {
			t.Fatal(err)
		}
		taken := load{bytes: 60, rate: 1e5, length: 150 * time.Millisecond, hosts: 1, strict: true}
		await(t, c, taken, "a CPU that was taken", test.right, func() error { return takeCPU(40 * time.Millisecond) })
	}
}
