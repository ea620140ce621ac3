package maps

import (
	"errors"
	"fmt"
	"sync/atomic"
	"unsafe"
)

// PortTable places ports where the data path probes for them, segments at their index, and tenants at their number. A
// slot number names a port everywhere: counters, egress, deliveries. One goroutine only.
type PortTable struct {
	ports    *memory[Port]
	segments *memory[Segment]
	tenants  *memory[Tenant]
}

// OpenPorts maps the tables; what they hold stays.
func OpenPorts(o *Objects) (*PortTable, error) {
	ports, err := mapArray[Port](o.Ports)
	if err != nil {
		return nil, err
	}
	segments, err := mapArray[Segment](o.Segments)
	if err != nil {
		return nil, errors.Join(err, ports.close())
	}
	tenants, err := mapArray[Tenant](o.Tenants)
	if err != nil {
		return nil, errors.Join(err, ports.close(), segments.close())
	}
	return &PortTable{ports, segments, tenants}, nil
}

// Close unmaps the tables.
func (t *PortTable) Close() error {
	return errors.Join(t.ports.close(), t.segments.close(), t.tenants.close())
}

// slotOf is port_slot of bpf/parse.h.
func slotOf(ifindex uint32, vlan, inner uint16, probe uint32) uint32 {
	hash := ifindex*0x9E3779B1 + (uint32(vlan)|uint32(inner)<<12)*0x85EBCA6B
	return (hash>>24 + probe) % uint32(Ports)
}

// Slot finds a port's slot by its interface and tags, 0 for none.
func (t *PortTable) Slot(ifindex uint32, vlan, inner uint16) (uint16, bool) {
	for probe := range uint32(datapathLimitsPORT_PROBES) {
		slot := slotOf(ifindex, vlan, inner, probe)
		if p := t.ports.entries[slot]; p.Ifindex == ifindex && p.Vlan == vlan && p.InnerVlan == inner {
			return uint16(slot), true
		}
	}
	return 0, false
}

// Put enters or replaces a port and returns its slot. The interface index is stored last: the data path sees a port
// whole or not at all. The error wraps ErrFull.
func (t *PortTable) Put(p Port) (uint16, error) {
	slot, ok := t.Slot(p.Ifindex, p.Vlan, p.InnerVlan)
	for probe := uint32(0); !ok && probe < uint32(datapathLimitsPORT_PROBES); probe++ {
		slot = uint16(slotOf(p.Ifindex, p.Vlan, p.InnerVlan, probe))
		ok = t.ports.entries[slot].Ifindex == 0
	}
	if !ok {
		return 0, fmt.Errorf("port with interface index %d, VLAN %d: %w in its part of the port table", p.Ifindex, p.Vlan, ErrFull)
	}
	e := &t.ports.entries[slot]
	if *e == p {
		return slot, nil
	}
	id := Port{Ifindex: p.Ifindex, Vlan: p.Vlan, Role: p.Role, Flags: p.Flags}
	e.Tenant, e.Segment, e.Mac, e.Mtu, e.Pad = p.Tenant, p.Segment, p.Mac, p.Mtu, p.Pad
	e.InnerVlan, e.TagProto = p.InnerVlan, p.TagProto
	t.ports.store(uint32(slot), *t.first(&id))
	return slot, nil
}

// first is the leading word of a port: interface index, VLAN, role and flags change together.
func (t *PortTable) first(p *Port) *uint64 {
	m := memory[Port]{entries: []Port{*p}}
	return m.word(0)
}

// Delete removes a port.
func (t *PortTable) Delete(slot uint16) {
	t.ports.store(uint32(slot), 0)
	t.ports.entries[slot] = Port{}
}

// Port returns what is in a slot.
func (t *PortTable) Port(slot uint16) Port { return t.ports.entries[slot] }

// Each calls f for every port.
func (t *PortTable) Each(f func(slot uint16, p Port)) {
	for i, p := range t.ports.entries {
		if p.Ifindex != 0 {
			f(uint16(i), p)
		}
	}
}

// FindSegment returns the index of a segment that the table holds, by tenant and gateway MAC.
func (t *PortTable) FindSegment(tenant uint16, mac [6]byte) (uint16, bool) {
	for i, s := range t.segments.entries {
		if i > 0 && s.Tenant == tenant && s.Mac == mac {
			return uint16(i), true
		}
	}
	return 0, false
}

// PutSegment writes a segment at its index, 1..Segments-1; 0 means "no segment".
func (t *PortTable) PutSegment(index uint16, s Segment) error {
	if index == 0 || int(index) >= Segments {
		return fmt.Errorf("segment %d is outside 1..%d", index, Segments-1)
	}
	if t.segments.entries[index] != s {
		t.segments.entries[index] = s
	}
	return nil
}

// Segment returns what is at an index.
func (t *PortTable) Segment(index uint16) Segment { return t.segments.entries[index] }

// SetDuty says whether another gateway on the segment is designated, and if not, until when this one is: ns of the monotonic clock, 0 for
// good. Both are words of their own; what the data path does in between is right by either.
func (t *PortTable) SetDuty(index uint16, standby bool, until uint64) {
	e := &t.segments.entries[index]
	flags := e.Flags &^ SegmentStandby
	if standby {
		flags |= SegmentStandby
	}
	atomic.StoreUint64(&e.DesignatedUntil, until)
	atomic.StoreUint32(&e.Flags, flags)
}

// PutTenant writes a tenant at its number. Where the kernel fragments is one word, stored last; another MAC there means
// that nothing goes there meanwhile.
func (t *PortTable) PutTenant(space uint16, tenant Tenant) error {
	if space == 0 || int(space) >= Tenants {
		return fmt.Errorf("tenant %d is outside 1..%d", space, Tenants-1)
	}
	e := &t.tenants.entries[space]
	if *e == tenant {
		return nil
	}
	word := (*uint64)(unsafe.Pointer(&e.Icmp4))
	if e.FragmentMac != tenant.FragmentMac {
		atomic.StoreUint64(word, 0)
		e.FragmentMac = tenant.FragmentMac
	}
	e.Icmp6 = tenant.Icmp6
	atomic.StoreUint64(word, *(*uint64)(unsafe.Pointer(&tenant.Icmp4)))
	return nil
}

// Tenant returns what is said of a tenant.
func (t *PortTable) Tenant(space uint16) Tenant { return t.tenants.entries[space] }
