package bpftest

import (
	"bytes"
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"roam/maps"
)

// shade is an instance in shadow mode over the tables of a world. It gets every checked frame, must pass it as it came, and must count
// it by the reason of the live one.
type shade struct{ objects *maps.Objects }

func (w *world) shaded(t testing.TB) *shade {
	t.Helper()
	shared := w.objects.All()
	for _, own := range []string{
		"counters", "locator_counters", "complaints", "icmp_sources", "seen", "sight_budgets", "sightings", "sight_counters",
	} {
		delete(shared, own)
	}
	tune := w.tune
	tune.Shadow = true
	o, err := maps.Load(maps.Options{Hosts: w.hosts4, Reuse: shared, Tune: tune})
	if err != nil {
		t.Fatalf("%+v", err)
	}
	return &shade{o}
}

// unforeseen are reasons of the live program that are found only by doing: it runs into the end of the headroom, the sum, the room behind the
// frame, or the far end of a port. What shadow mode says instead, it would have done.
var unforeseen = map[string][]string{
	"drop_headroom":        {"fwd_encap", "fwd_reencap", "fwd_deliver"},
	"drop_checksum_length": {"fwd_encap", "fwd_reencap", "fwd_arp", "fwd_nd"},
	"drop_redirect":        {"fwd_encap", "fwd_reencap", "fwd_deliver", "fwd_arp", "fwd_nd", "fwd_too_big", "fwd_expired", "fwd_fragment"},
	"drop_nexthop":         {"fwd_encap", "fwd_reencap"},                     // a damaged template
	"drop_mtu":             {"fwd_fragment", "fwd_too_big", "drop_redirect"}, // the port may take nothing
	"drop_ttl":             {"fwd_expired", "drop_redirect"},
	"fwd_too_big":          {"drop_mtu"},
	"drop_tunnel_header":   {"fwd_arp", "fwd_nd"},
	"drop_probe":           {"fwd_probe"},
	"pass_nd":              {"fwd_nd"},
	"drop_short":           {"pass_own", "pass_resolve", "pass_no_route"},
}

func (x *shade) check(t testing.TB, w *world, slot uint16, in []byte, reason string) bool {
	t.Helper()
	may := append([]string{reason}, unforeseen[reason]...)
	before := x.counted(t, slot, may)
	action, out, err := run(x.objects.Program, w.meta, in)
	if err != nil {
		t.Fatal(err)
	}
	if action != xdpPass || !bytes.Equal(in, out) {
		t.Errorf("in shadow mode: verdict %s\ngot  %s\nwant %s", actionName(action), describe(out), describe(in))
		return false
	}
	if n := x.counted(t, slot, may) - before; n != 1 {
		t.Errorf("in shadow mode: %d packets counted as one of %v", n, may)
		return false
	}
	return true
}

// counted is how many packets of a port had one of these reasons.
func (x *shade) counted(t testing.TB, slot uint16, reasons []string) (packets uint64) {
	t.Helper()
	for _, r := range reasons {
		var perCPU []maps.Counter
		if err := x.objects.Counters.Lookup(uint32(slot)*reasonsPerPort+reasonNumber(t, r), &perCPU); err != nil {
			t.Fatal(err)
		}
		for _, c := range perCPU {
			packets += c.Packets
		}
	}
	return packets
}

// What is noted of hosts, and of who talks to whom.
func TestShadowNotes(t *testing.T) {
	everyFamily(t, func(t *testing.T, f family) {
		w := newWorld(t)
		w.fill(onLAN)
		for _, p := range []string{"10.1.0.0/24", "2001:db8:1::/64"} {
			w.prefix(maps.SpaceSubnets+tenant1, netip.MustParsePrefix(p), 1)
		}
		x := w.shaded(t)
		defer func() { _ = x.objects.Close() }()
		send := func(change func(*frame)) {
			t.Helper()
			in := w.base(f, atB4)
			change(&in)
			if action, out, err := run(x.objects.Program, w.meta, in.bytes()); err != nil || action != xdpPass || !bytes.Equal(out, in.bytes()) {
				t.Fatalf("verdict %s (%v)", actionName(action), err)
			}
		}
		src, dst := w.base(f, atB4).ip.src, w.base(f, atB4).ip.dst
		group := map[family]netip.Addr{v4: netip.MustParseAddr("239.1.1.1"), v6: netip.MustParseAddr("ff05::7")}[f]
		everybody := netip.MustParseAddr("255.255.255.255")

		send(func(*frame) {})
		send(func(in *frame) { in.ip.dst = group })
		send(func(in *frame) { in.ip.ttl = 1 })
		send(func(in *frame) { in.ip.ttl = 255 })
		send(func(in *frame) { in.src = mac{0, 0, 0x5e, 0, 1, 7} })
		send(func(in *frame) { in.ip.proto, in.ip.payload = 99, make([]byte, 1200) })
		send(func(in *frame) { in.ip.proto, in.ip.payload = 6, tcp(src, dst, 1, 2, make([]byte, 1400)) })
		want := maps.ShadowHost{
			Tenant: tenant1, Addr: src, Port: w.slot, Packets: 7, Multicast: 1, TTLOne: 1, TTLMax: 1, VirtualMAC: 1,
			Largest: uint32(1200 + f.header()),
		}
		ports := map[family][2]uint16{v4: {68, 67}, v6: {546, 547}}[f]
		send(func(in *frame) { in.ip.proto, in.ip.payload = 17, udp(src, dst, ports[0], ports[1], nil, true) })
		want.Packets, want.DHCP = 8, 1
		if f == v4 {
			send(func(in *frame) { in.ip.dst = everybody })
			want.Packets, want.Broadcast = 9, 1
		}
		hosts, pairs, err := maps.ReadShadow(x.objects)
		if err != nil {
			t.Fatal(err)
		}
		ignore := cmpopts.IgnoreFields(maps.ShadowHost{}, "MAC", "Bytes")
		addresses := gocmp.Comparer(func(a, b netip.Addr) bool { return a == b })
		if diff := gocmp.Diff([]maps.ShadowHost{want}, hosts, ignore, addresses); diff != "" {
			t.Errorf("hosts (-want +got):\n%s", diff)
		}
		a, b := src, dst
		if strings.Compare(string(a.AsSlice()), string(b.AsSlice())) > 0 {
			a, b = b, a
		}
		slices.SortFunc(pairs, func(p, q maps.ShadowPair) int { return cmp.Compare(p.Packets, q.Packets) })
		if len(pairs) != 1 || pairs[0].A != a && pairs[0].A != b || pairs[0].Packets != 7 {
			t.Errorf("pairs: %+v, want %s and %s", pairs, a, b)
		}
	})
}
