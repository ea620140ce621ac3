package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"roam/loader/api"
)

// asJSON tells whether answers are wanted as JSON.
func asJSON(c *cli.Context) bool { return c.String("output") == "json" }

// show writes an answer as indented JSON, or as a table that fill writes lines of tab-separated cells into.
func show(c *cli.Context, answer any, fill func(w io.Writer)) error {
	if !asJSON(c) {
		w := newTable(c.App.Writer)
		fill(w)
		return w.Flush()
	}
	e := json.NewEncoder(c.App.Writer)
	e.SetIndent("", "  ")
	return e.Encode(answer)
}

func newTable(w io.Writer) *tabwriter.Writer { return tabwriter.NewWriter(w, 0, 0, 2, ' ', 0) }

// row writes the cells of one line. An empty cell shows as "-", so that every line has as many words.
func row(w io.Writer, cells ...any) {
	var line []byte
	for i, cell := range cells {
		if i > 0 {
			line = append(line, '\t')
		}
		before := len(line)
		switch cell := cell.(type) {
		case string:
			line = append(line, cell...)
		default:
			line = fmt.Append(line, cell)
		}
		if len(line) == before {
			line = append(line, '-')
		}
	}
	_, _ = w.Write(append(line, '\n')) // the writer below keeps its error until it is flushed
}

// tableRows is how many lines of an endless table are aligned with each other.
const tableRows = 256

// list writes a stream of JSON lines: as one JSON array with a line per element, or as a table of which a part
// at a time is held.
type list struct {
	json    bool
	out     *bufio.Writer
	table   *tabwriter.Writer
	header  []any
	lines   int
	targets map[string]string // where routes point to, by the bytes that say so
}

func newList(c *cli.Context, header ...any) *list {
	l := &list{json: asJSON(c), out: bufio.NewWriterSize(c.App.Writer, 1<<16), header: header, targets: make(map[string]string)}
	l.table = newTable(l.out)
	return l
}

// add writes one line; cells makes those of a table.
func (l *list) add(line []byte, cells func() ([]any, error)) error {
	if l.lines++; !l.json {
		if l.lines == 1 {
			row(l.table, l.header...)
		}
		c, err := cells()
		if err != nil {
			return fmt.Errorf("read the answer: %w", err)
		}
		row(l.table, c...)
		if l.lines%tableRows == 0 {
			return l.table.Flush()
		}
		return nil
	}
	separator := ",\n "
	if l.lines == 1 {
		separator = "[\n "
	}
	l.out.WriteString(separator) // an error sticks to the writer
	_, err := l.out.Write(line)
	return err
}

// end completes the list; after an error it leaves it as it is, so that nobody takes it for whole.
func (l *list) end(err error) error {
	switch {
	case l.json && err == nil && l.lines == 0:
		l.out.WriteString("[]\n")
	case l.json && err == nil:
		l.out.WriteString("\n]\n")
	case !l.json:
		if l.lines == 0 && err == nil {
			row(l.table, l.header...)
		}
		if e := l.table.Flush(); err == nil {
			err = e
		}
	}
	if e := l.out.Flush(); err == nil {
		err = e
	}
	return err
}

// listed is a line of a list of routes or hosts, as far as a table shows it. In a million of them where they point
// to is one of a few things, so that is decoded once and then known by its bytes.
type listed struct {
	Prefix     string          `json:"prefix"`
	Address    string          `json:"address"`
	Tenant     string          `json:"tenant"`
	State      string          `json:"state"`
	Via        json.RawMessage `json:"via"`
	Local      json.RawMessage `json:"local"`
	Reject     bool            `json:"reject"`
	MAC        string          `json:"mac"`
	Source     string          `json:"source"`
	Site       string          `json:"site"`
	Sequence   uint32          `json:"sequence"`
	Pinned     bool            `json:"pinned"`
	Best       bool            `json:"best"`
	AgeSeconds float64         `json:"age_seconds"`
}

// decode reads a line and says where it points to.
func (l *list) decode(line []byte) (r listed, target string, err error) {
	if err := json.Unmarshal(line, &r); err != nil {
		return r, "", err
	}
	where := r.Via
	if where == nil {
		where = r.Local
	}
	target, known := l.targets[string(where)]
	if known && !r.Reject {
		return r, target, nil
	}
	var locators []api.Locator
	var local *api.Local
	if r.Via != nil {
		err = json.Unmarshal(r.Via, &locators)
	} else if r.Local != nil {
		err = json.Unmarshal(r.Local, &local)
	}
	target = via(locators, local, r.Reject)
	if len(l.targets) < 4096 && !r.Reject {
		l.targets[string(where)] = target
	}
	return r, target, err
}

// via says where a route points to.
func via(locators []api.Locator, local *api.Local, reject bool) string {
	switch {
	case reject:
		return "reject"
	case local != nil && local.Interface == "":
		return "here"
	case local != nil && local.VLAN != 0:
		return fmt.Sprintf("here,%s,vlan=%d", local.Interface, local.VLAN)
	case local != nil:
		return "here," + local.Interface
	}
	var b strings.Builder
	for i, l := range locators {
		if i > 0 {
			b.WriteString(" ")
		}
		b.WriteString(locatorText(l))
	}
	return b.String()
}

// locatorText is a locator as --via takes it, without what has the default.
func locatorText(l api.Locator) string {
	s := l.Address.String()
	if l.Encap != "vxlan" {
		s += ",encap=" + l.Encap
	}
	if l.Priority != 1 {
		s += fmt.Sprintf(",priority=%d", l.Priority)
	}
	if l.Weight != 100 {
		s += fmt.Sprintf(",weight=%d", l.Weight)
	}
	if l.RouterMAC != "" {
		s += ",router_mac=" + l.RouterMAC
	}
	return s
}

// age is a time in the largest two units that are not zero.
func age(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second))
	const day = 24 * time.Hour
	switch {
	case d >= day:
		return fmt.Sprintf("%dd%dh", d/day, d%day/time.Hour)
	case d >= time.Hour:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	case d >= time.Minute:
		return fmt.Sprintf("%dm%ds", d/time.Minute, d%time.Minute/time.Second)
	}
	return fmt.Sprintf("%ds", d/time.Second)
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
