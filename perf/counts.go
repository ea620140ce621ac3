package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"roam/maps/bench"
)

// counts are what the processor itself counts of a row's packets, above the wrapper around nothing. Most virtual machines hide these counters.
type counts struct {
	Row    string    `json:"row"`
	Packet []float64 `json:"per_packet"` // as hardware has them
}

// event is something that the kernel counts.
type event struct {
	name   string
	kind   uint32
	config uint64
}

// hardware is what says most about a program; four at a time is what every processor has counters for.
var hardware = []event{
	{"cycles", unix.PERF_TYPE_HARDWARE, unix.PERF_COUNT_HW_CPU_CYCLES},
	{"instructions", unix.PERF_TYPE_HARDWARE, unix.PERF_COUNT_HW_INSTRUCTIONS},
	{"mispredicted branches", unix.PERF_TYPE_HARDWARE, unix.PERF_COUNT_HW_BRANCH_MISSES},
	{"cache misses", unix.PERF_TYPE_HARDWARE, unix.PERF_COUNT_HW_CACHE_MISSES},
}

const countPackets = 1 << 20

// counter counts events of this thread in the kernel. It is read as a whole.
type counter struct{ fds []int }

func openCounter(events []event) (c *counter, err error) {
	c = &counter{}
	leader := -1
	for _, e := range events {
		attr := unix.PerfEventAttr{
			Type: e.kind, Size: unix.PERF_ATTR_SIZE_VER1, Config: e.config,
			Read_format: unix.PERF_FORMAT_GROUP, Bits: unix.PerfBitExcludeUser | unix.PerfBitExcludeHv,
		}
		fd, err := unix.PerfEventOpen(&attr, 0, -1, leader, unix.PERF_FLAG_FD_CLOEXEC)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("count %s: %w", e.name, err), c.close())
		}
		c.fds = append(c.fds, fd)
		leader = c.fds[0]
	}
	return c, nil
}

// read returns how often each event has happened so far.
func (c *counter) read() ([]uint64, error) {
	buf := make([]byte, 8*(1+len(c.fds))) // their number first
	if n, err := unix.Read(c.fds[0], buf); err != nil || n != len(buf) {
		return nil, errors.Join(fmt.Errorf("read %d bytes of counters where %d are expected", n, len(buf)), err)
	}
	values := make([]uint64, len(c.fds))
	for i := range values {
		values[i] = binary.NativeEndian.Uint64(buf[8*(1+i):])
	}
	return values, nil
}

func (c *counter) close() (err error) {
	for _, fd := range c.fds {
		err = errors.Join(err, unix.Close(fd))
	}
	return err
}

// of returns what one packet of a program makes happen.
func (c *counter) of(w *walker, p *ebpf.Program) ([]float64, error) {
	before, err := c.read()
	if err != nil {
		return nil, err
	}
	if _, err := w.time(p, countPackets); err != nil {
		return nil, err
	}
	after, err := c.read()
	if err != nil {
		return nil, err
	}
	each := make([]float64, len(after))
	for i := range after {
		each[i] = float64(after[i]-before[i]) / countPackets
	}
	return each, nil
}

func (r *row) count(c *counter) (counts, error) {
	if err := r.prepare(); err != nil {
		return counts{}, err
	}
	whole, err := c.of(r.walker, r.program)
	if err != nil {
		return counts{}, err
	}
	empty, err := c.of(r.walker, r.walker.Empty)
	if err != nil {
		return counts{}, err
	}
	for i := range whole {
		whole[i] -= empty[i]
	}
	return counts{r.String(), whole}, nil
}

// countHardware counts hot rows and random ones, where the processor lets itself be asked.
func (r *Result) countHardware() error {
	r.Counts = nil
	c, err := openCounter(hardware)
	if err != nil {
		return err
	}
	for _, hosts := range []int{1, 1 << 20} {
		for _, what := range []string{"encap", "decap"} {
			for _, inner := range []int{4, 6} {
				row := r.test(what, bench.Table, inner, 4, hosts, hosts > 1)
				if row == nil {
					continue
				}
				counted, err := row.count(c)
				if err != nil {
					return errors.Join(fmt.Errorf("count what %s takes: %w", row, err), c.close())
				}
				r.Counts = append(r.Counts, counted)
			}
		}
	}
	return c.close()
}

func (r *Result) writeCounts(b *strings.Builder) {
	if len(r.Counts) == 0 {
		return
	}
	b.WriteString("What the processor counted, a packet, above the empty wrapper.\n\n| row |")
	for _, e := range hardware {
		b.WriteString(" " + e.name + " |")
	}
	b.WriteString("\n|---" + strings.Repeat("|---", len(hardware)) + "|\n")
	for _, c := range r.Counts {
		fmt.Fprintf(b, "| %s |", c.Row)
		for _, n := range c.Packet {
			fmt.Fprintf(b, " %.1f |", n)
		}
		b.WriteString("\n")
	}
	b.WriteString("\n")
}
