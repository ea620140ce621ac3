package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"roam/loader/route"
)

// TraceRequest says which packets somebody wants to be told of. Zero fields ask for nothing.
type TraceRequest struct {
	Host    netip.Addr     // source or destination
	Tenant  route.TenantID // 0: every one
	Reasons []string       // one of them; fwd, pass and drop are all of a family
	Locator netip.Addr     // of the tunnel that it came or leaves by
	Sample  uint32         // one packet in so many, at random; 0 and 1: every one
	Bytes   int            // of the frame, as it came and at the end
	Count   uint64         // the end comes after so many packets; 0: not by itself
	For     time.Duration  // the end comes after this time; 0: not by itself
}

// TracedPacket is a line of the answer to GET /v1/trace: what happened to a packet, or, where Reason is "", only how many were lost. The
// first line is of that kind and says that from now on packets are told of, the last one says how it ended.
type TracedPacket struct {
	Time            time.Time  `json:"time"`
	Lost            uint64     `json:"lost"` // packets until now that were chosen and are told of nowhere
	Reason          string     `json:"reason,omitempty"`
	Verdict         string     `json:"verdict,omitempty"`
	Tenant          string     `json:"tenant,omitempty"`
	In              string     `json:"in,omitempty"`    // port
	Out             string     `json:"out,omitempty"`   // port, of what was forwarded
	Source          netip.Addr `json:"source,omitzero"` // out of a tunnel the inner one, as everything up to the ports
	Destination     netip.Addr `json:"destination,omitzero"`
	Protocol        uint8      `json:"protocol,omitempty"`
	SourcePort      uint16     `json:"source_port,omitempty"`
	DestinationPort uint16     `json:"destination_port,omitempty"`
	From            netip.Addr `json:"from,omitzero"`          // locator whose tunnel it came by
	To              netip.Addr `json:"to,omitzero"`            // locator whose tunnel it was to leave by
	Length          int        `json:"length,omitempty"`       // of the frame as it came
	LengthAfter     int        `json:"length_after,omitempty"` // and at the end
	Before          []byte     `json:"before,omitempty"`       // the frame as it came, as much as was asked for
	After           []byte     `json:"after,omitempty"`        // and at the end
}

// Tracer tells what happens to packets.
type Tracer interface {
	// Trace begins to tell of packets. An unknown name is an *Error.
	Trace(ctx context.Context, request TraceRequest) (Trace, error)
}

// Trace is one telling.
type Trace interface {
	// Packets are told as they happen, with no Lost in them; the channel is closed behind the last by Stop.
	Packets() <-chan TracedPacket
	// Lost is how many were lost until now.
	Lost() (uint64, error)
	// Stop ends it and says how many were lost in all. Called once.
	Stop() (uint64, error)
}

// lostEvery is how often who reads a trace is told what was lost, if there is news.
const lostEvery = 200 * time.Millisecond

func (s *Server) trace(w http.ResponseWriter, r *http.Request) error {
	request, err := s.traceRequest(r)
	if err != nil {
		return err
	}
	t, err := s.backend.Trace(r.Context(), request)
	if err != nil {
		return err
	}
	out := &telling{stream: newStream(w, string(JSONL)), left: request.Count}
	err = s.tell(out, r, t, request.For)
	var stopped error
	out.lost, stopped = t.Stop()
	for p := range t.Packets() {
		if err == nil {
			err = out.packet(p)
		}
	}
	if err != nil || out.status() != nil {
		return nil // the client has gone
	}
	return s.end(out.stream, r, stopped)
}

// telling is a stream of packets.
type telling struct {
	*stream
	lost    uint64
	left    uint64 // packets, where there is an end to them
	endless bool
	done    bool
}

func (o *telling) packet(p TracedPacket) error {
	if o.done {
		return nil
	}
	p.Lost = o.lost
	if o.left--; !o.endless && o.left == 0 {
		o.done = true
	}
	return o.line(p)
}

func (o *telling) status() error {
	return o.line(TracedPacket{Time: time.Now(), Lost: o.lost})
}

// tell sends packets until there is an end to it. An error says that the client has gone.
func (s *Server) tell(out *telling, r *http.Request, t Trace, limit time.Duration) error {
	out.endless = out.left == 0
	var end <-chan time.Time
	if limit > 0 {
		timer := time.NewTimer(limit)
		defer timer.Stop()
		end = timer.C
	}
	tick := time.NewTicker(lostEvery)
	defer tick.Stop()
	if err := out.status(); err != nil {
		return err
	}
	for !out.done {
		if len(t.Packets()) == 0 {
			if err := out.flush(); err != nil {
				return err
			}
		}
		select {
		case p := <-t.Packets():
			if err := out.packet(p); err != nil {
				return err
			}
		case <-tick.C:
			lost, err := t.Lost()
			if err != nil || lost == out.lost {
				continue // the end says it again
			}
			out.lost = lost
			if err := out.status(); err != nil {
				return err
			}
		case <-end:
			return nil
		case <-r.Context().Done():
			return r.Context().Err()
		case <-s.stopping:
			return nil
		}
	}
	return nil
}

// traceRequest reads the parameters.
func (s *Server) traceRequest(r *http.Request) (t TraceRequest, err error) {
	values, err := query(r, "host", "tenant", "reason", "locator", "sample", "bytes", "count", "seconds")
	if err != nil {
		return t, err
	}
	if t.Tenant, err = s.filterTenant(values.Get("tenant")); err != nil {
		return t, err
	}
	for name, to := range map[string]*netip.Addr{"host": &t.Host, "locator": &t.Locator} {
		if text := values.Get(name); text != "" {
			if *to, err = netip.ParseAddr(text); err != nil || to.Zone() != "" {
				return t, wrong(fmt.Errorf("%s=%.60q is no address", name, text), "such as 10.1.0.7 or 2001:db8:1::7")
			}
			*to = to.Unmap()
		}
	}
	if text := values.Get("reason"); text != "" {
		t.Reasons = strings.Split(text, ",")
	}
	var sample, bytes uint64
	for name, n := range map[string]struct {
		to  *uint64
		max uint64
	}{"sample": {&sample, 1<<32 - 1}, "bytes": {&bytes, maxFrame}, "count": {&t.Count, 1<<63 - 1}} {
		if text := values.Get(name); text != "" {
			if *n.to, err = strconv.ParseUint(text, 10, 63); err != nil || *n.to > n.max {
				return t, wrong(fmt.Errorf("%s=%.30q is no number from 0 to %d", name, text, n.max), "")
			}
		}
	}
	t.Sample, t.Bytes = uint32(sample), int(bytes)
	if text := values.Get("seconds"); text != "" {
		seconds, err := strconv.ParseFloat(text, 64)
		if err != nil || !(seconds >= 0 && seconds < 1e9) {
			return t, wrong(fmt.Errorf("seconds=%.30q is no time", text), "a number of seconds, such as 2.5")
		}
		t.For = time.Duration(seconds * float64(time.Second))
	}
	return t, nil
}

// Trace calls f for each packet, and for each word on how many were lost, until the end that the request names; or ctx ends,
// or the daemon stops. Tenant is a name, "" for every one, instead of the request's number.
func (c *Client) Trace(ctx context.Context, request TraceRequest, tenant string, f func(TracedPacket) error) error {
	query := url.Values{}
	setQuery(query, "tenant", tenant)
	setQuery(query, "reason", strings.Join(request.Reasons, ","))
	for name, a := range map[string]netip.Addr{"host": request.Host, "locator": request.Locator} {
		if a.IsValid() {
			query.Set(name, a.String())
		}
	}
	for name, n := range map[string]uint64{"sample": uint64(request.Sample), "bytes": uint64(request.Bytes), "count": request.Count} {
		if n > 0 {
			query.Set(name, strconv.FormatUint(n, 10))
		}
	}
	if request.For > 0 {
		query.Set("seconds", strconv.FormatFloat(request.For.Seconds(), 'f', -1, 64))
	}
	return c.lines(ctx, http.MethodGet, "/v1/trace", query, nil, func(line []byte) error {
		var p TracedPacket
		if err := json.Unmarshal(line, &p); err != nil {
			return fmt.Errorf("read the answer: %w", err)
		}
		return f(p)
	})
}
