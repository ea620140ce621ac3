package maps

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"net/netip"
)

// The mixing constants and the functions below are those of bpf/table.h: a test compares the two.
const (
	mix1 = 0x9FB21C651E98DF25
	mix2 = 0xD6E8FEB86659FD93
	mix3 = 0xA0761D6478BD642F
)

const (
	valueBits  = int(datapathLimitsVALUE_BITS)
	tagBits    = int(datapathLimitsTAG_BITS) // of an IPv6 slot, above its unit and value, below its space
	tagShift   = valueBits + int(datapathLimitsUNIT_BITS)
	spaceShift = tagShift + tagBits

	bucketSize  = int(datapathLimitsHOST_SLOTS)
	bucket6Size = int(datapathLimitsHOST6SLOTS)

	maxValue = 1<<valueBits - 1
	maxSpace = 1<<(64-32-valueBits) - 1
)

// hostKey is an address in a space, in the shape buckets and the overflow hash keep it: two words loaded in memory
// order from the 16 bytes of the address, IPv4 as ::ffff:a.b.c.d.
type hostKey struct {
	hi, lo uint64
	space  uint32
	v6     bool
}

// mapped is the upper half of lo's memory: the ff:ff before an IPv4 address.
const mapped = 0xffff0000

func newHostKey(space uint16, addr netip.Addr) (hostKey, error) {
	switch {
	case space == 0 || space > maxSpace:
		return hostKey{}, fmt.Errorf("space %d of host %s is outside 1..%d", space, addr, maxSpace)
	case !addr.IsValid():
		return hostKey{}, fmt.Errorf("host in space %d has no address", space)
	case addr.Is4In6():
		return hostKey{}, fmt.Errorf("host %s is an IPv4-mapped IPv6 address: give it as IPv4", addr)
	case addr.Zone() != "":
		return hostKey{}, fmt.Errorf("host %s has a zone: give the address alone", addr)
	}
	b := addr.As16()
	return hostKey{
		hi:    binary.LittleEndian.Uint64(b[:8]),
		lo:    binary.LittleEndian.Uint64(b[8:]),
		space: uint32(space),
		v6:    addr.Is6(),
	}, nil
}

func hostKey4(key uint64) hostKey {
	addr := uint64(bits.ReverseBytes32(uint32(key)))
	return hostKey{lo: addr<<32 | mapped, space: uint32(key >> 32)}
}

func (k hostKey) addr() netip.Addr {
	var b [16]byte
	binary.LittleEndian.PutUint64(b[:8], k.hi)
	binary.LittleEndian.PutUint64(b[8:], k.lo)
	if k.v6 {
		return netip.AddrFrom16(b)
	}
	return netip.AddrFrom4([4]byte(b[12:]))
}

// key4 is the key part of an IPv4 slot: space 12 bits, address 32 in host order.
func (k hostKey) key4() uint64 {
	return uint64(k.space)<<32 | uint64(bits.ReverseBytes32(uint32(k.lo>>32)))
}

// place is where a key may lie in one table: two buckets, which may be the same, and the part of a slot that tells
// the key from others there. For IPv4 that is the key itself, for IPv6 its space and a part of its hash, and the address confirms it.
type place struct {
	bucket [2]uint32
	tag    uint64
}

func hash4(key uint64, seed *[2]uint64) uint64 {
	x := (key ^ seed[0]) * (seed[1] | 1)
	x ^= x >> 32
	x *= mix1
	return x ^ x>>29
}

func hash6(hi, lo uint64, space uint32, seed *[2]uint64) uint64 {
	x := (hi ^ seed[0]) * (seed[1] | 1)
	x ^= x >> 32
	x = (x + lo) * mix1
	x ^= x >> 32
	x = (x + uint64(space)) * mix2
	return x ^ x>>29
}

func tag6(hash uint64, space uint32) uint64 { return uint64(space)<<tagBits | hash*mix3>>(64-tagBits) }

func newPlace(hash, tag uint64, buckets uint32) place {
	return place{
		bucket: [2]uint32{
			uint32(hash >> 32 * uint64(buckets) >> 32),
			uint32(uint64(uint32(hash)) * uint64(buckets) >> 32),
		},
		tag: tag,
	}
}
