package maps

import (
	"errors"
	"math/bits"
	"math/rand/v2"
	"net/netip"
	"os"
	"strconv"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
)

// seeded returns a random source whose seed is printed when the test fails; ROAM_SEED repeats a run.
func seeded(t testing.TB) *rand.Rand {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("ROAM_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatalf("ROAM_SEED: %v", err)
		}
	}
	t.Logf("ROAM_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

func newGrace(t testing.TB) *Grace {
	g, err := NewGrace()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = g.Close() })
	return g
}

func createHosts(t testing.TB, g *Grace, capacity uint32) (HostMaps, *Hosts) {
	m, err := CreateHostMaps(capacity)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	h, err := OpenHosts(m, g)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	return m, h
}

// host is a key of the naive twin: a plain map from these to values.
type host struct {
	space uint16
	addr  netip.Addr
}

var testSpaces = [...]uint16{1, 2, 4000, SpaceLocator}

// testHost is the i-th host of a family; neighbours in i share spaces and prefixes.
func testHost(v6 bool, i int) host {
	h := host{space: testSpaces[i%len(testSpaces)]}
	i /= len(testSpaces)
	if v6 {
		h.addr = netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 8: byte(i >> 20), 13: byte(i >> 16), 14: byte(i >> 8), 15: byte(i)})
	} else {
		h.addr = netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
	}
	return h
}

// reader looks a host up as bpf/table.h does, through the kernel's copy of the maps.
type reader struct {
	t          *testing.T
	maps       HostMaps
	head4      TableHeader
	head6      TableHeader
	overflowed int
}

func newReader(t *testing.T, m HostMaps) *reader {
	h4, h6, err := m.Headers()
	if err != nil {
		t.Fatal(err)
	}
	return &reader{t: t, maps: m, head4: h4, head6: h6}
}

func (r *reader) lookup(h host) uint32 {
	k, err := newHostKey(h.space, h.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	if inFront(&k) {
		if v := r.front(&k); v != 0 {
			return v
		}
	}
	if k.v6 {
		x := hash6(k.hi, k.lo, k.space, &r.head6.Seed)
		p := newPlace(x, tag6(x, k.space), r.head6.Buckets)
		for _, bucket := range p.bucket {
			b := r.bucket6(bucket)
			for _, word := range b.Slot {
				if word>>tagShift == p.tag && b.names(word, &k) {
					return uint32(word & maxValue)
				}
			}
		}
		return r.overflow(&k)
	}
	p := newPlace(hash4(k.key4(), &r.head4.Seed), k.key4(), r.head4.Buckets)
	for _, b := range p.bucket {
		for _, word := range r.bucket(r.maps.Buckets4, b) {
			if word>>valueBits == p.tag && word&maxValue != 0 {
				return uint32(word & maxValue)
			}
		}
	}
	return r.overflow(&k)
}

func (r *reader) bucket(m *ebpf.Map, i uint32) [8]uint64 {
	var b datapathBucket
	if err := m.Lookup(i, &b); err != nil {
		r.t.Fatal(err)
	}
	return b.Slot
}

func (r *reader) bucket6(i uint32) (b datapathBucket6) {
	if err := r.maps.Buckets6.Lookup(i, &b); err != nil {
		r.t.Fatal(err)
	}
	return b
}

// names says whether a slot of the bucket names a host's address.
func (b *datapathBucket6) names(word uint64, k *hostKey) bool {
	a := (*[16]uint64)(unsafe.Pointer(b))[2*(word>>valueBits&7):]
	return a[0] == k.hi && a[1] == k.lo
}

// slot6 looks into the slot at a position.
func (r *reader) slot6(at uint32, k *hostKey) uint32 {
	if at/16 >= r.maps.Buckets6.MaxEntries() {
		return 0
	}
	b := r.bucket6(at / 16)
	word := (*[16]uint64)(unsafe.Pointer(&b))[at%16]
	if uint32(word>>spaceShift) != k.space || !b.names(word, k) {
		return 0
	}
	return uint32(word & maxValue)
}

func (r *reader) overflow(k *hostKey) uint32 {
	o := overflowKey(k)
	var at uint32
	switch err := r.maps.Overflow.Lookup(&o, &at); {
	case errors.Is(err, ebpf.ErrKeyNotExist):
		return 0
	case err != nil:
		r.t.Fatal(err)
	}
	r.overflowed++
	return r.slot6(at, k)
}

// compare fails the test where the table and the twin differ, asked in every way there is.
func compare(t *testing.T, h *Hosts, m HostMaps, twin map[host]uint32) {
	t.Helper()
	n4, n6 := 0, 0
	r := newReader(t, m)
	for k, want := range twin {
		if k.addr.Is4() {
			n4++
		} else {
			n6++
		}
		if got, ok := h.Get(k.space, k.addr); !ok || got != want {
			t.Fatalf("Get(%v) = %d, %t, want %d", k, got, ok, want)
		}
		if got := r.lookup(k); got != want {
			t.Fatalf("a reader finds %d for %v, want %d", got, k, want)
		}
	}
	if h.Len4() != n4 || h.Len6() != n6 {
		t.Fatalf("Len4, Len6 = %d, %d, want %d, %d", h.Len4(), h.Len6(), n4, n6)
	}
	seen := make(map[host]bool)
	h.Each(func(space uint16, addr netip.Addr, value uint32) bool {
		k := host{space, addr}
		if seen[k] {
			t.Fatalf("Each shows %v twice", k)
		}
		seen[k] = true
		if want := twin[k]; value != want {
			t.Fatalf("Each shows %d for %v, want %d", value, k, want)
		}
		return true
	})
	compareFront(t, r, twin)
	if len(seen) != len(twin) {
		t.Fatalf("Each shows %d hosts, want %d", len(seen), len(twin))
	}
}

// checkSettled fails the test where a settled table still holds what nobody needs: second copies, reserved slots,
// overflow entries of placed hosts, slots of hosts that left.
func checkSettled(t *testing.T, h *Hosts) {
	t.Helper()
	if n := h.Pending(); n != 0 {
		t.Fatalf("%d things are pending after Settle", n)
	}
	tab := h.cur
	slotsUsed, stuck4, stuck6 := [2]int{}, 0, 0
	for i, s := range []*slots{&tab.v4, &tab.v6} {
		if len(s.busy) != 0 {
			t.Fatalf("%d slots are still reserved", len(s.busy))
		}
		for at := range s.in(0, s.buckets) {
			if s.word[at] != 0 {
				slotsUsed[i]++
			}
		}
	}
	for k, w := range tab.waiting {
		if w.placed || w.gone || w.path != nil {
			t.Fatalf("settled, but %s is on its way: %+v", k.addr(), w)
		}
		if k.v6 {
			stuck6++
		} else {
			stuck4++
		}
	}
	if slotsUsed[0]+stuck4 != h.Len4() || slotsUsed[1]+stuck6 != h.Len6() {
		t.Fatalf("%d and %d slots in use, %d and %d waiting for %d and %d hosts",
			slotsUsed[0], slotsUsed[1], stuck4, stuck6, h.Len4(), h.Len6())
	}
	waiting := 0
	for i := range waitingBuckets * bucket6Size {
		if tab.v6.word[tab.room.at(i)] != 0 {
			waiting++
		}
	}
	if waiting != stuck4+stuck6 {
		t.Fatalf("%d slots of the waiting room are used by %d hosts", waiting, stuck4+stuck6)
	}
	entries := 0
	var o datapathOverflowKey
	var place uint32
	it := tab.maps.Overflow.Iterate()
	for it.Next(&o, &place) {
		entries++
	}
	if err := it.Err(); err != nil || entries != len(tab.waiting) {
		t.Fatalf("the overflow has %d entries for %d waiting hosts (%v)", entries, len(tab.waiting), err)
	}
}

func mustPut(t testing.TB, h *Hosts, k host, value uint32) {
	t.Helper()
	if err := h.Put(k.space, k.addr, value); err != nil {
		t.Fatalf("Put(%v, %d): %v", k, value, err)
	}
}

func mustSettle(t testing.TB, h *Hosts) {
	t.Helper()
	if err := h.Settle(); err != nil {
		t.Fatal(err)
	}
}

// TestHostsTwin plays random sequences of inserts, replacements, moves and deletes against a plain Go map, up
// to 95% of the slots in use, over growths and over restarts at any point between two calls.
func TestHostsTwin(t *testing.T) {
	r := seeded(t)
	g := newGrace(t)
	for round := range 6 {
		capacity := []uint32{10, 100, 1000, 1000, 3000, 10000}[round]
		m, h := createHosts(t, g, capacity)
		twinRound(t, r, g, m, h)
	}
}

func twinRound(t *testing.T, r *rand.Rand, g *Grace, m HostMaps, h *Hosts) {
	twin := make(map[host]uint32)
	slotCount := h.cur.v4.room()
	value := func() uint32 { return 1 + r.Uint32N(maxValue) }
	for step := range 12 * slotCount {
		k := testHost(r.IntN(2) == 0, r.IntN(slotCount))
		full := h.Len4() > slotCount*95/100
		if k.addr.Is6() {
			full = h.Len6() > slotCount*95/100
		}
		switch _, there := twin[k]; {
		case there && (full || r.IntN(8) == 0):
			if !h.Delete(k.space, k.addr) {
				t.Fatalf("step %d: Delete(%v) found nothing", step, k)
			}
			delete(twin, k)
		case there || !full:
			twin[k] = value()
			mustPut(t, h, k, twin[k])
		default:
			if h.Delete(k.space, k.addr) {
				t.Fatalf("step %d: Delete(%v) found what was never put", step, k)
			}
		}
		switch r.IntN(2 * slotCount) {
		case 0, 1:
			mustSettle(t, h)
			checkSettled(t, h)
			compare(t, h, m, twin)
		case 2: // half of Settle
			h.rest()
			compare(t, h, m, twin)
		case 3:
			h = restart(t, g, m, h)
			compare(t, h, m, twin)
		}
	}
	h = restart(t, g, m, h)
	next, err := h.Grow(uint32(h.Cap()) * 3 / 2)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = next.Close() })
	for k := range twin { // changes while both are written
		switch r.IntN(4) {
		case 0:
			h.Delete(k.space, k.addr)
			delete(twin, k)
		case 1:
			twin[k] = value()
			mustPut(t, h, k, twin[k])
		}
	}
	compare(t, h, m, twin)
	mustSettle(t, h)                 // a second writer may look at the table only while it has nothing to finish in it
	other, err := OpenHosts(next, g) // whoever finds the new table after a crash
	if err != nil {
		t.Fatal(err)
	}
	compare(t, other, next, twin)
	_ = other.Close()
	if err := h.CommitGrow(); err != nil {
		t.Fatal(err)
	}
	compare(t, h, next, twin)
	mustSettle(t, h)
	checkSettled(t, h)
	compare(t, h, next, twin)
}

// restart is what a killed daemon's successor does.
func restart(t *testing.T, g *Grace, m HostMaps, old *Hosts) *Hosts {
	h, err := OpenHosts(m, g)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	_ = old.Close()
	return h
}

// TestHostsFull fills a table until it refuses, and sees that a refusal changes nothing and that everything
// that was accepted is served.
func TestHostsFull(t *testing.T) {
	g := newGrace(t)
	for _, v6 := range []bool{false, true} {
		m, h := createHosts(t, g, 100)
		twin := make(map[host]uint32)
		slotCount := h.cur.v4.room()
		full := 0
		for i := 0; full < 100; i++ {
			k := testHost(v6, i)
			switch err := h.Put(k.space, k.addr, 7); {
			case err == nil:
				twin[k] = 7
			case errors.Is(err, ErrFull):
				full++
			default:
				t.Fatal(err)
			}
			if i%8192 == 0 {
				mustSettle(t, h)
			}
		}
		mustSettle(t, h)
		if v6 {
			slotCount = h.cur.v6.room()
		}
		if want := slotCount + int(waitingMax); len(twin) < want-bucketSize || len(twin) > want {
			t.Errorf("took %d hosts, %d have room", len(twin), want)
		}
		compare(t, h, m, twin)
		for k := range twin { // room for others makes room for those that wait
			if !h.Delete(k.space, k.addr) {
				t.Fatalf("Delete(%v) found nothing", k)
			}
			delete(twin, k)
			if len(twin) <= slotCount*9/10 {
				break
			}
		}
		mustSettle(t, h)
		compare(t, h, m, twin)
		if n := h.Waiting(); n != 0 {
			t.Errorf("%d hosts still wait at nine tenths of the slots", n)
		}
		checkSettled(t, h)
	}
}

// TestHostsSlotsRest deletes and inserts more IPv6 hosts than there are slots to spare without settling in
// between.
func TestHostsSlotsRest(t *testing.T) {
	g := newGrace(t)
	m, h := createHosts(t, g, 100)
	twin := make(map[host]uint32)
	for i := range 3 * (h.cur.v6.room() + int(waitingMax)) {
		k := testHost(true, i)
		mustPut(t, h, k, 1)
		if i%4000 == 0 {
			twin[k] = 1
		} else if !h.Delete(k.space, k.addr) {
			t.Fatalf("Delete(%v) found nothing", k)
		}
	}
	compare(t, h, m, twin)
	mustSettle(t, h)
	checkSettled(t, h)
}

func TestHostsBadInput(t *testing.T) {
	g := newGrace(t)
	_, h := createHosts(t, g, 10)
	v4 := netip.MustParseAddr("10.0.0.1")
	for _, c := range []struct {
		name  string
		space uint16
		addr  netip.Addr
		value uint32
		want  string
	}{
		{"space 0", 0, v4, 1, "space 0 of host 10.0.0.1 is outside 1..4095"},
		{"space 4096", 4096, v4, 1, "space 4096 of host 10.0.0.1 is outside 1..4095"},
		{"no address", 1, netip.Addr{}, 1, "host in space 1 has no address"},
		{"mapped", 1, netip.MustParseAddr("::ffff:10.0.0.1"), 1, "host ::ffff:10.0.0.1 is an IPv4-mapped IPv6 address: give it as IPv4"},
		{"zone", 1, netip.MustParseAddr("fe80::1%lan0"), 1, "host fe80::1%lan0 has a zone: give the address alone"},
		{"value 0", 1, v4, 0, "value 0 of host 10.0.0.1 is outside 1..1048575"},
		{"value too large", 1, v4, 1 << 20, "value 1048576 of host 10.0.0.1 is outside 1..1048575"},
	} {
		if err := h.Put(c.space, c.addr, c.value); err == nil || err.Error() != c.want {
			t.Errorf("%s: Put says %v, want %s", c.name, err, c.want)
		}
		if c.value == 1 {
			if _, ok := h.Get(c.space, c.addr); ok || h.Delete(c.space, c.addr) {
				t.Errorf("%s: found", c.name)
			}
		}
	}
	if h.Len4()+h.Len6() != 0 {
		t.Errorf("refused hosts were kept")
	}
	if _, err := CreateHostMaps(hostsMax + 1); err == nil {
		t.Errorf("a table with more words than have a number was created")
	}
}

// TestHostsRefused opens what is no host table of this version.
func TestHostsRefused(t *testing.T) {
	g := newGrace(t)
	for _, c := range []struct {
		name string
		harm func(m *HostMaps, h4, h6 *TableHeader)
		want string
	}{
		{
			"magic", func(_ *HostMaps, h4, _ *TableHeader) { h4.Magic++ },
			"map hosts4 is no host table (magic 0x54534f484d414f53): remove it to begin anew",
		},
		{
			"version", func(_ *HostMaps, _, h6 *TableHeader) { h6.Version = 99 },
			"map hosts6 has layout version 99 and this program writes version 4: run the version that made it, or remove it to begin anew",
		},
		{
			"size", func(_ *HostMaps, h4, _ *TableHeader) { h4.Buckets-- },
			"map hosts4 has 145 entries, and its header says 15 buckets, which makes 144: remove it to begin anew",
		},
		{
			"size of IPv6", func(_ *HostMaps, _, h6 *TableHeader) { h6.Buckets++ },
			"map hosts6 has 13391 entries, and its header says 27 buckets, which makes 13392: remove it to begin anew",
		},
		{
			"type", func(m *HostMaps, _, _ *TableHeader) { m.Buckets4, m.Overflow = m.Overflow, m.Buckets4 },
			"map hosts4 is no host table (type Hash, 65536 entries of 4 bytes): remove it to begin anew",
		},
		{
			"overflow", func(m *HostMaps, _, _ *TableHeader) { m.Overflow = m.Buckets6 },
			"map host_overflow has keys of 4 and values of 128 bytes instead of 20 and 4: these maps do not belong together, remove them to begin anew",
		},
	} {
		m, err := CreateHostMaps(100)
		if err != nil {
			t.Fatal(err)
		}
		h4, h6, err := m.Headers()
		if err != nil {
			t.Fatal(err)
		}
		harmed := m
		c.harm(&harmed, &h4, &h6)
		if err := errors.Join(WriteTableHeader(m.Buckets4, h4), WriteTableHeader(m.Buckets6, h6)); err != nil {
			t.Fatal(err)
		}
		h, err := OpenHosts(harmed, g)
		if err == nil {
			_ = h.Close()
		}
		if err == nil || err.Error() != c.want {
			t.Errorf("%s: OpenHosts says %v, want %s", c.name, err, c.want)
		}
		_ = m.Close()
	}
}

func TestHostsGrowOnce(t *testing.T) {
	g := newGrace(t)
	_, h := createHosts(t, g, 100)
	if err := h.CommitGrow(); err == nil {
		t.Error("committed a growth that was never begun")
	}
	next, err := h.Grow(200)
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	if _, err := h.Grow(400); err == nil {
		t.Error("grew twice at once")
	}
	if err := errors.Join(h.AbortGrow(), h.AbortGrow()); err != nil {
		t.Error(err)
	}
	mustPut(t, h, testHost(false, 1), 1)
	if got := newReader(t, next).lookup(testHost(false, 1)); got != 0 {
		t.Error("an aborted growth is still written to")
	}
}

// TestHostsGrowTooSmall grows into a table that cannot hold what is there.
func TestHostsGrowTooSmall(t *testing.T) {
	g := newGrace(t)
	m, h := createHosts(t, g, 100_000)
	twin := make(map[host]uint32)
	for i := range 100_000 {
		k := testHost(i%2 == 0, i)
		twin[k] = 3
		mustPut(t, h, k, 3)
	}
	if _, err := h.Grow(10); !errors.Is(err, ErrFull) {
		t.Fatalf("Grow(10) with 100000 hosts says %v", err)
	}
	mustSettle(t, h)
	compare(t, h, m, twin)
	checkSettled(t, h)
}

func TestHostsClosed(t *testing.T) {
	g := newGrace(t)
	_, h := createHosts(t, g, 100)
	k := testHost(false, 1)
	mustPut(t, h, k, 1)
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	if err := h.Put(k.space, k.addr, 2); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Put after Close says %v", err)
	}
	if _, ok := h.Get(k.space, k.addr); ok || h.Delete(k.space, k.addr) || h.Len4() != 0 || h.Pending() != 0 {
		t.Error("a closed table answers")
	}
	if _, err := h.Grow(1000); err == nil {
		t.Error("a closed table grows")
	}
	if err := errors.Join(h.Settle(), h.Close()); err != nil {
		t.Error(err)
	}
}

// TestHostKey checks the border between addresses and words, where byte order could go wrong.
func TestHostKey(t *testing.T) {
	k, err := newHostKey(0xabc, netip.MustParseAddr("1.2.3.4"))
	if err != nil {
		t.Fatal(err)
	}
	if k.key4() != 0xabc01020304 {
		t.Errorf("IPv4 key is %#x", k.key4())
	}
	if hostKey4(k.key4()) != k {
		t.Errorf("%+v comes back as %+v", k, hostKey4(k.key4()))
	}
	o := overflowKey(&k)
	if o.Addr != [4]uint32{0, 0, 0xffff0000, bits.ReverseBytes32(0x01020304)} || o.Space != 0xabc {
		t.Errorf("overflow key is %x", o)
	}
	for _, s := range []string{"1.2.3.4", "2001:db8::1", "::", "::102:304", "ffff::"} {
		k, err := newHostKey(5, netip.MustParseAddr(s))
		if err != nil {
			t.Fatal(err)
		}
		o := overflowKey(&k)
		if back, ok := waitingKey(&o); !ok || back != k || back.addr().String() != s {
			t.Errorf("%s comes back as %s (%+v)", s, back.addr(), back)
		}
	}
}

// TestHostsGrowRefused lets the second table refuse what the first takes: then neither has it.
func TestHostsGrowRefused(t *testing.T) {
	g := newGrace(t)
	m, h := createHosts(t, g, 100_000)
	known := testHost(false, 0)
	mustPut(t, h, known, 1)
	next, err := h.Grow(1)
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	twin := map[host]uint32{known: 1}
	for i := 1; ; i++ {
		k := testHost(i%2 == 0, i)
		err := h.Put(k.space, k.addr, 5)
		if errors.Is(err, ErrFull) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		twin[k] = 5
	}
	if len(twin) < int(waitingMax) {
		t.Fatalf("refused after %d hosts already", len(twin))
	}
	twin[known] = 9
	mustPut(t, h, known, 9) // what is there can still change
	compare(t, h, m, twin)
	if err := h.AbortGrow(); err != nil {
		t.Fatal(err)
	}
	k := testHost(false, 1_000_000)
	twin[k] = 6
	mustPut(t, h, k, 6)
	compare(t, h, m, twin)
	mustSettle(t, h)
	checkSettled(t, h)
}

// TestHostsPutAll applies a list in order and stops at its first bad entry.
func TestHostsPutAll(t *testing.T) {
	g := newGrace(t)
	m, h := createHosts(t, g, 100)
	twin := make(map[host]uint32)
	var list []HostValue
	for i := range 90 {
		k := testHost(i%2 == 0, i%70) // some twice: the later value counts
		list = append(list, HostValue{k.space, k.addr, uint32(i + 1)})
		twin[k] = uint32(i + 1)
	}
	list = append(list, HostValue{1, netip.Addr{}, 1}, HostValue{1, netip.MustParseAddr("192.0.2.1"), 1})
	done, err := h.PutAll(list)
	if done != 90 || err == nil || err.Error() != "host in space 1 has no address" {
		t.Errorf("PutAll = %d, %v", done, err)
	}
	compare(t, h, m, twin)
}

// TestHostsGrowHolds settles in the middle of a copy, when a host that left the second half for the first would
// be missed.
func TestHostsGrowHolds(t *testing.T) {
	r := seeded(t)
	g := newGrace(t)
	_, h := createHosts(t, g, 1000)
	twin := make(map[host]uint32)
	slotCount := h.cur.v4.room()
	for i := range slotCount * 95 / 100 {
		for _, v6 := range []bool{false, true} {
			k := testHost(v6, i)
			twin[k] = 1 + r.Uint32N(maxValue)
			mustPut(t, h, k, twin[k])
		}
	}
	if h.Waiting() < 10 {
		t.Fatalf("only %d hosts wait to be placed", h.Waiting())
	}
	next, err := CreateHostMaps(2000)
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	table, err := openHostTable(next)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.startGrow(table); err != nil {
		t.Fatal(err)
	}
	for half := range uint32(2) {
		for _, s := range []*slots{&h.cur.v4, &h.cur.v6} {
			err := h.copyWith(func(yield func(hostKey, uint32) bool) {
				h.cur.eachSlot(s, half*s.buckets/2, (half+1)*s.buckets/2, yield)
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		mustSettle(t, h)
	}
	if err := h.copyWith(func(yield func(hostKey, uint32) bool) { h.cur.eachWaiting(yield) }); err != nil {
		t.Fatal(err)
	}
	h.endFill()
	if err := h.CommitGrow(); err != nil {
		t.Fatal(err)
	}
	compare(t, h, next, twin)
}
