package route

import (
	"hash/fnv"
	"net/netip"
)

// RouterMAC is the address a gateway puts into the inner Ethernet header towards a locator that names none, and
// the one that gateway takes for its own: both ends derive it from the locator address alone, so two Roam
// gateways need no agreement. It is locally administered and unicast: 02 and five bytes of a hash of the
// address in its 16-byte form. The hash is part of what gateways of different versions must agree on.
func RouterMAC(locator netip.Addr) MAC {
	a := locator.As16()
	return DerivedMAC(a[:])
}

// DerivedMAC makes a locally administered unicast address of anything that is the same at every gateway:
// 02 and the low five bytes, big endian, of FNV-1a over the concatenated parts.
func DerivedMAC(parts ...[]byte) MAC {
	h := fnv.New64a()
	for _, p := range parts {
		h.Write(p) // never fails
	}
	sum := h.Sum64()
	return MAC{0x02, byte(sum >> 32), byte(sum >> 24), byte(sum >> 16), byte(sum >> 8), byte(sum)}
}
