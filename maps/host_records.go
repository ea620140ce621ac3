package maps

import (
	"sync/atomic"
	"unsafe"
)

// records is the array of keys and values that IPv6 slots and the overflow name by index. A record's key never
// changes while a reader can reach it; its index is used again only a grace period after that. Free and retired
// records form chains through their padding, which readers never look at, so that a million of them cost no
// memory of their own.
type records struct {
	list    []datapathRecord6
	unused  uint32 // from here on, no record was ever used
	free    chain
	retired chain // unreachable, since less than a grace period
	resting chain // unreachable, and a grace period has begun since
}

// chain is a list of records linked through Pad[0]; record 0 ends it.
type chain struct {
	head, tail uint32
	len        int
}

// take returns a free record, or 0.
func (r *records) take() uint32 {
	if i := r.free.head; i != 0 {
		r.free.head = r.list[i].Pad[0]
		r.free.len--
		return i
	}
	if r.unused < uint32(len(r.list)) {
		r.unused++
		return r.unused - 1
	}
	return 0
}

func (r *records) write(i uint32, k *hostKey, value uint32) {
	rec := &r.list[i]
	*rec.words() = [2]uint64{k.hi, k.lo}
	rec.Space = k.space
	r.setValue(i, value)
}

func (r *records) setValue(i, value uint32) { atomic.StoreUint32(&r.list[i].Value, value) }

func (r *records) value(i uint32) uint32 { return r.list[i].Value }

func (r *records) is(i uint32, k *hostKey) bool {
	if i >= uint32(len(r.list)) {
		return false
	}
	rec := &r.list[i]
	return *rec.words() == [2]uint64{k.hi, k.lo} && rec.Space == k.space
}

// key is the IPv6 key of record i; ok is false where there can be none.
func (r *records) key(i uint32) (k hostKey, ok bool) {
	if i == 0 || i >= uint32(len(r.list)) {
		return k, false
	}
	rec := &r.list[i]
	w := rec.words()
	k = hostKey{hi: w[0], lo: w[1], space: rec.Space, v6: true}
	return k, k.space != 0 && k.space <= maxSpace && rec.Value != 0
}

// retire gives up a record that readers may still be looking at.
func (r *records) retire(i uint32) { r.push(&r.retired, i) }

// giveBack gives up a record that no reader ever saw.
func (r *records) giveBack(i uint32) { r.push(&r.free, i) }

// rest notes that a grace period begins. It reports whether a record is waiting for it.
func (r *records) rest() bool {
	r.splice(&r.resting, &r.retired)
	return r.resting.len > 0
}

// ripen frees what rested for a grace period.
func (r *records) ripen() { r.splice(&r.free, &r.resting) }

func (r *records) push(c *chain, i uint32) {
	r.list[i].Pad[0] = c.head
	if c.head == 0 {
		c.tail = i
	}
	c.head = i
	c.len++
}

// splice puts all of from before to.
func (r *records) splice(to, from *chain) {
	if from.len == 0 {
		return
	}
	r.list[from.tail].Pad[0] = to.head
	if to.head == 0 {
		to.tail = from.tail
	}
	to.head = from.head
	to.len += from.len
	*from = chain{}
}

func (rec *datapathRecord6) words() *[2]uint64 { return (*[2]uint64)(unsafe.Pointer(&rec.Addr)) }
