package rib

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"roam/loader/route"
)

// Claim is one source's word, with what the RIB knows about it.
type Claim struct {
	route.Claim
	Source     string
	Preference int
	Age        time.Duration // since it last changed
}

// Entry is everything held about one key.
type Entry struct {
	route.Decision
	Claims []Claim // the winner first, then as they would succeed it
	won    rule    // what set the winner apart from the runner-up
}

// Why says why the winner won, in one sentence.
func (e Entry) Why() string {
	if len(e.Claims) < 2 {
		return fmt.Sprintf("%s is the only source that claims it", e.Source)
	}
	winner, second := e.Claims[0], e.Claims[1]
	switch e.won {
	case byPin:
		return fmt.Sprintf("%s wins: its claim is pinned, that of %s is not", winner.Source, second.Source)
	case bySequence:
		return fmt.Sprintf("%s wins: its sequence %d is higher than %d of %s",
			winner.Source, winner.Sequence, second.Sequence, second.Source)
	case byPreference:
		return fmt.Sprintf("%s wins: it is preferred over %s at equal sequence %d",
			winner.Source, second.Source, winner.Sequence)
	case byHome:
		return fmt.Sprintf("%s wins: the host is here, and %s names another gateway of this site", winner.Source, second.Source)
	case byLocator:
		return fmt.Sprintf("%s wins: its locator is lower than that of %s, all else being equal",
			winner.Source, second.Source)
	default:
		return fmt.Sprintf("%s wins: its name sorts before %s, all else being equal", winner.Source, second.Source)
	}
}

// Get returns the entries that cover an address, longest prefix first: the one that packets follow and those
// behind it. None is no error.
func (r *RIB) Get(ctx context.Context, tenant route.TenantID, addr netip.Addr) (entries []Entry, err error) {
	addr = addr.Unmap().WithZone("")
	if !addr.IsValid() {
		return nil, fmt.Errorf("look up a route: no valid address")
	}
	err = r.do(ctx, func() {
		now := r.clock.Now()
		r.table.covering(tenant, addr, func(i uint32) bool {
			entries = append(entries, r.entry(r.table.at(i), now, nil))
			return true
		})
	})
	return entries, err
}

// Filter chooses among entries; zero fields choose everything.
type Filter struct {
	Tenant route.TenantID
	Source string       // a claim of this source, best or not
	Within netip.Prefix // equal to or inside it
	Hosts  bool         // single addresses only
}

const walkWindow = 1024

// Walk calls f for every entry that the filter chooses, ordered by tenant, address (IPv4 as ::ffff:0:0/96) and
// length. It works on the keys as of its start, reads their claims a window at a time, and skips what has gone
// meanwhile; f runs in the caller's goroutine and delays nobody. Entry.Claims is valid until f returns. An error of f ends the walk.
func (r *RIB) Walk(ctx context.Context, filter Filter, f func(Entry) error) error {
	keys, err := r.keys(ctx, filter)
	if err != nil {
		return err
	}
	entries := make([]Entry, walkWindow)
	for len(keys) > 0 {
		n, got := min(walkWindow, len(keys)), 0
		err := r.do(ctx, func() {
			now := r.clock.Now()
			for _, k := range keys[:n] {
				if i, ok := r.table.find(k); ok {
					entries[got] = r.entry(r.table.at(i), now, entries[got].Claims[:0])
					got++
				}
			}
		})
		if err != nil {
			return err
		}
		for _, e := range entries[:got] {
			if err := f(e); err != nil {
				return err
			}
		}
		keys = keys[n:]
	}
	return ctx.Err()
}

// keys collects the chosen keys in order.
func (r *RIB) keys(ctx context.Context, filter Filter) ([]key, error) {
	var keys []key
	for from, more := uint32(1), true; more; from += window {
		err := r.do(ctx, func() {
			if from == 1 && filter == (Filter{}) {
				keys = make([]key, 0, r.table.len)
			}
			source := r.sourceID(filter.Source)
			to := min(from+window, r.table.end)
			more = to < r.table.end
			for i := from; i < to; i++ {
				rec := r.table.at(i)
				if rec.flags&recordUsed != 0 && filter.matches(rec.key) &&
					(filter.Source == "" || r.held(rec, source) != nil) {
					keys = append(keys, rec.key)
				}
			}
		})
		if err != nil {
			return nil, err
		}
	}
	slices.SortFunc(keys, key.compare)
	return keys, nil
}

func (f Filter) matches(k key) bool {
	if f.Tenant != 0 && uint16(f.Tenant) != k.tenant || f.Hosts && !k.host() {
		return false
	}
	if !f.Within.IsValid() {
		return true
	}
	p := k.prefix()
	return p.Bits() >= f.Within.Bits() && f.Within.Contains(p.Addr())
}

// sourceID is 255 and therefore nobody's for a name that is not registered (see maxSources).
func (r *RIB) sourceID(name string) uint8 {
	for _, s := range r.sources[1:] {
		if s.name == name {
			return s.id
		}
	}
	return maxSources
}

func (r *RIB) entry(rec *record, now time.Time, claims []Claim) Entry {
	e := Entry{Decision: r.decision(rec.key, r.answer(rec))}
	if rec.more == 0 {
		e.Claims = append(claims, r.claimOf(e.Key, &rec.best, now))
		return e
	}
	all := []claim{rec.best}
	for i := rec.more; i != 0; i = r.table.extra[i].next {
		all = append(all, r.table.extra[i].claim)
	}
	slices.SortFunc(all, func(a, b claim) int { n, _ := r.rank(&b, &a); return n })
	for i := range all {
		claims = append(claims, r.claimOf(e.Key, &all[i], now))
	}
	e.Claims = claims
	_, e.won = r.rank(&all[0], &all[1])
	return e
}

func (r *RIB) claimOf(k route.Key, c *claim, now time.Time) Claim {
	t, s := r.targets.at(c.target), r.sources[c.source]
	return Claim{
		Claim: route.Claim{
			Key: k, Via: t.via, Local: t.local, Reject: t.reject, Site: t.site,
			MAC: c.mac, Sequence: c.sequence, Pinned: c.flags&claimPinned != 0,
		},
		Source:     s.name,
		Preference: s.preference,
		Age:        time.Duration(r.seconds(now)-c.since) * time.Second,
	}
}

// SourceStatus says what a source has told.
type SourceStatus struct {
	Name       string
	Preference int
	Synced     bool      // has finished a full report
	Changes    uint64    // claims that became new, different or withdrawn
	Reported   time.Time // its last report, zero for none
	Claims     int
}

// Sources returns the state of every source, in the order of registration.
func (r *RIB) Sources(ctx context.Context) (list []SourceStatus, err error) {
	err = r.do(ctx, func() {
		for _, s := range r.sources[1:] {
			status := SourceStatus{
				Name: s.name, Preference: s.preference, Synced: s.synced, Changes: s.changes, Reported: s.changed,
			}
			for _, t := range r.counts {
				if t != nil {
					status.Claims += t.held[s.id]
				}
			}
			list = append(list, status)
		}
	})
	return list, err
}
