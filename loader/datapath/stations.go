package datapath

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"

	"roam/loader/route"
	"roam/maps"
)

// stations are the MACs of which the data path must know whose they are: of hosts and routers here, to whom frames are
// left, of the other gateways of a segment, and of foreign gateways, whose frames are routed as if they were ours.
type stations struct {
	table    *ebpf.Map
	here     map[maps.MACKey]bool
	gateways map[maps.MACKey]bool
	foreign  map[maps.MACKey]bool
}

func newStations(table *ebpf.Map) *stations {
	return &stations{table: table, here: map[maps.MACKey]bool{}, gateways: map[maps.MACKey]bool{}, foreign: map[maps.MACKey]bool{}}
}

// set notes that a station is on a segment here, or no longer.
func (s *stations) set(key maps.MACKey, present bool) error {
	note(s.here, key, present)
	return s.write(key)
}

func note(list map[maps.MACKey]bool, key maps.MACKey, present bool) {
	if present {
		list[key] = true
	} else {
		delete(list, key)
	}
}

// setForeign makes these, and no others, the foreign gateways' MACs.
func (s *stations) setForeign(want map[maps.MACKey]bool) error {
	old := s.foreign
	s.foreign = want
	var err error
	for key := range old {
		err = errors.Join(err, s.write(key))
	}
	for key := range want {
		err = errors.Join(err, s.write(key))
	}
	return err
}

// write makes the table say what is known. A foreign gateway's MAC is that, also while somebody here is seen with it.
func (s *stations) write(key maps.MACKey) error {
	var err error
	switch {
	case s.foreign[key]:
		err = s.table.Put(key, maps.MACForeign)
	case s.gateways[key]:
		err = s.table.Put(key, maps.MACGateway)
	case s.here[key]:
		err = s.table.Put(key, maps.MACHere)
	default:
		if err = s.table.Delete(key); errors.Is(err, ebpf.ErrKeyNotExist) {
			err = nil
		}
	}
	if err != nil {
		return fmt.Errorf("note MAC %s: %w", route.MAC(key.Mac), err)
	}
	return nil
}

// dropStale removes adopted stations that were not seen again.
func (s *stations) dropStale() error {
	var key maps.MACKey
	var kind uint32
	var stale []maps.MACKey
	it := s.table.Iterate()
	for it.Next(&key, &kind) {
		if !s.here[key] && !s.gateways[key] && !s.foreign[key] {
			stale = append(stale, key)
		}
	}
	err := it.Err()
	for _, key := range stale {
		err = errors.Join(err, s.write(key))
	}
	return err
}

// SetMAC notes that a station with this MAC is on a segment here, or no longer: frames to it are not for the gateway.
func (g *Gateway) SetMAC(segment uint16, mac route.MAC, present bool) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.stations.set(maps.MACKey{Mac: mac, Segment: segment}, present)
}

// SetSibling notes that another gateway has this MAC on a segment here, or no longer.
func (g *Gateway) SetSibling(segment uint16, mac route.MAC, present bool) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	key := maps.MACKey{Mac: mac, Segment: segment}
	note(g.stations.gateways, key, present)
	return g.stations.write(key)
}

// placeForeign writes the foreign gateways' MACs of every segment.
func (g *Gateway) placeForeign() error {
	want := map[maps.MACKey]bool{}
	for _, t := range g.spec.Tenants {
		for _, s := range t.Segments {
			for _, mac := range s.Foreign {
				want[maps.MACKey{Mac: mac, Segment: g.placed.segments[s.Name]}] = true
			}
		}
	}
	return g.stations.setForeign(want)
}
