package mld

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"roam/loader/ether"
	"roam/loader/route"
)

var (
	portMAC   = route.MAC{2, 0, 0, 0, 0, 0x11}
	subnet    = netip.MustParsePrefix("2001:db8:1::/64")
	elsewhere = &route.Via{Locators: []route.Locator{{Address: netip.MustParseAddr("192.0.2.2")}}}
)

func link() Link {
	return Link{Interface: "lan0", Tenant: 1, Subnets: []netip.Prefix{subnet}, Own: []netip.Addr{netip.MustParseAddr("fe80::1")}}
}

// host is the n-th of the subnet; n and n + 1<<24 share a group.
func host(n int) netip.Addr {
	b := subnet.Addr().As16()
	binary.BigEndian.PutUint64(b[8:], uint64(n))
	return netip.AddrFrom16(b)
}

func decision(n int, gone bool) route.Decision {
	d := route.Decision{Gone: gone}
	d.Key = route.Key{Tenant: 1, Prefix: netip.PrefixFrom(host(n), 128)}
	if !gone {
		d.Via = elsewhere
	}
	return d
}

// desk is a port with its own time and what a switch makes of its reports.
type desk struct {
	*port
	t     *testing.T
	now   time.Time
	said  map[group][]kind // in order
	knows map[group]bool
	count int // of reports
	most  int // records in one
}

func newDesk(t *testing.T, p *port) *desk {
	d := &desk{port: p, t: t, now: time.Unix(1_000_000, 0), said: map[group][]kind{}, knows: map[group]bool{}}
	p.begin()
	return d
}

// run lets time pass as serve does; with 0 until nothing is due.
func (d *desk) run(span time.Duration) {
	for end := d.now.Add(span); ; {
		f, next := d.say(d.now, portMAC, 72)
		switch {
		case f != nil:
			d.hear(f)
			d.now = d.now.Add(pace)
		case next.IsZero() && span == 0:
			return
		case span != 0 && (next.IsZero() || next.After(end)):
			d.now = end
			return
		default:
			d.now = next
		}
		if span != 0 && d.now.After(end) {
			return
		}
	}
}

// hear reads reports as RFC 3810 and RFC 2710 lay them out.
func (d *desk) hear(f []byte) {
	d.t.Helper()
	d.count++
	ip := f[ethernetLen:]
	icmp := ip[ipv6Len+alertLen:]
	if ip[7] != 1 || ether.ChecksumICMPv6(ip[8:40], icmp) != 0 || int(binary.BigEndian.Uint16(ip[4:])) != len(icmp)+alertLen {
		d.t.Fatalf("%x", f)
	}
	note := func(address []byte, k kind) {
		g := group(address[13:])
		if netip.AddrFrom16([16]byte(address)) != g.address() {
			d.t.Fatalf("%x is no solicited-node group", address)
		}
		d.said[g] = append(d.said[g], k)
		if d.knows[g] = true; k == leaves {
			delete(d.knows, g)
		}
	}
	switch icmp[0] {
	case typeReport:
		n := int(binary.BigEndian.Uint16(icmp[6:]))
		if d.most = max(d.most, n); len(icmp) != reportLen+n*recordLen {
			d.t.Fatalf("%d records in %d bytes", n, len(icmp))
		}
		named := map[group]bool{}
		for r := icmp[reportLen:]; len(r) > 0; r = r[recordLen:] {
			g := group(r[17:20])
			if named[g] {
				d.t.Fatalf("a report names %x twice", g)
			}
			named[g] = true
			note(r[4:20], kind(r[0]))
		}
	case typeReport1:
		note(icmp[8:24], joins)
	case typeDone:
		note(icmp[8:24], leaves)
	default:
		d.t.Fatalf("type %d", icmp[0])
	}
}

func listener(t *testing.T, limit int) (*Listener, *desk, *strings.Builder) {
	t.Helper()
	var text strings.Builder
	l := New(slog.New(slog.NewTextHandler(&text, nil)), func() {})
	l.limit = limit
	l.Set([]Link{link()})
	return l, newDesk(t, l.ports["lan0"]), &text
}

func apply(t *testing.T, l *Listener, decisions ...route.Decision) {
	t.Helper()
	if err := l.Apply(t.Context(), decisions); err != nil {
		t.Fatal(err)
	}
}

func kinds(k ...kind) string { return fmt.Sprint(k) }

// Each change is said twice, whatever was said before it, and a group is left when the last of its hosts comes home.
func TestChanges(t *testing.T) {
	l, d, _ := listener(t, 100)
	g := groupOf(host(0x21))
	is := func(what, want string) {
		t.Helper()
		d.run(0)
		if got := kinds(d.said[g]...); got != want {
			t.Errorf("%s: said %v, want %v", what, got, want)
		}
		delete(d.said, g)
	}
	is("nobody", kinds())
	if got := kinds(d.said[groupOf(netip.MustParseAddr("fe80::1"))]...); got != kinds(joins, joins) {
		t.Errorf("the router's address: %v", got)
	}
	apply(t, l, decision(0x21, false), decision(0x21, false))
	is("a host elsewhere", kinds(joins, joins))
	apply(t, l, decision(0x21+1<<24, false))
	is("another of the group", kinds())
	apply(t, l, decision(0x21, true), decision(0x21, true))
	is("one comes home", kinds())
	here := decision(0x21+1<<24, false)
	here.Via, here.Local = nil, &route.Local{Link: 7}
	apply(t, l, here)
	is("the other, too", kinds(leaves, leaves))
	apply(t, l, decision(0x21, false), decision(0x21, true))
	is("gone before it was said", kinds())
	apply(t, l, decision(0x21, false))
	d.run(pace)
	apply(t, l, decision(0x21, true))
	is("gone after it was said once", kinds(joins, leaves, leaves))
	apply(t, l, decision(0x21, false))
	d.run(pace)
	apply(t, l, decision(0x21, true))
	d.now = d.now.Add(repeatWithin)
	is("gone when the second time was due", kinds(joins, leaves, leaves))

	other := decision(0x21, false)
	other.Tenant = 2
	outside := decision(0x21, false)
	outside.Prefix = netip.MustParsePrefix("2001:db8:2::21/128")
	wide := decision(0x21, false)
	wide.Prefix = netip.MustParsePrefix("2001:db8:1::/112")
	reject := decision(0x21, false)
	reject.Via, reject.Reject = nil, true
	apply(t, l, other, outside, wide, reject)
	is("none of ours", kinds())
}

// A link that changes keeps the groups that it needs, says what differs only, and has the RIB tell of all hosts again.
func TestReload(t *testing.T) {
	l, d, _ := listener(t, 100)
	apply(t, l, decision(1, false), decision(2, false))
	d.run(0)
	for len(l.missing) > 0 {
		<-l.missing
	}
	l.Set([]Link{link()})
	if len(l.missing) > 0 || len(l.changed) > 1 {
		t.Error("the same links again are news")
	}
	clear(d.said)
	next := link()
	next.Subnets = []netip.Prefix{netip.MustParsePrefix("2001:db8:1::/127")}
	next.Own = []netip.Addr{netip.MustParseAddr("fe80::2:2"), host(1)}
	l.Set([]Link{next})
	d.run(0)
	if len(l.missing) == 0 || l.ports["lan0"] != d.port {
		t.Error("the link that changed is another, or its hosts are not asked for")
	}
	want := map[group]string{
		groupOf(host(2)):                          kinds(leaves, leaves),
		groupOf(netip.MustParseAddr("fe80::1")):   "", // the group of host 1
		groupOf(netip.MustParseAddr("fe80::2:2")): kinds(joins, joins),
	}
	for g, k := range want {
		if got := d.said[g]; (len(got) > 0 || k != "") && kinds(got...) != k {
			t.Errorf("%x: said %v, want %v", g, got, k)
		}
	}
	apply(t, l, decision(1, true)) // it is ours now
	d.run(0)
	if !d.knows[groupOf(host(1))] {
		t.Error("an own address was left")
	}
	l.Set(nil)
	if n := len(l.Links()); n != 0 {
		t.Errorf("%d links are left", n)
	}
}

// Whatever comes and goes in whatever order, the switch ends up with what is listened to, and no queue outgrows the limit.
func TestRandomChanges(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	const limit = 300
	l, d, _ := listener(t, limit)
	model := map[int]bool{}
	for range 20000 {
		n := r.IntN(1 << 9)
		n += r.IntN(3) << 24
		gone := r.IntN(2) == 0
		if model[n] = true; gone {
			delete(model, n)
		}
		apply(t, l, decision(n, gone))
		switch r.IntN(40) {
		case 0:
			d.run(time.Duration(r.IntN(2000)) * time.Millisecond)
		case 1:
			d.ask(d.now, question{version: 1 + r.IntN(2), group: netip.IPv6Unspecified(), delay: time.Duration(r.IntN(3)) * time.Second}, 72)
		case 2:
			d.ask(d.now, question{version: 2, group: groupOf(host(n)).address()}, 72)
		case 3:
			d.end()
			d.begin()
			clear(d.knows)
		}
		if len(d.members) > limit || len(d.changes) > 3*limit || len(d.fresh) > 3*limit || len(d.all.groups)+len(d.next.groups) > 2*limit {
			t.Fatalf("%d groups, %d changes, %d fresh", len(d.members), len(d.changes), len(d.fresh))
		}
		select {
		case <-l.missing:
			for n := range model {
				apply(t, l, decision(n, false))
			}
		default:
		}
	}
	for n := range model { // down to what has room
		if len(model) > 200 {
			delete(model, n)
			apply(t, l, decision(n, true))
		}
	}
	d.run(0)
	for n := range model {
		apply(t, l, decision(n, false)) // asked for by missing
	}
	d.run(0)
	want := map[group]bool{groupOf(netip.MustParseAddr("fe80::1")): true}
	for n := range model {
		want[groupOf(host(n))] = true
	}
	if !maps.Equal(d.knows, want) {
		t.Errorf("the switch knows %d groups, want %d", len(d.knows), len(want))
	}
	if len(d.changes)+len(d.fresh)+len(d.again)+len(d.all.groups) > 0 {
		t.Error("something is left to be said")
	}
}

// A query for everything is answered in full, evenly over the response delay, and many queries at once are two answers.
func TestGeneralQuery(t *testing.T) {
	l, d, _ := listener(t, MaxGroups)
	var all []route.Decision
	for n := range MaxGroups - 1 {
		all = append(all, decision(n+2, false))
	}
	apply(t, l, all...)
	begin := d.now
	d.run(0)
	t.Logf("%d groups joined by %d reports in %v", MaxGroups, d.count, d.now.Sub(begin))
	reports := (MaxGroups + 71) / 72
	if len(d.knows) != MaxGroups || d.count > 2*reports+1 || d.most != 72 {
		t.Errorf("the switch knows %d groups by %d reports of at most %d", len(d.knows), d.count, d.most)
	}
	for i, limit := range []time.Duration{10 * time.Second, 34 * time.Second} {
		version := 2 - i
		clear(d.knows)
		clear(d.said)
		d.count = 0
		begin := d.now
		q := question{from: netip.MustParseAddr("fe80::9"), version: version, group: netip.IPv6Unspecified(), delay: 10 * time.Second}
		d.ask(d.now, q, 72)
		d.run(limit / 2)
		if half := len(d.knows); half < MaxGroups*4/10 || half > MaxGroups*6/10 {
			t.Errorf("MLDv%d: %d groups in half of the time", version, half)
		}
		d.run(0)
		t.Logf("MLDv%d: %d groups named by %d reports in %v", version, MaxGroups, d.count, d.now.Sub(begin))
		if took := d.now.Sub(begin); len(d.knows) != MaxGroups || took > limit+pace {
			t.Errorf("MLDv%d: %d groups named within %v", version, len(d.knows), took)
		}
		if s := d.status(d.now); s.Version != version || s.Querier != q.from {
			t.Errorf("%+v", s)
		}
	}
	d.now = d.now.Add(version1Lasts)
	if s := d.status(d.now); s.Version != 2 {
		t.Errorf("long after the last MLDv1 query: %+v", s)
	}
	d.count = 0
	for range 1000 {
		d.ask(d.now, question{version: 2, group: netip.IPv6Unspecified()}, 72)
	}
	if d.run(0); d.count != 2*reports {
		t.Errorf("1000 queries were answered by %d reports", d.count)
	}
}

// Neither changes nor answers wait for the other's end, however many there are.
func TestTurns(t *testing.T) {
	l, d, _ := listener(t, MaxGroups)
	for n := range 2000 {
		apply(t, l, decision(n+2, false))
	}
	d.run(0)
	q := question{version: 1, group: netip.IPv6Unspecified()}
	d.ask(d.now, q, 72)
	for n := range 2000 {
		apply(t, l, decision(n+10000, false))
	}
	clear(d.said)
	d.run(1000 * pace)
	old, young := 0, 0
	for g, said := range d.said {
		if g[1] < 10000>>8 {
			old += len(said)
		} else {
			young += len(said)
		}
	}
	if old < 400 || young < 400 {
		t.Errorf("of 1000 messages %d are answers and %d changes", old, young)
	}
}

// Who asks for one group is answered about that, within the delay, and only where it is listened to.
func TestGroupQuery(t *testing.T) {
	l, d, _ := listener(t, 100)
	apply(t, l, decision(0x21, false), decision(0x22, false))
	d.run(0)
	clear(d.said)
	for _, to := range []string{"ff02::1:ff00:21", "ff02::1:ff00:23", "ff02::2:ff00:22", "ff05::1:ff00:22"} {
		d.ask(d.now, question{version: 2, group: netip.MustParseAddr(to), delay: time.Second}, 72)
	}
	begin := d.now
	d.run(0)
	if len(d.said) != 1 || kinds(d.said[groupOf(host(0x21))]...) != kinds(isListener) || d.now.Sub(begin) > time.Second+pace {
		t.Errorf("said %v after %v", d.said, d.now.Sub(begin))
	}
}

// Hosts beyond the limit are left out, which is told once, and asked for again when there is room for many.
func TestLimit(t *testing.T) {
	l, d, text := listener(t, 16)
	for n := range 100 {
		apply(t, l, decision(n+1, false))
	}
	d.run(0)
	if s := l.Links()[0]; s.Groups != 16 || s.Full == "" || strings.Count(text.String(), "level=WARN") != 1 {
		t.Errorf("%+v\n%s", s, text)
	}
	for len(l.missing) > 0 {
		<-l.missing
	}
	apply(t, l, decision(2, true))
	if len(l.missing) > 0 {
		t.Error("asked anew for the room of one")
	}
	apply(t, l, decision(3, true))
	if len(l.missing) == 0 || l.Links()[0].Full != "" {
		t.Error("nobody asks for the hosts that were left out")
	}
	apply(t, l, decision(50, false))
	if d.run(0); !d.knows[groupOf(host(50))] {
		t.Error("there is room and no listening")
	}
}

// Hosts that come and go faster than it can be said are left out before they fill memory, and asked for once it was said.
func TestChurn(t *testing.T) {
	l, d, _ := listener(t, 16)
	for n := range 1000 {
		apply(t, l, decision(n+1, false), decision(n+1, true))
	}
	if len(d.changes) > 2*16 || len(d.fresh) > 2*16 || l.Links()[0].Full == "" {
		t.Errorf("%d changes, %d to be said", len(d.changes), len(d.fresh))
	}
	for len(l.missing) > 0 {
		<-l.missing
	}
	if d.run(0); len(l.missing) == 0 || l.Links()[0].Full != "" {
		t.Error("nobody asks for the hosts that were left out")
	}
}

// BenchmarkApply is what a host elsewhere costs the RIB.
func BenchmarkApply(b *testing.B) {
	for _, inside := range []bool{true, false} {
		b.Run(fmt.Sprintf("inside=%t", inside), func(b *testing.B) {
			l := New(slog.New(slog.DiscardHandler), func() {})
			k := link()
			if !inside {
				k.Subnets = []netip.Prefix{netip.MustParsePrefix("2001:db8:2::/64")}
			}
			l.Set([]Link{k})
			list := make([]route.Decision, 1<<20)
			for i := range list {
				list[i] = decision(i, false)
			}
			for b.Loop() {
				_ = l.Apply(context.Background(), list)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(list)), "ns/host")
		})
	}
}
