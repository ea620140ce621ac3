package hook

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
)

// The journal is a file of JSON lines, each of them that a run begins, or that it succeeded:
//
//	{"begun":{"event":"5f0c…","tenant":"default","address":"10.1.0.21","old_site":"dc1","new_site":"cloud",…}}
//	{"done":{"event":"5f0c…","tenant":"default","address":"10.1.0.21"}}
//
// A crash may tear the last line; what it said is then not known to have happened, and the run is repeated. The file is rewritten
// when most of it is waste.
type journal struct {
	path  string
	file  *os.File
	lines int
}

type line struct {
	Begun *Change `json:"begun,omitempty"`
	Done  *done   `json:"done,omitempty"`
}

type done struct {
	Event   string     `json:"event"`
	Tenant  string     `json:"tenant"`
	Address netip.Addr `json:"address"`
}

// note is what the journal says of a host: where the program was told that it is, and a run of which no end is known.
type note struct {
	Tenant  string
	Address netip.Addr
	told    string
	begun   *Change
}

// openJournal reads the file, or makes it, and leaves it without waste.
func openJournal(path string) (*journal, []note, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, nil, err
	}
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	notes, err := replay(data)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w: repair the line, or remove the file to have every host told of anew", path, err)
	}
	j := &journal{path: path}
	return j, notes, j.rewrite(notes)
}

// replay returns what is known of each host after the last whole line.
func replay(data []byte) (list []note, err error) {
	type host struct {
		tenant  string
		address netip.Addr
	}
	at := make(map[host]note)
	data = data[:bytes.LastIndexByte(data, '\n')+1]
	for number := 1; len(data) > 0; number++ {
		text, rest, _ := bytes.Cut(data, []byte("\n"))
		data = rest
		var l line
		if err := json.Unmarshal(text, &l); err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		switch {
		case l.Begun != nil:
			h := host{l.Begun.Tenant, l.Begun.Address}
			n := at[h]
			n.begun = l.Begun
			at[h] = n
		case l.Done != nil:
			h := host{l.Done.Tenant, l.Done.Address}
			if n := at[h]; n.begun != nil && n.begun.Event == l.Done.Event {
				at[h] = note{told: n.begun.NewSite}
			}
		}
	}
	for h, n := range at {
		if n.begun != nil || n.told != "" {
			n.Tenant, n.Address = h.tenant, h.address
			list = append(list, n)
		}
	}
	return list, nil
}

// append adds a line. That a run begins must be on disk before it does.
func (j *journal) append(l line) error {
	text, err := json.Marshal(l)
	if err != nil {
		return err
	}
	if _, err := j.file.Write(append(text, '\n')); err != nil {
		return err
	}
	j.lines++
	if l.Begun != nil {
		return j.file.Sync()
	}
	return nil
}

// wasteful reports whether a rewrite pays, where that many hosts are noted.
func (j *journal) wasteful(hosts int) bool { return j.lines > 4*hosts+1024 }

// rewrite replaces the file by one that says nothing but these.
func (j *journal) rewrite(notes []note) error {
	file, err := os.OpenFile(j.path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	out := bufio.NewWriter(file)
	lines := json.NewEncoder(out)
	count := 0
	for _, n := range notes {
		if n.told != "" {
			c := &Change{Event: "told", Tenant: n.Tenant, Address: n.Address, NewSite: n.told}
			err = errors.Join(err, lines.Encode(line{Begun: c}), lines.Encode(line{Done: &done{c.Event, c.Tenant, c.Address}}))
			count += 2
		}
		if n.begun != nil {
			err = errors.Join(err, lines.Encode(line{Begun: n.begun}))
			count++
		}
	}
	if err = errors.Join(err, out.Flush(), file.Sync()); err == nil {
		err = os.Rename(j.path+".new", j.path)
	}
	if err != nil {
		return errors.Join(err, file.Close())
	}
	j.close()
	j.file, j.lines = file, count
	return nil
}

func (j *journal) close() {
	if j.file != nil {
		j.file.Close()
	}
}
