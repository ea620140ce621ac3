package lab_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"roam/lab"
)

// Hosts of one subnet behind Roam and behind FRR: FRR bridges to ours by the segment's l2vni, we route to its own by the
// tenant's VNI. See lab/frrsite.go; h11 and h12 are behind Roam, h21 and h22 behind FRR.

// bridged is that lab, where each end knows the other's hosts.
func bridged(t *testing.T) *lab.Sites {
	t.Helper()
	s := frr(t)
	for _, name := range []string{"h11", "h12"} {
		frrKnows(s, s.H(name), "192.0.2.1", 0)
	}
	for _, name := range []string{"h21", "h22", "h31"} {
		roamKnows(s, s.H(name), 0)
	}
	return s
}

// forget empties the neighbour caches of hosts.
func forget(hosts ...*lab.Host) {
	for _, h := range hosts {
		h.IP("neigh flush dev eth0 nud all")
	}
}

// neighbour is the MAC by which a host knows an address.
func neighbour(h *lab.Host, ip string) string {
	_, after, _ := strings.Cut(h.Run("ip", "neigh", "show", ip), "lladdr ")
	mac, _, _ := strings.Cut(after, " ")
	return mac
}

// TestFRRBridged: hosts of one subnet reach each other with cold caches, both ways and in both families, whether the peer's
// kernel answers their questions itself or floods them to us. What it bridges arrives with the TTL as it was sent; nothing
// of what it floods leaves by our access port.
func TestFRRBridged(t *testing.T) {
	s := bridged(t)
	gw1, h11, h12, h21, h22 := s.GW[lab.DC1], s.H("h11"), s.H("h12"), s.H("h21"), s.H("h22")
	access := s.Switch.Capture("gw1-lan", "")
	before := gw1.Counters()
	for _, suppress := range []string{"on", "off"} {
		s.Far.IP("link set vx10 type bridge_slave neigh_suppress " + suppress)
		forget(h11, h12, h21, h22)
		underlay := s.Switch.Capture("gw1-wan", "udp port 4789")
		reach(t, s, [2]*lab.Host{h21, h11}, [2]*lab.Host{h12, h22}, [2]*lab.Host{h22, h12}, [2]*lab.Host{h11, h21})
		for _, ip := range h11.IPs() {
			if got := neighbour(h21, ip.String()); got != h11.MAC {
				t.Errorf("suppression %s: h21 knows %s by %q, want %s", suppress, ip, got, h11.MAC)
			}
		}
		var there, back []*lab.Flow
		for i, f := range append(flows(s, h11, h21, 400), flows(s, h12, h22, 400)...) {
			if i%2 == 0 {
				there = append(there, f)
			} else {
				back = append(back, f)
			}
		}
		progress(append(there, back...), 100)
		lossless(t, s, there, 62, "suppression "+suppress+", from Roam to FRR")
		lossless(t, s, back, 64, "suppression "+suppress+", from FRR to Roam")
		iperf(t, s, h21, h11, 0, "-t", "1", "-b", "4M")
		iperf(t, s, h11, h21, 1, "-t", "1", "-b", "4M")
		underlay.Stop()
		if faults := underlay.Faults(); len(faults) > 0 {
			t.Errorf("suppression %s: %d broken packets, such as %q", suppress, len(faults), faults[:min(5, len(faults))])
		}
		if rows := underlay.Fields("vxlan.vni == 10 && ip.src == 192.0.2.1 && !arp && !icmpv6.type == 136", "frame.number"); len(rows) > 0 {
			t.Errorf("suppression %s: %d packets of ours are bridged, and no answers", suppress, len(rows))
		}
		replies := underlay.Fields("vxlan.vni == 10 && ip.src == 192.0.2.1 && (arp.opcode == 2 || icmpv6.type == 136)",
			"arp.src.hw_mac", "icmpv6.opt.linkaddr", "ip.ttl", "udp.srcport")
		if (len(replies) > 0) != (suppress == "off") {
			t.Errorf("suppression %s: answers through the tunnel: %q", suppress, replies)
		}
	}
	moved := gw1.Counters().Since(before)
	if moved["fwd_arp"] == 0 || moved["fwd_nd"] == 0 {
		t.Errorf("no question was answered: %v", moved)
	}
	noise(t, s, h21, "10.1.0.255", "ff02::fb")
	moved = gw1.Counters().Since(before)
	for reason, n := range moved {
		if strings.HasPrefix(reason, "drop_") && reason != "drop_flood" {
			t.Errorf("%d packets were dropped by %s: %v", n, reason, moved)
		}
	}
	access.Stop()
	for _, h := range []*lab.Host{h21, h22} {
		filter := fmt.Sprintf("eth.src == %s || (eth.dst.ig == 1 && (ip.src == %s || ipv6.src == %s || arp.src.proto_ipv4 == %s))",
			h.MAC, h.IP4, h.IP6, h.IP4)
		if rows := access.Fields(filter, "eth.src", "eth.dst", "frame.protocols"); len(rows) > 0 {
			t.Errorf("%d frames of %s were bridged or flooded to our hosts, such as %q", len(rows), h.Name, rows[0])
		}
	}
	if rows := access.Fields(fmt.Sprintf("eth.dst == %s && ip.src == %s", h11.MAC, h21.IP4), "frame.number"); len(rows) < 100 {
		t.Errorf("the capture of the access port has %d packets of h21 to h11: it is blind", len(rows))
	}
}

// noise has a host behind FRR speak to everybody, until it is counted that none of it goes on.
func noise(t *testing.T, s *lab.Sites, h *lab.Host, broadcast, group string) {
	t.Helper()
	before := s.GW[lab.DC1].Counters()["drop_flood"]
	s.Until(10*time.Second, "what is flooded to us is dropped", func() error {
		_, _ = h.Try("ping", "-n", "-b", "-c", "2", "-i", "0.2", "-W", "1", broadcast)
		_, _ = h.Try("ping", "-n", "-c", "2", "-i", "0.2", "-W", "1", group+"%eth0")
		if n := s.GW[lab.DC1].Counters()["drop_flood"] - before; n < 4 {
			return fmt.Errorf("%d packets so far\n%s", n, state(s))
		}
		return nil
	})
}

// TestFRRAsksForSilent: somebody behind FRR asks for a host here that never said a word. The question finds it.
func TestFRRAsksForSilent(t *testing.T) {
	s := bridged(t)
	h12, h21 := s.H("h12"), s.H("h21")
	for _, ip := range []string{"10.1.0.112", "2001:db8:1::112"} {
		bits := "/24"
		if strings.Contains(ip, ":") {
			bits = "/64 nodad"
		}
		h12.IP("addr add " + ip + bits + " dev eth0")
		s.Until(20*time.Second, "h21 reaches "+ip, func() error {
			out, err := h21.Try("ping", "-n", "-c", "1", "-W", "1", ip)
			if err != nil {
				return fmt.Errorf("%w\n%s\n%s", err, out, state(s))
			}
			return nil
		})
		if c, err := winner(s.GW[lab.DC1], ip); err != nil || c.Source != "host" {
			t.Errorf("gw1 has %+v of %s: %v", c, ip, err)
		}
	}
}

// TestFRRBridgedMoves: a host moves from FRR to Roam and back five times, while a neighbour behind FRR, one behind Roam and somebody behind
// FRR's other subnet speak to it in both families. Each end learns of each move, and the sequence rises by one. The last of them is
// needed: the kernel does not replace what FRR told it of a host elsewhere by what the host announces, but finds it when it has to route to it.
func TestFRRBridgedMoves(t *testing.T) {
	s := bridged(t)
	h11, h12, h21, h22, h31 := s.H("h11"), s.H("h12"), s.H("h21"), s.H("h22"), s.H("h31")
	reach(t, s, [2]*lab.Host{h22, h21}, [2]*lab.Host{h12, h21}, [2]*lab.Host{h31, h21}, [2]*lab.Host{h22, h11}, [2]*lab.Host{h11, h22})
	access := s.Switch.Capture("gw1-lan", "")
	stay := flows(s, h11, h22, 400)
	var echo []*lab.Echo
	for _, h := range []*lab.Host{h22, h12, h31} {
		for _, ip := range h21.IPs() {
			echo = append(echo, s.Echo(h.Namespace, ip, 10*time.Millisecond))
		}
	}
	for move := 1; move <= 10; move++ {
		site := (move + 1) % 2
		s.Replug(h21, site)
		h21.Announce()
		if site == lab.DC2 {
			roamKnows(s, h21, uint32(move))
			frrKnows(s, h21, "192.0.2.2", move)
		} else {
			knows(s, s.GW[lab.DC1], h21, lab.DC1, uint32(move))
			frrKnows(s, h21, "192.0.2.1", move)
		}
		for _, e := range echo {
			e.AwaitReplies(20, 10*time.Second)
		}
	}
	for _, e := range echo {
		r := e.Stop()
		t.Logf("%s over ten moves: %v", e, r)
		if r.Gap > 2*time.Second {
			t.Errorf("%s over ten moves: %v", e, r)
		}
	}
	lossless(t, s, stay, 0, "hosts that did not move")
	access.Stop()
	filter := fmt.Sprintf("eth.src == %s || (eth.dst.ig == 1 && (ip.src == %s || ipv6.src == %s || arp.src.proto_ipv4 == %s))",
		h22.MAC, h22.IP4, h22.IP6, h22.IP4)
	if rows := access.Fields(filter, "eth.src", "eth.dst", "frame.protocols"); len(rows) > 0 {
		t.Errorf("%d frames of h22 were bridged or flooded to our hosts, such as %q", len(rows), rows[0])
	}
}
