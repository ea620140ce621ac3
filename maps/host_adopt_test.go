package maps

import (
	"encoding/json"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// TestHostsAdopt opens tables with everything in them that a killed writer can leave, and what none should.
func TestHostsAdopt(t *testing.T) {
	g := newGrace(t)
	for _, c := range []struct {
		name string
		// harm changes a table that holds twin, and twin where the right answers are others then.
		harm func(t *testing.T, tab *hostTable, twin map[host]uint32)
	}{
		{"second copies, some with an older value", func(t *testing.T, tab *hostTable, _ map[host]uint32) {
			copied := 0
			for _, s := range []*slots{&tab.v4, &tab.v6} {
				for at := range s.in(0, s.buckets) {
					k, ok := s.key(at)
					if !ok {
						continue
					}
					p := s.place(&k)
					f := s.scan(&k, p)
					second := f.free[1]
					if f.hits > 1 || p.bucket[0] == p.bucket[1] || s.bucket(at) != p.bucket[0] || second < 0 {
						continue
					}
					value := s.value(at)
					if at%2 == 0 {
						value = 0xabcde
					}
					s.write(second, &k, p.tag, value)
					copied++
				}
			}
			if copied < 10 {
				t.Errorf("only %d hosts have two copies", copied)
			}
		}},
		{"placed hosts in the overflow", func(t *testing.T, tab *hostTable, twin map[host]uint32) {
			for k := range twin {
				key, _ := newHostKey(k.space, k.addr)
				overflow(t, tab, &key, tab.room.take(&key, 5))
			}
		}},
		{"a host in the overflow only", func(t *testing.T, tab *hostTable, twin map[host]uint32) {
			for _, v6 := range []bool{false, true} {
				k := testHost(v6, 1_000_000)
				key, _ := newHostKey(k.space, k.addr)
				overflow(t, tab, &key, tab.room.take(&key, 77))
				twin[k] = 77
			}
		}},
		{"hosts in the waiting room that nothing names", func(_ *testing.T, tab *hostTable, _ map[host]uint32) {
			for i := range 100 {
				key, _ := newHostKey(3, testHost(true, 1_000_000+i).addr)
				tab.room.take(&key, 77)
			}
		}},
		{"overflow entries that name nothing", func(t *testing.T, tab *hostTable, twin map[host]uint32) {
			other, _ := newHostKey(9, testHost(true, 0).addr)
			for i, at := range []int{0, 1, tab.room.at(0), tab.room.at(0) + bucket6Size, len(tab.v6.word), 1 << 31} {
				key, _ := newHostKey(9, testHost(i%2 == 0, 2_000_000+i).addr)
				overflow(t, tab, &key, at)
			}
			at := tab.room.take(&other, 3)
			other.lo++
			overflow(t, tab, &other, at)
			other.space = 0
			overflow(t, tab, &other, at)
			other.space = 1 << 20
			overflow(t, tab, &other, at)
		}},
		{"slots nobody wrote", func(_ *testing.T, tab *hostTable, _ map[host]uint32) {
			r := seeded(t)
			for _, s := range []*slots{&tab.v4, &tab.v6} {
				for at := range s.in(0, s.buckets) {
					if s.word[at] != 0 {
						continue
					}
					s.store(at, r.Uint64()>>r.IntN(64))
					k, ok := s.key(at)
					if p := s.place(&k); ok && slices.Contains(p.bucket[:], s.bucket(at)) {
						s.store(at, 0)
					}
				}
			}
		}},
		{"a slot whose address is another host's, or another slot's", func(_ *testing.T, tab *hostTable, twin map[host]uint32) {
			harmed := 0
			for at := range tab.v6.in(0, tab.v6.buckets) {
				if k, ok := tab.v6.key(at); ok && harmed < 2 {
					delete(twin, host{uint16(k.space), k.addr()})
					tab.v6.store(at, tab.v6.word[at]^uint64(harmed)<<valueBits)
					tab.v6.address(at)[1] += uint64(1-harmed) << 32
					harmed++
				}
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, h := createHosts(t, g, 1000)
			twin := make(map[host]uint32)
			for i := range 500 {
				for _, v6 := range []bool{false, true} {
					k := testHost(v6, i)
					twin[k] = uint32(i + 1)
					mustPut(t, h, k, twin[k])
				}
			}
			mustSettle(t, h)
			c.harm(t, h.cur, twin)
			h = restart(t, g, m, h)
			compare(t, h, m, twin)
			mustSettle(t, h)
			checkSettled(t, h)
			compare(t, h, m, twin)
		})
	}
}

func overflow(t *testing.T, tab *hostTable, k *hostKey, at int) {
	t.Helper()
	o := overflowKey(k)
	if err := tab.maps.Overflow.Put(&o, uint32(at)); err != nil {
		t.Fatal(err)
	}
}

// TestHostsKilled has another process write a table, settling in the background, until it kills itself at a
// moment nobody chose, over and over, and sees that the table then holds exactly what that process had
// finished, the change it was at either way.
func TestHostsKilled(t *testing.T) {
	if job := os.Getenv("ROAM_KILLED"); job != "" {
		killedChild(t, job)
		return
	}
	r := seeded(t)
	g := newGrace(t)
	m, err := CreateHostMaps(500)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	progress, err := ebpf.NewMap(&ebpf.MapSpec{
		Name: "progress", Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 2, Flags: sysMmapable,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer progress.Close()

	twin := make(map[host]uint32)
	interrupted := 0
	for round := range 20 {
		job := killedJob{Seed: r.Uint64(), Kill: 1 + r.Uint64N(20_000)}
		runKilled(t, job, m, progress)
		announced, confirmed := progressOf(t, progress)
		if announced != confirmed {
			interrupted++
		}
		h, err := OpenHosts(m, g)
		if err != nil {
			t.Fatal(err)
		}
		script := newKilledScript(job.Seed)
		for range confirmed {
			script.next().apply(twin)
		}
		if announced > confirmed { // done or not, nothing in between
			op := script.next()
			was := twin[op.host]
			op.apply(twin)
			if got, _ := h.Get(op.host.space, op.host.addr); got == was {
				op.value = was
				op.apply(twin)
			}
		}
		compare(t, h, m, twin)
		if t.Failed() {
			t.Fatalf("round %d: %+v, %d changes announced, %d confirmed", round, job, announced, confirmed)
		}
		mustSettle(t, h)
		checkSettled(t, h)
		compare(t, h, m, twin)
		_ = h.Close()
	}
	t.Logf("%d of 20 were killed in the middle of a change", interrupted)
}

// killedJob is what the process is told: which changes to make, and after how many of them to die.
type killedJob struct{ Seed, Kill uint64 }

// killedOp puts a host, or deletes it where value is 0.
type killedOp struct {
	host  host
	value uint32
}

func (op killedOp) apply(twin map[host]uint32) {
	if op.value == 0 {
		delete(twin, op.host)
	} else {
		twin[op.host] = op.value
	}
}

// killedScript is the sequence of changes that a seed stands for. Its hosts are 95% of the slots of a table for 500.
type killedScript struct{ *rand.Rand }

func newKilledScript(seed uint64) killedScript { return killedScript{rand.New(rand.NewPCG(seed, 1))} }

func (s killedScript) next() killedOp {
	op := killedOp{host: testHost(s.IntN(2) == 0, s.IntN(600))}
	if s.IntN(8) > 0 {
		op.value = 1 + s.Uint32N(maxValue)
	}
	return op
}

func runKilled(t *testing.T, job killedJob, m HostMaps, progress *ebpf.Map) {
	t.Helper()
	text, err := json.Marshal(job)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestHostsKilled$")
	cmd.Env = append(os.Environ(), "ROAM_KILLED="+string(text))
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	for _, part := range []*ebpf.Map{m.Buckets4, m.Buckets6, m.Overflow, progress} {
		fd, err := unix.FcntlInt(uintptr(part.FD()), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		file := os.NewFile(uintptr(fd), "map")
		defer file.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, file)
	}
	err = cmd.Run()
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
		t.Fatalf("the process should have died from SIGKILL: %v\n%s", err, out.String())
	}
}

func progressOf(t *testing.T, m *ebpf.Map) (announced, confirmed uint64) {
	t.Helper()
	if err := m.Lookup(uint32(0), &announced); err != nil {
		t.Fatal(err)
	}
	if err := m.Lookup(uint32(1), &confirmed); err != nil {
		t.Fatal(err)
	}
	return announced, confirmed
}

// killedChild is the other process. It ends by SIGKILL.
func killedChild(t *testing.T, text string) {
	var job killedJob
	if err := json.Unmarshal([]byte(text), &job); err != nil {
		t.Fatal(err)
	}
	var parts [4]*ebpf.Map
	for i := range parts {
		m, err := ebpf.NewMapFromFD(3 + i)
		if err != nil {
			t.Fatal(err)
		}
		parts[i] = m
	}
	g := newGrace(t)
	h, err := OpenHosts(HostMaps{Buckets4: parts[0], Buckets6: parts[1], Overflow: parts[2]}, g)
	if err != nil {
		t.Fatal(err)
	}
	progress, err := mapArray[Nexthop](parts[3])
	if err != nil {
		t.Fatal(err)
	}
	progress.store(0, 0)
	progress.store(1, 0)
	go func() {
		for range h.Work() {
			if err := h.Settle(); err != nil {
				t.Error(err)
			}
		}
	}()
	go func() { // dies while the others are somewhere
		for progress.load(1) < job.Kill {
		}
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}()
	script := newKilledScript(job.Seed)
	for n := uint64(1); ; n++ {
		op := script.next()
		progress.store(0, n)
		if op.value == 0 {
			h.Delete(op.host.space, op.host.addr)
		} else {
			mustPut(t, h, op.host, op.value)
		}
		progress.store(1, n)
	}
}
