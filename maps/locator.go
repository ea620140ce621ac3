package maps

import (
	"fmt"
	"net/netip"
)

// LocatorKey is a tunnel end with one way to reach it. Comparable.
type LocatorKey struct {
	Address   netip.Addr
	Encap     uint8 // as in route.Encap
	Port      uint16
	RouterMAC [6]byte
	Options   uint8 // LocatorNoECN, LocatorZeroCsum
}

// LocatorTable gives each LocatorKey a small number, its variant. The first variant of an address also is the
// number of the address: it names the counters and stands in the host table, by which the data path knows whom it hears.
//
// One goroutine only.
type LocatorTable struct {
	memory  *memory[Locator]
	hosts   *Hosts
	numbers map[LocatorKey]uint16
	address map[netip.Addr][]uint16 // variants of an address, the first is its number
	free    allocator
}

// OpenLocators adopts what the map holds.
func OpenLocators(o *Objects, hosts *Hosts) (*LocatorTable, error) {
	m, err := mapArray[Locator](o.Locators)
	if err != nil {
		return nil, err
	}
	t := &LocatorTable{
		memory: m, hosts: hosts,
		numbers: map[LocatorKey]uint16{}, address: map[netip.Addr][]uint16{},
		free: newAllocator(1, uint32(Locators)), // 0 is "no locator"
	}
	for i := 1; i < Locators; i++ {
		l := m.entries[i]
		if l.Used == 0 {
			continue
		}
		t.free.take(uint32(i))
		t.enter(keyOf(l), uint16(i))
	}
	return t, nil
}

// Close unmaps the table.
func (t *LocatorTable) Close() error { return t.memory.close() }

// enter keeps the address's number first: it is the one that the host table has.
func (t *LocatorTable) enter(key LocatorKey, n uint16) {
	t.numbers[key] = n
	known, _ := t.hosts.Get(SpaceLocator, key.Address)
	if list := t.address[key.Address]; uint32(n) == known {
		t.address[key.Address] = append([]uint16{n}, list...)
	} else {
		t.address[key.Address] = append(list, n)
	}
}

// Intern returns the variant of a key, entered if it is new; its address is a known locator from then on. The error
// wraps ErrFull and changes nothing.
func (t *LocatorTable) Intern(key LocatorKey) (uint16, error) {
	if n, ok := t.numbers[key]; ok {
		return n, nil
	}
	i, free := t.free.get()
	if !free {
		return 0, fmt.Errorf("locators: %w", ErrFull)
	}
	if len(t.address[key.Address]) == 0 {
		if err := t.hosts.Put(SpaceLocator, key.Address, i); err != nil {
			t.free.put(i)
			return 0, fmt.Errorf("enter locator %s: %w", key.Address, err)
		}
	}
	n := uint16(i)
	t.numbers[key] = n
	t.address[key.Address] = append(t.address[key.Address], n)
	t.memory.entries[n] = Locator{
		Addr: WireAddress(key.Address), Used: 1, Encap: key.Encap, UdpPort: key.Port, RouterMac: key.RouterMAC,
		Options: key.Options, Number: t.address[key.Address][0],
	}
	return n, nil
}

// SetTenant says whose packets come from an address by an encapsulation that names no tenant, 0 for nobody's. An address
// that is not in use has none.
func (t *LocatorTable) SetTenant(address netip.Addr, tenant uint16) {
	if list := t.address[address]; len(list) > 0 && t.memory.entries[list[0]].Tenant != tenant {
		t.memory.entries[list[0]].Tenant = tenant
	}
}

// SetMTU says how large an inner packet every way to an address carries, 0 for not known.
func (t *LocatorTable) SetMTU(address netip.Addr, mtu uint16) {
	if list := t.address[address]; len(list) > 0 && t.memory.entries[list[0]].Mtu != mtu {
		t.memory.entries[list[0]].Mtu = mtu
	}
}

// Sweep forgets the variants that are not in use. An address without any becomes unknown: what it sends is refused. The
// number of an address stays while any variant of the address does. Only after a grace period since the variants went
// out of use, as Reclaim of the next hops gives.
func (t *LocatorTable) Sweep(used func(variant uint16) bool) {
	for address, list := range t.address {
		keep := list[:0:0]
		for _, n := range list {
			if used(n) {
				keep = append(keep, n)
			}
		}
		if len(keep) > 0 && keep[0] != list[0] {
			keep = append([]uint16{list[0]}, keep...)
		}
		for _, n := range list {
			if len(keep) == 0 || n != keep[0] && !used(n) {
				delete(t.numbers, t.Key(n))
				t.memory.entries[n] = Locator{}
				t.free.put(uint32(n))
			}
		}
		if len(keep) == 0 {
			t.hosts.Delete(SpaceLocator, address)
			delete(t.address, address)
		} else {
			t.address[address] = keep
		}
	}
}

// Key returns what a variant is.
func (t *LocatorTable) Key(n uint16) LocatorKey {
	return keyOf(t.memory.entries[n])
}

func keyOf(l Locator) LocatorKey {
	return LocatorKey{
		Address: fromWire(l.Addr), Encap: l.Encap, Port: l.UdpPort, RouterMAC: l.RouterMac, Options: l.Options,
	}
}

// Number returns the number of the variant's address: its counters' index.
func (t *LocatorTable) Number(n uint16) uint16 { return t.address[t.Key(n).Address][0] }

// Each calls f for every address in use with its number.
func (t *LocatorTable) Each(f func(address netip.Addr, number uint16)) {
	for a, list := range t.address {
		f(a, list[0])
	}
}

// EachVariant calls f for every entry.
func (t *LocatorTable) EachVariant(f func(LocatorKey)) {
	for key := range t.numbers {
		f(key)
	}
}

// Len is the number of variants in use.
func (t *LocatorTable) Len() int { return len(t.numbers) }
