package api_test

import (
	"context"
	"errors"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"roam/loader/api"
	"roam/loader/api/apitest"
)

// What is asked for arrives as it was asked; the first line says that it has begun, the last one how it ended.
func TestTrace(t *testing.T) {
	d := &apitest.Daemon{Lost: 7}
	socket, _ := serve(t, d)
	want := api.TraceRequest{
		Host: netip.MustParseAddr("10.1.0.7"), Tenant: 2, Reasons: []string{"drop", "fwd_encap"}, Locator: netip.MustParseAddr("2001:db8:ff::2"),
		Sample: 9, Bytes: 64, Count: 2, For: 1500 * time.Millisecond,
	}
	var lines []api.TracedPacket
	check(t, client(t, socket).Trace(t.Context(), want, "blue", func(p api.TracedPacket) error { lines = append(lines, p); return nil }))
	if got := d.Asked; got.Host != want.Host || got.Tenant != want.Tenant || !slices.Equal(got.Reasons, want.Reasons) || got.Locator != want.Locator ||
		got.Sample != want.Sample || got.Bytes != want.Bytes || got.Count != want.Count || got.For != want.For {
		t.Errorf("asked for %+v, want %+v", got, want)
	}
	traffic := apitest.Traffic()
	if len(lines) != 4 || lines[0].Reason != "" || lines[0].Lost != 0 || lines[1].Reason != traffic[0].Reason || len(lines[1].Before) != len(traffic[0].Before) ||
		lines[1].To != traffic[0].To || lines[2].Reason != traffic[1].Reason || lines[3].Reason != "" || lines[3].Lost != 7 {
		t.Errorf("told %+v", lines)
	}
}

// Whatever ends it, it ends at the daemon too: its own time, a client that leaves, a daemon that stops.
func TestTraceEnds(t *testing.T) {
	for _, by := range []string{"time", "client", "daemon"} {
		d := &apitest.Daemon{Lost: 3, Ended: make(chan struct{}, 1)}
		socket, stop := serve(t, d)
		ctx, leave := context.WithCancel(t.Context())
		defer leave()
		var request api.TraceRequest
		if by == "time" {
			request.For = 50 * time.Millisecond
		}
		lost := uint64(0)
		err := client(t, socket).Trace(ctx, request, "", func(p api.TracedPacket) error {
			if p.Lost != lost && by != "time" { // told without a packet, while it goes on
				switch by {
				case "client":
					leave()
				case "daemon":
					go stop()
				}
			}
			lost = p.Lost
			return nil
		})
		if lost != 3 || err != nil && by == "time" || by == "client" && !errors.Is(err, context.Canceled) {
			t.Errorf("by %s: %v, %d lost", by, err, lost)
		}
		select {
		case <-d.Ended:
		case <-time.After(10 * time.Second):
			t.Errorf("by %s: it goes on", by)
		}
	}
}

func TestTraceRefuses(t *testing.T) {
	d := &apitest.Daemon{}
	socket, _ := serve(t, d)
	c := client(t, socket)
	none := func(api.TracedPacket) error { return nil }
	if err := c.Trace(t.Context(), api.TraceRequest{}, "red", none); err == nil || !strings.Contains(err.Error(), `"red"`) {
		t.Errorf("a tenant that there is none: %v", err)
	}
	handler := server(d)
	for query, want := range map[string]string{
		"host=gw2":             "is no address",
		"locator=fe80::1%25lo": "is no address",
		"sample=4294967296":    "is no number",
		"count=-1":             "is no number",
		"bytes=many":           "is no number",
		"seconds=soon":         "is no time",
		"seconds=NaN":          "is no time",
		"hosts=10.1.0.7":       "unknown parameter",
	} {
		answer := httptest.NewRecorder()
		handler.ServeHTTP(answer, httptest.NewRequest("GET", "/v1/trace?"+query, nil))
		if answer.Code != 400 || !strings.Contains(answer.Body.String(), want) {
			t.Errorf("%s: %d %s", query, answer.Code, answer.Body)
		}
	}
}
