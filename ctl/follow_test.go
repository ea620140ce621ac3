package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"roam/loader/api"
	"roam/loader/api/apitest"
)

// serveAt runs a daemon's socket at a path until stop is called.
func serveAt(t *testing.T, path string, d *apitest.Daemon) (stop func()) {
	t.Helper()
	s := api.NewServer(path, d.Backend(), slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	<-s.Ready()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// eventually waits until the daemon's injected routes are these.
func eventually(t *testing.T, socket string, want ...string) {
	t.Helper()
	c := api.NewClient(socket)
	defer c.Close()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		var out bytes.Buffer
		err := c.Export(t.Context(), "csv", "", &out)
		got := strings.Split(strings.TrimSpace(out.String()), "\n")[1:]
		if err == nil && fmt.Sprint(got) == fmt.Sprint(want) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("the routes are %q, want %q (%v)", got, want, err)
		}
	}
}

// A list is followed over the end of its daemon: the next one, which knows nothing, is told what the list says by then, and
// one that kept an old state is told of what was withdrawn meanwhile.
func TestFollowRestart(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	first := daemon()
	stop := serveAt(t, socket, first)
	list, write := io.Pipe()
	var said safeBuffer
	code := make(chan int, 1)
	go func() {
		code <- run(t.Context(), []string{"roamctl", "--socket", socket, "route", "import", "--follow", "-"}, list, io.Discard, &said)
	}()
	say := func(lines ...string) {
		t.Helper()
		if _, err := io.WriteString(write, strings.Join(lines, "\n")+"\n"); err != nil {
			t.Fatal(err)
		}
	}
	const route = `{"prefix":"10.1.0.%d","via":["192.0.2.%d"]}`
	say(fmt.Sprintf(route, 1, 2), fmt.Sprintf(route, 2, 2), fmt.Sprintf(route, 3, 2))
	line := func(host, locator int) string {
		return fmt.Sprintf("10.1.0.%d/32,default,192.0.2.%d,vxlan,1,100", host, locator)
	}
	eventually(t, socket, line(1, 2), line(2, 2), line(3, 2))

	stop()
	say(fmt.Sprintf(route, 1, 3), `{"prefix":"10.1.0.2","withdraw":true}`)
	stop = serveAt(t, socket, first) // it has kept its state
	eventually(t, socket, line(1, 3), line(3, 2))
	stop()
	serveAt(t, socket, daemon()) // it has lost it
	eventually(t, socket, line(1, 3), line(3, 2))
	say(fmt.Sprintf(route, 4, 2))
	eventually(t, socket, line(1, 3), line(3, 2), line(4, 2))
	write.Close()
	if c := <-code; c != 0 {
		t.Errorf("exit status %d: %s", c, said.String())
	}
	if !strings.Contains(said.String(), "trying again until it is taken") {
		t.Errorf("it does not say that the daemon was away: %q", said.String())
	}
}

// safeBuffer is what a command says while it runs.
type safeBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.String()
}

// A file is followed as it grows, is cut, and gives way to another of its name; an interrupt is no failure.
func TestFollowFile(t *testing.T) {
	socket := serve(t, daemon())
	file := filepath.Join(t.TempDir(), "list")
	write := func(flags int, text string) {
		t.Helper()
		f, err := os.OpenFile(file, flags|os.O_WRONLY|os.O_CREATE, 0o600)
		if err == nil {
			_, err = f.WriteString(text)
			err = errors.Join(err, f.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	line := func(host int) string { return fmt.Sprintf("10.1.0.%d/32,default,192.0.2.2,vxlan,1,100", host) }
	route := func(host int) string {
		return fmt.Sprintf("{\"prefix\":\"10.1.0.%d\",\"via\":[\"192.0.2.2\"]}\n", host)
	}
	write(0, route(1)+route(2))
	ctx, interrupt := context.WithCancel(t.Context())
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, []string{"roamctl", "--socket", socket, "route", "import", "--follow", "--at-end", "withdraw", file}, nil, io.Discard, os.Stderr)
	}()
	eventually(t, socket, line(1), line(2))
	write(os.O_APPEND, route(3)[:20])
	write(os.O_APPEND, route(3)[20:])
	eventually(t, socket, line(1), line(2), line(3))
	write(os.O_TRUNC, route(4))
	eventually(t, socket, line(1), line(2), line(3), line(4))
	if err := os.Rename(file, file+".1"); err != nil {
		t.Fatal(err)
	}
	write(0, `{"prefix":"10.1.0.1","withdraw":true}`+"\n")
	eventually(t, socket, line(2), line(3), line(4))
	interrupt()
	if c := <-code; c != 0 {
		t.Errorf("exit status %d", c)
	}
	eventually(t, socket)
}

// What wins is told, and what changes, until the reader leaves.
func TestWatch(t *testing.T) {
	socket := serve(t, daemon())
	for output, want := range map[string][]string{
		"table": {"begin", "set    10.1.0.9/32  default  here,lo  by host  at dc1", "synced", "set    10.1.0.7/32  default  192.0.2.2  by api", "gone   10.1.0.7/32  default"},
		"json":  {`{"action":"begin"}`, `"prefix":"10.1.0.9/32","source":"host","site":"dc1"`, `{"action":"synced"}`, `"source":"api","via":[{"address":"192.0.2.2"`, `{"action":"gone","tenant":"default","prefix":"10.1.0.7/32"}`},
	} {
		ctx, leave := context.WithCancel(t.Context())
		out, in := io.Pipe()
		code := make(chan int, 1)
		go func() {
			code <- run(ctx, []string{"roamctl", "--socket", socket, "-o", output, "route", "watch"}, nil, in, os.Stderr)
			in.Close()
		}()
		lines := bufio.NewScanner(out)
		for i, w := range want {
			if !lines.Scan() || !strings.Contains(lines.Text(), w) {
				t.Errorf("%s: %q, want %q", output, lines.Text(), w)
			}
			if i == 2 {
				for _, command := range []string{"route add 10.1.0.7 --via 192.0.2.2", "route del 10.1.0.7"} {
					if _, stderr, code := ctl(t, socket, command); code != 0 {
						t.Fatal(stderr)
					}
				}
			}
		}
		leave()
		if c := <-code; c != 0 {
			t.Errorf("%s: exit status %d", output, c)
		}
	}
}
