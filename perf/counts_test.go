package main

import (
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestCounter counts what every kernel can: time on a processor, and how often this thread left one.
func TestCounter(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	c, err := openCounter([]event{
		{"time", unix.PERF_TYPE_SOFTWARE, unix.PERF_COUNT_SW_TASK_CLOCK}, {"switches", unix.PERF_TYPE_SOFTWARE, unix.PERF_COUNT_SW_CONTEXT_SWITCHES},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.close(); err != nil {
			t.Error(err)
		}
	}()
	before, err := c.read()
	if err != nil {
		t.Fatal(err)
	}
	const switches = 10
	for n := 0; ; n++ { // a sleep may be over before the thread has left
		after, err := c.read()
		if err != nil {
			t.Fatal(err)
		}
		if after[0] > before[0] && after[1] >= before[1]+switches {
			break
		}
		if n == 100*switches {
			t.Fatalf("%d sleeps took the counters from %v to %v: time must go on, and switches be counted", n, before, after)
		}
		if err := unix.Nanosleep(&unix.Timespec{Nsec: 100_000}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if c, err := openCounter([]event{{"nothing", unix.PERF_TYPE_SOFTWARE, 1 << 30}}); err == nil || !strings.Contains(err.Error(), "nothing") {
		t.Errorf("an event that does not exist: counter %v, error %v; want one that names it", c, err)
	}
}

func TestCountsWritten(t *testing.T) {
	r := &Result{Counts: []counts{{"encap", []float64{190.04, 700, 2, 0}}}}
	var b strings.Builder
	r.writeCounts(&b)
	want := "| row | cycles | instructions | mispredicted branches | cache misses |\n|---|---|---|---|---|\n| encap | 190.0 | 700.0 | 2.0 | 0.0 |\n\n"
	if !strings.HasSuffix(b.String(), want) {
		t.Errorf("the table is\n%swant it to end in\n%s", b.String(), want)
	}
	b.Reset()
	if (&Result{}).writeCounts(&b); b.Len() > 0 {
		t.Errorf("a machine that counts nothing has the table\n%s", b.String())
	}
}
