package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"roam/loader/route"
)

// A put is a list of changes that may never end. What has come is applied as soon as no more of it is here, or a batch is
// full: so a single change is in force at once, and a million cost a few hundred writes to disk. A line that cannot be
// applied is named in the answer, and the others go on.

const (
	putBuffer = 256 << 10 // of what the client sends
	putBatch  = 4096      // changes applied as one
)

// putLine is a line of a put: a route to inject, or one to withdraw, of which prefix and tenant say which.
type putLine struct {
	NewRoute
	Withdraw bool `json:"withdraw,omitempty"`
}

// PutProgress is a line of a put's answer: of a line that was refused its number and why, else how far the put has come.
// What the first Read lines say, but for the refused ones, is in force and on disk.
type PutProgress struct {
	Line  int    `json:"line,omitempty"` // from 1
	Error string `json:"error,omitempty"`
	Hint  string `json:"hint,omitempty"`

	Read    int  `json:"read,omitempty"`
	Added   int  `json:"added,omitempty"`
	Removed int  `json:"removed,omitempty"`
	Refused int  `json:"refused,omitempty"`
	Done    bool `json:"done,omitempty"` // the list has ended
}

// put is one under way.
type put struct {
	*Server
	ctx     context.Context
	in      *bufio.Reader
	out     *stream
	lines   lineReader
	batch   []route.Change
	numbers []int // of the lines of the batch
	sofar   PutProgress
}

// putRoutes reads changes and applies them as they come. It answers while it reads.
func (s *Server) putRoutes(w http.ResponseWriter, r *http.Request) error {
	if _, err := query(r); err != nil {
		return err
	}
	if format, err := formatOf(r.Header.Get("Content-Type")); err != nil || format != JSONL {
		return &Error{Message: "changes come as JSON lines", Hint: fmt.Sprintf("send %s", JSONL), Status: http.StatusUnsupportedMediaType}
	}
	control := http.NewResponseController(w)
	_ = control.EnableFullDuplex() // HTTP/2 and recorders are duplex anyway
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		select {
		case <-s.stopping:
			_ = control.SetReadDeadline(time.Now()) // who waits for a line need not
		case <-ended:
		}
	}()
	p := &put{
		Server: s, ctx: r.Context(), in: bufio.NewReaderSize(r.Body, putBuffer), out: newStream(w, string(JSONL)),
		lines: newLineReader(s.backend.Names),
	}
	if err := p.out.flush(); err != nil { // the client may wait for the head of the answer before it sends
		return nil
	}
	err := p.run()
	if err == nil {
		p.sofar.Done = true
		err = p.report()
	}
	return s.end(p.out, r, err)
}

func (p *put) run() error {
	for {
		line, err := p.next()
		if err == io.EOF {
			return p.apply()
		}
		if err != nil {
			return err
		}
		if len(line) > 0 && line[0] != '#' {
			if err := p.line(line); err != nil {
				return err
			}
		}
		if len(p.batch) < putBatch && p.hasLine() {
			continue
		}
		if err := p.apply(); err != nil {
			return err
		}
		if err := p.report(); err != nil {
			return err
		}
	}
}

// hasLine tells whether a whole line has come already.
func (p *put) hasLine() bool {
	waiting, _ := p.in.Peek(p.in.Buffered()) // what is buffered is there
	return bytes.IndexByte(waiting, '\n') >= 0
}

// next returns a line without its end; one that is too long is refused and passed over.
func (p *put) next() ([]byte, error) {
	line, err := p.in.ReadSlice('\n')
	if err == io.EOF && len(line) == 0 {
		return nil, io.EOF
	}
	p.sofar.Read++
	for long := false; ; long = true {
		if errors.Is(err, bufio.ErrBufferFull) {
			line, err = p.in.ReadSlice('\n')
			continue
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil, &Error{Message: "the daemon is stopping", Hint: "what was not answered for is to be sent again", Status: http.StatusServiceUnavailable}
		}
		if err != nil && err != io.EOF {
			return nil, fmt.Errorf("read after line %d: %w", p.sofar.Read-1, err)
		}
		if long || len(line) > maxLine {
			return nil, p.refuse(p.sofar.Read, fmt.Errorf("longer than %d bytes", maxLine))
		}
		return bytes.TrimSpace(line), nil
	}
}

// line reads one change into the batch.
func (p *put) line(line []byte) error {
	c, err := p.change(line)
	if err != nil {
		return p.refuse(p.sofar.Read, err)
	}
	p.batch, p.numbers = append(p.batch, c), append(p.numbers, p.sofar.Read)
	return nil
}

func (p *put) change(line []byte) (route.Change, error) {
	if !bytes.Contains(line, []byte(`withdraw`)) { // nor with any escape: the decoder of routes refuses the field
		return p.lines.object(line)
	}
	var n putLine
	if err := strict(line, &n); err != nil {
		return route.Change{}, err
	}
	if !n.Withdraw {
		return p.lines.change(&n.NewRoute)
	}
	prefix, err := ParsePrefix(n.Prefix)
	if err != nil {
		return route.Change{}, err
	}
	tenant, err := p.lines.tenant(n.Tenant)
	return route.Change{Claim: route.Claim{Key: route.Key{Tenant: tenant, Prefix: prefix}}, Withdraw: true}, err
}

// apply brings the batch into force, all but the lines that are refused.
func (p *put) apply() error {
	err := p.inject(p.batch, p.numbers)
	clear(p.batch)
	p.batch, p.numbers = p.batch[:0], p.numbers[:0]
	return err
}

// inject applies changes as one where it can, else one half after the other: so a few that are wrong cost little, and the
// order stays. To withdraw what is not there is no mistake: a client that starts again says so of what it has not heard
// of. An error is none of a change's.
func (p *put) inject(changes []route.Change, numbers []int) error {
	if len(changes) == 0 {
		return nil
	}
	err := p.backend.Inject(p.ctx, changes)
	var known *Error
	switch {
	case err == nil:
		for i := range changes {
			if changes[i].Withdraw {
				p.sofar.Removed++
			} else {
				p.sofar.Added++
			}
		}
		return nil
	case !errors.As(err, &known) || known.Status < 400 || known.Status >= 500:
		return err
	case len(changes) == 1 && changes[0].Withdraw && known.Status == http.StatusNotFound:
		return nil
	case len(changes) == 1:
		return p.refuse(numbers[0], err)
	}
	half := len(changes) / 2
	if err := p.inject(changes[:half], numbers[:half]); err != nil {
		return err
	}
	return p.inject(changes[half:], numbers[half:])
}

func (p *put) refuse(line int, err error) error {
	p.sofar.Refused++
	m := PutProgress{Line: line, Error: err.Error()}
	var known *Error
	if errors.As(err, &known) {
		m.Hint = known.Hint
	}
	return p.out.line(m)
}

func (p *put) report() error {
	if err := p.out.line(p.sofar); err != nil {
		return err
	}
	return p.out.flush()
}

// Put sends changes, a line each, as they come, and calls f with every line of the answer. It ends with
// the list, or when the daemon goes.
func (c *Client) Put(ctx context.Context, list io.Reader, f func(PutProgress) error) error {
	done := false
	err := c.lines(ctx, http.MethodPost, "/v1/routes/put", nil, &upload{list, 0, JSONL}, func(line []byte) error {
		var p PutProgress
		if err := json.Unmarshal(line, &p); err != nil {
			return fmt.Errorf("read the answer: %w", err)
		}
		done = p.Done
		return f(p)
	})
	if err == nil && !done {
		err = errors.New("the daemon broke off before the end of the list")
	}
	return err
}
