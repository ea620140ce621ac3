package api

import (
	"hash/maphash"

	"roam/loader/route"
)

// Index finds the change of a key in a slice of changes: an open-addressing table of slice positions, because a
// map would hold every key a second time. Its zero value is of an empty slice.
type Index struct {
	seed  maphash.Seed
	slots []uint32 // position + 1, 0: free; at most half are used
	used  int
}

// Put returns the position of the change with that key, or notes that it is about to become changes[len(changes)].
func (x *Index) Put(key route.Key, changes []route.Change) (int, bool) {
	if 2*x.used >= len(x.slots) {
		x.grow(changes)
	}
	i := x.slot(key)
	for ; x.slots[i] != 0; i = (i + 1) & (len(x.slots) - 1) {
		if at := int(x.slots[i] - 1); changes[at].Key == key {
			return at, true
		}
	}
	x.slots[i] = uint32(len(changes) + 1)
	x.used++
	return 0, false
}

func (x *Index) slot(key route.Key) int {
	return int(maphash.Comparable(x.seed, key)) & (len(x.slots) - 1)
}

func (x *Index) grow(changes []route.Change) {
	if x.slots == nil {
		x.seed = maphash.MakeSeed()
	}
	x.slots = make([]uint32, max(1024, 4*len(x.slots)))
	for at := range changes {
		i := x.slot(changes[at].Key)
		for x.slots[i] != 0 {
			i = (i + 1) & (len(x.slots) - 1)
		}
		x.slots[i] = uint32(at + 1)
	}
}
