package lan

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"roam/lab"
	"roam/loader/route"
)

// A switch that knew nothing learns at which port the gateway's MACs are, also those of a link that comes later.
func TestSwitchLearns(t *testing.T) {
	l := lab.New(t)
	gw, sw := l.Namespace("gw"), l.Namespace("switch")
	sw.Bridge("lan", 1500)
	l.Cable(lab.End{In: gw, Name: "lan0"}, lab.End{In: sw, Name: "port1", Bridge: "lan"}, 1500, 1)
	shared, foreign := route.MAC{2, 0, 0x5e, 0x10, 0, 1}, route.MAC{0, 0x50, 0x56, 0xaa, 0xbb, 0xcc}
	r := New(slog.New(slog.DiscardHandler))
	r.Set([]Link{{Interface: "lan0", MACs: []route.MAC{shared}}, {Interface: "absent0", MACs: []route.MAC{shared}}})
	learned := func(mac route.MAC) func() error {
		return func() error {
			out := sw.Run("bridge", "fdb", "show", "br", "lan", "dynamic")
			if !strings.Contains(out, mac.String()+" dev port1") {
				return fmt.Errorf("%s is not in\n%s", mac, out)
			}
			return nil
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- gw.Do(func() error { return r.Run(ctx) }) }()
	l.Until(5*time.Second, "the switch knows the gateway", learned(shared))
	if learned(foreign)() == nil {
		t.Fatal("the switch knows a MAC that nobody showed")
	}
	r.Set([]Link{{Interface: "lan0", MACs: []route.MAC{shared, foreign}}})
	l.Until(5*time.Second, "the switch knows the foreign gateway", learned(foreign))

	// A host behind another port has left, and is mute: what it says of itself when its cable is plugged in would turn the switch again.
	host := l.Namespace("host")
	host.Sysctl("net.ipv6.conf.default.disable_ipv6", "1")
	mac := route.MAC{2, 0, 0, 0, 1, 0x11}
	l.Cable(lab.End{In: host, Name: "eth0", MAC: mac.String()}, lab.End{In: sw, Name: "port2", Bridge: "lan"}, 1500, 1)
	sw.Run("bridge", "fdb", "replace", mac.String(), "dev", "port2", "master", "dynamic")
	r.Left("absent0", mac)
	r.Left("lan0", mac)
	l.Until(5*time.Second, "the switch sends to the gateway what is for the host that left", learned(mac))
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A neighbour that knows an address of each family by a host's MAC sends to the gateway once it is told that they moved.
func TestNeighbourLearns(t *testing.T) {
	l := lab.New(t)
	gw, host := l.Namespace("gw"), l.Namespace("host")
	l.Cable(lab.End{In: gw, Name: "lan0"}, lab.End{In: host, Name: "eth0"}, 1500, 1)
	host.Addresses("eth0", "10.1.0.7/24", "2001:db8:1::7/64")
	shared := route.MAC{2, 0, 0x5e, 0x10, 0, 1}
	r := New(slog.New(slog.DiscardHandler))
	r.Set([]Link{{Interface: "lan0", MACs: []route.MAC{shared}}})
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- gw.Do(func() error { return r.Run(ctx) }) }()
	for _, moved := range []string{"10.1.0.8", "2001:db8:1::8"} {
		host.IP("neigh add " + moved + " lladdr 02:00:00:00:01:08 dev eth0 nud stale")
		r.Moved("lan0", shared, netip.MustParseAddr(moved))
		l.Until(5*time.Second, "the host sends to the gateway what is for "+moved, func() error {
			if out := host.Run("ip", "neigh", "show", moved, "dev", "eth0"); !strings.Contains(out, "lladdr "+shared.String()) {
				return fmt.Errorf("it has %q", out)
			}
			return nil
		})
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestFrame(t *testing.T) {
	b := frame(route.MAC{2, 0, 0, 0, 0, 1})
	if len(b) != 60 || fmt.Sprintf("%x", b[:15]) != "ffffffffffff02000000000188b500" {
		t.Errorf("%x", b)
	}
}

// Who is back before anybody was told is left alone, and so is who was on a link that is not ours to show.
func TestBack(t *testing.T) {
	r := New(slog.New(slog.DiscardHandler))
	mac := route.MAC{2, 0, 0, 0, 1, 0x11}
	r.Left("lan0", mac)
	r.Back("lan0", mac)
	r.Back("lan1", mac)
	if len(r.left["lan0"]) != 0 {
		t.Errorf("%v", r.left)
	}
	for i := range 3*burst + 1 {
		r.Left("lan9", route.MAC{2, 0, 0, 0, byte(i >> 8), byte(i)})
	}
	r.showLeft()
	if len(r.left["lan9"]) != 0 || len(r.failed) != 0 {
		t.Errorf("%d wait, %v failed", len(r.left["lan9"]), r.failed)
	}
}
