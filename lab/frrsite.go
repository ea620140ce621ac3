package lab

import (
	"fmt"
	"net/netip"
	"strings"
)

// What an EVPN gateway made of FRR and the kernel needs to be told (symmetric IRB, RFC 9135): the tenant's VNI has a
// bridge of its own without hosts, each subnet one with its VNI and the gateway's addresses.
const (
	tenantVNI = 7001
	bridgeVNI = 10
	farVNI    = 20
	firstASN  = 65001 // of dc1

	gatewayMAC = "02:00:5e:10:00:01" // of both sites' gateways, so that a host that moves need not know
)

const farZebra = `
vni 7001
`

// frrBGP is for a site, numbered from 1, that has the other one for a neighbour.
const frrBGP = `
ip prefix-list lans permit 10.0.0.0/8 le 24
ipv6 prefix-list lans permit 2001:db8::/32 le 64
route-map lans permit 10
 match ip address prefix-list lans
route-map lans permit 20
 match ipv6 address prefix-list lans
router bgp %[1]d
 bgp router-id %[2]s
 no bgp default ipv4-unicast
 no bgp ebgp-requires-policy
 neighbor %[4]s remote-as %[3]d
 neighbor %[4]s timers 3 9
 neighbor %[4]s timers connect 1
 address-family ipv4 unicast
  redistribute connected route-map lans
 exit-address-family
 address-family ipv6 unicast
  redistribute connected route-map lans
 exit-address-family
 address-family l2vpn evpn
  neighbor %[4]s activate
  advertise-all-vni
  no dup-addr-detection
  advertise ipv4 unicast
  advertise ipv6 unicast
 exit-address-family
`

// addFRR gives a site a gateway of FRR and the kernel's VXLAN devices. At dc2:
//
//	h21 h22 --lan2-- lan0 [br10 .1] -- vx10 ) far ( vx7001 -- [br7001]
//	                                        )     ( wan0 192.0.2.2
func (s *Sites) addFRR(site int) *FRR {
	s.Helper()
	far := s.Namespace([]string{"near", "far"}[site])
	if site == DC2 {
		s.Far = far
	}
	for _, key := range []string{"net.ipv4.conf.all.forwarding", "net.ipv6.conf.all.forwarding"} {
		far.Sysctl(key, "1")
	}
	for _, scope := range []string{"all", "default"} {
		far.Sysctl("net.ipv4.conf."+scope+".rp_filter", "0")
	}
	s.underlay(far, site)
	s.Cable(End{In: far, Name: "lan0"}, End{In: s.Switch, Name: far.Name + "-lan", Bridge: lan(site)}, hostMTU, 1)
	evpnBridge(far, site, "br7001", "vx7001", tenantVNI, routerMACs[site], "")
	evpnBridge(far, site, "br10", "vx10", bridgeVNI, gatewayMAC, "lan0", "10.1.0.1/24", "2001:db8:1::1/64", "fe80::1/64")
	return far.FRR(farZebra, fmt.Sprintf(frrBGP, firstASN+site, locators4[site], firstASN+1-site, locators4[1-site]))
}

// addFarSubnet gives dc2's gateway of FRR a second subnet, 10.2.0.0/24 and 2001:db8:12::/64, with a host of its own, h31.
//
//	h31 --lan3-- lan1 [br20 .1] -- vx20 ) far
func (s *Sites) addFarSubnet() {
	s.Helper()
	s.Switch.Bridge("lan3", hostMTU)
	s.Cable(End{In: s.Far, Name: "lan1"}, End{In: s.Switch, Name: "far-lan3", Bridge: "lan3"}, hostMTU, 1)
	evpnBridge(s.Far, DC2, "br20", "vx20", farVNI, gatewayMAC, "lan1", "10.2.0.1/24", "2001:db8:12::1/64", "fe80::1/64")
	h := &Host{
		Namespace: s.Namespace("h31"), Site: DC2, Port: "h31", MAC: "02:00:00:00:01:31",
		IP4: netip.MustParseAddr("10.2.0.31"), IP6: netip.MustParseAddr("2001:db8:12::31"),
	}
	s.Cable(End{In: h.Namespace, Name: "eth0", MAC: h.MAC}, End{In: s.Switch, Name: h.Port, Bridge: "lan3"}, hostMTU, 1)
	h.Addresses("eth0", "10.2.0.31/24", "2001:db8:12::31/64")
	h.IP("route add default via 10.2.0.1", "route add default via fe80::1 dev eth0")
	s.Hosts = append(s.Hosts, h)
}

// evpnBridge makes a bridge with a VXLAN port, nothing of which learns from the tunnel: FRR tells them.
func evpnBridge(far *Namespace, site int, bridge, vxlan string, vni int, mac, port string, addresses ...string) {
	far.lab.Helper()
	lines := []string{
		"link add " + bridge + " address " + mac + " type bridge mcast_snooping 0",
		fmt.Sprintf("link add %s type vxlan id %d local %s dstport 4789 nolearning", vxlan, vni, locators4[site]),
		"link set " + vxlan + " master " + bridge + " addrgenmode none",
		"link set " + vxlan + " type bridge_slave neigh_suppress on learning off",
		"link set " + vxlan + " up", "link set " + bridge + " addrgenmode none", "link set " + bridge + " up",
	}
	if port != "" {
		lines = append(lines, "link set "+port+" master "+bridge)
	}
	for _, a := range addresses {
		nodad := ""
		if strings.Contains(a, ":") {
			nodad = " nodad"
		}
		lines = append(lines, "addr add "+a+" dev "+bridge+nodad)
	}
	far.IP(lines...)
	// What hosts announce of themselves is learnt, also of those that were not known.
	far.Sysctl("net.ipv4.conf."+bridge+".arp_accept", "1")
	far.Sysctl("net.ipv6.conf."+bridge+".accept_untracked_na", "2")
}
