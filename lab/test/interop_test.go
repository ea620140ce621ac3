package lab_test

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"roam/lab"
)

// TestInterop has the Linux kernel's own VXLAN device as the far end: what we send must be right for others, and
// what others send must be right for us.
func TestInterop(t *testing.T) {
	t.Parallel()
	for _, underlay6 := range []bool{false, true} {
		t.Run(fmt.Sprintf("underlay6=%v", underlay6), func(t *testing.T) {
			s := up(t, lab.Options{KernelFar: true, Underlay6: underlay6})
			h11, h12, h21, h22 := s.H("h11"), s.H("h12"), s.H("h21"), s.H("h22")
			reach(t, s, [2]*lab.Host{h11, h21}, [2]*lab.Host{h21, h11}, [2]*lab.Host{h12, h22}, [2]*lab.Host{h22, h12})

			c := s.Switch.Capture("gw1-wan", "udp port 4789")
			list := flows(s, h11, h21, 400)
			for _, size := range []int{0, 1, 1400, 1452} { // 1452 fills the MTU with IPv6
				for i := range 2 {
					list = append(list, s.Flow(h12.Namespace, h12.IPs()[i], h22.Namespace, h22.IPs()[i], 100, size))
				}
			}
			progress(list, 30)
			lossless(t, s, list, 62, "kernel far end")
			for i := range 2 { // paced, so that the capture holds them whole
				iperf(t, s, h11, h21, i, "-t", "1", "-b", "4M")
				iperf(t, s, h11, h21, i, "-t", "1", "-b", "4M", "-R")
			}
			c.Stop()
			checkWire(t, c, underlay6)

			for i := range 2 {
				for _, direction := range []string{"", "-R"} {
					args := append([]string{"-t", "1"}, strings.Fields(direction)...)
					rate := iperf(t, s, h11, h21, i, args...)
					t.Logf("iperf3 %s %s: %.0f Mbit/s", h21.IPs()[i], direction, rate/1e6)
				}
			}
			if dropped := s.GW[lab.DC1].Counters().Dropped(); dropped != 0 {
				t.Errorf("gw1 dropped %d packets: %v", dropped, s.GW[lab.DC1].Counters())
			}
		})
	}
}

// iperf runs a TCP transfer from one host to another (or back, with -R) and returns bits per second as received.
func iperf(t *testing.T, s *lab.Sites, from, to *lab.Host, family int, args ...string) float64 {
	t.Helper()
	ip := to.IPs()[family].String()
	server := to.Start("iperf3", "-s", "-1", "-B", ip, "--forceflush")
	if err := server.Said("Server listening", 5*time.Second); err != nil {
		t.Fatal(err)
	}
	out := from.Run("iperf3", append([]string{"-c", ip, "-J", "--connect-timeout", "3000"}, args...)...)
	if err := server.Wait(10 * time.Second); err != nil {
		t.Fatal(err)
	}
	var report struct {
		End struct {
			Received struct {
				Bytes float64 `json:"bytes"`
				Rate  float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		} `json:"end"`
	}
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		t.Fatalf("iperf3 to %s: %v\n%s", ip, err, out)
	}
	if report.End.Received.Bytes < 100e3 {
		t.Errorf("iperf3 %v to %s: only %.0f bytes arrived\n%s", args, ip, report.End.Received.Bytes, state(s))
	}
	return report.End.Received.Rate
}

// checkWire reads a capture of the underlay: nothing malformed, no wrong checksum, and every header field of our
// own packets as the rules of tunnels want it.
func checkWire(t *testing.T, c *lab.Capture, underlay6 bool) {
	t.Helper()
	if faults := c.Faults(); len(faults) > 0 {
		t.Errorf("%d broken packets, such as %q", len(faults), faults[:min(5, len(faults))])
	}
	ours, ttl := "ip.src == 192.0.2.1", "ip.ttl"
	if underlay6 {
		ours, ttl = "ipv6.src == 2001:db8:ff::1", "ipv6.hlim"
	}
	rows := c.Fields("vxlan && "+ours, "udp.checksum", "udp.srcport", ttl, "ip.flags.df", "vxlan.vni", "eth.dst",
		"vxlan.flags", "ip.id", "udp.dstport")
	if len(rows) < 500 {
		t.Fatalf("only %d of our packets on the wire", len(rows))
	}
	ports := map[string]bool{}
	for _, row := range rows {
		var outer []string
		for _, field := range row {
			outer = append(outer, strings.Split(field, ",")[0])
		}
		if zero := outer[0] == "0x0000"; zero == underlay6 {
			t.Fatalf("outer UDP checksum %s", outer[0])
		}
		port, _ := strconv.Atoi(outer[1])
		if port < 49152 {
			t.Fatalf("outer source port %d is no dynamic port (RFC 7348 section 5)", port)
		}
		ports[outer[1]] = true
		if outer[2] != "64" || outer[4] != "7001" || outer[8] != "4789" || !strings.HasSuffix(row[5], ",02:00:00:00:00:02") {
			t.Fatalf("outer TTL %s, VNI %s, port %s, MACs %s", outer[2], outer[4], outer[8], row[5])
		}
		if !underlay6 && outer[3] != "1" {
			t.Fatalf("outer DF %q", outer[3])
		}
	}
	if len(ports) < 4 {
		t.Errorf("%d different outer source ports for more than a dozen flows: %v", len(ports), ports)
	}
}
