package datapath

import (
	"fmt"
	"strings"

	"roam/maps"
)

// watchRefused begins to count what drivers refuse after the program has returned. Where the kernel cannot tell, doctor's check of
// what a port takes is all there is.
func (g *Gateway) watchRefused() {
	id, err := namespaceID()
	if err != nil {
		g.log.Warn("refused packets are not counted", "error", err)
		return
	}
	var inode uint32
	if _, err := fmt.Sscanf(strings.TrimPrefix(id, "net:"), "[%d]", &inode); err != nil {
		g.log.Warn("refused packets are not counted", "namespace", id, "error", err)
		return
	}
	if g.refused, err = maps.OpenRefused(inode); err != nil {
		g.log.Warn("refused packets are not counted: it takes Linux 5.5 with BTF", "error", err)
	}
}

// countRefused follows the ports that there are.
func (g *Gateway) countRefused() {
	if g.refused == nil {
		return
	}
	var indexes []uint32
	g.table.ports.Each(func(_ uint16, p maps.Port) { indexes = append(indexes, p.Ifindex) })
	if err := g.refused.Watch(indexes...); err != nil {
		g.log.Warn("refused packets are not counted", "error", err)
	}
}

// Refused counts, by interface, the packets that its driver refused after the program had sent them there; since the process began.
func (g *Gateway) Refused() map[string]uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	counts := map[string]uint64{}
	if g.refused == nil {
		return counts
	}
	for ref, slot := range g.placed.slots {
		counts[ref.Name] = g.refused.Count(g.table.ports.Port(slot).Ifindex)
	}
	return counts
}
