package main

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"roam/loader/api"
	"roam/loader/config"
)

// What a gateway says of a move, one rule at a time, as the gateway of the destination and as another.
func TestAdmission(t *testing.T) {
	const text = `
site: %s
underlay: {interfaces: [wan0], locators: [192.0.2.1]}
sites: [{name: %s, locators: [192.0.2.2]}]
tenants:
  - name: default
    vni: 7001
    %s
    segments:
      - name: web
        access: {interface: lan0}
        subnets: [10.1.0.0/24]
        gateway: {addresses: [10.1.0.1], mac: "02:00:5e:10:00:01", routers: [10.1.0.254], foreign_macs: ["00:50:56:aa:bb:cc"]}
        mobility: {allow: [10.1.0.0/25, 10.1.0.254/32]}
        home: dc1
        egress: %s
`
	const elsewhere = "by this gateway's configuration it could not live there: "
	for _, test := range []struct {
		name, address, mac, to, egress, uplinks string
		own                                     string
		broken                                  func(*admission)
		refused, warned, policy                 string
	}{
		{name: "nothing to say", address: "10.1.0.7", to: "dc2", own: "dc2"},
		{name: "of another tenant's subnet", address: "10.2.0.7", to: "dc2", own: "dc2", refused: "no segment of tenant default has it in its subnets"},
		{name: "the same, elsewhere", address: "10.2.0.7", to: "dc2", own: "dc1", warned: elsewhere + "no segment"},
		{name: "not allowed", address: "10.1.0.200", to: "dc2", own: "dc2", refused: "mobility.allow of segment web does not list it"},
		{name: "the gateway's", address: "10.1.0.1", to: "dc2", own: "dc2", refused: "an address of a gateway or router"},
		{name: "a router's", address: "10.1.0.254", to: "dc2", own: "dc2", refused: "an address of a gateway or router"},
		{name: "foreign MAC", address: "10.1.0.7", mac: "00:50:56:aa:bb:cc", to: "dc2", own: "dc2", refused: "its MAC 00:50:56:aa:bb:cc is no host's"},
		{name: "gateway's MAC", address: "10.1.0.7", mac: "02:00:5e:10:00:01", to: "dc2", own: "dc2", refused: "its MAC"},
		{
			name: "no port", address: "10.1.0.7", to: "dc2", own: "dc2", refused: "port lan0 of segment web is not in service: gone",
			broken: func(k *admission) { k.closed["lan0"] = errors.New("gone").Error() },
		},
		{name: "by home", address: "10.1.0.7", to: "dc2", own: "dc2", egress: "home", policy: "0.0.0.0/0 by dc1"},
		{
			name: "by home, which is out of reach", address: "10.1.0.7", to: "dc2", own: "dc2", egress: "home", policy: "0.0.0.0/0 by dc1",
			broken: func(k *admission) { clear(k.up) }, refused: "0.0.0.0/0 by dc1, which is out of reach from here",
		},
		{name: "by home, which only the destination has to reach", address: "10.1.0.7", to: "dc2", own: "dc1", egress: "home", uplinks: "uplinks: [{interface: up0}]", policy: "0.0.0.0/0 by dc1"},
		{name: "home without an exit", address: "10.1.0.7", to: "dc1", own: "dc1", egress: "home", policy: "0.0.0.0/0 by dc1", warned: "no uplink"},
		{
			name: "a list with an exit under way", address: "10.1.0.7", to: "dc2", own: "dc2", egress: "[{via: home}, {prefix: 203.0.113.0/24, via: local}]",
			policy: "0.0.0.0/0 by dc1, 203.0.113.0/24 where it is", warned: "what it exchanges with 203.0.113.0/24 leaves by dc2 from then on",
		},
	} {
		if test.egress == "" {
			test.egress = "local"
		}
		other := map[string]string{"dc1": "dc2", "dc2": "dc1"}[test.own]
		c, err := config.Parse("test", fmt.Appendf(nil, text, test.own, other, test.uplinks, test.egress), nil)
		if err != nil {
			t.Fatalf("%s: %v", test.name, err)
		}
		k := admission{config: c, up: map[netip.Addr]bool{netip.MustParseAddr("192.0.2.2"): true}, closed: map[string]string{}}
		if test.broken != nil {
			test.broken(&k)
		}
		got := k.check(&api.MoveCheck{Address: netip.MustParseAddr(test.address), Tenant: "default", MAC: test.mac, To: test.to})
		warned := strings.Join(got.Warnings, "; ")
		if !strings.Contains(got.Refused, test.refused) || (test.refused == "") != (got.Refused == "") ||
			!strings.Contains(warned, test.warned) || (test.warned == "") != (warned == "") || got.Egress != test.policy {
			t.Errorf("%s: %+v", test.name, got)
		}
	}
}
