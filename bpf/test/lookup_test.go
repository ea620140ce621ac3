package bpftest

import (
	"bytes"
	"testing"

	"roam/maps"
)

// What each kind of next hop does with a packet.
func TestNexthops(t *testing.T) {
	everyIngress(t, hostPorts, func(t *testing.T, w *world) {
		everyFamily(t, func(t *testing.T, f family) {
			for n, reason := range map[int]string{
				gateway: "pass_own", own: "pass_own", unknownMAC: "pass_resolve", nobody: "pass_no_route",
				blackhole: "drop_blackhole", unresolved: "drop_unresolved", noNexthop: "drop_nexthop",
				setOfNone: "drop_nexthop", setOfSets: "drop_nexthop", heldNowhere: "drop_unresolved",
			} {
				for _, ttl := range []uint8{64, 1, 0} { // the kernel decides about the TTL of what it gets
					in := w.base(f, n)
					in.ip.ttl = ttl
					x := want{reason: reason}
					if x.action() == xdpPass {
						x.out = w.handed(in.bytes())
					}
					w.check(t, in.bytes(), x)
				}
			}
		})
	})
}

// A held host is an ordinary one for packets from this site.
func TestHeldFromHere(t *testing.T) {
	everyIngress(t, hostPorts, func(t *testing.T, w *world) {
		everyFamily(t, func(t *testing.T, f family) {
			for _, n := range []int{heldC4, heldC6, heldB4, heldB6} {
				in := w.base(f, n)
				w.check(t, in.bytes(), w.leaves(t, "fwd_encap", w.tunnelOf(f, n), in.ip, 64))
			}
		})
	})
}

// Covering prefixes: the longest one, and only where there is no host.
func TestPrefixes(t *testing.T) {
	everyIngress(t, hostPorts, func(t *testing.T, w *world) {
		everyFamily(t, func(t *testing.T, f family) {
			in := w.to(f.outside(16, 0))
			w.check(t, in.bytes(), w.deliveredTo(f, uplinkRouter, in.ip))
			in = w.to(f.outside(16, 5)) // a longer prefix
			w.check(t, in.bytes(), w.leaves(t, "fwd_encap", w.tunnelOf(f, atB4), in.ip, 64))
			in = w.to(f.outside(17, 0))
			w.check(t, in.bytes(), w.leaves(t, "fwd_encap", w.tunnelOf(f, atB4), in.ip, 64))
			in = w.to(f.outside(21, 0))
			w.check(t, in.bytes(), w.leaves(t, "fwd_encap", w.tunnelOf(f, heldC4), in.ip, 64))
			for n, reason := range map[int]string{19: "drop_blackhole", 20: "drop_nexthop"} {
				w.check(t, w.to(f.outside(n, 0)).bytes(), want{reason: reason})
			}
			for _, n := range []int{18, 22} { // the kernel's, and nobody's
				in = w.to(f.outside(n, 0))
				w.check(t, in.bytes(), want{reason: "pass_no_route", out: w.handed(in.bytes())})
			}
		})
	})
}

// A host inside a prefix goes its own way, from the packet after it was entered, and back.
func TestHostBeatsPrefix(t *testing.T) {
	w := newWorld(t)
	w.fill(onLAN)
	for _, f := range families {
		in := w.to(f.outside(16, 0))
		w.check(t, in.bytes(), w.deliveredTo(f, uplinkRouter, in.ip))
		w.host(tenant1, in.ip.dst, nexthopID(f, atB6))
		w.check(t, in.bytes(), w.leaves(t, "fwd_encap", w.tunnelOf(f, atB6), in.ip, 64))
		w.host(tenant1, in.ip.dst, nexthopID(f, here)) // moves
		w.check(t, in.bytes(), w.deliveredTo(f, here, in.ip))
		w.writer.Delete(tenant1, in.ip.dst)
		w.check(t, in.bytes(), w.deliveredTo(f, uplinkRouter, in.ip))
	}
}

// The walk ends where the table ends: a next hop beyond it, a record beyond it.
func TestBeyondTables(t *testing.T) {
	w := newWorld(t)
	w.fill(onLAN)
	for _, f := range families {
		id := nexthopID(f, atB4)
		for _, n := range []maps.Nexthop{
			{Kind: maps.KindLocal, Index: uint32(maps.Nexthops)},
			{Kind: maps.KindSet, Index: uint32(maps.Sets)},
			{Kind: maps.KindAdjacency, Index: uint32(maps.Adjacencies)},
			{Kind: maps.KindAdjacency, Index: 1<<32 - 1},
			{Kind: 9},
			{Kind: 255},
			{Kind: maps.KindNone},
		} {
			w.nexthop(id, n)
			w.check(t, w.base(f, atB4).bytes(), want{reason: "drop_nexthop"})
		}
		put(w.objects.Locals, uint32(7), maps.Local{Port: 65535})
		w.nexthop(id, maps.Nexthop{Kind: maps.KindLocal, Index: 7})
		w.check(t, w.base(f, atB4).bytes(), want{reason: "drop_nexthop"})
	}
}

// The dry program leaves a report of its walk.
func TestReport(t *testing.T) {
	w, err := loadWorld(talkative, true)
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	w.fill(onOneArm)
	wan := w.tunnelOf(v4, atB4).port
	for _, f := range families {
		for name, c := range map[string]struct {
			in   []byte
			want maps.WalkReport
		}{
			"to B": {w.base(f, atB4).bytes(), maps.WalkReport{
				Reason: reasonNumber(t, "fwd_encap"), Action: xdpRedirect, Tenant: tenant1, Routed: 1,
				Nexthop: nexthopID(f, atB4), Egress: wan, Mtu: 1550, IpLen: uint16(len(w.base(f, atB4).ip.bytes())),
			}},
			"by a prefix": {w.to(f.outside(19, 0)).bytes(), maps.WalkReport{
				Reason: reasonNumber(t, "drop_blackhole"), Action: xdpDrop, Tenant: tenant1, Routed: 2, Nexthop: maps.IDBlackhole,
				IpLen: uint16(len(w.base(f, atB4).ip.bytes())),
			}},
			"from B": {w.fromB(v4, remoteHost(f, here)).bytes(), maps.WalkReport{
				Reason: reasonNumber(t, "fwd_deliver"), Action: xdpTX, Tenant: tenant1, Routed: 1, FromLocator: locatorB4,
				Decapsulated: 1, Nexthop: nexthopID(f, here), Egress: w.slot, Mtu: 1500, IpLen: uint16(len(remoteHost(f, here).bytes())),
			}},
			"nowhere": {w.base(f, nobody).bytes(), maps.WalkReport{
				Reason: reasonNumber(t, "pass_no_route"), Action: xdpPass, Tenant: tenant1,
				IpLen: uint16(len(w.base(f, nobody).ip.bytes())),
			}},
		} {
			t.Run(f.String()+" "+name, func(t *testing.T) {
				action, _, err := w.run(c.in)
				if err != nil {
					t.Fatal(err)
				}
				var got maps.WalkReport
				if err := w.objects.Report.Lookup(uint32(0), &got); err != nil {
					t.Fatal(err)
				}
				c.want.Port = w.slot
				got.Flow = 0
				if got != c.want || action != c.want.Action {
					t.Errorf("%s\ngot  %+v\nwant %+v", actionName(action), got, c.want)
				}
			})
		}
	}
	in := w.base(v4, atBoth).bytes()
	if _, _, err := w.run(in); err != nil {
		t.Fatal(err)
	}
	var got maps.WalkReport
	if err := w.objects.Report.Lookup(uint32(0), &got); err != nil {
		t.Fatal(err)
	}
	if got.Nexthop != nexthopID(v4, atBoth) || got.Member != nexthopID(v4, atB4) && got.Member != nexthopID(v4, atB6) || got.Flow == 0 {
		t.Errorf("a set: %+v", got)
	}
	if !bytes.Equal(in, w.base(v4, atBoth).bytes()) {
		t.Error("the input was changed")
	}
}
