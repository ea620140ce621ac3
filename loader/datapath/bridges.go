package datapath

import (
	"fmt"

	"roam/maps"
)

// bridges gives each VNI by which peers bridge to a segment here the segment's index. They stand beside the tenants' VNIs, so
// that a tunnel packet finds either by one look-up.
type bridges struct {
	hosts    *maps.Hosts
	segments map[uint32]uint16 // VNI to index
}

// adopt takes up what an earlier process has entered, and says whether it was a bridge's.
func (b *bridges) adopt(vni, value uint32) bool {
	if value&maps.VNISegment == 0 {
		return false
	}
	b.segments[vni] = uint16(value &^ maps.VNISegment)
	return true
}

// keep removes all but these. It comes before segments change: an index may become another segment's.
func (b *bridges) keep(want map[uint32]uint16, tenants map[uint32]uint16) {
	for vni, index := range b.segments {
		if want[vni] == index {
			continue
		}
		delete(b.segments, vni)
		if _, taken := tenants[vni]; !taken {
			b.hosts.Delete(maps.SpaceVNI, vniKey(vni))
		}
	}
}

// set enters these, whose segments are there.
func (b *bridges) set(want map[uint32]uint16) error {
	for vni, index := range want {
		if err := b.hosts.Put(maps.SpaceVNI, vniKey(vni), maps.VNISegment|uint32(index)); err != nil {
			return fmt.Errorf("enter VNI %d: %w", vni, err)
		}
		b.segments[vni] = index
	}
	return nil
}

// bridged lists the VNIs of segments, with the segments' places.
func (g *Gateway) bridged() map[uint32]uint16 {
	want := map[uint32]uint16{}
	for _, t := range g.spec.Tenants {
		for _, s := range t.Segments {
			if s.L2VNI != 0 {
				want[s.L2VNI] = g.placed.segments[s.Name]
			}
		}
	}
	return want
}
