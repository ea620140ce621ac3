package bpftest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"roam/maps"
	"roam/maps/hammer"
)

// The host table under fire. bpf/hammer.bpf.c looks hosts up without a pause on one core and judges every
// answer; the writer on the other core inserts, moves, displaces and deletes with 95% of the slots in use, is
// succeeded by another writer in the middle of that, and grows the table three times.
const (
	hammerFill    = 95      // per cent of the slots
	hammerChanges = 100_000 // at least, in each stage
)

// A small table puts every host under the reader's eyes ten thousand times a second, a large one moves many at
// a time.
var hammerStages = []struct{ capacity, lookups uint32 }{ // look-ups at least, of each family
	{50, 20_000_000}, {400, 5_000_000}, {4_000, 5_000_000}, {60_000, 5_000_000},
}

func TestHostTableUnderFire(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("ROAM_SEED"); s != "" {
		seed, _ = strconv.ParseUint(s, 10, 64)
	}
	t.Logf("ROAM_SEED=%d", seed)
	b := newBench(t, rand.New(rand.NewPCG(seed, 0)))
	defer b.stop()
	for i, stage := range hammerStages {
		if i > 0 {
			b.grow(stage.capacity)
		}
		b.churn(b.enough(stage.lookups / 2))
		b.succeed()
		b.churn(b.enough(stage.lookups / 2))
		b.judge(fmt.Sprintf("capacity %d", stage.capacity))
	}
	if b.displaced == 0 {
		t.Error("nothing was ever displaced: this tested little")
	}
}

// bench is the table, its writer, and the reader that runs meanwhile.
type bench struct {
	t         *testing.T
	random    *rand.Rand
	grace     *maps.Grace
	hosts     *maps.Hosts
	tables    maps.HostMaps
	changes   *ebpf.Map
	verdicts  *ebpf.Map
	words     []hammer.HammerChange // the memory of changes
	slots     int                   // of each family
	universe  uint32                // hosts below this number are drawn
	present   [2]int
	writes    int
	displaced int // most hosts that waited at a time

	reader  chan *ebpf.Program // what to run from now on; nil ends it
	running chan error         // the reader's answer
	settler chan struct{}      // closed to end it
	settled sync.WaitGroup
}

func newBench(t *testing.T, random *rand.Rand) *bench {
	b := &bench{t: t, random: random, reader: make(chan *ebpf.Program), running: make(chan error)}
	var err error
	if b.grace, err = maps.NewGrace(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.grace.Close() })
	if b.tables, err = maps.CreateHostMaps(hammerStages[0].capacity); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.tables.Close() })
	program := b.load(b.tables)
	b.words = mapWords(t, b.changes)
	b.open()
	t.Cleanup(func() { b.close() })

	go b.read()
	b.run(program)
	return b
}

// stop ends the reader, before cleaning up takes its program away.
func (b *bench) stop() {
	b.reader <- nil
	if err := <-b.running; err != nil {
		b.t.Error(err)
	}
}

// load loads the reader over tables. All readers share the changes and the verdicts.
func (b *bench) load(tables maps.HostMaps) *ebpf.Program {
	spec, err := hammer.LoadHammer()
	if err != nil {
		b.t.Fatal(err)
	}
	replace, err := tables.Configure(spec)
	if err != nil {
		b.t.Fatal(err)
	}
	if b.changes != nil {
		replace["changes"], replace["verdicts"] = b.changes, b.verdicts
	}
	_, universe := sizes(tables)
	if err := spec.Variables["hosts"].Set(universe); err != nil {
		b.t.Fatal(err)
	}
	var loaded struct {
		Program  *ebpf.Program `ebpf:"hammer"`
		Changes  *ebpf.Map     `ebpf:"changes"`
		Verdicts *ebpf.Map     `ebpf:"verdicts"`
	}
	if err := spec.LoadAndAssign(&loaded, &ebpf.CollectionOptions{MapReplacements: replace}); err != nil {
		b.t.Fatal(err)
	}
	b.changes, b.verdicts = loaded.Changes, loaded.Verdicts
	b.t.Cleanup(func() {
		_ = loaded.Program.Close()
		_ = loaded.Changes.Close()
		_ = loaded.Verdicts.Close()
	})
	return loaded.Program
}

// sizes are a table's slots and the number of hosts that compete for them.
func sizes(tables maps.HostMaps) (slots int, universe uint32) {
	slots = tables.Slots()
	return slots, uint32(slots * 5 / 4)
}

func mapWords(t *testing.T, m *ebpf.Map) []hammer.HammerChange {
	memory, err := unix.Mmap(m.FD(), 0, int(m.MaxEntries()*m.ValueSize()), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Munmap(memory) })
	return unsafe.Slice((*hammer.HammerChange)(unsafe.Pointer(&memory[0])), m.MaxEntries())
}

// open makes a writer over the tables, whatever is in them, and has it settle in the background as roamd does.
func (b *bench) open() {
	hosts, err := maps.OpenHosts(b.tables, b.grace)
	if err != nil {
		b.t.Fatal(err)
	}
	b.hosts, b.settler = hosts, make(chan struct{})
	b.slots, b.universe = sizes(b.tables)
	stop := b.settler
	b.settled.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-hosts.Work():
				if err := hosts.Settle(); err != nil {
					b.t.Error(err)
					return
				}
			}
		}
	})
}

func (b *bench) close() {
	close(b.settler)
	b.settled.Wait()
	if err := b.hosts.Close(); err != nil {
		b.t.Error(err)
	}
}

// succeed replaces the writer by another in the middle of whatever the first had under way.
func (b *bench) succeed() {
	close(b.settler)
	b.settled.Wait()
	b.churn(func() bool { return b.hosts.Pending() > 0 })
	old := b.hosts
	b.open()
	if err := old.Close(); err != nil {
		b.t.Fatal(err)
	}
}

// grow moves the reader to bigger tables while the writer goes on.
func (b *bench) grow(capacity uint32) {
	var (
		tables maps.HostMaps
		failed error
		done   atomic.Bool
	)
	go func() {
		defer done.Store(true)
		tables, failed = b.hosts.Grow(capacity)
	}()
	b.churn(done.Load)
	if failed != nil {
		b.t.Fatal(failed)
	}
	b.t.Cleanup(func() { _ = tables.Close() })
	program := b.load(tables)
	b.churn(after(1000))
	b.run(program)
	b.churn(after(1000))
	done.Store(false)
	go func() {
		defer done.Store(true)
		failed = b.hosts.CommitGrow()
	}()
	b.churn(done.Load)
	if failed != nil {
		b.t.Fatal(failed)
	}
	b.tables = tables
	b.slots, b.universe = sizes(b.tables)
}

func after(n int) func() bool {
	return func() bool { n--; return n < 0 }
}

// enough is true after half a stage's changes and as many look-ups.
func (b *bench) enough(lookups uint32) func() bool {
	writes := b.writes + hammerChanges/2
	from := b.lookups()
	return func() bool {
		if b.writes < writes || b.writes%1024 != 0 {
			return false
		}
		now := b.lookups()
		return min(now[0]-from[0], now[1]-from[1]) > uint64(lookups)
	}
}

// churn changes hosts at random until it is told to stop.
func (b *bench) churn(until func() bool) {
	b.t.Helper()
	for !until() {
		b.change(b.random.IntN(2), b.random.Uint32N(b.universe))
		if b.writes++; b.writes%64 == 0 {
			b.displaced = max(b.displaced, b.hosts.Waiting())
		}
	}
}

// change inserts, moves or deletes a host, announcing it before and confirming it after. Where there is room it
// prefers to insert: in a table as full as this every other insertion displaces somebody.
func (b *bench) change(family int, number uint32) {
	full := b.present[family] >= b.slots*hammerFill/100
	move := b.random.IntN(8) == 0
	word := b.word(family, number)
	for !full && !move && word.Confirmed&1 != 0 {
		number = (number + 1) % b.universe
		word = b.word(family, number)
	}
	space, addr := hammerHost(family, number)
	now := word.Confirmed
	switch {
	case now&1 == 0 && full:
	case now&1 == 0:
		b.put(word, space, addr, number, now+1)
		b.present[family]++
	case full && !move:
		atomic.StoreUint32(&word.Announced, now+3)
		if !b.hosts.Delete(space, addr) {
			b.t.Fatalf("%s in space %d should be there", addr, space)
		}
		atomic.StoreUint32(&word.Confirmed, now+3)
		b.present[family]--
	default:
		b.put(word, space, addr, number, now+2)
	}
}

func (b *bench) word(family int, number uint32) *hammer.HammerChange {
	return &b.words[family*int(hammer.HammerSizesHAMMER_HOSTS)+int(number)]
}

func (b *bench) put(word *hammer.HammerChange, space uint16, addr netip.Addr, number, change uint32) {
	const changeBits = uint32(hammer.HammerSizesCHANGE_BITS)
	atomic.StoreUint32(&word.Announced, change)
	if err := b.hosts.Put(space, addr, hammerCheck(number)<<changeBits|change&(1<<changeBits-1)); err != nil {
		b.t.Fatal(err)
	}
	atomic.StoreUint32(&word.Confirmed, change)
}

// The numbered hosts, as bpf/hammer.bpf.c makes them.
func hammerHost(family int, number uint32) (space uint16, addr netip.Addr) {
	space = uint16(1 + number%3*1999)
	if family == 0 {
		return space, netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, number*0x9E3779B1)))
	}
	var a [16]byte
	binary.LittleEndian.PutUint64(a[:8], scatter(2*uint64(number)+1))
	binary.LittleEndian.PutUint64(a[8:], scatter(2*uint64(number)+2))
	return space, netip.AddrFrom16(a)
}

func hammerCheck(number uint32) uint32 {
	const checkBits = uint32(hammer.HammerSizesCHECK_BITS)
	return 1<<(checkBits-1) | uint32(scatter(uint64(number))>>(64-checkBits+1))
}

func scatter(x uint64) uint64 {
	x ^= x >> 31
	x *= 0x7FB5D329728EA185
	x ^= x >> 27
	x *= 0x81DADEF4BC2DD44D
	return x ^ x>>33
}

// run makes the reader run another program and returns when it no longer runs the one before.
func (b *bench) run(program *ebpf.Program) {
	b.reader <- program
	if err := <-b.running; err != nil {
		b.t.Fatal(err)
	}
}

// read runs the program without a pause, on a core of its own where there is one. Each run is one call: with
// repeats the kernel would change its XDP dispatcher before and after, which takes two grace periods of doing
// nothing.
func (b *bench) read() {
	runtime.LockOSThread() // and never unlocked: the thread ends with its affinity
	failed := lastCore()
	var program *ebpf.Program
	for {
		select {
		case program = <-b.reader:
			b.running <- failed
			if program == nil {
				return
			}
			failed = nil
		default:
			if program == nil {
				runtime.Gosched()
				continue
			}
			if _, err := program.Run(&ebpf.RunOptions{Data: make([]byte, 64)}); err != nil && failed == nil {
				failed = fmt.Errorf("run the reader: %w", err)
			}
		}
	}
}

// lastCore binds the thread to the last core it may use, unless that is the only one.
func lastCore() error {
	var cores unix.CPUSet
	if err := unix.SchedGetaffinity(0, &cores); err != nil {
		return fmt.Errorf("read the affinity: %w", err)
	}
	if cores.Count() < 2 {
		return nil
	}
	for i := len(cores) - 1; i >= 0; i-- {
		if w := uint64(cores[i]); w != 0 {
			core := i*64 + bits.Len64(w) - 1
			cores.Zero()
			cores.Set(core)
			return unix.SchedSetaffinity(0, &cores)
		}
	}
	return errors.New("no core to run on")
}

// totals are the verdicts so far, of each family.
func (b *bench) totals() (n [2][hammer.HammerVerdictVERDICTS]uint64) {
	for family := range n {
		for v := range n[family] {
			var perCPU []uint64
			if err := b.verdicts.Lookup(uint32(family*len(n[family])+v), &perCPU); err != nil {
				b.t.Fatal(err)
			}
			for _, c := range perCPU {
				n[family][v] += c
			}
		}
	}
	return n
}

func (b *bench) lookups() (n [2]uint64) {
	for family, verdicts := range b.totals() {
		for _, c := range verdicts {
			n[family] += c
		}
	}
	return n
}

// judge fails the test if any answer so far was wrong.
func (b *bench) judge(when string) {
	b.t.Helper()
	n := b.totals()
	for family, name := range []string{"IPv4", "IPv6"} {
		v := n[family]
		b.t.Logf("%s, %s: %d hosts, %d changes, up to %d waiting; %d look-ups found their host, %d rightly none",
			when, name, b.present[family], b.writes, b.displaced, v[hammer.HammerVerdictVERDICT_RIGHT], v[hammer.HammerVerdictVERDICT_ABSENT])
		missed, other, stale := v[hammer.HammerVerdictVERDICT_MISSED], v[hammer.HammerVerdictVERDICT_OTHER], v[hammer.HammerVerdictVERDICT_STALE]
		if missed+other+stale > 0 {
			b.t.Errorf("%s, %s: %d look-ups missed their host, %d got another host's value, %d got one out of date", when, name, missed, other, stale)
		}
		if v[hammer.HammerVerdictVERDICT_RIGHT] == 0 {
			b.t.Errorf("%s, %s: no look-up found its host", when, name)
		}
	}
	if b.t.Failed() {
		b.t.FailNow()
	}
}
