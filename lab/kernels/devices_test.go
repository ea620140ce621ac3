package kernels_test

import (
	"fmt"
	"strings"
)

// device is a tunnel device of the kernel, as the far end of an encapsulation.
type device struct {
	encap string
	name  string // in the results
	shown string // tshark's filter for its packets
	since string // the first kernel that has it in this form, empty for the oldest that Roam promises
	kind  kind

	// add lists the commands that make it between two underlay addresses: t0, or t4 and t6 where each family inside has a device
	// of its own.
	add func(local, remote string) []string
}

// kind says how a route leads into a device.
type kind int

const (
	bare     kind = iota // IP packets
	ethernet             // frames: the device has a MAC, and so has the other gateway
	perRoute             // IP packets, and the route tells where the tunnel ends
)

const vni = 7001

var devices = []device{
	{encap: "vxlan", name: "vxlan", shown: "udp.dstport == 4789 && vxlan.vni == 7001", kind: ethernet, add: func(local, remote string) []string {
		return []string{fmt.Sprintf("ip link add t0 address %s type vxlan id %d local %s remote %s dstport 4789", farMAC, vni, local, remote)}
	}},
	{encap: "vxlan-gpe", name: "vxlan gpe", shown: "udp.dstport == 4790 && vxlan.vni == 7001", kind: perRoute, add: func(_, _ string) []string {
		return []string{"ip link add t0 type vxlan external gpe dstport 4790"}
	}},
	{encap: "geneve", name: "geneve innerprotoinherit", shown: "geneve.vni == 7001 && geneve.proto_type != 0x6558", since: "6.0", add: func(_, remote string) []string {
		return []string{fmt.Sprintf("ip link add t0 type geneve id %d remote %s innerprotoinherit", vni, remote)}
	}},
	{encap: "geneve-l2", name: "geneve", shown: "geneve.vni == 7001 && geneve.proto_type == 0x6558", kind: ethernet, add: func(_, remote string) []string {
		return []string{fmt.Sprintf("ip link add t0 address %s type geneve id %d remote %s", farMAC, vni, remote)}
	}},
	{encap: "gre", name: "gre, ip6gre with a key", shown: "gre.key == 7001", add: func(local, remote string) []string {
		return []string{fmt.Sprintf("ip link add t0 type %s local %s remote %s key %d", pick(local, "gre", "ip6gre"), local, remote, vni)}
	}},
	{encap: "gre-nokey", name: "gre, ip6gre", shown: "gre && !gre.key", add: func(local, remote string) []string {
		return []string{fmt.Sprintf("ip link add t0 type %s local %s remote %s", pick(local, "gre", "ip6gre"), local, remote)}
	}},
	{encap: "ipip", name: "ipip, sit, ip6tnl", shown: "ip.proto in {4, 41} || ipv6.nxt in {4, 41} || ipv6.dstopts.nxt in {4, 41}", add: func(local, remote string) []string {
		return ipip(local, remote, "")
	}},
	{encap: "gue", name: "ipip, sit, ip6tnl in gue", shown: "udp.port == 6080", add: func(local, remote string) []string {
		return append([]string{pick(local, "ip", "ip -6") + " fou add port 6080 gue"},
			ipip(local, remote, "encap gue encap-sport auto encap-dport 6080 "+pick(local, "", "encap-udp6-csum"))...)
	}},
}

// ipip is what the kernel has for IP in IP: over IPv4 a device for each family inside, over IPv6 one for both.
func ipip(local, remote, options string) []string {
	ends := fmt.Sprintf("local %s remote %s %s", local, remote, options)
	if isIPv6(local) {
		return []string{"ip link add t0 type ip6tnl mode any " + ends}
	}
	return []string{"ip link add t4 type ipip " + ends, "ip link add t6 type sit " + ends}
}

// up lists the commands that make a device and lead what is for a gateway's hosts into it.
func (d device) up(local, remote string) []string {
	script := d.add(local, remote)
	names := [2]string{"t0", "t0"}
	if strings.Contains(script[len(script)-1], " t6 ") {
		names = [2]string{"t4", "t6"}
	}
	for i, via := range []string{"169.254.0.1", "fe80::a"} {
		dev := names[i]
		// Without a link-local address the kernel says nothing of its own into the tunnel.
		script = append(script, "ip link set "+dev+" mtu 1500 addrgenmode none", "ip link set "+dev+" up")
		to := "ip route add " + prefix(host[i])
		switch d.kind {
		case bare:
			to += " dev " + dev
		case ethernet:
			script = append(script, "ip neigh add "+via+" lladdr "+routerMAC+" dev "+dev)
			to += " via " + via + " dev " + dev + " onlink"
		case perRoute:
			to += fmt.Sprintf(" encap %s id %d dst %s %s dev %s", pick(local, "ip", "ip6"), vni, remote, pick(local, "", "csum"), dev)
		}
		script = append(script, to+" src "+farHost[i])
	}
	return script
}

// down takes away whatever up made.
const down = `for dev in t0 t4 t6; do [ ! -e /sys/class/net/$dev ] || ip link del $dev; done
ip fou del port 6080 2>/dev/null
ip -6 fou del port 6080 2>/dev/null
true`

// pick chooses by the family of an address.
func pick(address, v4, v6 string) string {
	if isIPv6(address) {
		return v6
	}
	return v4
}

func isIPv6(address string) bool { return strings.Contains(address, ":") }
