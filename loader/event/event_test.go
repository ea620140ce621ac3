package event

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"
)

// quiet is a log whose time a test sets.
func quiet(now *time.Time) *Log {
	l := New(slog.New(slog.DiscardHandler))
	l.now = func() time.Time { return *now }
	return l
}

func TestOrderAndTotals(t *testing.T) {
	now := time.Unix(1000, 0)
	l := quiet(&now)
	for i := range 3 {
		l.Add(Event{Kind: Move, Subject: fmt.Sprint(i)})
	}
	p := l.Since(1)
	if len(p.Events) != 2 || p.Events[0].Subject != "1" || p.Events[1].Number != 3 || p.Missed != 0 {
		t.Errorf("after 1: %+v", p)
	}
	select {
	case <-p.Changed:
		t.Error("changed before anything did")
	default:
	}
	l.Add(Event{Kind: Ready})
	<-p.Changed
	if totals := l.Totals(); totals[Move] != 3 || totals[Ready] != 1 || totals[Claim] != 0 {
		t.Errorf("totals %v", totals)
	}
}

// What exceeds the quota is counted, composed for nobody, and told of when the span is over.
func TestQuota(t *testing.T) {
	now := time.Unix(1000, 0)
	l := quiet(&now)
	composed := 0
	for range 10 * quota {
		l.Note(Move, func() Event { composed++; return Event{} })
	}
	l.Add(Event{Kind: Ready}) // another kind has its own
	if p := l.Since(0); composed != quota || len(p.Events) != quota+1 {
		t.Fatalf("%d composed, %d kept", composed, len(p.Events))
	}
	now = now.Add(span)
	p := l.Since(quota + 1)
	if len(p.Events) != 1 || p.Events[0].Kind != More || !strings.HasPrefix(p.Events[0].What, fmt.Sprint(9*quota)) {
		t.Errorf("after the span: %+v", p.Events)
	}
	l.Add(Event{Kind: Move})
	if p := l.Since(quota + 2); len(p.Events) != 1 {
		t.Errorf("the quota did not come back: %+v", p.Events)
	}
	if totals := l.Totals(); totals[Move] != 10*quota+1 {
		t.Errorf("%d counted", totals[Move])
	}
}

// A slow reader learns how much it missed, and gets the rest in order.
func TestMissed(t *testing.T) {
	now := time.Unix(1000, 0)
	l := quiet(&now)
	for range Size + 10 {
		l.Add(Event{Kind: Move})
		now = now.Add(span)
	}
	p := l.Since(3)
	if p.Missed != 7 || len(p.Events) != Size || p.Events[0].Number != 11 {
		t.Errorf("missed %d, %d events from number %d", p.Missed, len(p.Events), p.Events[0].Number)
	}
}

func TestLogged(t *testing.T) {
	var text bytes.Buffer
	l := New(slog.New(slog.NewTextHandler(&text, nil)))
	l.Add(Event{Kind: LocatorDown, What: "locator 192.0.2.2 is out of reach", Why: "no route", Do: "ip route get 192.0.2.2"})
	for _, want := range []string{"level=WARN", `msg="locator 192.0.2.2 is out of reach"`, "event=locator_down", `why="no route"`, `do="ip route get`} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("no %s in %s", want, text.String())
		}
	}
}
