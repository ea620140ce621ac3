package main

import (
	"errors"
	"fmt"
	"net"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"roam/lab"
	"roam/maps/bench"
)

// course is where one forwarder is put to the test. The generator has the first CPU to itself; the forwarder and the sink share the
// last one, because the sink of a receiver that waits for a processor would lose packets that the forwarder has not lost:
//
//	first CPU | last CPU
//	gen:host0 ---- lan0:gw:wan0 ---- far:wan0
type course struct {
	*lab.Lab
	gen, gw, far      *lab.Namespace
	host0, lan0, wan0 int // interface indexes
	wire              *bench.Wire
	closers           []func() error
	batch             int
	eager             bool           // the generator does not give way to other processes
	run               uint64         // number of the last offer
	reach             float64        // packets a second that the generator can make, as far as is known: a trial is as long as it should be
	gateway           *gateway       // of the data path, where it is the forwarder
	crew              []*lab.Process // that forward, where it is one of user space
}

// Offsets of the stamp: Ethernet, IPv4, UDP; in VXLAN over IPv4 behind as much again, and eight bytes.
const (
	stampPlain = ethernetLen + 20 + 8
	stampVXLAN = stampPlain + ethernetLen + 20 + 8 + 8
)

// newCourse lays the cables.
func newCourse(l *lab.Lab, stamp uint32) (*course, error) {
	return newCourseAt(l, l.Namespace("gw"), stamp)
}

// newCourseAt lays them to a forwarder that is there.
func newCourseAt(l *lab.Lab, gw *lab.Namespace, stamp uint32) (*course, error) {
	c := &course{Lab: l, gen: l.Namespace("gen"), gw: gw, far: l.Namespace("far"), batch: genBatch, reach: rateMax / 2}
	for _, n := range []*lab.Namespace{c.gen, c.gw, c.far} {
		for _, scope := range []string{"all", "default"} {
			n.Sysctl("net.ipv6.conf."+scope+".disable_ipv6", "1") // nobody but the generator sends
		}
	}
	l.Cable(lab.End{In: c.gen, Name: "host0"}, lab.End{In: c.gw, Name: "lan0", MAC: net.HardwareAddr(ownMAC[:]).String()}, 1500, 1)
	l.Cable(lab.End{In: c.gw, Name: "wan0"}, lab.End{In: c.far, Name: "wan0", MAC: net.HardwareAddr(farMAC[:]).String()}, 1600, 1)
	for _, i := range []struct {
		in    *lab.Namespace
		name  string
		index *int
	}{{c.gen, "host0", &c.host0}, {c.gw, "lan0", &c.lan0}, {c.gw, "wan0", &c.wan0}} {
		if err := i.in.Do(func() error { return find(i.name, i.index) }); err != nil {
			return nil, err
		}
	}
	var err error
	if c.wire, err = bench.LoadWire(); err != nil {
		return nil, err
	}
	c.closers = append(c.closers, c.wire.Close)
	if err := errors.Join(c.wire.SinkCPU.Set(uint32(lastCPU())), c.wire.Stamp.Set(stamp)); err != nil {
		return nil, errors.Join(fmt.Errorf("tell the ends of the wire of each other: %w", err), c.close())
	}
	if err := c.far.Do(c.attachSink); err != nil {
		return nil, errors.Join(err, c.close())
	}
	return c, nil
}

func find(name string, index *int) error {
	i, err := net.InterfaceByName(name)
	if err != nil {
		return fmt.Errorf("find %s: %w", name, err)
	}
	*index = i.Index
	return nil
}

func (c *course) attachSink() error {
	var index int
	if err := find("wan0", &index); err != nil {
		return err
	}
	l, err := link.AttachXDP(link.XDPOptions{Program: c.wire.Sink, Interface: index, Flags: link.XDPDriverMode})
	if err != nil {
		return fmt.Errorf("attach the sink: %w", err)
	}
	c.closers = append(c.closers, l.Close)
	return nil
}

// attach has a program receive what the generator sends.
func (c *course) attach(p *ebpf.Program) error {
	return c.gw.Do(func() error {
		l, err := link.AttachXDP(link.XDPOptions{Program: p, Interface: c.lan0, Flags: link.XDPDriverMode})
		if err != nil {
			return fmt.Errorf("attach %s: %w", p, err)
		}
		c.closers = append(c.closers, l.Close)
		return nil
	})
}

func (c *course) close() error {
	var err error
	for i := len(c.closers) - 1; i >= 0; i-- {
		err = errors.Join(err, c.closers[i]())
	}
	c.closers = nil
	return err
}

// own gives the forwarder's receiving a thread of its own, on the last CPU. Without, the kernel would do it where the sender is.
func (c *course) own() error {
	c.gw.Run("unshare", "-m", "sh", "-c", "mount -t sysfs none /sys && echo 1 >/sys/class/net/lan0/threaded")
	err := eachNamed("napi/lan0-", func(pid int) error { return errors.Join(pin(pid, lastCPU()), realtime(pid)) })
	if err != nil {
		return fmt.Errorf("threaded NAPI needs Linux 5.12: %w", err)
	}
	return nil
}
