package main

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/urfave/cli/v2"

	"roam/loader/api"
)

// A plan is a list of hosts and where they are to live. It says no more than that: what it comes to depends on what the daemon knows when it
// is carried out, so that a plan that was broken off, by whatever, is carried on by giving it again.

// planEntry is one line of a plan: hosts, of one tenant, that move to one site.
type planEntry struct {
	Hosts  []string `yaml:"hosts"` // addresses, or prefixes, which stand for the known hosts in them
	To     string   `yaml:"to"`
	Wave   int      `yaml:"wave"` // those of lower number move first
	Tenant string   `yaml:"tenant"`
}

const planHint = "a plan is a YAML list such as - {hosts: [10.1.0.7, 10.1.0.16/28], to: dc2, wave: 1}, or a .csv file with columns host, to, wave, tenant"

// readPlan reads a plan of either form; "-" is standard input, as YAML.
func readPlan(c *cli.Context, name string) ([]planEntry, error) {
	in := c.App.Reader
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, fmt.Errorf("read the plan: %w", err)
		}
		defer f.Close()
		in = f
	}
	read := planYAML
	if filepath.Ext(name) == ".csv" {
		read = planCSV
	}
	list, err := read(in)
	for i := range list {
		if err == nil {
			err = list[i].check(i + 1)
		}
	}
	if err == nil && len(list) == 0 {
		err = errors.New("nobody is to move")
	}
	if err != nil {
		return nil, usage(planHint, "plan %s: %v", name, err)
	}
	return list, nil
}

func planYAML(in io.Reader) (list []planEntry, err error) {
	err = yaml.NewDecoder(in, yaml.Strict()).Decode(&list)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return list, err
}

func planCSV(in io.Reader) (list []planEntry, err error) {
	r := csv.NewReader(in)
	r.TrimLeadingSpace = true
	header, err := r.Read()
	if err != nil {
		return nil, fmt.Errorf("read the header: %w", err)
	}
	for {
		cells, err := r.Read()
		if errors.Is(err, io.EOF) {
			return list, nil
		}
		if err != nil {
			return nil, err
		}
		var e planEntry
		for i, name := range header {
			switch name {
			case "host":
				e.Hosts = []string{cells[i]}
			case "to":
				e.To = cells[i]
			case "tenant":
				e.Tenant = cells[i]
			case "wave":
				if cells[i] == "" {
					continue
				}
				if e.Wave, err = strconv.Atoi(cells[i]); err != nil {
					line, _ := r.FieldPos(i)
					return nil, fmt.Errorf("line %d: wave %q is no number", line, cells[i])
				}
			default:
				return nil, fmt.Errorf("column %q is unknown", name)
			}
		}
		list = append(list, e)
	}
}

func (e *planEntry) check(number int) error {
	switch {
	case e.To == "":
		return fmt.Errorf("entry %d names no site to move to", number)
	case len(e.Hosts) == 0:
		return fmt.Errorf("entry %d names no host", number)
	case e.Wave < 0:
		return fmt.Errorf("entry %d: wave %d is below 0", number, e.Wave)
	}
	for _, h := range e.Hosts {
		if _, err := api.ParsePrefix(h); err != nil {
			return fmt.Errorf("entry %d: %w", number, err)
		}
	}
	return nil
}

// plannedMove is one host of a plan, and what the daemon knows about it. This is what -o json writes.
type plannedMove struct {
	Wave    int        `json:"wave"`
	Address netip.Addr `json:"address"`
	Tenant  string     `json:"tenant"`
	From    string     `json:"from"` // a site; "" where it has no name
	To      string     `json:"to"`
	State   string     `json:"state"` // ready, there, blocked; carried out: moved; undone: rolled_back, left
	Notes   []string   `json:"notes"` // why it is blocked, and what to expect

	host  *api.Host         // nil if nobody knows it
	here  api.MoveChecked   // what the daemon says of it
	there []api.MoveChecked // and what gateways of the destination say that are asked

	before *api.NewRoute // to be undone: what was injected before the plan
}

// States of a move.
const (
	moveReady      = "ready"
	moveThere      = "there"   // already: a plan that is carried on finds its first waves so
	moveBlocked    = "blocked" // then nothing of the plan is carried out
	moveDone       = "moved"
	moveRolledBack = "rolled_back"
	moveLeft       = "left" // to be undone, and somebody has moved it on since
)

// expand makes of a plan's entries the hosts, in waves of at most size, numbered from 1. A host that is named by two entries must be meant
// the same.
func expand(entries []planEntry, known map[string][]api.Host, size int) ([]plannedMove, error) {
	type key struct {
		tenant string
		addr   netip.Addr
	}
	meant := map[key]planEntry{}
	var list []plannedMove
	for _, e := range entries {
		tenant := e.Tenant
		hosts := known[tenant]
		for _, text := range e.Hosts {
			p, _ := api.ParsePrefix(text) // checked
			chosen := within(hosts, p)
			if len(chosen) == 0 && !p.IsSingleIP() {
				return nil, fmt.Errorf("no known host lies in %s", p)
			}
			if len(chosen) == 0 {
				chosen = []api.Host{{Address: p.Addr(), Tenant: tenant}}
			}
			for i := range chosen {
				h := &chosen[i]
				k := key{tenant, h.Address}
				if other, twice := meant[k]; twice {
					if other.To != e.To || other.Wave != e.Wave {
						return nil, fmt.Errorf("%s is to move to %s in wave %d, and to %s in wave %d", h.Address, other.To, other.Wave, e.To, e.Wave)
					}
					continue
				}
				meant[k] = e
				m := plannedMove{Wave: e.Wave, Address: h.Address, Tenant: h.Tenant, To: e.To, State: moveReady, Notes: []string{}}
				if h.Source != "" {
					m.host, m.From = h, h.Site
				}
				list = append(list, m)
			}
		}
	}
	number(list, size)
	return list, nil
}

func within(hosts []api.Host, p netip.Prefix) (list []api.Host) {
	for _, h := range hosts {
		if p.Contains(h.Address) {
			list = append(list, h)
		}
	}
	return list
}

// number cuts the waves that the plan names into ones of a bounded size.
func number(list []plannedMove, size int) {
	slices.SortStableFunc(list, func(a, b plannedMove) int { return a.Wave - b.Wave })
	wave, named, count := 0, -1, 0
	for i := range list {
		if list[i].Wave != named || count == size {
			wave, named, count = wave+1, list[i].Wave, 0
		}
		list[i].Wave = wave
		count++
	}
}

func planTable(w io.Writer, list []plannedMove) {
	row(w, "WAVE", "HOST", "TENANT", "FROM", "TO", "STATE", "NOTES")
	for i := range list {
		m := &list[i]
		row(w, m.Wave, m.Address, m.Tenant, m.From, m.To, m.State, strings.Join(m.Notes, "; "))
	}
}
