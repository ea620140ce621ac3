package route

import (
	"fmt"
	"net/netip"
)

// ValidHost reports why an address can be neither a mobile host's nor a locator, or nil: both are routed, so
// they are unicast, of more than link scope, and spelled in one way.
func ValidHost(a netip.Addr) error {
	switch {
	case !a.IsValid():
		return fmt.Errorf("no valid address")
	case a.Zone() != "":
		return fmt.Errorf("%s carries a zone: a routed address has none", a)
	case a.Is4In6():
		return fmt.Errorf("%s is an IPv4-mapped IPv6 address: write %s", a, a.Unmap())
	case a.IsUnspecified():
		return fmt.Errorf("%s is the unspecified address", a)
	case a.IsLoopback():
		return fmt.Errorf("%s is a loopback address", a)
	case a.IsMulticast():
		return fmt.Errorf("%s is a multicast address", a)
	case a.IsLinkLocalUnicast():
		return fmt.Errorf("%s is a link-local address, which no router forwards", a)
	case a.Is4() && (a.As4()[0] == 0 || a.As4()[0] >= 240):
		return fmt.Errorf("%s is reserved (RFC 6890) and can be no station's", a)
	}
	return nil
}

// ValidPrefix reports why a prefix can be no route's, or nil. A single address is held to ValidHost; a shorter
// prefix only has to be in canonical form and free of multicast, so that a default route is one.
func ValidPrefix(p netip.Prefix) error {
	switch {
	case !p.IsValid():
		return fmt.Errorf("no valid prefix")
	case p.IsSingleIP():
		return ValidHost(p.Addr())
	case p.Addr().Is4In6():
		return fmt.Errorf("%s is an IPv4-mapped IPv6 prefix: write it as IPv4", p)
	case p != p.Masked():
		return fmt.Errorf("%s has bits set to the right of its length: write %s", p, p.Masked())
	case p.Addr().IsMulticast():
		return fmt.Errorf("%s is a multicast prefix", p)
	}
	return nil
}

// KeyOf is the key of a host.
func KeyOf(tenant TenantID, host netip.Addr) Key {
	return Key{Tenant: tenant, Prefix: netip.PrefixFrom(host, host.BitLen())}
}
