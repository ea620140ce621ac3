package api

import (
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"

	"roam/loader/tidy"
)

// SourceName is what the RIB calls the routes that came through this socket.
const SourceName = "api"

// importRoutes reads a route list and injects it, all or nothing. It answers while it reads.
func (s *Server) importRoutes(w http.ResponseWriter, r *http.Request) error {
	if _, err := query(r); err != nil {
		return err
	}
	format, err := formatOf(r.Header.Get("Content-Type"))
	if err != nil {
		return err
	}
	// Without this the server would read all of the body before the first line of progress.
	_ = http.NewResponseController(w).EnableFullDuplex() // HTTP/2 and recorders are duplex anyway
	in := http.MaxBytesReader(w, r.Body, maxImport)
	var out *stream
	progress := func(lines int) error {
		if out == nil {
			out = newStream(w, string(JSONL))
		}
		if err := out.line(Progress{Read: lines}); err != nil {
			return err
		}
		return out.flush()
	}
	n, err := s.importFrom(r, in, format, progress)
	if err != nil {
		// A client that is still sending would take a closed connection for the answer.
		_, _ = io.Copy(io.Discard, in)
		if out == nil {
			return err
		}
		return s.end(out, r, err)
	}
	done := Progress{Read: n.lines, Done: true, Added: n.routes}
	if out == nil { // one line needs no stream
		return answerWith(w, string(JSONL), done)
	}
	return s.end(out, r, out.line(done))
}

type imported struct{ lines, routes int }

func (s *Server) importFrom(r *http.Request, in io.Reader, format Format, progress func(int) error) (imported, error) {
	changes, lines, err := ReadRoutes(in, format, s.backend.Names, r.ContentLength, progress)
	n := imported{lines, len(changes)}
	if lines > progressStep {
		defer tidy.Later()
	}
	var line *LineError
	switch {
	case errors.As(err, &line):
		hint := "nothing was changed: correct the line and import again"
		var known *Error
		if errors.As(err, &known) && known.Hint != "" {
			hint = "nothing was changed: " + known.Hint
		}
		return n, &Error{Message: err.Error(), Hint: hint, Status: http.StatusBadRequest}
	case err != nil:
		return n, err
	case len(changes) == 0:
		return n, nil
	}
	return n, s.backend.Inject(r.Context(), changes)
}

func formatOf(contentType string) (Format, error) {
	media, _, err := mime.ParseMediaType(contentType)
	switch {
	case err != nil && contentType != "":
	case media == string(CSV):
		return CSV, nil
	case media == string(JSONL), media == "application/x-ndjson", media == "application/jsonlines":
		return JSONL, nil
	}
	return "", &Error{
		Message: fmt.Sprintf("content type %.60q is no route list", contentType),
		Hint:    fmt.Sprintf("send %s or %s", CSV, JSONL),
		Status:  http.StatusUnsupportedMediaType,
	}
}

// exportRoutes writes what was injected, as a list that importRoutes takes.
func (s *Server) exportRoutes(w http.ResponseWriter, r *http.Request) error {
	values, err := query(r, "format", "tenant")
	if err != nil {
		return err
	}
	filter := Filter{Source: SourceName}
	if filter.Tenant, err = s.filterTenant(values.Get("tenant")); err != nil {
		return err
	}
	format := CSV
	switch f := values.Get("format"); f {
	case "", "csv":
	case "jsonl":
		format = JSONL
	default:
		return wrong(fmt.Errorf("format %.20q is unknown", f), "use csv or jsonl")
	}
	list := NewRouteWriter(format, s.backend.Names)
	if format == CSV {
		if err := s.backend.Walk(r.Context(), filter, func(c *Claim) error { list.Need(&c.Claim); return nil }); err != nil {
			return err
		}
	}
	out := newStream(w, string(format))
	line := list.Header(nil)
	_, err = out.buf.Write(line)
	if err == nil {
		err = s.backend.Walk(r.Context(), filter, func(c *Claim) error {
			if !list.covers(&c.Claim) {
				return errors.New("the routes changed while they were written: export again")
			}
			line = list.Append(line[:0], &c.Claim)
			_, err := out.buf.Write(line)
			return err
		})
	}
	if err != nil {
		s.log.Warn("export of routes broken off", "error", err)
		panic(http.ErrAbortHandler) // a list has no place for an error: break the connection off
	}
	return s.end(out, r, nil)
}
