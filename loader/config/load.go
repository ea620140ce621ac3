package config

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"time"

	"roam/loader/route"
)

// Defaults of the keys that stand at the top of the file.
const (
	DefaultSocket  = "/run/roam/roamd.sock"
	DefaultState   = "/var/lib/roam/routes.jsonl"
	DefaultMetrics = "127.0.0.1:9177"
	DefaultPin     = "/sys/fs/bpf/roam"
	DefaultHosts   = 1 << 20

	DefaultHookTimeout  = 30 * time.Second
	DefaultHookParallel = 4
)

// Limits that come from the data path's tables.
const (
	maxFile     = 4 << 20
	maxVNI      = 1<<24 - 1
	maxVLAN     = 4094
	maxHosts    = 1 << 24
	maxSegments = 1023
	maxPorts    = 256
	maxSocket   = 107 // of a Unix socket's path
)

// later names the keys that are read and checked but not acted on yet, by path without list positions.
// A capability that arrives takes its line out.
var later = map[string]string{
	"tenants.segments.dhcp_relay": "not acted on yet: DHCP is left to others",
}

// Load reads and validates a file; see Parse.
func Load(path string, previous *Config) (*Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w: name the file with --config", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("%s: larger than %d bytes: host routes belong into sources.file", path, maxFile)
	}
	return Parse(path, data, previous)
}

// Parse validates data; name stands in the messages for the file. A tenant that previous knows by name keeps
// its number, a new one gets the lowest free; previous may be nil. The error joins one *Error for everything
// that is wrong, in the order of the file.
func Parse(name string, data []byte, previous *Config) (*Config, error) {
	r := &reader{file: name, remotes: map[netip.Addr]value{}}
	root, ok := r.open(data)
	if !ok {
		return nil, r.err()
	}
	c := r.config(root)
	if err := r.err(); err != nil {
		return nil, err
	}
	if err := c.number(previous); err != nil {
		return nil, err
	}
	c.Warnings = r.warnings
	return c, nil
}

// config reads the top of the file. What is used by name below is read before what names it.
func (r *reader) config(root value) *Config {
	f := root.mapping("site", "underlay", "sites", "tenants", "sources", "hooks", "api", "metrics", "datapath")
	c := &Config{}
	c.Site, _ = f.require("site", "name the site this gateway stands at").name()
	r.underlay(c, f.require("underlay", "name the interfaces towards other gateways and our locators"))
	r.sites(c, f.get("sites"))
	r.tenants(c, f.require("tenants", "at least one, with the segments whose hosts move"))
	r.owners(c)
	r.sources(c, f.get("sources"))
	c.Hooks = hooks(f.get("hooks"))
	c.API = api(f.get("api"))
	c.Metrics.Listen = listen(f.get("metrics").mapping("listen").get("listen"))
	c.Datapath = datapath(f.get("datapath"))
	return c
}

func api(v value) API {
	f := v.mapping("socket", "state")
	socket := f.get("socket").file(DefaultSocket)
	if len(socket) > maxSocket {
		f.get("socket").fail("a socket's path has at most %d bytes, this has %d", maxSocket, len(socket))
	}
	state := DefaultState
	if socket != DefaultSocket {
		state = socket + ".routes"
	}
	return API{Socket: socket, State: f.get("state").file(state)}
}

func hooks(v value) Hooks {
	f := v.mapping("host_change", "timeout", "parallel", "dry_run")
	return Hooks{
		HostChange: f.get("host_change").file(""),
		Timeout:    f.get("timeout").duration(DefaultHookTimeout, 100*time.Millisecond, time.Hour),
		Parallel:   int(f.get("parallel").number(DefaultHookParallel, 1, 256)),
		DryRun:     f.get("dry_run").boolean(false),
	}
}

func listen(v value) string {
	s, ok := v.text()
	switch {
	case v.absent():
		return DefaultMetrics
	case !ok || s == "":
		return ""
	}
	host, port, err := net.SplitHostPort(s)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		v.fail("%q is no host:port such as %s; \"\" turns metrics off", s, DefaultMetrics)
		return ""
	}
	return net.JoinHostPort(host, port)
}

func (r *reader) sources(c *Config, v value) {
	f := v.mapping("file", "fib", "bgp")
	if file := f.get("file"); !file.absent() {
		path := file.mapping("path").require("path", "name the route file")
		c.Sources.File = &FileSource{Path: path.file("")}
	}
	c.Sources.FIB = all(f.get("fib"), func(v value) (FIBTable, bool) { return r.fib(c, v) })
	c.Sources.BGP = r.bgp(c, f.get("bgp"))
}

// fib reads one kernel table. Tenant numbers are not given yet: the table holds the tenant's place in the file
// until number replaces it.
func (r *reader) fib(c *Config, v value) (FIBTable, bool) {
	f := v.mapping("table", "tenant", "encap", "priority", "weight")
	t := FIBTable{Locator: route.Locator{
		Encap:    f.get("encap").encap(),
		Priority: uint8(f.get("priority").number(route.DefaultPriority, 0, route.Unusable)),
		Weight:   uint8(f.get("weight").number(route.DefaultWeight, 1, 255)),
	}}
	table := f.require("table", "give the number of the kernel's routing table")
	t.Table = int(table.number(0, 1, 1<<32-1))
	switch t.Table {
	case 253, 254, 255:
		table.fail("table %d is the kernel's own: let the routing daemon write into another", t.Table)
	case 0:
	default:
		table.unique("table", strconv.Itoa(t.Table))
	}
	t.Tenant = r.tenantOf(c, f.get("tenant"))
	return t, true
}

// number gives every tenant its id.
func (c *Config) number(previous *Config) error {
	taken := make(map[route.TenantID]bool)
	if previous != nil {
		for i := range c.Tenants {
			if old, ok := previous.TenantNamed(c.Tenants[i].Name); ok {
				c.Tenants[i].ID = old.ID
				taken[old.ID] = true
			}
		}
	}
	free := route.TenantID(1)
	for i := range c.Tenants {
		if c.Tenants[i].ID != 0 {
			continue
		}
		for taken[free] {
			free++
		}
		if free > route.MaxTenant {
			return fmt.Errorf("more than %d tenants", route.MaxTenant)
		}
		c.Tenants[i].ID = free
		taken[free] = true
	}
	for _, s := range c.Sites {
		for i := range s.Locators {
			if t, ok := c.TenantNamed(s.Locators[i].Tenant); ok && s.Locators[i].Tenant != "" {
				s.Locators[i].TenantID = t.ID
			}
		}
	}
	for i := range c.Sources.FIB {
		c.Sources.FIB[i].Tenant = c.Tenants[c.Sources.FIB[i].Tenant].ID
	}
	if b := c.Sources.BGP; b != nil {
		for i := range b.Neighbors {
			b.Neighbors[i].Tenant = c.Tenants[b.Neighbors[i].Tenant].ID
		}
	}
	return nil
}
