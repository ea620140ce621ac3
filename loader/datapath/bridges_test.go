package datapath

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"roam/loader/route"
	"roam/maps"
)

// vnis is what the table says of these VNIs.
func (w *tableWorld) vnis(list ...uint32) map[uint32]uint32 {
	got := map[uint32]uint32{}
	for _, vni := range list {
		if value, ok := w.hosts.Get(maps.SpaceVNI, vniKey(vni)); ok {
			got[vni] = value
		}
	}
	return got
}

func (w *tableWorld) bridge(want map[uint32]uint16) {
	w.Helper()
	w.table.bridges.keep(want, w.table.tenants.spaces)
	must(w.T, w.table.bridges.set(want))
}

// A VNI is a tenant's or a segment's. Both are found again after a restart, and one becomes the other.
func TestBridges(t *testing.T) {
	w := newTableWorld(t)
	check := func(when string, want map[uint32]uint32) {
		t.Helper()
		if diff := cmp.Diff(want, w.vnis(7001, 7002, 10, 20, 30)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", when, diff)
		}
	}
	const segment = maps.VNISegment
	w.bridge(map[uint32]uint16{10: 1, 20: 2})
	check("two bridges", map[uint32]uint32{7001: 1, 7002: 2, 10: segment | 1, 20: segment | 2})
	w.restart()
	check("after a restart", map[uint32]uint32{7001: 1, 7002: 2, 10: segment | 1, 20: segment | 2})
	w.bridge(map[uint32]uint16{10: 2, 30: 1})
	check("segments changed places", map[uint32]uint32{7001: 1, 7002: 2, 10: segment | 2, 30: segment | 1})

	gone, err := w.table.tenants.set([]TenantSpec{{ID: 1, VNI: 7001}, {ID: 2, VNI: 30}})
	must(t, err)
	w.bridge(map[uint32]uint16{7002: 1, 10: 2})
	if len(gone) != 1 || gone[0] != 2 || w.table.tenants.ids[route.TenantID(2)] != 3 {
		t.Errorf("a tenant took a bridge's VNI: spaces %v gone, %v in use", gone, w.table.tenants.ids)
	}
	check("a bridge became a tenant and a tenant a bridge", map[uint32]uint32{7001: 1, 7002: segment | 1, 10: segment | 2, 30: 3})
	w.bridge(nil)
	check("no bridge", map[uint32]uint32{7001: 1, 30: 3})
}
