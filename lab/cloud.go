package lab

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Cloud is a site in a routed fabric beside the others, site "cloud", with a one-armed gateway:
//
//	( wan )---wan0--[fabric]--gw--------eth0--[gwc] 10.9.0.5, fd00:9::5
//	     192.0.2.9   NAT   \                   roamd: access and underlay are eth0
//	                        \-vm-----( vm )----- a host whose cable is plugged in there
//
// The fabric is a router with one MAC at every port. It answers ARP for everybody and learns from nobody, drops what comes from a
// host's port with another source than the address that was assigned to its machine, and knows no way to an address that was not;
// the rest of the subnet leads to the gateway. Tunnels leave the cloud with its public address and a source port that NAT makes
// up.
//
// What is assigned is said through an HTTP API, which is a fake in the test's process: PUT and DELETE
// /instances/vm/addresses/ADDRESS.
type Cloud struct {
	GW     *Gateway
	Fabric *Namespace
	API    *CloudAPI

	sites *Sites
	host  *Host // whose cable is plugged in
}

// Names and addresses of the cloud.
const (
	CloudSite    = "cloud"
	CloudPublic  = "192.0.2.9" // of the gateway's locator
	CloudLocator = "10.9.0.5"  // on its interface
	CloudMAC     = "12:34:56:78:9a:bc"
	cloudAPI     = "10.9.0.1:80"
)

// Cloud builds it. The gateway's configuration is complete but for its BGP session and its hook; the caller starts it.
func (s *Sites) Cloud(bins Binaries) *Cloud {
	s.Helper()
	c := &Cloud{Fabric: s.Stand("fabric", 9), GW: s.Gateway("gwc", bins), sites: s}
	s.Switch.Bridge("vm", hostMTU)
	s.Cable(End{In: c.Fabric, Name: "gw", MAC: CloudMAC}, End{In: c.GW.Namespace, Name: "eth0"}, underlayMTU, 1)
	s.Cable(End{In: c.Fabric, Name: "vm", MAC: CloudMAC}, End{In: s.Switch, Name: "cloud-vm", Bridge: "vm"}, hostMTU, 1)
	c.Fabric.Addresses("gw", "10.9.0.1/24", "fd00:9::1/64")
	c.Fabric.Addresses("vm", "fe80::1/64")
	c.GW.Addresses("eth0", CloudLocator+"/24", "fd00:9::5/64")
	c.GW.IP("route add default via 10.9.0.1", "route add default via fd00:9::1")
	c.route()
	c.GW.Config.Site, c.GW.Config.Role, c.GW.Config.RouteFile = CloudSite, "stick", ""
	c.GW.Config.Access, c.GW.Config.Underlay, c.GW.Config.Fabric = "eth0", []string{"eth0"}, CloudMAC
	c.GW.Config.Subnets = subnets
	c.GW.Config.Locators, c.GW.Config.Public = []string{CloudLocator}, map[string]string{CloudLocator: CloudPublic}
	c.GW.Config.Peers = []Peer{{Site: SiteNames[DC1], Locators: []PeerLocator{{Address: locators4[DC1], RouterMAC: routerMACs[DC1]}}}}
	c.API = c.serve()
	return c
}

// route makes the fabric of the router.
func (c *Cloud) route() {
	c.sites.Helper()
	f := c.Fabric
	for _, key := range []string{"net.ipv4.conf.all.forwarding", "net.ipv6.conf.all.forwarding", "net.ipv6.conf.all.proxy_ndp"} {
		f.Sysctl(key, "1")
	}
	for _, port := range []string{"gw", "vm"} {
		for key, value := range map[string]string{
			"proxy_arp": "1", "proxy_arp_pvlan": "1", "send_redirects": "0", "rp_filter": "0", "arp_accept": "0",
		} {
			f.Sysctl("net.ipv4.conf."+port+"."+key, value)
		}
		f.Sysctl("net.ipv4.neigh."+port+".proxy_delay", "0")
		f.Sysctl("net.ipv6.neigh."+port+".proxy_delay", "0")
	}
	f.IP("route add "+subnets[0]+" via "+CloudLocator+" dev gw", "route add "+subnets[1]+" via fd00:9::5 dev gw")
	for _, h := range c.sites.Hosts { // for neighbour discovery the kernel answers only by name
		f.IP("neigh add proxy " + h.IP6.String() + " dev vm")
	}
	f.nft(`
table inet fabric {
	set assigned4 { type ipv4_addr; }
	set assigned6 { type ipv6_addr; }
	counter dropped {}
	chain forward {
		type filter hook forward priority 0;
		iifname "vm" ip saddr != @assigned4 counter name dropped drop
		iifname "vm" ip6 saddr != @assigned6 counter name dropped drop
	}
}
table ip nat {
	chain in {
		type nat hook prerouting priority dstnat;
		iifname "wan0" udp dport 4789 dnat to ` + CloudLocator + `
	}
	chain out {
		type nat hook postrouting priority srcnat;
		oifname "wan0" ip protocol udp snat to ` + CloudPublic + `:30000-39999 random
		oifname "wan0" snat to ` + CloudPublic + `
	}
}`)
}

// nft feeds rules to nftables.
func (n *Namespace) nft(rules string) {
	n.lab.Helper()
	path := filepath.Join(n.lab.Dir, n.Name+".nft")
	n.lab.must(os.WriteFile(path, []byte(rules+"\n"), 0o600), "write rules")
	n.Run("nft", "-f", path)
}

// Dropped is how many packets of addresses that are not assigned the fabric has dropped.
func (c *Cloud) Dropped() (n int) {
	c.sites.Helper()
	text := c.Fabric.Run("nft", "list", "counter", "inet", "fabric", "dropped")
	_, text, _ = strings.Cut(text, "packets ")
	_, err := fmt.Sscan(text, &n)
	c.sites.must(err, "read the fabric's counter")
	return n
}

// Plug moves a host's cable into the cloud, where it starts with an empty neighbour cache, as a machine that is started there
// does.
func (c *Cloud) Plug(h *Host) {
	c.sites.Helper()
	c.host = h
	c.sites.Switch.Plug(h.Port, "vm")
	h.IP("neigh flush dev eth0")
}

// CloudAPI is the fake: what it is asked for becomes so in the fabric.
type CloudAPI struct {
	cloud *Cloud

	mu       sync.Mutex
	broken   bool
	assigned map[netip.Addr]bool
	refused  []string // event ids, while it was broken
	granted  []string // and of what was done
}

func (c *Cloud) serve() *CloudAPI {
	c.sites.Helper()
	a := &CloudAPI{cloud: c, assigned: map[netip.Addr]bool{}}
	var l net.Listener
	c.sites.must(c.Fabric.Do(func() (err error) {
		l, err = net.Listen("tcp", cloudAPI)
		return err
	}), "listen for the cloud's API")
	mux := http.NewServeMux()
	mux.HandleFunc("/instances/vm/addresses/{address}", a.change)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(l)
	}()
	c.sites.Defer(func() {
		_ = server.Close()
		<-done
	})
	return a
}

// Break has the API refuse everything, or no longer.
func (a *CloudAPI) Break(broken bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.broken = broken
}

// Assigned tells whether an address is.
func (a *CloudAPI) Assigned(address netip.Addr) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.assigned[address]
}

// Events are the ids of the changes that were refused, and of those that were made, in order.
func (a *CloudAPI) Events() (refused, granted []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]string(nil), a.refused...), append([]string(nil), a.granted...)
}

func (a *CloudAPI) change(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	id := r.Header.Get("Idempotency-Key")
	address, err := netip.ParseAddr(r.PathValue("address"))
	wanted := r.Method == http.MethodPut
	switch {
	case err != nil:
		http.Error(w, err.Error(), http.StatusBadRequest)
	case a.broken:
		a.refused = append(a.refused, id)
		http.Error(w, "out of order", http.StatusServiceUnavailable)
	case a.assigned[address] == wanted && wanted:
		http.Error(w, "assigned already", http.StatusConflict)
	case a.assigned[address] == wanted:
		http.Error(w, "not assigned", http.StatusNotFound)
	default:
		if err := a.set(address, wanted); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		a.assigned[address], a.granted = wanted, append(a.granted, id)
	}
}

// set lets an address through, or no longer. The fabric does not ask its machine who it is.
func (a *CloudAPI) set(address netip.Addr, wanted bool) error {
	set, family, prefix := "assigned4", "-4", HostRoute(address)
	if address.Is6() {
		set, family = "assigned6", "-6"
	}
	f := a.cloud.Fabric
	commands := [][]string{
		{"ip", family, "neigh", "replace", address.String(), "lladdr", a.cloud.host.MAC, "dev", "vm", "nud", "permanent"},
		{"ip", family, "route", "replace", prefix, "dev", "vm"},
		{"nft", "add element inet fabric " + set + " { " + address.String() + " }"},
	}
	if !wanted {
		commands = [][]string{
			{"nft", "delete element inet fabric " + set + " { " + address.String() + " }"},
			{"ip", family, "route", "del", prefix, "dev", "vm"},
			{"ip", family, "neigh", "del", address.String(), "dev", "vm"},
		}
	}
	for _, words := range commands {
		if out, err := f.Try(words[0], words[1:]...); err != nil {
			return fmt.Errorf("%s: %w: %s", strings.Join(words, " "), err, out)
		}
	}
	return nil
}

// Adapter builds docs/examples/cloud-adapter, and a script that runs it with the cloud's API and the machine that the host is.
func (c *Cloud) Adapter(h *Host) string {
	c.sites.Helper()
	in := func(name string) string { return filepath.Join(c.sites.Dir, name) }
	program, instances, script := in("cloud-adapter"), in("instances.json"), in("roam-cloud")
	build := exec.Command("go", "build", "-o", program, "roam/docs/examples/cloud-adapter")
	build.Dir = Root()
	out, err := build.CombinedOutput()
	c.sites.must(err, "build the adapter: %s", out)
	c.sites.must(os.WriteFile(instances, fmt.Appendf(nil, `{"%s":"vm","%s":"vm"}`, h.IP4, h.IP6), 0o600), "write instances")
	text := "#!/bin/sh\nCLOUD_API=http://" + cloudAPI + " CLOUD_INSTANCES=" + instances + " exec " + program + "\n"
	c.sites.must(os.WriteFile(script, []byte(text), 0o700), "write the hook")
	return script
}
