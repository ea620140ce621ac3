package main

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"roam/lab"
)

func measureScript() string { return filepath.Join(lab.Root(), "perf", "nic", "measure") }

// Whoever runs it wrongly is told how to run it.
func TestNICScriptRefuses(t *testing.T) {
	right := []string{"--tx", "lo", "--rx", "lo", "--mac", "02:00:00:00:00:01", "--to", "10.1.0.1", "--from", "10.1.0.2", "--generator", "given", "--check"}
	for _, c := range []struct {
		with []string
		want string
	}{
		{[]string{"--nonsense"}, "unknown option --nonsense"},
		{[]string{"--sizes"}, "--sizes needs a value"},
		{[]string{"--mac", "02:00"}, "02:00 is no MAC address"},
		{[]string{"--to", "somewhere"}, "somewhere is no IPv4 address"},
		{[]string{"--seconds", "soon"}, "soon is no number"},
		{[]string{"--sizes", "20"}, "20 is not between 64 and 9018"},
		{[]string{"--rx", "nothere0"}, "there is no interface nothere0"},
		{[]string{"--generator", "luck"}, "--generator luck: use"},
		{[]string{"--most", "many"}, "many is no number"},
	} {
		out, err := exec.Command(measureScript(), append(append([]string{}, right...), c.with...)...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), c.want) {
			t.Errorf("%q: %v, %s", c.with, err, out)
		}
	}
	if out, err := exec.Command(measureScript(), right...).CombinedOutput(); err != nil || !strings.Contains(string(out), "everything is there") {
		t.Errorf("all is right: %v, %s", err, out)
	}
}

// It counts what a generator sends that it does not know.
func TestNICScriptCounts(t *testing.T) {
	l := lab.New(t)
	gen, gw := l.Namespace("gen"), l.Namespace("gw")
	l.Cable(lab.End{In: gen, Name: "tx0"}, lab.End{In: gw, Name: "lan0"}, 1500, 1)
	l.Cable(lab.End{In: gen, Name: "rx0"}, lab.End{In: gw, Name: "wan0"}, 1500, 1)
	gw.Addresses("wan0", "192.0.2.1/24")
	gw.IP("neighbour add 192.0.2.2 lladdr " + gen.MAC("rx0") + " dev wan0")
	gw.Start("ping", "-q", "-i", "0.002", "192.0.2.2")
	out := gen.Run("unshare", "-m", "sh", "-c", `mount -t sysfs none /sys && exec "$0" "$@"`, measureScript(), "--tx", "tx0", "--rx", "rx0", "--mac", gw.MAC("lan0"), "--to", "10.1.0.1", "--from", "11.0.0.1",
		"--seconds", "1", "--sizes", "64", "--generator", "given")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if f := strings.Fields(lines[len(lines)-1]); len(f) != 4 || f[0] != "64" || f[3] == "0" {
		t.Errorf("no rate in\n%s", out)
	}
}

// Towards a real gateway, with a generator that runs here: what it offers comes out of the tunnel, and the gateway has counted as much.
func TestNICScriptMeasures(t *testing.T) {
	l := lab.New(t)
	bins, err := lab.Build(t.TempDir(), "nic")
	if err != nil {
		t.Fatal(err)
	}
	gen, g := l.Namespace("gen"), l.Gateway("gw", bins)
	l.Cable(lab.End{In: gen, Name: "tx0"}, lab.End{In: g.Namespace, Name: "lan0"}, 1500, 1)
	l.Cable(lab.End{In: gen, Name: "rx0"}, lab.End{In: g.Namespace, Name: "wan0"}, 1600, 1)
	g.Addresses("wan0", "192.0.2.1/24")
	g.IP("neighbour add 192.0.2.2 lladdr " + gen.MAC("rx0") + " dev wan0")
	g.Config.Site, g.Config.Access, g.Config.Underlay, g.Config.Locators = "dc1", "lan0", []string{"wan0"}, []string{"192.0.2.1"}
	g.Config.Subnets, g.Config.Shared, g.Config.Own = []string{"10.1.0.0/16"}, []string{"10.1.0.1"}, []string{"10.1.0.2"}
	g.Up()
	if out, err := g.Ctl("route", "add", "10.1.0.21/32", "--via", "192.0.2.2"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	before := g.Counters()
	out := gen.Run("unshare", "-m", "sh", "-c", `mount -t sysfs none /sys && exec "$0" "$@"`, measureScript(), "--tx", "tx0", "--rx", "rx0", "--mac", g.MAC("lan0"),
		"--to", "10.1.0.21", "--from", "10.1.0.11", "--generator", "trafgen", "--sizes", "64 1400", "--seconds", "1", "--most", "20000")
	t.Log(out)
	delivered := 0
	for _, size := range []string{"64", "1400"} {
		var lossFree string
		var offered, came int
		i := strings.Index(out, "\n"+size+" ")
		if i < 0 {
			t.Fatalf("nothing of %s bytes in\n%s", size, out)
		}
		if _, err := fmt.Sscan(out[i+len(size)+1:], &lossFree, &offered, &came); err != nil || offered == 0 || came == 0 || offered > 100_000 {
			t.Errorf("%s bytes: %v in\n%s", size, err, out)
		}
		delivered += came
	}
	const others = 1000 // frames that both ends of a cable have to say by themselves
	if sent := int(g.Counters().Since(before)["fwd_encap"]); sent < others || delivered > sent+others {
		t.Errorf("%d came out, and the gateway has sent %d into tunnels", delivered, sent)
	}
}
