package main

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const (
	ebpfLib    = "github.com/cilium/ebpf"
	netlinkLib = "github.com/vishvananda/netlink"
	promLib    = "github.com/prometheus/client_golang"
	charmLib   = "charm.land"
	cliLib     = "github.com/urfave/cli"
	bgpLib     = "github.com/osrg/gobgp/v4"
)

// ours says which packages of this module each package may import. A package that is not listed may import any.
var ours = map[string][]string{
	"roam/maps":          {},
	"roam/maps/bench":    {},
	"roam/maps/hammer":   {},
	"roam/loader/route":  {},
	"roam/loader/config": {"roam/loader/route"},
	"roam/loader/rib":    {"roam/loader/route"},
	"roam/loader/host":   {"roam/loader/route"},
	"roam/loader/due":    {},
	"roam/loader/hook":   {"roam/loader/due", "roam/loader/route"},
	"roam/loader/keep":   {},
	"roam/loader/lan":    {"roam/loader/route"},

	"roam/loader/designate": {"roam/loader/ether", "roam/loader/keep", "roam/loader/route"},

	"roam/loader/mld":      {"roam/loader/ether", "roam/loader/keep", "roam/loader/route"},
	"roam/loader/radv":     {"roam/loader/ether", "roam/loader/keep", "roam/loader/route"},
	"roam/loader/ether":    {},
	"roam/loader/event":    {},
	"roam/loader/feed":     {"roam/loader/route"},
	"roam/loader/bfd":      {"roam/loader/standing"},
	"roam/loader/probe":    {"roam/loader/due", "roam/loader/standing"},
	"roam/loader/standing": {},
	"roam/loader/affinity": {},
	"roam/loader/tidy":     {},
	"roam/loader/api":      {"roam/loader/route", "roam/loader/event", "roam/loader/tidy"},

	"roam/loader/source/file": {"roam/loader/route"},
	"roam/loader/source/fib":  {"roam/loader/route"},
	"roam/loader/source/api":  {"roam/loader/route", "roam/loader/api", "roam/loader/tidy"},
	"roam/loader/source/bgp":  {"roam/loader/route", "roam/loader/tidy"},

	"roam/loader/source/fabric": {"roam/loader/route"},

	"roam/loader/datapath": {"roam/maps", "roam/loader/route"},
	"roam/loader/metrics":  {"roam/maps", "roam/loader/route"},
	"roam/ctl":             {"roam/maps", "roam/loader/api", "roam/loader/event", "roam/loader/route"},
}

// libraries says which packages may import a library, and why nobody else.
var libraries = []struct {
	library, why string
	allowed      []string
}{
	{ebpfLib, "C and its maps are known in one place", []string{
		"roam/maps", "roam/maps/bench", "roam/maps/hammer", "roam/loader/datapath", "roam/bpf/test", "roam/perf",
	}},
	{netlinkLib, "the kernel is followed by sources and set by the data path", []string{
		"roam/loader/source/fib", "roam/loader/host", "roam/loader/datapath", "roam/perf", "roam/lab", "roam/lab/demo",
	}},
	{promLib, "metrics are one reader among others", []string{"roam/loader/metrics", "roam/loader"}},
	{charmLib, "a screen is one command's affair", []string{"roam/ctl"}},
	{cliLib, "commands are thin", []string{"roam/loader", "roam/ctl"}},
	{bgpLib, "what a route means on the wire is decided in one place", []string{
		"roam/loader/source/bgp", "roam/loader/source/bgp/bgptest",
	}},
}

// Imports are rules, not habits: C is known only to maps, and everything meets in the RIB. See docs/architecture.md.
func TestImports(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, "roam/...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		pkg, imports := fields[0], fields[1:]
		checkOurs(t, pkg, imports)
		for _, rule := range libraries {
			if slices.Contains(rule.allowed, pkg) {
				continue
			}
			for _, i := range imports {
				if i == rule.library || strings.HasPrefix(i, rule.library+"/") {
					t.Errorf("%s imports %s, which only %v may: %s", pkg, i, rule.allowed, rule.why)
				}
			}
		}
	}
}

func checkOurs(t *testing.T, pkg string, imports []string) {
	t.Helper()
	allowed, ruled := ours[pkg]
	for _, i := range imports {
		if ruled && strings.HasPrefix(i, "roam/") && !slices.Contains(allowed, i) {
			t.Errorf("%s imports %s; of ours it may import only %v", pkg, i, allowed)
		}
	}
}
