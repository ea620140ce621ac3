// Package bench holds the programs that make bench times: the packet walk in a wrapper that makes every repeat a new packet, over
// the host table, a BPF hash and an LPM trie. Only the benchmark uses it.
package bench

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel table ../../bpf/bench.bpf.c -- -O2 -g -Wall -Werror -Wno-address-of-packed-member -mcpu=v3 -I/usr/include/x86_64-linux-gnu
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel hash ../../bpf/bench_hash.bpf.c -- -O2 -g -Wall -Werror -Wno-address-of-packed-member -mcpu=v3 -I/usr/include/x86_64-linux-gnu
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel trie ../../bpf/bench_trie.bpf.c -- -O2 -g -Wall -Werror -Wno-address-of-packed-member -mcpu=v3 -I/usr/include/x86_64-linux-gnu

import (
	"fmt"

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
