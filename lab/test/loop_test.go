package lab_test

import (
	"fmt"
	"testing"
	"time"

	"roam/lab"
)

// TestEachNamesTheOther has two gateways that each take the other for a host's home: what is sent there crosses the underlay a
// bounded number of times, and is counted.
func TestEachNamesTheOther(t *testing.T) {
	s := up(t, lab.Options{})
	h11 := s.H("h11")
	reach(t, s, [2]*lab.Host{h11, s.H("h21")})
	for _, ip := range []string{"10.1.0.99", "2001:db8:1::99"} {
		s.GW[lab.DC1].MustCtl("route", "add", ip, "--site", "dc2")
		s.GW[lab.DC2].MustCtl("route", "add", ip, "--site", "dc1")
	}
	c := s.Switch.Capture("gw1-wan", "udp port 4789")
	const sent = 100
	for _, ip := range []string{"10.1.0.99", "2001:db8:1::99"} {
		if out, err := h11.Try("ping", "-n", "-c", fmt.Sprint(sent), "-i", "0.002", "-W", "1", ip); err == nil {
			t.Errorf("%s answered: %s", ip, out)
		}
	}
	s.Until(5*time.Second, "both gateways agree on what became of them", func() error {
		if n := s.GW[lab.DC2].Counters()["drop_tunnel_loop"]; n < 2*sent {
			return fmt.Errorf("gw2 counted %d\n%s", n, state(s))
		}
		return nil
	})
	c.Stop()
	if rows := c.Fields("ip.dst == 10.1.0.99 || ipv6.dst == 2001:db8:1::99", "frame.number"); len(rows) > 2*sent {
		t.Errorf("%d packets crossed the underlay %d times", 2*sent, len(rows))
	}
}
