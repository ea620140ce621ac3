// Package bench holds the programs that make bench times: the packet walk in a wrapper that makes every repeat a new packet, over
// the host table, a BPF hash and an LPM trie. Only the benchmark uses it.
package bench

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel table ../../bpf/bench.bpf.c -- -O2 -g -Wall -Werror -Wno-address-of-packed-member -mcpu=v3 -I/usr/include/x86_64-linux-gnu
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel hash ../../bpf/bench_hash.bpf.c -- -O2 -g -Wall -Werror -Wno-address-of-packed-member -mcpu=v3 -I/usr/include/x86_64-linux-gnu
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel trie ../../bpf/bench_trie.bpf.c -- -O2 -g -Wall -Werror -Wno-address-of-packed-member -mcpu=v3 -I/usr/include/x86_64-linux-gnu
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel wire ../../bpf/bench_wire.bpf.c -- -O2 -g -Wall -Werror -Wno-address-of-packed-member -mcpu=v3 -I/usr/include/x86_64-linux-gnu
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel fib ../../bpf/bench_fib.bpf.c -- -O2 -g -Wall -Werror -Wno-address-of-packed-member -mcpu=v3 -I/usr/include/x86_64-linux-gnu

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/netip"

	"github.com/cilium/ebpf"
)

// Structure is what the walk looks hosts up in.
type Structure string

// The structures that the walk was built over.
const (
	Table Structure = "table" // the host table
	Hash  Structure = "hash"  // a BPF hash for each family
	Trie  Structure = "trie"  // an LPM trie for each family
)

// Names in the objects.
const (
	FrameVariable   = "bench_frame"     // Frame
	TrafficVariable = "bench_traffic"   // Traffic
	WatchVariable   = "bench_stopwatch" // Stopwatch
	Peer4           = "bench_peer4"     // the hash or trie of IPv4 hosts; its size is the loader's
	Peer6           = "bench_peer6"
)

// Frame says which packet the wrapper makes. Fixed at load time.
type Frame = tableFrame

// Traffic says which hosts it goes to and comes from, and holds the state of its random numbers.
type Traffic = tableTraffic

// Stopwatch holds how long windows of Window packets took, a ring of them.
type Stopwatch = tableStopwatch

// Programs are the entry points by their names in the objects.
type Programs struct {
	Walk     *ebpf.Program `ebpf:"bench_walk"`     // the packet walk, wrapped
	Traced   *ebpf.Program `ebpf:"bench_traced"`   // the same, where maps.Trace has prepared it
	Empty    *ebpf.Program `ebpf:"bench_empty"`    // nothing, wrapped
	Redirect *ebpf.Program `ebpf:"bench_redirect"` // a bare redirect, wrapped
	Pass     *ebpf.Program `ebpf:"bench_pass"`     // to the kernel, wrapped
	Sink     *ebpf.Program `ebpf:"bench_sink"`     // counts and drops
	Calls    *ebpf.Program `ebpf:"bench_calls"`    // eight calls that come back at once, wrapped
	Noop     *ebpf.Program `ebpf:"bench_noop"`     // sends back, without the wrapper
}

// Load reads the embedded object of one structure.
func Load(s Structure) (*ebpf.CollectionSpec, error) {
	load, ok := map[Structure]func() (*ebpf.CollectionSpec, error){
		Table: loadTable, Hash: loadHash, Trie: loadTrie,
	}[s]
	if !ok {
		return nil, fmt.Errorf("no benchmark program over a %q", s)
	}
	return load()
}

// Timetable is what the generator keeps to.
type Timetable = wireTimetable

// Witness is what the generator sees of the sink: when nothing arrives though packets are under way.
type Witness = wireWitness

// Arrivals are what the sink counts.
type Arrivals = wireArrivals

// Queue is an entry of the queue in front of the forwarder: how many frames fit, and what is done with them behind it.
type Queue = wireBpfCpumapVal

// Overflow is where frames found no room.
type Overflow = wireOverflow

// Wire is both ends of the wire of the system benchmark.
type Wire struct {
	Generate  *ebpf.Program  `ebpf:"wire_generate"`
	Sink      *ebpf.Program  `ebpf:"wire_sink"`
	Timetable *ebpf.Variable `ebpf:"wire_timetable"` // Timetable
	Witness   *ebpf.Variable `ebpf:"wire_witness"`   // Witness
	SinkCPU   *ebpf.Variable `ebpf:"wire_sink_cpu"`  // uint32: whose arrivals the witness looks at
	Stamp     *ebpf.Variable `ebpf:"wire_stamp"`     // uint32: offset of stamp and number in what arrives; 0: it is counted alone
	Run       *ebpf.Variable `ebpf:"wire_run"`       // uint64: number of the run: the sink counts no others' packets
	Timed     *ebpf.Variable `ebpf:"wire_timed"`     // uint32: 1 where packets are timed, too
	Took      *ebpf.Map      `ebpf:"wire_took"`      // packets by how long they were under way: see TookNS; each CPU its own
	Redirect  *ebpf.Program  `ebpf:"wire_redirect"`  // to what Out holds
	Out       *ebpf.Map      `ebpf:"wire_out"`       // an interface index
	Sunk      *ebpf.Map      `ebpf:"wire_sunk"`      // Arrivals, each CPU its own
	Queued    *ebpf.Variable `ebpf:"wire_queued"`    // uint32: 1 where frames go through Queue, and by its thread through Cable
	Queue     *ebpf.Map      `ebpf:"wire_queue"`     // by CPU
	QueueID   *ebpf.Variable `ebpf:"wire_queue_id"`
	Cable     *ebpf.Map      `ebpf:"wire_cable"` // an interface index
	HandOver  *ebpf.Program  `ebpf:"wire_hand_over"`
	Overflow  *ebpf.Variable `ebpf:"wire_overflow"` // Overflow
	Enqueue   *ebpf.Program  `ebpf:"wire_enqueue"`
	Xmit      *ebpf.Program  `ebpf:"wire_xmit"`
}

// LoadWire loads the ends of the wire.
func LoadWire() (*Wire, error) {
	spec, err := loadWire()
	if err != nil {
		return nil, err
	}
	spec.Maps["wire_queue"].MaxEntries = uint32(ebpf.MustPossibleCPU())
	w := &Wire{}
	if err := spec.LoadAndAssign(w, nil); err != nil {
		return nil, fmt.Errorf("load the ends of the wire: %w", err)
	}
	return w, nil
}

// Close lets go of the programs; what is attached stays.
func (w *Wire) Close() error {
	return errors.Join(w.Generate.Close(), w.Sink.Close(), w.Redirect.Close(), w.Out.Close(), w.Took.Close(), w.Sunk.Close(),
		w.Queue.Close(), w.Cable.Close(), w.HandOver.Close(), w.Enqueue.Close(), w.Xmit.Close())
}

// TookNS is the middle of what the bucket of a number holds, in ns: eight buckets for each power of two.
func TookNS(bucket int) float64 {
	if bucket < 8 {
		return float64(bucket)
	}
	width := math.Ldexp(1, bucket/8-3)
	return (8 + float64(bucket%8) + 0.5) * width
}

// LoadFIB loads the forwarder that asks the kernel for its way: one VXLAN tunnel from local to remote.
func LoadFIB(local, remote netip.Addr, vni uint32) (*ebpf.Program, error) {
	spec, err := loadFib()
	if err != nil {
		return nil, err
	}
	for name, value := range map[string]any{
		"fib_local": binary.NativeEndian.Uint32(local.AsSlice()), "fib_remote": binary.NativeEndian.Uint32(remote.AsSlice()), "fib_vni": vni,
	} {
		if err := spec.Variables[name].Set(value); err != nil {
			return nil, fmt.Errorf("set constant %s: %w", name, err)
		}
	}
	var loaded struct {
		Forward *ebpf.Program `ebpf:"fib_forward"`
	}
	if err := spec.LoadAndAssign(&loaded, nil); err != nil {
		return nil, fmt.Errorf("load the forwarder over the kernel's routes: %w", err)
	}
	return loaded.Forward, nil
}
