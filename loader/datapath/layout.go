package datapath

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"roam/loader/route"
	"roam/maps"
)

// layout is where the parts of a Spec lie in the tables.
type layout struct {
	number   int                  // of layouts so far
	segments map[string]uint16    // by name, to index
	slots    map[PortRef]uint16   // of ports whose interface is there
	missing  map[PortRef]error    // the others
	underlay map[int]underlayPort // by interface index
}

// wantedPort collects what the parts of a spec ask of one port: an interface may be underlay and access at once.
type wantedPort struct {
	ref     PortRef
	role    uint8
	tenant  uint16
	segment uint16
}

// Set makes the data path what spec says: tenants, own and known tunnel ends, the gateway's addresses, segments, the
// kernel's side, ports. A port whose interface is missing is reported in Ports and set up when it appears. Setting an equal spec
// changes nothing. An error leaves the parts before it set; setting the earlier spec again undoes them.
func (g *Gateway) Set(spec Spec) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	gone, err := g.table.tenants.set(spec.Tenants)
	if err != nil {
		return err
	}
	if err := g.table.setOwn(spec.Own); err != nil {
		return err
	}
	g.table.public = map[netip.Addr]bool{}
	for _, a := range spec.Public {
		g.table.public[a] = true
	}
	if err := g.table.setKnown(spec.Known); err != nil {
		return err
	}
	if err := g.table.reserve(g.reserved(spec)); err != nil {
		return err
	}
	if err := g.table.setSubnets(g.table.wantedSubnets(spec.Tenants)); err != nil {
		return err
	}
	if err := g.table.setEgress(spec.Tenants); err != nil {
		return err
	}
	g.spec = spec
	if err := g.place(); err != nil {
		return err
	}
	if err := g.table.dropSpaces(gone); err != nil {
		return err
	}
	if err := g.clearTenants(gone); err != nil {
		return err
	}
	g.underlay.kick()
	return nil
}

// reserved lists the gateway's own addresses in every tenant.
func (g *Gateway) reserved(spec Spec) map[entryKey]uint32 {
	want := map[entryKey]uint32{}
	for _, t := range spec.Tenants {
		space := g.table.tenants.ids[t.ID]
		for _, s := range t.Segments {
			for _, a := range s.Own {
				want[hostKey(space, a)] = maps.IDOwn
			}
			if s.Stick {
				continue // the shared addresses are the other router's
			}
			for _, a := range s.Gateway {
				if !a.IsLinkLocalUnicast() {
					want[hostKey(space, a)] = maps.IDGateway
				}
			}
		}
	}
	return want
}

func hostKey(space uint16, a netip.Addr) entryKey {
	return entryKey{space, netip.PrefixFrom(a, a.BitLen())}
}

// place puts segments and ports into their tables, in the order that no packet meets a half of it: segments, then ports,
// then the program at the port; and the other way round for what goes.
func (g *Gateway) place() error {
	underlay := map[int]underlayPort{}
	defer g.underlay.ports.Store(&underlay)
	g.placed = layout{
		number: g.placed.number + 1, segments: g.placeSegments(), slots: map[PortRef]uint16{}, missing: map[PortRef]error{},
		underlay: underlay,
	}
	wanted := g.wantedPorts()
	if err := g.detachUnwanted(wanted); err != nil {
		return err
	}
	bridged := g.bridged()
	g.table.bridges.keep(bridged, g.table.tenants.spaces)
	if err := errors.Join(g.writeTenants(), g.writeSegments(), g.placeForeign(), g.table.bridges.set(bridged)); err != nil {
		return err
	}
	if !g.plane.Shadow() {
		if err := g.plane.Kernel().Set(g.kernelPorts()); err != nil {
			g.log.Warn("kernel settings", "error", err)
		}
	}
	g.prepareFragments()
	for _, w := range wanted {
		if err := g.placePort(w); err != nil {
			g.placed.missing[w.ref] = err
			g.log.Warn("port not in service", "interface", w.ref.Name, "vlan", w.ref.VLAN, "error", err)
		}
	}
	g.forgetSlots()
	g.notePlaces()
	g.countRefused()
	return g.announceFragments()
}

// placeSegments keeps an index that was given, in this process or, by MAC and tenant, in the pinned table.
func (g *Gateway) placeSegments() map[string]uint16 {
	out := map[string]uint16{}
	used := map[uint16]bool{0: true}
	var fresh []SegmentSpec
	tenants := map[string]uint16{}
	for _, t := range g.spec.Tenants {
		for _, s := range t.Segments {
			tenants[s.Name] = g.table.tenants.ids[t.ID]
			index, ok := g.placed.segments[s.Name]
			if !ok {
				index, ok = g.table.ports.FindSegment(tenants[s.Name], s.MAC)
			}
			if ok && !used[index] {
				out[s.Name], used[index] = index, true
			} else {
				fresh = append(fresh, s)
			}
		}
	}
	next := uint16(1)
	for _, s := range fresh {
		for used[next] {
			next++
		}
		out[s.Name], used[next] = next, true
	}
	return out
}

func (g *Gateway) writeSegments() error {
	for _, t := range g.spec.Tenants {
		for _, s := range t.Segments {
			seg := maps.Segment{Mac: s.MAC, Tenant: g.table.tenants.ids[t.ID], Flags: maps.SegmentRouter}
			seg.Icmp4, seg.Icmp6 = errorSources([]SegmentSpec{s})
			if s.Stick {
				seg.Flags = maps.SegmentStick
			}
			// A frame to a MAC that nobody here owns is taken for one to a host that left. Not before the MACs
			// here are known, and not where another router must be presumed whose MAC nobody told us.
			if g.foreign && (!s.Stick || len(s.Routers) > 0) {
				seg.Flags |= maps.SegmentForeign
			}
			for _, a := range s.Gateway {
				if a.IsLinkLocalUnicast() {
					seg.GatewayLl = maps.WireAddress(a)
				}
			}
			if err := g.putSegment(s, seg); err != nil {
				return fmt.Errorf("segment %s: %w", s.Name, err)
			}
		}
	}
	return nil
}

// wantedPorts merges what the spec says of each port.
func (g *Gateway) wantedPorts() []wantedPort {
	var list []wantedPort
	add := func(w wantedPort) {
		i := slices.IndexFunc(list, func(have wantedPort) bool { return have.ref == w.ref })
		if i < 0 {
			list = append(list, w)
			return
		}
		list[i].role |= w.role
		if w.tenant != 0 {
			list[i].tenant, list[i].segment = w.tenant, w.segment
		}
	}
	for _, name := range g.spec.Underlay {
		add(wantedPort{ref: PortRef{Name: name}, role: maps.RoleUnderlay})
	}
	for _, t := range g.spec.Tenants {
		space := g.table.tenants.ids[t.ID]
		for _, ref := range t.Uplinks {
			add(wantedPort{ref: ref, role: maps.RoleUplink, tenant: space})
		}
		for _, s := range t.Segments {
			if s.Fabric {
				add(wantedPort{ref: s.Access, role: maps.RoleUplink, tenant: space})
				continue
			}
			add(wantedPort{ref: s.Access, role: maps.RoleAccess, tenant: space, segment: g.placed.segments[s.Name]})
		}
	}
	for space, f := range g.fragmentPorts() {
		add(wantedPort{ref: PortRef{Name: f.near}, role: maps.RoleFragment, tenant: space})
	}
	return list
}

func (g *Gateway) placePort(w wantedPort) error {
	link, err := netlink.LinkByName(w.ref.Name)
	if err != nil {
		return fmt.Errorf("find interface %s: %w", w.ref.Name, err)
	}
	attrs := link.Attrs()
	p := maps.Port{
		Ifindex: uint32(attrs.Index), Vlan: w.ref.VLAN, InnerVlan: w.ref.Inner, Role: w.role, Tenant: w.tenant, Segment: w.segment,
		Mac: macOf(attrs.HardwareAddr), Mtu: uint16(min(attrs.MTU, 0xffff)),
	}
	facts, err := FactsOf(w.ref.Name)
	if err != nil {
		return err
	}
	if w.ref.VLAN != 0 {
		p.TagProto = wire16(unix.ETH_P_8021Q)
		if w.ref.Inner != 0 {
			p.TagProto = wire16(unix.ETH_P_8021AD)
		}
		if err := facts.SeesTags(); err != nil {
			return err
		}
	}
	if facts.Driver == "veth" {
		// A veth end flushes XDP_TX only if a program sits on the other end; a redirect needs no more than GRO there.
		p.Flags = maps.PortRedirect
	}
	slot, err := g.table.ports.Put(p)
	if err != nil {
		return err
	}
	g.placed.slots[w.ref] = slot
	if w.role&maps.RoleUnderlay != 0 {
		g.placed.underlay[attrs.Index] = underlayPort{name: w.ref.Name, slot: slot, mac: p.Mac, mtu: attrs.MTU}
	}
	if err := g.plane.Attach(w.ref.Name, g.spec.Mode); err != nil {
		return err
	}
	if facts.Driver == "veth" && !g.plane.Shadow() {
		if err := g.plane.AcceptPassed(w.ref.Name); err != nil {
			g.log.Warn("packets for the gateway's MAC do not reach the kernel", "error", err)
		}
	}
	if err := g.plane.SetTx(slot, w.ref.Name); err != nil {
		return err
	}
	// Only now, with the program on it, the driver says whether it takes what is redirected to it.
	if f, err := FactsOf(w.ref.Name); err == nil && f.FeaturesKnown && f.Features&FeatureTransmit == 0 {
		g.log.Warn("port takes no packets: what is sent there is lost; see roamctl doctor", "interface", w.ref.Name)
	}
	return nil
}

func macOf(a net.HardwareAddr) (m route.MAC) {
	copy(m[:], a)
	return m
}

// detachUnwanted takes the program from interfaces, of this process or adopted, that no port is on any more.
func (g *Gateway) detachUnwanted(wanted []wantedPort) error {
	var keep []string
	for _, w := range wanted {
		keep = append(keep, w.ref.Name)
	}
	return g.plane.DetachOthers(keep)
}

// forgetSlots removes the ports, of this process or adopted, that the layout does not have.
func (g *Gateway) forgetSlots() {
	keep := map[uint16]bool{}
	for _, slot := range g.placed.slots {
		keep[slot] = true
	}
	var gone []uint16
	g.table.ports.Each(func(slot uint16, _ maps.Port) {
		if !keep[slot] {
			gone = append(gone, slot)
		}
	})
	for _, slot := range gone {
		g.table.ports.Delete(slot)
		if err := g.plane.ClearTx(slot); err != nil {
			g.log.Warn("remove an egress port", "error", err)
		}
	}
}

// kernelPorts is what the kernel has to know of the ports.
func (g *Gateway) kernelPorts() []PortSpec {
	var list []PortSpec
	add := func(p PortSpec) {
		i := slices.IndexFunc(list, func(have PortSpec) bool { return have.Name == p.Name && have.VLAN == p.VLAN && have.Inner == p.Inner })
		if i < 0 {
			list = append(list, p)
			return
		}
		have := &list[i]
		have.Access, have.Underlay, have.Uplink = have.Access || p.Access, have.Underlay || p.Underlay, have.Uplink || p.Uplink
		have.Subnets = append(have.Subnets, p.Subnets...)
		have.Own = append(have.Own, p.Own...)
		have.Gateway = append(have.Gateway, p.Gateway...)
		have.Isolated = have.Isolated || p.Isolated
		if !p.NextHop.IsZero() {
			have.NextHop = p.NextHop
		}
	}
	shared := sharing(g.spec.Tenants)
	for _, name := range g.spec.Underlay {
		add(PortSpec{Name: name, Underlay: true})
	}
	for _, t := range g.spec.Tenants {
		for _, ref := range t.Uplinks {
			add(PortSpec{Name: ref.Name, VLAN: ref.VLAN, Inner: ref.Inner, Uplink: true})
		}
		for _, s := range t.Segments {
			if s.Fabric { // the machine has its addresses and routes from the fabric
				add(PortSpec{Name: s.Access.Name, VLAN: s.Access.VLAN, Inner: s.Access.Inner, Uplink: true, NextHop: s.NextHop, Subnets: s.Subnets})
				continue
			}
			p := PortSpec{
				Name: s.Access.Name, VLAN: s.Access.VLAN, Inner: s.Access.Inner, Access: true, Subnets: s.Subnets, Own: s.Own,
			}
			p.Isolated = shared[t.ID]
			if !s.Stick {
				p.Gateway = s.Gateway
			}
			add(p)
		}
	}
	for _, f := range g.fragmentPorts() {
		add(PortSpec{Name: f.near, Fragment: f.far, Table: f.table})
	}
	return list
}

// LinksChanged places the ports again: an interface came, went, or changed its MAC or MTU.
func (g *Gateway) LinksChanged() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.place(); err != nil {
		g.log.Warn("set up ports again", "error", err)
	}
	g.underlay.kick()
}
