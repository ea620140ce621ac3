package config

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"roam/loader/route"
)

// Defaults of a segment's mobility.
const (
	DefaultHold          = 30 * time.Second
	defaultMoves         = 5
	defaultWindow        = 180 * time.Second
	defaultProbeInterval = time.Second
	defaultProbeLost     = 3
)

func (r *reader) tenants(c *Config, v value) {
	c.Tenants = all(v, func(v value) (Tenant, bool) { return r.tenant(c, v), true })
	atLeastOne(v)
	segments := 0
	for _, t := range c.Tenants {
		segments += len(t.Segments)
	}
	if segments > maxSegments {
		v.fail("%d segments: the data path has room for %d", segments, maxSegments)
	}
	if n := len(r.ports); n > maxPorts {
		v.fail("%d ports: the data path has room for %d", n, maxPorts)
	}
}

func (r *reader) tenant(c *Config, v value) Tenant {
	f := v.mapping("name", "vni", "route_targets", "uplinks", "segments")
	t := Tenant{Name: "default"}
	name := f.get("name")
	if s, ok := name.name(); ok {
		t.Name = s
	}
	if name.absent() {
		name = v
	}
	name.unique("tenant", t.Name)
	t.VNI = uint32(f.get("vni").number(defaultVNI(t.Name), 1, maxVNI))
	vni := f.get("vni")
	if vni.absent() {
		vni = v
	}
	vni.unique("VNI", fmt.Sprint(t.VNI))
	t.RouteTargets = all(f.get("route_targets"), value.routeTarget)
	t.Uplinks = all(f.get("uplinks"), r.uplink)
	r.subnets = nil
	t.Segments = all(f.get("segments"), func(v value) (Segment, bool) { return r.segment(c, &t, v), true })
	r.overlaps()
	return t
}

// defaultVNI is the same at every site for a tenant of the same name.
func defaultVNI(tenant string) uint64 {
	h := fnv.New32a()
	h.Write([]byte(tenant))
	return uint64(h.Sum32()%maxVNI) + 1
}

// routeTarget reads an extended community such as 65000:7001 or 192.0.2.1:7001 (RFC 4360).
func (v value) routeTarget() (string, bool) {
	s, ok := v.text()
	if ok && !validRouteTarget(s) {
		v.fail("%q is no route target such as \"65000:7001\" or \"192.0.2.1:7001\"", s)
		return "", false
	}
	return s, ok
}

func (r *reader) uplink(v value) (Port, bool) {
	f := v.mapping("interface", "vlan")
	link, ok := f.require("interface", "name the interface towards the rest of the network").link()
	p := Port{Interface: link, VLAN: uint16(f.get("vlan").number(0, 0, maxVLAN))}
	return p, ok && r.port(v, p)
}

// port claims an interface and VLAN for one use: two of them on one port could not be told apart.
func (r *reader) port(v value, p Port) bool {
	name := p.Interface
	if p.VLAN != 0 {
		name = fmt.Sprintf("%s VLAN %d", p.Interface, p.VLAN)
	}
	if p.Inner != 0 {
		name += fmt.Sprintf(".%d", p.Inner)
	}
	r.ports = append(r.ports, p)
	return v.unique("port", name)
}

func (r *reader) segment(c *Config, t *Tenant, v value) Segment {
	f := v.mapping("name", "l2vni", "access", "subnets", "gateway", "mobility", "home", "egress", "dhcp_relay")
	s := Segment{L2VNI: uint32(f.get("l2vni").number(0, 1, maxVNI))}
	if s.L2VNI != 0 {
		f.get("l2vni").unique("VNI", fmt.Sprint(s.L2VNI))
	}
	s.Access = r.access(f.require("access", "name the interface towards the hosts"))
	s.Name = s.Access.Interface
	if s.Access.VLAN != 0 {
		s.Name = fmt.Sprintf("%s.%d", s.Access.Interface, s.Access.VLAN)
	}
	if s.Access.Inner != 0 {
		s.Name += fmt.Sprintf(".%d", s.Access.Inner)
	}
	name := f.get("name")
	if n, ok := name.name(); ok {
		s.Name = n
	}
	if name.absent() {
		name = v
	}
	if s.Name != "" {
		name.unique("segment", s.Name)
	}
	subnets := f.require("subnets", "list the prefixes whose hosts move")
	s.Subnets = all(subnets, func(v value) (netip.Prefix, bool) { return r.subnet(c, s.Access.Interface, v) })
	atLeastOne(subnets)
	if s.Access.Mode == ModeFabric {
		f.refuse("nobody bridges to hosts behind a router: in mode fabric remove it", "l2vni")
	}
	s.Gateway = r.gateway(t, &s, f.get("gateway"))
	s.Mobility = mobility(&s, f.get("mobility"))
	s.Home = r.home(c, f.get("home"))
	s.Egress = r.egress(c, &s, f.get("egress"))
	s.DHCPRelay = all(f.get("dhcp_relay"), value.host)
	return s
}

// refuse says of keys that are there that they must not be.
func (f fields) refuse(why string, keys ...string) {
	for _, key := range keys {
		if v := f.get(key); !v.absent() {
			v.fail("%s", why)
		}
	}
}

func (r *reader) access(v value) Access {
	if v.absent() {
		return Access{Mode: ModeEthernet}
	}
	f := v.mapping("interface", "vlan", "inner_vlan", "mode", "next_hop_mac")
	a := Access{
		VLAN:  uint16(f.get("vlan").number(0, 0, maxVLAN)),
		Inner: uint16(f.get("inner_vlan").number(0, 0, maxVLAN)),
		Mode:  one(f.get("mode"), ModeEthernet, ModeEthernet, ModeFabric),
	}
	link := f.require("interface", "name the interface towards the hosts")
	var ok bool
	if a.Interface, ok = link.link(); ok {
		r.port(link, Port{a.Interface, a.VLAN, a.Inner})
	}
	if a.Inner != 0 && a.VLAN == 0 {
		f.get("inner_vlan").fail("a second tag needs a first one: give vlan")
	}
	mac := f.get("next_hop_mac")
	a.NextHopMAC, _ = mac.mac()
	switch {
	case a.Mode == ModeFabric && mac.absent():
		mac.fail("is missing: mode fabric sends every packet to this MAC address")
	case a.Mode != ModeFabric && !mac.absent():
		mac.fail("belongs to mode fabric: add it, or remove this key")
	}
	return a
}

func (r *reader) subnet(c *Config, access string, v value) (netip.Prefix, bool) {
	p, ok := v.prefix()
	switch {
	case !ok:
		return p, false
	case p.Bits() == 0:
		v.fail("%s is every address: list the subnets whose hosts move", p)
		return p, false
	case p.Addr().IsLinkLocalUnicast() || p.Addr().IsLoopback():
		v.fail("%s never leaves its link: its hosts cannot move", p)
		return p, false
	}
	if l, yes := c.inside(p, access); yes {
		v.fail("locator %s lies inside %s: the tunnel to it would lead through itself", l, p)
	}
	r.subnets = append(r.subnets, placed{v, p})
	return p, true
}

// placed is a subnet and where it stands.
type placed struct {
	value
	prefix netip.Prefix
}

// overlaps reports subnets of one tenant that share addresses. In prefix order an overlap shows between neighbours or
// against the last one that was wide enough.
func (r *reader) overlaps() {
	sorted := slices.Clone(r.subnets)
	slices.SortStableFunc(sorted, func(a, b placed) int { return a.prefix.Compare(b.prefix) })
	wide := -1
	for i, s := range sorted {
		if wide >= 0 && sorted[wide].prefix.Overlaps(s.prefix) {
			first, second := sorted[wide], s
			if first.at.Offset > second.at.Offset {
				first, second = second, first
			}
			second.fail("%s overlaps %s on line %d: an address of a tenant lives in one segment", second.prefix, first.prefix, first.at.Line)
			continue
		}
		wide = i
	}
}

func mobility(in *Segment, v value) Mobility {
	f := v.mapping("freeze", "hold", "probe", "allow")
	if in.Access.Mode == ModeFabric {
		f.refuse("hosts do not show themselves in mode fabric, somebody says where they are: remove it", "freeze", "probe", "allow")
	}
	freeze := f.get("freeze").mapping("moves", "window", "recover")
	probe := f.get("probe").mapping("interval", "lost")
	const day = 24 * time.Hour
	return Mobility{
		Freeze: Freeze{
			Moves:   int(freeze.get("moves").number(defaultMoves, 1, 1000)),
			Window:  freeze.get("window").duration(defaultWindow, time.Second, day),
			Recover: freeze.get("recover").duration(0, 0, 30*day),
		},
		Hold: f.get("hold").duration(DefaultHold, 0, time.Hour),
		Probe: Probe{
			Interval: probe.get("interval").duration(defaultProbeInterval, 10*time.Millisecond, time.Hour),
			Lost:     int(probe.get("lost").number(defaultProbeLost, 1, 100)),
		},
		Allow: all(f.get("allow"), func(v value) (netip.Prefix, bool) {
			p, ok := v.prefix()
			if ok && !slices.ContainsFunc(in.Subnets, func(s netip.Prefix) bool {
				return s.Bits() <= p.Bits() && s.Contains(p.Addr())
			}) {
				v.fail("%s lies in none of the segment's subnets", p)
			}
			return p, ok
		}),
	}
}

// validRouteTarget tells whether s is a two-octet AS and four bytes, or a four-octet AS or an IPv4 address and
// two bytes.
func validRouteTarget(s string) bool {
	admin, number, _ := strings.Cut(s, ":")
	n, err := strconv.ParseUint(number, 10, 32)
	if err != nil {
		return false
	}
	if a, err := netip.ParseAddr(admin); err == nil {
		return a.Is4() && n < 1<<16
	}
	as, err := strconv.ParseUint(admin, 10, 32)
	return err == nil && (as < 1<<16 || n < 1<<16)
}

func macOf(vni uint32, first netip.Addr) route.MAC {
	var number [4]byte
	binary.BigEndian.PutUint32(number[:], vni)
	address := first.As16()
	return route.DerivedMAC(number[:], address[:])
}
