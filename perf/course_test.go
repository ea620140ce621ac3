package main

import (
	"errors"
	"os"
	"testing"
	"time"

	"roam/lab"
	"roam/maps/bench"
)

// Both ends of the wire: what is sent arrives, is counted once, and was under way for some time; frames of all sizes, and what a full
// queue refuses is missed. How fast anything is, is nobody's promise.
func TestForwardersForward(t *testing.T) {
	for _, f := range forwarders[:4] {
		l := lab.New(t)
		stamp := uint32(stampVXLAN)
		if f.plain {
			stamp = stampPlain
		}
		c, err := newCourse(l, stamp)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.start(c, 64); err != nil {
			t.Fatalf("%s: %v", f.name, err)
		}
		for _, bytes := range []int{60, 0, 1514} {
			o, err := c.offer(load{bytes: bytes, rate: 2e4, length: 50 * time.Millisecond, hosts: 64, timed: true})
			if err != nil {
				t.Fatal(err)
			}
			if o.sent < 900 || o.received == 0 || o.received > o.sent {
				t.Errorf("%s, %d bytes: of %d frames %d arrived", f.name, bytes, o.sent, o.received)
			}
			if p := o.quantile(0.5); p < 100 || p > 1e9 {
				t.Errorf("%s, %d bytes: half were under way for %v ns", f.name, bytes, p)
			}
		}
		if err := c.close(); err != nil {
			t.Error(err)
		}
		l.Close()
	}
}

// A peer that is not there says so, and the run goes on.
func TestMissingPeer(t *testing.T) {
	c, err := forwarder{name: "nobody", program: "no-such-program"}.enter(t, quickPlan)
	if err != nil || len(c.rows) != 1 || c.rows[0].Why == "" {
		t.Fatalf("%v, %v", c, err)
	}
	if err := errors.Join(c.turn(quickPlan), c.leave()); err != nil {
		t.Error(err)
	}
}

func TestQuantile(t *testing.T) {
	o := outcome{took: make([]float64, 512)}
	o.took[7*8], o.took[20*8] = 98, 2 // 98 of 128 to 144 ns, 2 of a millisecond
	if p := o.quantile(0.5); p < 128 || p > 144 {
		t.Errorf("median %v", p)
	}
	if p := o.quantile(0.99); p < 1<<20 || p > 1.2*(1<<20) {
		t.Errorf("99th percentile %v", p)
	}
	for i := 1; i < 512; i++ {
		if i < 8 || i > 24 { // the buckets between are for nothing
			if bench.TookNS(i) <= bench.TookNS(i-1) && i != 8 {
				t.Errorf("bucket %d is not above the one before", i)
			}
		}
	}
}

// The control plane is measured, on a small scale.
func TestControl(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("needs root: it makes network namespaces")
	}
	r := &Result{}
	if err := runControl(lab.New(t), plan{routes: 4000, imports: 2, changes: 10}, r); err != nil {
		t.Fatal(err)
	}
	c := r.Control
	if len(c.Forwarded) != 2 || c.Maps == 0 || len(c.Restart) != 2 || len(c.Idle) != 10 || len(c.Churn) != 10 || c.Rate == 0 {
		t.Errorf("%+v", c)
	}
	if len(r.goals()) != 4 {
		t.Errorf("%d goals", len(r.goals()))
	}
}
