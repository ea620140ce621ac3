package lab_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"roam/lab"
)

// awaitProgram waits until all ports of a gateway run the program of that name: "traced" while somebody traces, else "datapath".
func awaitProgram(s *lab.Sites, g *lab.Gateway, name string) {
	s.Helper()
	s.Until(20*time.Second, fmt.Sprintf("%s runs %s", g.Name, name), func() error {
		for _, port := range []string{"lan0", "wan0"} {
			if out := g.Run("ip", "-d", "link", "show", "dev", port); !regexp.MustCompile(`prog/xdp id \d+ name ` + name + ` `).MatchString(out) {
				return fmt.Errorf("%s runs another:\n%s", port, out)
			}
		}
		return nil
	})
}

// tracedPacket is a line of `roamctl trace --json`.
type tracedPacket struct {
	Reason, Verdict, Tenant, In, Out, Source, Destination, From, To string
	Lost                                                            uint64
	Length                                                          int
	LengthAfter                                                     int    `json:"length_after"`
	DestinationPort                                                 uint16 `json:"destination_port"`
	Protocol                                                        uint8
}

func trace(t *testing.T, g *lab.Gateway, args ...string) (list []tracedPacket) {
	t.Helper()
	out := g.MustCtl(append([]string{"trace", "--json"}, args...)...)
	for line := range strings.Lines(out) {
		var p tracedPacket
		if err := json.Unmarshal([]byte(line), &p); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		list = append(list, p)
	}
	return list
}

// TestTrace: what two gateways tell of a packet that is dropped and of a flow that is forwarded, as text, as JSON and as a capture; nothing is
// lost meanwhile, and nothing is left on, whoever dies.
func TestTrace(t *testing.T) {
	s := up(t, lab.Options{})
	h11, h12, h21 := s.H("h11"), s.H("h12"), s.H("h21")
	gw1, gw2 := s.GW[lab.DC1], s.GW[lab.DC2]
	reach(t, s, [2]*lab.Host{h11, h21}, [2]*lab.Host{h12, h21})
	list := flows(s, h11, h21, 400)

	t.Log("a packet that a route drops")
	gw1.MustCtl("route", "add", "10.9.0.77", "--via", "192.0.2.2,priority=255")
	cease := shoot(t, h12, "10.9.0.77")
	line := regexp.MustCompile(`(?m)^\d\d:\d\d:\d\d\.\d{6}  drop_blackhole +lan0 +default +10\.1\.0\.12:\d+ -> 10\.9\.0\.77:9 udp +46 bytes$`)
	if out := gw1.MustCtl("trace", "--host", "10.9.0.77", "--count", "5"); len(line.FindAllString(out, -1)) != 5 || strings.Count(out, "\n") != 5 {
		t.Errorf("five dropped packets:\n%s", out)
	}
	for _, p := range trace(t, gw1, "--reason", "drop", "--count", "3") {
		if p.Reason != "drop_blackhole" || p.Destination != "10.9.0.77" {
			t.Errorf("of drops alone: %+v", p)
		}
	}
	cease()

	t.Log("a flow that is forwarded")
	for i, ip := range h21.IPs() {
		for _, p := range trace(t, gw1, "--host", ip.String(), "--reason", "fwd_encap", "--count", "5", "--tenant", "default") {
			if p.Verdict != "forwarded" || p.In != "lan0" || p.Out != "wan0" || p.Source != h11.IPs()[i].String() || p.Destination != ip.String() ||
				p.To != "192.0.2.2" || p.LengthAfter != p.Length+50 || p.Protocol != 17 || p.DestinationPort == 0 {
				t.Errorf("into the tunnel: %+v", p)
			}
		}
		for _, p := range trace(t, gw2, "--locator", "192.0.2.1", "--reason", "fwd_deliver", "--host", ip.String(), "--count", "5") {
			if p.In != "wan0" || p.Out != "lan0" || p.Destination != ip.String() || p.From != "192.0.2.1" || p.LengthAfter != p.Length-50 {
				t.Errorf("out of the tunnel: %+v", p)
			}
		}
	}
	if got := trace(t, gw1, "--locator", "192.0.2.2", "--sample", "5", "--duration", "1s", "--host", h21.IP4.String()); len(got) < 10 || len(got) > 120 {
		t.Errorf("of 200 packets every fifth: %d", len(got))
	}
	if _, err := gw1.Ctl("trace", "--locator", "192.0.2.99"); err == nil || !strings.Contains(err.Error(), "no locator") {
		t.Errorf("a locator that nobody knows: %v", err)
	}
	if _, err := gw1.Ctl("trace", "--reason", "drop_all"); err == nil || !strings.Contains(err.Error(), `"drop_all" is no reason`) {
		t.Errorf("a reason that there is none: %v", err)
	}
	captured(t, gw1, h11, h21)

	t.Log("nothing is left on")
	awaitProgram(s, gw1, "datapath")
	watch := func() *lab.Process {
		p := gw1.Namespace.Start(gw1.Bins.Ctl, "--socket", gw1.Config.Socket, "capture", "-w", "/dev/null")
		awaitProgram(s, gw1, "traced")
		return p
	}
	watch().Kill()
	awaitProgram(s, gw1, "datapath")
	if err := watch().Stop(syscall.SIGINT); err != nil {
		t.Errorf("interrupted: %v", err)
	}
	awaitProgram(s, gw1, "datapath")
	watch()
	gw1.Daemon.Kill()
	awaitProgram(s, gw1, "traced") // nobody is there to put it right
	gw1.Start()
	gw1.AwaitReady()
	awaitProgram(s, gw1, "datapath")
	watch()
	gw1.Stop()
	gw1.Bins = newer
	gw1.Start()
	gw1.AwaitReady()
	awaitProgram(s, gw1, "datapath")
	lossless(t, s, list, 62, "while everything was traced")
}

// captured has tshark read a capture of a flow that enters the tunnel.
func captured(t *testing.T, g *lab.Gateway, from, to *lab.Host) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "packets.pcapng")
	g.MustCtl("capture", "-w", file, "--host", to.IP4.String(), "--reason", "fwd_encap", "--count", "4")
	if _, err := os.Stat(file); err != nil {
		t.Fatal(err)
	}
	out := g.Run("tshark", "-n", "-r", file, "-T", "fields", "-e", "frame.interface_name", "-e", "frame.comment", "-e", "vxlan.vni", "-e", "ip.src",
		"-e", "_ws.malformed")
	const what = "fwd_encap, in lan0, out wan0, tenant default, tunnel to 192.0.2.2"
	want := []string{
		fmt.Sprintf("lan0\tbefore: %s\t\t%s", what, from.IP4),
		fmt.Sprintf("wan0\tafter: %s\t%d\t192.0.2.1,%s", what, g.Config.VNI, from.IP4),
	}
	var got []string
	for line := range strings.Lines(out) {
		if strings.Contains(line, "fwd_") {
			got = append(got, strings.TrimRight(line, "\t\n"))
		}
	}
	if !slices.Equal(got, slices.Repeat(want, 4)) {
		t.Errorf("tshark reads\n%s\nwant four times %q", out, want)
	}
}
