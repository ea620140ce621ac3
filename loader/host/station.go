package host

import (
	"slices"

	"roam/loader/route"
)

// A hypervisor says by RARP that a guest has arrived, and names only its MAC. Its addresses are those that it had when it was last here, and
// those that other sites announce with it: each is looked for, and what answers has moved. So it is when one address has moved here: the site that
// it left lets all of them go.

// Limits of what is remembered of stations that left.
const (
	maxBound     = 65536
	maxAddresses = 64 // addresses of one station
)

// unbind remembers an address of a station that it has no more.
func (s *Source) unbind(t told) {
	if t.key == (route.Key{}) {
		return
	}
	addr, list := t.key.Prefix.Addr(), s.bound[t.station]
	if i := slices.Index(list, addr); i >= 0 {
		list = slices.Delete(list, i, i+1)
	}
	if len(list) == maxAddresses {
		list = slices.Delete(list, 0, 1)
	}
	if _, known := s.bound[t.station]; !known && len(s.bound) >= maxBound {
		for st := range s.bound {
			delete(s.bound, st) // any: the others' addresses are most likely announced by where they are now
			break
		}
	}
	s.bound[t.station] = append(list, addr)
}

// arrived looks for the addresses of a station that is here.
func (s *Source) arrived(g Sign) {
	for link, p := range s.ports {
		if p.Tenant != g.Tenant || p.Link != g.Link || p.VLAN != g.VLAN || p.Inner != g.Inner {
			continue
		}
		for _, addr := range slices.Concat(s.bound[station{p.Index, g.MAC}], s.known(g.Tenant, g.MAC)) {
			n, found := s.neighbours[entry{link, addr}]
			if g.Addr = addr; !found || n.mac == g.MAC { // that it takes another's address it has not said
				s.confirm(g)
			}
		}
	}
}
