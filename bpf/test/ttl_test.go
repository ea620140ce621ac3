package bpftest

import "testing"

// A gateway is a routed hop: it takes one, and a packet that would have none left ends.
func TestTTL(t *testing.T) {
	everyIngress(t, []ingress{onLAN, onLAN30, onUp}, func(t *testing.T, w *world) {
		everyFamily(t, func(t *testing.T, f family) {
			for _, n := range []int{atB4, atB6, here, beside} {
				for ttl := range 256 {
					if ttl > 4 && ttl < 250 && ttl%50 != 0 {
						continue
					}
					in := w.base(f, n)
					in.ip.ttl = uint8(ttl)
					x := w.told(in, expired, 0)
					switch {
					case ttl > 1 && (n == here || n == beside):
						x = w.deliveredTo(f, n, in.ip)
					case ttl > 1:
						x = w.leaves(t, "fwd_encap", w.tunnelOf(f, n), in.ip, 64)
					}
					w.check(t, in.bytes(), x)
				}
			}
		})
	})
}

// Addresses of no subnet at all are no neighbours.
func TestTTLNotKept(t *testing.T) {
	w := site(t, onLANKeep)
	everyFamily(t, func(t *testing.T, f family) {
		c := &cell{world: w, t: t, inner: f}
		c.subnet()
		c.withTenant(keepingTTL, func() {
			in := w.to(f.outside(17, 0))
			in.ip.src = f.outside(22, 0)
			w.check(t, in.bytes(), w.leaves(t, "fwd_encap", w.tunnelOf(f, atB4), in.ip, 64))
		})
	})
}

// Out of a tunnel too.
func TestTTLAfterTunnel(t *testing.T) {
	w := site(t, onWAN)
	everyFamily(t, func(t *testing.T, f family) {
		for _, outer := range families {
			for ttl := range uint8(4) {
				in := w.fromB(outer, remoteHost(f, here))
				in.inner.ttl = ttl
				if ttl > 1 {
					w.check(t, in.bytes(), w.deliveredTo(f, here, in.inner))
				} else {
					w.check(t, in.bytes(), w.toldBack(t, w.tunnelOf(f, atB4), in.inner, expired, 0))
				}
			}
		}
	})
}
