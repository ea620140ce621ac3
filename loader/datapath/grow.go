package datapath

import (
	"fmt"
	mapset "maps"

	"github.com/cilium/ebpf"

	"roam/maps"
)

// Grow moves forwarding to host tables for the given number of hosts of each family, without losing a packet or
// holding up a change of a route: the writer serves the old and the new tables until every port has changed over. An
// error leaves the old tables in force. It took 0.8 s with a million hosts of each family on a busy machine.
func (p *Plane) Grow(hosts uint32) (err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if have := p.hosts.Cap(); uint64(hosts) <= uint64(have) {
		return fmt.Errorf("grow the host table to %d hosts: it has room for %d already, and does not shrink", hosts, have)
	}
	if p.growing { // the end of an earlier growth failed
		if err := p.settle(); err != nil {
			return err
		}
	}
	var u undo
	defer u.onError(&err)
	if err := p.step.before("grow the host table"); err != nil {
		return err
	}
	tables, err := p.hosts.Grow(hosts)
	if err != nil {
		return err
	}
	defer tables.Close()
	u.add(p.hosts.AbortGrow)
	next, err := p.begin(tables, p.shared(), &u)
	if err != nil {
		return err
	}
	if err := next.swap(); err != nil {
		return err
	}
	if err := next.commit(); err != nil {
		return err
	}
	u.keep()
	p.replace(next)
	p.growing = true
	return p.settle()
}

// Retune puts a program with other load-time constants in the place of the one in force, without losing a packet; the same ones
// change nothing. Frags and shadow mode stay as they are: only a start changes them. An error leaves the old program in force.
func (p *Plane) Retune(tune maps.Tune) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	tune.Frags, tune.Shadow = p.tune.Frags, p.tune.Shadow
	if tune == p.tune {
		return nil
	}
	return p.reload(tune, p.traced)
}

// reload puts a program loaded in another way in the place of the one in force. Called with mu held.
func (p *Plane) reload(tune maps.Tune, traced bool) (err error) {
	if p.growing {
		if err := p.settle(); err != nil {
			return err
		}
	}
	var u undo
	defer u.onError(&err)
	before, was := p.tune, p.traced
	u.add(func() error { p.tune, p.traced = before, was; return nil })
	p.tune, p.traced = tune, traced
	next, err := p.begin(p.objects.HostMaps(), p.shared(), &u)
	if err != nil {
		return err
	}
	if err := next.swap(); err != nil {
		return err
	}
	if err := next.commit(); err != nil {
		return err
	}
	u.keep()
	p.replace(next)
	p.clean()
	return nil
}

// shared are the maps that the next generation has in common with this one: all but the host tables, and those of tracing
// only while that goes on.
func (p *Plane) shared() map[string]*ebpf.Map {
	all := p.objects.All()
	for _, name := range []string{"hosts4", "hosts6", "host_overflow"} {
		delete(all, name)
	}
	if p.traced && p.objects.Traced() {
		mapset.Copy(all, p.objects.TraceMaps())
	}
	mapset.Copy(all, p.objects.ShadowMaps())
	return all
}

// replace puts the objects of a committed growth in the place of the old. The maps that both share stay open as they were, since
// others hold on to them.
func (p *Plane) replace(t *transaction) {
	old, next := *p.objects, *t.objects
	merged := old
	merged.TakePrograms(&next)
	merged.Hosts4, merged.Hosts6, merged.HostOverflow = next.Hosts4, next.Hosts6, next.HostOverflow
	p.objects, p.live = &merged, t.number
	for name, m := range next.All() {
		if merged.All()[name] != m {
			_ = m.Close()
		}
	}
	for _, m := range next.ShadowMaps() {
		_ = m.Close()
	}
	spare := &next
	if !old.Traced() || !next.Traced() {
		spare = &old
		merged.TakeTraceMaps(&next)
	}
	for _, m := range spare.TraceMaps() {
		_ = m.Close()
	}
	_ = old.ClosePrograms()
	_ = old.Programs.Close()
	_ = old.HostMaps().Close()
}

// settle ends the time of two tables. If that fails, both are written until the next start: slower, and right.
func (p *Plane) settle() error {
	err := p.step.before("settle")
	if err == nil {
		err = p.hosts.CommitGrow()
	}
	p.clean()
	if err != nil {
		return fmt.Errorf("give up the old host table (the new one is in force, and both are written): %w", err)
	}
	p.growing = false
	return nil
}
