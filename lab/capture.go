package lab

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Capture is a running packet capture of one interface, whole packets, into a file of the lab.
type Capture struct {
	File string
	lab  *Lab
	proc *Process
}

// snapshot holds every packet, and no more: in immediate mode each takes so much of the buffer, and tcpdump's own choice of 256 KiB left
// room for 64 of them.
const snapshot = "65535"

// Capture starts capturing an interface; packets sent after it returns are in the file. Packets that XDP redirects
// out of an interface are not seen there, only at the far end of the cable.
func (n *Namespace) Capture(link, filter string) *Capture {
	n.lab.Helper()
	file := filepath.Join(n.lab.Dir, fmt.Sprintf("%s-%s-%d.pcap", n.Name, link, time.Now().UnixNano()))
	args := []string{"-i", link, "-w", file, "-U", "--immediate-mode", "-n", "-Z", "root", "-s", snapshot, "-B", "65536"}
	if filter != "" {
		args = append(args, filter)
	}
	p := n.Start("tcpdump", args...)
	n.lab.must(p.Said("listening on", 5*time.Second), "start capture")
	return &Capture{File: file, lab: n.lab, proc: p}
}

// Stop ends the capture and fails the test if packets were missed.
func (c *Capture) Stop() {
	c.lab.Helper()
	_ = c.proc.Stop(syscall.SIGINT)
	if !strings.Contains(c.proc.Output(), "\n0 packets dropped by kernel") {
		c.lab.Fatalf("capture %s is not whole: %s", c.proc, c.proc.Tail(5))
	}
}

// AwaitPackets waits until the file holds at least so many packets that match a tshark display filter.
func (c *Capture) AwaitPackets(count int, filter string, limit time.Duration) {
	c.lab.Helper()
	c.lab.Until(limit, fmt.Sprintf("%d packets %q", count, filter), func() error {
		if got := len(c.Fields(filter, "frame.number")); got < count {
			return fmt.Errorf("%d so far", got)
		}
		return nil
	})
}

// Fields returns one row of field values for each packet that matches the display filter. A field that occurs
// several times in a packet (outer and inner) has its values joined by commas.
func (c *Capture) Fields(filter string, fields ...string) [][]string {
	c.lab.Helper()
	args := []string{"-T", "fields", "-E", "separator=/t"}
	for _, field := range fields {
		args = append(args, "-e", field)
	}
	var rows [][]string
	for line := range strings.Lines(c.Tshark(filter, args...)) {
		rows = append(rows, strings.Split(strings.TrimSuffix(line, "\n"), "\t"))
	}
	return rows
}

// Faults describes every packet in which tshark finds something malformed or a wrong checksum, outer or inner. Linux writes a
// checksum of 0 as 0xffff also for TCP (skb_checksum_help), which says the same in ones' complement, and tshark counts it as wrong: one
// segment in 65,536 of a host without offload. And it takes what a test sends for whatever protocol the ports suggest: malformed counts
// in headers, not in payload.
func (c *Capture) Faults() []string {
	c.lab.Helper()
	const headers = `(:|^)(eth|ethertype|vlan|arp|ip|ipv6|ipv6[.][a-z]+|udp|tcp|icmp|icmpv6|gre|vxlan|geneve|lisp-data|data)(:_ws[.]malformed)?$`
	const bad = `(_ws.malformed && frame.protocols matches "` + headers + `") || ip.checksum.status == "Bad" || udp.checksum.status == "Bad" || ` +
		`(tcp.checksum.status == "Bad" && tcp.checksum != 0xffff) || icmp.checksum.status == "Bad" || icmpv6.checksum.status == "Bad" || ` +
		`ip.len > 2000 || _ws.short`
	return strings.FieldsFunc(c.Tshark(bad), func(r rune) bool { return r == '\n' })
}

// Tshark reads the capture with every checksum verified and returns what tshark prints.
func (c *Capture) Tshark(filter string, args ...string) string {
	c.lab.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	full := []string{
		"-r", c.File, "-n",
		"-o", "ip.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE", "-o", "tcp.check_checksum:TRUE",
		"-o", "udp.ignore_ipv6_zero_checksum:FALSE",
	}
	if filter != "" {
		full = append(full, "-Y", filter)
	}
	cmd := exec.CommandContext(ctx, "tshark", append(full, args...)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	// A file that is still being written may end in the middle of a packet.
	if err := cmd.Run(); err != nil && !strings.Contains(errs.String(), "cut short") {
		c.lab.Fatalf("tshark: %v\n%s", err, errs.String())
	}
	return out.String()
}
