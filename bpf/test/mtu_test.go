package bpftest

import (
	"slices"
	"testing"
)

// sized is the frame of base with an IP packet of n bytes.
func (w *world) sized(f family, host, n int) frame {
	in := w.base(f, host)
	in.ip.proto, in.ip.payload = 99, counting(n-[...]int{20, 40}[f])
	return in
}

// refused is the want of a packet that is too big, and without DF if it is IPv4: nobody fragments here.
func (w *world) refused(in frame, mtu int) want {
	if in.ip.v6() {
		return w.told(in, tooBig, mtu)
	}
	return want{reason: "drop_mtu"}
}

// The largest packet that fits goes, one byte more does not.
func TestMTU(t *testing.T) {
	everyIngress(t, []ingress{onLAN, onLAN30, onUp}, func(t *testing.T, w *world) {
		everyFamily(t, func(t *testing.T, f family) {
			for _, n := range []int{atB4, atB6, atB6Zero} {
				tun := w.tunnelOf(f, n)
				in := w.sized(f, n, int(tun.mtu))
				w.check(t, in.bytes(), w.leaves(t, "fwd_encap", tun, in.ip, 64))
				in = w.sized(f, n, int(tun.mtu)+1)
				w.check(t, in.bytes(), w.refused(in, int(tun.mtu)))
			}
			for _, n := range []int{here, here30} {
				in := w.sized(f, n, 1500)
				w.check(t, in.bytes(), w.deliveredTo(f, n, in.ip))
				in = w.sized(f, n, 1501)
				w.check(t, in.bytes(), w.refused(in, 1500))
			}
			in := w.sized(f, here, 1400)
			in.ip.dst = f.outside(16, 0)
			w.check(t, in.bytes(), w.deliveredTo(f, uplinkRouter, in.ip))
			in = w.sized(f, here, 1401)
			in.ip.dst = f.outside(16, 0)
			w.check(t, in.bytes(), w.refused(in, 1400))
			w.check(t, w.sized(f, own, 1501).bytes(), want{reason: "pass_own", out: w.handed(w.sized(f, own, 1501).bytes())})
		})
	})
}

// From a tunnel to a port that carries less, and into a tunnel that does.
func TestMTUAfterTunnel(t *testing.T) {
	w := site(t, onWAN)
	everyFamily(t, func(t *testing.T, f family) {
		for _, outer := range families {
			for _, extra := range []int{0, 1} {
				p := remoteHost(f, here)
				p.proto, p.payload = 99, counting(1500+extra-[...]int{20, 40}[f])
				x := want{reason: "drop_mtu"}
				if extra == 0 {
					x = w.deliveredTo(f, here, p)
				} else if f == v6 {
					x = w.toldBack(t, w.tunnelOf(f, atB4), p, tooBig, 1500)
				}
				w.check(t, w.fromB(outer, p).bytes(), x)

				p = remoteHost(f, heldC6)
				p.proto, p.payload = 99, counting(1530+extra-[...]int{20, 40}[f])
				x = want{reason: "drop_mtu"}
				if extra == 0 {
					x = w.leaves(t, "fwd_reencap", w.tunnelOf(f, heldC6), p, 59)
				}
				w.check(t, w.fromB(outer, p).bytes(), x)
			}
		}
	})
}

// A trailer that would make the frame larger than the port carries is cut off.
func TestMTUTrailer(t *testing.T) {
	w := site(t, onLAN)
	everyFamily(t, func(t *testing.T, f family) {
		for _, n := range []int{atB4, atB6, here} {
			limit := 1500
			if n != here {
				limit = int(w.tunnelOf(f, n).mtu)
			}
			for _, size := range []int{64, limit - 9, limit} {
				in := w.sized(f, n, size)
				expect := func(trailer ...byte) want {
					if n == here {
						return w.deliveredTo(f, n, in.ip, trailer...)
					}
					return w.leaves(t, "fwd_encap", w.tunnelOf(f, n), in.ip, 64, trailer...)
				}
				fits := slices.Repeat([]byte{9}, limit-size)
				in.trailer = fits
				w.check(t, in.bytes(), expect(fits...))
				in.trailer = append(fits, 9)
				w.check(t, in.bytes(), expect())
			}
		}
	})
	w = site(t, onWAN)
	for _, f := range families {
		in := w.fromB(v4, remoteHost(f, here))
		in.trailer = make([]byte, 1500)
		w.check(t, in.bytes(), w.deliveredTo(f, here, in.inner))
	}
}
