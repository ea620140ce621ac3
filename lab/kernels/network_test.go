package kernels_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"roam/lab"
)

// network is one gateway, a guest, between a host and another site, whose gateway is the kernel of this machine. IPv4 goes
// over IPv4, IPv6 over IPv6.
//
//	host          lan          gw1: guest, roamd          wan           far
//	10.1.0.11 ---------------- lan0         wan0 ------------------------ vx4 10.1.0.21
//	2001:db8:1::11             virtio_net   192.0.2.1      192.0.2.2      vx6 2001:db8:1::21
//	                                        2001:db8:ff::1 2001:db8:ff::2
type network struct {
	*lab.Lab
	host, far *lab.Namespace
	gw        *lab.Guest
}

const (
	hostMTU, underlayMTU = 1500, 2000
	config               = "/etc/roam/roamd.yaml"
	socket               = "/run/roamd.sock"
)

var (
	host       = [2]string{"10.1.0.11", "2001:db8:1::11"}
	farHost    = [2]string{"10.1.0.21", "2001:db8:1::21"}
	locator    = [2]string{"192.0.2.1", "2001:db8:ff::1"}
	farLocator = [2]string{"192.0.2.2", "2001:db8:ff::2"}
	subnets    = []string{"10.1.0.0/24", "2001:db8:1::/64"}
	shared     = []string{"10.1.0.1", "2001:db8:1::1", "fe80::1"}
	own        = []string{"10.1.0.2", "2001:db8:1::2"}
)

// The addresses inside, by which gateways know each other.
const (
	routerMAC = "02:00:00:00:00:01"
	farMAC    = "02:00:00:00:00:02"
)

func newNetwork(t *testing.T, k lab.Kernel) *network {
	t.Helper()
	n := &network{Lab: lab.New(t)}
	machine := n.Namespace("switch")
	machine.Bridge("lan", hostMTU)
	machine.Bridge("wan", underlayMTU)
	n.host, n.far = n.Namespace("host"), n.Namespace("far")
	n.Cable(lab.End{In: n.host, Name: "eth0"}, lab.End{In: machine, Name: "host", Bridge: "lan"}, hostMTU, 1)
	n.host.Addresses("eth0", host[0]+"/24", host[1]+"/64")
	n.host.IP("route add default via 10.1.0.1", "route add default via fe80::1 dev eth0")
	n.Cable(lab.End{In: n.far, Name: "wan0"}, lab.End{In: machine, Name: "far", Bridge: "wan"}, underlayMTU, 1)
	n.far.Addresses("wan0", farLocator[0]+"/24", farLocator[1]+"/64")
	for i, via := range []string{"169.254.0.1", "fe80::a"} {
		dev := []string{"vx4", "vx6"}[i]
		n.far.VXLAN(dev, 7001, farLocator[i], farMAC)
		n.far.Addresses(dev, prefix(farHost[i]))
		n.far.Run("bridge", "fdb", "append", routerMAC, "dev", dev, "dst", locator[i])
		n.far.IP("neigh add "+via+" lladdr "+routerMAC+" dev "+dev, "route add "+prefix(host[i])+" via "+via+" dev "+dev+" onlink")
	}
	n.gw = machine.Guest("gw1", lab.GuestSpec{
		Kernel: k, Files: []string{packetTests, tableTests, bins.Daemon, bins.Ctl},
		NICs: []lab.NIC{
			{Name: "lan0", Bridge: "lan", MAC: "02:00:00:00:0a:01"},
			{Name: "wan0", Bridge: "wan", MAC: "02:00:00:00:0a:02"},
		},
	})
	return n
}

func prefix(address string) string {
	if strings.Contains(address, ":") {
		return address + "/128"
	}
	return address + "/32"
}

// up configures the guest and starts its daemon.
func (n *network) up() {
	n.Helper()
	c := lab.Config{
		Site: "dc1", Role: "default", VNI: 7001, Hosts: 4096, RouterMAC: routerMAC,
		Access: "lan0", Underlay: []string{"wan0"}, Locators: locator[:], Subnets: subnets, Shared: shared, Own: own,
		RouteFile: "/etc/roam/routes.yaml", Socket: socket, Pin: "/sys/fs/bpf/roam",
	}
	var routes string
	peer := lab.Peer{Site: "dc2"}
	for i, far := range farLocator {
		peer.Locators = append(peer.Locators, lab.PeerLocator{Address: far, RouterMAC: farMAC})
		routes += fmt.Sprintf("- {prefix: %q, via: [{address: %q, router_mac: %q}]}\n", prefix(farHost[i]), far, farMAC)
	}
	c.Peers = []lab.Peer{peer}
	text, err := c.YAML()
	if err != nil {
		n.Fatalf("write the configuration: %v", err)
	}
	n.gw.Write(config, text)
	n.gw.Write(c.RouteFile, routes)
	n.gw.Run(
		"echo 0 >/proc/sys/net/ipv6/conf/wan0/accept_dad", "ip link set wan0 mtu 2000 up", "ip link set lan0 up",
		"ip addr add "+locator[0]+"/24 dev wan0", "ip addr add "+locator[1]+"/64 dev wan0",
	)
	n.start()
}

func (n *network) start() {
	n.Helper()
	n.gw.Run(bins.Daemon + " --config " + config + " >>/tmp/roamd.log 2>&1 &")
	n.Until(time.Minute, "roamd gets ready", func() error {
		out, err := n.ctl("-o json status")
		if err == nil {
			err = lab.Ready(out)
		}
		if err != nil {
			log, _ := n.gw.Try(10*time.Second, "tail -20 /tmp/roamd.log")
			err = fmt.Errorf("%w\n%s\n%s", err, out, log)
		}
		return err
	})
}

func (n *network) ctl(args string) (string, error) {
	return n.gw.Try(30*time.Second, bins.Ctl+" --socket "+socket+" "+args)
}

// counters are the gateway's packets by reason.
func (n *network) counters() map[string]uint64 {
	n.Helper()
	out, err := n.ctl("-o json counters")
	if err != nil {
		n.Fatalf("read the counters: %v\n%s", err, out)
	}
	var answer struct {
		Reasons []struct {
			Reason  string `json:"reason"`
			Packets uint64 `json:"packets"`
		} `json:"reasons"`
	}
	if err := json.Unmarshal([]byte(out), &answer); err != nil {
		n.Fatalf("decode the counters: %v\n%s", err, out)
	}
	counts := map[string]uint64{}
	for _, r := range answer.Reasons {
		counts[r.Reason] += r.Packets
	}
	return counts
}
