package lab_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"roam/lab"
)

// A firewall that keeps state: it takes the first packet of a connection, never one from its middle, and drops what fits to none. It counts
// what passes, by family, protocol and direction.
const keepsState = `
table inet fw {
%s
	counter invalid {}
	chain forward {
		type filter hook forward priority 0; policy drop;
		ct state invalid counter name invalid drop
%s
		ct state established accept
		ct state new tcp flags & (fin|syn|rst|ack) == syn accept
		ct state new meta l4proto { udp, icmp, ipv6-icmp } accept
	}
}
`

// The firewall's counters of passed packets.
func passed() (names []string) {
	for _, flow := range []string{"ipv4-tcp", "ipv4-udp", "ipv4-icmp", "ipv6-tcp", "ipv6-udp", "ipv6-icmp"} {
		names = append(names, flow+"-original", flow+"-reply")
	}
	return names
}

// startFirewall puts the firewall onto a router.
func startFirewall(s *lab.Sites, router *lab.Namespace) {
	s.Helper()
	var counters, rules strings.Builder
	for _, name := range passed() {
		part := strings.Split(name, "-")
		proto := part[1]
		if part[0] == "ipv6" && proto == "icmp" {
			proto = "ipv6-icmp"
		}
		fmt.Fprintf(&counters, "\tcounter %s {}\n", name)
		fmt.Fprintf(&rules, "\t\tct state established ct direction %s meta nfproto %s meta l4proto %s counter name %s\n", part[2], part[0], proto, name)
	}
	router.Run("nft", fmt.Sprintf(keepsState, counters.String(), rules.String()))
	router.Sysctl("net.netfilter.nf_conntrack_tcp_loose", "0")
}

// books are packets by a firewall's counters.
type books map[string]int

func booksOf(s *lab.Sites, router *lab.Namespace) books {
	s.Helper()
	var list struct {
		Nftables []struct {
			Counter struct {
				Name    string
				Packets int
			}
		}
	}
	if err := json.Unmarshal([]byte(router.Run("nft", "-j", "list", "counters")), &list); err != nil {
		s.Fatalf("counters of %s: %v", router.Name, err)
	}
	b := books{}
	for _, n := range list.Nftables {
		if n.Counter.Name != "" {
			b[n.Counter.Name] = n.Counter.Packets
		}
	}
	return b
}

func (b books) since(before books) books {
	d := books{}
	for name, n := range b {
		d[name] = n - before[name]
	}
	return d
}

// bothWays waits until a firewall has passed both directions of every flow of these families, and checks that nothing was left over.
func bothWays(s *lab.Sites, router *lab.Namespace, families ...string) {
	s.Helper()
	const enough = 10
	before := booksOf(s, router)
	s.Until(15*time.Second, router.Name+" sees both directions of every flow of "+strings.Join(families, " and "), func() error {
		moved := booksOf(s, router).since(before)
		for _, name := range passed() {
			if slices.Contains(families, name[:4]) && moved[name] < enough {
				return fmt.Errorf("it passed %v", moved)
			}
		}
		return nil
	})
	if moved := booksOf(s, router).since(before); moved["invalid"] != 0 {
		s.Fatalf("%s dropped %d packets that fit to no connection: %v", router.Name, moved["invalid"], moved)
	}
}

// talk is what a host and the outside have running: each kind both ways.
type talk struct {
	echoes  []*lab.Echo
	streams []*lab.Stream
}

// talking starts it, for each of their addresses of these families.
func talking(s *lab.Sites, a, b *lab.Host, families ...int) (t talk) {
	s.Helper()
	for _, family := range families {
		for _, pair := range [][2]*lab.Host{{a, b}, {b, a}} {
			from, to := pair[0].Namespace, pair[1].Namespace
			ip := pair[1].IPs()[family]
			t.echoes = append(t.echoes, s.Echo(from, ip, 20*time.Millisecond), s.EchoUDP(from, to, ip, 20*time.Millisecond))
			t.streams = append(t.streams, s.Stream(from, to, ip, 200_000))
		}
	}
	return t
}

// goesOn waits until every flow has brought more.
func (t talk) goesOn(s *lab.Sites) {
	s.Helper()
	var echoed []int
	var got []int64
	for _, e := range t.echoes {
		echoed = append(echoed, e.Received())
	}
	for _, stream := range t.streams {
		got = append(got, stream.Received())
	}
	s.Until(20*time.Second, "every flow goes on", func() error {
		for i, e := range t.echoes {
			if n := e.Received() - echoed[i]; n < 20 {
				return fmt.Errorf("%s: %d replies", e, n)
			}
		}
		for i, stream := range t.streams {
			if n := stream.Received() - got[i]; n < 50_000 {
				return fmt.Errorf("%s: %d bytes", stream, n)
			}
		}
		return nil
	})
}

// ends stops it all: whatever happened, a stream arrives whole.
func (t talk) ends(s *lab.Sites) {
	s.Helper()
	for _, e := range t.echoes {
		e.Stop()
	}
	for _, stream := range t.streams {
		if r := stream.Stop(); !r.Whole {
			s.Fatalf("%s: %v\n%s", stream, r, state(s))
		}
	}
}

// egress has both gateways follow another policy.
func egress(s *lab.Sites, policy string) {
	s.Helper()
	for _, g := range s.GW {
		g.Config.Egress = policy
		g.WriteConfig()
		g.MustCtl("reload")
	}
}

// TestEgress moves a host away from a firewall that keeps state and stands at its home. By policy home all that it exchanges with the outside
// goes on by that firewall, in both directions: connections survive the move, and new ones are made both ways, although its new site has an
// exit of its own. By policy local it takes that exit, where the outside sends its packets as well. A list chooses by destination. The
// strict source check has nothing against it.
//
//	h11 --- gw1 ---- r1 (firewall) --- out
//	         |                          |
//	h11'--- gw2 ---- r2 ----------------+
func TestEgress(t *testing.T) {
	s := lab.NewSites(t, bins, lab.Options{Outside: true, TwoExits: true})
	for _, g := range s.GW {
		g.Config.Home, g.Config.Egress, g.Config.Source = "dc1", "home", "strict"
	}
	s.Up()
	h11, h12, h21, out := s.H("h11"), s.H("h12"), s.H("h21"), s.Out
	gw2 := s.GW[lab.DC2]
	startFirewall(s, s.R1)
	startFirewall(s, s.R2)
	both := []string{"ipv4", "ipv6"}
	idle := func(router *lab.Namespace, during string, f func(), families ...string) {
		t.Helper()
		before := booksOf(s, router)
		f()
		for name, n := range booksOf(s, router).since(before) {
			if n != 0 && slices.Contains(families, name[:4]) {
				t.Errorf("%s: %s passed %d packets (%s)", during, router.Name, n, name)
			}
		}
	}

	reach(t, s, [2]*lab.Host{h11, out}, [2]*lab.Host{out, h11})
	running := talking(s, h11, out, 0, 1)
	idle(s.R2, "policy home", func() {
		running.goesOn(s)
		bothWays(s, s.R1, both...)
		s.Move(h11, lab.DC2)
		running.goesOn(s)
		before := gw2.Counters()
		bothWays(s, s.R1, both...)
		if moved := gw2.Counters().Since(before); moved["fwd_encap"] < 60 || moved["fwd_deliver"] < 60 {
			t.Errorf("gw2 tunnelled and delivered only %v", moved)
		}
		fresh := talking(s, h11, out, 0, 1)
		fresh.goesOn(s)
		bothWays(s, s.R1, both...)
		fresh.ends(s)
	}, both...)
	running.ends(s)
	neighbours := gw2.Counters()
	reach(t, s, [2]*lab.Host{h11, h12}, [2]*lab.Host{h12, h11}, [2]*lab.Host{h11, h21}) // its own subnet
	if moved := gw2.Counters().Since(neighbours); moved["drop_source"]+moved["drop_tunnel_loop"] != 0 {
		t.Errorf("in the host's own subnet: %v", moved)
	}
	policyExplained(t, s, h11, out)

	egress(s, "local")
	before := booksOf(s, s.R1)
	if answer, err := h11.Try("ping", "-n", "-c", "1", "-W", "1", out.IP4.String()); err == nil {
		t.Errorf("one way by r2, back by r1, whose firewall knows of no request: %s", answer)
	}
	if moved := booksOf(s, s.R1).since(before); moved["invalid"] == 0 {
		t.Errorf("r1 dropped nothing of a connection of which it sees one direction: %v", moved)
	}
	s.Ingress(h11, 0, true)
	s.Ingress(h11, 1, true)
	idle(s.R1, "policy local", func() {
		fresh := talking(s, h11, out, 0, 1)
		fresh.goesOn(s)
		bothWays(s, s.R2, both...)
		fresh.ends(s)
	}, both...)

	egress(s, "[{prefix: "+lab.OutsideNets[0]+", via: dc1}]")
	s.Ingress(h11, 0, false)
	fresh := talking(s, h11, out, 0)
	idle(s.R2, "IPv4 by dc1", func() {
		fresh.goesOn(s)
		bothWays(s, s.R1, "ipv4")
		fresh.ends(s)
	}, "ipv4")
	fresh = talking(s, h11, out, 1)
	idle(s.R1, "IPv6 by dc2", func() {
		fresh.goesOn(s)
		bothWays(s, s.R2, "ipv6")
		fresh.ends(s)
	}, "ipv6")
}

// policyExplained checks that explain tells the policy, and the way of the answer.
func policyExplained(t *testing.T, s *lab.Sites, h, out *lab.Host) {
	t.Helper()
	type step struct{ Step, Found, Why string }
	var e struct {
		Reason string
		Steps  []step
	}
	s.GW[lab.DC2].JSON(&e, "explain", h.IP4.String(), out.IP4.String())
	found := map[string]step{}
	for _, x := range e.Steps {
		found[x.Step] = x
	}
	if e.Reason != "fwd_encap" || !strings.HasSuffix(found["egress"].Found, "by way of dc1") || found["egress"].Why !=
		"segment web, egress home: of hosts 10.1.0.0/24 with 0.0.0.0/0" || !strings.Contains(found["back"].Found, "fwd_encap to dc1, 192.0.2.1") {
		t.Errorf("explain: %+v", e)
	}
	s.GW[lab.DC1].JSON(&e, "explain", out.IP4.String(), h.IP4.String())
	if last := e.Steps[len(e.Steps)-1]; e.Reason != "fwd_encap" || !strings.Contains(last.Found, "answers of "+h.IP4.String()) {
		t.Errorf("explain: %+v", e)
	}
}

// TestEgressNextDoor: two hosts of different subnets stand at one site and have their home at the other. What they say to each other passes their
// home's gateway, both ways, as it would if one of them had never moved: a hop there and one on each way between.
func TestEgressNextDoor(t *testing.T) {
	s := lab.NewSites(t, bins, lab.Options{})
	h11, h22 := s.H("h11"), s.H("h22")
	second := *h22
	second.IP4, second.IP6 = addr("10.2.0.22"), addr("2001:db8:6::22")
	h22.Addresses("eth0", "10.2.0.22/24", "2001:db8:6::22/64")
	h22.IP("route replace default via 10.2.0.1 src 10.2.0.22", "route replace default via fe80::1 dev eth0 src 2001:db8:6::22")
	for site, g := range s.GW {
		c := &g.Config
		c.Home, c.Egress, c.Source = "dc1", "home", "strict"
		c.Subnets = slices.Concat(c.Subnets, []string{"10.2.0.0/24", "2001:db8:6::/64"})
		c.Shared = slices.Concat(c.Shared, []string{"10.2.0.1", "2001:db8:6::1"})
		c.Own = append(c.Own, fmt.Sprintf("10.2.0.%d", 2+site), fmt.Sprintf("2001:db8:6::%d", 2+site))
	}
	for _, ip := range second.IPs() {
		s.GW[lab.DC1].SetRoute(lab.HostRoute(ip), "dc2")
	}
	s.Up()
	pairs := [][2]*lab.Host{{h11, &second}, {&second, h11}}
	reach(t, s, pairs...)
	lossless(t, s, flows(s, h11, &second, 400), 62, "one of them at home")
	s.Move(h11, lab.DC2)
	reach(t, s, pairs...)
	before := s.GW[lab.DC1].Counters()
	list := flows(s, h11, &second, 400)
	sent := 0
	for _, f := range list {
		sent += f.Sent()
	}
	lossless(t, s, list, 61, "both away")
	if moved := s.GW[lab.DC1].Counters().Since(before); int(moved["fwd_home"]) < sent {
		t.Errorf("of %d packets gw1 turned round %d: %v", sent, moved["fwd_home"], moved)
	}
}
