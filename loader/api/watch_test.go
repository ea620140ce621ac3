package api_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"roam/loader/api"
	"roam/loader/api/apitest"
	"roam/loader/feed"
	"roam/loader/route"
)

// watch follows a watch and returns its lines, shortened: action, tenant, prefix, source.
func watch(t *testing.T, socket string, q api.RoutesQuery) <-chan string {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	lines, ended := make(chan string), make(chan struct{})
	c := client(t, socket)
	go func() {
		defer close(ended)
		_ = c.Watch(ctx, q, func(_ []byte, m api.RouteChange) error {
			prefix := ""
			if m.Prefix.IsValid() {
				prefix = m.Prefix.String()
			}
			select {
			case lines <- strings.TrimSpace(fmt.Sprintln(m.Action, m.Tenant, prefix, m.Source)):
			case <-ctx.Done():
			}
			return nil
		})
	}()
	t.Cleanup(func() { cancel(); <-ended })
	return lines
}

func expect(t *testing.T, lines <-chan string, want ...string) {
	t.Helper()
	for _, w := range want {
		select {
		case got := <-lines:
			if strings.Join(strings.Fields(got), " ") != w {
				t.Fatalf("got %q, want %q", got, w)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%q does not come", w)
		}
	}
}

func put(t *testing.T, socket, list string) {
	t.Helper()
	if refused, _, err := putAll(t, client(t, socket), strings.NewReader(list)); err != nil || refused != nil {
		t.Fatal(refused, err)
	}
}

func TestWatch(t *testing.T) {
	d := &apitest.Daemon{}
	socket, _ := serve(t, d)
	host := route.KeyOf(1, netip.MustParseAddr("10.1.0.9"))
	d.Know("host", route.Claim{Key: host, Local: &route.Local{}})
	put(t, socket, `{"prefix":"10.1.0.1","via":["192.0.2.2"]}`)
	all := watch(t, socket, api.RoutesQuery{})
	expect(t, all, "begin", "set default 10.1.0.1/32 api", "set default 10.1.0.9/32 host", "synced")
	blue := watch(t, socket, api.RoutesQuery{Tenant: "blue"})
	expect(t, blue, "begin", "synced")
	ofHost := watch(t, socket, api.RoutesQuery{Source: "host"})
	expect(t, ofHost, "begin", "set default 10.1.0.9/32 host", "synced")
	within := watch(t, socket, api.RoutesQuery{Within: netip.MustParsePrefix("10.1.0.8/29")})
	expect(t, within, "begin", "set default 10.1.0.9/32 host", "synced")

	put(t, socket, `{"prefix":"10.1.0.1","withdraw":true}`)
	put(t, socket, `{"prefix":"10.1.0.1","tenant":"blue","via":["192.0.2.2"]}`)
	put(t, socket, `{"prefix":"10.1.0.9","via":["192.0.2.2"]}`)
	put(t, socket, `{"prefix":"10.1.0.9","withdraw":true}`)
	expect(t, all, "gone default 10.1.0.1/32", "set blue 10.1.0.1/32 api")
	expect(t, blue, "set blue 10.1.0.1/32 api")
	for _, lines := range []<-chan string{all, within} {
		// The put replaces the claim, which this daemon tells as a removal of one and the coming of another.
		expect(t, lines, "set default 10.1.0.9/32 api", "set default 10.1.0.9/32 host")
	}
	expect(t, ofHost, "gone default 10.1.0.1/32", "gone blue 10.1.0.1/32", "gone default 10.1.0.9/32", "set default 10.1.0.9/32 host")
}

// A reader that is slower than what happens is told so, and told everything again.
func TestWatchSlowly(t *testing.T) {
	d := &apitest.Daemon{}
	socket, _ := serve(t, d)
	put(t, socket, `{"prefix":"10.1.0.1","via":["192.0.2.2"]}`)
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET /v1/routes/watch HTTP/1.1\r\nHost: roamd\r\n\r\n")
	in := bufio.NewReader(conn)
	next := func() (c api.RouteChange) {
		t.Helper()
		_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		for {
			line, err := in.ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			if strings.HasPrefix(line, "{") && json.Unmarshal([]byte(line), &c) == nil {
				return c
			}
		}
	}
	for next().Action != api.WatchSynced {
	}
	// Nobody reads while these happen; applying them does not wait.
	storm := make([]route.Decision, 4096)
	for i := range storm {
		storm[i] = route.Decision{Claim: route.Claim{Key: route.KeyOf(1, netip.MustParseAddr("10.1.0.1"))}, Gone: true}
	}
	for range 3 * feed.Kept / len(storm) {
		if err := d.Apply(t.Context(), storm); err != nil {
			t.Fatal(err)
		}
	}
	// There may be more than one beginning: the storm goes on while the first is told.
	missed, set := uint64(0), false
	for c := next(); c.Action != api.WatchSynced; c = next() {
		switch c.Action {
		case api.WatchBegin:
			missed, set = missed+c.Missed, false
		case api.WatchSet:
			set = c.Prefix.String() == "10.1.0.1/32" && len(c.Via) == 1
		}
	}
	if missed == 0 || !set {
		t.Errorf("told that %d are missing, told everything again: %v", missed, set)
	}
}

// A daemon that stops ends the watch.
func TestWatchStop(t *testing.T) {
	socket, stop := serve(t, &apitest.Daemon{})
	ended := make(chan error, 1)
	synced := make(chan struct{})
	c := client(t, socket)
	go func() {
		ended <- c.Watch(t.Context(), api.RoutesQuery{}, func(_ []byte, m api.RouteChange) error {
			if m.Action == api.WatchSynced {
				close(synced)
			}
			return nil
		})
	}()
	<-synced
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
