package rib

import (
	"cmp"
	"encoding/binary"
	"math/bits"
	"math/rand/v2"
	"net/netip"

	"roam/loader/route"
)

// The table is built for a million hosts of one claim each: a record is 44 bytes without a pointer, so that the
// garbage collector neither scans nor moves it, and the index is 8 bytes a slot. A Go map would need about twice
// that and rehash everything at once while growing; the index is cut into shards that grow one by one.

// key is a route.Key in 19 bytes: IPv4 lies in ::ffff:0:0/96, which Key.Valid keeps free of IPv6 prefixes.
type key struct {
	addr   [16]byte
	tenant uint16
	bits   uint8
}

func keyOf(k route.Key) key {
	n := k.Prefix.Bits()
	if k.Prefix.Addr().Is4() {
		n += 96
	}
	return key{addr: k.Prefix.Addr().As16(), tenant: uint16(k.Tenant), bits: uint8(n)}
}

func (k key) host() bool { return k.bits == 128 }

func (k key) prefix() netip.Prefix {
	a := netip.AddrFrom16(k.addr)
	if k.bits >= 96 && a.Is4In6() {
		return netip.PrefixFrom(a.Unmap(), int(k.bits)-96)
	}
	return netip.PrefixFrom(a, int(k.bits))
}

func (k key) route() route.Key {
	return route.Key{Tenant: route.TenantID(k.tenant), Prefix: k.prefix()}
}

// compare orders by tenant, address and length; IPv4 sorts as ::ffff:0:0/96.
func (k key) compare(l key) int {
	return cmp.Or(
		cmp.Compare(k.tenant, l.tenant),
		cmp.Compare(binary.BigEndian.Uint64(k.addr[:8]), binary.BigEndian.Uint64(l.addr[:8])),
		cmp.Compare(binary.BigEndian.Uint64(k.addr[8:]), binary.BigEndian.Uint64(l.addr[8:])),
		cmp.Compare(k.bits, l.bits),
	)
}

// record is everything known about a key. The best claim is inline; others hang off it, unordered.
type record struct {
	key
	flags uint8
	best  claim
	more  uint32 // index of the next claim in table.extra, 0 for none
}

const (
	recordTouched = 1 << iota // its answer before this window is noted
	recordUsed                // not on the free list
)

type extra struct {
	claim
	next uint32
}

const (
	chunkBits = 12
	chunkSize = 1 << chunkBits
	shards    = 256
)

type table struct {
	seed    [2]uint64
	shards  [shards]shard
	records []*[chunkSize]record
	end     uint32   // records ever used; index 0 is nobody's
	free    []uint32 // of those, not in use now
	len     int

	extra     []extra
	freeExtra uint32

	// lengths counts the keys of each length in each tenant, so that a search for the longest match tries only
	// those that exist. IPv4 and IPv6 share the lengths from 96 on: a look-up too many now and then, no wrong answer.
	lengths []*[129]uint32 // by tenant

	warmth uint64 // what warm read: the compiler must not drop it
}

func newTable() table {
	return table{
		seed:    [2]uint64{rand.Uint64(), rand.Uint64()},
		end:     1,
		extra:   make([]extra, 1),
		lengths: make([]*[129]uint32, route.MaxTenant+1),
	}
}

func (t *table) at(i uint32) *record { return &t.records[i>>chunkBits][i%chunkSize] }

// hash mixes with a random seed, so that nobody can choose addresses that collide.
func (t *table) hash(k key) uint64 {
	hi, lo := bits.Mul64(binary.LittleEndian.Uint64(k.addr[:8])^t.seed[0],
		binary.LittleEndian.Uint64(k.addr[8:])^t.seed[1])
	hi, lo = bits.Mul64(hi^lo, (uint64(k.tenant)<<8|uint64(k.bits))^t.seed[1])
	return hi ^ lo
}

func (t *table) find(k key) (uint32, bool) { return t.findHashed(k, t.hash(k)) }

// warm reads the slots where searches for these hashes will begin. Reads that do not wait for each other cost a
// tenth of those that do: among a million records this takes a fifth off a bulk report.
func (t *table) warm(hashes []uint64) {
	for _, h := range hashes {
		if s := &t.shards[h>>56]; len(s.slots) > 0 {
			t.warmth += s.slots[s.start(h)]
		}
	}
}

func (t *table) findHashed(k key, h uint64) (uint32, bool) {
	s := &t.shards[h>>56]
	for p := s.start(h); len(s.slots) > 0 && s.slots[p] != 0; p = s.step(p) {
		if i := uint32(s.slots[p]); s.slots[p]>>32 == h&(1<<32-1) && t.at(i).key == k {
			return i, true
		}
	}
	return 0, false
}

// insert returns the record of a key, whose hash is h, that has none yet.
func (t *table) insert(k key, h uint64) uint32 {
	var i uint32
	if n := len(t.free); n > 0 {
		i, t.free = t.free[n-1], t.free[:n-1]
	} else {
		if int(t.end>>chunkBits) == len(t.records) {
			t.records = append(t.records, new([chunkSize]record))
		}
		i = t.end
		t.end++
	}
	*t.at(i) = record{key: k, flags: recordUsed}
	t.shards[h>>56].insert(h<<32 | uint64(i))
	t.len++
	if t.lengths[k.tenant] == nil {
		t.lengths[k.tenant] = new([129]uint32)
	}
	t.lengths[k.tenant][k.bits]++
	return i
}

// remove frees the record of a key that has no claim left.
func (t *table) remove(i uint32) {
	k := t.at(i).key
	h := t.hash(k)
	t.shards[h>>56].remove(h<<32 | uint64(i))
	*t.at(i) = record{}
	t.free = append(t.free, i)
	t.len--
	t.lengths[k.tenant][k.bits]--
}

// covering calls f for the records that hold addr, longest prefix first, until f returns false.
func (t *table) covering(tenant route.TenantID, addr netip.Addr, f func(i uint32) bool) {
	if tenant > route.MaxTenant || t.lengths[tenant] == nil {
		return
	}
	lengths := t.lengths[tenant]
	shortest, mapped := 0, 0
	if addr.Is4() {
		shortest, mapped = 96, 96
	}
	for n := 128; n >= shortest; n-- {
		if lengths[n] == 0 {
			continue
		}
		p, err := addr.Prefix(n - mapped)
		if err != nil {
			continue
		}
		if i, ok := t.find(keyOf(route.Key{Tenant: tenant, Prefix: p})); ok && !f(i) {
			return
		}
	}
}

// shard is an open-addressed set of hash<<32 | record; zero is an empty slot.
type shard struct {
	slots []uint64
	n     int
}

func (s *shard) start(h uint64) uint32 { return uint32(h) & uint32(len(s.slots)-1) }
func (s *shard) step(p uint32) uint32  { return (p + 1) & uint32(len(s.slots)-1) }

func (s *shard) insert(slot uint64) {
	if s.n >= len(s.slots)*3/4 {
		old := s.slots
		s.slots = make([]uint64, max(16, 2*len(old)))
		for _, o := range old {
			if o != 0 {
				s.place(o)
			}
		}
	}
	s.place(slot)
	s.n++
}

func (s *shard) place(slot uint64) {
	p := s.start(slot >> 32)
	for s.slots[p] != 0 {
		p = s.step(p)
	}
	s.slots[p] = slot
}

// remove closes the gap it makes, so that a search may stop at the first empty slot without tombstones.
func (s *shard) remove(slot uint64) {
	p := s.start(slot >> 32)
	for s.slots[p] != slot {
		p = s.step(p)
	}
	for q := s.step(p); s.slots[q] != 0; q = s.step(q) {
		home, size := s.start(s.slots[q]>>32), uint32(len(s.slots)-1)
		if (q-home)&size >= (q-p)&size {
			s.slots[p], p = s.slots[q], q
		}
	}
	s.slots[p] = 0
	s.n--
}

// addExtra hangs a claim off a record.
func (t *table) addExtra(rec *record, c claim) {
	i := t.freeExtra
	if i != 0 {
		t.freeExtra = t.extra[i].next
	} else {
		i = uint32(len(t.extra))
		t.extra = append(t.extra, extra{})
	}
	t.extra[i] = extra{claim: c, next: rec.more}
	rec.more = i
}

// takeExtra removes the claim that link points to.
func (t *table) takeExtra(link *uint32) claim {
	i := *link
	c := t.extra[i].claim
	*link = t.extra[i].next
	t.extra[i] = extra{next: t.freeExtra}
	t.freeExtra = i
	return c
}
