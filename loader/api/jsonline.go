package api

import (
	"bytes"
	"fmt"

	"roam/loader/route"
)

// LineReader decodes the lines of a JSON route list one by one, for a caller that has rules of its own for what a
// list may hold. It shares locator lists among the changes and is not safe for concurrent use.
type LineReader struct{ lineReader }

// NewLineReader returns a LineReader.
func NewLineReader(names Names) *LineReader { return &LineReader{newLineReader(names)} }

// Read decodes one line.
func (l *LineReader) Read(line []byte) (route.Change, error) { return l.object(line) }

// object decodes a JSON object, all but its prefix from memory where it can.
func (l *lineReader) object(line []byte) (route.Change, error) {
	prefix, mac, rest, simple := splitObject(line)
	if !simple {
		var n NewRoute
		if err := decodeLine(line, &n); err != nil {
			return route.Change{}, err
		}
		return l.change(&n)
	}
	c, err := l.rest(rest, func() (route.Change, error) {
		var n NewRoute
		if err := decodeLine(line, &n); err != nil {
			return route.Change{}, err
		}
		return l.target(&n)
	})
	if err != nil {
		return c, err
	}
	if c.Prefix, err = parsePrefix(prefix); err != nil {
		return c, err
	}
	c.MAC, err = parseMAC(string(mac))
	return c, err
}

// json reads a line that is one JSON object.
func (l *listReader) json(line []byte) error {
	c, err := l.object(line)
	if err != nil {
		return err
	}
	return l.unique(c)
}

func (l *listReader) unique(c route.Change) error {
	if l.add(c) != nil {
		return fmt.Errorf("%s is in the list already: give all its locators in one line", c.Prefix)
	}
	return nil
}

func decodeLine(line []byte, n *NewRoute) error {
	if len(line) == 0 || line[0] != '{' {
		return fmt.Errorf("%.60q is no JSON object such as {\"prefix\":\"10.1.0.7/32\",\"via\":[\"192.0.2.2\"]}", line)
	}
	return strict(line, n)
}

// splitObject cuts an object that starts with its prefix, and then perhaps its MAC, into these and the rest. It
// is simple when the rest surely says nothing of either, so that it means the same behind every prefix.
func splitObject(b []byte) (prefix, mac, rest []byte, simple bool) {
	rest, simple = skip(b, "{")
	if simple {
		prefix, rest, simple = member(rest, `"prefix"`)
	}
	if !simple {
		return nil, nil, nil, false
	}
	if after, ok := skip(rest, ","); ok {
		if value, after, ok := member(after, `"mac"`); ok {
			mac, rest = value, after
		}
	}
	// The decoder takes names in any case, and with escapes.
	for i, c := range rest {
		if c == '\\' || c == '"' && (startsFold(rest[i:], `"prefix"`) || startsFold(rest[i:], `"mac"`)) {
			return nil, nil, nil, false
		}
	}
	return prefix, mac, rest, true
}

func startsFold(b []byte, s string) bool {
	return len(b) >= len(s) && bytes.EqualFold(b[:len(s)], []byte(s))
}

// member reads name: "value" at the start of b; name is given with its quotes.
func member(b []byte, name string) (value, rest []byte, ok bool) {
	for _, token := range [...]string{name, ":", `"`} {
		if b, ok = skip(b, token); !ok {
			return nil, nil, false
		}
	}
	for end, c := range b {
		switch {
		case c == '"':
			return b[:end], b[end+1:], true
		case c == '\\' || c < ' ' || c > '~':
			return nil, nil, false // an escape, or what the decoder replaces
		}
	}
	return nil, nil, false
}

// skip passes spaces, then a token.
func skip(b []byte, token string) ([]byte, bool) {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	if !bytes.HasPrefix(b, []byte(token)) {
		return b, false
	}
	return b[len(token):], true
}
