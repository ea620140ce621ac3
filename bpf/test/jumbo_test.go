package bpftest

import (
	"testing"

	"github.com/gopacket/gopacket/layers"

	"roam/maps"
)

var (
	onLANFrags = ingress{name: "frags", place: lan, role: maps.RoleAccess, tune: tuned(func(t *maps.Tune) { t.Frags = true })}
	onWANFrags = ingress{name: "frags", place: wan, role: maps.RoleUnderlay, tune: onLANFrags.tune}
)

// Frames longer than a page lie in several pieces, of which the program sees only the first: what depends on the rest is the
// UDP checksum over IPv6, GRE's on receive, and what an error cuts off.
func TestJumbo(t *testing.T) {
	if !haveFrags() {
		t.Skip("XDP fragments need Linux 5.18")
	}
	const large = 9000
	w := site(t, onLANFrags)
	everyFamily(t, func(t *testing.T, f family) {
		for _, e := range everyEncapsulation() {
			for _, outer := range families {
				n := reached(via, e, outer)
				tun := w.tunnelOf(f, n)
				tun.mtu = large
				w.adjacency(nexthopID(f, n), 0, tun)
				for _, size := range []int{60, 4000, 4095, 4096, 4097, 8191, large} {
					in := w.sized(f, n, size)
					in.ip.flags = layers.IPv4DontFragment
					ttl := uint8(64)
					if e == encLISP {
						ttl = 63
					}
					w.check(t, in.bytes(), w.leaves(t, "fwd_encap", tun, in.ip, ttl))
				}
				in := w.sized(f, n, large+1)
				in.ip.flags = layers.IPv4DontFragment
				w.check(t, in.bytes(), w.told(in, tooBig, large))
			}
		}
	})
	w = site(t, onWANFrags)
	everyFamily(t, func(t *testing.T, f family) {
		for _, e := range everyEncapsulation() {
			for _, outer := range families {
				c := &cell{world: w, t: t, enc: e, outer: outer, inner: f}
				p := c.sizedRemote(here, 8000)
				w.check(t, c.from(p).bytes(), c.toldBack(t, c.tun(), c.arrived(p), tooBig, 1500))
				in := c.from(c.sizedRemote(here, 1400))
				in.trailer = make([]byte, 4000) // cut off: the port would refuse the frame
				w.check(t, in.bytes(), c.delivered(in.inner))
				if e == encGRE {
					p = c.sizedRemote(jumboHost, 8000)
					w.local(nexthopID(f, jumboHost), hostMAC(jumboHost), w.tenants[tenant1].Fragment) // a port of 9000 bytes
					w.host(tenant1, f.addr(jumboHost), nexthopID(f, jumboHost))
					for off, reason := range map[uint16]string{0: "", 1: "drop_tunnel_checksum"} {
						in := c.from(p)
						in.shim = append(in.shim, 0, 0, 0, 0)
						in.shim[0] = 0x80
						be.PutUint16(in.shim[4:], ^uint16(onesComplement(append(append([]byte(nil), in.shim...), p.bytes()...)))+off)
						x := c.drop(reason)
						if reason == "" {
							x = c.deliveredTo(f, jumboHost, p)
						}
						w.check(t, in.bytes(), x)
					}
				}
			}
		}
	})
}

const jumboHost = 90
