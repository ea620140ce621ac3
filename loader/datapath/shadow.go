package datapath

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"

	"roam/loader/route"
	"roam/maps"
)

// ErrForwards says that shadow mode was asked for where the pinned data path does forward.
var ErrForwards = errors.New("the pinned data path forwards")

// Shadow tells that the program passes every frame as it came, and that nothing of the kernel's is changed. Only a start changes it.
func (p *Plane) Shadow() bool { return p.tune.Shadow }

// adoptShadow refuses to put a program that does nothing in the place of one that forwards. The other way round, what was counted by one that
// did nothing is left behind.
func (p *Plane) adoptShadow(base *generation, known map[string]*ebpf.Map) error {
	switch was := base.maps[maps.ShadowMap] != nil; {
	case p.tune.Shadow && !was:
		return fmt.Errorf("%w: in shadow mode its traffic would be nobody's; give the shadow another datapath.pin and other ports, "+
			"or take this one out first by roamd --detach", ErrForwards)
	case was && !p.tune.Shadow:
		delete(known, "counters")
		delete(known, "locator_counters")
	}
	return nil
}

// TenantOf is this process's number of the tenant that has a space of the tables, 0 for none.
func (g *Gateway) TenantOf(space uint16) route.TenantID {
	g.mu.Lock()
	defer g.mu.Unlock()
	for id, s := range g.table.tenants.ids {
		if s == space {
			return id
		}
	}
	return 0
}

// ReadShadow lists what was noted in shadow mode since the start, with tenants by space and ports by slot.
func (g *Gateway) ReadShadow() (hosts []maps.ShadowHost, pairs []maps.ShadowPair, err error) {
	err = g.plane.Use(func(o *maps.Objects) error {
		hosts, pairs, err = maps.ReadShadow(o)
		return err
	})
	return hosts, pairs, err
}
