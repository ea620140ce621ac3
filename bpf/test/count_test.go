package bpftest

import (
	"testing"

	"roam/maps"
)

// Every reason of abi.h is met by some test here, and its verdict is the family of its name.
func TestReasonsHaveNames(t *testing.T) {
	for name := range reasonNumbers() {
		if name == "" {
			continue
		}
		switch v := maps.VerdictOf(name); {
		case v == maps.Forwarded && name[:4] != "fwd_", v == maps.Passed && name[:5] != "pass_", v == maps.Dropped && name[:5] != "drop_":
			t.Errorf("%s is %s", name, v)
		}
	}
	if len(reasonNumbers()) >= reasonsPerPort {
		t.Errorf("%d reasons do not fit the %d counters of a port", len(reasonNumbers()), reasonsPerPort)
	}
}

// Where XDP_TX is not to be trusted, a packet leaves by redirect also where it came in.
func TestRedirectInsteadOfTX(t *testing.T) {
	w := newWorld(t)
	w.fill(onOneArm)
	p := w.ports[w.slot]
	p.Flags = maps.PortRedirect
	w.port(p, true)
	for _, f := range families {
		for _, n := range []int{atTX4, atTX6} {
			in := w.base(f, n)
			x := w.leaves(t, "fwd_encap", w.tunnelOf(f, n), in.ip, 64)
			x.tx = false
			w.check(t, in.bytes(), x)
		}
		in := w.base(f, beside)
		x := w.deliveredTo(f, beside, in.ip)
		x.tx = false
		w.check(t, in.bytes(), x)
	}
	a := w.arpFor(f4(gateway))
	x := a.answer()
	x.tx = false
	w.check(t, a.bytes(), x)
	if err := w.objects.TxPorts.Delete(uint32(w.slot)); err != nil {
		t.Fatal(err)
	}
	w.check(t, a.bytes(), want{reason: "drop_redirect"})
	w.check(t, w.base(v4, atTX4).bytes(), want{reason: "drop_redirect"})
}

// Ports count by slot: two VLANs of one interface are two ports.
func TestCountsByPort(t *testing.T) {
	w := newWorld(t)
	w.fill(onLAN)
	other := w.port(maps.Port{Ifindex: loopback, Vlan: 40, Role: maps.RoleUplink, Tenant: tenant2, Mac: upMAC, Mtu: 1500}, true)
	in := w.base(v4, blackhole)
	w.check(t, in.bytes(), want{reason: "drop_blackhole"})
	in.tags, in.dst = []uint16{40}, upMAC
	x := w.deliveredTo(v4, here, in.ip)
	w.checkAt(t, other, in.bytes(), x)
	w.slots.Delete(other)
	delete(w.ports, other)
	w.check(t, in.bytes(), want{reason: "pass_no_port"})
}
