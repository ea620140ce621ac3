package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"

	"roam/loader/route"
)

// Feed tells of every change of what wins. See package feed.
type Feed interface {
	// Follow has changes kept from now on, until done is called; they have numbers above after.
	Follow() (after uint64, done func())
	// Changes copies changes numbered above after, in order, and returns how many these are, and how many before them are no
	// longer kept. changed is closed once there are more.
	Changes(after uint64, into []route.Decision) (n int, missed uint64, changed <-chan struct{})
	// Settled is closed once every source has reported what it knew at the daemon's start.
	Settled() <-chan struct{}
}

const watchPage = 512 // changes sent at once

// What a RouteChange says.
const (
	WatchBegin  = "begin"  // forget what you hold: everything follows
	WatchSet    = "set"    // this wins for the prefix now
	WatchGone   = "gone"   // nothing that you watch wins for the prefix any more
	WatchSynced = "synced" // you know everything; from here on come changes
)

// RouteChange is a line of GET /v1/routes/watch.
type RouteChange struct {
	Action   string       `json:"action"`
	Missed   uint64       `json:"missed,omitempty"` // with begin: changes that came faster than they were read
	Tenant   string       `json:"tenant,omitempty"`
	Prefix   netip.Prefix `json:"prefix,omitzero"`
	Source   string       `json:"source,omitempty"` // of the winner
	Site     string       `json:"site,omitempty"`
	Via      []Locator    `json:"via,omitempty"`
	Local    *Local       `json:"local,omitempty"`
	Reject   bool         `json:"reject,omitempty"`
	MAC      string       `json:"mac,omitempty"`
	Sequence uint32       `json:"sequence,omitempty"`
	Pinned   bool         `json:"pinned,omitempty"`
}

// watcher is one watch under way.
type watcher struct {
	*Server
	out    *stream
	filter Filter
	links  links
	after  uint64
	synced bool
}

// watch tells of all winners, then of every change, until the client goes.
func (s *Server) watch(w http.ResponseWriter, r *http.Request) error {
	values, err := query(r, "tenant", "source", "within")
	if err != nil {
		return err
	}
	t := watcher{Server: s, links: make(links), filter: Filter{Source: values.Get("source"), Best: true}}
	if t.filter.Tenant, err = s.filterTenant(values.Get("tenant")); err != nil {
		return err
	}
	if within := values.Get("within"); within != "" {
		if t.filter.Within, err = ParsePrefix(within); err != nil {
			return wrong(err, "")
		}
	}
	t.out = newStream(w, string(JSONL))
	var missed uint64
	for more := true; more && err == nil; more = missed > 0 {
		missed, err = t.round(r.Context(), missed)
	}
	return s.end(t.out, r, err)
}

// round tells everything and then of changes, until some were missed: it returns how many. It returns 0 when the client or
// the daemon goes.
func (t *watcher) round(ctx context.Context, missed uint64) (uint64, error) {
	after, done := t.backend.Follow()
	defer done()
	t.after = after
	if err := t.snapshot(ctx, missed); err != nil {
		return 0, err
	}
	return t.changes(ctx)
}

// snapshot sends everything that wins now, at the client's pace. Changes that came meanwhile are sent again after it.
func (t *watcher) snapshot(ctx context.Context, missed uint64) error {
	t.synced = false
	if err := t.out.line(RouteChange{Action: WatchBegin, Missed: missed}); err != nil {
		return err
	}
	return t.backend.Walk(ctx, t.filter, func(c *Claim) error { return t.set(&c.Claim, c.Source) })
}

// changes sends what changes from now on.
func (t *watcher) changes(ctx context.Context) (missed uint64, err error) {
	page := make([]route.Decision, watchPage)
	for {
		n, missed, changed := t.backend.Changes(t.after, page)
		if missed > 0 {
			return missed, nil
		}
		t.after += uint64(n)
		for i := range page[:n] {
			if err := t.decision(&page[i]); err != nil {
				return 0, err
			}
		}
		if n == len(page) {
			continue
		}
		settled := t.backend.Settled()
		if t.synced {
			settled = nil
		}
		if t.out.flush() != nil {
			return 0, nil // the client has gone
		}
		select {
		case <-settled:
			t.synced = true
			// What the last source said is in the feed before it counts as settled.
			if n, missed, _ := t.backend.Changes(t.after, page[:1]); n > 0 || missed > 0 {
				t.synced = false
				continue
			}
			if err := t.out.line(RouteChange{Action: WatchSynced}); err != nil {
				return 0, err
			}
		case <-changed:
		case <-ctx.Done():
			return 0, nil
		case <-t.stopping:
			return 0, nil
		}
	}
}

func (t *watcher) decision(d *route.Decision) error {
	f := &t.filter
	if f.Tenant != 0 && f.Tenant != d.Tenant || f.Within.IsValid() && (d.Prefix.Bits() < f.Within.Bits() || !f.Within.Contains(d.Prefix.Addr())) {
		return nil
	}
	if d.Gone || f.Source != "" && f.Source != d.Source {
		return t.out.line(RouteChange{Action: WatchGone, Tenant: t.backend.TenantName(d.Tenant), Prefix: d.Prefix})
	}
	return t.set(&d.Claim, d.Source)
}

func (t *watcher) set(c *route.Claim, source string) error {
	m := RouteChange{
		Action: WatchSet, Tenant: t.backend.TenantName(c.Tenant), Prefix: c.Prefix, Source: source, Site: c.Site,
		Via: locatorsOf(c.Via), Local: localOf(c.Local, t.links), Reject: c.Reject, Sequence: c.Sequence, Pinned: c.Pinned,
	}
	if !c.MAC.IsZero() {
		m.MAC = c.MAC.String()
	}
	return t.out.line(m)
}

// Watch calls f with every line of a watch, valid until f returns, until ctx ends or the daemon stops. Site and Best of
// the query are not used.
func (c *Client) Watch(ctx context.Context, q RoutesQuery, f func(line []byte, change RouteChange) error) error {
	query := url.Values{}
	setQuery(query, "tenant", q.Tenant)
	setQuery(query, "source", q.Source)
	if q.Within.IsValid() {
		query.Set("within", q.Within.String())
	}
	return c.lines(ctx, http.MethodGet, "/v1/routes/watch", query, nil, func(line []byte) error {
		var change RouteChange
		if err := json.Unmarshal(line, &change); err != nil {
			return fmt.Errorf("read the answer: %w", err)
		}
		return f(line, change)
	})
}
