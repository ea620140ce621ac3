package route_test

import (
	"net/netip"
	"testing"

	"roam/loader/route"
)

// What derived addresses are is agreed upon by gateways of all versions: it never changes.
func TestRouterMAC(t *testing.T) {
	for address, want := range map[string]string{
		"192.0.2.1":      "02:83:95:f6:d4:f6",
		"2001:db8:ff::1": "02:01:c7:14:84:e1",
	} {
		mac := route.RouterMAC(netip.MustParseAddr(address))
		if mac.String() != want || mac.Valid() != nil {
			t.Errorf("%s: %s, want %s", address, mac, want)
		}
	}
}

func TestValidHost(t *testing.T) {
	for address, valid := range map[string]bool{
		"10.1.0.7": true, "2001:db8::7": true, "fd00::1": true, "223.255.255.255": true,
		"0.0.0.0": false, "0.1.2.3": false, "127.0.0.1": false, "169.254.0.1": false, "224.0.0.1": false, "240.0.0.1": false,
		"255.255.255.255": false, "::": false, "::1": false, "fe80::1": false, "fe80::1%lan0": false, "ff02::1": false,
		"::ffff:10.1.0.7": false,
	} {
		if err := route.ValidHost(netip.MustParseAddr(address)); (err == nil) != valid {
			t.Errorf("%s: %v", address, err)
		}
	}
	if route.ValidHost(netip.Addr{}) == nil {
		t.Error("no address is valid")
	}
}

func TestValidPrefix(t *testing.T) {
	for prefix, valid := range map[string]bool{
		"10.1.0.0/16": true, "0.0.0.0/0": true, "::/0": true, "10.1.0.7/32": true, "2001:db8::/32": true,
		"10.1.0.7/16": false, "224.0.0.0/4": false, "ff00::/8": false, "::ffff:10.1.0.0/112": false, "127.0.0.1/32": false,
	} {
		if err := route.ValidPrefix(netip.MustParsePrefix(prefix)); (err == nil) != valid {
			t.Errorf("%s: %v", prefix, err)
		}
	}
}

func TestValidLocator(t *testing.T) {
	good := route.Locator{Address: netip.MustParseAddr("192.0.2.2"), Priority: 1, Weight: 100}
	if err := good.Valid(); err != nil {
		t.Error(err)
	}
	for name, spoil := range map[string]func(*route.Locator){
		"address": func(l *route.Locator) { l.Address = netip.Addr{} },
		"encap":   func(l *route.Locator) { l.Encap = 99 },
		"weight":  func(l *route.Locator) { l.Weight = 0 },
		"mac":     func(l *route.Locator) { l.RouterMAC[0] = 1 },
	} {
		bad := good
		spoil(&bad)
		if bad.Valid() == nil {
			t.Errorf("wrong %s is valid", name)
		}
	}
}
