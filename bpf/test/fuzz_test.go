package bpftest

import "testing"

// fuzzPorts are the ports that the fuzzer can choose between.
var fuzzPorts = []ingress{onLAN, onLAN30, onWAN, onUp, onUp7, onOneArm}

// What the fuzzer may ask to be put right before a frame is sent, so that a checksum does not hide what lies behind it.
const (
	rightOuter  = 1 << iota // the IPv4 header behind the Ethernet header
	rightInner4             // the one inside a tunnel over IPv4
	rightInner6             // and over IPv6
)

// FuzzWalk compares program and model on any frame. It is the model that guides the fuzzer: the program cannot be
// instrumented, but where the two agree, what covers one covers the other.
func FuzzWalk(f *testing.F) {
	for i, in := range fuzzPorts {
		w := site(f, in)
		w.fuzzed = true
		f.Cleanup(func() { w.fuzzed, w.start = false, nil })
		for _, b := range w.runtBases() {
			f.Add(uint8(i), uint8(rightOuter), b)
		}
		for _, c := range decapRefusals {
			f.Add(uint8(i), uint8(0), c.spoil(w.fromB(v4, remoteHost(v4, here))))
			f.Add(uint8(i), uint8(0), c.spoil(w.fromB(v6, remoteHost(v6, heldC4))))
		}
		for n := range 40 {
			f.Add(uint8(i), uint8(0), w.base(v4, n).bytes())
			f.Add(uint8(i), uint8(0), w.base(v6, n).bytes())
			f.Add(uint8(i), uint8(0), w.fromB(v4, remoteHost(v6, n)).bytes())
		}
	}
	runs := 0
	f.Fuzz(func(t *testing.T, port, right uint8, in []byte) {
		if len(in) < 14 || len(in) > 3000 { // the test runner's smallest frame, and its page
			t.Skip()
		}
		w := site(t, fuzzPorts[int(port)%len(fuzzPorts)])
		in = w.rightChecksums(in, right)
		if w.fuzzed = true; w.start == nil {
			w.count(t)
		}
		w.t = t
		x, slot := w.process(in)
		w.checkAt(t, slot, in, x)
		if runs++; runs%1000 == 0 {
			w.settle()
		}
	})
}

func (w *world) rightChecksums(in []byte, right uint8) []byte {
	in = clone(in)
	l3 := w.l3()
	for i, at := range []int{l3, l3 + 50, l3 + 70} {
		if right>>i&1 == 1 && len(in) >= at+20 {
			in = fixed4If(in, at)
		}
	}
	return in
}
