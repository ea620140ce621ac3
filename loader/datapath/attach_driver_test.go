package datapath

import (
	"strings"
	"testing"
)

func TestParseRelease(t *testing.T) {
	for s, want := range map[string]release{"6.1.0-18-amd64": {6, 1}, "5.10": {5, 10}, "6.18.44+deb": {6, 18}, "7.0-rc1": {7, 0}, "": {}} {
		if got := parseRelease(s); got != want {
			t.Errorf("%q: %v, want %v", s, got, want)
		}
	}
	if !(release{6, 0}).since(release{5, 18}) || (release{5, 9}).since(release{5, 10}) || (release{9, 9}).since(release{}) {
		t.Error("releases are compared wrongly")
	}
}

// What is known of a driver becomes a sentence that says what to do, and nothing where all is well.
func TestKnownDrivers(t *testing.T) {
	for _, c := range []struct {
		facts  Facts
		kernel release
		frags  bool
		want   string // of the finding and its fix; "" for none
	}{
		{Facts{Driver: "mlx5_core", MTU: 3498}, release{5, 10}, false, ""},
		{Facts{Driver: "mlx5_core", MTU: 9000}, release{5, 10}, false, "use Linux 6.4 or later"},
		{Facts{Driver: "mlx5_core", MTU: 9000}, release{6, 12}, false, "datapath.frags to auto"},
		{Facts{Driver: "mlx5_core", MTU: 9000}, release{6, 12}, true, ""},
		{Facts{Driver: "mlx5_core", MTU: 9000}, release{5, 18}, true, "use Linux 6.4"},
		{Facts{Driver: "ixgbe", MTU: 9000}, release{6, 18}, true, "mtu 3050"},
		{Facts{Driver: "vmxnet3", MTU: 1500}, release{6, 1}, false, "since Linux 6.6, and this is 6.1"},
		{Facts{Driver: "vmxnet3", MTU: 1500, Mode: Generic}, release{6, 1}, false, ""},
		{Facts{Driver: "igc", MTU: 1501}, release{6, 1}, false, "mtu 1500"},
		{Facts{Driver: "i40e", MTU: 1500, TxQueues: 1 << 16}, release{6, 1}, false, ""},
		{Facts{Driver: "i40e", MTU: 1500, TxQueues: 0}, release{6, 1}, false, "ethtool -L eth0 combined"},
		{Facts{Driver: "ena", MTU: 1500, RxQueues: 4, MaxQueues: 8}, release{6, 1}, false, ""},
		{Facts{Driver: "ena", MTU: 1500, RxQueues: 8, MaxQueues: 8}, release{6, 1}, false, "ethtool -L eth0 combined 4"},
		{Facts{Driver: "gve", MTU: 1500}, release{6, 18}, false, "datapath.mode to generic"},
		{Facts{Driver: "bonding", MTU: 9000}, release{5, 10}, false, "since Linux 5.15"},
		{Facts{Driver: "e1000e", MTU: 9000}, release{5, 10}, false, ""},
	} {
		c.facts.Name = "eth0"
		d := &doctor{}
		d.known(c.facts, c.kernel, c.frags)
		var found string
		for _, f := range d.findings {
			found += f.What + " -> " + f.Fix + "\n"
			if f.Fix == "" {
				t.Errorf("%q says not what to do", f.What)
			}
		}
		if c.want == "" && found != "" || !strings.Contains(found, c.want) {
			t.Errorf("%+v on %s, frags %t: found %q, want %q", c.facts, c.kernel, c.frags, found, c.want)
		}
	}
}
