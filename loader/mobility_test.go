package main

import (
	"net/netip"
	"testing"

	"roam/loader/host"
	"roam/loader/rib"
	"roam/loader/route"
)

// What the RIB alone knows of a host, in the words of docs/mobility.md.
func TestMobilityOfSettledHosts(t *testing.T) {
	d := &daemon{hosts: host.New(host.Options{})}
	key := route.KeyOf(1, netip.MustParseAddr("10.1.0.7"))
	via := &route.Via{}
	for want, at := range map[string]route.Decision{
		"here":   {Claim: route.Claim{Key: key, Local: &route.Local{Link: 2}}},
		"away":   {Claim: route.Claim{Key: key, Via: via}},
		"held":   {Claim: route.Claim{Key: key, Via: via}, Held: true},
		"sticky": {Claim: route.Claim{Key: key, Via: via, Pinned: true}},
		"":       {Claim: route.Claim{Key: route.Key{Tenant: 1, Prefix: netip.MustParsePrefix("10.1.0.0/24")}, Via: via}},
	} {
		if got := d.mobility(&rib.Entry{Decision: at}).State; got != want {
			t.Errorf("%+v is %q, want %q", at, got, want)
		}
	}
}
