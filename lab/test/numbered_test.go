package lab_test

import (
	"net/netip"
	"testing"
)

// The million hosts of other tests are a million different ones.
func TestNumbered(t *testing.T) {
	seen := make(map[netip.Addr]bool, million)
	for i := range million {
		seen[numbered(i)] = true
	}
	if len(seen) != million {
		t.Errorf("%d different hosts", len(seen))
	}
}
