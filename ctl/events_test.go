package main

import (
	"bufio"
	"context"
	"io"
	"os"
	"strings"
	"testing"

	"roam/loader/api"
	"roam/loader/api/apitest"
	"roam/loader/event"
)

// A story goes on with what happens, and its reader may leave when it likes: that is no failure.
func TestFollow(t *testing.T) {
	for _, test := range []struct{ flags, first, next string }{
		{"", "10.1.0.9 moved from dc2 to here: api wins: its sequence 2 is higher than 1 of host", "locator 192.0.2.2 is reachable again"},
		{"-o json", `"kind":"move"`, `"kind":"locator_up"`},
		{"--kind locator_up", "", "locator 192.0.2.2 is reachable again"},
	} {
		d := daemon()
		d.Events = apitest.Happened()
		socket := serve(t, d)
		ctx, leave := context.WithCancel(t.Context())
		out, in := io.Pipe()
		code := make(chan int, 1)
		go func() {
			args := append([]string{"roamctl", "--socket", socket, "events", "--follow"}, strings.Fields(test.flags)...)
			code <- run(ctx, args, nil, in, os.Stderr)
			in.Close()
		}()
		lines := bufio.NewScanner(out)
		if test.first != "" {
			for _, want := range []string{test.first, "192.0.2.2"} {
				if !lines.Scan() || !strings.Contains(lines.Text(), want) {
					t.Errorf("%s: %q, want %q", test.flags, lines.Text(), want)
				}
			}
		}
		d.Events.Add(api.Event{Kind: event.LocatorUp, Subject: "192.0.2.2", What: "locator 192.0.2.2 is reachable again"})
		if !lines.Scan() || !strings.Contains(lines.Text(), test.next) {
			t.Errorf("%s: %q, want %q", test.flags, lines.Text(), test.next)
		}
		leave()
		if c := <-code; c != 0 {
			t.Errorf("%s: exit status %d", test.flags, c)
		}
	}
}
