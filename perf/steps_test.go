package main

import (
	"os"
	"runtime"
	"strings"
	"testing"
)

func TestStepsAddUp(t *testing.T) {
	r := &Result{Steps: []steps{
		{"encap", map[string]float64{"parse.h": 10, "encap.h": 20, "dev_map_redirect": 5.25, "mtu.h": 0.25, "csum.h": -0.25}},
		{"decap", map[string]float64{"parse.h": 30, "mtu.h": 0.25}},
	}}
	var b strings.Builder
	r.writeSteps(&b)
	want := "| where | encap | decap |\n|---|---|---|\n| `parse.h` | 10.0 | 30.0 |\n| `encap.h` | 20.0 | 0.0 |\n| `dev_map_redirect` | 5.2 | 0.0 |\n" +
		"| elsewhere | 0.0 | 0.2 |\n| all | 35.2 | 30.2 |\n\n"
	if !strings.HasSuffix(b.String(), want) {
		t.Errorf("the table is\n%swant it to end in\n%s", b.String(), want)
	}
}

func TestPlaces(t *testing.T) {
	p := places{{0x1000, "parse.h"}, {0x1010, "decap.h"}, {0x2000, "schedule"}}
	for ip, want := range map[uint64]string{0xfff: "?", 0x1000: "parse.h", 0x100f: "parse.h", 0x1010: "decap.h", 0x2fff: "schedule"} {
		if got := p.of(ip); got != want {
			t.Errorf("%#x is in %s, want %s", ip, got, want)
		}
	}
}

// TestSampler has the clock find a thread that is in the kernel all the time.
func TestSampler(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	s, err := openSampler()
	if err != nil {
		t.Fatal(err)
	}
	var ips []uint64
	for len(ips) == 0 {
		if _, err := os.ReadFile("/proc/self/stat"); err != nil {
			t.Fatal(err)
		}
		ips = s.read()
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	for _, ip := range ips {
		if ip>>63 == 0 {
			t.Errorf("a sample at %#x is not in the kernel", ip)
		}
	}
}
