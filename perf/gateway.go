package main

import (
	"errors"
	"fmt"
	"net/netip"

	"roam/maps"
)

const (
	locators = 16      // other sites, over which remote hosts are spread
	locals   = 1 << 19 // hosts that live here, at most: each takes a next hop
	segment  = 1

	// The first few adjacencies lie at the same offset of their page as the head of a frame does of its own, and x86 takes a
	// load for dependent on a store to the same offset: one in 32 adjacencies costs a few ns more than the others.
	// maps/nexthop.go begins behind them too.
	firstAdjacency = 8
)

// gateway is a data path with its tables. Hosts and ports are entered by the writers that the daemon uses; what hosts lead to, while no
// program runs, straight into the maps.
type gateway struct {
	crowd
	maps     maps.HostMaps
	objects  *maps.Objects
	grace    *maps.Grace
	table    *maps.Hosts
	ports    *maps.PortTable
	ingress  uint16
	egress   uint16
	underlay underlay // that adjacencies lead over at the moment
	prefix   netip.Prefix
	closers  []func() error
}

// underlay is the family of the outer header, whether the outer UDP checksum is computed, and what stands behind.
type underlay struct {
	v6       bool
	checksum bool
	encap    string // "": VXLAN
}

// side is an interface as the data path is told of it.
type side struct {
	index uint32
	role  uint8
}

// crowd is who is in the tables, of each family.
type crowd struct {
	hosts    int
	local    int // the first few of them live here
	senders  int // where packets come from, at least one if somebody lives here
	capacity int // of the tables, 0 for no more than is in them
}

// newGateway is called in the namespace of its interfaces.
func newGateway(c crowd, in, out side) (g *gateway, err error) {
	if c.local > 0 {
		c.senders = max(c.senders, 1)
	}
	if c.capacity == 0 {
		c.capacity = c.hosts + c.senders
	}
	g = &gateway{crowd: c}
	defer func() {
		if err != nil {
			err = errors.Join(err, g.close())
			g = nil
		}
	}()
	if g.maps, err = maps.CreateHostMaps(uint32(c.capacity)); err != nil {
		return g, err
	}
	g.closers = append(g.closers, g.maps.Close)
	if g.objects, err = maps.Load(maps.Options{Hosts: g.maps}); err != nil {
		return g, err
	}
	g.closers = append(g.closers, g.objects.Close)
	if err := g.openWriters(); err != nil {
		return g, err
	}
	if err := g.putPorts(in, out); err != nil {
		return g, err
	}
	if err := g.putLocators(); err != nil {
		return g, err
	}
	if err := g.putHosts(); err != nil {
		return g, err
	}
	return g, g.table.Settle()
}

func (g *gateway) openWriters() (err error) {
	if g.grace, err = maps.NewGrace(); err != nil {
		return err
	}
	g.closers = append(g.closers, g.grace.Close)
	if g.table, err = maps.OpenHosts(g.maps, g.grace); err != nil {
		return err
	}
	g.closers = append(g.closers, g.table.Close)
	if g.ports, err = maps.OpenPorts(g.objects); err != nil {
		return err
	}
	g.closers = append(g.closers, g.ports.Close)
	return nil
}

func (g *gateway) close() error {
	var err error
	for i := len(g.closers) - 1; i >= 0; i-- {
		err = errors.Join(err, g.closers[i]())
	}
	g.closers = nil
	return err
}

func (g *gateway) putPorts(in, out side) (err error) {
	if err := g.ports.PutSegment(segment, maps.Segment{Mac: ownMAC, Tenant: tenant}); err != nil {
		return err
	}
	for _, p := range []struct {
		side
		slot *uint16
	}{{in, &g.ingress}, {out, &g.egress}} {
		port := maps.Port{Ifindex: p.index, Role: p.role, Mac: portMAC, Mtu: 1500}
		if p.role&maps.RoleAccess != 0 {
			port.Tenant, port.Segment = tenant, segment
		} else {
			port.Mac = ownMAC
		}
		if *p.slot, err = g.ports.Put(port); err != nil {
			return err
		}
		if err := g.objects.TxPorts.Put(uint32(*p.slot), p.index); err != nil {
			return fmt.Errorf("enter interface %d into the map of ports: %w", p.index, err)
		}
	}
	return nil
}

// putLocators makes the tunnel ends known, and each of the other sites an adjacency; numbers and next hops count from one.
func (g *gateway) putLocators() error {
	for _, own := range []netip.Addr{own4, own6} {
		if err := g.table.Put(maps.SpaceLocator, own, maps.LocatorOwn); err != nil {
			return err
		}
	}
	if err := g.table.Put(maps.SpaceVNI, netip.AddrFrom4([4]byte{0, vni >> 16, vni >> 8 & 0xff, vni & 0xff}), tenant); err != nil {
		return err
	}
	next4, next6 := far4, far6
	for n := uint32(1); n <= locators; n++ {
		if err := g.table.Put(maps.SpaceLocator, next4, n); err != nil {
			return err
		}
		if err := g.table.Put(maps.SpaceLocator, next6, n); err != nil {
			return err
		}
		// An encapsulation without a tenant field carries the packets of the locator's tenant.
		l := maps.Locator{Addr: maps.WireAddress(next4), Used: 1, Tenant: tenant, Number: uint16(n)}
		if err := g.objects.Locators.Put(n, &l); err != nil {
			return fmt.Errorf("write locator %d: %w", n, err)
		}
		nh := maps.Nexthop{Kind: maps.KindAdjacency, Tenant: tenant, Index: firstAdjacency + n}
		if err := g.objects.Nexthops.Put(maps.IDFirst+n, &nh); err != nil {
			return fmt.Errorf("write next hop %d: %w", n, err)
		}
		next4, next6 = next4.Next(), next6.Next()
	}
	return g.lead(underlay{})
}

// lead makes all adjacencies go over an underlay.
func (g *gateway) lead(over underlay) error {
	own, far := own4, far4
	if over.v6 {
		own, far = own6, far6
	}
	for n := uint32(1); n <= locators; n++ {
		a := adjacency(own, far, over, g.egress, uint16(n))
		if err := g.objects.Adjacencies.Put(firstAdjacency+n, &a); err != nil {
			return fmt.Errorf("write adjacency %d: %w", n, err)
		}
		far = far.Next()
	}
	g.underlay = over
	return nil
}

func (g *gateway) putHosts() error {
	for i := range g.hosts {
		id := maps.IDFirst + 1 + uint32(i%locators)
		if i < g.local {
			id = maps.IDFirst + locators + 1 + uint32(i)
			if err := g.putLocal(uint32(i), id); err != nil {
				return err
			}
		}
		if err := g.table.Put(tenant, host4(destinations4, i), id); err != nil {
			return err
		}
		if err := g.table.Put(tenant, host6(destinations6, i), id); err != nil {
			return err
		}
	}
	return g.putSenders()
}

// putSenders has the hosts that tunnels bring packets from live where they come from, behind the first locator.
func (g *gateway) putSenders() error {
	for i := range g.senders {
		for _, sender := range []netip.Addr{host4(sources4, i), host6(sources6, i)} {
			if err := g.table.Put(tenant, sender, maps.IDFirst+1); err != nil {
				return err
			}
		}
	}
	return nil
}

// putLocal makes next hop id a delivery of its own.
func (g *gateway) putLocal(i, id uint32) error {
	host := maps.Local{Mac: [6]byte{0x02, 1, 0, byte(i >> 16), byte(i >> 8), byte(i)}, Port: g.egress, Segment: segment}
	if err := g.objects.Locals.Put(i, &host); err != nil {
		return fmt.Errorf("write local delivery %d: %w", i, err)
	}
	nh := maps.Nexthop{Kind: maps.KindLocal, Tenant: tenant, Index: i}
	if err := g.objects.Nexthops.Put(id, &nh); err != nil {
		return fmt.Errorf("write next hop %d: %w", id, err)
	}
	return nil
}

// cover has all hosts that no table knows live behind a prefix of the first locator; an invalid one takes that back.
func (g *gateway) cover(p netip.Prefix) error {
	if p == g.prefix {
		return nil
	}
	prefixes := maps.OpenPrefixes(g.objects)
	if g.prefix.IsValid() {
		if err := prefixes.Delete(tenant, g.prefix); err != nil {
			return err
		}
	}
	g.prefix = p
	if !p.IsValid() {
		return nil
	}
	return prefixes.Put(tenant, p, maps.IDFirst+1)
}

// fill is how full the slots of the table are.
func (g *gateway) fill() float64 {
	return float64(g.table.Len4()) / float64(g.maps.Slots())
}
