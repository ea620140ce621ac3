package lab_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"roam/lab"
)

// TestSmallTunnel has an underlay that carries no more than the hosts' own links, so that no full packet of a host fits: TCP
// does not stall, whether hosts hear errors or not; a sender that may not be fragmented is told the right size; and a
// path can be traced, its MTU and every hop.
func TestSmallTunnel(t *testing.T) {
	for _, underlay6 := range []bool{false, true} {
		t.Run(fmt.Sprintf("underlay6=%v", underlay6), func(t *testing.T) {
			s := up(t, lab.Options{Narrow: true, Underlay6: underlay6})
			h11, h21 := s.H("h11"), s.H("h21")
			reach(t, s, [2]*lab.Host{h11, h21}, [2]*lab.Host{h21, h11})
			fits := 1500 - 50
			if underlay6 {
				fits -= 20
			}
			for i := range 2 {
				told(t, s, h11, h21.IPs()[i], fits)
				traced(t, s, h11, h21.IPs()[i], fits)
			}
			deaf(s, h11)
			deaf(s, h21)
			for i := range 2 {
				for _, pair := range [][2]*lab.Host{{h11, h21}, {h21, h11}} {
					stream := s.Stream(pair[0].Namespace, pair[1].Namespace, pair[1].IPs()[i], 4<<20)
					s.Until(10*time.Second, "the stream has carried a megabyte", func() error {
						if got := stream.Received(); got < 1<<20 {
							return fmt.Errorf("%d bytes", got)
						}
						return nil
					})
					if r := stream.Stop(); !r.Whole || r.Stall > time.Second {
						t.Errorf("TCP from %s to %s: %v\n%s", pair[0].Name, pair[1].IPs()[i], r, state(s))
					}
				}
			}
		})
	}
}

// told sends a datagram that fills the host's link and may not be fragmented, until the host knows what fits.
func told(t *testing.T, s *lab.Sites, from *lab.Host, to netip.Addr, fits int) {
	t.Helper()
	err := from.Do(func() error {
		conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, 9)))
		if err != nil {
			return err
		}
		defer conn.Close()
		raw, err := conn.SyscallConn()
		if err != nil {
			return err
		}
		level, discover, mtu := unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_MTU
		if to.Is6() {
			level, discover, mtu = unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_MTU
		}
		if e := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), level, discover, unix.IP_PMTUDISC_DO) }); e != nil || err != nil {
			return errors.Join(e, err)
		}
		_, _ = conn.Write(make([]byte, 1440)) // with its headers more than fits, and no more than any link of a host carries
		s.Until(5*time.Second, fmt.Sprintf("%s is told what fits to %s", from.Name, to), func() error {
			var known int
			if e := raw.Control(func(fd uintptr) { known, err = unix.GetsockoptInt(int(fd), level, mtu) }); e != nil || err != nil {
				return errors.Join(e, err)
			}
			if known != fits {
				return fmt.Errorf("it believes in %d, %d fits\n%s", known, fits, state(s))
			}
			return nil
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// traced follows a path hop by hop: the two gateways, and the host.
func traced(t *testing.T, s *lab.Sites, from *lab.Host, to netip.Addr, fits int) {
	t.Helper()
	out := from.Run("tracepath", "-n", "-m", "6", to.String())
	for _, want := range []string{fmt.Sprintf("pmtu %d", fits), "Resume: pmtu"} {
		if !strings.Contains(out, want) {
			t.Errorf("tracepath to %s does not say %q:\n%s%s", to, want, out, state(s))
		}
	}
	hops := []string{"10.1.0.2", "10.1.0.3", to.String()}
	if to.Is6() {
		hops = []string{"2001:db8:1::2", "2001:db8:1::3", to.String()}
	}
	for n, hop := range hops {
		if !strings.Contains(out, fmt.Sprintf(" %d:  %s ", n+1, hop)) {
			t.Errorf("tracepath to %s: hop %d is not %s:\n%s", to, n+1, hop, out)
		}
	}
}

// deaf has a host hear no error that tells a size, as behind a firewall that drops them, and forget what it heard.
func deaf(s *lab.Sites, h *lab.Host) {
	s.Helper()
	h.Run("nft", "add table inet deaf; add chain inet deaf in { type filter hook input priority 0; }; "+
		"add rule inet deaf in icmp type destination-unreachable drop; add rule inet deaf in icmpv6 type packet-too-big drop")
	h.Run("ip", "route", "flush", "cache")
	h.Run("ip", "-6", "route", "flush", "cache")
}
