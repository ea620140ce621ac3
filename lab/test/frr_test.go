package lab_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"roam/lab"
)

// frr builds the sites with FRR and the kernel's VXLAN as dc2's gateway, and starts Roam at dc1. What hosts announce of
// themselves is learnt at both sites.
func frr(t *testing.T) *lab.Sites {
	t.Helper()
	s := lab.NewSites(t, bins, lab.Options{NoRoutes: true, FRRFar: true})
	gw1 := s.GW[lab.DC1]
	c := &gw1.Config
	c.BGP = &lab.BGP{ASN: 65001, Neighbors: []string{"{address: 192.0.2.2, asn: 65002}"}}
	c.GatewayMAC, c.L2VNI, c.Peers, c.Mobility = "02:00:5e:10:00:01", 10, nil, often
	gw1.Sysctl("net.ipv4.conf.lan0.arp_accept", "1")
	gw1.Sysctl("net.ipv6.conf.lan0.accept_untracked_na", "2")
	gw1.Up()
	s.Until(20*time.Second, "the session with FRR is up", func() error {
		if out := gw1.MustCtl("session", "list"); !strings.Contains(out, "established") {
			return fmt.Errorf("sessions:\n%s", out)
		}
		return nil
	})
	for _, h := range s.Hosts {
		h.Announce()
	}
	return s
}

// evpn is what FRR shows of a host's route, or "" where it has none.
func evpn(s *lab.Sites, h *lab.Host, i int) string {
	s.Helper()
	out := s.FRR.Show("show bgp l2vpn evpn route type macip")
	_, after, found := strings.Cut(out, fmt.Sprintf("[2]:[0]:[48]:[%s]:[%d]:[%s]", h.MAC, h.IPs()[i].BitLen(), h.IPs()[i]))
	if !found {
		return ""
	}
	lines := strings.SplitN(after, "\n", 4)
	return strings.Join(lines[:min(3, len(lines))], "\n")
}

// frrKnows waits until FRR takes a host to be behind a locator.
func frrKnows(s *lab.Sites, h *lab.Host, locator string, sequence int) {
	s.Helper()
	for i, ip := range h.IPs() {
		s.Until(30*time.Second, fmt.Sprintf("FRR knows %s at %s", ip, locator), func() error {
			got := evpn(s, h, i)
			if !strings.Contains(got, locator) || sequence > 0 && !strings.Contains(got, fmt.Sprintf("MM:%d", sequence)) {
				return fmt.Errorf("it shows %q", got)
			}
			return nil
		})
	}
}

// roamKnows waits until gw1 takes a host to be behind FRR.
func roamKnows(s *lab.Sites, h *lab.Host, sequence uint32) {
	s.Helper()
	for _, ip := range h.IPs() {
		s.Until(30*time.Second, fmt.Sprintf("gw1 knows %s at FRR", ip), func() error {
			c, err := winner(s.GW[lab.DC1], ip.String())
			if err != nil {
				return err
			}
			if c.Source != "bgp" || len(c.Via) != 1 || c.Via[0].Address != "192.0.2.2" || c.Sequence != sequence {
				return fmt.Errorf("it has %+v", c)
			}
			return nil
		})
	}
}

// TestFRR: EVPN with symmetric IRB between Roam and FRR over the kernel's VXLAN, across subnets, both ways, both families.
func TestFRR(t *testing.T) {
	s := frr(t)
	gw1, h11, h12, h31 := s.GW[lab.DC1], s.H("h11"), s.H("h12"), s.H("h31")
	frrKnows(s, h11, "192.0.2.1", 0)
	roamKnows(s, h31, 0)
	reach(t, s, [2]*lab.Host{h11, h31}, [2]*lab.Host{h31, h11}, [2]*lab.Host{h12, h31}, [2]*lab.Host{h31, h12})
	list := flows(s, h11, h31, 400)
	list = append(list, flows(s, h12, h31, 400)...)
	progress(list, 200)
	lossless(t, s, list, 62, "between Roam and FRR")

	// A prefix and a host whose MAC nobody knows are routes of type 5. FRR puts them into the kernel.
	lines := `{"prefix":"10.77.0.0/16","local":true}` + "\n" + `{"prefix":"10.1.0.99","local":true}` + "\n"
	file := filepath.Join(s.Dir, "local.jsonl")
	if err := os.WriteFile(file, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	gw1.MustCtl("route", "import", file)
	s.Until(10*time.Second, "FRR has the prefix and the host", func() error {
		out := s.Far.Run("ip", "route")
		for _, want := range []string{"10.77.0.0/16", "10.1.0.99"} {
			if !strings.Contains(out, want+" nhid") && !strings.Contains(out, want+" via") {
				return fmt.Errorf("no %s in\n%s", want, out)
			}
		}
		return nil
	})
	// Nothing of the segment here is taken for elsewhere because FRR has the subnet, too.
	if out := gw1.MustCtl("route", "list", "--source", "bgp"); strings.Contains(out, "10.1.0.0/24") || !strings.Contains(out, "10.2.0.0/24") {
		t.Errorf("routes of FRR:\n%s", out)
	}
	// The gateways' own addresses are nobody's hosts.
	for _, own := range []string{"10.1.0.1", "10.1.0.2", "192.0.2.1"} {
		if out := s.FRR.Show("show bgp l2vpn evpn"); strings.Contains(out, "["+own+"]\n") && own != "192.0.2.1" {
			t.Errorf("%s is announced:\n%s", own, out)
		}
	}
	gw1.MustCtl("route", "flush")
	s.Until(10*time.Second, "FRR forgets them", func() error {
		if out := s.Far.Run("ip", "route"); strings.Contains(out, "10.77.0.0/16") || strings.Contains(out, "10.1.0.99") {
			return fmt.Errorf("it has\n%s", out)
		}
		return nil
	})
}

// TestFRRForgetsUs: FRR 8.4.4 drops what a neighbour of EVPN told it as soon as the session ends, graceful restart or not. So a daemon that is
// killed and started again is a gap for what FRR sends, until it has told everything once more; what we send goes on.
func TestFRRForgetsUs(t *testing.T) {
	s := frr(t)
	gw1, h11, h31 := s.GW[lab.DC1], s.H("h11"), s.H("h31")
	frrKnows(s, h11, "192.0.2.1", 0)
	roamKnows(s, h31, 0)
	reach(t, s, [2]*lab.Host{h31, h11}, [2]*lab.Host{h11, h31})
	var back, out []*lab.Flow
	for i, ip := range h11.IPs() {
		back = append(back, s.Flow(h31.Namespace, h31.IPs()[i], h11.Namespace, ip, 500, 100))
		out = append(out, s.Flow(h11.Namespace, ip, h31.Namespace, h31.IPs()[i], 500, 100))
	}
	progress(append(back, out...), 100)
	gw1.Restart()
	frrKnows(s, h11, "192.0.2.1", 0)
	progress(append(back, out...), 500)
	gaps(t, back, "a restart beside FRR")
	lossless(t, s, out, 62, "a restart beside FRR")
}

// TestFRRMoves: a host moves from Roam to FRR and back five times while somebody behind FRR speaks to it. Each end learns of
// each move, the sequence rises by one, and the host is reached in both families at once.
func TestFRRMoves(t *testing.T) {
	s := frr(t)
	h11, h12, h31 := s.H("h11"), s.H("h12"), s.H("h31")
	frrKnows(s, h11, "192.0.2.1", 0)
	roamKnows(s, h31, 0)
	reach(t, s, [2]*lab.Host{h31, h11}, [2]*lab.Host{h12, h31})
	stay := flows(s, h12, h31, 400)
	echo := []*lab.Echo{s.Echo(h31.Namespace, h11.IP4, 10*time.Millisecond), s.Echo(h31.Namespace, h11.IP6, 10*time.Millisecond)}
	for move := 1; move <= 10; move++ {
		site := move % 2
		s.Replug(h11, site)
		h11.Announce()
		if site == lab.DC2 {
			roamKnows(s, h11, uint32(move))
			frrKnows(s, h11, "192.0.2.2", move)
		} else {
			knows(s, s.GW[lab.DC1], h11, lab.DC1, uint32(move))
			frrKnows(s, h11, "192.0.2.1", move)
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
	lossless(t, s, stay, 62, "hosts that did not move")
}
