package datapath

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"

	"roam/loader/route"
	"roam/maps"
)

// table turns routes into entries of the data path: it is the only writer of host table, prefixes and next hops. The next
// hop is there before the route that names it and goes after it; a route that changes is one store.
//
// Its user serialises the calls.
type table struct {
	log      *slog.Logger
	hosts    *maps.Hosts
	prefixes *maps.PrefixTable
	nexthops *maps.NexthopTable
	locators *maps.LocatorTable
	ports    *maps.PortTable
	tenants  tenants
	bridges  bridges

	own      map[netip.Addr]bool         // our tunnel ends
	public   map[netip.Addr]bool         // as others know them, where NAT stands between: no packet comes to these
	known    map[uint16]bool             // variants to keep although no route names them
	ready    func(space, variant uint16) // resolves what no route leads to yet, before one does; nil where nobody can
	remotes  remotes
	reserved map[entryKey]uint32 // the gateway's own addresses, which no route may take
	subnets  map[entryKey]uint32 // of segments; their spaces are SpaceSubnets and a tenant's
	egress   egress
	stale    map[entryKey]struct{}

	unresolved bool // a route leads to where the underlay tracker has not looked yet
}

// entryKey is a route as the tables know it.
type entryKey struct {
	space  uint16
	prefix netip.Prefix
}

// openTable adopts what the maps hold. Every adopted route is stale until a source names it again.
func openTable(o *maps.Objects, hosts *maps.Hosts, log *slog.Logger) (*table, error) {
	t := &table{
		log: log, hosts: hosts, prefixes: maps.OpenPrefixes(o),
		own: map[netip.Addr]bool{}, known: map[uint16]bool{},
		reserved: map[entryKey]uint32{}, subnets: map[entryKey]uint32{}, egress: egress{}, stale: map[entryKey]struct{}{},
		tenants: tenants{hosts: hosts, spaces: map[uint32]uint16{}, ids: map[route.TenantID]uint16{}},
		bridges: bridges{hosts: hosts, segments: map[uint32]uint16{}},
	}
	var err error
	if t.nexthops, err = maps.OpenNexthops(o); err != nil {
		return nil, err
	}
	if t.locators, err = maps.OpenLocators(o, hosts); err != nil {
		return nil, errors.Join(err, t.close())
	}
	if t.ports, err = maps.OpenPorts(o); err != nil {
		return nil, errors.Join(err, t.close())
	}
	if err := t.adopt(); err != nil {
		return nil, errors.Join(err, t.close())
	}
	return t, nil
}

func (t *table) close() error {
	var err error
	if t.nexthops != nil {
		err = errors.Join(err, t.nexthops.Close())
	}
	if t.locators != nil {
		err = errors.Join(err, t.locators.Close())
	}
	if t.ports != nil {
		err = errors.Join(err, t.ports.Close())
	}
	return err
}

// adopt counts the references of what is there, and removes what names a next hop that is not.
func (t *table) adopt() error {
	var broken, lost []entryKey
	see := func(space uint16, prefix netip.Prefix, id uint32) bool {
		key := entryKey{space, prefix}
		if !t.nexthops.Hold(id) {
			broken = append(broken, key)
			return true
		}
		t.stale[key] = struct{}{}
		return true
	}
	t.hosts.Each(func(space uint16, addr netip.Addr, value uint32) bool {
		switch space {
		case maps.SpaceVNI:
			if vni := vniOf(addr); !t.bridges.adopt(vni, value) {
				t.tenants.spaces[vni] = uint16(value)
			}
		case maps.SpaceLocator:
			if value == maps.LocatorOwn {
				t.own[addr] = true
			}
		default:
			return see(space, netip.PrefixFrom(addr, addr.BitLen()), value)
		}
		return true
	})
	err := t.prefixes.Each(func(space uint16, prefix netip.Prefix, id uint32) bool {
		key := entryKey{space, prefix}
		switch {
		case space >= maps.SpaceWays && !t.nexthops.Hold(id):
			lost = append(lost, key)
		case space >= maps.SpaceEgress:
			t.egress[key] = id
		case space >= maps.SpaceSubnets:
			t.subnets[key] = id
		default:
			return see(space, prefix, id)
		}
		return true
	})
	if err != nil {
		return err
	}
	for _, key := range broken {
		t.log.Warn("removing a pinned route whose next hop is gone", "prefix", key.prefix)
		if err := t.remove(key); err != nil {
			return err
		}
	}
	for _, key := range lost {
		if err := t.prefixes.Delete(key.space, key.prefix); err != nil {
			return err
		}
	}
	t.nexthops.Sweep()
	return nil
}

func (t *table) get(key entryKey) uint32 {
	if key.prefix.IsSingleIP() {
		id, _ := t.hosts.Get(key.space, key.prefix.Addr())
		return id
	}
	return t.prefixes.Get(key.space, key.prefix)
}

func (t *table) write(key entryKey, id uint32) error {
	if key.prefix.IsSingleIP() {
		return t.hosts.Put(key.space, key.prefix.Addr(), id)
	}
	return t.prefixes.Put(key.space, key.prefix, id)
}

func (t *table) remove(key entryKey) error {
	if key.prefix.IsSingleIP() {
		t.hosts.Delete(key.space, key.prefix.Addr())
		return nil
	}
	return t.prefixes.Delete(key.space, key.prefix)
}

// put points a route at a next hop of which the caller gives away one reference.
func (t *table) put(key entryKey, id uint32) error {
	delete(t.stale, key)
	old := t.get(key)
	if old == id {
		t.nexthops.Release(id)
		return nil
	}
	if err := t.write(key, id); err != nil {
		t.nexthops.Release(id)
		return err
	}
	t.nexthops.Release(old)
	return nil
}

func (t *table) delete(key entryKey) error {
	delete(t.stale, key)
	old := t.get(key)
	if old == 0 {
		return nil
	}
	if err := t.remove(key); err != nil {
		return err
	}
	t.nexthops.Release(old)
	return nil
}

// apply makes one decision of the RIB true.
func (t *table) apply(d route.Decision) error {
	space, ok := t.tenants.ids[d.Tenant]
	if !ok {
		return fmt.Errorf("route %s: no tenant %d", d.Prefix, d.Tenant)
	}
	key := entryKey{space, d.Prefix}
	if _, taken := t.reserved[key]; taken {
		if !d.Gone {
			t.log.Warn("route refused: the address is the gateway's own", "prefix", d.Prefix, "source", d.Source)
		}
		return nil
	}
	if d.Gone {
		return t.delete(key)
	}
	id, err := t.nexthop(space, d)
	if err != nil {
		return fmt.Errorf("route %s: %w", d.Prefix, err)
	}
	if err := t.put(key, id); err != nil {
		return fmt.Errorf("route %s: %w", d.Prefix, err)
	}
	return nil
}

// seen has a host's packets no longer told of.
func (t *table) seen(k route.Key) error {
	space, ok := t.tenants.ids[k.Tenant]
	key := entryKey{space, k.Prefix}
	if _, stale := t.stale[key]; !ok || stale {
		return nil
	}
	id, awaited, err := t.nexthops.Without(t.get(key), maps.FlagAwaited)
	if err != nil || !awaited {
		return err
	}
	return t.put(key, id)
}

// nexthop returns the id of what a decision says, with one reference.
func (t *table) nexthop(space uint16, d route.Decision) (uint32, error) {
	switch {
	case d.Reject:
		return maps.IDBlackhole, nil
	case d.Local != nil:
		return t.local(space, d)
	case d.Via == nil:
		return 0, errors.New("it leads nowhere")
	}
	levels := byPriority(d.Via.Locators)
	if len(levels) == 0 {
		return maps.IDBlackhole, nil
	}
	for _, l := range levels[0] {
		if t.own[l.Address] || t.public[l.Address] {
			return maps.IDKernel, nil // it leads to us: the host is here
		}
	}
	flags := flagsOf(d)
	if len(levels) == 1 && len(levels[0]) == 1 {
		variant, err := t.variant(space, levels[0][0])
		if err != nil {
			return 0, err
		}
		id, err := t.nexthops.Acquire(maps.Target{Kind: maps.KindAdjacency, Flags: flags, Tenant: space, Variant: variant})
		t.unresolved = t.unresolved || t.nexthops.Kind(id) == maps.KindUnresolved
		return id, err
	}
	members := ""
	for _, locators := range levels {
		m, err := t.members(space, locators)
		if err != nil {
			return 0, err
		}
		members += m
	}
	before := t.nexthops.Len()
	id, err := t.nexthops.Acquire(maps.Target{Kind: maps.KindSet, Flags: flags, Tenant: space, Members: members})
	t.unresolved = t.unresolved || t.nexthops.Len() != before // its members may be new, too
	return id, err
}

// local is a delivery where the host's MAC, or that of the router in front of it, and port are known; else the kernel resolves it, or
// routes it.
func (t *table) local(space uint16, d route.Decision) (uint32, error) {
	to := d.Local.NextHop
	if to.IsZero() {
		to = d.MAC
	}
	if d.Local.Link == 0 || to.IsZero() || !d.Host() {
		return maps.IDKernel, nil
	}
	slot, ok := t.ports.Slot(uint32(d.Local.Link), d.Local.VLAN, d.Local.Inner)
	if !ok {
		return maps.IDKernel, nil
	}
	return t.nexthops.Acquire(maps.Target{Kind: maps.KindLocal, Flags: flagsOf(d), Tenant: space, Port: slot, MAC: to})
}

// flagsOf is what the data path is to know of a host's recent past.
func flagsOf(d route.Decision) uint8 {
	flags := uint8(0)
	switch {
	case !d.Host():
	case d.Held:
		flags = maps.FlagHeld
	case d.Moved:
		flags = maps.FlagMoved
	}
	if flags != 0 && d.Awaited {
		flags |= maps.FlagAwaited
	}
	return flags
}

// byPriority returns the usable locators, those of the best priority first.
func byPriority(locators []route.Locator) (levels [][]route.Locator) {
	usable := slices.Clone(locators)
	usable = slices.DeleteFunc(usable, func(l route.Locator) bool { return l.Priority == route.Unusable })
	slices.SortStableFunc(usable, func(a, b route.Locator) int { return int(a.Priority) - int(b.Priority) })
	for i, l := range usable {
		if i == 0 || l.Priority != usable[i-1].Priority {
			levels = append(levels, nil)
		}
		levels[len(levels)-1] = append(levels[len(levels)-1], l)
	}
	return levels
}

// reserve sets the gateway's own addresses to exactly these.
func (t *table) reserve(want map[entryKey]uint32) error {
	for key := range t.reserved {
		if _, keep := want[key]; !keep {
			delete(t.reserved, key)
			if err := t.delete(key); err != nil {
				return err
			}
		}
	}
	for key, id := range want {
		if err := t.put(key, id); err != nil {
			return fmt.Errorf("enter own address %s: %w", key.prefix.Addr(), err)
		}
		t.reserved[key] = id
	}
	return nil
}

// setOwn makes exactly these addresses our tunnel ends.
func (t *table) setOwn(own []netip.Addr) error {
	want := map[netip.Addr]bool{}
	for _, a := range own {
		want[a] = true
		if err := t.hosts.Put(maps.SpaceLocator, a, maps.LocatorOwn); err != nil {
			return fmt.Errorf("enter own locator %s: %w", a, err)
		}
	}
	for a := range t.own {
		if !want[a] {
			t.hosts.Delete(maps.SpaceLocator, a)
		}
	}
	t.own = want
	return nil
}

// dropStale removes the adopted routes that no source named again.
func (t *table) dropStale() (dropped int, err error) {
	for key := range t.stale {
		if _, taken := t.reserved[key]; taken {
			continue
		}
		if e := t.delete(key); e != nil {
			err = errors.Join(err, e)
			continue
		}
		dropped++
	}
	t.stale = map[entryKey]struct{}{}
	return dropped, err
}

// dropSpaces removes whatever is left of tenants that are gone.
func (t *table) dropSpaces(gone []uint16) error {
	if len(gone) == 0 {
		return nil
	}
	dead := map[uint16]bool{}
	for _, s := range gone {
		dead[s] = true
	}
	var keys []entryKey
	collect := func(space uint16, prefix netip.Prefix, _ uint32) bool {
		if dead[space] {
			keys = append(keys, entryKey{space, prefix})
		}
		return true
	}
	t.hosts.Each(func(space uint16, addr netip.Addr, v uint32) bool {
		return collect(space, netip.PrefixFrom(addr, addr.BitLen()), v)
	})
	if err := t.prefixes.Each(collect); err != nil {
		return err
	}
	var err error
	for _, key := range keys {
		delete(t.reserved, key)
		err = errors.Join(err, t.delete(key))
	}
	return err
}

// free makes what has rested for a grace period usable again, and forgets the locators that went with it.
func (t *table) free(r maps.Resting) {
	t.nexthops.Free(r)
	used := map[uint16]bool{}
	for _, target := range t.nexthops.Variants() {
		used[target.Variant] = true
	}
	t.locators.Sweep(func(n uint16) bool { return used[n] || t.known[n] })
	t.assignOwners()
}
