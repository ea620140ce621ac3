package maps

import (
	"iter"
	"sync/atomic"
	"unsafe"
)

// slots is one family's array as its only writer sees it, in words of 64 bits: the buckets, those in front, for IPv6 those of hosts
// that wait, and the header. A position is the index of a slot's word.
//
// Loads are plain: nobody else stores here. Stores are atomic: a reader sees a slot whole, and the address that belongs to it was
// written before it.
type slots struct {
	word    []uint64
	buckets uint32
	size    int  // slots in a bucket
	stride  int  // words in a bucket
	shift   uint // of the tag in a slot
	v6      bool // a slot has its address beside it
	seed    [2]uint64
	front   uint32 // buckets in front, behind the others
	busy    map[int]*waiter
	hosts   int // in this family, waiting ones included

	left    []int // positions of IPv6 slots whose hosts left less than a grace period ago
	resting []int // and a grace period has begun since
}

// An IPv6 bucket in words: its slots, the addresses.
const (
	bucket6Words = int(unsafe.Sizeof(datapathBucket6{})) / 8
	addr6Word    = int(unsafe.Offsetof(datapathBucket6{}.Addr)) / 8
)

// vacated is an IPv6 slot whose host left: no reader finds a host of space 0, but some may still look at the address.
const vacated = 1

func newSlots4(buckets []datapathBucket, h *TableHeader) slots {
	return slots{
		word:    unsafe.Slice(&buckets[0].Slot[0], len(buckets)*bucketSize),
		buckets: h.Buckets, size: bucketSize, stride: bucketSize, shift: uint(valueBits), seed: h.Seed,
		front: uint32(frontLines), busy: make(map[int]*waiter),
	}
}

func newSlots6(buckets []datapathBucket6, h *TableHeader) slots {
	return slots{
		word:    unsafe.Slice(&buckets[0].Slot[0], len(buckets)*bucket6Words),
		buckets: h.Buckets, size: bucket6Size, stride: bucket6Words, shift: uint(tagShift), seed: h.Seed, v6: true,
		front: uint32(front6Buckets), busy: make(map[int]*waiter),
	}
}

func (s *slots) place(k *hostKey) place {
	if !s.v6 {
		key := k.key4()
		return newPlace(hash4(key, &s.seed), key, s.buckets)
	}
	x := hash6(k.hi, k.lo, k.space, &s.seed)
	return newPlace(x, tag6(x, k.space), s.buckets)
}

// base is the position of a bucket's first slot.
func (s *slots) base(bucket uint32) int { return int(bucket) * s.stride }

// bucket is whose slot this is.
func (s *slots) bucket(at int) uint32 { return uint32(at / s.stride) }

// room is how many slots the buckets have.
func (s *slots) room() int { return int(s.buckets) * s.size }

// in goes over the slots of buckets from..to-1 by position.
func (s *slots) in(from, to uint32) iter.Seq[int] {
	return func(yield func(int) bool) {
		for bucket := from; bucket < to; bucket++ {
			base := s.base(bucket)
			for at := base; at < base+s.size; at++ {
				if !yield(at) {
					return
				}
			}
		}
	}
}

// address is what lies beside an IPv6 slot.
func (s *slots) address(at int) *[2]uint64 {
	return (*[2]uint64)(unsafe.Pointer(&s.word[addressOf(at)]))
}

func addressOf(at int) int {
	i := at % bucket6Words
	return at - i + addr6Word + 2*i
}

// unit says in an IPv6 slot where its address is.
func unit(at int) uint64 { return uint64(addressOf(at)%bucket6Words/2) << valueBits }

// taken says whether a host is in a slot.
func (s *slots) taken(at int) bool { return s.word[at]&^vacated != 0 }

func (s *slots) value(at int) uint32 { return uint32(s.word[at] & maxValue) }

// key is whose slot this is; ok is false for what the writer never wrote there.
func (s *slots) key(at int) (k hostKey, ok bool) {
	word := s.word[at]
	if !s.v6 {
		return hostKey4(word >> valueBits), word>>valueBits>>32 != 0 && s.value(at) != 0
	}
	a := s.address(at)
	k = hostKey{hi: a[0], lo: a[1], space: uint32(word >> spaceShift), v6: true}
	return k, k.space != 0 && s.value(at) != 0 && word>>valueBits<<valueBits&(1<<tagShift-1) == unit(at)
}

// is says whether a slot that has the tag of a key is the key's.
func (s *slots) is(at int, k *hostKey) bool { return !s.v6 || *s.address(at) == [2]uint64{k.hi, k.lo} }

// write enters a host into a slot that no reader looks at.
func (s *slots) write(at int, k *hostKey, tag uint64, value uint32) {
	word := tag<<s.shift | uint64(value)
	if s.v6 {
		*s.address(at) = [2]uint64{k.hi, k.lo}
		word |= unit(at)
	}
	s.store(at, word)
}

func (s *slots) setValue(at int, value uint32) { s.store(at, s.word[at]&^maxValue|uint64(value)) }

// clear removes a host. The slot is free at once, but one of IPv6, whose address may still be looked at, after a grace period.
func (s *slots) clear(at int) {
	if !s.v6 {
		s.store(at, 0)
		return
	}
	s.store(at, vacated)
	s.left = append(s.left, at)
}

// rest notes that a grace period begins. It reports whether a slot is waiting for it.
func (s *slots) rest() bool {
	s.resting = append(s.resting, s.left...)
	s.left = s.left[:0]
	return len(s.resting) > 0
}

// ripen frees what rested for a grace period, and says whether that was anything.
func (s *slots) ripen() bool {
	freed := len(s.resting) > 0
	for _, at := range s.resting {
		s.store(at, 0)
	}
	s.resting = s.resting[:0]
	return freed
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
		base := s.base(bucket)
		for j, word := range s.word[base : base+s.size] {
			if word == 0 {
				if f.free[i] < 0 && (len(s.busy) == 0 || s.busy[base+j] == nil) {
					f.free[i] = base + j
				}
				continue
			}
			f.full[i]++
			if word>>(s.shift&63) == p.tag && f.hits < 2 && s.is(base+j, k) {
				f.hit[f.hits] = base + j
				f.hits++
			}
		}
	}
	return f
}

// touch begins to fetch both buckets of a place from memory. The sum of what it read has no meaning but must be used.
func (s *slots) touch(p *place) (sum uint64) {
	for _, bucket := range p.bucket {
		for line := 0; line < s.stride; line += bucketSize {
			sum += s.word[s.base(bucket)+line]
		}
	}
	return sum
}

// choose returns a free position, or -1.
//
// The first bucket is preferred until it is three quarters full, then the emptier one. A host in its first bucket costs its reader
// one place in memory instead of two, a full pair of buckets costs the writer a displacement. Of a million hosts at 80% of the
// slots, this puts 86% of IPv4 into their first bucket and displaces 0.2%, and of IPv6, whose buckets are smaller, 84% and 1.5%;
// always preferring the first would be 92% and 1.7%, and 88% and 3.3%.
func (s *slots) choose(f *scan) int {
	if f.free[0] >= 0 && (4*f.full[0] < 3*s.size || f.full[0] <= f.full[1] || f.free[1] < 0) {
		return f.free[0]
	}
	return f.free[1]
}
