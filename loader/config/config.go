// Package config turns the daemon's YAML file into a Config that the rest of the daemon may trust: every
// address is of the right kind, every name is unique, every default is filled in.
//
// A file becomes a Config in one pass over the syntax tree rather than through a struct decoder, for two
// reasons: an operator who made three mistakes wants three messages, and every message has to name the line,
// the column and the key's path. The tricky part is what a *reload* must not change: the data path's tables
// carry tenant numbers, so a tenant keeps its number for as long as it keeps its name (see Parse).
//
// What the file may say and what this daemon acts on are two lists. A key of a capability that is not built yet
// is checked like any other and then named in Config.Warnings, so that nobody believes it is in force.
//
// The manual of the file is reference.yaml in this folder, which is also the input of a test.
package config

import (
	"net/netip"
	"time"

	"roam/loader/route"
)

// Config is a validated configuration. It is never changed after Parse returned it: a reload makes a new one.
type Config struct {
	Site     string // the name of our own site
	Underlay Underlay
	Sites    []Site   // the other ends
	Tenants  []Tenant // at least one; the first is the default where a tenant may be left out
	Sources  Sources
	Hooks    Hooks
	API      API
	Metrics  Metrics
	Datapath Datapath

	// Warnings name, one sentence each, the keys that are right but not acted on.
	Warnings []string
}

// Underlay is our end of the tunnels.
type Underlay struct {
	Interfaces []string     // towards other gateways
	Locators   []OwnLocator // at least one
	RouterMAC  route.MAC    // ours, the destination of the inner Ethernet header we receive
	DSCP       int          // of outer headers, 0 to 63, or CopyDSCP
	Ports      TunnelPorts  // on which we receive
	BFD        *BFD         // nil: other ends are not watched by BFD
	Probe      *TunnelProbe // nil: tunnels are not probed
}

// CopyDSCP has outer headers carry the inner packet's DSCP.
const CopyDSCP = -1

// TunnelPorts are UDP ports by encapsulation.
type TunnelPorts struct{ VXLAN, VXLANGPE, Geneve, GUE, LISP uint16 }

// OwnLocator is one of our tunnel ends.
type OwnLocator struct {
	Address netip.Addr // on an underlay interface
	Public  netip.Addr // what others send to where NAT stands between; equal to Address where none does
}

// Site is another site, as configured.
type Site struct {
	Name     string
	Locators []RemoteLocator // at least one
}

// Ways are the site's locators as a route names them.
func (s Site) Ways() []route.Locator {
	ways := make([]route.Locator, len(s.Locators))
	for i, l := range s.Locators {
		ways[i] = l.Locator
	}
	return ways
}

// RemoteLocator is a tunnel end of another site, and what is known of it besides how to reach it.
type RemoteLocator struct {
	route.Locator
	ECN         bool           // it merges ECN (RFC 6040)
	UDPChecksum bool           // outer UDP checksums over IPv6 are computed; else 0 (RFC 6935)
	Tenant      string         // whose packets come by an encapsulation that names no tenant; "" where it does
	TenantID    route.TenantID // its number, 0 for none
}

// Tenant is a routing domain.
type Tenant struct {
	ID           route.TenantID // dense, kept over reloads by name
	Name         string
	VNI          uint32 // 24 bits
	RouteTargets []string
	Uplinks      []Port
	Segments     []Segment
}

// Port is an interface, or one VLAN of it.
type Port struct {
	Interface string
	VLAN      uint16 // 0: untagged
	Inner     uint16 // second tag (QinQ), 0 for none
}

// Segment is a set of subnets whose hosts move, and how they are reached here.
type Segment struct {
	Name      string
	L2VNI     uint32 // 0: none
	Access    Access
	Subnets   []netip.Prefix // at least one, masked
	Gateway   Gateway
	Mobility  Mobility
	Home      string // the site to which the subnets belong, "" for none
	Egress    Egress
	DHCPRelay []netip.Addr
}

// AccessMode says what stands on the access port.
type AccessMode string

// The access modes of the contract.
const (
	ModeEthernet AccessMode = "ethernet" // hosts on a LAN
	ModeFabric   AccessMode = "fabric"   // a routed fabric behind one next hop
)

// Access is the port of a segment.
type Access struct {
	Interface  string
	VLAN       uint16 // 0: untagged
	Inner      uint16 // second tag (QinQ), 0 for none
	Mode       AccessMode
	NextHopMAC route.MAC // fabric only
}

// Role says what the gateway is to its segment.
type Role string

// The roles of the contract.
const (
	RoleDefault Role = "default" // the segment's default router
	RoleStick   Role = "stick"   // another router is; we only attract traffic for hosts that live elsewhere
)

// Gateway is what hosts of a segment see of us.
type Gateway struct {
	Role         Role
	Addresses    []netip.Addr  // shared by all sites
	OwnAddresses []netip.Addr  // this gateway's alone
	MAC          route.MAC     // shared by all sites
	Routers      []netip.Addr  // other routers on the segment
	ForeignMACs  []route.MAC   // of gateways that stood here before
	KeepTTL      bool          // between hosts of one subnet no TTL is taken
	Advertise    bool          // router advertisements are sent
	Lifetime     time.Duration // that they give the router
	Election     *Election     // nil: this gateway answers whoever else does
}

// Mobility says how a segment's hosts may move.
type Mobility struct {
	Freeze Freeze
	Hold   time.Duration // how long a host that left may still be tunnelled on
	Probe  Probe
	Allow  []netip.Prefix // empty: all of the subnets
}

// Freeze stops a host that moves too often (RFC 7432, section 15.1).
type Freeze struct {
	Moves   int
	Window  time.Duration
	Recover time.Duration // 0: only by hand
}

// Probe is how the presence of a host is confirmed.
type Probe struct {
	Interval time.Duration
	Lost     int
}

// Sources are the origins of routes that the configuration names.
type Sources struct {
	File *FileSource // nil: none
	FIB  []FIBTable
	BGP  *BGP // nil: none
}

// FileSource is a watched route file.
type FileSource struct{ Path string }

// FIBTable is a kernel routing table that some routing daemon writes host routes into: the next hop of each is
// a locator, with the encapsulation, priority and weight given here.
type FIBTable struct {
	Table   int
	Tenant  route.TenantID
	Locator route.Locator // a template: Address and RouterMAC are zero
}

// Hooks are programs run on events.
type Hooks struct {
	HostChange string        // "": none
	Timeout    time.Duration // of one run
	Parallel   int           // runs at a time
	DryRun     bool          // say what would be run
}

// API is the control socket.
type API struct {
	Socket string
	State  string // where injected routes are kept over restarts
}

// Metrics is the Prometheus endpoint.
type Metrics struct{ Listen string } // host:port, "" for none

// DatapathMode is how XDP attaches.
type DatapathMode string

// The attach modes of the contract.
const (
	ModeNative  DatapathMode = "native"
	ModeGeneric DatapathMode = "generic"
)

// SourceCheck says what is asked of the sender inside a tunnel.
type SourceCheck string

// The source checks.
const (
	SourceLoose  SourceCheck = "loose"  // its address can be right somewhere
	SourceStrict SourceCheck = "strict" // its own route leads to the site that it came from
	SourceOff    SourceCheck = "off"
)

// Frags says whether frames may be longer than a page.
type Frags string

// The choices of frags.
const (
	FragsAuto Frags = "auto" // where a port's MTU needs it
	FragsOff  Frags = "off"
)

// Datapath sizes and places the data path.
type Datapath struct {
	Mode        DatapathMode
	Hosts       uint32 // host routes to make room for, both families together
	Pin         string // a folder on a BPF file system
	SourceCheck SourceCheck
	ClampMSS    bool // TCP is told at its start what fits into the tunnel
	ICMP        ICMP
	Frags       Frags
	Shadow      bool // looks, learns and reports, and does nothing
}

// ICMP rations the error messages made in the data path, for each sender.
type ICMP struct {
	Rate  uint32 // messages a second, 0 for none at all
	Burst uint32 // and at once
}

// TenantNamed returns the tenant of that name; the empty name is the first tenant.
func (c *Config) TenantNamed(name string) (*Tenant, bool) {
	for i := range c.Tenants {
		if name == "" || c.Tenants[i].Name == name {
			return &c.Tenants[i], true
		}
	}
	return nil, false
}

// TenantNumbered returns the tenant with that number.
func (c *Config) TenantNumbered(id route.TenantID) (*Tenant, bool) {
	for i := range c.Tenants {
		if c.Tenants[i].ID == id {
			return &c.Tenants[i], true
		}
	}
	return nil, false
}

// SiteNamed returns the other site of that name.
func (c *Config) SiteNamed(name string) (*Site, bool) {
	for i := range c.Sites {
		if c.Sites[i].Name == name {
			return &c.Sites[i], true
		}
	}
	return nil, false
}
