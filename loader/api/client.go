package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"syscall"
)

// Unreachable is the failure to talk to a daemon at all.
type Unreachable struct {
	Socket string
	Err    error
}

func (e *Unreachable) Error() string {
	return fmt.Sprintf("reach the daemon at %s: %v", e.Socket, e.Err)
}

func (e *Unreachable) Unwrap() error { return e.Err }

// Hint is the way out.
func (e *Unreachable) Hint() string {
	switch {
	case errors.Is(e.Err, fs.ErrPermission):
		return "run as root, or as a member of the socket's group"
	case errors.Is(e.Err, fs.ErrNotExist), errors.Is(e.Err, syscall.ECONNREFUSED):
		return "start roamd, or name its socket with --socket or ROAM_SOCKET"
	}
	return "see what roamd logs, or name another socket with --socket or ROAM_SOCKET"
}

// Client talks to one daemon. It is safe for concurrent use. Errors are *Error where the daemon answered, and
// *Unreachable where it did not.
type Client struct {
	socket string
	http   http.Client
}

// NewClient returns a client of the daemon behind a socket; it connects when asked something.
func NewClient(socket string) *Client {
	var dialer net.Dialer
	return &Client{socket: socket, http: http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", socket)
		},
		DisableCompression: true,
	}}}
}

// Close ends idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Status asks how the daemon fares.
func (c *Client) Status(ctx context.Context) (s Status, err error) {
	return s, c.get(ctx, "/v1/status", nil, &s)
}

// Shadow asks what was seen in shadow mode, in groups of at most so many hosts.
func (c *Client) Shadow(ctx context.Context, group int) (r ShadowReport, err error) {
	return r, c.get(ctx, "/v1/shadow", url.Values{"group": {strconv.Itoa(group)}}, &r)
}

// Sites asks for all sites.
func (c *Client) Sites(ctx context.Context) (s List[Site], err error) {
	return s, c.get(ctx, "/v1/sites", nil, &s)
}

// Sessions asks for all sessions.
func (c *Client) Sessions(ctx context.Context) (s List[Session], err error) {
	return s, c.get(ctx, "/v1/sessions", nil, &s)
}

// Counters asks for all counters.
func (c *Client) Counters(ctx context.Context) (n Counters, err error) {
	return n, c.get(ctx, "/v1/counters", nil, &n)
}

// Doctor asks for findings.
func (c *Client) Doctor(ctx context.Context) (l List[Check], err error) {
	return l, c.get(ctx, "/v1/doctor", nil, &l)
}

// Reload makes the daemon read its configuration again.
func (c *Client) Reload(ctx context.Context) (r Reloaded, err error) {
	return r, c.post(ctx, "/v1/reload", nil, &r)
}

// Explain asks what would happen to a packet.
func (c *Client) Explain(ctx context.Context, request ExplainRequest) (e Explanation, err error) {
	return e, c.post(ctx, "/v1/explain", request, &e)
}

// Ping probes the tunnel to a locator once.
func (c *Client) Ping(ctx context.Context, request PingRequest) (p Ping, err error) {
	return p, c.post(ctx, "/v1/ping", request, &p)
}

// Add injects a route.
func (c *Client) Add(ctx context.Context, n NewRoute) error {
	return c.post(ctx, "/v1/routes", n, nil)
}

// Remove withdraws an injected route.
func (c *Client) Remove(ctx context.Context, prefix netip.Prefix, tenant string) error {
	query := url.Values{"prefix": {prefix.String()}}
	setQuery(query, "tenant", tenant)
	return c.do(ctx, http.MethodDelete, "/v1/routes", query, nil, nil)
}

// Flush withdraws all injected routes.
func (c *Client) Flush(ctx context.Context) (n Injected, err error) {
	return n, c.post(ctx, "/v1/routes/flush", nil, &n)
}

// Lookup asks for the routes that cover an address.
func (c *Client) Lookup(ctx context.Context, address netip.Addr, tenant string) (f Found, err error) {
	query := url.Values{"address": {address.String()}}
	setQuery(query, "tenant", tenant)
	return f, c.get(ctx, "/v1/routes/lookup", query, &f)
}

// Host asks where a host lives.
func (c *Client) Host(ctx context.Context, address netip.Addr, tenant string) (h Host, err error) {
	query := url.Values{}
	setQuery(query, "tenant", tenant)
	return h, c.get(ctx, "/v1/hosts/"+address.String(), query, &h)
}

// Move says where a host lives from now on.
func (c *Client) Move(ctx context.Context, m Move) error {
	return c.post(ctx, "/v1/hosts/move", m, nil)
}

// CheckMoves asks what would become of hosts that move.
func (c *Client) CheckMoves(ctx context.Context, m CheckMoves) (r MovesChecked, err error) {
	return r, c.post(ctx, "/v1/hosts/check", m, &r)
}

// Clear frees a host that is frozen.
func (c *Client) Clear(ctx context.Context, host Clear) error {
	return c.post(ctx, "/v1/hosts/clear", host, nil)
}

// Drain takes the gateway out of service, or puts it back.
func (c *Client) Drain(ctx context.Context, out bool) error {
	return c.post(ctx, "/v1/gateway/drain", Drain{Drained: out}, nil)
}

// RoutesQuery chooses among routes; zero fields choose everything.
type RoutesQuery struct {
	Tenant, Source, Site string
	Within               netip.Prefix
	Best                 bool
}

// Routes calls f with every line of the list of routes, each the JSON of a Route, valid until f returns.
func (c *Client) Routes(ctx context.Context, q RoutesQuery, f func(line []byte) error) error {
	query := url.Values{}
	setQuery(query, "tenant", q.Tenant)
	setQuery(query, "source", q.Source)
	setQuery(query, "site", q.Site)
	if q.Within.IsValid() {
		query.Set("within", q.Within.String())
	}
	if q.Best {
		query.Set("best", "true")
	}
	return c.lines(ctx, http.MethodGet, "/v1/routes", query, nil, f)
}

// Hosts calls f with every line of the list of hosts, each the JSON of a Host, valid until f returns.
func (c *Client) Hosts(ctx context.Context, tenant string, f func(line []byte) error) error {
	query := url.Values{}
	setQuery(query, "tenant", tenant)
	return c.lines(ctx, http.MethodGet, "/v1/hosts", query, nil, f)
}

// Import injects a route list, all or nothing. size is its length where known, else 0. progress may be nil.
func (c *Client) Import(ctx context.Context, list io.Reader, size int64, format Format, progress func(Progress)) (Progress, error) {
	var last Progress
	err := c.lines(ctx, http.MethodPost, "/v1/routes/import", nil, &upload{list, size, format}, func(line []byte) error {
		last = Progress{}
		if err := json.Unmarshal(line, &last); err != nil {
			return fmt.Errorf("read the answer: %w", err)
		}
		if progress != nil {
			progress(last)
		}
		return nil
	})
	if err == nil && !last.Done {
		err = errors.New("the daemon broke off before it had imported the list: nothing was changed, or everything: see roamctl route export")
	}
	return last, err
}

// Export writes the injected routes.
func (c *Client) Export(ctx context.Context, format, tenant string, to io.Writer) error {
	query := url.Values{}
	setQuery(query, "format", format)
	setQuery(query, "tenant", tenant)
	answer, err := c.send(ctx, http.MethodGet, "/v1/routes/export", query, nil)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if _, err := io.Copy(to, answer.Body); err != nil {
		return fmt.Errorf("write the routes: %w", err)
	}
	return nil
}

func setQuery(q url.Values, name, value string) {
	if value != "" {
		q.Set(name, value)
	}
}

// upload is a request's body.
type upload struct {
	from   io.Reader
	size   int64 // 0: unknown
	format Format
}

func (c *Client) get(ctx context.Context, path string, query url.Values, into any) error {
	return c.do(ctx, http.MethodGet, path, query, nil, into)
}

func (c *Client) post(ctx context.Context, path string, message, into any) error {
	var body *upload
	if message != nil {
		b, err := json.Marshal(message)
		if err != nil {
			return fmt.Errorf("encode the request: %w", err)
		}
		body = &upload{bytes.NewReader(b), int64(len(b)), "application/json"}
	}
	return c.do(ctx, http.MethodPost, path, nil, body, into)
}

// do asks and decodes the answer.
func (c *Client) do(ctx context.Context, method, path string, query url.Values, body *upload, into any) error {
	answer, err := c.send(ctx, method, path, query, body)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if into == nil {
		_, _ = io.Copy(io.Discard, answer.Body) // so that the connection can be used again
		return nil
	}
	if err := json.NewDecoder(answer.Body).Decode(into); err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	return nil
}

// send asks and returns an answer of status 200; any other is an error.
func (c *Client) send(ctx context.Context, method, path string, query url.Values, body *upload) (*http.Response, error) {
	u := url.URL{Scheme: "http", Host: "roamd", Path: path, RawQuery: query.Encode()}
	request, err := http.NewRequestWithContext(ctx, method, u.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("make the request: %w", err)
	}
	if body != nil {
		request.Body, request.ContentLength = io.NopCloser(body.from), body.size
		request.Header.Set("Content-Type", string(body.format))
		if body.size == 0 {
			request.ContentLength = -1
		}
	}
	answer, err := c.http.Do(request)
	if err != nil {
		return nil, c.unreachable(err)
	}
	if answer.StatusCode == http.StatusOK {
		return answer, nil
	}
	defer answer.Body.Close()
	e := Error{Status: answer.StatusCode}
	if json.NewDecoder(io.LimitReader(answer.Body, maxBody)).Decode(&e) != nil || e.Message == "" {
		e.Message = fmt.Sprintf("the daemon answered %s to %s %s", answer.Status, method, path)
		e.Hint = "is the socket really roamd's, and of the same version?"
	}
	return nil, &e
}

// unreachable takes the request's URL out of an error, which names no real host.
func (c *Client) unreachable(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	if errors.Is(err, context.Canceled) {
		return err
	}
	var op *net.OpError
	var system *os.SyscallError
	if errors.As(err, &op) {
		err = op.Err
	}
	if errors.As(err, &system) {
		err = system.Err
	}
	return &Unreachable{c.socket, err}
}

// lines asks for an answer of JSON lines and calls f for each; a line that is an Error ends it.
func (c *Client) lines(ctx context.Context, method, path string, query url.Values, body *upload, f func([]byte) error) error {
	answer, err := c.send(ctx, method, path, query, body)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	in := bufio.NewReaderSize(answer.Body, maxLine)
	for {
		line, err := in.ReadSlice('\n')
		switch {
		case err == io.EOF && len(line) == 0:
			return nil
		case err != nil:
			return fmt.Errorf("read the answer: the daemon broke off: %w", err)
		}
		line = bytes.TrimSuffix(line, []byte{'\n'})
		if bytes.HasPrefix(line, []byte(`{"error":`)) {
			e := Error{Status: http.StatusInternalServerError}
			if err := json.Unmarshal(line, &e); err != nil {
				return fmt.Errorf("read the answer: %w", err)
			}
			return &e
		}
		if err := f(line); err != nil {
			return err
		}
	}
}
