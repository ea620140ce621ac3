package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"

	"roam/loader/api"
	"roam/loader/api/apitest"
	"roam/loader/route"
)

func TestMain(m *testing.M) {
	testscript.Main(leakCheck{m}, map[string]func(){"roamctl": main})
}

// leakCheck fails a run that leaves goroutines behind.
type leakCheck struct{ *testing.M }

func (l leakCheck) Run() int {
	code := l.M.Run()
	if err := goleak.Find(); code == 0 && err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// daemon is what the commands of a test talk to.
func daemon() *apitest.Daemon {
	d := &apitest.Daemon{Checks: api.List[api.Check]{
		{Name: "mtu", Subject: "wan0", Level: api.LevelOK, Found: "2000"},
		{Name: "driver", Subject: "lan0", Level: api.LevelFail, Found: "virtio_net without queues", Advice: "give it two queues"},
	}}
	d.Know("host", route.Claim{
		Key: route.KeyOf(1, netip.MustParseAddr("10.1.0.9")), Local: &route.Local{Link: 1},
		MAC: route.MAC{2, 0, 0, 0, 0, 9}, Site: "dc1",
	})
	return d
}

// serve runs the daemon's socket and returns it.
func serve(tb testing.TB, d *apitest.Daemon) string {
	tb.Helper()
	return serveBackend(tb, d.Backend())
}

func serveBackend(tb testing.TB, backend api.Backend) string {
	tb.Helper()
	dir, err := os.MkdirTemp("", "roam")
	if err != nil {
		tb.Fatal(err)
	}
	s := api.NewServer(filepath.Join(dir, "s"), backend, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	tb.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			tb.Error(err)
		}
		os.RemoveAll(dir)
	})
	<-s.Ready()
	return filepath.Join(dir, "s")
}

// Every script talks to a fresh daemon.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			e.Setenv("ROAM_SOCKET", serve(e.T().(testing.TB), daemon()))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"status": exitStatus},
	})
}

// exitStatus runs roamctl and checks its exit status: status N ARGUMENTS...
func exitStatus(ts *testscript.TestScript, _ bool, args []string) {
	err := ts.Exec("roamctl", args[1:]...)
	if got := fmt.Sprint(err); got != "exit status "+args[0] && !(args[0] == "0" && err == nil) {
		ts.Fatalf("roamctl %s: %s, want %s", strings.Join(args[1:], " "), got, args[0])
	}
}

// ctl runs a command line in this process.
func ctl(t *testing.T, socket, line string) (stdout, stderr string, code int) {
	t.Helper()
	var out, err bytes.Buffer
	args := append([]string{"roamctl", "--socket", socket}, strings.Fields(line)...)
	code = run(t.Context(), args, strings.NewReader(""), &out, &err)
	return out.String(), err.String(), code
}

func TestWrongCommandLines(t *testing.T) {
	socket := serve(t, daemon())
	dir := t.TempDir()
	for name, data := range map[string]string{
		"bad.csv": "10.1.0.1/32,,192.0.2.2\n10.1.0.2/32,,gw2\n", "text.hex": "hello", "short.hex": "0102",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		line string
		code int
		want string
	}{
		{"", 2, "roamctl needs a command\n  one of: status, route, host, site, gateway, session, ping, counters, top, events, trace, capture, explain, doctor, shadow, reload, completion"},
		{"rout", 2, "\"rout\" is no command of roamctl\n  one of: status, route, host, site, gateway, session, ping, counters, top, events, trace, capture, explain, doctor, shadow, reload, completion"},
		{"route", 2, "roamctl route needs a command\n  one of: add, del, flush, list, get, watch, import, export"},
		{"route ad 10.1.0.7", 2, "\"ad\" is no command of roamctl route\n  one of: add, del, flush, list, get, watch, import, export"},
		{"status now", 2, "status takes no argument: \"now\" is one too many\n  usage: roamctl status"},
		{"status --vlan 3", 2, "roamctl status takes no flag --vlan\n  known are: --socket, --pin, --output, --help"},
		{"status -o xml", 2, "output \"xml\" is unknown\n  use -o table or -o json"},
		{"status -o", 2, "flag -o needs a value\n  see roamctl status --help"},
		{"--socket", 2, "flag --socket needs a value\n  see roamctl --help"},
		{"route add", 2, "PREFIX is missing\n  usage: roamctl route add PREFIX"},
		{"route add 10.1.0.7", 2, "10.1.0.7/32 points nowhere\n  give --via LOCATOR, or --site NAME"},
		{"route add 10.1.0.7 --via", 2, "flag --via needs a value\n  see roamctl route add --help"},
		{"route add 10.1.0.7 10.1.0.8 --via 192.0.2.2", 2, "\"10.1.0.8\" is one argument too many\n  usage: roamctl route add PREFIX"},
		{"route add 10.1.0.7/24 --via 192.0.2.2", 2, "10.1.0.7/24 has bits set to the right of its length: write 10.1.0.0/24"},
		{"route add 10.1.0.300 --via 192.0.2.2", 2, "\"10.1.0.300\" is no prefix such as 10.1.0.7/32, 10.2.0.0/16 or 2001:db8:1::7/128"},
		{"route add 10.1.0.7 --via gw2", 2, "locator \"gw2\": \"gw2\" is no address\n  write it like 192.0.2.2,encap=vxlan,priority=1,weight=100"},
		{"route add 10.1.0.7 --via 192.0.2.2,encap=mpls", 2, "locator \"192.0.2.2,encap=mpls\": unknown encapsulation \"mpls\": use one of vxlan, vxlan-gpe, geneve, gre, ipip, gue, lisp, geneve-l2, gre-nokey\n  write it like 192.0.2.2,encap=vxlan,priority=1,weight=100"},
		{"route add 10.1.0.7 --via 192.0.2.2,weight=300", 2, "locator \"192.0.2.2,weight=300\": \"300\" is no number from 0 to 255\n  write it like 192.0.2.2,encap=vxlan,priority=1,weight=100"},
		{"route add 10.1.0.7 --via 192.0.2.2,wieght=1", 2, "locator \"192.0.2.2,wieght=1\": \"wieght\" is unknown: use encap, priority, weight or router_mac\n  write it like 192.0.2.2,encap=vxlan,priority=1,weight=100"},
		{"route add 10.1.0.7 --via 192.0.2.2,encap", 2, "locator \"192.0.2.2,encap\": \"encap\" is not NAME=VALUE\n  write it like 192.0.2.2,encap=vxlan,priority=1,weight=100"},
		{"route add 10.1.0.7 --via 192.0.2.2 --site dc2", 2, "both --via and --site say where 10.1.0.7/32 points to\n  give one of them"},
		{"route add 10.1.0.7 --via 192.0.2.2 --via 192.0.2.2", 1, "locator 192.0.2.2 is given twice"},
		{"route add 10.1.0.7 --via 192.0.2.2 --mac 1", 2, "\"1\" is not a MAC address such as 02:00:00:00:00:01"},
		{"route add 10.1.0.7 --via 192.0.2.2 --tenant red", 1, "no tenant is named \"red\"\n  roamctl status lists the tenants; add it to the configuration and reload"},
		{"route add 10.1.0.7 --site dc9", 1, "no site is named \"dc9\"\n  roamctl site list shows the configured sites"},
		{"route del 10.1.0.9", 1, "10.1.0.9/32 was not injected\n  roamctl route get shows who says so"},
		{"route list 10.1.0.9", 2, "list takes no argument: \"10.1.0.9\" is one too many\n  usage: roamctl route list"},
		{"route list --within 10", 2, "--within: \"10\" is no prefix such as 10.1.0.7/32, 10.2.0.0/16 or 2001:db8:1::7/128"},
		{"host move 10.1.0.21 --to dc1 --undo", 2, "--undo is of a plan\n  name it with --plan FILE; a host alone is moved back by --to SITE"},
		{"route get", 2, "ADDRESS is missing\n  usage: roamctl route get ADDRESS"},
		{"route get 10.1.0.9/32", 2, "\"10.1.0.9/32\" is no address\n  write one such as 10.1.0.7 or 2001:db8:1::7"},
		{"route get 10.1.0.8", 1, "no route covers 10.1.0.8 in tenant default\n  roamctl route list shows what is known; the kernel's own routes decide"},
		{"route import", 2, "FILE is missing\n  usage: roamctl route import FILE"},
		{"route import " + dir + "/none", 1, "import routes: open " + dir + "/none: no such file or directory\n  name a file that can be read, or - for the standard input"},
		{"route import --follow " + dir + "/none", 1, "import routes: open " + dir + "/none: no such file or directory\n  the file must be there before it grows: create it empty, or use - for the standard input"},
		{"route import --format xml " + dir + "/bad.csv", 2, "format \"xml\" is unknown\n  use --format csv or --format jsonl"},
		{"route import " + dir + "/bad.csv", 1, "line 2: locator \"gw2\" is no address\n  nothing was changed: correct the line and import again"},
		{"route export --format xml", 2, "format \"xml\" is unknown\n  use --format csv or --format jsonl"},
		{"host show web1", 2, "\"web1\" is no address\n  write one such as 10.1.0.7 or 2001:db8:1::7"},
		{"host show 10.1.0.8", 1, "no host 10.1.0.8 is known in tenant default\n  roamctl route get 10.1.0.8 shows what covers it"},
		{"host move 10.1.0.9", 2, "no site is named to move to\n  usage: roamctl host move ADDRESS --to SITE"},
		{"host move 10.1.0.9 --to dc9", 1, "no site is named \"dc9\"\n  roamctl site list shows the configured sites"},
		{"trace now", 2, "trace takes no argument: \"now\" is one too many\n  usage: roamctl trace"},
		{"trace --host gw2", 2, "--host: \"gw2\" is no address\n  write it like 10.1.0.7 or 2001:db8:1::7"},
		{"trace --sample 4294967296", 2, "--sample: 4294967296 is too many: no packet would be chosen for days"},
		{"trace --sample 0", 2, "--sample: one packet in 0 cannot be chosen\n  use 1, or leave it out, for every packet"},
		{"capture -w x --sample 0", 2, "--sample: one packet in 0 cannot be chosen\n  use 1, or leave it out, for every packet"},
		{"trace --duration -1s", 2, "--duration: -1s lies in the past"},
		{"trace --tenant red", 1, "no tenant is named \"red\"\n  roamctl status lists the tenants; add it to the configuration and reload"},
		{"capture", 2, "the capture has no file to go to\n  give -w FILE, or -w - for the standard output"},
		{"capture -w x --bytes 257", 2, "257 bytes of a frame cannot be had\n  use from 1 to 256"},
		{"capture -w " + dir + "/none/x", 1, "write the capture: open " + dir + "/none/x: no such file or directory\n  name a file in a folder that there is and that you may write to, or - for the standard output"},
		{"explain 10.1.0.7", 2, "a source and a destination are needed, 1 arguments are given\n  usage: roamctl explain SRC DST [--proto P] [--port N], or roamctl explain --packet FILE"},
		{"explain 10.1.0.7 2001:db8::1", 2, "10.1.0.7 and 2001:db8::1 are of different families\n  give two of one family"},
		{"explain 10.1.0.7 10.1.0.8 --port 70000", 2, "--port or --vlan is out of range\n  a port is 0 to 65535, a VLAN 0 to 4094"},
		{"explain 10.1.0.7 10.1.0.8 --port http", 2, "invalid value \"http\" for flag -port: parse error\n  see roamctl --help"},
		{"explain 10.1.0.7 10.1.0.8 --proto sctp", 1, "protocol is icmp, tcp, udp or a number from 0 to 255\n  give a source and a destination, or a packet"},
		{"explain 10.1.0.7 10.1.0.8 --packet x", 2, "both a packet and fields of one are given\n  give SRC DST, or --packet FILE"},
		{"explain --packet " + dir + "/none", 1, "read the packet: open " + dir + "/none: no such file or directory\n  name a file that can be read, or - for the standard input"},
		{"explain --packet " + dir + "/text.hex", 1, dir + "/text.hex holds neither a capture nor an Ethernet frame in hexadecimal"},
		{"explain --packet " + dir + "/short.hex", 1, "the packet is shorter than an Ethernet header\n  give a source and a destination, or a packet"},
		{"events --kind moves", 2, "\"moves\" is no kind of event\n  known are: move, reached, claim, frozen, thawed, conflict, failover, refused, locator_up, locator_down, mtu_hole, mtu_healed, designated, standby, port_up, port_down, source_up, source_down, hook, hook_failed, reload, reload_failed, growth, growth_failed, upgrade, ready, more"},
		{"completion tcsh", 2, "no completion for \"tcsh\"\n  use bash, zsh or fish"},
		{"doctor", 1, "1 of 2 checks failed\n  do what stands below each of them, then ask again"},
	} {
		_, got, code := ctl(t, socket, test.line)
		if want := "roamctl: " + test.want + "\n"; got != want || code != test.code {
			t.Errorf("roamctl %s\n got %d %s\nwant %d %s", test.line, code, got, test.code, want)
		}
	}
}

func TestUnreachable(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "s")
	for _, line := range []string{
		"status", "route list", "route get 10.1.0.1", "route add 10.1.0.1 --via 192.0.2.2", "route export", "counters", "reload", "host list", "events", "events --follow",
	} {
		out, got, code := ctl(t, missing, line)
		want := "roamctl: reach the daemon at " + missing + ": no such file or directory\n  start roamd, or name its socket with --socket or ROAM_SOCKET\n"
		if code != 3 || got != want || out != "" {
			t.Errorf("%s: %d %q %q", line, code, out, got)
		}
	}
}

// Flags may stand anywhere.
func TestArrange(t *testing.T) {
	for _, test := range []struct{ in, want string }{
		{"route add 10.0.0.1/32 --via 192.0.2.2", "route add --via 192.0.2.2 10.0.0.1/32"},
		{"-o json route add 10.0.0.1 --via=192.0.2.2 --tenant blue", "-o json route add --via=192.0.2.2 --tenant blue 10.0.0.1"},
		{"status -o json --socket /s", "-o json --socket /s status"},
		{"route add --pinned 10.0.0.1 --site dc2", "route add --pinned --site dc2 10.0.0.1"},
		{"route import - --progress", "route import --progress -"},
		{"route get -- -1", "route get -- -1"},
		{"--help", "--help"},
		{"help", "--help"},
		{"route help", "route --help"},
		{"route add --help", "route add --help"},
		{"--version", "--version"},
	} {
		got, err := arrange(newApp(nil, io.Discard, io.Discard), append([]string{"roamctl"}, strings.Fields(test.in)...))
		if err != nil || strings.Join(got[1:], " ") != test.want {
			t.Errorf("%s: got %s, %v, want %s", test.in, got, err, test.want)
		}
	}
}

// JSON is one document for every command, also for lists of none, one and many.
func TestJSON(t *testing.T) {
	d := daemon()
	socket := serve(t, d)
	for _, line := range []string{"status", "counters", "events", "events --kind growth", "site list", "host list", "host show 10.1.0.9", "route list", "route list --source none", "route get 10.1.0.9", "route get 10.1.0.8", "reload", "route add 10.1.0.7 --site dc2", "route list", "doctor", "explain 10.1.0.7 10.1.0.9"} {
		out, _, _ := ctl(t, socket, line+" -o json")
		if !json.Valid([]byte(out)) {
			t.Errorf("%s: no JSON\n%s", line, out)
		}
	}
	var routes []api.Route
	out, _, _ := ctl(t, socket, "route list -o json")
	if err := json.Unmarshal([]byte(out), &routes); err != nil || len(routes) != 2 || routes[0].Source != "api" {
		t.Errorf("%v: %+v", err, routes)
	}
}

func TestExplainPacket(t *testing.T) {
	frame := bytes.Repeat([]byte{0xab, 0xcd}, 30)
	pcap := append([]byte{0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0}, 0, 0, 0, 0, 0, 0, 0, 0, 60, 0, 0, 0, 60, 0, 0, 0)
	pcap = append(pcap, frame...)
	ng := func(kind byte, body []byte) []byte {
		n := byte(len(body) + 12)
		return append(append([]byte{kind, 0, 0, 0, n, 0, 0, 0}, body...), n, 0, 0, 0)
	}
	pcapng := append(append(
		append([]byte{0x0a, 0x0d, 0x0d, 0x0a, 28, 0, 0, 0, 0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255}, 28, 0, 0, 0),
		ng(1, []byte{1, 0, 0, 0, 0, 0, 4, 0})...),
		ng(6, append([]byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 60, 0, 0, 0, 60, 0, 0, 0}, frame...))...)
	text := strings.ReplaceAll(fmt.Sprintf("% x", frame), "cd ab", "cd\nab")
	d := daemon()
	socket := serve(t, d)
	for name, data := range map[string][]byte{"pcap": pcap, "pcapng": pcapng, "hex": []byte(text), "plain": []byte(hex.EncodeToString(frame))} {
		path := filepath.Join(t.TempDir(), "p")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, stderr, code := ctl(t, socket, "explain --interface lan0 --packet "+path); code != 0 {
			t.Errorf("%s: %s", name, stderr)
		}
		if !bytes.Equal(d.Explained.Packet, frame) || d.Explained.Interface != "lan0" {
			t.Errorf("%s: sent %x", name, d.Explained.Packet)
		}
		for cut := range len(data) {
			_, _, _ = firstOfCapture(data[:cut]) // does not panic
		}
	}
}

func FuzzCapture(f *testing.F) {
	f.Add([]byte{0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 7})
	f.Add([]byte{0x0a, 0x0d, 0x0d, 0x0a, 12, 0, 0, 0, 0x4d, 0x3c, 0x2b, 0x1a, 3, 0, 0, 0, 20, 0, 0, 0, 9, 0, 0, 0, 1, 2, 3, 4, 20, 0, 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		if frame, isCapture, err := firstOfCapture(data); isCapture && err == nil && len(frame) == 0 {
			t.Fatal("an empty packet")
		}
	})
}

func FuzzLocator(f *testing.F) {
	f.Add("192.0.2.2,encap=vxlan,priority=1,weight=100,router_mac=02:00:00:00:00:01")
	f.Fuzz(func(t *testing.T, text string) {
		l, err := parseLocator(text)
		if err != nil {
			return
		}
		again, err := parseLocator(locatorText(l))
		if err != nil || again.Address != l.Address || again.Weight != l.Weight || again.Priority != l.Priority {
			t.Fatalf("%q is %+v, written %q, read %+v, %v", text, l, locatorText(l), again, err)
		}
	})
}

func BenchmarkRouteList(b *testing.B) {
	const n = 200_000
	d := &apitest.Daemon{}
	via := &route.Via{Locators: []route.Locator{apitest.Locator("192.0.2.2")}}
	changes := make([]route.Change, n)
	for i := range changes {
		changes[i].Claim = route.Claim{Key: route.KeyOf(1, netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})), Via: via}
	}
	if err := d.Inject(b.Context(), changes); err != nil {
		b.Fatal(err)
	}
	socket := serve(b, d)
	for _, output := range []string{"table", "json"} {
		b.Run(output, func(b *testing.B) {
			for b.Loop() {
				if code := run(b.Context(), []string{"roamctl", "--socket", socket, "route", "list", "-o", output}, nil, io.Discard, os.Stderr); code != 0 {
					b.Fatal(code)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/route")
		})
	}
}
