package host

import (
	"net/netip"
	"slices"
	"testing"

	"roam/loader/route"
)

// What is not allowed is never learned, however it shows itself, nor asked for; it is counted each time and told of once.
func TestAllow(t *testing.T) {
	seg := segment()
	seg.Allow = []netip.Prefix{netip.MustParsePrefix("10.1.0.0/25"), netip.MustParsePrefix("2001:db8:1::/112")}
	m := newModel(t, seg)
	for _, addr := range []string{"10.1.0.7", "2001:db8:1::7"} {
		m.found(addr, macA)
		m.has(addr, macA)
	}
	strangers := []string{"10.1.0.200", "2001:db8:1::1:7"}
	for _, addr := range strangers {
		for range 3 {
			m.found(addr, macB)
			m.shows(addr, macB, SignClaim)
			m.search(Sign{Tenant: 1, Addr: netip.MustParseAddr(addr)})
			m.gone(addr)
		}
		m.has(addr, route.MAC{})
	}
	m.found("10.1.0.254", macB) // a router need not be listed
	if n := m.outcome(OutcomeNotAllowed); n != 12 || len(m.asked) != 0 {
		t.Errorf("refused %d times, asked for %v", n, m.asked)
	}
	if kinds := m.kinds(); !slices.Equal(kinds, []NoticeKind{NoticeNotAllowed, NoticeNotAllowed}) {
		t.Errorf("told %v", kinds)
	}
	a := netip.MustParseAddr("2001:db8:1::2:0")
	for range 2 * maxStrangers {
		m.shows(a.String(), macA, SignClaim)
		a = a.Next()
	}
	if n := len(m.kinds()); n != maxStrangers-2 {
		t.Errorf("told of %d", n)
	}
}
