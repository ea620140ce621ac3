package lab_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"roam/lab"
)

// TestColdMove: a host is shut down and comes up at the other site, with its MAC or with another one. It first asks whether somebody has its addresses
// (RFC 5227, RFC 4862), which nobody answers although the gateway there would for any other host of the other site. By those questions
// alone both gateways know where it is, and the first packet that it sends after them is answered.
func TestColdMove(t *testing.T) {
	for _, with := range []struct{ name, mac string }{{"the same MAC", ""}, {"a new MAC", "02:00:00:00:01:99"}} {
		t.Run(with.name, func(t *testing.T) {
			s := lab.NewSites(t, bins, lab.Options{NoRoutes: true})
			peers(t, s, "")
			h11, h12 := s.H("h11"), s.H("h12")
			for _, h := range []*lab.Host{h11, h12} {
				h.Announce()
				homeAt(s, lab.DC1, h.IPs()...)
			}
			reach(t, s, [2]*lab.Host{h12, h11})

			h11.IP("link set eth0 down")
			h11.Sysctl("net.ipv6.conf.eth0.accept_dad", "1")
			h11.Sysctl("net.ipv6.conf.eth0.dad_transmits", "1")
			if with.mac != "" {
				h11.MAC = with.mac
				h11.IP("link set eth0 address " + h11.MAC)
			}
			s.Replug(h11, lab.DC2)
			h11.IP("link set eth0 up")
			heard := h11.Capture("eth0", "arp or icmp6")
			h11.IP("addr add " + h11.IP6.String() + "/64 dev eth0")
			h11.Probe()
			s.Until(15*time.Second, "h11 has looked for duplicates", func() error {
				out := h11.Run("ip", "-6", "addr", "show", "dev", "eth0")
				if strings.Contains(out, "dadfailed") {
					t.Fatalf("somebody has its address: %s", out)
				}
				if !strings.Contains(out, h11.IP6.String()) || strings.Contains(out, "tentative") {
					return fmt.Errorf("it has %s", out)
				}
				return nil
			})
			homeAt(s, lab.DC2, h11.IPs()...)
			heard.Stop()
			for _, question := range []string{"arp.opcode == 1 && arp.src.proto_ipv4 == 0.0.0.0", "icmpv6.type == 135 && ipv6.src == ::"} {
				if len(heard.Fields(question+" && eth.src == "+h11.MAC, "frame.number")) == 0 {
					t.Errorf("it never asked (%s)", question)
				}
			}
			for _, defence := range []string{
				"arp.opcode == 2 && arp.src.proto_ipv4 == " + h11.IP4.String() + " && eth.src != " + h11.MAC,
				"icmpv6.type == 136 && icmpv6.nd.na.target_address == " + h11.IP6.String() + " && eth.src != " + h11.MAC,
			} {
				if frames := heard.Fields(defence, "frame.number"); len(frames) > 0 {
					t.Errorf("%d answers that somebody has its address (%s)", len(frames), defence)
				}
			}
			h11.IP("route replace default via 10.1.0.1", "route replace default via fe80::1 dev eth0")
			for _, ip := range h12.IPs() {
				if out, err := h11.Try("ping", "-n", "-c", "1", "-W", "5", ip.String()); err != nil {
					t.Errorf("the first packet to %s: %v\n%s\n%s", ip, err, out, state(s))
				}
			}
			for _, g := range s.GW {
				for _, e := range events(g) {
					if slices.Contains([]string{"conflict", "frozen", "refused"}, e.Kind) {
						t.Errorf("%s tells of %+v", g.Name, e)
					}
				}
				if h := show(g, h11.IP4); h.MAC != h11.MAC {
					t.Errorf("%s has it as %+v", g.Name, h)
				}
			}
		})
	}
}
