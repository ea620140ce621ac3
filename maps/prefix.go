package maps

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"
)

// PrefixTable is the covering prefixes of both families: consulted only for addresses the host table does not have.
// Safe for concurrent use, as the kernel's tries are.
type PrefixTable struct{ v4, v6 *ebpf.Map }

// OpenPrefixes uses the tries of o.
func OpenPrefixes(o *Objects) *PrefixTable { return &PrefixTable{o.Prefixes4, o.Prefixes6} }

// key encodes tenant and prefix as the trie wants it: length first, then bytes in wire order.
func (t *PrefixTable) key(tenant uint16, p netip.Prefix) (*ebpf.Map, []byte) {
	b := make([]byte, 8, 24)
	binary.NativeEndian.PutUint32(b, uint32(p.Bits()+32))
	binary.BigEndian.PutUint32(b[4:], uint32(tenant))
	if p.Addr().Is4() {
		return t.v4, append(b, p.Addr().AsSlice()...)
	}
	return t.v6, append(b, p.Addr().AsSlice()...)
}

// Put enters or replaces a prefix.
func (t *PrefixTable) Put(tenant uint16, p netip.Prefix, id uint32) error {
	m, key := t.key(tenant, p)
	if err := m.Put(key, id); err != nil {
		return fmt.Errorf("enter prefix %s: %w", p, err)
	}
	return nil
}

// Delete removes a prefix; one that is not there is no error.
func (t *PrefixTable) Delete(tenant uint16, p netip.Prefix) error {
	m, key := t.key(tenant, p)
	if err := m.Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("remove prefix %s: %w", p, err)
	}
	return nil
}

// Get returns the id of exactly this prefix, or 0.
func (t *PrefixTable) Get(tenant uint16, p netip.Prefix) uint32 {
	m, key := t.key(tenant, p)
	var id uint32
	if m.Lookup(key, &id) != nil {
		return 0
	}
	return id
}

// Each calls f for every prefix until it returns false.
func (t *PrefixTable) Each(f func(tenant uint16, p netip.Prefix, id uint32) bool) error {
	for _, m := range []*ebpf.Map{t.v4, t.v6} {
		var key []byte
		var id uint32
		it := m.Iterate()
		for it.Next(&key, &id) {
			addr, _ := netip.AddrFromSlice(key[8:])
			p := netip.PrefixFrom(addr, int(binary.NativeEndian.Uint32(key))-32)
			if !f(uint16(binary.BigEndian.Uint32(key[4:])), p, id) {
				return nil
			}
		}
		if err := it.Err(); err != nil {
			return fmt.Errorf("read the prefixes: %w", err)
		}
	}
	return nil
}
