package main

import (
	"log/slog"
	"os"
	"regexp"
	"strings"
	"testing"

	"roam/loader/api"
	"roam/loader/event"
)

// onTerminal runs a command that ends by itself on a pseudo-terminal and returns what is seen there.
func onTerminal(t *testing.T, socket string, args ...string) string {
	t.Helper()
	p := newPTY(t, 200, 30)
	done := make(chan struct{})
	go func() { defer close(done); p.follow() }()
	if code := run(t.Context(), append([]string{"roamctl", "--socket", socket}, args...), p.terminal, p.terminal, p.terminal); code != 0 {
		t.Errorf("roamctl %q: exit status %d", args, code)
	}
	p.terminal.Close() // its other end reads what is left, and then that this is closed
	<-done
	p.master.Close()
	return strings.ReplaceAll(p.text.String(), "\r\n", "\n")
}

// screenOfManual compares what a command shows with docs/screens and with the manual. ROAM_UPDATE=1 writes the former.
func screenOfManual(t *testing.T, name, text string) {
	t.Helper()
	file := "../docs/screens/" + name + ".txt"
	if os.Getenv("ROAM_UPDATE") != "" {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if want, err := os.ReadFile(file); err != nil || string(want) != text {
		t.Errorf("%s is not what is shown (%v):\n%s", file, err, text)
	}
	if manual, err := os.ReadFile("../docs/operations.md"); err != nil || !strings.Contains(string(manual), "```\n"+text+"```\n") {
		t.Errorf("the manual shows something else (%v)", err)
	}
}

func TestStatusOfTheManual(t *testing.T) {
	screenOfManual(t, "status", onTerminal(t, serve(t, daemon()), "status"))
}

func TestEventsOfTheManual(t *testing.T) {
	d := daemon()
	d.Events = event.New(slog.New(slog.DiscardHandler))
	for _, e := range []api.Event{
		{Kind: event.Move, Subject: "10.1.0.9", Tenant: "default", What: "10.1.0.9 moved from dc2 to here", Why: "host wins: its sequence 2 is higher than 1 of bgp"},
		{Kind: event.Reached, Subject: "10.1.0.9", Tenant: "default", What: "10.1.0.9 was reached here, 9.31ms after it first showed itself; announced after 4.02ms"},
		{Kind: event.LocatorDown, Subject: "192.0.2.2", What: "locator 192.0.2.2 is down", Why: "no route to it", Do: "ip route get 192.0.2.2; roamctl site list"},
		{Kind: event.LocatorUp, Subject: "192.0.2.2", What: "locator 192.0.2.2 is up"},
	} {
		d.Events.Add(e)
	}
	text := onTerminal(t, serve(t, d), "events")
	text = regexp.MustCompile(`\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}`).ReplaceAllString(text, "2026-01-02 12:00:00.123")
	screenOfManual(t, "events", text)
}

// A terminal that can do nothing gets plain lines, once.
func TestTopDumb(t *testing.T) {
	t.Setenv("TERM", "dumb")
	text := onTerminal(t, serveBusy(t), "top", "--interval", "100ms")
	if strings.Contains(text, "\x1b") || strings.Count(text, "REASON ") != 1 || !strings.Contains(text, "fwd_encap") {
		t.Errorf("%q", text)
	}
}
