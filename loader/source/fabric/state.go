package fabric

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

	"roam/loader/route"
)

// Names translates tenants to what outlives a restart.
type Names interface {
	TenantID(name string) (route.TenantID, bool)
	TenantName(id route.TenantID) string
}

// state is a file that keeps the hosts that are here with their sequences. Who says again after a restart that they are here
// knows no sequence, and with a lower one than before the gateway would lose them to a site that has not heard yet that they
// left. Later lines overrule earlier ones; the file is rewritten when most of it is waste. Of Run's goroutine.
type state struct {
	path  string
	names Names
	lines int
}

// line is a host, or that it is here no longer.
type line struct {
	Address  netip.Addr `json:"address"`
	Tenant   string     `json:"tenant"`
	Sequence uint32     `json:"sequence"`
	Gone     bool       `json:"gone,omitempty"`
}

// load reads what an earlier life left; no file is an empty one, and a torn last line is none.
func (s *state) load() (map[route.Key]uint32, error) {
	hosts := make(map[route.Key]uint32)
	data, err := os.ReadFile(s.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return hosts, err
	}
	data = data[:bytes.LastIndexByte(data, '\n')+1]
	for len(data) > 0 {
		text, rest, _ := bytes.Cut(data, []byte("\n"))
		data = rest
		s.lines++
		var l line
		err := json.Unmarshal(text, &l)
		if err == nil && !l.Address.IsValid() {
			err = errors.New("no address")
		}
		if err != nil {
			return hosts, fmt.Errorf("%s:%d: %w: remove the line; its host keeps no sequence then", s.path, s.lines, err)
		}
		if tenant, ok := s.names.TenantID(l.Tenant); ok {
			key := route.KeyOf(tenant, l.Address)
			if hosts[key] = l.Sequence; l.Gone {
				delete(hosts, key)
			}
		}
	}
	return hosts, nil
}

// add appends what changed.
func (s *state) add(changes []route.Change) error {
	file, err := os.OpenFile(s.path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	return errors.Join(s.write(file, changes), file.Close())
}

// replace has the file say nothing but this.
func (s *state) replace(changes []route.Change) error {
	if err := os.MkdirAll(filepath.Dir(s.path), 0o755); err != nil {
		return err
	}
	file, err := os.OpenFile(s.path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	s.lines = 0
	if err := errors.Join(s.write(file, changes), file.Sync(), file.Close()); err != nil {
		return err
	}
	return os.Rename(s.path+".new", s.path)
}

func (s *state) write(file *os.File, changes []route.Change) error {
	out := bufio.NewWriter(file)
	lines := json.NewEncoder(out)
	for i := range changes {
		c := &changes[i]
		s.lines++
		l := line{Address: c.Prefix.Addr(), Tenant: s.names.TenantName(c.Tenant), Sequence: c.Sequence, Gone: c.Withdraw}
		if err := lines.Encode(l); err != nil {
			return err
		}
	}
	return out.Flush()
}

// wasteful reports whether a rewrite pays, where that many hosts are here.
func (s *state) wasteful(hosts int) bool { return s.lines > 4*hosts+1024 }
