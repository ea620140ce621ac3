package bpftest

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/gopacket/gopacket/layers"

	"roam/maps"
)

// watched is a world with one access port, whose sightings are read.
type watched struct {
	*world
	ring     *maps.Sightings
	sentinel int
	told     uint64 // sightings until the last look
}

// Hosts of the watched segment, in both families.
const (
	seenHere  = 1 // on the port under test, with hostMAC
	seenThere = 2 // on another port
	seenAway  = 3 // at another site
	seenGate  = 4 // the gateway's own
	seenNew   = 5 // in no table
	seenDeaf  = 6 // here by somebody's word, MAC not known
	missing   = 7 // in no table
)

func watch(t *testing.T) *watched {
	t.Helper()
	return watchAs(t, newWorld(t), maps.RoleAccess)
}

func watchAs(t *testing.T, w *world, role uint8) *watched {
	t.Helper()
	w.slot = w.port(maps.Port{Ifindex: loopback, Role: role, Tenant: tenant1, Segment: segment1, Mac: lanMAC, Mtu: 1500}, true)
	other := w.port(maps.Port{Ifindex: 105, Role: maps.RoleAccess, Tenant: tenant1, Segment: segment1, Mac: lanMAC, Mtu: 1500}, true)
	w.segment(segment1, maps.Segment{Mac: gatewayMAC, Tenant: tenant1})
	w.station(segment1, formerMAC, maps.MACForeign)
	for f, subnet := range []string{"10.1.0.0/16", "2001:db8:1::/64"} {
		if err := w.tries.Put(maps.SpaceSubnets+tenant1, netip.MustParsePrefix(subnet), segment1); err != nil {
			t.Fatal(err)
		}
		for n, id := range map[int]uint32{seenHere: 101, seenThere: 102, seenAway: 103, seenGate: maps.IDGateway, seenDeaf: maps.IDKernel} {
			w.host(tenant1, family(f).addr(n), id)
		}
	}
	w.local(101, hostMAC(seenHere), w.slot)
	w.local(102, hostMAC(seenThere), other)
	w.nexthop(103, maps.Nexthop{Kind: maps.KindUnresolved})
	ring, err := maps.OpenSightings(w.objects)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ring.Close() })
	return &watched{world: w, ring: ring}
}

// forget gives every address its whole ration again, and has senders looked up anew.
func (w *watched) forget(t *testing.T) {
	t.Helper()
	w.forgetRations()
	n := w.objects.Seen.MaxEntries()
	slots := make([]uint32, n)
	for i := range slots {
		slots[i] = uint32(i)
	}
	for _, words := range []*ebpf.Map{w.objects.Seen, w.objects.Awaited} {
		if _, err := words.BatchUpdate(slots, make([]uint64, n), nil); err != nil {
			t.Fatal(err)
		}
	}
}

func (w *watched) forgetRations() {
	var key [24]byte
	var keys [][24]byte
	it := w.objects.SightBudgets.Iterate()
	for value := make([]byte, 16); it.Next(&key, &value); {
		keys = append(keys, key)
	}
	for _, key := range keys {
		_ = w.objects.SightBudgets.Delete(key)
	}
}

// seen runs a frame and returns what was reported of it: everything up to what a host of no case says of itself.
func (w *watched) seen(t *testing.T, in []byte) (list []string) {
	t.Helper()
	if _, _, err := run(w.objects.Program, w.meta, in); err != nil {
		t.Fatal(err)
	}
	w.sentinel++
	mark := netip.AddrFrom4([4]byte{10, 1, 200, byte(w.sentinel)})
	if _, _, err := run(w.objects.Program, w.meta, talk(hostMAC(99), mark, mark, layers.ARPRequest)); err != nil {
		t.Fatal(err)
	}
	for {
		s, err := w.ring.Read()
		if err != nil {
			t.Fatal(err)
		}
		if s.Addr == mark {
			return list
		}
		if s.Port != w.slot || s.Tenant != tenant1 || s.When == 0 {
			t.Errorf("%+v", s)
		}
		list = append(list, sign(s.Kind, s.Addr, s.MAC))
	}
}

func sign(kind maps.SightKind, a netip.Addr, m mac) string {
	return fmt.Sprintf("%v %v %x", kind, a, m)
}

// talk is an ARP message from a station about two addresses.
func talk(m mac, sender, target netip.Addr, op uint16) []byte {
	return arp{
		frame{dst: broadcast, src: m},
		layers.ARP{
			AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4, HwAddressSize: 6, ProtAddressSize: 4,
			Operation: op, SourceHwAddress: m[:], SourceProtAddress: sender.AsSlice(),
			DstHwAddress: make([]byte, 6), DstProtAddress: target.AsSlice(),
		},
	}.bytes()
}

func send(m mac, src, dst netip.Addr) []byte {
	return frame{dst: gatewayMAC, src: m, ip: packet{src: src, dst: dst, ttl: 64, proto: 17, payload: udp(src, dst, 1, 2, nil, true)}}.bytes()
}

// discover is a neighbour solicitation (135) or advertisement (136), with the option that names the MAC of its sender or target.
func discover(m mac, icmp byte, src, target netip.Addr, option mac) []byte {
	f := frame{dst: mac{0x33, 0x33, 0, 0, 0, 1}, src: m, ip: packet{src: src, dst: netip.MustParseAddr("ff02::1"), ttl: 255, proto: 58}}
	body := append([]byte{icmp, 0, 0, 0, 0, 0, 0, 0}, target.AsSlice()...)
	if option != (mac{}) {
		body = append(append(body, icmp-134, 1), option[:]...)
	}
	f.ip.payload = icmp6(src, f.ip.dst, body, 0)
	return f.bytes()
}

// Every sign that a host can give, once; and who gives none.
func TestSightings(t *testing.T) {
	a, b, zero := v4.addr, v6.addr, netip.IPv4Unspecified()
	m := hostMAC
	wanted := func(x netip.Addr) string { return sign(maps.SightWanted, x, mac{}) }
	cases := []struct {
		name string
		in   []byte
		want []string
	}{
		{"ARP request of a new host", talk(m(seenNew), a(seenNew), a(seenGate), layers.ARPRequest), []string{sign(maps.SightARPRequest, a(seenNew), m(seenNew))}},
		{"ARP reply of a host elsewhere", talk(m(seenAway), a(seenAway), a(seenGate), layers.ARPReply), []string{sign(maps.SightARPReply, a(seenAway), m(seenAway))}},
		{"announcement", talk(m(seenAway), a(seenAway), a(seenAway), layers.ARPRequest), []string{sign(maps.SightARPAnnounce, a(seenAway), m(seenAway))}},
		{"announcement as a reply", talk(m(seenAway), a(seenAway), a(seenAway), layers.ARPReply), []string{sign(maps.SightARPAnnounce, a(seenAway), m(seenAway))}},
		{"probe", talk(m(seenAway), zero, a(seenAway), layers.ARPRequest), []string{sign(maps.SightARPProbe, a(seenAway), m(seenAway))}},
		{"reverse request", reverse(talk(m(8), zero, zero, 3)), []string{sign(maps.SightRARP, netip.Addr{}, m(8))}},
		{"of a host by somebody's word", talk(m(seenDeaf), a(seenDeaf), a(seenGate), layers.ARPRequest), []string{sign(maps.SightARPRequest, a(seenDeaf), m(seenDeaf))}},
		{"another MAC for a host here", talk(m(9), a(seenHere), a(seenHere), layers.ARPRequest), []string{sign(maps.SightARPAnnounce, a(seenHere), m(9))}},
		{"a host of another port", talk(m(seenThere), a(seenThere), a(seenThere), layers.ARPRequest), []string{sign(maps.SightARPAnnounce, a(seenThere), m(seenThere))}},
		{"request for a missing host", talk(m(seenHere), a(seenHere), a(missing), layers.ARPRequest), []string{wanted(a(missing))}},

		{"solicitation", discover(m(1), 135, b(seenNew), b(seenGate), m(seenNew)), []string{sign(maps.SightNDSolicit, b(seenNew), m(seenNew))}},
		{"solicitation without its option", discover(m(1), 135, b(seenNew), b(seenGate), mac{}), []string{sign(maps.SightNDSolicit, b(seenNew), m(1))}},
		{"advertisement", discover(m(1), 136, b(seenAway), b(seenAway), m(seenAway)), []string{sign(maps.SightNDAdvert, b(seenAway), m(seenAway))}},
		{"duplicate address detection", discover(m(seenAway), 135, netip.IPv6Unspecified(), b(seenAway), mac{}), []string{sign(maps.SightNDDAD, b(seenAway), m(seenAway))}},
		{"solicitation for a missing host", discover(m(seenHere), 135, b(seenHere), b(missing), m(seenHere)), []string{wanted(b(missing))}},

		{"data of a new host, IPv4", send(m(seenNew), a(seenNew), a(seenAway)), []string{sign(maps.SightData, a(seenNew), m(seenNew))}},
		{"data of a host elsewhere, IPv6", send(m(seenAway), b(seenAway), b(seenHere)), []string{sign(maps.SightData, b(seenAway), m(seenAway))}},
		{"data to a missing host", send(m(seenHere), a(seenHere), a(missing)), []string{wanted(a(missing))}},
		{"data to a missing host, IPv6", send(m(seenHere), b(seenHere), b(missing)), []string{wanted(b(missing))}},

		{"ARP of a host here", talk(m(seenHere), a(seenHere), a(seenGate), layers.ARPRequest), nil},
		{"ND of a host here", discover(m(seenHere), 136, b(seenHere), b(seenHere), m(seenHere)), nil},
		{"data of a host here", send(m(seenHere), a(seenHere), a(seenAway)), nil},
		{"data of a host here by way of a neighbour", send(m(9), a(seenHere), a(seenAway)), nil},
		{"the gateway's MAC", talk(gatewayMAC, a(seenAway), a(seenAway), layers.ARPRequest), nil},
		{"a former gateway's MAC", send(formerMAC, a(seenAway), a(seenHere)), nil},
		{"the port's own MAC", send(lanMAC, a(seenAway), a(seenHere)), nil},
		{"a group as sender", talk(broadcast, a(seenAway), a(seenAway), layers.ARPRequest), nil},
		{"from outside the subnets", send(m(9), v4.outside(17, 0), a(seenHere)), nil},
		{"to outside the subnets", send(m(seenHere), a(seenHere), v4.outside(17, 0)), nil},
		{"link-local", discover(m(9), 136, gatewayLL, gatewayLL, m(9)), nil},
		{"the gateway's address", talk(m(9), a(seenGate), a(seenGate), layers.ARPRequest), nil},
	}
	w := watch(t)
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			w.forget(t)
			if got := w.seen(t, c.in); !slices.Equal(got, c.want) {
				t.Errorf("reported %q, want %q", got, c.want)
			}
		})
	}
}

// Who is asked for through a tunnel and not known here is looked for; who asks is not learnt.
func TestSightingsOfBridgedQuestions(t *testing.T) {
	world, err := loadWorld(bridgingTune(maps.DSCPCopy), false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(world.close)
	w := watchAs(t, world, maps.RoleAccess|maps.RoleUnderlay)
	w.bridges()
	for f := range us {
		w.host(maps.SpaceLocator, us[f], maps.LocatorOwn)
		w.locator(uint16(locatorB4+f), maps.Locator{}, b[f])
	}
	for _, outer := range families {
		for _, f := range families {
			c := &cell{world: w.world, t: t, enc: encVXLAN, outer: outer, inner: f}
			for target, want := range map[int][]string{
				missing:  {sign(maps.SightWanted, f.addr(missing), mac{})},
				seenHere: nil, seenAway: nil, seenGate: nil, seenDeaf: nil,
			} {
				w.forget(t)
				q := c.ask(f.addr(target))
				if got := w.seen(t, c.carried(q.bytes()).frameInside(q.bytes())); !slices.Equal(got, want) {
					t.Errorf("%s over %s, asked for %s: reported %q, want %q", f, outer, f.addr(target), got, want)
				}
			}
		}
	}
}

// The first packet to a host that moved is told of, once in a second; it goes its way as any other, and counts as no sign of a host.
func TestFirstPackets(t *testing.T) {
	const moved, id = 8, 108
	for _, f := range families {
		w := watch(t)
		in := send(hostMAC(seenHere), f.addr(seenHere), f.addr(moved))
		w.host(tenant1, f.addr(moved), id)
		w.local(id, hostMAC(moved), w.slot)
		pass := func(flags uint8) (uint32, []byte, string) {
			w.nexthop(id, maps.Nexthop{Kind: maps.KindLocal, Flags: flags, Index: id})
			before, errBefore := w.counts()
			action, out, errRun := run(w.objects.Program, w.meta, slices.Clone(in))
			after, errAfter := w.counts()
			if err := errors.Join(errBefore, errRun, errAfter); err != nil {
				t.Fatal(err)
			}
			return action, out, after.since(before).String()
		}
		plain, outPlain, countedPlain := pass(maps.FlagMoved)
		if got := w.seen(t, in); got != nil {
			t.Errorf("%s: nobody waits, and %q is told", f, got)
		}
		w.told = 0
		w.sightings(t)
		action, out, counted := pass(maps.FlagMoved | maps.FlagAwaited)
		if action != plain || !slices.Equal(out, outPlain) || counted != countedPlain || w.sightings(t) != 0 {
			t.Errorf("%s: %s, counted %s; unless awaited %s, counted %s", f, actionName(action), counted, actionName(plain), countedPlain)
		}
		first := sign(maps.SightFirst, f.addr(moved), mac{})
		if got := w.seen(t, in); !slices.Equal(got, []string{first}) {
			t.Errorf("%s: reported %q, want %q of the packet before and nothing of this one", f, got, first)
		}
		w.forget(t)
		if got := w.seen(t, in); !slices.Equal(got, []string{first}) {
			t.Errorf("%s: reported %q a second later", f, got)
		}
	}
}

// While a host is waited for, its packets cost a word: the ration is asked for once in a moment. Were it asked for each time, each would be
// told of here, where all rations are forgotten at once.
func TestFirstPacketsAreCheap(t *testing.T) {
	const moved, id, packets = 8, 108, 100
	for _, f := range families {
		w := watch(t)
		in := send(hostMAC(seenHere), f.addr(seenHere), f.addr(moved))
		w.host(tenant1, f.addr(moved), id)
		w.local(id, hostMAC(moved), w.slot)
		w.nexthop(id, maps.Nexthop{Kind: maps.KindLocal, Flags: maps.FlagMoved | maps.FlagAwaited, Index: id})
		told := 0
		for range packets {
			w.forgetRations()
			told += len(w.seen(t, in))
		}
		if told == 0 || told == packets {
			t.Errorf("%s: %d of %d packets were told of", f, told, packets)
		}
	}
}

// Whom the data path has looked up moments ago hides nobody else: addresses that differ in one byte, of either family.
func TestSightingsOfNeighbours(t *testing.T) {
	w := watch(t)
	for _, f := range families {
		w.forget(t)
		for n := range 100 {
			if got := w.seen(t, send(hostMAC(seenHere), f.addr(seenHere), f.addr(seenAway))); got != nil {
				t.Errorf("%s: of a host here %q", f, got)
			}
			who := f.addr(100 + n)
			if got, want := w.seen(t, send(hostMAC(100+n), who, f.addr(seenAway))), []string{sign(maps.SightData, who, hostMAC(100+n))}; !slices.Equal(got, want) {
				t.Fatalf("%s: reported %q, want %q", f, got, want)
			}
		}
	}
}

// When a host last sent is known from whom the data path has looked up.
func TestSenders(t *testing.T) {
	w := watch(t)
	senders, err := maps.OpenSenders()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = senders.Close() })
	const room = 16 * 10 * time.Millisecond // a moment at 100 Hz
	for _, f := range families {
		in, deadline := send(hostMAC(seenHere), f.addr(seenHere), f.addr(seenAway)), time.Now().Add(10*time.Second)
		for {
			before := time.Now()
			if _, _, err := run(w.objects.Program, w.meta, in); err != nil {
				t.Fatal(err)
			}
			at, ok, err := senders.Last(w.objects, tenant1, f.addr(seenHere))
			after := time.Now()
			if err != nil {
				t.Fatal(err)
			}
			if ok {
				if at.Before(before.Add(-room)) || at.After(after.Add(room)) {
					t.Errorf("%s: sent between %v and %v, found %v", f, before, after, at)
				}
				break
			}
			if after.After(deadline) { // it takes a second to know how long a jiffy is
				t.Fatalf("%s: it sends, and nobody knows", f)
			}
		}
		if at, ok, err := senders.Last(w.objects, tenant1, f.addr(seenThere)); ok || err != nil {
			t.Errorf("%s: one that never sent did at %v (%v)", f, at, err)
		}
	}
}

func reverse(b []byte) []byte {
	b[12], b[13] = 0x80, 0x35
	return b
}

// A sighting changes neither verdict nor bytes, and no counter: the same frames over a program that makes none.
func TestSightingsChangeNothing(t *testing.T) {
	tune := maps.DefaultTune
	tune.Sightings = 0
	w := watch(t)
	off, err := maps.Load(maps.Options{Hosts: w.hosts4, Reuse: w.objects.All(), Tune: tune})
	if err != nil {
		t.Fatal(err)
	}
	defer off.Close()
	moved := func(in []byte, o *maps.Objects) (uint32, []byte, string) {
		before, errBefore := w.counts()
		action, out, errRun := run(o.Program, w.meta, slices.Clone(in))
		after, errAfter := w.counts()
		if err := errors.Join(errBefore, errRun, errAfter); err != nil {
			t.Fatal(err)
		}
		return action, out, after.since(before).String()
	}
	for _, in := range [][]byte{
		talk(hostMAC(seenNew), v4.addr(seenNew), v4.addr(seenGate), layers.ARPRequest),
		discover(hostMAC(seenNew), 135, v6.addr(seenNew), v6.addr(seenGate), hostMAC(seenNew)),
		send(hostMAC(seenNew), v4.addr(seenNew), v4.addr(seenHere)),
		send(hostMAC(seenNew), v6.addr(seenNew), v6.addr(missing)),
	} {
		without, outWithout, movedWithout := moved(in, off)
		if n := w.sightings(t); n != 0 {
			t.Errorf("switched off, and %d sightings", n)
		}
		with, outWith, movedWith := moved(in, w.objects)
		if w.sightings(t) == 0 {
			t.Errorf("no sighting of\n%s", describe(in))
		}
		if with != without || !slices.Equal(outWith, outWithout) || movedWith != movedWithout {
			t.Errorf("%s, counted %s; without sightings %s, counted %s\n%s",
				actionName(with), movedWith, actionName(without), movedWithout, describe(in))
		}
	}
}

// sightings is how many there were since the last call.
func (w *watched) sightings(t *testing.T) (n uint64) {
	t.Helper()
	for _, count := range w.sightCounts(t) {
		n += count
	}
	n, w.told = n-w.told, n
	return n
}

func (w *watched) sightCounts(t *testing.T) map[string]uint64 {
	t.Helper()
	list, err := maps.ReadSightCounters(w.objects.SightCounters)
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string]uint64{}
	for _, c := range list {
		counts[c.Kind] = c.Count
	}
	return counts
}

// A host that goes on showing itself is reported a few times, and a scan of a /16 as often as all that is wanted may be.
func TestSightingsAreRationed(t *testing.T) {
	w := watch(t)
	start := time.Now()
	data := talk(hostMAC(seenAway), v4.addr(seenAway), v4.addr(seenAway), layers.ARPRequest)
	for range 1000 {
		if _, _, err := run(w.objects.Program, w.meta, data); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 1 << 16 {
		asker := netip.AddrFrom4([4]byte{10, 1, 250, byte(i % 100)})
		target := netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})
		if _, _, err := run(w.objects.Program, w.meta, talk(formerMAC, asker, target, layers.ARPRequest)); err != nil {
			t.Fatal(err)
		}
	}
	// bpf/sight.h: at once, and in each second that it took, of which a slow machine needs many.
	took := uint64(time.Since(start)/time.Second) + 1
	counts := w.sightCounts(t)
	for kind, limit := range map[string]struct{ count, burst, rate uint64 }{
		"arp_announce": {counts["arp_announce"], 5, 10},
		"wanted":       {counts["wanted"] + counts["lost"], 400, 200},
	} {
		if most := limit.burst + took*limit.rate; limit.count < limit.burst || limit.count > most {
			t.Errorf("%d sightings of kind %s in %d s, want %d to %d", limit.count, kind, took, limit.burst, most)
		}
		delete(counts, kind)
	}
	delete(counts, "lost")
	for kind, n := range counts {
		if n > 0 {
			t.Errorf("%d sightings of kind %s, of which there was none", n, kind)
		}
	}
}

// What finds the ring full is counted as lost.
func TestSightingsLost(t *testing.T) {
	w := watch(t)
	const hosts = 1 << 13
	for i := range hosts {
		a := netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})
		if _, _, err := run(w.objects.Program, w.meta, talk(hostMAC(9), a, a, layers.ARPRequest)); err != nil {
			t.Fatal(err)
		}
	}
	counts := w.sightCounts(t)
	if counts["lost"] == 0 || counts["lost"]+counts["arp_announce"] < hosts-10 { // some addresses are in the tables
		t.Errorf("of %d hosts: %v", hosts, counts)
	}
}
