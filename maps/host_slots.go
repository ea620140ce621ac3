package maps

import (
	"sync/atomic"
	"unsafe"
)

// slots is one family's bucket array as its only writer sees it. A position is an index of a slot, 8 * bucket + i.
//
// Loads are plain: nobody else stores here. Stores are atomic: a reader sees a slot whole, and what a slot names was
// written before it.
type slots struct {
	word    []uint64
	buckets uint32
	seed    [2]uint64
	shift   uint // of the tag in a slot
	front   front
	records *records // what slots name; nil for IPv4, whose slots hold everything
	busy    map[int]*waiter
	hosts   int // in this family, waiting ones included
}

func newSlots(buckets []datapathBucket, h *TableHeader, r *records) slots {
	s := slots{
		word:    unsafe.Slice(&buckets[0].Slot[0], int(h.Buckets)*bucketSize),
		buckets: h.Buckets,
		seed:    h.Seed,
		shift:   uint(valueBits),
		records: r,
		front:   unsafe.Slice(&buckets[h.Buckets].Slot[0], frontLines*bucketSize),
		busy:    make(map[int]*waiter),
	}
	if r != nil {
		s.shift = uint(recordBits)
	}
	return s
}

func (s *slots) place(k *hostKey) place {
	if s.records == nil {
		key := k.key4()
		return newPlace(hash4(key, &s.seed), key, s.buckets)
	}
	x := hash6(k.hi, k.lo, k.space, &s.seed)
	return newPlace(x, x*mix3>>recordBits, s.buckets)
}

// low is the part of a slot below its tag: a value or a record.
func (s *slots) low(word uint64) uint32 { return uint32(word & (1<<s.shift - 1)) }

// key is whose slot this is; ok is false for a word that the writer never wrote.
func (s *slots) key(word uint64) (k hostKey, ok bool) {
	if s.records == nil {
		return hostKey4(word >> valueBits), word>>valueBits>>32 != 0 && s.low(word) != 0
	}
	return s.records.key(s.low(word))
}

func (s *slots) store(at int, word uint64) { atomic.StoreUint64(&s.word[at], word) }

// scan is what a look at both buckets of a key finds.
type scan struct {
	hit  [2]int // positions of the key's copies, in the order readers meet them
	hits int
	free [2]int // a free position in each bucket, or -1
	full [2]int // slots in use in each bucket
}

func (s *slots) scan(k *hostKey, p place) scan {
	f := scan{free: [2]int{-1, -1}}
	for i, bucket := range p.bucket {
		if i == 1 && bucket == p.bucket[0] {
			break
		}
		base := int(bucket) * bucketSize
		line := (*[bucketSize]uint64)(s.word[base:])
		for j := range bucketSize {
			word := line[j]
			if word == 0 {
				if f.free[i] < 0 && (len(s.busy) == 0 || s.busy[base+j] == nil) {
					f.free[i] = base + j
				}
				continue
			}
			f.full[i]++
			if word>>(s.shift&63) == p.tag && f.hits < 2 && (s.records == nil || s.records.is(s.low(word), k)) {
				f.hit[f.hits] = base + j
				f.hits++
			}
		}
	}
	return f
}

// touch begins to fetch both buckets of a place from memory. The sum of what it read has no meaning but must be used.
func (s *slots) touch(p *place) uint64 {
	return s.word[int(p.bucket[0])*bucketSize] + s.word[int(p.bucket[1])*bucketSize]
}

// preferFirst is how full a key's first bucket may be before the emptier one is preferred. A host in its first
// bucket costs its reader one cache line instead of two, a full pair of buckets costs the writer a
// displacement. Of a million hosts at 80% of the slots, 6 puts 86% into their first bucket and displaces 0.2%;
// always preferring the first would be 92% and 1.7%, always the emptier one 68% and 0.02%.
const preferFirst = 6

// choose returns a free position, or -1.
func (f *scan) choose() int {
	if f.free[0] >= 0 && (f.full[0] < preferFirst || f.full[0] <= f.full[1] || f.free[1] < 0) {
		return f.free[0]
	}
	return f.free[1]
}
