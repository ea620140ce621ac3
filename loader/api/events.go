package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"roam/loader/event"
)

// Event answers GET /v1/events, one a line. The vocabulary is the log's.
type Event = event.Event

// Recorder remembers what happened.
type Recorder interface {
	// Since returns the kept events with numbers above after, and how many of those are no longer kept.
	Since(after uint64) event.Page
}

// events tells what happened after an event of a number, and with follow what happens from now on. Where more
// happened than is kept, a line of kind "more" says how much is missing.
func (s *Server) events(w http.ResponseWriter, r *http.Request) error {
	values, err := query(r, "after", "follow")
	if err != nil {
		return err
	}
	var after uint64
	if text := values.Get("after"); text != "" {
		if after, err = strconv.ParseUint(text, 10, 64); err != nil {
			return wrong(fmt.Errorf("after=%.40q is no number of an event", text), "each event has its number; 0 is before the first")
		}
	}
	follow, err := flag(values, "follow")
	if err != nil {
		return err
	}
	out := newStream(w, string(JSONL))
	for {
		page := s.backend.Since(after)
		if after, err = sendPage(out, after, page); err != nil || !follow {
			return s.end(out, r, err)
		}
		if err := out.flush(); err != nil {
			return nil // the client has gone
		}
		select {
		case <-page.Changed:
		case <-r.Context().Done():
			return nil
		case <-s.stopping:
			return nil
		}
	}
}

// sendPage returns the number of the last event sent.
func sendPage(out *stream, after uint64, page event.Page) (uint64, error) {
	if page.Missed > 0 && after > 0 { // from the very beginning nobody expects everything
		gap := Event{
			Kind: event.More, Number: after + page.Missed, Time: page.Events[0].Time, Subject: "events",
			What: fmt.Sprintf("%d events are missing here: they came faster than they were read", page.Missed),
		}
		if err := out.line(gap); err != nil {
			return after, err
		}
	}
	for _, e := range page.Events {
		if err := out.line(e); err != nil {
			return after, err
		}
		after = e.Number
	}
	return after, nil
}

// Events calls f for each event after the one of that number; with follow until ctx ends or the daemon stops.
func (c *Client) Events(ctx context.Context, after uint64, follow bool, f func(Event) error) error {
	query := url.Values{"after": {strconv.FormatUint(after, 10)}, "follow": {strconv.FormatBool(follow)}}
	return c.lines(ctx, http.MethodGet, "/v1/events", query, nil, func(line []byte) error {
		var e Event
		if err := json.Unmarshal(line, &e); err != nil {
			return fmt.Errorf("read the answer: %w", err)
		}
		return f(e)
	})
}
