package rib

import (
	"encoding/binary"
	"net/netip"
	"unsafe"

	"roam/loader/route"
)

// target is where a claim points, with the site it names: a million hosts share a few of them. Exactly one of via,
// local and reject is set; via and local are shared with sinks and never change.
type target struct {
	via    *route.Via
	local  *route.Local
	reject bool
	site   string
	lowest netip.Addr // of via
	refs   uint32
	id     string // its name in targets.ids
}

// unresolved reports "here, but the kernel must find it".
func (t *target) unresolved() bool { return t.local != nil && t.local.Link == 0 }

// targets interns by content and counts references. Index 0 is no target.
type targets struct {
	list    []target
	ids     map[string]uint32
	free    []uint32
	idle    []uint32 // without references since the last collect
	scratch []byte
	site    string // ours

	// recent remembers which list pointer became which target: sources intern their lists too, so that most
	// changes of a bulk report end here. Emptied when a target is freed.
	recent [64]struct {
		via    *route.Via
		site   string
		target uint32
	}
}

func newTargets(site string) targets {
	return targets{list: make([]target, 1), ids: make(map[string]uint32), site: site}
}

func (t *targets) at(i uint32) *target { return &t.list[i] }

// hold returns the target of a claim, with one more reference.
func (t *targets) hold(c *route.Claim) uint32 {
	slot := &t.recent[uintptr(unsafe.Pointer(c.Via))>>4%64]
	if c.Via != nil && slot.via == c.Via && slot.site == c.Site {
		t.list[slot.target].refs++
		return slot.target
	}
	t.scratch = encode(t.scratch[:0], c)
	i, ok := t.ids[string(t.scratch)]
	if !ok {
		i = t.add(c, string(t.scratch))
	}
	t.list[i].refs++
	if c.Via != nil {
		slot.via, slot.site, slot.target = c.Via, t.list[i].site, i
	}
	return i
}

func (t *targets) add(c *route.Claim, id string) uint32 {
	n := target{reject: c.Reject, site: c.Site, id: id}
	switch {
	case c.Via != nil:
		n.via = &route.Via{Locators: append([]route.Locator(nil), c.Via.Locators...)}
		n.lowest = n.via.Locators[0].Address
		for _, l := range n.via.Locators[1:] {
			if l.Address.Less(n.lowest) {
				n.lowest = l.Address
			}
		}
	case c.Local != nil:
		local := *c.Local
		n.local = &local
	}
	var i uint32
	if k := len(t.free); k > 0 {
		i, t.free = t.free[k-1], t.free[:k-1]
		t.list[i] = n
	} else {
		i = uint32(len(t.list))
		t.list = append(t.list, n)
	}
	t.ids[id] = i
	return i
}

// drop lets one reference go. The target stays until collect: answers noted before this window still name it.
func (t *targets) drop(i uint32) {
	if t.list[i].refs--; t.list[i].refs == 0 {
		t.idle = append(t.idle, i)
	}
}

// collect frees what nobody refers to any more.
func (t *targets) collect() {
	for _, i := range t.idle {
		if n := &t.list[i]; n.refs == 0 && n.id != "" {
			delete(t.ids, n.id)
			*n = target{}
			t.free = append(t.free, i)
			clear(t.recent[:])
		}
	}
	t.idle = t.idle[:0]
}

// encode writes what makes two targets equal. Every part has a fixed length but the site, which is last.
func encode(b []byte, c *route.Claim) []byte {
	switch {
	case c.Via != nil:
		b = append(b, 'v', byte(len(c.Via.Locators)))
		for _, l := range c.Via.Locators {
			a := l.Address.As16() // a mapped address is refused, so the two families stay apart
			b = append(b, a[:]...)
			b = append(b, byte(l.Encap), l.Priority, l.Weight)
			b = binary.BigEndian.AppendUint16(b, l.Port)
			b = append(b, l.RouterMAC[:]...)
		}
	case c.Local != nil:
		b = append(b, 'l')
		b = binary.BigEndian.AppendUint64(b, uint64(c.Local.Link))
		b = binary.BigEndian.AppendUint16(b, c.Local.VLAN)
		b = binary.BigEndian.AppendUint16(b, c.Local.Inner)
		b = append(b, c.Local.NextHop[:]...)
	default:
		b = append(b, 'r')
	}
	return append(b, c.Site...)
}
