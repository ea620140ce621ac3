package api_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"roam/loader/api"
	"roam/loader/api/apitest"
	"roam/loader/route"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve runs a server over a daemon and returns its socket.
func serve(t *testing.T, d *apitest.Daemon) (socket string, stop func()) {
	t.Helper()
	dir, err := os.MkdirTemp("", "roam") // short enough for a socket's name
	if err != nil {
		t.Fatal(err)
	}
	socket = filepath.Join(dir, "run", "s")
	s := api.NewServer(socket, d.Backend(), slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	select {
	case <-s.Ready():
	case err := <-done:
		t.Fatal(err)
	}
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("ended with %v", err)
		}
	})
	t.Cleanup(func() {
		stop()
		os.RemoveAll(dir)
	})
	return socket, stop
}

func client(t *testing.T, socket string) *api.Client {
	c := api.NewClient(socket)
	t.Cleanup(c.Close)
	return c
}

// raw sends a request as it is written and returns status and body.
func raw(t *testing.T, socket, method, path, contentType, body string) (int, string) {
	t.Helper()
	c := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", socket) },
	}}
	r, err := http.NewRequestWithContext(t.Context(), method, "http://roamd"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	answer, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, strings.TrimSpace(string(b))
}

func TestWrongRequests(t *testing.T) {
	d := &apitest.Daemon{}
	socket, _ := serve(t, d)
	const post, json = "POST", "application/json"
	for _, test := range []struct {
		method, path, contentType, body string
		status                          int
		want                            string
	}{
		{"GET", "/v1/nothing", "", "", 404, `{"error":"nothing answers GET /v1/nothing","hint":"docs/openapi.yaml lists what does"}`},
		{"DELETE", "/v1/status", "", "", 404, `{"error":"nothing answers DELETE /v1/status","hint":"docs/openapi.yaml lists what does"}`},
		{"GET", "/v1/status?x=1", "", "", 400, `{"error":"unknown parameter \"x\": none is taken here"}`},
		{"GET", "/v1/routes?tenat=blue", "", "", 400, `{"error":"unknown parameter \"tenat\"","hint":"known here: tenant, source, site, within, best"}`},
		{"GET", "/v1/routes?tenant=a&tenant=b", "", "", 400, `{"error":"parameter tenant is given 2 times"}`},
		{"GET", "/v1/routes?tenant=red", "", "", 404, `{"error":"no tenant is named \"red\"","hint":"roamctl status lists the tenants; add it to the configuration and reload"}`},
		{"GET", "/v1/routes?within=10", "", "", 400, `{"error":"\"10\" is no prefix such as 10.1.0.7/32, 10.2.0.0/16 or 2001:db8:1::7/128"}`},
		{"GET", "/v1/routes?best=maybe", "", "", 400, `{"error":"best=\"maybe\" is neither true nor false"}`},
		{"GET", "/v1/routes?%zz", "", "", 400, `{"error":"read the parameters: invalid URL escape \"%zz\""}`},
		{"GET", "/v1/routes/lookup", "", "", 400, `{"error":"\"\" is no address such as 10.1.0.7 or 2001:db8:1::7"}`},
		{"GET", "/v1/routes/lookup?address=224.0.0.1", "", "", 400, `{"error":"224.0.0.1 is a multicast address"}`},
		{"GET", "/v1/hosts/10.1.0.9", "", "", 404, `{"error":"no host 10.1.0.9 is known in tenant default","hint":"roamctl route get 10.1.0.9 shows what covers it"}`},
		{"GET", "/v1/hosts/web1", "", "", 400, `{"error":"\"web1\" is no address such as 10.1.0.7 or 2001:db8:1::7"}`},
		{"DELETE", "/v1/routes", "", "", 400, `{"error":"no prefix is named","hint":"POST /v1/routes/flush withdraws everything"}`},
		{"DELETE", "/v1/routes?prefix=10.1.0.7/32", "", "", 404, `{"error":"10.1.0.7/32 was not injected","hint":"roamctl route get shows who says so"}`},
		{post, "/v1/routes", json, ``, 400, `{"error":"\"\" is not JSON: EOF","hint":"docs/openapi.yaml describes the request"}`},
		{post, "/v1/routes", json, `{"prefix":"10.1.0.7","vai":["192.0.2.2"]}`, 400, `{"error":"unknown field \"vai\"","hint":"docs/openapi.yaml describes the request"}`},
		{post, "/v1/routes", json, `{"prefix":"10.1.0.7","via":["192.0.2.2"]}{}`, 400, `{"error":"more than one JSON value","hint":"docs/openapi.yaml describes the request"}`},
		{post, "/v1/routes", json, `{"prefix":"10.1.0.7/24","via":["192.0.2.2"]}`, 400, `{"error":"10.1.0.7/24 has bits set to the right of its length: write 10.1.0.0/24"}`},
		{post, "/v1/routes", json, `{"prefix":"10.1.0.7"}`, 400, `{"error":"neither via nor site is given: say where the route points to"}`},
		{post, "/v1/routes", json, `{"prefix":"10.1.0.7","site":"dc9"}`, 404, `{"error":"no site is named \"dc9\"","hint":"roamctl site list shows the configured sites"}`},
		{post, "/v1/routes", json, `{"prefix":"10.1.0.7","via":[{"address":"192.0.2.2","weight":0}]}`, 400, `{"error":"locator 192.0.2.2: weight 0 would carry nothing: use 1..255, or priority 255 to take the locator out"}`},
		{post, "/v1/routes", json, `{"prefix":"10.1.0.7","via":[{"address":"192.0.2.2","priority":256}]}`, 400, `{"error":"field priority takes no number 256","hint":"docs/openapi.yaml describes the request"}`},
		{post, "/v1/routes", json, `"` + strings.Repeat("x", 2<<20), 413, `{"error":"the request is larger than 1048576 bytes","hint":"split it"}`},
		{post, "/v1/routes/flush?all=1", "", ``, 400, `{"error":"unknown parameter \"all\": none is taken here"}`},
		{post, "/v1/routes/import", json, `{}`, 415, `{"error":"content type \"application/json\" is no route list","hint":"send text/csv or application/jsonl"}`},
		{post, "/v1/routes/import", "", `x`, 415, `{"error":"content type \"\" is no route list","hint":"send text/csv or application/jsonl"}`},
		{post, "/v1/routes/import", "text/csv", "10.1.0.7/32,,192.0.2.2\n10.1.0.8/33,,192.0.2.2\n", 400, `{"error":"line 2: \"10.1.0.8/33\" is no prefix such as 10.1.0.7/32, 10.2.0.0/16 or 2001:db8:1::7/128","hint":"nothing was changed: correct the line and import again"}`},
		{post, "/v1/routes/import", "text/csv; charset=utf-8", "10.1.0.7/32,red,192.0.2.2\n", 400, `{"error":"line 1: no tenant is named \"red\"","hint":"nothing was changed: roamctl status lists the tenants; add it to the configuration and reload"}`},
		{"GET", "/v1/routes/export?format=xml", "", "", 400, `{"error":"format \"xml\" is unknown","hint":"use csv or jsonl"}`},
		{post, "/v1/hosts/move", json, `{"address":"10.1.0.7"}`, 400, `{"error":"no site is named to move to","hint":"roamctl site list shows the configured sites"}`},
		{post, "/v1/hosts/move", json, `{"to":"dc2"}`, 400, `{"error":"\"invalid IP\" is no address such as 10.1.0.7 or 2001:db8:1::7"}`},
		{post, "/v1/hosts/move", json, `{"address":"10.1.0.7","to":"dc9"}`, 404, `{"error":"no site is named \"dc9\"","hint":"roamctl site list shows the configured sites"}`},
		{post, "/v1/explain", json, `{}`, 400, `{"error":"a source and a destination are needed","hint":"give a source and a destination, or a packet"}`},
		{post, "/v1/explain", json, `{"source":"10.1.0.7","destination":"2001:db8::1"}`, 400, `{"error":"source and destination are of different families","hint":"give a source and a destination, or a packet"}`},
		{post, "/v1/explain", json, `{"source":"10.1.0.7","destination":"10.1.0.8","port":80}`, 400, `{"error":"icmp has no ports: give protocol tcp or udp","hint":"give a source and a destination, or a packet"}`},
		{post, "/v1/explain", json, `{"source":"10.1.0.7","destination":"10.1.0.8","protocol":"256"}`, 400, `{"error":"protocol is icmp, tcp, udp or a number from 0 to 255","hint":"give a source and a destination, or a packet"}`},
		{post, "/v1/explain", json, `{"packet":"AAAA"}`, 400, `{"error":"the packet is shorter than an Ethernet header","hint":"give a source and a destination, or a packet"}`},
		{post, "/v1/explain", json, `{"packet":"AAAAAAAAAAAAAAAAAAAAAAAA","port":1}`, 400, `{"error":"both a packet and fields of one are given","hint":"give a source and a destination, or a packet"}`},
		{post, "/v1/explain", json, `{"source":"10.1.0.7","destination":"10.1.0.8","tenant":"red"}`, 404, `{"error":"no tenant is named \"red\"","hint":"roamctl status lists the tenants; add it to the configuration and reload"}`},
	} {
		status, got := raw(t, socket, test.method, test.path, test.contentType, test.body)
		if status != test.status || got != test.want {
			t.Errorf("%s %s %.80s\n got %d %s\nwant %d %s", test.method, test.path, test.body, status, got, test.status, test.want)
		}
	}
	if n := d.Injected(); n != 0 {
		t.Errorf("%d routes were injected by wrong requests", n)
	}
}

func TestRoutes(t *testing.T) {
	d := &apitest.Daemon{}
	d.Know("host", route.Claim{Key: route.KeyOf(1, netip.MustParseAddr("10.1.0.7")), Local: &route.Local{Link: 1, VLAN: 3}, MAC: route.MAC{2, 0, 0, 0, 0, 7}})
	socket, _ := serve(t, d)
	c := client(t, socket)
	check(t, c.Add(t.Context(), api.NewRoute{Prefix: "10.1.0.0/16", Tenant: "default", Via: []api.Locator{api.LocatorOf(apitest.Locator("192.0.2.3"))}}))
	check(t, c.Add(t.Context(), api.NewRoute{Prefix: "10.1.0.7", Site: "dc2", Pinned: true}))
	found, err := c.Lookup(t.Context(), netip.MustParseAddr("10.1.0.7"), "")
	check(t, err)
	var got []string
	for _, r := range found.Routes {
		got = append(got, fmt.Sprintf("%s %s %s best=%t pinned=%t %q", r.Prefix, r.Source, r.Site, r.Best, r.Pinned, r.Why))
	}
	want := []string{
		`10.1.0.7/32 api dc2 best=true pinned=true "api wins"`, `10.1.0.7/32 host  best=false pinned=false ""`,
		`10.1.0.0/16 api  best=true pinned=false "api wins"`,
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if l := found.Routes[1].Local; l == nil || l.Interface != "lo" || l.VLAN != 3 {
		t.Errorf("local is %+v", l)
	}
	lines := 0
	check(t, c.Routes(t.Context(), api.RoutesQuery{Best: true, Within: netip.MustParsePrefix("10.0.0.0/8"), Source: "api", Tenant: "default"}, func([]byte) error { lines++; return nil }))
	if lines != 2 {
		t.Errorf("listed %d routes", lines)
	}
	check(t, c.Remove(t.Context(), netip.MustParsePrefix("10.1.0.7/32"), "default"))
	n, err := c.Flush(t.Context())
	check(t, err)
	if n.Removed != 1 || d.Injected() != 0 {
		t.Errorf("flushed %d, left %d", n.Removed, d.Injected())
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A move keeps what is known of the host, and to our own site it is "here".
func TestMove(t *testing.T) {
	d := &apitest.Daemon{}
	a := netip.MustParseAddr("10.1.0.7")
	d.Know("host", route.Claim{Key: route.KeyOf(1, a), Local: &route.Local{Link: 1}, MAC: route.MAC{2, 0, 0, 0, 0, 7}})
	socket, _ := serve(t, d)
	c := client(t, socket)
	check(t, c.Move(t.Context(), api.Move{Address: a, To: "dc2"}))
	h, err := c.Host(t.Context(), a, "")
	check(t, err)
	if h.Here || h.Site != "dc2" || len(h.Via) != 2 || h.MAC != "02:00:00:00:00:07" || h.Source != "api" {
		t.Errorf("after the move away: %+v", h)
	}
	check(t, c.Move(t.Context(), api.Move{Address: a, To: "dc1", Tenant: "default"}))
	h, err = c.Host(t.Context(), a, "default")
	check(t, err)
	if !h.Here || h.Site != "dc1" || h.Local.Interface != "" || h.MAC != "02:00:00:00:00:07" {
		t.Errorf("after the move back: %+v", h)
	}
	lines := 0
	check(t, c.Hosts(t.Context(), "default", func([]byte) error { lines++; return nil }))
	if lines != 1 {
		t.Errorf("listed %d hosts", lines)
	}
}

func list(n int) []byte {
	var b bytes.Buffer
	for i := range n {
		fmt.Fprintf(&b, "10.%d.%d.%d/32,default,192.0.2.2,vxlan,1,100\n", i>>16, i>>8&255, i&255)
	}
	return b.Bytes()
}

// What was exported is what was imported, in both formats, whatever stands in the list already.
func TestImportExport(t *testing.T) {
	d := &apitest.Daemon{}
	socket, _ := serve(t, d)
	c := client(t, socket)
	const n = 200_000
	data := list(n)
	var reads []int
	last, err := c.Import(t.Context(), bytes.NewReader(data), int64(len(data)), api.CSV, func(p api.Progress) { reads = append(reads, p.Read) })
	check(t, err)
	if last.Added != n || last.Read != n || fmt.Sprint(reads) != "[65536 131072 196608 200000]" {
		t.Errorf("last %+v, progress %v", last, reads)
	}
	var out bytes.Buffer
	check(t, c.Export(t.Context(), "csv", "", &out))
	if want := "prefix,tenant,locator,encap,priority,weight\n" + string(data); out.String() != want {
		t.Errorf("exported %d bytes, imported %d", out.Len(), len(want))
	}
	var lines bytes.Buffer
	check(t, c.Export(t.Context(), "jsonl", "default", &lines))
	_, err = c.Flush(t.Context())
	check(t, err)
	last, err = c.Import(t.Context(), &lines, 0, api.JSONL, nil)
	check(t, err)
	var again bytes.Buffer
	check(t, c.Export(t.Context(), "csv", "", &again))
	if last.Added != n || !bytes.Equal(again.Bytes(), out.Bytes()) {
		t.Errorf("the round through JSON lines: %+v", last)
	}
}

// A bad line after progress has been sent names itself, and nothing is changed.
func TestImportBadLine(t *testing.T) {
	d := &apitest.Daemon{}
	socket, _ := serve(t, d)
	c := client(t, socket)
	lines := bytes.SplitAfter(list(300_000), []byte{'\n'})
	lines[249_999] = []byte("10.0.0.256/32,default,192.0.2.2\n")
	data := bytes.Join(lines, nil)
	_, err := c.Import(t.Context(), bytes.NewReader(data), int64(len(data)), api.CSV, nil)
	var e *api.Error
	if !errors.As(err, &e) || !strings.HasPrefix(e.Message, `line 250000: "10.0.0.256/32" is no prefix`) || !strings.HasPrefix(e.Hint, "nothing was changed") {
		t.Errorf("got %#v", err)
	}
	if d.Injected() != 0 {
		t.Errorf("%d routes were injected", d.Injected())
	}
}

// A client that goes away in the middle of an upload changes nothing.
func TestImportBrokenOff(t *testing.T) {
	d := &apitest.Daemon{}
	socket, stop := serve(t, d)
	r, w := io.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	progress := make(chan api.Progress, 100)
	go func() {
		_, err := client(t, socket).Import(ctx, r, 0, api.CSV, func(p api.Progress) { progress <- p })
		done <- err
	}()
	_, err := w.Write(list(100_000))
	check(t, err)
	<-progress
	cancel()
	w.CloseWithError(errors.New("gone")) // a mere end would be that of a whole list
	if err := <-done; err == nil {
		t.Error("the import succeeded")
	}
	stop()
	if d.Injected() != 0 {
		t.Errorf("%d routes were injected", d.Injected())
	}
}

// An error in the middle of a list reaches the client as one.
func TestStreamError(t *testing.T) {
	d := &apitest.Daemon{}
	check(t, d.Inject(t.Context(), []route.Change{{Claim: route.Claim{Key: route.KeyOf(1, netip.MustParseAddr("10.1.0.7")), Via: &route.Via{Locators: []route.Locator{apitest.Locator("192.0.2.2")}}}}}))
	d.Failure = errors.New("the RIB has gone")
	socket, _ := serve(t, d)
	c := client(t, socket)
	lines := 0
	err := c.Routes(t.Context(), api.RoutesQuery{}, func([]byte) error { lines++; return nil })
	var e *api.Error
	if !errors.As(err, &e) || e.Message != "the RIB has gone" || lines != 1 {
		t.Errorf("%d lines, %v", lines, err)
	}
	if err := c.Export(t.Context(), "jsonl", "", io.Discard); err == nil {
		t.Error("an export that broke off looks whole")
	}
	if _, err := c.Status(t.Context()); !errors.As(err, &e) || e.Status != 500 {
		t.Errorf("status: %v", err)
	}
}

func TestAnswers(t *testing.T) {
	d := &apitest.Daemon{}
	socket, _ := serve(t, d)
	for path, want := range map[string]string{
		"/v1/doctor":                         `[]`,
		"/v1/routes/lookup?address=10.1.0.7": `{"address":"10.1.0.7","tenant":"default","routes":[]}`,
		"/v1/routes":                         ``,
		"/v1/routes/export":                  `prefix,tenant,locator,encap,priority,weight`,
		"/v1/counters":                       `{"reasons":[{"port":"lan0","reason":"fwd_encap","verdict":"forwarded","packets":10,"bytes":1000},{"port":"lan0","reason":"drop_ttl","verdict":"dropped","packets":0,"bytes":0}],"locators":[{"locator":"192.0.2.2","packets":10,"bytes":1000}],"refused":[],"shadow":false}`,
	} {
		if status, got := raw(t, socket, "GET", path, "", ""); status != 200 || got != want {
			t.Errorf("%s: %d %s", path, status, got)
		}
	}
	if status, got := raw(t, socket, "POST", "/v1/reload", "", ""); status != 200 || got != `{"changes":["site dc3 added"],"warnings":[]}` {
		t.Errorf("reload: %d %s", status, got)
	}
}

func TestSocket(t *testing.T) {
	socket, stop := serve(t, &apitest.Daemon{})
	info, err := os.Stat(socket)
	check(t, err)
	if info.Mode().Perm() != 0o660 {
		t.Errorf("mode %v", info.Mode())
	}
	if l, err := api.Listen(socket); err == nil || !strings.Contains(err.Error(), "another daemon") {
		if l != nil {
			l.Close()
		}
		t.Errorf("a second daemon: %v", err)
	}
	stop()
	if _, err := os.Stat(socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}

	// Left by a daemon that was killed.
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	check(t, err)
	stale.SetUnlinkOnClose(false)
	stale.Close()
	l, err := api.Listen(socket)
	check(t, err)
	l.Close()

	check(t, os.WriteFile(socket, nil, 0o600))
	if _, err := api.Listen(socket); err == nil || !strings.Contains(err.Error(), "no socket") {
		t.Errorf("a file in the way: %v", err)
	}
}

func TestUnreachable(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "s")
	_, err := api.NewClient(missing).Status(t.Context())
	var down *api.Unreachable
	if !errors.As(err, &down) || err.Error() != "reach the daemon at "+missing+": no such file or directory" || !strings.Contains(down.Hint(), "start roamd") {
		t.Errorf("got %v", err)
	}
}

// The server leaves although a client neither sends nor takes anything.
func TestStopWithIdleClients(t *testing.T) {
	socket, stop := serve(t, &apitest.Daemon{})
	conn, err := net.Dial("unix", socket)
	check(t, err)
	defer conn.Close()
	_, err = conn.Write([]byte("POST /v1/routes/import HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\nTransfer-Encoding: chunked\r\n\r\n"))
	check(t, err)
	begin := time.Now()
	stop()
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("stopping took %v", took)
	}
	_, _ = bufio.NewReader(conn).ReadByte()
}

func server(d *apitest.Daemon) http.Handler {
	return api.NewServer("", d.Backend(), slog.New(slog.DiscardHandler)).Handler()
}

// slow answers a status request only after it was told to.
type slow struct {
	*apitest.Daemon
	asked, answer chan struct{}
}

func (s slow) Status(ctx context.Context) (api.Status, error) {
	close(s.asked)
	<-s.answer
	return s.Daemon.Status(ctx)
}

// A request under way when the daemon stops still gets its answer.
func TestStopWaitsForAnswers(t *testing.T) {
	d := slow{&apitest.Daemon{}, make(chan struct{}), make(chan struct{})}
	backend := d.Backend()
	backend.Observer = d
	dir, err := os.MkdirTemp("", "roam")
	check(t, err)
	defer os.RemoveAll(dir)
	s := api.NewServer(filepath.Join(dir, "s"), backend, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	done, got := make(chan error), make(chan error)
	go func() { done <- s.Run(ctx) }()
	<-s.Ready()
	c := client(t, filepath.Join(dir, "s"))
	go func() {
		_, err := c.Status(t.Context())
		got <- err
	}()
	<-d.asked
	cancel()
	select {
	case err := <-done:
		t.Fatalf("stopped under way: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	close(d.answer)
	check(t, <-got)
	check(t, <-done)
}
