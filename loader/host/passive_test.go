package host

import (
	"net/netip"
	"os/exec"
	"testing"
)

// A passive source believes what a host says of itself, and the kernel's table; it asks nobody, and has the kernel ask nobody.
func TestPassive(t *testing.T) {
	l := newLAN(t)
	source, heard := l.follow(Options{Passive: true})
	l.show(source, "10.1.0.7", "") // wanted: nobody looks for it
	l.show(source, "10.1.0.8", farMAC)
	heard.is(t, hostWords("10.1.0.8")...)
	if err := source.Resolve(segment().Tenant, netip.MustParseAddr("10.1.0.9")); err != nil {
		t.Error(err)
	}
	if out, err := exec.Command("ip", "neigh", "replace", "10.1.0.6", "lladdr", farMAC, "dev", "lan0", "nud", "permanent").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	heard.is(t, hostWords("10.1.0.8", "10.1.0.6")...)
	for _, a := range []string{"10.1.0.7", "10.1.0.8", "10.1.0.9"} {
		if out, _ := exec.Command("ip", "neigh", "show", a, "nud", "all").Output(); len(out) > 0 {
			t.Errorf("the kernel was made to ask: %s", out)
		}
	}
}
