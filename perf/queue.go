package main

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"roam/maps/bench"
)

// overflow is where frames found no room on their way through a queue.
type overflow struct {
	Queue  int `json:"queue"`
	Cable  int `json:"cable"`  // the end at the forwarder
	Behind int `json:"behind"` // the end of the cable behind it
}

// queue has frames wait in front of the forwarder, as many as in the ring of a card, instead of the 256 at the end of a cable: a thread of
// the kernel on the last CPU takes some from it, puts them into the cable and has all of the way behind it done before it takes more. So
// the forwarder must not have a thread of its own.
func (c *course) queue(frames int) error {
	info, err := c.wire.Queue.Info()
	if err != nil {
		return fmt.Errorf("ask for the queue's number: %w", err)
	}
	id, _ := info.ID()
	entry := bench.Queue{Qsize: uint32(frames)}
	entry.BpfProg.Fd = int32(c.wire.HandOver.FD())
	err = errors.Join(
		c.gen.Do(func() error { return c.wire.Cable.Put(uint32(0), uint32(c.host0)) }),
		c.wire.Queue.Put(uint32(lastCPU()), &entry),
		c.wire.QueueID.Set(uint32(id)), c.wire.Queued.Set(uint32(1)),
	)
	if err != nil {
		return fmt.Errorf("make a queue of %d frames: %w", frames, err)
	}
	for _, p := range []*ebpf.Program{c.wire.Enqueue, c.wire.Xmit} {
		l, err := link.AttachTracing(link.TracingOptions{Program: p})
		if err != nil {
			return fmt.Errorf("watch the queue: %w", err)
		}
		c.closers = append(c.closers, l.Close)
	}
	return eachNamed(fmt.Sprintf("cpumap/%d/map:", lastCPU()), realtime)
}

// overflowed is what found no room since the load was prepared.
func (c *course) overflowed() (overflow, error) {
	var o bench.Overflow
	err := c.wire.Overflow.Get(&o)
	return overflow{int(o.Queue), int(o.Cable), int(o.Behind)}, err
}

func (o *overflow) add(more overflow) {
	o.Queue += more.Queue
	o.Cable += more.Cable
	o.Behind += more.Behind
}
