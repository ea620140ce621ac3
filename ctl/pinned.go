package main

import (
	"cmp"
	"fmt"
	"net"
	"slices"

	"roam/loader/api"
	"roam/maps"
)

func init() { openPins = openPinned }

// pinned answers from a data path whose daemon is down.
type pinned struct {
	*maps.Pinned
	names map[uint16]string // of ports, by slot
	ports []api.Port
}

func openPinned(folder string) (pins, error) {
	p, err := maps.OpenPinned(folder)
	if err != nil {
		return nil, err
	}
	ports, err := p.Ports()
	if err != nil {
		return nil, err
	}
	out := &pinned{Pinned: p, names: map[uint16]string{}}
	for slot, port := range ports {
		name := fmt.Sprintf("interface %d", port.Ifindex)
		if i, err := net.InterfaceByIndex(int(port.Ifindex)); err == nil {
			name = i.Name
		}
		out.ports = append(out.ports, api.Port{Interface: name, VLAN: port.Vlan, Roles: maps.RoleNames(port.Role), MTU: int(port.Mtu)})
		out.names[slot] = name
		if port.Vlan != 0 {
			out.names[slot] = fmt.Sprintf("%s.%d", name, port.Vlan)
		}
	}
	slices.SortFunc(out.ports, func(a, b api.Port) int {
		return cmp.Or(cmp.Compare(a.Interface, b.Interface), cmp.Compare(a.VLAN, b.VLAN))
	})
	return out, nil
}

// Status tells what the maps can tell.
func (p *pinned) Status() (api.Status, error) {
	used4, used6, slots, err := p.Hosts()
	return api.Status{
		Shadow: p.Shadow, Ports: p.ports,
		Tables: []api.Table{
			{Name: "hosts4", Entries: used4, Capacity: slots}, {Name: "hosts6", Entries: used6, Capacity: slots},
		},
		Warnings: []string{"no roamd is running: forwarding goes on as it was, and nothing is learned (" + p.Generation + ")"},
	}, err
}

// Counters reads the reasons of every port.
func (p *pinned) Counters() (api.Counters, error) {
	out := api.Counters{Shadow: p.Shadow}
	counts, err := p.Pinned.Counters()
	for _, c := range counts {
		reason := maps.ReasonName(c.Reason)
		out.Reasons = append(out.Reasons, api.ReasonCount{
			Port: cmp.Or(p.names[c.Slot], "none"), Reason: reason, Verdict: string(maps.VerdictOf(reason)),
			Packets: c.Packets, Bytes: c.Bytes,
		})
	}
	return out, err
}
