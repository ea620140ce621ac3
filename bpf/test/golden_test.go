package bpftest

import (
	"bytes"
	"encoding/binary"
	"flag"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// XDP actions.
const (
	xdpAborted = iota
	xdpDrop
	xdpPass
	xdpTX
	xdpRedirect
)

var actionNames = [...]string{"XDP_ABORTED", "XDP_DROP", "XDP_PASS", "XDP_TX", "XDP_REDIRECT"}

func actionName(a uint32) string {
	if int(a) < len(actionNames) {
		return actionNames[a]
	}
	return fmt.Sprintf("action %d", a)
}

// want is everything that a frame is to cause: its reason, and by it the verdict and the one counter that moves.
type want struct {
	reason  string
	tx      bool   // forwarded by the port it came from
	locator uint16 // whose counters move too
	out     []byte // nil: unchanged where it passes, of no interest where it is dropped
	made    func(got []byte) []byte
}

func (x want) action() uint32 {
	switch {
	case strings.HasPrefix(x.reason, "drop_"):
		return xdpDrop
	case strings.HasPrefix(x.reason, "pass_"):
		return xdpPass
	case x.tx:
		return xdpTX
	}
	return xdpRedirect
}

var each = flag.Bool("each", false, "compare all counters after every frame, not only the expected one and all at the end of a test")

// check sends one frame and compares verdict, bytes, and counters: the expected one at once, and that no other moved
// when the test ends, because reading them all takes far longer than a frame.
func (w *world) check(t testing.TB, in []byte, x want) {
	t.Helper()
	w.count(t)
	slot := w.slot
	if x.reason == "pass_no_port" {
		slot = 0
	}
	w.checkAt(t, slot, in, x)
}

// checkAt is check where another port than the one under test may be the one that counts.
func (w *world) checkAt(t testing.TB, slot uint16, in []byte, x want) {
	t.Helper()
	w.count(t)
	action, out, err := run(w.objects.Program, w.meta, in)
	if err != nil {
		t.Fatal(err)
	}
	name := countName(slot, x.reason)
	w.owed.add(name, 1, len(in))
	if x.locator != 0 {
		w.owed.add(locatorName(x.locator), 1, len(in))
	}
	failed := false
	if *each || w.counter(t, slot, x.reason) != w.owed[name].Packets {
		failed = !w.settle()
	}
	if action != x.action() {
		failed = true
		t.Errorf("verdict %s, want %s", actionName(action), actionName(x.action()))
	}
	if !failed && action != xdpDrop {
		failed = !w.checkBytes(t, in, out, x)
	}
	if w.twin != nil && w.twin.wants(t, x.reason) {
		failed = !w.twin.check(t, w, slot, in, action, out, x.reason) || failed
		failed = !w.shade.check(t, w, slot, in, x.reason) || failed
	}
	if failed {
		t.Logf("frame:\n%s", describe(in))
	}
}

// checkCase is check with a name for the log.
func (w *world) checkCase(t testing.TB, name string, in []byte, x want) {
	t.Helper()
	failed := t.Failed()
	if w.check(t, in, x); t.Failed() && !failed {
		t.Logf("case: %s", name)
	}
}

// count begins to watch the counters for a test.
func (w *world) count(t testing.TB) {
	t.Helper()
	if w.t == t && w.start != nil {
		return
	}
	w.settle()
	var err error
	if w.start, err = w.counts(); err != nil {
		t.Fatal(err)
	}
	w.t, w.owed = t, counts{}
	t.Cleanup(func() {
		if w.t == t && !w.fuzzed {
			w.settle()
		}
	})
}

// settle compares all counters with what the checked frames must have moved, and ends watching them.
func (w *world) settle() bool {
	if w.start == nil {
		return true
	}
	w.t.Helper()
	after, err := w.counts()
	if err != nil {
		w.t.Fatal(err)
	}
	diff := cmp.Diff(w.owed, after.since(w.start))
	if diff != "" {
		w.t.Errorf("counters (-want +got), see -each:\n%s", diff)
	}
	w.start = nil
	return diff == ""
}

// counter is how far one counter moved.
func (w *world) counter(t testing.TB, slot uint16, reason string) (packets uint64) {
	t.Helper()
	key := uint32(slot)*reasonsPerPort + reasonNumber(t, reason)
	if err := w.objects.Counters.Lookup(key, &w.perCPU); err != nil {
		t.Fatal(err)
	}
	for _, c := range w.perCPU {
		packets += c.Packets
	}
	return packets - w.start[countName(slot, reason)].Packets
}

func (w *world) checkBytes(t testing.TB, in, out []byte, x want) bool {
	t.Helper()
	expected := x.out
	switch {
	case x.made != nil:
		expected = x.made(out)
	case expected == nil:
		expected = in
	}
	if bytes.Equal(out, expected) {
		return true
	}
	at := 0
	for at < min(len(out), len(expected)) && out[at] == expected[at] {
		at++
	}
	t.Errorf("bytes differ from offset %d on\ngot  %s\nwant %s", at, describe(out), describe(expected))
	return false
}

func everyIngress(t *testing.T, ins []ingress, f func(t *testing.T, w *world)) {
	t.Helper()
	for _, in := range ins {
		t.Run(in.name, func(t *testing.T) { f(t, site(t, in)) })
	}
}

func everyFamily(t *testing.T, f func(t *testing.T, fam family)) {
	t.Helper()
	for _, fam := range families {
		t.Run(fam.String(), func(t *testing.T) { f(t, fam) })
	}
}

// handed is the frame that the kernel must receive: as it came, to the port's own MAC.
func (w *world) handed(in []byte) []byte {
	out := bytes.Clone(in)
	m := w.portMAC()
	copy(out, m[:])
	return out
}

// intoTunnel expects the packet in tunnel t. What only the flow hash decides is taken from the frame, once it is seen to be in
// its range; everything else, checksums included, is made again from the parts.
func intoTunnel(t testing.TB, tun tunnel, inner packet, ttl uint8, trailer ...byte) func(got []byte) []byte {
	return intoTunnelRaw(t, tun, inner.bytes(), inner.ethertype(), inner.tos, ttl, trailer...)
}

func intoTunnelRaw(t testing.TB, tun tunnel, inner []byte, kind uint16, tos, ttl uint8, trailer ...byte) func(got []byte) []byte {
	return func(got []byte) []byte {
		t.Helper()
		source, label := flowFields(t, tun, got)
		return append(tun.around(inner, kind, tos, ttl, source, label), trailer...)
	}
}

func flowFields(t testing.TB, tun tunnel, got []byte) (source uint16, label uint32) {
	t.Helper()
	at := 34
	if tun.remote.Is6() {
		at = 54
	}
	if len(got) < at+2 {
		t.Errorf("a frame of %d bytes is no tunnel packet", len(got))
		return 0, 0
	}
	if at == 54 {
		label = binary.BigEndian.Uint32(got[14:]) & 0xfffff
	}
	if tun.udpPort() == 0 {
		return 0, label
	}
	source = binary.BigEndian.Uint16(got[at:])
	if source < 49152 {
		t.Errorf("outer source port %d is not in 49152..65535", source)
	}
	return source, label
}
