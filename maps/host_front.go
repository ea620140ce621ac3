package maps

// In front is one slot for each key of the gateway's own spaces, chosen by the key alone: every tunnel packet asks for three of
// these, and there are few. Each key is in the table as well, where programs look for it when the slot is another's. So a slot
// may be empty at any time, but must never outlive its host. An IPv4 slot looks as in the table, and the last one written has it;
// an IPv6 slot has no tag, and the first one has it until it goes, because readers may be looking at the address.
const (
	frontLines    = int(datapathLimitsFRONT_LINES)
	front6Buckets = int(datapathLimitsFRONT6BUCKETS)
	front6Slots   = int(datapathLimitsFRONT6SLOTS)
	frontShift    = 32 - 10 // leaves as many bits as there are slots
	frontMix      = 0x9E3779B1
)

func inFront(k *hostKey) bool { return k.space >= uint32(SpaceVNI) }

func frontAt(space, addr uint32) uint32 { return (addr ^ space<<20) * frontMix >> frontShift }

func frontAt6(space uint32, hi, lo uint64) uint32 {
	sum := hi + lo
	return frontAt(space, uint32(sum^sum>>32))
}

// frontSlot is the position of a key's slot in front.
func (s *slots) frontSlot(k *hostKey) int {
	if s.v6 {
		at := frontAt6(k.space, k.hi, k.lo)
		return s.base(s.buckets+at/uint32(front6Slots)) + int(at)%front6Slots
	}
	return s.base(s.buckets) + int(frontAt(k.space, uint32(k.key4())))
}

func (s *slots) putFront(k *hostKey, value uint32) {
	at := s.frontSlot(k)
	switch {
	case !s.v6:
		s.write(at, k, k.key4(), value)
	case s.word[at] == 0:
		s.write(at, k, noTag6(k), value)
	case s.holds(at, k):
		s.setValue(at, value)
	}
}

func (s *slots) removeFront(k *hostKey) {
	if at := s.frontSlot(k); s.holds(at, k) {
		s.clear(at)
	}
}

// noTag6 is all that an IPv6 slot outside the buckets has of a tag.
func noTag6(k *hostKey) uint64 { return uint64(k.space) << tagBits }

// holds says whether a slot is a key's, by what readers go by.
func (s *slots) holds(at int, k *hostKey) bool {
	have, ok := s.key(at)
	return ok && have == *k
}

// adoptFront is for what a killed writer left: it may have ended between the table and the slot.
func (t *hostTable) adoptFront(s *slots) {
	for at := range s.in(s.buckets, s.buckets+s.front) {
		if s.word[at] == 0 {
			continue
		}
		k, ok := s.key(at)
		if value := t.get(&k); ok && value != 0 && inFront(&k) && s.frontSlot(&k) == at {
			s.setValue(at, value)
		} else {
			s.clear(at)
		}
	}
}
