package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"roam/loader/api"
)

// planReport is what -o json writes.
type planReport struct {
	Waves   int           `json:"waves"`
	Blocked int           `json:"blocked"`
	Done    int           `json:"done"` // waves that were carried out and found right
	Error   string        `json:"error,omitempty"`
	Moves   []plannedMove `json:"moves"`
}

// planMoves checks a plan, and with --yes carries it out in waves.
//
// A wave is one request to the daemon, which takes it whole or not at all and keeps it on disk. What a host was before is written down
// first (see journal); beside that nothing of a plan is kept but the routes themselves. So whatever ends this command leaves whole waves behind, and
// the same command again finds them there and goes on. A wave that does not come out right is taken back; those before it were right, and
// stay: whether the rest is to be tried again or all to be undone is the operator's to say, and --undo says it.
func planMoves(c *cli.Context) error {
	if c.Int("wave") < 1 || c.Duration("wait") <= 0 {
		return usage("see roamctl host move --help", "--wave and --wait count upwards")
	}
	entries, err := readPlan(c, c.String("plan"))
	if err != nil {
		return err
	}
	d := client(c)
	known, err := learn(c.Context, d, entries)
	if err != nil {
		return err
	}
	moves, err := expand(entries, known.hosts, c.Int("wave"))
	if err != nil {
		return usage(planHint, "plan %s: %v", c.String("plan"), err)
	}
	if err := consult(c.Context, d, "", moves); err != nil {
		return err
	}
	if err := consultOthers(c.Context, c.StringSlice("ask"), moves); err != nil {
		return err
	}
	r := planReport{Moves: moves, Blocked: known.check(moves), Waves: moves[len(moves)-1].Wave}
	switch {
	case r.Blocked > 0:
		err = &api.Error{
			Message: fmt.Sprintf("%d of %d hosts cannot move: nothing was changed", r.Blocked, len(moves)),
			Hint:    "the notes say why; correct it, or take them out of the plan",
		}
	case c.Bool("yes"):
		var j *journal
		if j, err = openJournal(journalFile(c, known)); err == nil {
			err = carryOut(c.Context, &execution{d: d, sites: known.sites, wait: c.Duration("wait"), journal: j}, &r)
		}
	}
	return r.conclude(c, err, planEnd)
}

// conclude shows what became of a plan, with a last line that end writes.
func (r *planReport) conclude(c *cli.Context, err error, end func(io.Writer, *cli.Context, *planReport)) error {
	if err != nil {
		r.Error = err.Error()
	}
	return errors.Join(show(c, *r, func(w io.Writer) { planTable(w, r.Moves); end(w, c, r) }), err)
}

func planEnd(w io.Writer, c *cli.Context, r *planReport) {
	switch {
	case r.Error != "":
	case c.Bool("yes"):
		fmt.Fprintf(w, "\n%d waves are in force and right\n", r.Done)
	default:
		fmt.Fprintf(w, "\n%d hosts in %d waves; nothing was changed: --yes carries it out\n", len(r.Moves), r.Waves)
	}
}

// execution carries out waves.
type execution struct {
	d     *api.Client
	sites map[string]api.Site
	wait  time.Duration // for a wave to come out right

	journal *journal
}

func carryOut(ctx context.Context, x *execution, r *planReport) error {
	for rest := r.Moves; len(rest) > 0; r.Done++ {
		n := 0
		for n < len(rest) && rest[n].Wave == rest[0].Wave {
			n++
		}
		if err := x.wave(ctx, rest[:n]); err != nil {
			err = fmt.Errorf("wave %d of %d: %w", rest[0].Wave, r.Waves, err)
			if x.journal.len() > 0 {
				err = &hinted{err, "the waves before it stay: the same command goes on, --undo in place of it takes all of them back"}
			}
			return err
		}
		rest = rest[n:]
	}
	return nil
}

// wave moves hosts, and waits until that is right; if it does not become so, they are where they were.
func (x *execution) wave(ctx context.Context, moves []plannedMove) error {
	var ready []*plannedMove
	for i := range moves {
		if moves[i].State == moveReady {
			ready = append(ready, &moves[i])
		}
	}
	if len(ready) > 0 {
		before, err := x.injected(ctx, ready)
		if err != nil {
			return err
		}
		if err := x.journal.begin(ready, before); err != nil {
			return fmt.Errorf("%w; nothing of it was changed", err)
		}
		if err := x.inject(ctx, ready); err != nil {
			return errors.Join(fmt.Errorf("%w; nothing of it was changed", err), x.journal.end(ready))
		}
		if err := x.await(ctx, moves); err != nil {
			if failed := x.takeBack(context.WithoutCancel(ctx), ready, before); failed != nil {
				return errors.Join(err, failed) // and in the journal
			}
			return errors.Join(err, x.journal.end(ready))
		}
		for _, m := range ready {
			m.State = moveDone
		}
		return nil
	}
	return x.await(ctx, moves)
}

// injected are the routes of these hosts that came through this socket before, by address and tenant.
func (x *execution) injected(ctx context.Context, moves []*plannedMove) (map[*plannedMove]api.NewRoute, error) {
	before := map[*plannedMove]api.NewRoute{}
	for _, m := range moves {
		found, err := x.d.Lookup(ctx, m.Address, m.Tenant)
		if err != nil {
			return nil, err
		}
		for _, r := range found.Routes {
			if r.Source == api.SourceName && r.Prefix.IsSingleIP() {
				before[m] = api.NewRoute{
					Prefix: r.Prefix.String(), MAC: r.MAC, Tenant: r.Tenant, Via: r.Via, Site: r.Site, Local: r.Local != nil, Pinned: r.Pinned,
				}
			}
		}
	}
	return before, nil
}

func (x *execution) inject(ctx context.Context, moves []*plannedMove) error {
	var list []api.NewRoute
	for _, m := range moves {
		list = append(list, api.NewRoute{Prefix: hostPrefix(m.Address).String(), MAC: m.host.MAC, Tenant: m.Tenant, Site: m.To})
	}
	return x.put(ctx, list)
}

// put injects routes, all or none.
func (x *execution) put(ctx context.Context, list []api.NewRoute) error {
	var lines bytes.Buffer
	e := json.NewEncoder(&lines)
	for i := range list {
		if err := e.Encode(&list[i]); err != nil {
			return err
		}
	}
	_, err := x.d.Import(ctx, &lines, int64(lines.Len()), api.JSONL, nil)
	return err
}

func hostPrefix(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// takeBack puts the routes of before in place of those of a wave. What was not injected before is withdrawn; a host that lived here has been
// forgotten, and is looked for first.
func (x *execution) takeBack(ctx context.Context, moves []*plannedMove, before map[*plannedMove]api.NewRoute) error {
	var list []api.NewRoute
	var here []*plannedMove
	for _, m := range moves {
		r, had := before[m]
		if !had && m.host.Here {
			r = api.NewRoute{Prefix: hostPrefix(m.Address).String(), MAC: m.host.MAC, Tenant: m.Tenant, Local: true}
			here = append(here, m)
		}
		if r.Prefix != "" {
			list = append(list, r)
		}
		m.State = moveRolledBack
	}
	var failed []error
	if len(list) > 0 {
		failed = append(failed, x.put(ctx, list))
	}
	x.awaitSeen(ctx, here)
	for _, m := range moves {
		if _, had := before[m]; !had {
			failed = append(failed, x.d.Remove(ctx, hostPrefix(m.Address), m.Tenant))
		}
	}
	if err := errors.Join(failed...); err != nil {
		return fmt.Errorf("and it could not be taken back whole, see roamctl route export: %w", err)
	}
	return nil
}

// awaitSeen waits until hosts have been seen here again; one that does not answer is not here.
func (x *execution) awaitSeen(ctx context.Context, hosts []*plannedMove) {
	for deadline := time.Now().Add(x.wait); len(hosts) > 0 && time.Now().Before(deadline); {
		hosts = slices.DeleteFunc(hosts, func(m *plannedMove) bool {
			found, err := x.d.Lookup(ctx, m.Address, m.Tenant)
			return err == nil && slices.ContainsFunc(found.Routes, func(r api.Route) bool {
				return r.Prefix.IsSingleIP() && r.Local != nil && r.Source != api.SourceName
			})
		})
		if len(hosts) > 0 {
			sleep(ctx, planPause)
		}
	}
}

const planPause = 50 * time.Millisecond

// await waits until every host of a wave is where it is to be, and the far data path answers.
func (x *execution) await(ctx context.Context, moves []plannedMove) error {
	deadline := time.Now().Add(x.wait)
	for {
		err := x.right(ctx, moves)
		if err == nil {
			return nil
		}
		if !time.Now().Before(deadline) {
			return fmt.Errorf("not right within %v: %w", x.wait, err)
		}
		if !sleep(ctx, planPause) {
			return fmt.Errorf("interrupted: %w", err)
		}
	}
}

func (x *execution) right(ctx context.Context, moves []plannedMove) error {
	asked := map[string]bool{}
	for i := range moves {
		m := &moves[i]
		site := x.sites[m.To]
		h, err := x.d.Host(ctx, m.Address, m.Tenant)
		if err != nil {
			return err
		}
		if !leadsTo(h.Via, h.Here, site) {
			return fmt.Errorf("%s does not lead to %s: %s says where it lives", m.Address, m.To, h.Source)
		}
		if !site.Own && !asked[m.To] {
			asked[m.To] = true
			if err := x.ask(ctx, site); err != nil {
				return err
			}
		}
	}
	return nil
}

// ask probes a site through the tunnel.
func (x *execution) ask(ctx context.Context, s api.Site) error {
	locator, ok := answering(s)
	if !ok {
		return fmt.Errorf("no locator of %s is reachable", s.Name)
	}
	p, err := x.d.Ping(ctx, api.PingRequest{Locator: locator})
	if err == nil && !p.Answered {
		err = fmt.Errorf("%s at %s does not answer a probe: %s", s.Name, locator, p.Why)
	}
	return err
}
