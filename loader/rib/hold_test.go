package rib

import (
	"testing"

	"roam/loader/route"
)

// The first packet to a host that has a new home is awaited until it has been seen, over decisions that do not move it; not that to one that went nowhere.
func TestAwaited(t *testing.T) {
	b := newBench(t, Options{})
	api, _, _, _ := b.four()
	b.start()
	b.sync(api, via("10.1.0.1/32", "192.0.2.2"), via("10.1.0.2/32", "192.0.2.2"), via("10.2.0.0/24", "192.0.2.2"))
	awaited := func(prefix string) bool { return b.mirror.held[via(prefix, "192.0.2.2").Key].Awaited }
	b.report(api, via("10.1.0.1/32", "192.0.2.3"), via("10.2.0.0/24", "192.0.2.3"))
	if !awaited("10.1.0.1/32") || awaited("10.1.0.2/32") || awaited("10.2.0.0/24") {
		t.Errorf("after a move: %+v", b.mirror.held)
	}
	again := via("10.1.0.1/32", "192.0.2.3")
	again.MAC = route.MAC{2, 0, 0, 0, 0, 1}
	b.report(api, again)
	if !awaited("10.1.0.1/32") {
		t.Error("not any more, though nothing was seen")
	}
	if err := b.Seen(b.ctx, again.Key); err != nil {
		t.Fatal(err)
	}
	again.MAC = route.MAC{2, 0, 0, 0, 0, 2}
	b.report(api, again)
	if awaited("10.1.0.1/32") {
		t.Error("still, though it was seen")
	}
}

// A million hosts that move at once are not a million packets to be told of.
func TestAwaitedAtMost(t *testing.T) {
	h := newHolds()
	for i := range maxAwaited + 10 {
		h.await(key{tenant: uint16(i)}, true)
	}
	if len(h.awaited) != maxAwaited {
		t.Errorf("%d are awaited", len(h.awaited))
	}
}
