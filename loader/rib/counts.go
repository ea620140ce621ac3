package rib

import (
	"cmp"
	"context"
	"slices"

	"roam/loader/route"
)

// counts keeps the totals of each tenant in step, so that a scrape never walks the table.
type counts []*tally // by tenant, nil for one never heard of

type tally struct {
	held   [maxSources + 1]int // claims of each source
	best   [maxSources + 1]int // of these, winners
	here   int                 // hosts by where their winner points
	away   int
	reject int
	moves  uint64
}

func (c counts) of(tenant uint16) *tally {
	t := c[tenant]
	if t == nil {
		t = new(tally)
		c[tenant] = t
	}
	return t
}

func (c counts) claims(tenant uint16, source uint8, n int) { c.of(tenant).held[source] += n }

// answer moves a record from what it was counted as to what it is now.
func (c counts) answer(rec *record, before, after answer, targets *targets) {
	t := c.of(rec.tenant)
	count := func(a answer, n int) {
		if a.source == 0 {
			return
		}
		t.best[a.source] += n
		if !rec.host() {
			return
		}
		switch where := targets.at(a.target); {
		case where.local != nil:
			t.here += n
		case where.reject:
			t.reject += n
		default:
			t.away += n
		}
	}
	count(before, -1)
	count(after, +1)
	if rec.host() && before.source != 0 && after.source != 0 && targets.elsewhere(before.target, after.target) {
		t.moves++
	}
}

// elsewhere tells whether two targets are two homes. A host that is here and is given its port has not moved, nor has one that another gateway
// of its site has: it belongs to the site.
func (t *targets) elsewhere(a, b uint32) bool {
	from, to := t.at(a), t.at(b)
	return a != b && !sameHome(from.local, from.via, from.site, to.local, to.via, to.site, t.site)
}

// sameHome compares two places, each local or by way of a locator, by the sites they name; ours is that of what is local.
func sameHome(a *route.Local, aVia *route.Via, aSite string, b *route.Local, bVia *route.Via, bSite, ours string) bool {
	if a != nil && b != nil {
		return true
	}
	site := func(here *route.Local, via *route.Via, named string) string {
		switch {
		case here != nil:
			return ours
		case via != nil:
			return named
		}
		return ""
	}
	at := site(a, aVia, aSite)
	return at != "" && at == site(b, bVia, bSite)
}

// Count is what one source holds in one tenant.
type Count struct {
	Tenant route.TenantID
	Source string
	Claims int // all of them
	Best   int // those that win
}

// Hosts counts one tenant's hosts by where they are.
type Hosts struct {
	Tenant route.TenantID
	Here   int
	Away   int // at another site
	Held   int // of those away: left from here moments ago
	Reject int
	Moves  uint64 // hosts that changed their home
}

// Counts returns the totals by tenant and source, ordered, and each tenant's hosts.
func (r *RIB) Counts(ctx context.Context) (routes []Count, hosts []Hosts, err error) {
	err = r.do(ctx, func() {
		held := make(map[route.TenantID]int)
		for k := range r.holds.until {
			if d := r.current(k); d.Held {
				held[route.TenantID(k.tenant)]++
			}
		}
		for tenant, t := range r.counts {
			if t == nil {
				continue
			}
			id := route.TenantID(tenant)
			for _, s := range r.sources[1:] {
				routes = append(routes, Count{Tenant: id, Source: s.name, Claims: t.held[s.id], Best: t.best[s.id]})
			}
			hosts = append(hosts, Hosts{Tenant: id, Here: t.here, Away: t.away, Held: held[id], Reject: t.reject, Moves: t.moves})
		}
	})
	slices.SortFunc(routes, func(a, b Count) int {
		return cmp.Or(cmp.Compare(a.Tenant, b.Tenant), cmp.Compare(a.Source, b.Source))
	})
	slices.SortFunc(hosts, func(a, b Hosts) int { return cmp.Compare(a.Tenant, b.Tenant) })
	return routes, hosts, err
}
