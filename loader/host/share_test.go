package host

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"roam/loader/route"
)

// TestTheirs: a host that another gateway of our site announces is looked for here, at our pace, once the port is up; one that is here takes
// the other's sequence, and is asked nothing.
func TestTheirs(t *testing.T) {
	m := newModel(t, Segment{Index: 1, Tenant: 1, Link: "lan0", Subnets: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}})
	sibling := func(addr string, sequence uint32) {
		d := decision(addr, true, false)
		d.Source, d.Site, d.MAC, d.Sequence = "bgp", "dc1", macB, sequence
		if err := m.Apply(context.Background(), []route.Decision{d}); err != nil {
			t.Fatal(err)
		}
		m.take(m.attend())
	}
	m.found("10.1.0.7", macA)
	sibling("10.1.0.7", 3)
	if c := m.claims[hostKey(1, m.entry("10.1.0.7").addr)]; c.Sequence != 3 || c.MAC != macA || len(m.asked)+len(m.questions) > 0 {
		t.Errorf("shared host: %+v, asked %v", c, m.asked)
	}
	sibling("10.9.0.1", 0) // of another segment

	m.ports[modelLink].down = true
	var want []entry
	for i := range 2*lostProbes + 10 {
		addr := fmt.Sprintf("10.1.%d.%d", 1+i/200, 1+i%200)
		sibling(addr, 0)
		want = append(want, m.entry(addr))
	}
	m.findTheirs()
	if len(m.asked) > 0 {
		t.Errorf("asked %d on a port that is down", len(m.asked))
	}
	m.ports[modelLink].down = false
	for _, n := range []int{lostProbes, lostProbes, 10, 0} {
		m.asked = nil
		m.findTheirs()
		if !slices.Equal(m.asked, want[:n]) {
			t.Fatalf("asked %d, want %d, in their order", len(m.asked), n)
		}
		want = want[n:]
	}
}
