package main

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"roam/maps/bench"
)

// load is what the generator offers.
type load struct {
	bytes    int     // of a frame, without its checksum; 0 for IMIX
	rate     float64 // packets a second
	length   time.Duration
	hosts    int
	timed    bool    // packets are timed at the sink, which costs it some
	capacity float64 // packets a second that the forwarder delivers at most; 0 where nobody knows
	strict   bool    // not one packet may be lost, in stalls neither: there is a queue to wait in
}

const (
	imixMax  = 1514
	first    = -20 // nice: whoever else wants the CPU has to wait, as behind an interrupt
	genBatch = 32  // frames that leave together: an interface with interrupt moderation hands over some at a time, too

	// silent is how many packets could have been delivered while none was, for that to be a stall. The forwarder hands over 64 at a time
	// (NAPI's budget), so as many never arrive for a moment; twice as many come from other doings of the kernel; a queue holds 256.
	silent = 128
)

// bound is the part of packets that may be lost.
func (l load) bound() float64 {
	if l.strict {
		return 0
	}
	return lossBound
}

// patience is how long nothing may arrive. Where nobody knows how fast the forwarder is, or nobody asks, nothing is a stall.
func (l load) patience() time.Duration {
	if l.capacity == 0 || l.strict {
		return time.Hour
	}
	return time.Duration(silent / min(l.rate, l.capacity) * 1e9)
}

// outcome is what became of it.
type outcome struct {
	sent, received int
	rate           float64   // that was offered: a generator that cannot keep up offers less
	took           []float64 // ns that packets were under way, by bucket: numbers of packets
	stalls         stalls
	deepest        int           // packets that were under way, at most
	overflow       overflow      // where some of those lost found no room: of those that went through a queue
	late           time.Duration // the generator was, at most
}

// stalls are the times in which nothing arrived though packets were under way. What was sent in them, and until the queue was short again,
// says nothing about the forwarder's speed.
type stalls struct {
	Times   int           `json:"times"`
	Longest time.Duration `json:"longest"` // ns without an arrival, also where that is no stall
	Sent    int           `json:"sent"`
	Lost    int           `json:"lost"`
}

// loss is the part of packets that were lost: of those that were sent while the forwarder had its CPU, where these are enough to tell.
func (o outcome) loss() float64 {
	if !o.judged() {
		return float64(o.sent-o.received) / float64(o.sent)
	}
	return float64(o.lost()) / float64(o.sent-o.stalls.Sent)
}

// lost are the packets that were lost while the forwarder had its CPU.
func (o outcome) lost() int { return o.sent - o.received - o.stalls.Lost }

// judged reports whether enough is left beside the stalls.
func (o outcome) judged() bool { return 2*o.stalls.Sent <= o.sent }

// delivered is the rate at the far end.
func (o outcome) delivered() float64 { return o.rate * (1 - o.loss()) }

// offer has the generator send, and waits until nothing more arrives.
func (c *course) offer(l load) (o outcome, err error) {
	if err := c.prepare(l); err != nil {
		return o, err
	}
	before, err := c.buckets(l.timed)
	if err != nil {
		return o, err
	}
	planned := max(int(min(l.rate, c.reach)*l.length.Seconds())/c.batch, 1) * c.batch
	if err := c.gen.Do(func() error { return c.generate(l, planned) }); err != nil {
		return o, fmt.Errorf("generate: %w", err)
	}
	var table bench.Timetable
	var witness bench.Witness
	if err := errors.Join(c.wire.Timetable.Get(&table), c.wire.Witness.Get(&witness)); err != nil {
		return o, err
	}
	if o.received, err = c.settle(int(table.Made)); err != nil {
		return o, err
	}
	if o.overflow, err = c.overflowed(); err != nil {
		return o, err
	}
	o.judge(&table, &witness)
	if c.reach = max(c.reach, o.rate); o.rate < 0.9*l.rate {
		c.reach = o.rate
	}
	took, err := c.buckets(l.timed)
	for i := range took {
		o.took = append(o.took, took[i]-before[i])
	}
	return o, err
}

// prepare sets everything to its beginning.
func (c *course) prepare(l load) error {
	table := bench.Timetable{Random: 1, Batch: uint32(c.batch - 1), Hosts: uint32(max(l.hosts, 1) - 1)}
	table.Gap = uint64(1e9 / l.rate * float64(c.batch) * 1024)
	if l.bytes == 0 {
		table.Mix = 1
	}
	timed := uint32(0)
	if l.timed {
		timed = 1
	}
	c.run++
	err := errors.Join(
		c.wire.Run.Set(c.run), c.wire.Timetable.Set(&table), c.wire.Timed.Set(timed), c.wire.Witness.Set(&bench.Witness{Patience: uint64(l.patience())}), c.wire.Overflow.Set(&bench.Overflow{}),
		c.wire.Sunk.Put(uint32(0), make([]bench.Arrivals, ebpf.MustPossibleCPU())),
	)
	if err != nil {
		return fmt.Errorf("set the timetable: %w", err)
	}
	return nil
}

// generate runs the generator on the first CPU.
func (c *course) generate(l load, packets int) error {
	nice := 0
	if c.eager {
		nice = first
	}
	var home unix.CPUSet
	if err := errors.Join(unix.SchedGetaffinity(0, &home), pin(0, 0), unix.Setpriority(unix.PRIO_PROCESS, 0, nice)); err != nil {
		return err
	}
	data := make([]byte, cmp.Or(l.bytes, imixMax)) // the generator writes all of it
	_, err := c.wire.Generate.Run(&ebpf.RunOptions{
		Data: data, Repeat: uint32(packets), Flags: liveFrames, BatchSize: uint32(c.batch),
		Context: xdpContext{DataEnd: uint32(len(data)), Ingress: uint32(c.host0)},
	})
	return errors.Join(err, unix.Setpriority(unix.PRIO_PROCESS, 0, 0), unix.SchedSetaffinity(0, &home))
}

// judge fills in what the generator knows, after what was received. A stall that was not over when the generator was, ends with it.
func (o *outcome) judge(t *bench.Timetable, w *bench.Witness) {
	o.sent = int(t.Made)
	o.rate = float64(o.sent) / (float64(t.Last-t.First-t.Paused) / 1e9)
	o.late, o.deepest = time.Duration(t.Late), int(w.Deepest)
	o.stalls = stalls{Times: int(w.Stalls), Longest: time.Duration(w.Longest), Sent: int(w.Aside), Lost: int(w.AsideLost)}
	if w.Until != 0 {
		o.stalls.Sent += o.sent - int(w.From)
		o.stalls.Lost += o.sent - o.received - int(w.FromLost)
	}
}

// settle waits for what is still under way: until all have arrived, or nothing has for a while.
func (c *course) settle(sent int) (received int, err error) {
	for quiet := 0; quiet < 10; quiet++ {
		n, err := c.sunk()
		if err != nil {
			return 0, err
		}
		if n >= sent {
			return n, nil
		}
		if n != received {
			received, quiet = n, 0
		}
		time.Sleep(2 * time.Millisecond)
	}
	return received, nil
}

// sunk is how many have arrived. Where the witness does not look, none must.
func (c *course) sunk() (n int, err error) {
	var perCPU []bench.Arrivals
	if err := c.wire.Sunk.Lookup(uint32(0), &perCPU); err != nil {
		return 0, fmt.Errorf("read the sink: %w", err)
	}
	for _, a := range perCPU {
		n += int(a.Received)
	}
	if elsewhere := n - int(perCPU[lastCPU()].Received); elsewhere > n/100 {
		return n, fmt.Errorf("%d of %d packets arrived on other CPUs than %d, where the witness of stalls looks", elsewhere, n, lastCPU())
	}
	return n, nil
}

// buckets are how many packets were under way how long.
func (c *course) buckets(timed bool) ([]float64, error) {
	if !timed {
		return nil, nil
	}
	all := make([]float64, c.wire.Took.MaxEntries())
	for i := range all {
		var perCPU []uint64
		if err := c.wire.Took.Lookup(uint32(i), &perCPU); err != nil {
			return nil, fmt.Errorf("read how long packets took: %w", err)
		}
		for _, v := range perCPU {
			all[i] += float64(v)
		}
	}
	return all, nil
}

// quantile is how long packets were under way, in ns; p between 0 and 1.
func (o outcome) quantile(p float64) float64 {
	var all, sum float64
	for _, n := range o.took {
		all += n
	}
	for i, n := range o.took {
		if sum += n; n > 0 && sum >= p*all {
			return bench.TookNS(i)
		}
	}
	return 0
}
