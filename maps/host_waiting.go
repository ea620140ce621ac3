package maps

// waitingRoom is the slots of hosts that wait for a displacement, behind those in front of IPv6. They have no tag: the overflow hash names
// them by position, and IPv4 hosts are in them as ::ffff:a.b.c.d.
type waitingRoom struct {
	slots *slots
	first int // bucket
	next  int // where to look for a free slot, from 0
}

const waitingBuckets = (int(waitingMax) + bucket6Size - 1) / bucket6Size

func newWaitingRoom(v6 *slots) waitingRoom {
	return waitingRoom{slots: v6, first: int(v6.buckets) + front6Buckets}
}

// at is the position of slot i.
func (r *waitingRoom) at(i int) int {
	return r.slots.base(uint32(r.first+i/bucket6Size)) + i%bucket6Size
}

// has says whether a position is one of its slots.
func (r *waitingRoom) has(at int) bool {
	bucket := at/bucket6Words - r.first
	return 0 <= bucket && bucket < waitingBuckets && at%bucket6Words < bucket6Size
}

// holds says whether a host is in a slot.
func (r *waitingRoom) holds(at int, k *hostKey) bool {
	have, ok := r.slots.key(at)
	return ok && have.hi == k.hi && have.lo == k.lo && have.space == k.space
}

// take enters a host into a free slot and returns its position, or -1.
func (r *waitingRoom) take(k *hostKey, value uint32) int {
	for range waitingBuckets * bucket6Size {
		at := r.at(r.next)
		r.next = (r.next + 1) % (waitingBuckets * bucket6Size)
		if r.slots.word[at] == 0 {
			r.slots.write(at, k, noTag6(k), value)
			return at
		}
	}
	return -1
}

// adopt empties what nobody waits in.
func (r *waitingRoom) adopt(used map[int]bool) {
	for i := range waitingBuckets * bucket6Size {
		if at := r.at(i); r.slots.word[at] != 0 && !used[at] {
			r.slots.clear(at)
		}
	}
}
