package datapath

import (
	"slices"
	"strings"

	"roam/loader/route"
	"roam/maps"
)

// PortState is a configured port and how it fares.
type PortState struct {
	PortRef
	Roles  []string
	Mode   Mode // "" while nothing is attached
	MTU    int
	Driver string
	Err    error // why it is not in service
}

// Ports lists the configured ports by name.
func (g *Gateway) Ports() []PortState {
	g.mu.Lock()
	defer g.mu.Unlock()
	attached := map[string]Attachment{}
	for _, a := range g.plane.Attached() {
		attached[a.Name] = a
	}
	var list []PortState
	for _, w := range g.wantedPorts() {
		s := PortState{PortRef: w.ref, Roles: maps.RoleNames(w.role), Err: g.placed.missing[w.ref]}
		if a, ok := attached[w.ref.Name]; ok {
			s.Mode = a.Mode
		}
		if f, err := FactsOf(w.ref.Name); err == nil {
			s.MTU, s.Driver = f.MTU, f.Driver
		}
		list = append(list, s)
	}
	slices.SortFunc(list, func(a, b PortState) int { return strings.Compare(a.String(), b.String()) })
	return list
}

// SlotNames names the ports by the slot under which they are counted.
func (g *Gateway) SlotNames() map[uint16]string {
	g.mu.Lock()
	defer g.mu.Unlock()
	names := map[uint16]string{}
	for ref, slot := range g.placed.slots {
		names[slot] = ref.String()
	}
	return names
}

// Doctor looks at the ports, the kernel's side of them, and the machine.
func (g *Gateway) Doctor() []Finding {
	g.mu.Lock()
	ports := g.kernelPorts()
	g.mu.Unlock()
	return g.plane.Doctor(ports)
}

// MACAt is the address that hosts behind a port send to: the segment's, or the port's own.
func (g *Gateway) MACAt(ref PortRef) route.MAC {
	g.mu.Lock()
	defer g.mu.Unlock()
	slot, ok := g.placed.slots[ref]
	if !ok {
		return route.MAC{}
	}
	for _, t := range g.spec.Tenants {
		for _, s := range t.Segments {
			if s.Access == ref && !s.Fabric {
				return s.MAC
			}
		}
	}
	return g.table.ports.Port(slot).Mac
}
