package lab

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
)

// Sites is the lab most tests use: one subnet at two sites.
//
//	   site dc1                                                    site dc2
//
//	h11 .11   h12 .12                                        h21 .21   h22 .22
//	  |         |                                              |         |
//	==+=========+==+== lan1    10.1.0.0/24    lan2 ==+=========+=========+==
//	               |        2001:db8:1::/64          |
//	           lan0|                                 |lan0
//	             [gw1]----wan0---( wan )---wan0----[gw2]
//	                 192.0.2.1            192.0.2.2
//	                 2001:db8:ff::1       2001:db8:ff::2
//
// lan1, lan2 and wan are bridges of one machine, "switch", so that a host's cable can be moved from one site to the
// other while the host keeps its interface, MAC and addresses.
type Sites struct {
	*Lab
	Options
	Switch *Namespace
	GW     [2]*Gateway // GW[1] is nil with KernelFar or FRRFar
	Far    *Namespace  // with KernelFar, FRRFar or FRRBoth: dc2's gateway
	FRR    *FRR        // with FRRFar or FRRBoth: on Far
	Near   *FRR        // with FRRBoth: dc1's gateway; GW is empty then
	Hosts  []*Host     // h11, h12, h21, h22
	Out    *Host       // with Outside: a host beyond R1
	R1     *Namespace  // with Outside or role stick: the router of dc1
	R2     *Namespace  // with TwoExits: the router of dc2
}

// Options choose a variant of the sites.
type Options struct {
	Role      string // "default" (also when empty), or "stick": hosts' router is r1, 10.1.0.254 at dc1
	Underlay6 bool   // tunnels run over IPv6
	Dual      bool   // gateways have a tunnel end of each family; a site's first is the preferred one
	TwoWays   bool   // gateways have a second interface, wan1, and a second tunnel end on a wan of its own, wan2; both carry traffic
	KernelFar bool   // dc2's gateway is the Linux kernel with its own VXLAN device
	FRRFar    bool   // dc2's gateway is FRR with the kernel's VXLAN devices: see addFRR
	FRRBoth   bool   // both gateways are
	Racks     bool   // hosts are behind a switch of their own, rack1 or rack2, whose uplink to lan1 or lan2 stays up whatever they do
	Outside   bool   // r1 leads to a host that is no part of the subnet
	TwoExits  bool   // with Outside: dc2 has a router too, r2, that leads there; the outside reaches the subnet by r1
	OneArmed  bool   // each gateway has one interface, its site's LAN; a router joins the LANs' underlay addresses
	FIBTable  int    // gateways follow this kernel table
	NoRoutes  bool   // gateways are not told where the hosts are
	Capacity  int    // hosts the tables are made for
	Narrow    bool   // the underlay carries no larger packets than the hosts' links
	Alone     bool   // no other test runs meanwhile: for one that measures times, or fills tables of the machine
}

// Host is a machine with an address of each family.
type Host struct {
	*Namespace
	IP4, IP6 netip.Addr
	MAC      string
	Site     int    // where it lives now: DC1 or DC2
	Port     string // the switch's end of its cable
}

// IPs are the host's addresses, one of each family.
func (h *Host) IPs() []netip.Addr { return []netip.Addr{h.IP4, h.IP6} }

// The two sites.
const (
	DC1 = iota
	DC2
)

// SiteNames are the sites' names in configurations and commands.
var SiteNames = [2]string{"dc1", "dc2"}

// MTUs: the underlay carries a full host frame and every header in front of it.
const (
	hostMTU     = 1500
	underlayMTU = 2000
)

var (
	subnets    = []string{"10.1.0.0/24", "2001:db8:1::/64"}
	shared     = []string{"10.1.0.1", "2001:db8:1::1", "fe80::1"}
	routers    = []string{"10.1.0.254", "2001:db8:1::fe"}
	locators4  = [2]string{"192.0.2.1", "192.0.2.2"}
	locators6  = [2]string{"2001:db8:ff::1", "2001:db8:ff::2"}
	seconds4   = [2]string{"198.18.0.1", "198.18.0.2"} // with TwoWays
	routerMACs = [2]string{"02:00:00:00:00:01", "02:00:00:00:00:02"}

	// OutsideNets are the prefixes of the outside host.
	OutsideNets = []string{"198.51.100.0/24", "2001:db8:2::/64"}
)

// NewSites builds the sites without starting the daemons: see Up. Unless it is to be alone, the test runs beside others from here on.
func NewSites(t TB, bins Binaries, options Options) *Sites {
	t.Helper()
	if !options.Alone {
		besideOthers(t)
	}
	if options.Role == "" {
		options.Role = "default"
	}
	s := &Sites{Lab: New(t), Options: options}
	s.Switch = s.Namespace("switch")
	for _, key := range []string{"all", "default"} {
		s.Switch.Sysctl("net.ipv6.conf."+key+".disable_ipv6", "1")
	}
	s.Switch.Bridge("lan1", hostMTU)
	s.Switch.Bridge("lan2", hostMTU)
	if options.OneArmed {
		s.Switch.IP("link set lan1 mtu 2000", "link set lan2 mtu 2000")
	} else {
		s.Switch.Bridge("wan", s.underlayMTU())
		if options.TwoWays {
			s.Switch.Bridge("wan2", s.underlayMTU())
		}
	}
	if options.Racks {
		s.addRacks()
	}
	for site := range 2 {
		for n := 1; n <= 2; n++ {
			s.addHost(site, n)
		}
	}
	if options.FRRBoth {
		s.Near = s.addFRR(DC1)
	} else {
		s.addGateway(DC1, bins)
	}
	switch {
	case options.KernelFar:
		s.addKernel()
	case options.FRRFar:
		s.FRR = s.addFRR(DC2)
		s.addFarSubnet()
	case options.FRRBoth:
		s.FRR = s.addFRR(DC2)
	default:
		s.addGateway(DC2, bins)
	}
	if options.Role == "stick" || options.Outside {
		s.addRouter()
	}
	if options.TwoExits {
		s.addExit()
	}
	if options.OneArmed {
		s.addCore()
	}
	if !options.NoRoutes {
		s.tell()
	}
	return s
}

// parallel are the tests that run beside others.
var parallel sync.Map

// besideOthers makes a test parallel, where it is one and is not yet. It waits for most of its time, for daemons and for packets, and labs share
// nothing but the machine.
func besideOthers(t TB) {
	p, is := t.(interface{ Parallel() })
	if !is {
		return
	}
	if _, already := parallel.LoadOrStore(t, true); already {
		return
	}
	t.Cleanup(func() { parallel.Delete(t) })
	p.Parallel()
}

// Up starts the daemons and waits until both are ready.
func (s *Sites) Up() {
	s.Helper()
	for _, g := range s.GW {
		if g != nil {
			g.Up()
		}
	}
}

// H returns a host by the name the drawing gives it.
func (s *Sites) H(name string) *Host {
	s.Helper()
	for _, h := range s.Hosts {
		if h.Name == name {
			return h
		}
	}
	s.Fatalf("no host %s", name)
	return nil
}

// Replug moves a host's cable to the other site and tells nobody.
func (s *Sites) Replug(h *Host, site int) {
	s.Helper()
	s.Switch.Plug(h.Port, s.access(site))
	h.Site = site
}

// Move moves a host to a site: its cable, then `roamctl host move` for both of its addresses at once, on the
// destination's gateway and then on the other.
func (s *Sites) Move(h *Host, site int) {
	s.Helper()
	s.Replug(h, site)
	for _, at := range []int{site, 1 - site} {
		errs := make(chan error, 2)
		for _, ip := range h.IPs() {
			go func() {
				_, err := s.GW[at].Ctl("host", "move", ip.String(), "--to", SiteNames[site])
				errs <- err
			}()
		}
		s.must(errors.Join(<-errs, <-errs), "move %s to %s", h.Name, SiteNames[site])
	}
}

// Twin makes a second machine with a host's MAC and addresses, plugged in at another site: what stands at the
// destination when a migration is about to end. It has the host's routes, too.
func (s *Sites) Twin(h *Host, site int) *Host {
	s.Helper()
	twin := *h
	twin.Namespace, twin.Site, twin.Port = s.Namespace(h.Name+"-twin"), site, h.Port+"-twin"
	s.plugIn(&twin)
	return &twin
}

// Liar makes a machine with a host's addresses and a MAC of its own, plugged in at a site: one that means harm, or a standby.
func (s *Sites) Liar(h *Host, site int) *Host {
	s.Helper()
	liar := *h
	liar.Namespace, liar.Site, liar.Port, liar.MAC = s.Namespace(h.Name+"-liar"), site, h.Port+"-liar", "02:00:00:00:66:66"
	s.plugIn(&liar)
	return &liar
}

// Unplug takes a host's cable out: see Sever.
func (s *Sites) Unplug(h *Host) {
	s.Helper()
	s.Sever(h.Port)
}

// Sever puts a port of the switch into a bridge that leads nowhere: what the cable carries is lost, and neither end
// notices. Switch.Plug heals it.
func (s *Sites) Sever(port string) {
	s.Helper()
	if !slices.Contains(s.Switch.Links(), "nowhere") {
		s.Switch.Bridge("nowhere", hostMTU)
	}
	s.Switch.Plug(port, "nowhere")
}

// Third is a third site in one machine, dc3: a kernel VXLAN device with a host's address of each family on itself,
// 10.1.0.31 and 2001:db8:1::31. It sends packets for a host to gateway gw1 and never learns of a move, as a gateway
// would that hears of it late. Call it before Up.
func (s *Sites) Third(target *Host) *Host {
	s.Helper()
	third := &Host{
		Namespace: s.Namespace("dc3"), Site: -1,
		IP4: netip.MustParseAddr("10.1.0.31"), IP6: netip.MustParseAddr("2001:db8:1::31"),
	}
	const mac, locator = "02:00:00:00:00:03", "192.0.2.3"
	s.Cable(End{In: third.Namespace, Name: "wan0"}, End{In: s.Switch, Name: "dc3-wan", Bridge: "wan"}, underlayMTU, 1)
	third.Addresses("wan0", locator+"/24")
	third.VXLAN("vx0", 7001, locator, mac)
	third.Addresses("vx0", HostRoute(third.IP4), HostRoute(third.IP6))
	third.Run("bridge", "fdb", "append", routerMACs[DC1], "dev", "vx0", "dst", locators4[DC1])
	third.IP(
		"neigh add 169.254.0.1 lladdr "+routerMACs[DC1]+" dev vx0",
		"neigh add fe80::a lladdr "+routerMACs[DC1]+" dev vx0",
		"route add "+HostRoute(target.IP4)+" via 169.254.0.1 dev vx0 onlink",
		"route add "+HostRoute(target.IP6)+" via fe80::a dev vx0 onlink",
	)
	for _, g := range s.GW {
		g.Config.Peers = append(g.Config.Peers, Peer{Site: "dc3", Locators: []PeerLocator{{Address: locator, RouterMAC: mac}}})
		g.SetRoute(HostRoute(third.IP4), "dc3")
		g.SetRoute(HostRoute(third.IP6), "dc3")
	}
	return third
}

// Stand puts a machine onto the wan, at 192.0.2.n and 2001:db8:ff::n.
func (s *Sites) Stand(name string, n int) *Namespace {
	s.Helper()
	m := s.Namespace(name)
	s.Cable(End{In: m, Name: "wan0"}, End{In: s.Switch, Name: name + "-wan", Bridge: "wan"}, underlayMTU, 1)
	m.Addresses("wan0", fmt.Sprintf("192.0.2.%d/24", n), fmt.Sprintf("2001:db8:ff::%d/64", n))
	return m
}

func lan(site int) string { return []string{"lan1", "lan2"}[site] }

// access is the switch that a site's hosts are plugged into.
func (s *Sites) access(site int) string {
	if s.Racks {
		return []string{"rack1", "rack2"}[site]
	}
	return lan(site)
}

// addRacks puts a switch between each LAN and its hosts: a host that leaves takes its entry out of that one's table, and the LAN's keeps it.
func (s *Sites) addRacks() {
	s.Helper()
	for site := range 2 {
		rack := s.access(site)
		s.Switch.Bridge(rack, hostMTU)
		s.Cable(End{In: s.Switch, Name: rack + "-up", Bridge: rack}, End{In: s.Switch, Name: rack + "-down", Bridge: lan(site)}, hostMTU, 1)
	}
}

func (s *Sites) addHost(site, n int) {
	s.Helper()
	number := (site+1)*10 + n
	name := fmt.Sprintf("h%d", number)
	h := &Host{
		Namespace: s.Namespace(name), Site: site, Port: name,
		IP4: netip.MustParseAddr(fmt.Sprintf("10.1.0.%d", number)),
		IP6: netip.MustParseAddr(fmt.Sprintf("2001:db8:1::%d", number)),
	}
	h.MAC = fmt.Sprintf("02:00:00:00:01:%02x", number)
	s.plugIn(h)
	s.Hosts = append(s.Hosts, h)
}

// plugIn cables a host to its site and gives it its addresses and routes.
func (s *Sites) plugIn(h *Host) {
	s.Helper()
	s.Cable(End{In: h.Namespace, Name: "eth0", MAC: h.MAC}, End{In: s.Switch, Name: h.Port, Bridge: s.access(h.Site)}, hostMTU, 1)
	h.Addresses("eth0", h.IP4.String()+"/24", h.IP6.String()+"/64")
	if s.Role == "stick" {
		h.IP("route add default via "+routers[0], "route add default via "+routers[1])
	} else {
		h.IP("route add default via "+shared[0], "route add default via "+shared[2]+" dev eth0")
	}
}

func (s *Sites) addGateway(site int, bins Binaries) {
	s.Helper()
	g := s.Gateway(fmt.Sprintf("gw%d", site+1), bins)
	s.GW[site] = g
	c := &g.Config
	c.Site, c.Role, c.FIBTable, c.RouterMAC = SiteNames[site], s.Role, s.FIBTable, routerMACs[site]
	c.Access, c.Underlay, c.Subnets = "lan0", []string{"wan0"}, subnets
	c.Own = []string{fmt.Sprintf("10.1.0.%d", 2+site), fmt.Sprintf("2001:db8:1::%d", 2+site)}
	if s.Capacity != 0 {
		c.Hosts = s.Capacity
	}
	if s.Role == "default" {
		c.Shared = shared
	} else {
		c.Routers = routers // both gateways know that r1 is a router, although it lives at dc1
	}
	peer := Peer{Site: SiteNames[1-site]}
	for i, ends := range s.locators() {
		c.Locators = append(c.Locators, ends[site])
		l := PeerLocator{Address: ends[1-site], RouterMAC: routerMACs[1-site], Priority: i + 1}
		if s.TwoWays {
			l.Priority = 1
		}
		peer.Locators = append(peer.Locators, l)
	}
	c.Peers = []Peer{peer}
	mtu := hostMTU
	if s.OneArmed {
		mtu = underlayMTU
		c.Underlay = []string{"lan0"}
	}
	s.Cable(End{In: g.Namespace, Name: "lan0"}, End{In: s.Switch, Name: g.Name + "-lan", Bridge: lan(site)}, mtu, 1)
	if !s.OneArmed {
		s.underlay(g.Namespace, site)
	}
	if s.TwoWays {
		c.Underlay = append(c.Underlay, "wan1")
		s.Cable(End{In: g.Namespace, Name: "wan1"}, End{In: s.Switch, Name: g.Name + "-wan2", Bridge: "wan2"}, s.underlayMTU(), 1)
		g.Addresses("wan1", seconds4[site]+"/24")
	}
}

func (s *Sites) underlayMTU() int {
	if s.Narrow {
		return hostMTU
	}
	return underlayMTU
}

// locators are the tunnel ends of both sites, once per address family in use.
func (s *Sites) locators() [][2]string {
	switch {
	case s.TwoWays:
		return [][2]string{locators4, seconds4}
	case s.Dual && s.Underlay6:
		return [][2]string{locators6, locators4}
	case s.Dual:
		return [][2]string{locators4, locators6}
	case s.Underlay6:
		return [][2]string{locators6}
	}
	return [][2]string{locators4}
}

// underlay cables a gateway to the wan.
func (s *Sites) underlay(n *Namespace, site int) {
	s.Helper()
	s.Cable(End{In: n, Name: "wan0"}, End{In: s.Switch, Name: n.Name + "-wan", Bridge: "wan"}, s.underlayMTU(), 1)
	n.Addresses("wan0", locators4[site]+"/24", locators6[site]+"/64")
}

// addCore joins the sites of one-armed gateways: a router with a leg in each LAN, on which the gateways' underlay
// addresses are reached.
func (s *Sites) addCore() {
	s.Helper()
	core := s.Namespace("core")
	core.Sysctl("net.ipv4.conf.all.forwarding", "1")
	core.Sysctl("net.ipv6.conf.all.forwarding", "1")
	for site, g := range s.GW {
		leg := lan(site)
		s.Cable(End{In: core, Name: leg}, End{In: s.Switch, Name: "core-" + leg, Bridge: leg}, underlayMTU, 1)
		core.Addresses(leg, fmt.Sprintf("192.0.2.%d/32", 101+site), fmt.Sprintf("2001:db8:ff::%d/128", 101+site))
		core.IP("route add "+locators4[site]+"/32 dev "+leg, "route add "+locators6[site]+"/128 dev "+leg)
		if g == nil {
			continue
		}
		g.Addresses("lan0", locators4[site]+"/32", locators6[site]+"/128")
		g.IP(
			fmt.Sprintf("route add 192.0.2.%d/32 dev lan0", 101+site),
			fmt.Sprintf("route add %s/32 via 192.0.2.%d dev lan0 src %s", locators4[1-site], 101+site, locators4[site]),
			fmt.Sprintf("route add 2001:db8:ff::%d/128 dev lan0", 101+site),
			fmt.Sprintf("route add %s/128 via 2001:db8:ff::%d dev lan0", locators6[1-site], 101+site),
		)
	}
}

// addRouter gives dc1 the router r1. On a stick it stands on the LAN as the hosts' default router, else behind an
// uplink of gw1. Beyond it is the outside host.
func (s *Sites) addRouter() {
	s.Helper()
	r1, gw1 := s.Namespace("r1"), s.GW[DC1]
	s.R1 = r1
	r1.Sysctl("net.ipv4.conf.all.forwarding", "1")
	r1.Sysctl("net.ipv6.conf.all.forwarding", "1")
	if s.Role == "stick" {
		s.Cable(End{In: r1, Name: "lan"}, End{In: s.Switch, Name: "r1", Bridge: "lan1"}, hostMTU, 1)
		r1.Addresses("lan", routers[0]+"/24", routers[1]+"/64")
		r1.Sysctl("net.ipv4.conf.lan.send_redirects", "0")
		s.GW[DC2].Config.Foreign = []string{r1.MAC("lan")} // a host that came from dc1 still sends to r1
		// What a tunnel brings for the outside goes on to r1. The gateway has no address on the LAN before roamd runs.
		gw1.IP("route add default via "+routers[0]+" dev lan0 onlink", "route add default via "+routers[1]+" dev lan0 onlink")
	} else {
		s.Cable(End{In: r1, Name: "down"}, End{In: gw1.Namespace, Name: "up0"}, hostMTU, 1)
		r1.Addresses("down", "203.0.113.2/30", "2001:db8:3::2/64")
		r1.IP("route add "+subnets[0]+" via 203.0.113.1", "route add "+subnets[1]+" via 2001:db8:3::1")
		gw1.Addresses("up0", "203.0.113.1/30", "2001:db8:3::1/64")
		gw1.IP("route add default via 203.0.113.2", "route add default via 2001:db8:3::2")
		gw1.Config.Uplinks = []string{"up0"}
	}
	s.Out = &Host{
		Namespace: s.Namespace("out"), Site: -1,
		IP4: netip.MustParseAddr("198.51.100.10"), IP6: netip.MustParseAddr("2001:db8:2::10"),
	}
	s.Cable(End{In: s.Out.Namespace, Name: "eth0"}, End{In: r1, Name: "out"}, hostMTU, 1)
	r1.Addresses("out", "198.51.100.1/24", "2001:db8:2::1/64")
	s.Out.Addresses("eth0", "198.51.100.10/24", "2001:db8:2::10/64")
	s.Out.IP("route add default via 198.51.100.1", "route add default via 2001:db8:2::1")
}

// addExit gives dc2 the router r2 behind an uplink of gw2, with a cable of its own to the outside host.
func (s *Sites) addExit() {
	s.Helper()
	r2, gw2 := s.Namespace("r2"), s.GW[DC2]
	s.R2 = r2
	r2.Sysctl("net.ipv4.conf.all.forwarding", "1")
	r2.Sysctl("net.ipv6.conf.all.forwarding", "1")
	s.Cable(End{In: r2, Name: "down"}, End{In: gw2.Namespace, Name: "up0"}, hostMTU, 1)
	r2.Addresses("down", "203.0.113.6/30", "2001:db8:4::2/64")
	gw2.Addresses("up0", "203.0.113.5/30", "2001:db8:4::1/64")
	gw2.IP("route add default via 203.0.113.6", "route add default via 2001:db8:4::2")
	gw2.Config.Uplinks = []string{"up0"}
	s.Cable(End{In: s.Out.Namespace, Name: "eth1"}, End{In: r2, Name: "out"}, hostMTU, 1)
	r2.Addresses("out", "203.0.113.9/30", "2001:db8:5::1/64")
	s.Out.Addresses("eth1", "203.0.113.10/30", "2001:db8:5::2/64")
	r2.IP(
		"route add "+subnets[0]+" via 203.0.113.5", "route add "+subnets[1]+" via 2001:db8:4::1",
		"route add "+OutsideNets[0]+" via 203.0.113.10", "route add "+OutsideNets[1]+" via 2001:db8:5::2",
	)
}

// Ingress has the outside host reach a host by r2, or again by r1, as it would hear from a router that is told who lives here.
func (s *Sites) Ingress(h *Host, family int, byR2 bool) {
	s.Helper()
	verb, via := "del", []string{"203.0.113.9", "2001:db8:5::1"}[family]
	if byR2 {
		verb = "add"
	}
	s.Out.IP("route " + verb + " " + HostRoute(h.IPs()[family]) + " via " + via)
}

// tell writes what each gateway has to know of the other site into its route file: the hosts there and, at dc2, that
// the outside is reached through dc1.
func (s *Sites) tell() {
	s.Helper()
	for site, g := range s.GW {
		if g == nil {
			continue
		}
		for _, h := range s.Hosts {
			if h.Site != site {
				g.SetRoute(HostRoute(h.IP4), SiteNames[1-site])
				g.SetRoute(HostRoute(h.IP6), SiteNames[1-site])
			}
		}
		if site == DC1 || s.R1 == nil || s.R2 != nil {
			continue
		}
		for _, net := range OutsideNets {
			g.SetRoute(net, SiteNames[DC1])
		}
		if s.Role == "stick" {
			for _, r := range routers {
				g.SetRoute(HostRoute(netip.MustParseAddr(r)), SiteNames[DC1])
			}
		}
	}
}

// addKernel gives dc2 a gateway made of nothing but the Linux kernel: host routes into its VXLAN device, and proxy
// ARP and ND towards its own hosts.
func (s *Sites) addKernel() {
	s.Helper()
	far := s.Namespace("far")
	s.Far = far
	for _, key := range []string{
		"net.ipv4.conf.all.forwarding", "net.ipv6.conf.all.forwarding", "net.ipv4.conf.all.proxy_arp",
		"net.ipv6.conf.all.proxy_ndp",
	} {
		far.Sysctl(key, "1")
	}
	s.Cable(End{In: far, Name: "lan0"}, End{In: s.Switch, Name: "far-lan", Bridge: "lan2"}, hostMTU, 1)
	far.Sysctl("net.ipv4.neigh.lan0.proxy_delay", "0")
	far.Sysctl("net.ipv6.neigh.lan0.proxy_delay", "0")
	far.Addresses("lan0", shared[0]+"/24", shared[1]+"/64", shared[2]+"/64")
	s.underlay(far, DC2)
	ends := s.locators()[0]
	far.VXLAN("vx0", 7001, ends[DC2], routerMACs[DC2])
	far.Run("bridge", "fdb", "append", routerMACs[DC1], "dev", "vx0", "dst", ends[DC1])
	far.IP(
		"neigh add 169.254.0.1 lladdr "+routerMACs[DC1]+" dev vx0",
		"neigh add fe80::a lladdr "+routerMACs[DC1]+" dev vx0",
	)
	for _, h := range s.Hosts {
		if h.Site == DC1 {
			far.IP(
				"route add "+HostRoute(h.IP4)+" via 169.254.0.1 dev vx0 onlink",
				"route add "+HostRoute(h.IP6)+" via fe80::a dev vx0 onlink",
				"neigh add proxy "+h.IP6.String()+" dev lan0",
			)
		}
	}
}
