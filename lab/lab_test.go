package lab_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"roam/lab"
)

// wire is the smallest lab: two hosts on a switch with two bridges.
//
//	a eth0 --- a|left          b|left or b|right --- eth0 b
//	               (switch)
func wire(t *testing.T) (l *lab.Lab, a, b, sw *lab.Namespace) {
	l = lab.New(t)
	sw = l.Namespace("switch")
	sw.Bridge("left", 1500)
	sw.Bridge("right", 1500)
	hosts := map[string]*lab.Namespace{}
	for i, name := range []string{"a", "b"} {
		h := l.Namespace(name)
		l.Cable(lab.End{In: h, Name: "eth0"}, lab.End{In: sw, Name: name, Bridge: "left"}, 1500, 1)
		h.Addresses("eth0", fmt.Sprintf("10.9.0.%d/24", i+1), fmt.Sprintf("2001:db8:9::%d/64", i+1))
		hosts[name] = h
	}
	// Neighbours are resolved before anything is counted: on a busy machine that takes longer than a queue holds.
	for _, ip := range []netip.Addr{b4, b6} {
		hosts["a"].Run("ping", "-n", "-c", "1", "-w", "10", ip.String())
	}
	return l, hosts["a"], hosts["b"], sw
}

var (
	b4 = netip.MustParseAddr("10.9.0.2")
	b6 = netip.MustParseAddr("2001:db8:9::2")
)

// dropEvery has a namespace lose every nth UDP datagram, and sometimes all. Without it nobody knows whether the
// books would notice.
func dropEvery(n *lab.Namespace, nth int) {
	n.Run("nft", "add table inet t; add chain inet t c { type filter hook prerouting priority 0; }; "+
		fmt.Sprintf("add rule inet t c meta l4proto udp numgen inc mod %d == 0 drop", nth))
}

func TestFlowCountsWhatArrives(t *testing.T) {
	for _, dst := range []netip.Addr{b4, b6} {
		l, a, b, _ := wire(t)
		f := l.Flow(a, netip.Addr{}, b, dst, 2000, 100)
		f.AwaitArrivals(500, 5*time.Second)
		r := f.Stop()
		if !r.Perfect() || r.TTL != [2]int{64, 64} {
			t.Errorf("to %s over a quiet switch: %v, TTL %v", dst, r, r.TTL)
		}
		l.Close()
	}
}

func TestFlowSeesLoss(t *testing.T) {
	for _, dst := range []netip.Addr{b4, b6} {
		l, a, b, _ := wire(t)
		dropEvery(b, 10)
		f := l.Flow(a, netip.Addr{}, b, dst, 2000, 100)
		f.AwaitArrivals(500, 5*time.Second)
		r := f.Stop()
		if share := float64(r.Lost()) / float64(r.Sent); share < 0.08 || share > 0.12 || len(r.Missing) != r.Lost() {
			t.Errorf("to %s with every tenth packet dropped: %v", dst, r)
		}
		l.Close()
	}
}

func TestFlowSeesGap(t *testing.T) {
	l, a, b, sw := wire(t)
	f := l.Flow(a, netip.Addr{}, b, b4, 1000, 100)
	f.AwaitArrivals(200, 5*time.Second)
	sw.Plug("b", "right")
	start, sent := time.Now(), f.Sent()
	l.Until(5*time.Second, "send into the void", func() error {
		if f.Sent() < sent+100 {
			return fmt.Errorf("%d sent", f.Sent()-sent)
		}
		return nil
	})
	sw.Plug("b", "left")
	away := time.Since(start)
	f.AwaitArrivals(200, 5*time.Second)
	r := f.Stop()
	if r.Lost() < 90 || r.Gap < 90*time.Millisecond || r.Gap > away+time.Second {
		t.Errorf("unplugged for %v: %v", away, r)
	}
}

func TestEcho(t *testing.T) {
	l, a, b, sw := wire(t)
	for _, dst := range []netip.Addr{b4, b6} {
		e := l.Echo(a, dst, 2*time.Millisecond)
		e.AwaitReplies(100, 5*time.Second)
		if r := e.Stop(); !r.Perfect() {
			t.Errorf("%s: %v", e, r)
		}
	}
	_ = b
	e := l.Echo(a, b6, 2*time.Millisecond)
	e.AwaitReplies(50, 5*time.Second)
	sw.Plug("b", "right")
	if r := e.Stop(); r.Lost() > 5 {
		t.Errorf("replies that were under way do not count as lost: %v", r)
	}
	e = l.Echo(a, b6, 2*time.Millisecond)
	time.AfterFunc(100*time.Millisecond, func() { sw.Plug("b", "left") })
	e.AwaitReplies(50, 5*time.Second)
	if r := e.Stop(); r.Lost() < 20 {
		t.Errorf("100 ms without a path cost only %d requests: %v", r.Lost(), r)
	}
}

func TestStreamSurvivesReplug(t *testing.T) {
	l, a, b, sw := wire(t)
	s := l.Stream(a, b, b4, 2<<20)
	f := l.Flow(a, netip.Addr{}, b, b4, 1000, 100)
	f.AwaitArrivals(200, 5*time.Second)
	sw.Plug("a", "right")
	sent := f.Sent()
	l.Until(5*time.Second, "send on", func() error {
		if f.Sent() < sent+50 {
			return fmt.Errorf("%d", f.Sent()-sent)
		}
		return nil
	})
	sw.Plug("b", "right")
	f.AwaitArrivals(500, 5*time.Second)
	if r := s.Stop(); !r.Whole || r.Stall < 40*time.Millisecond || r.Retransmits == 0 {
		t.Errorf("stream over an outage of 50 ms: %v", r)
	}
	if r := f.Stop(); r.Lost() < 40 {
		t.Errorf("flow over the same outage: %v", r)
	}
}

// TestCapture looks at kernel VXLAN: outer and inner checksums, and that a broken one is found.
func TestCapture(t *testing.T) {
	_, a, b, sw := wire(t)
	a.VXLAN("vx0", 7, "10.9.0.1", "02:00:00:00:00:0a")
	b.VXLAN("vx0", 7, "10.9.0.2", "02:00:00:00:00:0b")
	a.IP("addr add 10.8.0.1/24 dev vx0", "neigh add 10.8.0.2 lladdr 02:00:00:00:00:0b dev vx0")
	b.IP("addr add 10.8.0.2/24 dev vx0", "neigh add 10.8.0.1 lladdr 02:00:00:00:00:0a dev vx0")
	a.Run("bridge", "fdb", "append", "02:00:00:00:00:0b", "dev", "vx0", "dst", "10.9.0.2")
	b.Run("bridge", "fdb", "append", "02:00:00:00:00:0a", "dev", "vx0", "dst", "10.9.0.1")
	c := sw.Capture("a", "udp")
	a.Run("ping", "-c", "3", "-i", "0.01", "-W", "1", "10.8.0.2")
	c.AwaitPackets(6, "vxlan && icmp", 5*time.Second)
	c.Stop()
	if faults := c.Faults(); len(faults) > 0 {
		t.Errorf("kernel VXLAN looks broken: %q", faults)
	}
	rows := c.Fields("vxlan && icmp.type == 8", "ip.src", "vxlan.vni", "udp.dstport")
	if len(rows) != 3 || rows[0][0] != "10.9.0.1,10.8.0.1" || rows[0][1] != "7" || rows[0][2] != "4789" {
		t.Errorf("decoded %q", rows)
	}
	corrupt(t, c.File)
	if faults := c.Faults(); len(faults) == 0 {
		t.Error("a flipped bit in an inner packet was not found")
	}
}

// corrupt flips a bit near the end of a capture file: in the payload of its last packet.
func corrupt(t *testing.T, file string) {
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)-3] ^= 1
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestProcess(t *testing.T) {
	l := lab.New(t)
	n := l.Namespace("n")
	p := n.Start("sh", "-c", "echo ready; exec sleep 60")
	if err := p.Said("ready", 5*time.Second); err != nil {
		t.Fatal(err)
	}
	if err := p.Said("never", 10*time.Millisecond); err == nil {
		t.Error("heard what was not said")
	}
	if err := p.Wait(10 * time.Millisecond); err == nil || !p.Running() {
		t.Errorf("Wait returned %v", err)
	}
	l.Close()
	if p.Running() {
		t.Error("alive after Close")
	}
	p = lab.New(t).Namespace("n").Start("sh", "-c", "echo broken >&2; exit 3")
	if err := p.Said("ready", 5*time.Second); err == nil || !strings.Contains(err.Error(), "broken") {
		t.Errorf("a process that ended early: %v", err)
	}
}

// TestLeavesNothing runs a helper process that dies in several ways with a lab open.
func TestLeavesNothing(t *testing.T) {
	for _, how := range []string{"return", "fail", "panic", "interrupt", "kill"} {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestHelper$", "-test.v")
		cmd.Env = append(os.Environ(), "ROAM_LAB_DIES="+how)
		out, err := cmd.CombinedOutput()
		cancel()
		if (err == nil) != (how == "return") {
			t.Errorf("%s: helper ended with %v\n%s", how, err, out)
		}
		pid := cmd.Process.Pid
		if how == "kill" { // nobody could clean up: the next lab does
			if len(lab.Leftovers(pid)) == 0 {
				t.Fatal("kill left nothing: this test proves nothing")
			}
			again := exec.Command(os.Args[0], "-test.run=^TestHelper$")
			again.Env = append(os.Environ(), "ROAM_LAB_DIES=return")
			if out, err := again.CombinedOutput(); err != nil {
				t.Fatalf("sweep: %v\n%s", err, out)
			}
		}
		if left := lab.Leftovers(pid); len(left) > 0 {
			t.Errorf("%s: left behind %q", how, left)
		}
		var child int
		if _, err := fmt.Sscanf(string(out[strings.Index(string(out), "child="):]), "child=%d", &child); err != nil {
			t.Fatalf("%s: no child in output: %s", how, out)
		}
		if cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", child)); strings.Contains(string(cmdline), "86399") {
			t.Errorf("%s: its child %d lives", how, child)
		}
	}
}

// TestHelper is not a test of its own: TestLeavesNothing runs it in another process.
func TestHelper(t *testing.T) {
	how := os.Getenv("ROAM_LAB_DIES")
	if how == "" {
		return
	}
	l := lab.New(t)
	n := l.Namespace("n")
	l.BPFFS("pins")
	fmt.Printf("child=%d\n", n.Start("sleep", "86399").PID())
	self, _ := os.FindProcess(os.Getpid())
	switch how {
	case "fail":
		t.Fatal("on purpose")
	case "panic":
		panic("on purpose")
	case "interrupt":
		_ = self.Signal(os.Interrupt)
		select {}
	case "kill":
		_ = self.Kill()
		select {}
	}
}
