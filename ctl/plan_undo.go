package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/urfave/cli/v2"

	"roam/loader/api"
)

// A journal has what hosts were before a plan moved them, so that all of it can be taken back with one command, also after waves that came out
// right, also another day. It lies beside the plan rather than in the daemon: it belongs to a piece of work, and goes when that is undone or its
// operator removes it. A wave is in it, on disk, before it is in force, and leaves it when it has been taken back: what is in it may have happened,
// what is not has not.
type journal struct {
	file    string
	entries []journalEntry
}

// journalEntry is one host. The first word about it stays: it is what the host was before the plan.
type journalEntry struct {
	Wave    int           `json:"wave"`
	Address netip.Addr    `json:"address"`
	Tenant  string        `json:"tenant"`
	From    string        `json:"from"`
	To      string        `json:"to"`
	Here    bool          `json:"here"` // it lived here
	MAC     string        `json:"mac,omitempty"`
	Before  *api.NewRoute `json:"before,omitempty"` // what was injected
}

func (e *journalEntry) is(m *plannedMove) bool { return e.Address == m.Address && e.Tenant == m.Tenant }

// journalFile is the plan's, for the gateway's own site: the same plan is carried out at several.
func journalFile(c *cli.Context, k *knowledge) (string, error) {
	if name := c.String("journal"); name != "" {
		return name, nil
	}
	plan := c.String("plan")
	if plan == "-" {
		return "", usage("name one with --journal FILE", "a plan from standard input has no place for its journal")
	}
	own := ""
	for name, s := range k.sites {
		if s.Own {
			own = name
		}
	}
	return plan + "." + own + ".undo", nil
}

func openJournal(file string, err error) (*journal, error) {
	if err != nil {
		return nil, err
	}
	j := &journal{file: file}
	text, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return j, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &j.entries)
	}
	if err != nil {
		return nil, &hinted{fmt.Errorf("read journal %s: %w", file, err), "move it away to begin a new one: then nothing that it has can be undone"}
	}
	return j, nil
}

func (j *journal) len() int { return len(j.entries) }

// begin notes hosts that are about to move.
func (j *journal) begin(moves []*plannedMove, before map[*plannedMove]api.NewRoute) error {
	for _, m := range moves {
		e := journalEntry{Wave: m.Wave, Address: m.Address, Tenant: m.Tenant, From: m.From, To: m.To, Here: m.host.Here, MAC: m.host.MAC}
		if r, had := before[m]; had {
			e.Before = &r
		}
		if i := slices.IndexFunc(j.entries, func(e journalEntry) bool { return e.is(m) }); i >= 0 {
			j.entries[i].Wave, j.entries[i].To = m.Wave, m.To
		} else {
			j.entries = append(j.entries, e)
		}
	}
	return j.write()
}

// end removes hosts that are again where they were.
func (j *journal) end(moves []*plannedMove) error {
	j.entries = slices.DeleteFunc(j.entries, func(e journalEntry) bool {
		return slices.ContainsFunc(moves, func(m *plannedMove) bool { return e.is(m) })
	})
	return j.write()
}

// write replaces the file whole; an empty journal has none.
func (j *journal) write() error {
	if len(j.entries) == 0 {
		if err := os.Remove(j.file); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("write the journal: %w", err)
		}
		return nil
	}
	text, err := json.MarshalIndent(j.entries, "", " ")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(j.file), filepath.Base(j.file)+".*")
	if err != nil {
		return fmt.Errorf("write the journal: %w", err)
	}
	_, err = f.Write(append(text, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), j.file)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return fmt.Errorf("write the journal: %w", err)
	}
	return nil
}

// undoMoves takes back what a plan has moved, wave by wave, the last first. A host that somebody has moved on since is left where it is.
func undoMoves(c *cli.Context) error {
	d := client(c)
	known, err := learn(c.Context, d, nil)
	if err != nil {
		return err
	}
	j, err := openJournal(journalFile(c, known))
	if err != nil {
		return err
	}
	moves := j.moves()
	x := &execution{d: d, sites: known.sites, wait: c.Duration("wait"), journal: j}
	r := planReport{Moves: moves}
	if len(moves) > 0 {
		r.Waves = moves[0].Wave
	}
	err = x.movedOn(c.Context, moves)
	if err == nil && c.Bool("yes") {
		err = x.undo(c.Context, &r)
	}
	return r.conclude(c, err, undoEnd)
}

func undoEnd(w io.Writer, c *cli.Context, r *planReport) {
	switch {
	case r.Error != "":
	case len(r.Moves) == 0:
		fmt.Fprintln(w, "\nnothing of this plan is left to take back")
	case c.Bool("yes"):
		fmt.Fprintf(w, "\n%d waves are taken back\n", r.Done)
	default:
		fmt.Fprintf(w, "\n%d hosts; nothing was changed: --undo --yes takes them back\n", len(r.Moves))
	}
}

// moves are the journal's hosts as moves from where they are to where they were, the last wave first.
func (j *journal) moves() []plannedMove {
	list := []plannedMove{}
	entries := slices.Clone(j.entries)
	slices.SortStableFunc(entries, func(a, b journalEntry) int { return b.Wave - a.Wave })
	for i := range entries {
		e := &entries[i]
		list = append(list, plannedMove{
			Wave: e.Wave, Address: e.Address, Tenant: e.Tenant, From: e.To, To: e.From, State: moveReady, Notes: []string{}, before: e.Before,
			host: &api.Host{Address: e.Address, Tenant: e.Tenant, Here: e.Here, MAC: e.MAC},
		})
	}
	return list
}

// movedOn finds the hosts that the plan's word does not place any more.
func (x *execution) movedOn(ctx context.Context, moves []plannedMove) error {
	for i := range moves {
		m := &moves[i]
		found, err := x.d.Lookup(ctx, m.Address, m.Tenant)
		if err != nil {
			return err
		}
		site := x.sites[m.From]
		if !slices.ContainsFunc(found.Routes, func(r api.Route) bool {
			return r.Source == api.SourceName && r.Prefix.IsSingleIP() && leadsTo(r.Via, r.Local != nil, site)
		}) {
			m.State, m.Notes = moveLeft, append(m.Notes, "somebody has moved it since, or taken it back: it stays where it is")
		}
	}
	return nil
}

func (x *execution) undo(ctx context.Context, r *planReport) error {
	for rest := r.Moves; len(rest) > 0; r.Done++ {
		n := 0
		for n < len(rest) && rest[n].Wave == rest[0].Wave {
			n++
		}
		var ready, all []*plannedMove
		before := map[*plannedMove]api.NewRoute{}
		for i := range rest[:n] {
			m := &rest[i]
			all = append(all, m)
			if m.State != moveReady {
				continue
			}
			ready = append(ready, m)
			if m.before != nil {
				before[m] = *m.before
			}
		}
		if err := x.takeBack(ctx, ready, before); err != nil {
			return fmt.Errorf("wave %d: %w", rest[0].Wave, err)
		}
		if err := x.journal.end(all); err != nil {
			return err
		}
		rest = rest[n:]
	}
	return nil
}
