// Package route is the vocabulary every source, the RIB and every sink share: what a route is, where it
// points, and how a change of it travels. It imports nothing of ours, so that anything may import it.
//
// Values are plain and comparable where that helps; nothing here locks. Addresses are netip values and
// therefore already in one canonical form; an IPv4-mapped IPv6 address is never a valid key (see Key.Valid).
package route

import (
	"fmt"
	"net/netip"
	"strings"
)

// TenantID is the dense number of a tenant, 1..MaxTenant, given by the configuration and kept across restarts
// (the data path's tables carry it). 0 means "no tenant".
type TenantID uint16

// MaxTenant is the largest TenantID: the data path spends 12 bits on it and keeps the top few for itself.
const MaxTenant TenantID = 4000

// Key names a route: one prefix in one tenant. A host is a prefix of full length.
type Key struct {
	Tenant TenantID
	Prefix netip.Prefix
}

// Host reports whether the key is a single address (/32 or /128).
func (k Key) Host() bool { return k.Prefix.IsSingleIP() }

// Valid reports what is wrong with the key, or nil.
func (k Key) Valid() error {
	switch {
	case k.Tenant == 0 || k.Tenant > MaxTenant:
		return fmt.Errorf("tenant %d is outside 1..%d", k.Tenant, MaxTenant)
	case !k.Prefix.IsValid():
		return fmt.Errorf("no valid prefix")
	case k.Prefix.Addr().Is4In6():
		return fmt.Errorf("%s is an IPv4-mapped IPv6 prefix: write it as IPv4", k.Prefix)
	case k.Prefix != k.Prefix.Masked():
		return fmt.Errorf("%s has bits set to the right of its length: write %s", k.Prefix, k.Prefix.Masked())
	}
	return nil
}

func (k Key) String() string { return fmt.Sprintf("%d/%s", k.Tenant, k.Prefix) }

// Encap is how packets reach a locator. The zero value is VXLAN, the default.
type Encap uint8

// The encapsulations. Their numbers stand in pinned tables: new ones go to the end.
const (
	VXLAN    Encap = iota
	VXLANGPE       // IP inside
	Geneve         // IP inside
	GRE            // the key is the VNI
	IPIP
	GUE
	LISP
	GeneveL2 // Ethernet inside
	GRENoKey
)

var encapNames = [...]string{"vxlan", "vxlan-gpe", "geneve", "gre", "ipip", "gue", "lisp", "geneve-l2", "gre-nokey"}

// NamesTenant reports whether packets carry a tenant's number. One that does not belongs to one tenant for each pair of
// tunnel ends.
func (e Encap) NamesTenant() bool { return e != IPIP && e != GUE && e != GRENoKey }

// HasPort reports whether the encapsulation runs over UDP.
func (e Encap) HasPort() bool { return e != IPIP && e != GRE && e != GRENoKey }

func (e Encap) String() string {
	if int(e) < len(encapNames) {
		return encapNames[e]
	}
	return fmt.Sprintf("encap(%d)", uint8(e))
}

// ParseEncap reads one of the names of the contract.
func ParseEncap(s string) (Encap, error) {
	for i, name := range encapNames {
		if s == name {
			return Encap(i), nil
		}
	}
	return 0, fmt.Errorf("unknown encapsulation %q: use one of %s", s, strings.Join(encapNames[:], ", "))
}

// MAC is an Ethernet address in wire order; the zero value means "not known".
type MAC [6]byte

// IsZero reports whether the address is not known.
func (m MAC) IsZero() bool { return m == MAC{} }

func (m MAC) String() string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5])
}

// ParseMAC reads six colon-separated bytes; "" is the zero MAC.
func ParseMAC(s string) (MAC, error) {
	var m MAC
	if s == "" {
		return m, nil
	}
	if len(s) != 17 {
		return m, fmt.Errorf("%q is not a MAC address such as 02:00:00:00:00:01", s)
	}
	for i := range m {
		hi, ok1 := hexDigit(s[i*3])
		lo, ok2 := hexDigit(s[i*3+1])
		if !ok1 || !ok2 || (i < 5 && s[i*3+2] != ':') {
			return MAC{}, fmt.Errorf("%q is not a MAC address such as 02:00:00:00:00:01", s)
		}
		m[i] = hi<<4 | lo
	}
	return m, nil
}

func hexDigit(c byte) (byte, bool) {
	switch {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10, true
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}

// Unusable is the priority of a locator that is known but must not be used (RFC 9300, section 5.1 of RFC 9301).
const Unusable = 255

// Locator is one tunnel end. Among the locators of a route the lowest Priority carries traffic; equal
// priorities share it by Weight. Locator is comparable.
type Locator struct {
	Address   netip.Addr
	Encap     Encap
	Port      uint16 // UDP destination port; 0 is the encapsulation's own
	Priority  uint8
	Weight    uint8
	RouterMAC MAC // destination of the inner Ethernet header; zero is derived from Address
}

// Via is an interned, immutable list of locators: equal lists are the same pointer (see Interner), so that a
// million routes to one site cost a million pointers and one list. A nil Via means "no locator".
type Via struct {
	Locators []Locator
}

// Claim is what one source says about one key. Exactly one of Via, Local, and Reject says where packets go:
// through a tunnel, to this gateway's own segment, or nowhere.
type Claim struct {
	Key
	Via      *Via   // remote: tunnel to one of these
	Local    *Local // here: on an access port of this gateway
	Reject   bool   // drop, and count it
	Site     string // the site the claim names, "" where the source does not know
	MAC      MAC    // the host's own, zero where not known
	Sequence uint32 // mobility sequence, RFC 7432 section 7.7
	Pinned   bool   // never moves by itself
}

// Local says where on this gateway a host lives. A zero Link means "here, but the kernel must resolve it":
// the data path passes its packets to the kernel until the neighbour is known.
type Local struct {
	Link  int    // interface index of the access port
	VLAN  uint16 // tag on that port, 0 for none; of two the outer one
	Inner uint16 // second tag (QinQ), 0 for none

	// NextHop is the router that takes packets to the host, where a routed fabric stands behind the port; zero: the host's own MAC.
	NextHop MAC
}

// Change is one step of a source's report: a claim to hold, or a key to let go.
type Change struct {
	Claim
	Withdraw bool
}

// Interner makes equal locator lists one pointer. Not safe for concurrent use; each source may own one, and the
// RIB re-interns what it is given.
type Interner struct{ lists map[string]*Via }

// Via returns the shared list equal to locators, in the given order, or nil for an empty one.
func (in *Interner) Via(locators []Locator) *Via {
	if len(locators) == 0 {
		return nil
	}
	key := fmt.Sprint(locators)
	if via, ok := in.lists[key]; ok {
		return via
	}
	if in.lists == nil {
		in.lists = make(map[string]*Via)
	}
	via := &Via{Locators: append([]Locator(nil), locators...)}
	in.lists[key] = via
	return via
}
