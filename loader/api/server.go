package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Limits of a request. An import has its own.
const (
	maxBody       = 1 << 20
	maxImport     = 1 << 30
	headerTimeout = 5 * time.Second
	stallTimeout  = 30 * time.Second // of a client that takes nothing of a stream
	stopTimeout   = 2 * time.Second
)

// Server answers on the control socket.
type Server struct {
	backend Backend
	path    string
	log     *slog.Logger
	ready   chan struct{}

	stopping chan struct{} // closed when Run is to end: streams without an end of their own end then
}

// NewServer returns a server for the socket at path; Run opens it.
func NewServer(path string, backend Backend, log *slog.Logger) *Server {
	return &Server{backend: backend, path: path, log: log, ready: make(chan struct{}), stopping: make(chan struct{})}
}

func (s *Server) String() string { return "api" }

// Ready is closed once the socket answers.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// Run serves until its context ends, and then gives requests under way a moment to finish. The socket is gone
// when it returns.
func (s *Server) Run(ctx context.Context) error {
	l, err := Listen(s.path)
	if err != nil {
		return err
	}
	requests, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	server := &http.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: headerTimeout,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
		BaseContext:       func(net.Listener) context.Context { return requests },
	}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		close(s.stopping)
		grace, done := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer done()
		if server.Shutdown(grace) != nil {
			cancel()
			server.Close()
		}
	})
	close(s.ready)
	err = server.Serve(l)
	if stop() { // it ended by itself
		return fmt.Errorf("serve control socket %s: %w", s.path, err)
	}
	<-stopped
	return nil
}

// Handler answers every endpoint; docs/openapi.yaml lists them.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	for pattern, endpoint := range map[string]func(http.ResponseWriter, *http.Request) error{
		"GET /v1/status":         answer(s.backend.Status),
		"GET /v1/sites":          answer(s.backend.Sites),
		"GET /v1/sessions":       answer(s.backend.Sessions),
		"GET /v1/counters":       answer(s.backend.Counters),
		"GET /v1/events":         s.events,
		"GET /v1/trace":          s.trace,
		"GET /v1/shadow":         s.shadow,
		"GET /v1/doctor":         answer(s.backend.Doctor),
		"POST /v1/reload":        answer(s.backend.Reload),
		"POST /v1/explain":       s.explain,
		"POST /v1/ping":          s.ping,
		"GET /v1/routes":         s.routes,
		"POST /v1/routes":        s.add,
		"DELETE /v1/routes":      s.remove,
		"GET /v1/routes/lookup":  s.lookup,
		"POST /v1/routes/flush":  s.flush,
		"POST /v1/routes/import": s.importRoutes,
		"POST /v1/routes/put":    s.putRoutes,
		"GET /v1/routes/watch":   s.watch,
		"GET /v1/routes/export":  s.exportRoutes,
		"GET /v1/hosts":          s.hosts,
		"GET /v1/hosts/{host}":   s.host,
		"POST /v1/hosts/move":    s.move,
		"POST /v1/hosts/check":   s.checkMoves,
		"POST /v1/hosts/clear":   s.clear,
		"POST /v1/gateway/drain": s.drain,
		"/": func(_ http.ResponseWriter, r *http.Request) error {
			return &Error{Message: fmt.Sprintf("nothing answers %s %s", r.Method, r.URL.Path), Hint: "docs/openapi.yaml lists what does", Status: 404}
		},
	} {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if err := endpoint(w, r); err != nil {
				s.fail(w, r, err)
			}
		})
	}
	return mux
}

// answer is an endpoint that takes nothing and answers with what a method of the backend returns.
func answer[T any](method func(context.Context) (T, error)) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		if _, err := query(r); err != nil {
			return err
		}
		value, err := method(r.Context())
		if err != nil {
			return err
		}
		return reply(w, value)
	}
}

// fail sends an error, as the whole answer or as the last line of a stream that has begun.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	e := asError(err)
	if e.Status >= 500 && r.Context().Err() == nil {
		s.log.Warn("control request failed", "method", r.Method, "path", r.URL.Path, "error", err)
	}
	if b, streaming := w.(*stream); streaming {
		_ = b.line(e)
		_ = b.flush()
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(e.Status)
	_ = json.NewEncoder(w).Encode(e) // a client that has gone hears nothing
}

// asError finds the *Error in err and keeps what was wrapped around it.
func asError(err error) *Error {
	e := &Error{Message: err.Error(), Status: http.StatusInternalServerError}
	var known *Error
	var size *http.MaxBytesError
	switch {
	case errors.As(err, &known):
		e.Hint = known.Hint
		if known.Status != 0 {
			e.Status = known.Status
		}
	case errors.As(err, &size):
		e.Message = fmt.Sprintf("the request is larger than %d bytes", size.Limit)
		e.Hint, e.Status = "split it", http.StatusRequestEntityTooLarge
	}
	return e
}

// wrong is an error of the caller.
func wrong(err error, hint string) error {
	var known *Error
	if errors.As(err, &known) {
		return err
	}
	return &Error{Message: err.Error(), Hint: hint, Status: http.StatusBadRequest}
}

func reply(w http.ResponseWriter, answer any) error { return answerWith(w, "application/json", answer) }

func answerWith(w http.ResponseWriter, mediaType string, answer any) error {
	b, err := json.Marshal(answer)
	if err != nil {
		return fmt.Errorf("encode the answer: %w", err)
	}
	w.Header().Set("Content-Type", mediaType)
	_, _ = w.Write(append(b, '\n')) // a client that has gone hears nothing
	return nil
}

// body reads one JSON value, strictly. A body may be left out where every field may.
func body(w http.ResponseWriter, r *http.Request, into any) error {
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return fmt.Errorf("read the request: %w", err)
	}
	if err := strict(data, into); err != nil {
		return wrong(err, "docs/openapi.yaml describes the request")
	}
	return nil
}

// query returns the parameters, of which only the known may be given, each once.
func query(r *http.Request, known ...string) (url.Values, error) {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, wrong(fmt.Errorf("read the parameters: %w", err), "")
	}
	for name, list := range values {
		switch {
		case !slices.Contains(known, name) && len(known) == 0:
			return nil, wrong(fmt.Errorf("unknown parameter %.40q: none is taken here", name), "")
		case !slices.Contains(known, name):
			return nil, wrong(fmt.Errorf("unknown parameter %.40q", name), "known here: "+strings.Join(known, ", "))
		case len(list) > 1:
			return nil, wrong(fmt.Errorf("parameter %s is given %d times", name, len(list)), "")
		}
	}
	return values, nil
}

// flag reads a parameter that is true or false, false where left out.
func flag(values url.Values, name string) (bool, error) {
	text := values.Get(name)
	if text == "" {
		return false, nil
	}
	b, err := strconv.ParseBool(text)
	if err != nil {
		return false, wrong(fmt.Errorf("%s=%.20q is neither true nor false", name, text), "")
	}
	return b, nil
}
