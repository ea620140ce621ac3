package maps

import "sync/atomic"

// front is one slot for each key of the gateway's own spaces, chosen by the key alone: every tunnel packet asks for three of
// these, and there are few. The last one written has the slot; each is in the table as well, where programs look
// for it when the slot is another's. So a slot may be empty at any time, but must never outlive its host: a record may
// be another's then. An IPv4 slot looks as in the table, an IPv6 slot is the record's number.
type front []uint64

const (
	frontLines = int(datapathLimitsFRONT_LINES)
	frontShift = 32 - 10 // leaves as many bits as frontLines*bucketSize has
	frontMix   = 0x9E3779B1
)

func inFront(k *hostKey) bool { return k.space >= uint32(SpaceVNI) }

func frontAt(space, addr uint32) uint32 { return (addr ^ space<<20) * frontMix >> frontShift }

func frontAt6(space uint32, hi, lo uint64) uint32 {
	sum := hi + lo
	return frontAt(space, uint32(sum^sum>>32))
}

func (f front) slot(k *hostKey) *uint64 {
	if k.v6 {
		return &f[frontAt6(k.space, k.hi, k.lo)]
	}
	return &f[frontAt(k.space, uint32(k.key4()))]
}

// word is k's slot; low is its value for IPv4, its record for IPv6.
func (f front) word(k *hostKey, low uint32) uint64 {
	if k.v6 {
		return uint64(low)
	}
	return k.key4()<<valueBits | uint64(low)
}

func (f front) put(k *hostKey, low uint32) { atomic.StoreUint64(f.slot(k), f.word(k, low)) }

func (f front) remove(k *hostKey, low uint32) {
	if slot := f.slot(k); *slot == f.word(k, low) {
		atomic.StoreUint64(slot, 0)
	}
}

// clear is for what a killed writer left: it may have ended between the table and the slot.
func (f front) clear() {
	for i := range f {
		atomic.StoreUint64(&f[i], 0)
	}
}
