package maps

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
)

// Limits of tracing.
const (
	TraceFilters = int(datapathLimitsTRACE_FILTERS) // who may trace at a time
	TraceBytes   = int(datapathLimitsTRACE_BYTES)   // of a frame that an event holds at most
)

const tracedName = "traced" // in the kernel, too

// Trace has programs over the walk's source leave events behind: what stands in front of the walk can go over to it, and the ring has
// room.
func Trace(spec *ebpf.CollectionSpec) error {
	programs := spec.Maps[datapathMapPrograms]
	programs.Contents = append(programs.Contents, ebpf.MapKV{Key: uint32(datapathProgramPROGRAM_WALK), Value: "datapath"})
	spec.Maps[datapathMapTraceRing].MaxEntries = uint32(datapathLimitsTRACE_RING_SIZE)
	if err := spec.Variables["run"].Set(uint8(datapathRunModeRUN_TRACED)); err != nil {
		return fmt.Errorf("set constant run: %w", err)
	}
	return nil
}

// TraceMaps returns the maps that tracing works with, by name, for reuse while it goes on.
func (o *Objects) TraceMaps() map[string]*ebpf.Map {
	return map[string]*ebpf.Map{
		datapathMapTraceWishes: o.TraceWishes, datapathMapTraceNotes: o.TraceNotes,
		datapathMapTraceRing: o.TraceRing, datapathMapTraceLost: o.TraceLost,
	}
}

// TakeTraceMaps has o hold the maps of tracing of another instance.
func (o *Objects) TakeTraceMaps(from *Objects) {
	o.TraceWishes, o.TraceNotes, o.TraceRing, o.TraceLost = from.TraceWishes, from.TraceNotes, from.TraceRing, from.TraceLost
}

// Traced tells that the program leaves events behind.
func (o *Objects) Traced() bool { return o.Program != o.Walk }

// GoesOver tells that a program, of whatever process, is the one that is attached in front of the walk while somebody traces.
func GoesOver(p *ebpf.Program) bool {
	info, err := p.Info()
	return err == nil && info.Name == tracedName
}

// TraceFilter says which packets somebody wants to be told of. Zero fields ask for nothing.
type TraceFilter struct {
	Host    netip.Addr // source or destination
	Reasons []Reason   // one of them
	Tenant  uint16     // space
	Locator uint16     // number of the tunnel end it came from or goes to
	Sample  uint32     // one packet in so many, chosen at random; 0 and 1: every one
	Bytes   int        // of the frame, as it came and as it is at the end; at most TraceBytes
}

func (f *TraceFilter) wire() datapathTraceFilter {
	w := datapathTraceFilter{Share: 1 << 32 / uint64(max(f.Sample, 1)), Tenant: f.Tenant, Locator: f.Locator, Bytes: uint16(min(f.Bytes, TraceBytes))}
	if f.Host.IsValid() {
		w.Host = WireAddress(f.Host)
	}
	for _, r := range f.Reasons {
		w.Reasons[r>>6&1] |= 1 << (r & 63)
	}
	if len(f.Reasons) == 0 {
		w.Reasons = [2]uint64{^uint64(0), ^uint64(0)}
	}
	return w
}

// SetTraceFilters says who is to be told: the filter at index n has bit n in events; nil is nobody's. The program may read a filter
// that is half written, so one that changes is taken out first. One caller at a time.
func (o *Objects) SetTraceFilters(filters [TraceFilters]*TraceFilter) error {
	var was, next datapathTraceFilters
	if err := o.TraceWishes.Lookup(uint32(0), &was); err != nil {
		return fmt.Errorf("read the filters of traces: %w", err)
	}
	for i, f := range filters {
		if f != nil {
			next.Filter[i] = f.wire()
		}
	}
	quiet := next
	for i := range quiet.Filter {
		if quiet.Filter[i] != was.Filter[i] {
			quiet.Filter[i].Share = 0
		}
	}
	for _, step := range []*datapathTraceFilters{&quiet, &next} {
		if err := o.TraceWishes.Put(uint32(0), step); err != nil {
			return fmt.Errorf("write the filters of traces: %w", err)
		}
	}
	return nil
}

// TracesLost is how many events of each filter found the ring full, since the program was loaded.
func (o *Objects) TracesLost() (lost [TraceFilters]uint64, err error) {
	sums, err := readPerCPU(o.TraceLost)
	for i := range sums {
		lost[i] = sums[i].Packets
	}
	return lost, err
}

// TraceEvent is what happened to a packet. Addresses and ports are those of the last packet that the walk looked at: out of a
// tunnel the inner one.
type TraceEvent struct {
	When         time.Duration // since boot, CLOCK_MONOTONIC
	Reason       Reason
	Filters      uint32     // a bit for each that asked for it
	Src, Dst     netip.Addr // not valid where the walk did not come so far
	Proto        uint8
	SrcPort      uint16 // 0 where there are none
	DstPort      uint16
	Port, Egress uint16 // slots; Egress is 0 unless it was forwarded
	Tenant       uint16 // space, 0 for none
	Locator      uint16 // number of the tunnel that it was to leave by, 0 for none
	From         uint16 // and of the one that it came by
	Bytes        int    // length of the frame as it came
	BytesAfter   int    // and at the end
	Before       []byte // the frame as it came, as much as was asked for
	After        []byte // and as it was at the end
}

// Traces reads the ring of events. One reader at a time.
type Traces struct {
	ring   *ringbuf.Reader
	record ringbuf.Record
}

// OpenTraces reads the ring of o.
func OpenTraces(o *Objects) (*Traces, error) {
	r, err := ringbuf.NewReader(o.TraceRing)
	if err != nil {
		return nil, fmt.Errorf("read the ring of traces: %w", err)
	}
	return &Traces{ring: r}, nil
}

// ErrTracesRead says that all events have been read that were there when somebody called Interrupt.
var ErrTracesRead = errors.New("everything that was traced so far has been read")

// Read waits for the next event; os.ErrClosed after Close, ErrTracesRead after Interrupt.
func (t *Traces) Read() (TraceEvent, error) {
	err := t.ring.ReadInto(&t.record)
	switch {
	case errors.Is(err, ringbuf.ErrClosed):
		return TraceEvent{}, os.ErrClosed
	case errors.Is(err, ringbuf.ErrFlushed):
		return TraceEvent{}, ErrTracesRead
	case err != nil:
		return TraceEvent{}, fmt.Errorf("read the ring of traces: %w", err)
	}
	return decodeTrace(t.record.RawSample)
}

// Interrupt has Read return ErrTracesRead once it has read what is in the ring. Safe from any goroutine.
func (t *Traces) Interrupt() error { return t.ring.Flush() }

// Close ends a Read that waits. Safe from any goroutine.
func (t *Traces) Close() error { return t.ring.Close() }

func decodeTrace(raw []byte) (TraceEvent, error) {
	var in datapathTraceEvent
	head, whole := int(unsafe.Offsetof(in.Frame)), int(unsafe.Sizeof(in))
	if len(raw) != head && len(raw) != whole {
		return TraceEvent{}, fmt.Errorf("an event of %d bytes, this program expects %d or %d", len(raw), head, whole)
	}
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&in)), whole), raw)
	out := TraceEvent{
		When: time.Duration(in.When), Reason: Reason(in.Reason), Filters: in.Filters,
		Src: present(in.Src), Dst: present(in.Dst), Proto: in.Proto, SrcPort: in.Sport, DstPort: in.Dport,
		Port: in.Port, Egress: in.Egress, Tenant: in.Tenant, Locator: in.Locator, From: in.From,
		Bytes: int(in.Bytes), BytesAfter: int(in.BytesAfter),
	}
	if len(raw) == whole {
		out.Before = slices.Clone(in.Frame[0][:min(int(in.Captured[0]), TraceBytes)])
		out.After = slices.Clone(in.Frame[1][:min(int(in.Captured[1]), TraceBytes)])
	}
	return out, nil
}

func present(wire [4]uint32) netip.Addr {
	if wire == ([4]uint32{}) {
		return netip.Addr{}
	}
	return fromWire(wire)
}
