package api

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"roam/loader/route"
)

// A route list is a million lines in which almost everything repeats: the prefix differs, the rest of the line is
// one of a handful. The reader therefore decodes a rest once and then finds it by its bytes, which makes the cost
// of a line that of its prefix. Both formats come out as the same changes.
//
// CSV has one line per locator, so lines of one prefix are joined, wherever they stand; a JSON line holds a whole
// route, so a second one for its prefix is a mistake.

// Format is how a route list is written.
type Format string

// The formats, by their media types.
const (
	CSV   Format = "text/csv"
	JSONL Format = "application/jsonl"
)

// Limits of a route list.
const (
	maxLine      = 64 << 10
	maxRests     = 4096 // decoded rests remembered
	progressStep = 1 << 16
)

// LineError is what is wrong with one line of a route list.
type LineError struct {
	Line int // from 1
	Err  error
}

func (e *LineError) Error() string { return fmt.Sprintf("line %d: %v", e.Line, e.Err) }

func (e *LineError) Unwrap() error { return e.Err }

// readers are kept from one list to the next: many lists are short.
var readers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, maxLine) }}

// ReadRoutes reads a route list to its end and counts its lines. size is its length in bytes where known, 0 otherwise, and saves
// memory; progress, which may be nil, is called every 65536 lines. An error in a line is a *LineError.
func ReadRoutes(r io.Reader, format Format, names Names, size int64, progress func(lines int) error) (changes []route.Change, lines int, err error) {
	from := readers.Get().(*bufio.Reader)
	defer func() {
		from.Reset(nil)
		readers.Put(from)
	}()
	from.Reset(r)
	list := &listReader{from: from, size: size, lineReader: newLineReader(names)}
	line := list.json
	if format == CSV {
		line = list.csv
	}
	for {
		b, err := list.next()
		switch {
		case err == io.EOF:
			return list.changes, list.line, nil
		case err != nil:
			return nil, list.line, err
		case len(b) == 0 || b[0] == '#':
			continue
		}
		if err := line(b); err != nil {
			return nil, list.line, &LineError{list.line, err}
		}
		if list.line%progressStep == 0 && progress != nil {
			if err := progress(list.line); err != nil {
				return nil, list.line, err
			}
		}
	}
}

type listReader struct {
	from    *bufio.Reader
	size    int64 // bytes to expect, 0: unknown
	read    int64
	line    int
	changes []route.Change
	index   Index
	lineReader

	// CSV only
	columns columns
	key     []byte
	joined  map[[2]*route.Via]*route.Via
}

// next returns a line without its end, valid until the next call.
func (l *listReader) next() ([]byte, error) {
	b, err := l.from.ReadSlice('\n')
	l.read += int64(len(b))
	switch {
	case err == io.EOF && len(b) == 0:
		return nil, io.EOF
	case errors.Is(err, bufio.ErrBufferFull):
		return nil, &LineError{l.line + 1, fmt.Errorf("longer than %d bytes", maxLine)}
	case err != nil && err != io.EOF:
		return nil, fmt.Errorf("read after line %d: %w", l.line, err)
	}
	if l.line++; l.line == 1 {
		b = bytes.TrimPrefix(b, []byte("\ufeff"))
	}
	return bytes.TrimSpace(b), nil
}

// add appends a change and returns the earlier one of the same key, if any.
func (l *listReader) add(c route.Change) *route.Change {
	if i, ok := l.index.Put(c.Key, l.changes); ok {
		return &l.changes[i]
	}
	// The lines to come are about as long as those seen; a little more saves a copy of it all.
	switch n := len(l.changes); {
	case n == 1 && l.size > l.read:
		l.changes = slices.Grow(l.changes, int(min(l.size/l.read, 1024)))
	case n == 1024 && l.size > l.read:
		l.changes = slices.Grow(l.changes, int(l.size*1100/l.read))
	}
	l.changes = append(l.changes, c)
	return nil
}

// lineReader decodes single lines.
type lineReader struct {
	resolver
	rests map[string]route.Change
}

func newLineReader(names Names) lineReader {
	return lineReader{resolver{names: names}, make(map[string]route.Change)}
}

// rest returns the decoded rest of a line, from memory where these bytes were seen before. What an error says is
// the line's.
func (l *lineReader) rest(key []byte, decode func() (route.Change, error)) (route.Change, error) {
	if c, ok := l.rests[string(key)]; ok {
		return c, nil
	}
	c, err := decode()
	if err == nil && len(l.rests) < maxRests {
		l.rests[string(key)] = c
	}
	return c, err
}
