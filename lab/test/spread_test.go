package lab_test

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"roam/lab"
)

// TestTwoLocators splits a thousand flows over two ways to a site by weight, keeps each on its way, and takes only the flows of
// a way that goes.
func TestTwoLocators(t *testing.T) {
	s := up(t, lab.Options{NoRoutes: true, Dual: true, Alone: true})
	h11, h21 := s.H("h11"), s.H("h21")
	gw1 := s.GW[lab.DC1]
	for i, ip := range h11.IPs() {
		s.GW[lab.DC2].MustCtl("route", "add", ip.String(), "--site", "dc1")
		gw1.MustCtl("route", "add", h21.IPs()[i].String(), "--via", "192.0.2.2,weight=75", "--via", "2001:db8:ff::2,weight=25")
	}
	reach(t, s, [2]*lab.Host{h11, h21})
	for _, l := range []string{"192.0.2.2", "2001:db8:ff::2"} { // until both answer, one carries the other's flows
		awaitLocator(s.Lab, gw1, l, "up", 10*time.Second)
	}
	list := flows(s, h11, h21, 800)
	for _, ip := range h21.IPs() {
		first, second := ways(t, s, h11, ip), ways(t, s, h11, ip)
		var four int
		for port, way := range first {
			if way == 4 {
				four++
			}
			if again := second[port]; again != 0 && again != way {
				t.Errorf("%s: the flow from port %d went by IPv%d, then by IPv%d", ip, port, way, again)
			}
		}
		if share := float64(four) / float64(len(first)); len(first) < 900 || share < 0.70 || share > 0.80 {
			t.Errorf("%s: %d flows of %d took the way of weight 75", ip, four, len(first))
		}
	}
	lossless(t, s, list, 62, "two ways")

	// One way's next hop goes silent: its flows go over to the other, whose own stay.
	before := ways(t, s, h11, h21.IP4)
	s.GW[lab.DC2].Run("ip", "-6", "addr", "del", "2001:db8:ff::2/64", "dev", "wan0")
	gw1.Run("ip", "-6", "neigh", "flush", "dev", "wan0")
	s.Until(20*time.Second, "every flow takes the way that is left", func() error {
		for port, way := range ways(t, s, h11, h21.IP4) {
			if way != 4 {
				return fmt.Errorf("the flow from port %d goes by IPv%d, earlier by IPv%d", port, way, before[port])
			}
		}
		return nil
	})
}

// ways sends a packet of each of a thousand flows and tells by which family of tunnel each left.
func ways(t *testing.T, s *lab.Sites, from *lab.Host, to netip.Addr) map[int]int {
	t.Helper()
	const flows, first = 1000, 30000
	c := s.Switch.Capture("gw1-wan", "udp port 4789")
	err := from.Do(func() error {
		for n := range flows {
			conn, err := net.DialUDP("udp", &net.UDPAddr{Port: first + n}, net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, 9)))
			if err != nil {
				return err
			}
			_, err = conn.Write([]byte("roam"))
			conn.Close()
			if err != nil {
				continue // an ICMP error that an earlier flow met
			}
			if n%20 == 19 {
				time.Sleep(2 * time.Millisecond) // the cable's queue has room for 256
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	c.AwaitPackets(flows*9/10, "udp.dstport == 9 && !icmp && !icmpv6", 10*time.Second)
	c.Stop()
	taken := map[int]int{}
	for _, row := range c.Fields("udp.dstport == 9 && !icmp && !icmpv6", "udp.srcport", "ip.src", "ipv6.src") {
		var outer, port int
		if _, err := fmt.Sscanf(row[0], "%d,%d", &outer, &port); err != nil {
			continue
		}
		way := 6
		if len(row[1]) >= 9 && row[1][:9] == "192.0.2.1" {
			way = 4
		}
		taken[port] = way
	}
	return taken
}
