package config

import (
	"net/netip"
	"strconv"
	"strings"
	"time"

	"roam/loader/route"
)

// Defaults of the BGP speaker.
const (
	defaultBGPPort         = 179
	defaultMultihop        = 64
	defaultHoldTime        = 90 * time.Second
	defaultConnectRetry    = 5 * time.Second
	defaultGracefulRestart = 120 * time.Second
	maxGracefulRestart     = 4095 * time.Second // RFC 4724, section 3: 12 bits of seconds
)

// BGP is the speaker: a source of what others announce, and a sink that announces who lives here.
type BGP struct {
	ASN       uint32
	RouterID  netip.Addr // IPv4
	Port      uint16     // to listen on
	Neighbors []BGPNeighbor
}

// BGPNeighbor is one session.
type BGPNeighbor struct {
	Address         netip.Addr
	ASN             uint32
	Local           netip.Addr // our end, not valid where the kernel chooses
	Port            uint16
	Passive         bool
	Password        string // of TCP-MD5 (RFC 2385), "" for none
	Multihop        uint8  // TTL of our packets where the session is external
	TTLSecurity     uint8  // how many hops away the neighbour may be (RFC 5082), 0: any
	Timers          BGPTimers
	GracefulRestart time.Duration // how long routes of a lost session stay on both ends; 0: not at all
	Families        []BGPFamily   // at least one
	Tenant          route.TenantID
	NextHops        []netip.Addr // of unicast routes instead of our locators, one per family at most
	MaxPrefix       uint32       // 0: no limit
	Import, Export  BGPPolicy
}

// BGPTimers are the times of RFC 4271, section 10.
type BGPTimers struct{ Hold, Keepalive, ConnectRetry time.Duration }

// BGPFamily is an address family of a session.
type BGPFamily string

// The families a session can carry.
const (
	FamilyEVPN BGPFamily = "evpn"
	FamilyIPv4 BGPFamily = "ipv4"
	FamilyIPv6 BGPFamily = "ipv6"
)

// BGPPolicy chooses routes. Prefixes: equal to or inside one of them; none means all. Communities: on import one of
// them must be there, none meaning that it does not matter; on export they are added.
type BGPPolicy struct {
	Prefixes    []netip.Prefix
	Communities []string // 65000:100 (RFC 1997) or 65000:1:2 (RFC 8092)
}

func (r *reader) bgp(c *Config, v value) *BGP {
	if v.absent() {
		return nil
	}
	f := v.mapping("asn", "router_id", "port", "neighbors")
	b := &BGP{
		ASN:  f.require("asn", "give our autonomous system number").asn(),
		Port: uint16(f.get("port").number(defaultBGPPort, 1, 65535)),
	}
	b.RouterID = routerID(c, f.get("router_id"))
	neighbors := f.require("neighbors", "name whom to speak to")
	b.Neighbors = all(neighbors, func(v value) (BGPNeighbor, bool) { return r.neighbor(c, b, v), true })
	atLeastOne(neighbors)
	return b
}

func (v value) asn() uint32 { return uint32(v.number(0, 1, 1<<32-1)) }

// routerID is our first IPv4 locator where none is given, as others know it: behind NAT many a gateway has the same address.
func routerID(c *Config, v value) netip.Addr {
	if a, ok := v.host(); ok {
		if !a.Is4() {
			v.fail("%s is no IPv4 address: a router id has 32 bits", a)
		}
		return a
	}
	for _, l := range c.Underlay.Locators {
		if l.Address.Is4() {
			return l.Public
		}
	}
	if v.absent() {
		v.fail("is missing: there is no IPv4 locator to take it from")
	}
	return netip.Addr{}
}

// neighbor reads a mapping, or a plain address.
func (r *reader) neighbor(c *Config, b *BGP, v value) BGPNeighbor {
	at, f := v, fields{of: value{r: r}}
	if v.isMapping() {
		f = v.mapping("address", "asn", "local", "port", "passive", "password", "multihop", "ttl_security", "timers",
			"graceful_restart", "families", "tenant", "next_hops", "max_prefix", "import", "export")
		at = f.require("address", "give the neighbour's address")
	}
	address, ok := at.host()
	if ok {
		at.unique("neighbour", address.String())
	}
	n := BGPNeighbor{
		Address:         address,
		ASN:             uint32(f.get("asn").number(uint64(b.ASN), 1, 1<<32-1)),
		Port:            uint16(f.get("port").number(defaultBGPPort, 1, 65535)),
		Passive:         f.get("passive").boolean(false),
		Password:        f.get("password").password(),
		Multihop:        uint8(f.get("multihop").number(defaultMultihop, 1, 255)),
		TTLSecurity:     uint8(f.get("ttl_security").number(0, 1, 254)),
		Timers:          timers(f.get("timers")),
		GracefulRestart: f.get("graceful_restart").seconds(defaultGracefulRestart, 0, maxGracefulRestart),
		MaxPrefix:       uint32(f.get("max_prefix").count(0, 1, 1<<31)),
		Import:          policy(f.get("import")),
		Export:          policy(f.get("export")),
	}
	if local := f.get("local"); !local.absent() {
		n.Local, ok = local.host()
		if ok && address.IsValid() && n.Local.Is4() != address.Is4() {
			local.fail("%s and %s are of different families", n.Local, address)
		}
	}
	if multihop := f.get("multihop"); n.TTLSecurity != 0 && !multihop.absent() {
		multihop.fail("contradicts ttl_security: keep one of them")
	}
	n.Families = families(f.get("families"))
	n.Tenant = r.tenantOf(c, f.get("tenant"))
	n.NextHops = nextHops(f.get("next_hops"))
	n.unicastNextHops(c, f.get("families"))
	return n
}

// password reads a key of TCP-MD5: the kernel takes 80 bytes (TCP_MD5SIG_MAXKEYLEN).
func (v value) password() string {
	s, ok := v.text()
	if ok && (len(s) == 0 || len(s) > 80) {
		v.fail("a password has 1 to 80 bytes, this has %d", len(s))
	}
	return s
}

func timers(v value) BGPTimers {
	f := v.mapping("hold", "keepalive", "connect_retry")
	const most = 65535 * time.Second
	t := BGPTimers{
		Hold:         f.get("hold").seconds(defaultHoldTime, 3*time.Second, most),
		ConnectRetry: f.get("connect_retry").seconds(defaultConnectRetry, time.Second, most),
	}
	t.Keepalive = f.get("keepalive").seconds((t.Hold / 3).Truncate(time.Second), time.Second, most)
	if t.Keepalive >= t.Hold {
		f.get("keepalive").fail("%v is not below the hold time of %v", t.Keepalive, t.Hold)
	}
	return t
}

// seconds reads a duration that travels as a whole number of seconds.
func (v value) seconds(fallback, least, most time.Duration) time.Duration {
	d := v.duration(fallback, least, most)
	if d%time.Second != 0 {
		v.fail("%v is not in whole seconds", d)
	}
	return d
}

func families(v value) []BGPFamily {
	if v.absent() {
		return []BGPFamily{FamilyEVPN}
	}
	atLeastOne(v)
	seen := make(map[BGPFamily]bool)
	return all(v, func(v value) (BGPFamily, bool) {
		f := one(v, "", FamilyEVPN, FamilyIPv4, FamilyIPv6)
		if seen[f] && f != "" {
			v.fail("%s is named twice", f)
		}
		seen[f] = true
		return f, f != ""
	})
}

func nextHops(v value) []netip.Addr {
	var taken [2]netip.Addr
	return all(v, func(v value) (netip.Addr, bool) {
		a, ok := v.host()
		if !ok {
			return a, false
		}
		family := &taken[a.BitLen()/128]
		if family.IsValid() {
			v.fail("%s and %s are of one family: a route has one next hop", a, *family)
			return a, false
		}
		*family = a
		return a, true
	})
}

// unicastNextHops makes sure that what is announced as unicast can have a next hop of its family.
func (n *BGPNeighbor) unicastNextHops(c *Config, v value) {
	for _, f := range n.Families {
		if f == FamilyEVPN {
			continue
		}
		has := false
		for _, l := range c.Underlay.Locators {
			has = has || l.Address.Is4() == (f == FamilyIPv4)
		}
		for _, a := range n.NextHops {
			has = has || a.Is4() == (f == FamilyIPv4)
		}
		if !has && len(c.Underlay.Locators) > 0 {
			v.fail("%s routes need a next hop: there is no %s locator, so name one under next_hops", f, f)
		}
	}
}

func policy(v value) BGPPolicy {
	f := v.mapping("prefixes", "communities")
	return BGPPolicy{
		Prefixes:    all(f.get("prefixes"), value.prefix),
		Communities: all(f.get("communities"), value.community),
	}
}

func (v value) community() (string, bool) {
	s, ok := v.text()
	if !ok {
		return "", false
	}
	parts := strings.Split(s, ":")
	bits := 16
	if len(parts) == 3 {
		bits = 32
	}
	good := len(parts) == 2 || len(parts) == 3
	for _, part := range parts {
		_, err := strconv.ParseUint(part, 10, bits)
		good = good && err == nil
	}
	if !good {
		v.fail("%q is no community such as \"65000:100\" or \"65000:1:2\"", s)
	}
	return s, good
}

// tenantOf reads the name of a tenant; the first one where none is named. As numbers are not given yet, the place in
// the file stands for it until number replaces it.
func (r *reader) tenantOf(c *Config, v value) route.TenantID {
	name, _ := v.name()
	for i := range c.Tenants {
		if name == "" || name == c.Tenants[i].Name {
			return route.TenantID(i)
		}
	}
	if len(c.Tenants) > 0 {
		v.fail("no tenant is named %q: add it under tenants", name)
	}
	return 0
}
