package api

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"roam/loader/api"
	"roam/loader/route"
)

// The journal is a file of JSON lines. A line is a route as an import takes it, so that a journal without waste is
// an export; or it is one of these:
//
//	{"withdraw":{"prefix":"10.1.0.7/32","tenant":"default"}}
//	{"flush":true}
//	{"begin":2} ... {"commit":2}    around the lines of a change that is one
//
// A crash may tear the end of the file anywhere. What counts is therefore what ends in a whole line outside of
// begin and commit; the rest is cut off when the journal is opened, by a first pass that looks at nothing but
// these marks. Anything else that is wrong in the file is damage and refused: nothing is dropped in silence.
//
// Later lines overrule earlier ones, so the file grows with use. It is rewritten, in a new file that then takes
// its name, when it has become twice as long as it was.

// mark is a line that is no route.
type mark struct {
	Withdraw *struct {
		Prefix netip.Prefix `json:"prefix"`
		Tenant string       `json:"tenant"`
	} `json:"withdraw,omitempty"`
	Flush  bool `json:"flush,omitempty"`
	Begin  int  `json:"begin,omitempty"`
	Commit int  `json:"commit,omitempty"`
}

const (
	maxLine   = 64 << 10
	slackSize = 1 << 20 // waste that is not worth a rewrite
	shortLine = 64      // bytes of a line that is rather short, to guess how many there are
)

// journal is the open file. Not safe for concurrent use.
type journal struct {
	path    string
	file    *os.File
	out     *bufio.Writer // of all that is written, so that a change makes no garbage; empty between writes
	size    int64
	base    int64 // size when it held no waste
	flushed bool  // all of it is waste
	names   api.Names
	orphans []string // lines of tenants that are not configured: kept, not used
	broken  error    // a failed write that could not be taken back
}

// openJournal opens or creates the file, cuts off what a crash left torn, and returns the routes it holds.
func openJournal(path string, names api.Names, log *slog.Logger) (*journal, []route.Change, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, nil, err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, nil, err
	}
	j := &journal{path: path, file: f, out: newOut(), names: names}
	changes, err := j.load(log)
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return j, changes, nil
}

func (j *journal) close() { j.file.Close() }

// load reads the file and leaves it without torn end and without waste.
func (j *journal) load(log *slog.Logger) ([]route.Change, error) {
	info, err := j.file.Stat()
	if err != nil {
		return nil, err
	}
	sound, err := soundPart(j.file)
	if err != nil {
		return nil, j.damaged(err)
	}
	if torn := info.Size() - sound; torn > 0 {
		log.Warn("the last change of injected routes was not finished: dropped", "file", j.path, "bytes", torn)
		if err := j.file.Truncate(sound); err != nil {
			return nil, err
		}
	}
	if _, err := j.file.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	r := replay{lines: api.NewLineReader(j.names), names: j.names, changes: make([]route.Change, 0, sound/shortLine)}
	if err := eachLine(j.file, r.line); err != nil {
		return nil, j.damaged(err)
	}
	j.size, j.base, j.orphans = sound, sound, r.orphans
	if len(j.orphans) > 0 {
		log.Warn("injected routes of tenants that are not configured are kept and not used", "file", j.path, "lines", len(j.orphans))
	}
	changes := r.result()
	if 4*r.wasted > len(changes) {
		if err := j.rewrite(claimsOf(changes)); err == nil {
			return changes, nil
		}
		log.Warn("compact the journal of injected routes", "file", j.path, "error", err)
	}
	_, err = j.file.Seek(j.size, io.SeekStart)
	return changes, err
}

// claimsOf calls back for every change, as Held.Each does.
func claimsOf(changes []route.Change) func(func(*route.Claim) error) error {
	return func(f func(*route.Claim) error) error {
		for i := range changes {
			if err := f(&changes[i].Claim); err != nil {
				return err
			}
		}
		return nil
	}
}

func (j *journal) damaged(err error) error {
	return fmt.Errorf("%s is damaged: %w: repair the line, or move the file away to start without its routes", j.path, err)
}

// soundPart returns how many bytes from the start hold whole changes.
func soundPart(f io.Reader) (int64, error) {
	var at, sound int64
	expect := 0 // lines until the commit, commit included
	total := 0
	err := eachLine(f, func(line []byte) error {
		at += int64(len(line))
		if !bytes.HasSuffix(line, []byte{'\n'}) {
			return nil
		}
		m, isMark := markOf(line)
		switch {
		case expect == 0 && isMark && m.Begin > 0:
			total, expect = m.Begin, m.Begin+1
			return nil
		case expect == 1 && (!isMark || m.Commit != total):
			return fmt.Errorf("{\"commit\":%d} is expected", total)
		case isMark && (m.Begin != 0 || m.Commit != 0) && expect != 1:
			return errors.New("begin or commit stands at a wrong place")
		}
		if expect > 0 {
			expect--
		}
		if expect == 0 {
			sound = at
		}
		return nil
	})
	return sound, err
}

// markOf decodes a line that is no route. It is asked of every line, so it looks at one byte first.
func markOf(line []byte) (mark, bool) {
	if len(line) < 3 || line[0] != '{' || line[1] != '"' || line[2] == 'p' {
		return mark{}, false
	}
	var m mark
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	return m, d.Decode(&m) == nil
}

// eachLine calls f with every line and its end. An error of f names the line.
func eachLine(from io.Reader, f func(line []byte) error) error {
	in := bufio.NewReaderSize(from, maxLine)
	for n := 1; ; n++ {
		line, err := in.ReadSlice('\n')
		if len(line) > 0 && (err == nil || err == io.EOF) {
			if err := f(line); err != nil {
				return fmt.Errorf("line %d: %w", n, err)
			}
		}
		switch {
		case err == io.EOF:
			return nil
		case errors.Is(err, bufio.ErrBufferFull):
			return fmt.Errorf("line %d: longer than %d bytes", n, maxLine)
		case err != nil:
			return err
		}
	}
}

// replay applies the lines of a journal in order.
type replay struct {
	names   api.Names
	lines   *api.LineReader
	changes []route.Change // withdrawn ones are marked, so that places stay
	index   api.Index
	wasted  int // lines that say nothing any more
	orphans []string
}

func (r *replay) line(line []byte) error {
	if m, ok := markOf(line); ok {
		return r.mark(m, line)
	}
	c, err := r.lines.Read(bytes.TrimSpace(line))
	switch {
	case isOrphan(err):
		r.orphans = append(r.orphans, string(line))
	case err != nil:
		return err
	default:
		r.put(c)
	}
	return nil
}

func (r *replay) mark(m mark, line []byte) error {
	r.wasted++
	switch {
	case m.Flush:
		r.changes, r.index, r.orphans = nil, api.Index{}, nil
	case m.Withdraw != nil:
		tenant, ok := r.names.TenantID(m.Withdraw.Tenant)
		if !ok {
			r.orphans = append(r.orphans, string(line))
			return nil
		}
		r.put(route.Change{Claim: route.Claim{Key: route.Key{Tenant: tenant, Prefix: m.Withdraw.Prefix}}, Withdraw: true})
	}
	return nil
}

func (r *replay) put(c route.Change) {
	if at, ok := r.index.Put(c.Key, r.changes); ok {
		r.changes[at] = c
		r.wasted++
		return
	}
	r.changes = append(r.changes, c)
}

func (r *replay) result() []route.Change {
	return slices.DeleteFunc(r.changes, func(c route.Change) bool { return c.Withdraw })
}

// isOrphan tells whether a line names a tenant that is not there.
func isOrphan(err error) bool {
	var e *api.Error
	return errors.As(err, &e) && e.Status == 404
}

// append writes changes as one. On an error the file is as before.
func (j *journal) append(changes []route.Change) error {
	lines := api.NewRouteWriter(api.JSONL, j.names) // new each time: a reload may have renamed tenants
	return j.write(func(w *bufio.Writer) error {
		if len(changes) > 1 {
			fmt.Fprintf(w, "{\"begin\":%d}\n", len(changes)) // an error sticks to the writer
		}
		var line []byte
		for i := range changes {
			if changes[i].Withdraw {
				line = j.withdrawal(line[:0], changes[i].Key)
			} else {
				line = lines.Append(line[:0], &changes[i].Claim)
			}
			if _, err := w.Write(line); err != nil {
				return err
			}
		}
		if len(changes) > 1 {
			fmt.Fprintf(w, "{\"commit\":%d}\n", len(changes))
		}
		return nil
	})
}

func (j *journal) withdrawal(b []byte, key route.Key) []byte {
	tenant, err := json.Marshal(j.names.TenantName(key.Tenant))
	if err != nil {
		panic("encode a tenant's name: " + err.Error()) // a string: there is nothing to fail
	}
	b = append(b, `{"withdraw":{"prefix":"`...)
	b = append(key.Prefix.AppendTo(b), `","tenant":`...)
	return append(append(b, tenant...), "}}\n"...)
}

// flush notes that nothing before counts.
func (j *journal) flush() error {
	err := j.write(func(w *bufio.Writer) error {
		_, err := w.WriteString("{\"flush\":true}\n")
		return err
	})
	if err == nil {
		j.flushed = true
	}
	return err
}

// write appends what f writes. From then on it outlives the daemon, and after a sync the machine.
func (j *journal) write(f func(*bufio.Writer) error) error {
	if j.broken != nil {
		return j.broken
	}
	before := j.size
	n, err := j.writeTo(j.file, f)
	j.size += n
	if err != nil {
		return errors.Join(err, j.cut(before))
	}
	return nil
}

func newOut() *bufio.Writer { return bufio.NewWriterSize(nil, 1<<18) }

// writeTo counts what has reached the file.
func (j *journal) writeTo(file *os.File, f func(*bufio.Writer) error) (int64, error) {
	to := counted{file: file}
	j.out.Reset(&to)
	err := f(j.out)
	if err == nil {
		err = j.out.Flush()
	}
	j.out.Reset(nil)
	return to.n, err
}

// counted is a file that counts what it took.
type counted struct {
	file *os.File
	n    int64
}

func (c *counted) Write(b []byte) (int, error) {
	n, err := c.file.Write(b)
	c.n += int64(n)
	return n, err
}

// cut takes back everything behind size. Where that fails nothing more is written, because a half-written change
// may stand at the end.
func (j *journal) cut(size int64) error {
	err := j.file.Truncate(size)
	if err == nil {
		_, err = j.file.Seek(size, io.SeekStart)
	}
	if err == nil {
		err = j.file.Sync()
	}
	if err != nil {
		j.broken = fmt.Errorf("cut back %s: %w: restart the daemon once the disk is well", j.path, err)
		return j.broken
	}
	j.size, j.flushed = size, false
	return nil
}

// wasteful tells whether a rewrite is worth its while.
func (j *journal) wasteful() bool {
	return j.broken == nil && (j.flushed || j.size > 2*j.base+slackSize)
}

// rewrite replaces the file by one that holds the claims of each and nothing else. On an error the old one stays.
func (j *journal) rewrite(each func(write func(*route.Claim) error) error) error {
	if j.flushed {
		j.orphans = nil
	}
	file, err := os.OpenFile(j.path+".new", os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	lines := api.NewRouteWriter(api.JSONL, j.names)
	n, err := j.writeTo(file, func(w *bufio.Writer) error {
		for _, line := range j.orphans {
			w.WriteString(line) // an error sticks to the writer
		}
		var line []byte
		return each(func(c *route.Claim) error {
			line = lines.Append(line[:0], c)
			_, err := w.Write(line)
			return err
		})
	})
	if err == nil {
		err = file.Sync()
	}
	if err == nil {
		err = os.Rename(j.path+".new", j.path)
	}
	if err != nil {
		file.Close()
		return errors.Join(err, ignoreMissing(os.Remove(j.path+".new")))
	}
	j.file.Close()
	j.file, j.size, j.base, j.flushed = file, n, n, false
	return syncFolder(filepath.Dir(j.path))
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// syncFolder makes a rename last.
func syncFolder(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
