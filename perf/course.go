package main

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

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
	stampAt           uint32
	gateway           *gateway // of the data path, where it is the forwarder
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
	c := &course{Lab: l, gen: l.Namespace("gen"), gw: gw, far: l.Namespace("far"), batch: genBatch, stampAt: stamp}
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
	return pinNamed("napi/lan0-", lastCPU())
}

// pinNamed keeps kernel threads on a CPU.
func pinNamed(prefix string, cpu int) error {
	found := false
	names, _ := filepath.Glob("/proc/[0-9]*/comm")
	for _, file := range names {
		name, _ := os.ReadFile(file)
		if !strings.HasPrefix(string(name), prefix) {
			continue
		}
		pid, _ := strconv.Atoi(strings.Split(file, "/")[2])
		if err := errors.Join(pin(pid, cpu), unix.Setpriority(unix.PRIO_PROCESS, pid, first)); err != nil {
			return err
		}
		found = true
	}
	if !found {
		return fmt.Errorf("the kernel has no thread %s…: threaded NAPI needs Linux 5.12", prefix)
	}
	return nil
}

// pin keeps a thread, 0 for the calling one, on a CPU.
func pin(pid, cpu int) error {
	var set unix.CPUSet
	set.Set(cpu)
	if err := unix.SchedSetaffinity(pid, &set); err != nil {
		return fmt.Errorf("keep thread %d on CPU %d: %w", pid, cpu, err)
	}
	return nil
}

// release lets a thread run anywhere again.
func release(pid int) error {
	var set unix.CPUSet
	for cpu := range runtime.NumCPU() {
		set.Set(cpu)
	}
	if err := unix.SchedSetaffinity(pid, &set); err != nil {
		return fmt.Errorf("let thread %d run anywhere: %w", pid, err)
	}
	return nil
}

// load is what the generator offers.
type load struct {
	bytes  int     // of a frame, without its checksum; 0 for IMIX
	rate   float64 // packets a second
	length time.Duration
	hosts  int
	timed  bool // packets are timed at the sink, which costs it some
}

// outcome is what became of it.
type outcome struct {
	sent, received int
	rate           float64   // that was offered: a generator that cannot keep up offers less
	took           []float64 // ns that packets were under way, by bucket: numbers of packets
}

func (o outcome) loss() float64 { return 1 - float64(o.received)/float64(o.sent) }

// delivered is the rate at the far end.
func (o outcome) delivered() float64 { return o.rate * float64(o.received) / float64(o.sent) }

const (
	imixMax  = 1514
	first    = -20 // nice: whoever else wants the CPU has to wait, as behind an interrupt
	genBatch = 32  // frames that leave together: an interface with interrupt moderation hands over some at a time, too
)

// offer has the generator send, and waits until nothing more arrives.
func (c *course) offer(l load) (o outcome, err error) {
	table := bench.Timetable{Random: 1, Batch: uint32(c.batch - 1), Hosts: uint32(max(l.hosts, 1) - 1)}
	table.Gap = uint64(1e9 / l.rate * float64(c.batch) * 1024)
	data := make([]byte, cmp.Or(l.bytes, imixMax)) // the generator writes all of it
	if l.bytes == 0 {
		table.Mix = 1
	}
	stamp := uint32(0)
	if l.timed {
		stamp = c.stampAt
	}
	if err := errors.Join(c.wire.Timetable.Set(&table), c.wire.Stamp.Set(stamp)); err != nil {
		return o, fmt.Errorf("set the timetable: %w", err)
	}
	before, err := c.sunk()
	if err != nil {
		return o, err
	}
	tookBefore, err := c.buckets()
	if err != nil {
		return o, err
	}
	o.sent = max(int(l.rate*l.length.Seconds())/c.batch, 1) * c.batch
	err = c.gen.Do(func() error {
		if err := pin(0, 0); err != nil {
			return err
		}
		_, err := c.wire.Generate.Run(&ebpf.RunOptions{
			Data: data, Repeat: uint32(o.sent), Flags: liveFrames, BatchSize: uint32(c.batch),
			Context: xdpContext{DataEnd: uint32(len(data)), Ingress: uint32(c.host0)},
		})
		return errors.Join(err, release(0))
	})
	if err != nil {
		return o, fmt.Errorf("generate: %w", err)
	}
	if err := c.wire.Timetable.Get(&table); err != nil {
		return o, err
	}
	o.sent = int(table.Made)
	o.rate = float64(o.sent) / (float64(table.Last-table.First) / 1e9)
	if o.received, err = c.settle(before, o.sent); err != nil {
		return o, err
	}
	took, err := c.buckets()
	if err != nil {
		return o, err
	}
	for i := range took {
		o.took = append(o.took, took[i]-tookBefore[i])
	}
	return o, nil
}

// settle waits for what is still under way: until all have arrived, or nothing has for a while.
func (c *course) settle(before, sent int) (received int, err error) {
	for quiet := 0; quiet < 10; quiet++ {
		n, err := c.sunk()
		if err != nil {
			return 0, err
		}
		if n-before >= sent {
			return n - before, nil
		}
		if n-before != received {
			received, quiet = n-before, 0
		}
		time.Sleep(2 * time.Millisecond)
	}
	return received, nil
}

func (c *course) sunk() (n int, err error) {
	var perCPU []uint64
	if err := c.wire.Sunk.Lookup(uint32(0), &perCPU); err != nil {
		return 0, fmt.Errorf("read the sink: %w", err)
	}
	for _, v := range perCPU {
		n += int(v)
	}
	return n, nil
}

func (c *course) buckets() ([]float64, error) {
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
