package designate

import (
	"net/netip"
	"testing"
	"time"

	"roam/loader/route"
)

// TestFrame: a hello comes back as it was said, and what is none is none.
func TestFrame(t *testing.T) {
	const vni = 7001
	said := Hello{
		MAC: route.MAC{2, 0, 0, 0, 0, 1}, Rank: CutOff, Priority: 100, Designated: true, Hold: 450 * time.Millisecond,
		Note: Note{Site: "dc1", Address: netip.MustParseAddr("10.1.0.2"), GatewayMAC: route.MAC{2, 0, 0x5e, 0x10, 0, 1}},
	}
	for _, h := range []Hello{said, {MAC: said.MAC, Hold: time.Millisecond}} {
		b := h.frame(vni)
		if got, err := parse(b, vni); err != nil || got != h {
			t.Errorf("said %+v, heard %+v, %v", h, got, err)
		}
		if len(b) < least {
			t.Errorf("%d bytes are no Ethernet frame", len(b))
		}
	}
	for name, change := range map[string]func(b []byte) []byte{
		"short":                     func(b []byte) []byte { return b[:header+fixed-1] },
		"the site's name is cut":    func(b []byte) []byte { b[header+14] = 200; return b },
		"of another segment":        func(b []byte) []byte { b[header+11]++; return b },
		"another version":           func(b []byte) []byte { b[header+4]++; return b },
		"another magic":             func(b []byte) []byte { b[header]++; return b },
		"another EtherType":         func(b []byte) []byte { b[13]++; return b },
		"from a group":              func(b []byte) []byte { b[6] |= 1; return b },
		"a rank that nobody has":    func(b []byte) []byte { b[header+6] = 9; return b },
		"dead as soon as it speaks": func(b []byte) []byte { b[header+12], b[header+13] = 0, 0; return b },
	} {
		if h, err := parse(change(said.frame(vni)), vni); err == nil {
			t.Errorf("%s: heard %+v", name, h)
		}
	}
}
