package maps

// allocator hands out the numbers of a table's entries, lowest unused first. Numbers that running programs may still
// read are retired; whoever waited for them to end puts them back.
type allocator struct {
	next, end uint32
	taken     map[uint32]struct{} // adopted numbers at or above next
	free      []uint32
	retired   []uint32
}

func newAllocator(first, end uint32) allocator {
	return allocator{next: first, end: end, taken: map[uint32]struct{}{}}
}

// take marks a number as used. Numbers are adopted before any is handed out.
func (a *allocator) take(i uint32) { a.taken[i] = struct{}{} }

func (a *allocator) get() (uint32, bool) {
	if n := len(a.free); n > 0 {
		i := a.free[n-1]
		a.free = a.free[:n-1]
		return i, true
	}
	for a.next < a.end {
		i := a.next
		a.next++
		if _, used := a.taken[i]; !used {
			return i, true
		}
		delete(a.taken, i)
	}
	return 0, false
}

func (a *allocator) put(i uint32)    { a.free = append(a.free, i) }
func (a *allocator) retire(i uint32) { a.retired = append(a.retired, i) }
func (a *allocator) waiting() bool   { return len(a.retired) > 0 }
