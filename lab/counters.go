package lab

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Counters are a gateway's packets by reason, over all of its ports. They come through roamctl, as an operator sees
// them.
type Counters map[string]uint64

// Counters reads the gateway's counters.
func (g *Gateway) Counters() Counters {
	g.lab.Helper()
	var answer struct {
		Reasons []struct {
			Reason  string `json:"reason"`
			Packets uint64 `json:"packets"`
		} `json:"reasons"`
	}
	g.JSON(&answer, "counters")
	c := Counters{}
	for _, r := range answer.Reasons {
		c[r.Reason] += r.Packets
	}
	return c
}

// Since returns what has been counted since an earlier reading.
func (c Counters) Since(earlier Counters) Counters {
	moved := Counters{}
	for reason, packets := range c {
		if packets != earlier[reason] {
			moved[reason] = packets - earlier[reason]
		}
	}
	return moved
}

// Dropped is the sum of all drops.
func (c Counters) Dropped() (packets uint64) {
	for reason, n := range c {
		if strings.HasPrefix(reason, "drop") || strings.HasPrefix(reason, "DROP") {
			packets += n
		}
	}
	return packets
}

func (c Counters) String() string {
	var parts []string
	for reason, packets := range c {
		parts = append(parts, fmt.Sprintf("%s %d", reason, packets))
	}
	slices.Sort(parts)
	return strings.Join(parts, ", ")
}

// CPU is how long the daemon has run on a processor so far. Unlike the time of day it does not depend on what else the
// machine does.
func (g *Gateway) CPU() time.Duration {
	g.lab.Helper()
	spent, err := CPU(g.Daemon.PID())
	g.lab.must(err, "read the daemon's times")
	return spent
}

// CPU is how long a process has run on a processor so far.
func CPU(pid int) (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The fields after the name, which is in parentheses and may hold anything: state is the third of all.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	var ticks time.Duration
	for _, field := range fields[11:13] { // utime, stime
		n, err := strconv.Atoi(field)
		if err != nil {
			return 0, err
		}
		ticks += time.Duration(n)
	}
	const perSecond = 100 // USER_HZ, the same everywhere
	return ticks * time.Second / perSecond, nil
}

// Memory is what a daemon costs: anonymous memory of the process (RssAnon), and memory of the BPF maps it holds, in
// bytes.
func (g *Gateway) Memory() (anonymous, maps int) {
	g.lab.Helper()
	pid := g.Daemon.PID()
	anonymous = Anonymous(pid)
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fdinfo", pid))
	g.lab.must(err, "list the daemon's files")
	seen := map[int]bool{}
	for _, file := range files {
		info, _ := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%s", pid, file.Name()))
		id, size, isMap := 0, 0, false
		for line := range strings.Lines(string(info)) {
			isMap = isMap || strings.HasPrefix(line, "map_type:")
			_, _ = fmt.Sscanf(line, "map_id: %d", &id)
			_, _ = fmt.Sscanf(line, "memlock: %d", &size)
		}
		if isMap && !seen[id] {
			seen[id] = true
			maps += size
		}
	}
	return anonymous, maps
}

// Anonymous is the anonymous memory of a process in bytes, 0 where it has ended.
func Anonymous(pid int) (bytes int) {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(status)) {
		if n := 0; strings.HasPrefix(line, "RssAnon:") {
			_, _ = fmt.Sscanf(line, "RssAnon: %d kB", &n)
			bytes = n << 10
		}
	}
	return bytes
}
