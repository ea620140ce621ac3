package bpftest

import (
	"testing"

	"roam/maps"
)

// fuzzPorts are the ports that the fuzzer can choose between.
var fuzzPorts = []ingress{onLAN, onLANQ, onWAN, onUp, onUp7, onOneArm, onFragment, onWANStrict, onWANKeep, onLANFixed}

// What the fuzzer may ask to be put right before a frame is sent, so that a checksum does not hide what lies behind it.
const rightOuter = 1 // the IPv4 header behind the link header; the other bits choose a place inside a tunnel

// innerPlaces are where an inner header may lie, counted from the outer one: behind every encapsulation over either underlay.
var innerPlaces = []int{0, 20, 24, 28, 32, 36, 50, 40, 44, 48, 52, 56, 70}

// FuzzWalk compares program and model on any frame. It is the model that guides the fuzzer: the program cannot be
// instrumented, but where the two agree, what covers one covers the other.
func FuzzWalk(f *testing.F) {
	for i, in := range fuzzPorts {
		w := site(f, in)
		w.fuzzed = true
		f.Cleanup(func() { w.fuzzed, w.start = false, nil })
		for _, b := range w.fuzzSeeds(in.role) {
			f.Add(uint8(i), uint8(0), b)
			f.Add(uint8(i), uint8(rightOuter), b)
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

// fuzzSeeds are right frames, and some that are nearly right, of the kind that a port in this role is there for.
func (w *world) fuzzSeeds(role uint8) (seeds [][]byte) {
	for _, b := range w.runtBases() {
		seeds = append(seeds, b)
	}
	for n := 0; n < 40 && role != maps.RoleUnderlay; n++ {
		seeds = append(seeds, w.base(v4, n).bytes(), w.base(v6, n).bytes())
	}
	if role&maps.RoleUnderlay == 0 {
		return seeds
	}
	for _, c := range decapRefusals {
		seeds = append(seeds, c.spoil(w.fromB(v4, remoteHost(v4, here))), c.spoil(w.fromB(v6, remoteHost(v6, heldC4))))
	}
	for _, e := range everyEncapsulation() {
		for _, outer := range families {
			for _, inner := range families {
				p := remoteHost(inner, reached(held, e, outer))
				seeds = append(seeds, w.fromBy(e, outer, syn(p, 8960, outer == inner)).bytes())
				seeds = append(seeds, w.probeBy(e, outer, inner, true, 40).bytes(), w.probeBy(e, outer, inner, false, 40).bytes())
				p = remoteHost(inner, here)
				p.ttl = 1
				seeds = append(seeds, w.fromBy(e, outer, p).bytes())
			}
		}
	}
	return seeds
}

func (w *world) rightChecksums(in []byte, right uint8) []byte {
	in = clone(in)
	l3 := w.l3()
	if right&rightOuter != 0 && len(in) >= l3+20 {
		in = fixed4If(in, l3)
	}
	if at := l3 + innerPlaces[int(right>>1)%len(innerPlaces)]; at > l3 && len(in) >= at+20 {
		in = fixed4If(in, at)
	}
	return in
}
