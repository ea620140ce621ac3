package mld

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mdlayher/packet"

	"roam/lab"
	"roam/loader/ether"
	"roam/loader/route"
)

// questionFrame is a querier's frame; body is the ICMPv6 message without its checksum.
func questionFrame(from string, body ...byte) []byte {
	f := frame(route.MAC{2, 0, 0, 0, 0, 9}, netip.MustParseAddr("ff02::1"), body)
	copy(f[ethernetLen+8:], netip.MustParseAddr(from).AsSlice())
	return sign(f)
}

func sign(f []byte) []byte {
	icmp := f[ethernetLen+ipv6Len+alertLen:]
	icmp[2], icmp[3] = 0, 0
	binary.BigEndian.PutUint16(icmp[2:], ether.ChecksumICMPv6(f[ethernetLen+8:ethernetLen+ipv6Len], icmp))
	return f
}

func queryBody(version int, code uint16, group netip.Addr) []byte {
	b := binary.BigEndian.AppendUint16([]byte{typeQuery, 0, 0, 0}, code)
	b = append(append(b, 0, 0), group.AsSlice()...)
	if version == 2 {
		b = append(b, 2, 125, 0, 0)
	}
	return b
}

func TestParse(t *testing.T) {
	all, one := netip.IPv6Unspecified(), netip.MustParseAddr("ff02::1:ff00:21")
	from := netip.MustParseAddr("fe80::9")
	for _, c := range []struct {
		body []byte
		want question
	}{
		{queryBody(2, 10000, all), question{from, false, 2, all, 10 * time.Second}},
		{queryBody(2, 0x8000|0x3<<12|0x456, one), question{from, false, 2, one, (0x1456 << 6) * time.Millisecond}},
		{queryBody(1, 0x8001, all), question{from, false, 1, all, 0x8001 * time.Millisecond}},
		{append(queryBody(2, 0, one), all.AsSlice()...), question{from, false, 2, one, 0}}, // with sources
		{[]byte{typeSolicit, 0, 0, 0, 0, 0, 0, 0}, question{from: from, solicited: true}},
	} {
		if q, ok := parse(questionFrame("fe80::9", c.body...)); !ok || q != c.want {
			t.Errorf("%x: %+v %t, want %+v", c.body, q, ok, c.want)
		}
	}
	const hop = ethernetLen + ipv6Len
	good := questionFrame("fe80::9", queryBody(2, 10000, all)...)
	for what, f := range map[string][]byte{
		"no query":              questionFrame("fe80::9", append([]byte{typeReport}, queryBody(2, 0, all)[1:]...)...),
		"not of the link":       questionFrame("2001:db8::1", queryBody(2, 10000, all)...),
		"from nobody":           questionFrame("::", queryBody(2, 10000, all)...),
		"neither version":       questionFrame("fe80::9", append(queryBody(1, 10000, all), 0, 0)...),
		"hop limit":             with(good, ethernetLen+7, 2),
		"no router alert":       with(good, hop+2, 6),
		"router alert of RSVP":  with(good, hop+5, 1),
		"options without end":   with(good, hop+1, 9),
		"option without end":    with(good, hop+3, 9),
		"checksum":              with(good, len(good)-1, 1),
		"longer than the frame": with(good, ethernetLen+5, 60),
	} {
		if q, ok := parse(f); ok {
			t.Errorf("%s: taken for %+v", what, q)
		}
	}
	for n := range good {
		if _, ok := parse(good[:n]); ok {
			t.Errorf("%d bytes of it were taken", n)
		}
	}
}

func with(f []byte, at int, b byte) []byte {
	f = append([]byte(nil), f...)
	f[at] = b
	return f
}

func TestReportBytes(t *testing.T) {
	mac := route.MAC{2, 0, 0, 0, 0, 0x11}
	for want, f := range map[string][]byte{
		"333300000016" + "020000000011" + "86dd" + "60000000" + "0024" + "0001" + "fe80000000000000000000fffe000011" + "ff020000000000000000000000000016" +
			"3a00" + "05020000" + "0100" + "8f00" + "71d7" + "0000" + "0001" + "04000000" + "ff0200000000000000000001ff000021": report(mac, []record{{group{0, 0, 0x21}, joins}}),
		"3333ff000021" + "020000000011" + "86dd" + "60000000" + "0020" + "0001" + "fe80000000000000000000fffe000011" + "ff0200000000000000000001ff000021" +
			"3a00" + "05020000" + "0100" + "8300" + "82cf" + "00000000" + "ff0200000000000000000001ff000021": report1(mac, record{group{0, 0, 0x21}, isListener}),
		"333300000002" + "020000000011" + "86dd" + "60000000" + "0020" + "0001" + "fe80000000000000000000fffe000011" + "ff020000000000000000000000000002" +
			"3a00" + "05020000" + "0100" + "8400" + "80f0" + "00000000" + "ff0200000000000000000001ff000021": report1(mac, record{group{0, 0, 0x21}, leaves}),
		"33330000006a" + "020000000011" + "86dd" + "60000000" + "0010" + "0001" + "fe80000000000000000000fffe000011" + "ff02000000000000000000000000006a" +
			"3a00" + "05020000" + "0100" + "9714" + "6b2b" + "007d" + "0002": advertisement(mac),
	} {
		if got := hex.EncodeToString(f); got != want {
			t.Errorf("\n%s, want\n%s", got, want)
		}
	}
	if room(1500) != 72 || room(1280) != 61 || room(100) != 2 || room(0) != 1 {
		t.Errorf("records: %d, %d, %d, %d", room(1500), room(1280), room(100), room(0))
	}
}

// querier is a router of multicast at the other end of a cable; it hears what the gateway says.
//
//	gw lan0 ---- eth0 querier
type querier struct {
	*lab.Lab
	gw, ns  *lab.Namespace
	capture *lab.Capture
	conn    *packet.Conn
	end     func() // of the listener
}

func newQuerier(t *testing.T, l *Listener) *querier {
	t.Helper()
	q := &querier{Lab: lab.New(t)}
	q.gw, q.ns = q.Namespace("gw"), q.Namespace("querier")
	for _, n := range []*lab.Namespace{q.gw, q.ns} { // the kernel has groups of its own
		n.Sysctl("net.ipv6.conf.default.disable_ipv6", "1")
	}
	q.Cable(lab.End{In: q.gw, Name: "lan0", MAC: portMAC.String()}, lab.End{In: q.ns, Name: "eth0"}, 1500, 1)
	q.capture = q.ns.Capture("eth0", "ip6")
	err := q.ns.Do(func() error {
		nic, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		q.conn, err = packet.Listen(nic, packet.Raw, 0, nil)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	l.mu.Lock()
	p := l.ports["lan0"]
	l.mu.Unlock()
	go func() {
		done <- q.gw.Do(func() error {
			l.keep(ctx, p) // in this thread, which is in the namespace
			return nil
		})
	}()
	q.end = sync.OnceFunc(func() {
		stop()
		if err := errors.Join(<-done, q.conn.Close()); err != nil {
			t.Error(err)
		}
	})
	q.Defer(q.end)
	return q
}

func (q *querier) ask(version int, code uint16, group netip.Addr) {
	q.Helper()
	if err := send(q.conn, questionFrame("fe80::9", queryBody(version, code, group)...)); err != nil {
		q.Fatalf("ask: %v", err)
	}
}

// await waits until tshark finds packets, and returns how many it finds.
func (q *querier) await(count int, filter string) {
	q.Helper()
	q.capture.AwaitPackets(count, filter, 10*time.Second)
}

// What goes over the wire is what tshark, too, takes for MLD: changes, answers to all queries of both versions, advertisements.
func TestQuerier(t *testing.T) {
	l := New(slog.New(slog.DiscardHandler), func() {})
	l.Set([]Link{link()})
	q := newQuerier(t, l)
	named := func(kind int, address string) string {
		return fmt.Sprintf(`icmpv6.type == 143 && icmpv6.mldr.mar.record_type == %d && icmpv6.mldr.mar.multicast_address == %s`, kind, address)
	}
	q.await(2, named(4, "ff02::1:ff00:1"))
	var all []route.Decision
	for n := range 100 {
		all = append(all, decision(n+2, false))
	}
	apply(t, l, all...)
	q.await(2, named(4, "ff02::1:ff00:21"))
	apply(t, l, decision(0x21, true))
	q.await(2, named(3, "ff02::1:ff00:21"))
	q.await(1, `icmpv6.type == 151 && icmpv6.checksum.status == "Good"`)

	q.ask(2, 100, netip.IPv6Unspecified())
	q.await(1, named(2, "ff02::1:ff00:1"))
	q.await(2, `icmpv6.type == 143 && icmpv6.mldr.mar.record_type == 2`)
	q.ask(2, 100, netip.MustParseAddr("ff02::1:ff00:22"))
	q.await(3, `icmpv6.type == 143 && icmpv6.mldr.mar.record_type == 2`)
	before := len(q.capture.Fields("icmpv6.type == 151", "frame.number"))
	if err := send(q.conn, questionFrame("fe80::9", typeSolicit, 0, 0, 0, 0, 0, 0, 0)); err != nil {
		t.Fatal(err)
	}
	q.await(before+1, "icmpv6.type == 151")

	q.ask(1, 100, netip.IPv6Unspecified())
	q.await(100, "icmpv6.type == 131")
	apply(t, l, decision(0x22, true))
	q.await(2, "icmpv6.type == 132 && ipv6.dst == ff02::2 && icmpv6.mld.multicast_address == ff02::1:ff00:22")
	q.capture.Stop()
	if faults := q.capture.Faults(); len(faults) > 0 {
		t.Errorf("%d faults, the first: %s", len(faults), faults[0])
	}
	const sane = `ipv6.hlim == 1 && ipv6.src == fe80::ff:fe00:11 && ipv6.opt.router_alert == 0 && icmpv6.checksum.status == "Good"`
	if odd := q.capture.Tshark("eth.src == 02:00:00:00:00:11 && !(" + sane + " && ipv6.plen <= 1460)"); odd != "" {
		t.Errorf("not as MLD is sent: %s", odd)
	}
}

// A bridge that snoops knows what is listened to, in both versions of its querier, and takes the port for a multicast router's. Where it
// knows of neither, a solicitation does not arrive.
//
//	gw lan0 ---- port1 (lan, switch) port2 ---- eth0 host
func TestSwitchThatSnoops(t *testing.T) {
	l := New(slog.New(slog.DiscardHandler), func() {})
	l.Set([]Link{link()})
	apply(t, l, decision(0x21, false))
	net := lab.New(t)
	gw, sw, h := net.Namespace("gw"), net.Namespace("switch"), net.Namespace("host")
	gw.Sysctl("net.ipv6.conf.default.disable_ipv6", "1") // the kernel has groups of its own
	sw.Bridge("lan", 1500)
	sw.IP("link set lan type bridge mcast_snooping 1 mcast_querier 1 mcast_mld_version 2 mcast_query_interval 400 " +
		"mcast_query_response_interval 50 mcast_startup_query_interval 100 mcast_last_member_interval 20")
	net.Cable(lab.End{In: gw, Name: "lan0"}, lab.End{In: sw, Name: "port1", Bridge: "lan"}, 1500, 1)
	net.Cable(lab.End{In: h, Name: "eth0"}, lab.End{In: sw, Name: "port2", Bridge: "lan"}, 1500, 1)
	h.Addresses("eth0", "2001:db8:1::11/64")
	capture := gw.Capture("lan0", "icmp6 and ip6[40] == 135")
	heard := func() bool {
		const asked = "icmpv6.nd.ns.target_address == 2001:db8:1::21"
		before := len(capture.Fields(asked, "frame.number"))
		h.Run("ip", "-6", "neigh", "flush", "dev", "eth0")
		_, _ = h.Try("ping", "-n", "-c", "1", "-W", "1", "2001:db8:1::21") // nobody answers here
		return len(capture.Fields(asked, "frame.number")) > before
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	p := l.ports["lan0"]
	go func() { done <- gw.Do(func() error { l.keep(ctx, p); return nil }) }()
	net.Defer(func() {
		stop()
		<-done
	})
	until := func(line string, want bool) {
		t.Helper()
		net.Until(20*time.Second, fmt.Sprintf("%q is listed: %t", line, want), func() error {
			if out := sw.Run("bridge", "-d", "mdb", "show", "dev", "lan"); strings.Contains(out, line) != want {
				return errors.New(out)
			}
			return nil
		})
	}
	until("router ports on lan: port1", true)
	sw.Run("bridge", "link", "set", "dev", "port1", "mcast_router", "0") // as a switch that does not know RFC 4286
	until("router ports on lan: port1", false)
	for version := 2; version >= 1; version-- {
		sw.IP(fmt.Sprintf("link set lan type bridge mcast_mld_version %d", version))
		net.Until(20*time.Second, "the gateway hears the querier", func() error {
			if s := l.Links()[0]; s.Version != version || !s.Querier.IsValid() {
				return fmt.Errorf("%+v", s)
			}
			return nil
		})
		const entry = "port port1 grp ff02::1:ff00:21 "
		net.Until(20*time.Second, "no solicitation arrives where the switch knows no listener", func() error {
			until(entry, true) // again, by the answer to a query
			sw.Run("bridge", "mdb", "del", "dev", "lan", "port", "port1", "grp", "ff02::1:ff00:21")
			if heard() {
				return errors.New("one does: the switch does not snoop yet, or has asked meanwhile")
			}
			return nil
		})
		until(entry, true)
		if !heard() {
			t.Errorf("MLDv%d: the solicitation did not arrive", version)
		}
		apply(t, l, decision(0x21, true))
		until(entry, false)
		apply(t, l, decision(0x21, false))
		until(entry, true)
	}
}

// Where the interface comes back, everything is said anew; that it was away is told.
func TestInterface(t *testing.T) {
	var text strings.Builder
	l := New(slog.New(slog.NewTextHandler(&text, nil)), func() {})
	l.Set([]Link{link()})
	q := newQuerier(t, l)
	q.await(2, "icmpv6.type == 143")
	q.gw.IP("link set lan0 down", "link set lan0 up")
	q.await(4, "icmpv6.type == 143")
	q.end()
	if n := strings.Count(text.String(), "level=WARN"); n != 1 {
		t.Errorf("%d warnings: %s", n, text.String())
	}
}

// Links come and go while it runs, and each time the RIB is asked for the hosts.
func TestRun(t *testing.T) {
	again := make(chan struct{})
	l := New(slog.New(slog.DiscardHandler), func() { again <- struct{}{} })
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	absent, other := link(), link()
	absent.Interface, other.Interface = "absent0", "absent1"
	for _, links := range [][]Link{{absent}, {absent, other}, {other}, nil} {
		l.Set(links)
		<-again
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestMain(m *testing.M) {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "these tests need root: they make network namespaces")
		os.Exit(1)
	}
	os.Exit(m.Run())
}
