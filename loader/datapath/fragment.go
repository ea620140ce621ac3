package datapath

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"roam/maps"
)

// fragmentPort is where a tenant's oversize IPv4 packets that may be fragmented go to the kernel, which is good at it, and
// where their pieces come back: a veth pair.
//
//	program --redirect--> near ====== far --> rule "iif far" --> table: default via near, mtu lock N --.
//	program <----------- near ====== far <-------------------------------------------------------------'
//
// The near end is a port of ours; the far end is the kernel's. What arrives at the far end is looked up in a table of its own
// that holds one route, back out of the far end, so that tenants with the same addresses stay apart and no other route
// of the machine counts. N is the smallest packet size of any way out. The kernel takes the TTL; the program takes none
// on such a port. Pair and rule are kernel settings, which Restore removes; all else goes with the pair.
//
// A machine whose ways out all carry what may come in needs none, and has none.
type fragmentPort struct {
	near, far string
	table     int
}

// fragmentTables is where the routing tables of fragment ports begin; each tenant has one.
const fragmentTables = 0x526f0000

// fragmentPriority puts the rules before the administrator's own, of which none can be meant for a fragment port.
const fragmentPriority = 100

func fragmentPortOf(space uint16) fragmentPort {
	name := fmt.Sprintf("roamf%d", space)
	return fragmentPort{near: name + "a", far: name + "b", table: fragmentTables + int(space)}
}

// fragmentPorts are those that the tenants have: once one is needed, all; and what an earlier process made stays.
func (g *Gateway) fragmentPorts() map[uint16]fragmentPort {
	list := map[uint16]fragmentPort{}
	for _, t := range g.spec.Tenants {
		space := g.table.tenants.ids[t.ID]
		f := fragmentPortOf(space)
		if _, err := netlink.LinkByName(f.near); g.fragmenting || err == nil {
			list[space] = f
		}
	}
	return list
}

// largestPacket is what may come in at a port: the largest MTU of access ports and uplinks; smallestWay what fits on every way
// out, 0 where there is none. A fragment port must carry the first, and cuts to the second.
func (g *Gateway) largestPacket() (largest int) {
	g.table.ports.Each(func(_ uint16, p maps.Port) {
		if p.Role&(maps.RoleAccess|maps.RoleUplink) != 0 {
			largest = max(largest, int(p.Mtu))
		}
	})
	return largest
}

func (g *Gateway) smallestWay() int {
	smallest := int(g.table.nexthops.SmallestMTU())
	g.table.ports.Each(func(_ uint16, p maps.Port) {
		if p.Role&(maps.RoleAccess|maps.RoleUplink) != 0 && (smallest == 0 || int(p.Mtu) < smallest) {
			smallest = int(p.Mtu)
		}
	})
	return smallest
}

// followMTU makes fragment ports when they become necessary, and has them cut to what fits now.
func (g *Gateway) followMTU() error {
	if g.plane.Shadow() {
		return nil
	}
	way := g.smallestWay()
	if !g.fragmenting && way < g.largestPacket() {
		g.fragmenting = true
		g.log.Info("oversize IPv4 packets are fragmented by the kernel from now on", "mtu", way)
		return g.place()
	}
	if way == g.fragmentMTU {
		return nil
	}
	var errs error
	for _, f := range g.fragmentPorts() {
		errs = errors.Join(errs, f.prepare(g.largestPacket(), way))
	}
	if errs == nil {
		g.fragmentMTU = way
	}
	return errs
}

// prepareFragments sets up the pairs' ends before the program meets them.
func (g *Gateway) prepareFragments() {
	way, largest := g.smallestWay(), g.largestPacket()
	for _, f := range g.fragmentPorts() {
		if err := f.prepare(largest, way); err != nil {
			g.log.Warn("oversize IPv4 packets are dropped: no fragment port", "error", err)
		}
	}
	g.fragmentMTU = way
}

// prepare gives both ends the size for packets of largest bytes, lets the near end take redirected packets, and points the
// table at it. Doing so twice changes nothing.
func (f fragmentPort) prepare(largest, way int) error {
	near, err := netlink.LinkByName(f.near)
	if err != nil {
		return fmt.Errorf("find %s: %w", f.near, err)
	}
	far, err := netlink.LinkByName(f.far)
	if err != nil {
		return fmt.Errorf("find %s: %w", f.far, err)
	}
	for _, l := range []netlink.Link{near, far} {
		if l.Attrs().MTU >= largest {
			continue
		}
		if err := netlink.LinkSetMTU(l, largest); err != nil {
			return fmt.Errorf("set the MTU of %s: %w", l.Attrs().Name, err)
		}
	}
	if err := takeRedirects(f.far); err != nil {
		return err
	}
	return f.route(near, far, way)
}

// takeRedirects has a veth end poll its queue, as it must for the other end to take packets from XDP. GRO brings that about.
func takeRedirects(far string) error {
	e, err := ethtool.NewEthtool()
	if err != nil {
		return fmt.Errorf("open ethtool: %w", err)
	}
	defer e.Close()
	if have, err := e.Features(far); err == nil && have["rx-gro"] {
		return nil
	}
	if err := e.Change(far, map[string]bool{"rx-gro": true}); err != nil {
		return fmt.Errorf("switch on GRO at %s: %w", far, err)
	}
	return nil
}

// back is the next hop in a fragment port's table: nobody's address, with the near end's MAC.
var back = netip.AddrFrom4([4]byte{169, 254, 0, 1})

func (f fragmentPort) route(near, far netlink.Link, way int) error {
	err := netlink.NeighSet(&netlink.Neigh{
		LinkIndex: far.Attrs().Index, Family: netlink.FAMILY_V4, State: netlink.NUD_PERMANENT,
		IP: back.AsSlice(), HardwareAddr: near.Attrs().HardwareAddr,
	})
	if err != nil {
		return fmt.Errorf("name the near end to %s: %w", f.far, err)
	}
	err = netlink.RouteReplace(&netlink.Route{
		Table: f.table, LinkIndex: far.Attrs().Index, Dst: &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)},
		Gw: back.AsSlice(), Flags: int(netlink.FLAG_ONLINK), Protocol: routeProtocol, MTU: way, MTULock: true,
	})
	if err != nil {
		return fmt.Errorf("route packets back out of %s: %w", f.far, err)
	}
	return nil
}

// announceFragments tells the data path where the kernel fragments, once all is there.
func (g *Gateway) announceFragments() error {
	for space, f := range g.fragmentPorts() {
		slot, ok := g.placed.slots[PortRef{Name: f.near}]
		far, err := netlink.LinkByName(f.far)
		t := g.table.ports.Tenant(space)
		t.Flags &^= maps.TenantFragment
		if ok && err == nil {
			t.Flags |= maps.TenantFragment
			t.Fragment, t.FragmentMac = slot, macOf(far.Attrs().HardwareAddr)
		}
		if err := g.table.ports.PutTenant(space, t); err != nil {
			return err
		}
	}
	return nil
}

// pairSetting is a veth pair.
type pairSetting struct{ near, far string }

func (s pairSetting) String() string { return "pair " + s.near + " " + s.far }

func (s pairSetting) get(k *Kernel) (string, error) {
	near, err := findLink(k, s.near)
	if errors.Is(err, errAbsent) {
		return absent, nil
	}
	if err != nil {
		return "", err
	}
	far, err := findLink(k, s.far)
	if err != nil || near.Type() != "veth" || near.Attrs().ParentIndex != far.Attrs().Index {
		return "", fmt.Errorf("interface %s is not one end of a pair with %s: rename it", s.near, s.far)
	}
	return present, nil
}

func (s pairSetting) set(k *Kernel, value string) error {
	if value == absent {
		l, err := findLink(k, s.near)
		if err != nil {
			return err
		}
		return k.links.LinkDel(l)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = s.near
	return k.links.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: s.far})
}

// ruleSetting has what arrives by an interface looked up in a table.
type ruleSetting struct {
	link  string
	table int
}

func (s ruleSetting) String() string { return fmt.Sprintf("rule %s %d", s.link, s.table) }

func (s ruleSetting) rule() *netlink.Rule {
	r := netlink.NewRule()
	r.Family, r.IifName, r.Table, r.Priority = unix.AF_INET, s.link, s.table, fragmentPriority
	return r
}

func (s ruleSetting) get(k *Kernel) (string, error) {
	rules, err := k.links.RuleList(unix.AF_INET)
	if err != nil {
		return "", err
	}
	for _, r := range rules {
		if r.IifName == s.link && r.Table == s.table {
			return present, nil
		}
	}
	return absent, nil
}

func (s ruleSetting) set(k *Kernel, value string) error {
	if value == absent {
		return k.links.RuleDel(s.rule())
	}
	return k.links.RuleAdd(s.rule())
}
