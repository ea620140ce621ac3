package maps

import (
	"fmt"

	"github.com/cilium/ebpf"
)

// Grace waits for grace periods: Wait returns only after every BPF program that was running when it was called has
// ended, so that nothing the caller had made unreachable before can still be in use.
//
// The kernel gives that promise for one thing that user space can ask for cheaply: an update of an array of maps
// returns after an RCU grace period, because a program may hold the inner map that was there (since Linux 4.20). The
// array here serves nothing else. Programs that sleep are not covered; ours do not.
//
// Grace is safe for concurrent use.
type Grace struct {
	outer, inner *ebpf.Map
}

// NewGrace creates the two small maps that it takes.
func NewGrace() (*Grace, error) {
	spec := &ebpf.MapSpec{Name: "grace_inner", Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1}
	inner, err := ebpf.NewMap(spec)
	if err != nil {
		return nil, fmt.Errorf("create map %s: %w", spec.Name, err)
	}
	outer, err := ebpf.NewMap(&ebpf.MapSpec{
		Name: "grace", Type: ebpf.ArrayOfMaps, KeySize: 4, ValueSize: 4, MaxEntries: 1, InnerMap: spec,
	})
	if err != nil {
		_ = inner.Close()
		return nil, fmt.Errorf("create map grace: %w", err)
	}
	return &Grace{outer: outer, inner: inner}, nil
}

// Wait blocks for one grace period: 8 ms on an idle machine, a fraction of a second on a busy one.
func (g *Grace) Wait() error {
	if err := g.outer.Update(uint32(0), g.inner, ebpf.UpdateAny); err != nil {
		return fmt.Errorf("wait for a grace period: %w", err)
	}
	return nil
}

// Close releases the maps.
func (g *Grace) Close() error {
	_ = g.inner.Close()
	return g.outer.Close()
}
