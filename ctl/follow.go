package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/urfave/cli/v2"

	"roam/loader/api"
)

// What a followed list says is put into the daemon line by line, and remembered here: of each route its last line. So a
// daemon that was away is told everything again, and what was withdrawn meanwhile as well.

const (
	lookAgain = 200 * time.Millisecond // at a file that may have grown, and for a daemon that is away
	maxTodo   = 4096                   // lines that are read ahead of what is sent
	lastWait  = 10 * time.Second       // for a daemon that is away when the list has ended
	maxLine   = 64 << 10
)

// following is an import that goes on.
type following struct {
	c   *cli.Context
	api *api.Client

	mu      sync.Mutex
	moved   *sync.Cond       // what follows has changed
	held    map[putKey]*said // what each route's last line says; a withdrawal until it is in force
	todo    []*said          // still to be sent; of those, one that is not held any more is passed over
	sent    []*said          // not known to be in force
	acked   int              // lines of this connection that are in front of sent
	broken  bool             // the connection has ended
	ended   bool             // no more lines come
	refused int
}

// putKey names a route as its lines do.
type putKey struct {
	prefix netip.Prefix
	tenant string
}

// said is a line of the list.
type said struct {
	key      putKey
	number   int // from 1
	text     []byte
	withdraw bool
}

func routeFollow(c *cli.Context) error {
	name, atEnd := c.Args().First(), c.String("at-end")
	switch {
	case atEnd != "keep" && atEnd != "withdraw":
		return usage("use --at-end keep or --at-end withdraw", "--at-end %q is unknown", atEnd)
	case c.String("format") != "" && c.String("format") != "jsonl":
		return usage("a list that is followed holds JSON lines", "format %q cannot be followed", c.String("format"))
	}
	in := c.App.Reader
	if name != "-" {
		g, err := openGrowing(c.Context, name)
		if err != nil {
			return &hinted{fmt.Errorf("import routes: %w", err), "the file must be there before it grows: create it empty, or use - for the standard input"}
		}
		defer g.Close()
		in = g
	}
	f := &following{c: c, api: client(c), held: make(map[putKey]*said)}
	f.moved = sync.NewCond(&f.mu)
	if _, err := f.api.Status(c.Context); err != nil {
		return err // a wrong socket is to be noticed now
	}
	return f.run(in, atEnd == "withdraw")
}

// run reads the list to its end, or until it is interrupted, and sees that the daemon has it.
func (f *following) run(in io.Reader, withdraw bool) error {
	ctx, cancel := context.WithCancel(context.WithoutCancel(f.c.Context)) // what was read is put after an interrupt, too
	defer cancel()
	putting, reading := make(chan error, 1), make(chan error, 1)
	go func() { putting <- f.put(ctx) }()
	go func() { reading <- f.read(in) }()
	var failed error
	select {
	case failed = <-reading:
	case <-f.c.Context.Done():
	case err := <-putting:
		return err
	}
	f.end(withdraw)
	defer time.AfterFunc(lastWait, cancel).Stop()
	if err := errors.Join(failed, <-putting); err != nil {
		return err
	}
	if f.refused > 0 {
		return fmt.Errorf("%d lines were refused", f.refused)
	}
	if withdraw {
		return done(f.c, "the list has ended: its routes are withdrawn")
	}
	return done(f.c, "the list has ended: its %d routes stay", len(f.held))
}

// read takes the lines of the list.
func (f *following) read(in io.Reader) error {
	lines := bufio.NewReaderSize(in, maxLine)
	for number := 1; ; number++ {
		line, err := lines.ReadSlice('\n')
		long := errors.Is(err, bufio.ErrBufferFull)
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = lines.ReadSlice('\n')
		}
		line = bytes.TrimSpace(line)
		switch {
		case long:
			f.refuse(number, fmt.Errorf("longer than %d bytes", maxLine))
		case len(line) > 0 && line[0] != '#':
			f.take(number, bytes.Clone(line))
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("import routes: after line %d: %w", number, err)
		}
	}
}

// take remembers a line and has it sent. It waits while many are.
func (f *following) take(number int, line []byte) {
	var n struct {
		Prefix   string `json:"prefix"`
		Tenant   string `json:"tenant"`
		Withdraw bool   `json:"withdraw"`
	}
	if err := json.Unmarshal(line, &n); err != nil {
		f.refuse(number, fmt.Errorf("%.60q is no JSON object of a route: %w", line, err))
		return
	}
	prefix, err := api.ParsePrefix(n.Prefix)
	if err != nil {
		f.refuse(number, err)
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(f.todo) >= maxTodo && !f.ended {
		f.moved.Wait()
	}
	f.say(&said{putKey{prefix, n.Tenant}, number, append(line, '\n'), n.Withdraw})
}

// say has a line sent; f.mu is held.
func (f *following) say(s *said) {
	f.held[s.key] = s
	f.todo = append(f.todo, s)
	f.moved.Broadcast()
}

func (f *following) refuse(number int, err error) {
	fmt.Fprintf(f.c.App.ErrWriter, "roamctl: line %d: %v\n", number, err)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refused++
}

// end says that no more lines come, and withdraws what the list has put if that is wanted.
func (f *following) end(withdraw bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended = true
	f.moved.Broadcast()
	if !withdraw {
		return
	}
	for key, s := range f.held {
		if !s.withdraw {
			f.say(&said{key, s.number, withdrawal(key), true})
		}
	}
}

func withdrawal(key putKey) []byte {
	tenant, err := json.Marshal(key.tenant)
	if err != nil {
		panic("encode a tenant's name: " + err.Error()) // a string: there is nothing to fail
	}
	return fmt.Appendf(nil, `{"prefix":"%s","tenant":%s,"withdraw":true}`+"\n", key.prefix, tenant)
}

// put keeps a connection to the daemon until everything is said.
func (f *following) put(ctx context.Context) error {
	for told := ""; ; {
		err := f.connect(ctx)
		var answer *api.Error
		switch {
		case err == nil:
			return nil
		case errors.As(err, &answer) && answer.Status < http.StatusInternalServerError:
			return err
		case told != err.Error():
			told = err.Error()
			fmt.Fprintf(f.c.App.ErrWriter, "roamctl: %s: trying again until it is taken\n", told)
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(lookAgain):
		}
	}
}

// connect says everything that is held, and then what comes, until the list or the connection ends.
func (f *following) connect(ctx context.Context) error {
	f.mu.Lock()
	f.todo, f.sent, f.acked, f.broken = f.todo[:0:0], nil, 0, false
	for _, s := range f.held {
		f.todo = append(f.todo, s)
	}
	f.mu.Unlock()
	from, to := io.Pipe()
	sending := make(chan struct{})
	go func() {
		defer close(sending)
		to.CloseWithError(f.send(to))
	}()
	err := f.api.Put(ctx, from, f.answered)
	f.mu.Lock()
	f.broken = true
	f.moved.Broadcast()
	f.mu.Unlock()
	from.CloseWithError(io.ErrClosedPipe)
	<-sending
	return err
}

// send writes lines as they come. It returns nil, which ends the request, once the list has ended.
func (f *following) send(to io.Writer) error {
	out := bufio.NewWriterSize(to, maxLine)
	for {
		list, err := f.next()
		if list == nil || err != nil {
			return errors.Join(err, out.Flush())
		}
		for _, s := range list {
			if _, err := out.Write(s.text); err != nil {
				return err
			}
		}
		if err := out.Flush(); err != nil {
			return err
		}
	}
}

// next waits for lines to send; there are none when the list has ended.
func (f *following) next() (list []*said, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(list) == 0 {
		for len(f.todo) == 0 && !f.ended && !f.broken {
			f.moved.Wait()
		}
		switch {
		case f.broken:
			return nil, io.ErrClosedPipe
		case len(f.todo) == 0:
			return nil, nil
		}
		for _, s := range f.todo {
			if f.held[s.key] == s {
				list = append(list, s)
			}
		}
		f.todo = f.todo[:0]
		f.moved.Broadcast()
	}
	f.sent = append(f.sent, list...)
	return list, nil
}

// answered hears from the daemon what is in force, and what it refuses.
func (f *following) answered(p api.PutProgress) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if max(p.Line, p.Read)-f.acked > len(f.sent) {
		return errors.New("read the answer: it is about lines that were not sent")
	}
	if p.Line > 0 {
		s := f.sent[p.Line-f.acked-1]
		if f.held[s.key] == s {
			delete(f.held, s.key)
		}
		f.refused++
		fmt.Fprintf(f.c.App.ErrWriter, "roamctl: line %d: %s\n", s.number, p.Error)
		if p.Hint != "" {
			fmt.Fprintf(f.c.App.ErrWriter, "  %s\n", p.Hint)
		}
		return nil
	}
	for _, s := range f.sent[:p.Read-f.acked] {
		if s.withdraw && f.held[s.key] == s {
			delete(f.held, s.key)
		}
	}
	f.sent, f.acked = f.sent[p.Read-f.acked:], p.Read
	return nil
}

// growing reads a file, and waits at its end for more until its context ends. A file that takes its name, or that starts
// anew, is read from its beginning. What is no regular file ends as it does.
type growing struct {
	*os.File
	ctx     context.Context
	regular bool
}

func openGrowing(ctx context.Context, name string) (*growing, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	return &growing{file, ctx, err == nil && info.Mode().IsRegular()}, err
}

func (g *growing) Read(b []byte) (int, error) {
	for {
		n, err := g.File.Read(b)
		if n > 0 || err != io.EOF || !g.regular {
			return n, err
		}
		select {
		case <-g.ctx.Done():
			return 0, io.EOF
		case <-time.After(lookAgain):
		}
		if err := g.reopen(); err != nil {
			return 0, err
		}
	}
}

func (g *growing) reopen() error {
	now, err := os.Stat(g.Name())
	if err != nil {
		return nil // it may come again
	}
	held, err := g.Stat()
	if err != nil {
		return err
	}
	at, err := g.Seek(0, io.SeekCurrent)
	switch {
	case err != nil:
		return err
	case !os.SameFile(now, held):
		file, err := os.Open(g.Name())
		if err != nil {
			return err
		}
		g.File.Close()
		g.File = file
	case held.Size() < at:
		_, err = g.Seek(0, io.SeekStart)
		return err
	}
	return nil
}
