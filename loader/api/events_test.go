package api_test

import (
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"roam/loader/api"
	"roam/loader/api/apitest"
	"roam/loader/event"
)

// A reader that knows some events gets the later ones, and hears of those that it has missed.
func TestEventsAfter(t *testing.T) {
	d := &apitest.Daemon{Events: apitest.Happened()}
	socket, _ := serve(t, d)
	c := client(t, socket)
	read := func(after uint64) (list []api.Event) {
		t.Helper()
		check(t, c.Events(t.Context(), after, false, func(e api.Event) error { list = append(list, e); return nil }))
		return list
	}
	if got := read(1); len(got) != 1 || got[0].Kind != event.LocatorDown || got[0].Number != 2 {
		t.Errorf("after 1: %+v", got)
	}
}

// overrun is a story whose beginning is no longer kept.
type overrun struct{}

func (overrun) Since(uint64) event.Page {
	return event.Page{Missed: 7, Events: []api.Event{{Number: 9, Kind: event.Ready}}, Changed: make(chan struct{})}
}

func TestEventsMissed(t *testing.T) {
	backend := (&apitest.Daemon{}).Backend()
	backend.Recorder = overrun{}
	handler := api.NewServer("", backend, slog.New(slog.DiscardHandler)).Handler()
	for query, want := range map[string]string{
		"":         `{"number":9,"time":"0001-01-01T00:00:00Z","kind":"ready","subject":"","what":""}`,
		"?after=1": `{"number":8,"time":"0001-01-01T00:00:00Z","kind":"more","subject":"events","what":"7 events are missing here: they came faster than they were read"}`,
	} {
		answer := httptest.NewRecorder()
		handler.ServeHTTP(answer, httptest.NewRequest("GET", "/v1/events"+query, nil))
		if line, _, _ := strings.Cut(answer.Body.String(), "\n"); line != want {
			t.Errorf("%q: got %s, want %s", query, line, want)
		}
	}
}

// A story ends at once when the daemon stops: it must not hold up the stop.
func TestStopEndsStories(t *testing.T) {
	d := &apitest.Daemon{Events: apitest.Happened()}
	socket, stop := serve(t, d)
	c := client(t, socket)
	seen, ended := make(chan api.Event, 8), make(chan error, 1)
	go func() {
		ended <- c.Events(t.Context(), 0, true, func(e api.Event) error { seen <- e; return nil })
	}()
	<-seen
	<-seen
	d.Events.Add(api.Event{Kind: event.Ready, What: "ready"})
	if e := <-seen; e.Kind != event.Ready {
		t.Errorf("heard %+v", e)
	}
	start := time.Now()
	stop()
	if err := <-ended; err != nil && !strings.Contains(err.Error(), "broke off") {
		t.Error(err)
	}
	if took := time.Since(start); took > time.Second {
		t.Errorf("the stop took %v", took)
	}
}
