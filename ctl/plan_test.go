package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"roam/loader/api"
	"roam/loader/api/apitest"
	"roam/loader/route"
)

// deaf is a daemon beyond whose tunnels nobody answers, from one probe on.
type deaf struct {
	*apitest.Daemon
	answers int
}

func (d *deaf) Ping(ctx context.Context, r api.PingRequest) (api.Ping, error) {
	if d.answers--; d.answers < 0 {
		return api.Ping{Locator: r.Locator, Why: "nothing came back"}, nil
	}
	return d.Daemon.Ping(ctx, r)
}

// A wave that is not right is taken back: routes that were there before are again, the others are gone. The waves before it stay.
func TestPlanTakesBack(t *testing.T) {
	inner := daemon()
	for n := byte(10); n < 16; n++ {
		inner.Know("host", route.Claim{Key: route.KeyOf(1, netip.AddrFrom4([4]byte{10, 1, 0, n})), Local: &route.Local{Link: 1}, Site: "dc1"})
	}
	d := &deaf{Daemon: inner, answers: 1}
	backend := inner.Backend()
	backend.Operator = d
	socket := serveBackend(t, backend)
	if _, stderr, code := ctl(t, socket, "route add 10.1.0.14 --via 192.0.2.3 --pinned"); code != 0 {
		t.Fatal(stderr)
	}
	plan := filepath.Join(t.TempDir(), "plan.yaml")
	text := "- {hosts: [10.1.0.14, 10.1.0.15], to: dc2, wave: 2}\n- {hosts: [10.1.0.10, 10.1.0.11], to: dc2, wave: 1}\n"
	if err := os.WriteFile(plan, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	stdout, stderr, code := ctl(t, socket, "host move --plan "+plan+" --yes --wait 200ms")
	if code != 1 || !strings.Contains(stderr, "wave 2 of 2: not right within 200ms: dc2 at 192.0.2.2 does not answer a probe: nothing came back") {
		t.Errorf("status %d: %s", code, stderr)
	}
	if n := strings.Count(stdout, "rolled_back"); n != 2 || strings.Count(stdout, "moved") != 2 {
		t.Errorf("%d moves taken back:\n%s", n, stdout)
	}
	exported, _, _ := ctl(t, socket, "route export --format jsonl")
	got := strings.Count(exported, "192.0.2.2")
	if inner.Injected() != 3 || got != 2 || !strings.Contains(exported, "192.0.2.3") || !strings.Contains(exported, `"pinned":true`) {
		t.Errorf("injected:\n%s", exported)
	}

	// All of it can be taken back, and is only shown without --yes; then there is nothing left to take back.
	stdout, stderr, code = ctl(t, socket, "host move --undo --plan "+plan)
	if code != 0 || strings.Count(stdout, "ready") != 2 || !strings.Contains(stdout, "2 hosts; nothing was changed") || inner.Injected() != 3 {
		t.Errorf("status %d: %s\n%s", code, stderr, stdout)
	}
	stdout, stderr, code = ctl(t, socket, "host move --undo --yes --wait 100ms --plan "+plan)
	if code != 0 || strings.Count(stdout, "rolled_back") != 2 || !strings.Contains(stdout, "1 waves are taken back") || inner.Injected() != 1 {
		t.Errorf("status %d: %s\n%s", code, stderr, stdout)
	}
	stdout, stderr, code = ctl(t, socket, "host move --undo --yes --plan "+plan)
	if code != 0 || !strings.Contains(stdout, "nothing of this plan is left") {
		t.Errorf("status %d: %s\n%s", code, stderr, stdout)
	}

	// Given again, with one wave done, it goes on where it was broken off.
	d.answers = 1
	ctl(t, socket, "host move --plan "+plan+" --yes --wait 200ms")
	d.answers = 100
	stdout, stderr, code = ctl(t, socket, "host move --plan "+plan+" --yes --wait 2s")
	if code != 0 || strings.Count(stdout, "there") != 2 || strings.Count(stdout, "moved") != 2 {
		t.Errorf("status %d: %s\n%s", code, stderr, stdout)
	}

	// What has been moved on since is left alone; all else is as before the first wave, the last wave first.
	if _, stderr, code := ctl(t, socket, "route add 10.1.0.11 --via 192.0.2.3"); code != 0 {
		t.Fatal(stderr)
	}
	stdout, stderr, code = ctl(t, socket, "host move --undo --yes --wait 100ms --plan "+plan)
	lines := strings.Split(stdout, "\n")
	if code != 0 || strings.Count(stdout, "rolled_back") != 3 || strings.Count(stdout, "left") != 1 || len(lines) < 2 || !strings.HasPrefix(lines[1], "2 ") {
		t.Errorf("status %d: %s\n%s", code, stderr, stdout)
	}
	exported, _, _ = ctl(t, socket, "route export --format jsonl")
	if inner.Injected() != 2 || strings.Contains(exported, "192.0.2.2") || !strings.Contains(exported, `"pinned":true`) {
		t.Errorf("injected:\n%s", exported)
	}
}

// What gateways say of a move that are asked: a refusal blocks, and so do policies that differ.
func TestPlanAsks(t *testing.T) {
	a := netip.MustParseAddr("10.1.0.9")
	here, there := daemon(), daemon()
	there.OwnSite = "dc2"
	here.Verdicts = map[netip.Addr]api.MoveChecked{a: {Warnings: api.List[string]{"a word of caution"}, Egress: "0.0.0.0/0 by dc1"}}
	socket, other := serve(t, here), serve(t, there)
	plan := filepath.Join(t.TempDir(), "plan.yaml")
	if err := os.WriteFile(plan, []byte("- {hosts: [10.1.0.9], to: dc2}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		ask     string
		verdict api.MoveChecked
		code    int
		want    string
	}{
		{"", api.MoveChecked{Refused: "not heard"}, 0, "a word of caution"},
		{" --ask dc2=" + other, api.MoveChecked{Egress: "0.0.0.0/0 by dc1", Warnings: api.List[string]{"a word of caution", "another"}}, 0, "a word of caution; another\n"},
		{" --ask dc2=" + other, api.MoveChecked{Egress: "0.0.0.0/0 by dc1", Refused: "no room"}, 1, "dc2 says: no room"},
		{" --ask dc2=" + other, api.MoveChecked{}, 1, "its egress policy is 0.0.0.0/0 by dc1 here and local at dc2"},
		{" --ask dc3=" + other, api.MoveChecked{}, 0, "a word of caution"}, // nobody moves there
		{" --ask dc2=" + socket, api.MoveChecked{}, 2, "the gateway that is asked for dc2 is one of dc1"},
		{" --ask dc2", api.MoveChecked{}, 2, "no site and socket"},
	} {
		there.Verdicts = map[netip.Addr]api.MoveChecked{a: test.verdict}
		stdout, stderr, code := ctl(t, socket, "host move --plan "+plan+test.ask)
		if code != test.code || !strings.Contains(stdout+stderr, test.want) {
			t.Errorf("%s: status %d, want %q:\n%s%s", test.ask, code, test.want, stdout, stderr)
		}
	}
}

// What keeps a host from moving, one thing at a time.
func TestPlanObstacles(t *testing.T) {
	right := func() (*knowledge, *plannedMove) {
		up := api.SiteLocator{Address: netip.MustParseAddr("192.0.2.2"), State: "up", MTU: 1450}
		k := &knowledge{mtu: map[string]int{"lan0": 1500}, sites: map[string]api.Site{
			"dc1": {Name: "dc1", Own: true}, "dc2": {Name: "dc2", Locators: api.List[api.SiteLocator]{up}},
		}}
		h := &api.Host{
			Address: netip.MustParseAddr("10.1.0.7"), State: "here", Here: true, Site: "dc1", MAC: "02:00:00:00:00:07", Source: "host",
			Local: &api.Local{Interface: "lan0"},
		}
		return k, &plannedMove{Address: h.Address, From: "dc1", To: "dc2", State: moveReady, host: h}
	}
	for want, change := range map[string]func(k *knowledge, m *plannedMove){
		"ready [the tunnel carries 1450 bytes, its segment 1500]": func(*knowledge, *plannedMove) {},
		"ready []": func(k *knowledge, _ *plannedMove) { k.mtu["lan0"] = 1400 },
		"there []": func(_ *knowledge, m *plannedMove) { m.To = "dc1" },
		"blocked [this gateway is in shadow mode: it moves nobody]":                                  func(k *knowledge, _ *plannedMove) { k.shadow = true },
		"blocked [no site is named \"dc4\": roamctl site list]":                                      func(_ *knowledge, m *plannedMove) { m.To = "dc4" },
		"blocked [nobody knows this host: roamctl route get 10.1.0.7]":                               func(_ *knowledge, m *plannedMove) { m.host = nil },
		"blocked [no locator of dc2 answers: roamctl site list]":                                     func(k *knowledge, _ *plannedMove) { k.sites["dc2"].Locators[0].State = "down" },
		"blocked [it is sticky: file pins it where it is]":                                           func(_ *knowledge, m *plannedMove) { m.host.Pinned, m.host.Source = true, "file" },
		"blocked [no segment has it]":                                                                func(_ *knowledge, m *plannedMove) { m.here.Refused = "no segment has it" },
		"blocked [it is frozen: roamctl host clear 10.1.0.7]":                                        func(_ *knowledge, m *plannedMove) { m.host.State = "frozen" },
		"blocked [two stations claim it: roamctl host show 10.1.0.7]":                                func(_ *knowledge, m *plannedMove) { m.host.State = "conflict" },
		"blocked [what bgp says of it has sequence 3 and would win: it moves where it shows itself]": func(_ *knowledge, m *plannedMove) { m.host.Source, m.host.Sequence = "bgp", 3 },
	} {
		k, m := right()
		change(k, m)
		list := []plannedMove{*m}
		k.check(list)
		if got := fmt.Sprintf("%s %v", list[0].State, list[0].Notes); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	k, m := right()
	k.sites["dc2"].Locators[0].Probe = "silent"
	if k.obstacle(m) == "" {
		t.Error("a locator that is silent through the tunnel will do")
	}
}
