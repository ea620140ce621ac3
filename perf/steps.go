package main

import (
	"bufio"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"roam/maps/bench"
)

// steps says where a packet's nanoseconds go: how often a clock found the processor in the lines of each header of bpf/, and in each
// function of the kernel, times what a packet took. What the wrapper around nothing takes is subtracted, place by place. The clock is a
// timer's, because virtual machines seldom have counters: it finds the instruction that waits, not the one waited for.
type steps struct {
	Row    string             `json:"row"`
	Places map[string]float64 `json:"ns"`
}

const (
	stepRounds  = 4
	sampleNS    = 100_000 // a virtual machine may need 10,000 for one
	sampleFor   = 1e9     // ns of a run; its samples fit into the buffer
	samplePages = 128     // of the buffer, a power of two
	shownNS     = 0.5     // places that take less are added up
)

// profile divides the time of a row's packets.
func (r *row) profile(rounds int) (s steps, err error) {
	if err := r.prepare(); err != nil {
		return s, err
	}
	s = steps{r.String(), map[string]float64{}}
	for range rounds {
		err = errors.Join(r.walker.sample(r.program, 1/float64(rounds), s.Places), r.walker.sample(r.walker.Empty, -1/float64(rounds), s.Places))
		if err != nil {
			return s, fmt.Errorf("sample %s: %w", r, err)
		}
	}
	return s, nil
}

// sample adds weight times what a packet takes while no clock disturbs, by where.
func (w *walker) sample(p *ebpf.Program, weight float64, ns map[string]float64) error {
	where, err := newPlaces(p)
	if err != nil {
		return err
	}
	took, err := w.time(p, 1<<20)
	if err != nil {
		return err
	}
	clock, err := openSampler()
	if err != nil {
		return err
	}
	_, err = w.time(p, int(sampleFor/max(took.mean, 1)))
	ips := clock.read()
	if err = errors.Join(err, clock.close()); err != nil {
		return err
	}
	for _, ip := range ips {
		ns[where.of(ip)] += weight * took.mean / float64(len(ips))
	}
	return nil
}

// sampler is a clock that writes down where it finds this thread in the kernel.
type sampler struct {
	fd   int
	page []byte
}

func openSampler() (*sampler, error) {
	attr := unix.PerfEventAttr{
		Type: unix.PERF_TYPE_SOFTWARE, Size: uint32(unsafe.Sizeof(unix.PerfEventAttr{})), Config: unix.PERF_COUNT_SW_CPU_CLOCK,
		Sample: sampleNS, Sample_type: unix.PERF_SAMPLE_IP, Bits: unix.PerfBitExcludeUser,
	}
	fd, err := unix.PerfEventOpen(&attr, 0, -1, -1, unix.PERF_FLAG_FD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("open a sampling clock: %w", err)
	}
	page, err := unix.Mmap(fd, 0, (1+samplePages)*os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("map the samples: %w", err), unix.Close(fd))
	}
	return &sampler{fd, page}, nil
}

// read returns the addresses of instructions: a record is a header of 8 bytes, the last two its length, and the address.
func (s *sampler) read() (ips []uint64) {
	head := (*unix.PerfEventMmapPage)(unsafe.Pointer(&s.page[0]))
	data := s.page[os.Getpagesize():]
	for at, end := head.Data_tail, atomic.LoadUint64(&head.Data_head); at < end; {
		record := data[at%uint64(len(data)):]
		if binary.NativeEndian.Uint32(record) == unix.PERF_RECORD_SAMPLE {
			ips = append(ips, binary.NativeEndian.Uint64(data[(at+8)%uint64(len(data)):]))
		}
		at += uint64(max(8, binary.NativeEndian.Uint16(record[6:])))
	}
	return ips
}

func (s *sampler) close() error { return errors.Join(unix.Munmap(s.page), unix.Close(s.fd)) }

// places are addresses and what lies from there on: source lines of a program, functions of the kernel.
type places []place

type place struct {
	addr uint64
	name string
}

// newPlaces says nothing of a program's own symbols in the list of the kernel: its lines are better known.
func newPlaces(p *ebpf.Program) (all places, err error) {
	info, err := p.Info()
	if err != nil {
		return nil, fmt.Errorf("ask for program info: %w", err)
	}
	addrs, ok := info.JitedLineInfos()
	lines, err := info.LineInfos()
	if !ok || err != nil || len(lines) != len(addrs) {
		return nil, errors.Join(errors.New("the kernel does not tell which line is where in machine code"), err)
	}
	for i, l := range lines {
		all = append(all, place{addrs[i], path.Base(l.Line.FileName())})
	}
	kernel, err := os.Open("/proc/kallsyms")
	if err != nil {
		return nil, fmt.Errorf("read the kernel's functions: %w", err)
	}
	defer kernel.Close()
	for text := bufio.NewScanner(kernel); text.Scan(); {
		var addr uint64
		var kind, name string
		n, _ := fmt.Sscanf(text.Text(), "%x %s %s", &addr, &kind, &name)
		if n == 3 && strings.ContainsAny(kind, "tTwW") && !strings.HasPrefix(name, "bpf_prog_") {
			all = append(all, place{addr, name})
		}
	}
	slices.SortStableFunc(all, func(a, b place) int { return cmp.Compare(a.addr, b.addr) })
	return all, nil
}

func (p places) of(ip uint64) string {
	i, _ := slices.BinarySearchFunc(p, ip+1, func(at place, ip uint64) int { return cmp.Compare(at.addr, ip) })
	if i == 0 {
		return "?"
	}
	return p[i-1].name
}

// profileSteps divides the hot rows of IPv4 over IPv4.
func (r *Result) profileSteps() error {
	r.Steps = nil
	for _, what := range []string{"encap", "decap"} {
		row := r.test(what, bench.Table, 4, 4, 1, false)
		if row == nil {
			continue
		}
		s, err := row.profile(stepRounds)
		if err != nil {
			return err
		}
		r.Steps = append(r.Steps, s)
	}
	return nil
}

// writePlaces says where the time goes, by clock and, where there are any, by the processor's counters.
func (r *Result) writePlaces(b *strings.Builder) {
	r.writeSteps(b)
	r.writeCounts(b)
}

func (r *Result) writeSteps(b *strings.Builder) {
	if len(r.Steps) == 0 {
		return
	}
	b.WriteString("One hot host, ns above the empty wrapper, by header of `bpf/` and by function of the kernel, as a clock found the processor there " +
		"every 100 µs: it finds the instruction that waits, not the one that is waited for.\n\n| where |")
	most := map[string]float64{}
	for _, s := range r.Steps {
		fmt.Fprintf(b, " %s |", s.Row)
		for name, ns := range s.Places {
			most[name] = max(most[name], ns)
		}
	}
	names := slices.SortedFunc(maps.Keys(most), func(a, b string) int { return cmp.Compare(most[b], most[a]) })
	shown := 0
	for shown < len(names) && most[names[shown]] >= shownNS {
		shown++
	}
	b.WriteString("\n|---" + strings.Repeat("|---", len(r.Steps)) + "|\n")
	line := func(title string, names []string) {
		fmt.Fprintf(b, "| %s |", title)
		for _, s := range r.Steps {
			ns := 0.0
			for _, n := range names {
				ns += s.Places[n]
			}
			fmt.Fprintf(b, " %.1f |", ns)
		}
		b.WriteString("\n")
	}
	for _, n := range names[:shown] {
		line("`"+n+"`", []string{n})
	}
	line("elsewhere", names[shown:])
	line("all", names)
	b.WriteString("\n")
}
