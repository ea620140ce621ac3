package main

import (
	"fmt"
	"strings"
	"unicode"
)

// lines writes every sample as a line of the Go benchmark format (golang.org/design/14313-benchmark-format), for benchstat: the
// samples of a row are its repetitions.
func (r *Result) lines() string {
	var b strings.Builder
	m := r.Machine
	fmt.Fprintf(&b, "cpu: %s\nkernel: %s\ncommit: %s\n", m.CPU, m.Kernel, m.Commit)
	for _, t := range r.Tests {
		for _, ns := range t.Samples {
			benchLine(&b, "Test/"+t.String(), ns, "ns/packet")
		}
	}
	for _, v := range r.Live {
		for _, ns := range v.Samples {
			benchLine(&b, "Live/"+v.What, ns, "ns/packet")
		}
	}
	for _, s := range r.System {
		for _, rate := range s.lossFree() {
			benchLine(&b, fmt.Sprintf("LossFree/%s/%s/%s", s.Forwarder, s.Frame, size(s.Hosts)), rate, "packets/s")
		}
	}
	if c := r.Control; c != nil {
		for _, l := range []struct {
			what string
			took []float64
		}{{"Import", c.Forwarded}, {"Restart", c.Restart}, {"ChangeIdle", c.Idle}, {"ChangeChurn", c.Churn}} {
			for _, seconds := range l.took {
				benchLine(&b, "Control/"+l.what, seconds*1e9, "ns/op")
			}
		}
	}
	return b.String()
}

// benchLine gives a row a name without spaces.
func benchLine(b *strings.Builder, name string, value float64, unit string) {
	name = strings.Map(func(c rune) rune {
		switch {
		case unicode.IsSpace(c):
			return '_'
		case c == ',' || c == '\'' || c == '`' || c == '-': // a "-8" at the end would be a number of processors
			return -1
		}
		return c
	}, name)
	fmt.Fprintf(b, "Benchmark%s 1 %.4g %s\n", name, value, unit)
}
