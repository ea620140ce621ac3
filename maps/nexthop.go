package maps

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"unsafe"
)

// Target is what a next hop means, and the key by which equal next hops are one. Comparable. Only the fields of
// its Kind count; the others must be zero.
type Target struct {
	Kind    uint8  // KindAdjacency, KindSet or KindLocal
	Flags   uint8  // FlagHeld or FlagMoved, either with FlagAwaited
	Tenant  uint16 // space of the tenant
	Variant uint16 // adjacency: the locator entry
	Port    uint16 // local: slot
	Segment uint16 // local
	MAC     [6]byte
	Members string // set: see MembersOf
}

// MembersOf packs the member variants of a set, one for each of its SetMembers buckets, into a Target's key. As many again, for each
// further priority, say who takes over when of those before nobody is left.
func MembersOf(variants []uint16) string {
	b := make([]byte, 2*len(variants))
	for i, v := range variants {
		b[2*i], b[2*i+1] = byte(v>>8), byte(v)
	}
	return string(b)
}

func (t Target) members() []uint16 {
	out := make([]uint16, len(t.Members)/2)
	for i := range out {
		out[i] = uint16(t.Members[2*i])<<8 | uint16(t.Members[2*i+1])
	}
	return out
}

// ErrFull says that a table of fixed size has no room; it is wrapped with the table's name.
var ErrFull = errors.New("no room left")

// NexthopTable interns next hops: equal targets share one id, which lives while somebody holds a reference. An id
// names one aligned word, the word names an immutable record; a change writes a new record and swaps the word, so
// that no packet sees half of it. Records and ids are used again only after a grace period (Rest and Free).
//
// One goroutine only.
type NexthopTable struct {
	words    *memory[Nexthop]
	locals   *memory[Local]
	sets     *memory[Set]
	adjs     *memory[Adjacency]
	ids      map[Target]uint32
	entries  map[uint32]*entry
	whole    map[uint32][]Set        // members of sets by priority, whether they have a rewrite now or not; each bucket holds a reference
	records  map[adjacencyKey]uint32 // resolved adjacencies: the record that all ids of a (tenant, variant) share
	leads    map[adjacencyKey]int    // ids in use that lead to an adjacency, resolved or not: few, where the hosts here have an id each
	doubted  map[uint16]bool         // variants that sets avoid
	freeID   allocator
	freeLoc  allocator
	freeSet  allocator
	freeAdj  allocator
	released []uint32 // ids without references, their words still readable
}

type entry struct {
	target Target
	refs   uint32
}

type adjacencyKey struct{ tenant, variant uint16 }

// firstAdjacency keeps the first adjacencies, with which most gateways do, away from the offset in a page at which drivers put
// a frame's head: a processor takes a load from there for one that depends on a store to the head, and waits.
const firstAdjacency = 8

// OpenNexthops adopts what the maps hold: every id that a table may name is understood again, with no references yet.
// The caller scans its tables and calls Hold for each value it finds, then Sweep.
func OpenNexthops(o *Objects) (*NexthopTable, error) {
	n := &NexthopTable{
		ids: map[Target]uint32{}, entries: map[uint32]*entry{}, whole: map[uint32][]Set{}, records: map[adjacencyKey]uint32{}, leads: map[adjacencyKey]int{},
		freeID:  newAllocator(IDFirst, uint32(Nexthops)),
		freeLoc: newAllocator(0, uint32(Nexthops)),
		freeSet: newAllocator(0, uint32(Sets)),
		freeAdj: newAllocator(firstAdjacency, uint32(Adjacencies)),
	}
	var errs [4]error
	n.words, errs[0] = mapArray[Nexthop](o.Nexthops)
	n.locals, errs[1] = mapArray[Local](o.Locals)
	n.sets, errs[2] = mapArray[Set](o.Sets)
	n.adjs, errs[3] = mapArray[Adjacency](o.Adjacencies)
	if err := errors.Join(errs[:]...); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	for id, kind := range map[uint32]uint8{
		IDGateway: KindGateway, IDOwn: KindOwn, IDKernel: KindKernel, IDBlackhole: KindBlackhole,
	} {
		n.words.store(id, word(Nexthop{Kind: kind}))
	}
	n.adopt()
	return n, nil
}

// Close unmaps the tables; the data path keeps using them.
func (n *NexthopTable) Close() error {
	var err error
	if n.words != nil {
		err = errors.Join(err, n.words.close())
	}
	if n.locals != nil {
		err = errors.Join(err, n.locals.close())
	}
	if n.sets != nil {
		err = errors.Join(err, n.sets.close())
	}
	if n.adjs != nil {
		err = errors.Join(err, n.adjs.close())
	}
	return err
}

func word(nh Nexthop) uint64 { return *(*uint64)(unsafe.Pointer(&nh)) }

func nexthop(w uint64) Nexthop { return *(*Nexthop)(unsafe.Pointer(&w)) }

// adopt reads every word. Sets come last, because their members must be known first.
func (n *NexthopTable) adopt() {
	var sets []uint32
	for id := IDFirst; id < uint32(Nexthops); id++ {
		w := n.words.load(id)
		if w == 0 {
			continue
		}
		nh := nexthop(w)
		n.freeID.take(id)
		switch nh.Kind {
		case KindSet:
			sets = append(sets, id)
		case KindLocal:
			n.freeLoc.take(nh.Index)
			l := n.locals.entries[nh.Index]
			n.know(id, Target{Kind: KindLocal, Flags: nh.Flags, Tenant: nh.Tenant, MAC: l.Mac, Port: l.Port, Segment: l.Segment})
		case KindUnresolved:
			n.know(id, Target{Kind: KindAdjacency, Flags: nh.Flags, Tenant: nh.Tenant, Variant: uint16(nh.Index)})
		case KindAdjacency:
			a := n.adjs.entries[nh.Index]
			n.freeAdj.take(nh.Index)
			n.records[adjacencyKey{nh.Tenant, a.Variant}] = nh.Index
			n.know(id, Target{Kind: KindAdjacency, Flags: nh.Flags, Tenant: nh.Tenant, Variant: a.Variant})
		}
	}
	for _, id := range sets {
		nh := nexthop(n.words.load(id))
		n.freeSet.take(nh.Index)
		var variants []uint16
		n.whole[id] = []Set{n.sets.entries[nh.Index]}
		for _, member := range n.whole[id][0].Member {
			if e := n.entries[member]; e != nil {
				variants = append(variants, e.target.Variant)
				e.refs++
			}
		}
		n.know(id, Target{Kind: KindSet, Flags: nh.Flags, Tenant: nh.Tenant, Members: MembersOf(variants)})
	}
}

// know enters an adopted id. A second id of one target, left by a crash, works until its last host moves on.
func (n *NexthopTable) know(id uint32, t Target) {
	n.entries[id] = &entry{target: t}
	if _, twice := n.ids[t]; !twice {
		n.enter(t, id)
	}
}

// enter makes a target found by its id.
func (n *NexthopTable) enter(t Target, id uint32) {
	n.ids[t] = id
	if t.Kind == KindAdjacency {
		n.leads[adjacencyKey{t.Tenant, t.Variant}]++
	}
}

// Without returns the id of what another id leads to, without some of its flags, with one more reference; false where the id has none of them.
func (n *NexthopTable) Without(id uint32, flags uint8) (uint32, bool, error) {
	e := n.entries[id]
	if e == nil || e.target.Flags&flags == 0 {
		return 0, false, nil
	}
	t := e.target
	t.Flags &^= flags
	plain, err := n.Acquire(t)
	return plain, err == nil, err
}

// Acquire returns the id of a target with one more reference. A new adjacency starts unresolved. An error wraps ErrFull
// and changes nothing.
func (n *NexthopTable) Acquire(t Target) (uint32, error) {
	if id, ok := n.ids[t]; ok {
		n.entries[id].refs++
		return id, nil
	}
	id, ok := n.freeID.get()
	if !ok {
		return 0, fmt.Errorf("next hops: %w", ErrFull)
	}
	nh, err := n.record(id, t)
	if err != nil {
		n.freeID.put(id)
		return 0, err
	}
	n.words.store(id, word(nh))
	n.enter(t, id)
	n.entries[id] = &entry{target: t, refs: 1}
	return id, nil
}

// record writes what the target's word is to name.
func (n *NexthopTable) record(id uint32, t Target) (Nexthop, error) {
	nh := Nexthop{Kind: t.Kind, Flags: t.Flags, Tenant: t.Tenant}
	switch t.Kind {
	case KindLocal:
		i, ok := n.freeLoc.get()
		if !ok {
			return nh, fmt.Errorf("local deliveries: %w", ErrFull)
		}
		n.locals.entries[i] = Local{Mac: t.MAC, Port: t.Port, Segment: t.Segment}
		nh.Index = i
	case KindAdjacency:
		nh.Kind, nh.Index = KindUnresolved, uint32(t.Variant)
		if i, ok := n.records[adjacencyKey{t.Tenant, t.Variant}]; ok {
			nh.Kind, nh.Index = KindAdjacency, i
		}
	case KindSet:
		return n.recordSet(id, nh, t)
	default:
		return nh, fmt.Errorf("next hop of kind %d cannot be interned", t.Kind)
	}
	return nh, nil
}

func (n *NexthopTable) recordSet(id uint32, nh Nexthop, t Target) (Nexthop, error) {
	variants := t.members()
	if len(variants) == 0 || len(variants)%SetMembers != 0 {
		return nh, fmt.Errorf("a set has %d members for each priority, this one %d in all", SetMembers, len(variants))
	}
	i, ok := n.freeSet.get()
	if !ok {
		return nh, fmt.Errorf("sets: %w", ErrFull)
	}
	levels := make([]Set, len(variants)/SetMembers)
	for k, v := range variants {
		member, err := n.Acquire(Target{Kind: KindAdjacency, Tenant: t.Tenant, Variant: v})
		if err != nil {
			n.releaseMembers(levels)
			n.freeSet.put(i)
			return nh, err
		}
		levels[k/SetMembers].Member[k%SetMembers] = member
	}
	n.whole[id] = levels
	n.sets.entries[i] = n.alive(levels)
	nh.Index = i
	return nh, nil
}

func (n *NexthopTable) releaseMembers(levels []Set) {
	for _, set := range levels {
		for _, member := range set.Member { // by id: after a crash a target may have two
			if member != 0 {
				n.Release(member)
			}
		}
	}
}

// alive is a set's buckets without the members that have no rewrite now or are in doubt: each of theirs goes to one of the
// others, in proportion to what those have, and all others stay where they are. The best priority that has a member left counts.
// Where all members with a rewrite are in doubt, a doubt says nothing that helps, and it does not count. A set of which nobody is
// left stays as it is, and its packets are counted as unresolved.
func (n *NexthopTable) alive(levels []Set) Set {
	for _, doubted := range []map[uint16]bool{n.doubted, nil} {
		for _, set := range levels {
			if n.fill(&set, doubted) {
				return set
			}
		}
	}
	return levels[0]
}

// fill gives the buckets of members that cannot stay to those that can, if there is one.
func (n *NexthopTable) fill(set *Set, doubted map[uint16]bool) bool {
	var living []uint32
	var dead [SetMembers]bool
	for b, member := range set.Member {
		if n.lives(member, doubted) {
			living = append(living, member)
		} else {
			dead[b] = true
		}
	}
	if len(living) == 0 {
		return false
	}
	for b := range dead {
		if dead[b] {
			set.Member[b] = living[uint64(b)*0x9E3779B97F4A7C15>>32%uint64(len(living))]
		}
	}
	return true
}

// lives reports whether a member has a rewrite and is not in doubt; one that a crash took is not known at all.
func (n *NexthopTable) lives(member uint32, doubted map[uint16]bool) bool {
	e := n.entries[member]
	if e == nil {
		return false
	}
	_, ok := n.records[adjacencyKey{e.target.Tenant, e.target.Variant}]
	return ok && !doubted[e.target.Variant]
}

// Doubt names all variants that sets are to avoid: their rewrites are good, but their far ends may not be. A next hop that is no set
// goes on using them. Balance makes it so.
func (n *NexthopTable) Doubt(variants map[uint16]bool) { n.doubted = variants }

// Balance gives the buckets of members without a rewrite, or in doubt, to others, and gives them back once that is over: after
// calls of Resolve, Unresolve and Doubt. The error wraps ErrFull; then a set stays as it was.
func (n *NexthopTable) Balance() error {
	for id, whole := range n.whole {
		want := n.alive(whole)
		nh := nexthop(n.words.load(id))
		if n.sets.entries[nh.Index] == want {
			continue
		}
		i, ok := n.freeSet.get()
		if !ok {
			return fmt.Errorf("sets: %w", ErrFull)
		}
		old := nh.Index
		n.sets.entries[i] = want
		nh.Index = i
		n.words.store(id, word(nh))
		n.freeSet.retire(old)
	}
	return nil
}

// Hold adds a reference to an id found in a table. It reports whether the id is known: a table that names an unknown one
// has an entry to remove.
func (n *NexthopTable) Hold(id uint32) bool {
	if id < IDFirst {
		return id != 0
	}
	e := n.entries[id]
	if e == nil {
		return false
	}
	e.refs++
	return true
}

// Release gives up one reference. The id keeps working until the grace period after the last one has gone.
func (n *NexthopTable) Release(id uint32) {
	e := n.entries[id]
	if e == nil {
		return
	}
	if e.refs--; e.refs == 0 {
		n.forget(id, e)
	}
}

// Sweep gives up every adopted id that nobody holds.
func (n *NexthopTable) Sweep() {
	for id, e := range n.entries {
		if e.refs == 0 {
			n.forget(id, e)
		}
	}
}

func (n *NexthopTable) forget(id uint32, e *entry) {
	delete(n.entries, id)
	if t := e.target; n.ids[t] == id {
		delete(n.ids, t)
		if key := (adjacencyKey{t.Tenant, t.Variant}); t.Kind == KindAdjacency {
			if n.leads[key]--; n.leads[key] == 0 {
				delete(n.leads, key)
			}
		}
	}
	n.released = append(n.released, id)
	if whole, ok := n.whole[id]; ok {
		delete(n.whole, id)
		n.releaseMembers(whole)
	}
}

// Target returns what an id in use means.
func (n *NexthopTable) Target(id uint32) (Target, bool) {
	e := n.entries[id]
	if e == nil {
		return Target{}, false
	}
	return e.target, true
}

// Kind returns what an id's word says now: an adjacency may be KindUnresolved.
func (n *NexthopTable) Kind(id uint32) uint8 {
	if id >= uint32(Nexthops) {
		return KindNone
	}
	return nexthop(n.words.load(id)).Kind
}

// Len is the number of ids in use.
func (n *NexthopTable) Len() int { return len(n.entries) }

// Resolve gives an adjacency its finished rewrite: every next hop of the tenant that leads to the variant uses it from the
// next packet on. Writing an equal record again changes nothing. The error wraps ErrFull; then the old one stays.
func (n *NexthopTable) Resolve(tenant, variant uint16, a Adjacency) error {
	key := adjacencyKey{tenant, variant}
	a.Variant = variant
	old, had := n.records[key]
	if had && n.adjs.entries[old] == a {
		return nil
	}
	i, ok := n.freeAdj.get()
	if !ok {
		return fmt.Errorf("adjacencies: %w", ErrFull)
	}
	n.adjs.entries[i] = a
	n.records[key] = i
	n.point(key, Nexthop{Kind: KindAdjacency, Tenant: tenant, Index: i})
	if had {
		n.freeAdj.retire(old)
	}
	return nil
}

// Fresh reports whether no next hop of the tenant leads to the variant, and no rewrite of one that did is left: the caller may resolve it
// before the first one does.
func (n *NexthopTable) Fresh(tenant, variant uint16) bool {
	key := adjacencyKey{tenant, variant}
	_, resolved := n.records[key]
	return !resolved && len(n.leading(key)) == 0
}

// Unresolve takes the rewrite back: packets for the variant are dropped and counted until it is resolved again.
func (n *NexthopTable) Unresolve(tenant, variant uint16) {
	key := adjacencyKey{tenant, variant}
	old, had := n.records[key]
	if !had {
		return
	}
	delete(n.records, key)
	n.point(key, Nexthop{Kind: KindUnresolved, Tenant: tenant, Index: uint32(variant)})
	n.freeAdj.retire(old)
}

// point swaps the words of the ids that lead to an adjacency.
func (n *NexthopTable) point(key adjacencyKey, nh Nexthop) {
	for _, t := range n.leading(key) {
		nh.Flags = t.Flags
		n.words.store(n.ids[t], word(nh))
	}
}

// leading lists the targets in use that lead to an adjacency: the plain one, and those of hosts that moved.
func (n *NexthopTable) leading(key adjacencyKey) (list []Target) {
	for _, flags := range [...]uint8{0, FlagHeld, FlagMoved, FlagHeld | FlagAwaited, FlagMoved | FlagAwaited} {
		t := Target{Kind: KindAdjacency, Flags: flags, Tenant: key.tenant, Variant: key.variant}
		if _, ok := n.ids[t]; ok {
			list = append(list, t)
		}
	}
	return list
}

// SmallestMTU is the size of the largest packet that every adjacency in use carries, 0 where none is resolved.
func (n *NexthopTable) SmallestMTU() (mtu uint16) {
	for _, i := range n.records {
		if m := n.adjs.entries[i].Mtu; mtu == 0 || m < mtu {
			mtu = m
		}
	}
	return mtu
}

// Resting is what nobody names any more while a grace period passes.
type Resting struct{ ids, adjacencies, sets []uint32 }

// Rest takes what has become unused since the last call. The caller waits for a grace period, in which the table may be
// used, and then calls Free.
func (n *NexthopTable) Rest() Resting {
	r := Resting{n.released, n.freeAdj.retired, n.freeSet.retired}
	n.released, n.freeAdj.retired, n.freeSet.retired = nil, nil, nil
	return r
}

// Free makes ids and records that have rested usable again.
func (n *NexthopTable) Free(r Resting) {
	for _, id := range r.ids {
		nh := nexthop(n.words.load(id))
		n.words.store(id, 0)
		n.freeID.put(id)
		switch nh.Kind {
		case KindLocal:
			n.freeLoc.put(nh.Index)
		case KindSet:
			n.freeSet.put(nh.Index)
		}
	}
	for _, i := range r.adjacencies {
		n.freeAdj.put(i)
	}
	for _, i := range r.sets {
		n.freeSet.put(i)
	}
	if len(r.ids) > 0 {
		n.dropRecords()
	}
}

// dropRecords retires the records of adjacencies that no id leads to any more. They rest once more: an id may have been
// released only just now.
func (n *NexthopTable) dropRecords() {
	for key, i := range n.records {
		if len(n.leading(key)) == 0 {
			delete(n.records, key)
			n.freeAdj.retire(i)
		}
	}
}

// Reclaimable reports whether something waits for a grace period.
func (n *NexthopTable) Reclaimable() bool {
	return len(n.released) > 0 || n.freeAdj.waiting() || n.freeSet.waiting()
}

// Variants lists the adjacencies in use, so that the underlay tracker knows what to resolve.
func (n *NexthopTable) Variants() []Target {
	var out []Target
	for key := range n.leads {
		out = append(out, Target{Kind: KindAdjacency, Tenant: key.tenant, Variant: key.variant})
	}
	slices.SortFunc(out, func(a, b Target) int {
		return int(a.Tenant)<<16 + int(a.Variant) - int(b.Tenant)<<16 - int(b.Variant)
	})
	return out
}

// WireAddress is an address as the tables hold it: 16 bytes in wire order, IPv4 as ::ffff:a.b.c.d.
func WireAddress(a netip.Addr) [4]uint32 {
	b := a.As16()
	return *(*[4]uint32)(unsafe.Pointer(&b))
}

func fromWire(w [4]uint32) netip.Addr {
	return netip.AddrFrom16(*(*[16]byte)(unsafe.Pointer(&w))).Unmap()
}
