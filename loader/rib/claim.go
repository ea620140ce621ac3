package rib

import (
	"cmp"
	"net/netip"

	"roam/loader/route"
)

// claim is one source's word about one key, in 20 bytes.
type claim struct {
	target   uint32 // where to: index in targets
	sequence uint32
	since    uint32 // seconds after the RIB's epoch: when it last changed
	mac      route.MAC
	source   uint8 // 0: no claim
	flags    uint8
}

const (
	claimPinned = 1 << iota
	claimLap    // its source's lap when it was last heard, see source.lap
)

// says reports whether two claims of one source differ in nothing but when they were heard.
func (c claim) says(d claim) bool {
	c.since, d.since = 0, 0
	c.flags &^= claimLap
	d.flags &^= claimLap
	return c == d
}

// answer is what a record's decision is made of; comparable, and zero when there is no claim.
type answer struct {
	target      uint32
	completedBy uint32 // target of the claim that knows the port, where the winner does not
	sequence    uint32
	mac         route.MAC
	source      uint8
	pinned      bool
}

func (r *RIB) answer(rec *record) answer {
	c := rec.best
	if c.source == 0 {
		return answer{}
	}
	a := answer{
		target: c.target, sequence: c.sequence, mac: c.mac, source: c.source, pinned: c.flags&claimPinned != 0,
	}
	if rec.more != 0 && r.targets.at(c.target).unresolved() {
		r.complete(rec, &a)
	}
	return a
}

// complete lends a winner that only says "here" the port and the MAC of the best claim that knows them.
func (r *RIB) complete(rec *record, a *answer) {
	var found *claim
	for i := rec.more; i != 0; i = r.table.extra[i].next {
		c := &r.table.extra[i].claim
		t := r.targets.at(c.target)
		if t.local != nil && !t.unresolved() && (found == nil || r.better(c, found)) {
			found = c
		}
	}
	if found == nil {
		return
	}
	a.completedBy = found.target
	if a.mac.IsZero() {
		a.mac = found.mac
	}
}

// rule is what decided between two claims.
type rule int

const (
	byPin rule = iota
	bySequence
	byPreference
	byHome
	byLocator
	byName
)

// rank compares two claims of different sources for one key: positive when a wins.
func (r *RIB) rank(a, b *claim) (int, rule) {
	if n := cmp.Compare(a.flags&claimPinned, b.flags&claimPinned); n != 0 {
		return n, byPin
	}
	if n := cmp.Compare(a.sequence, b.sequence); n != 0 {
		return n, bySequence
	}
	s, t := r.sources[a.source], r.sources[b.source]
	if n := cmp.Compare(s.preference, t.preference); n != 0 {
		return n, byPreference
	}
	if n := cmp.Compare(r.home(a, b), r.home(b, a)); n != 0 {
		return n, byHome
	}
	if n := r.lowest(b).Compare(r.lowest(a)); n != 0 {
		return n, byLocator
	}
	return cmp.Compare(t.name, s.name), byName
}

func (r *RIB) better(a, b *claim) bool {
	n, _ := r.rank(a, b)
	return n > 0
}

// home is 1 where a says "here" and b names another gateway of our site. Together with the rule that follows three claims
// could beat each other in a circle, so no more than two sources may share a preference.
func (r *RIB) home(a, b *claim) int {
	if here, there := r.targets.at(a.target), r.targets.at(b.target); here.local != nil && there.via != nil && there.site == r.site && r.site != "" {
		return 1
	}
	return 0
}

// lowest is the address that stands for a claim where all else is equal (RFC 7432, section 7.7).
func (r *RIB) lowest(c *claim) netip.Addr {
	if t := r.targets.at(c.target); t.local == nil {
		return t.lowest
	}
	return r.locator
}

// put sets one source's claim on a record and keeps the best one inline.
func (r *RIB) put(rec *record, c claim) {
	r.counts.claims(rec.tenant, c.source, +1)
	switch {
	case rec.best.source == 0:
		rec.best = c
	case r.better(&c, &rec.best):
		r.table.addExtra(rec, rec.best)
		rec.best = c
	default:
		r.table.addExtra(rec, c)
	}
}

// take removes one source's claim from a record, if it has one; the caller owns its target's reference.
func (r *RIB) take(rec *record, source uint8) (claim, bool) {
	if rec.best.source == source && source != 0 {
		c := rec.best
		rec.best = claim{}
		if rec.more != 0 {
			best := &rec.more
			for link := &r.table.extra[rec.more].next; *link != 0; link = &r.table.extra[*link].next {
				if r.better(&r.table.extra[*link].claim, &r.table.extra[*best].claim) {
					best = link
				}
			}
			rec.best = r.table.takeExtra(best)
		}
		r.counts.claims(rec.tenant, source, -1)
		return c, true
	}
	for link := &rec.more; *link != 0; link = &r.table.extra[*link].next {
		if r.table.extra[*link].source == source {
			r.counts.claims(rec.tenant, source, -1)
			return r.table.takeExtra(link), true
		}
	}
	return claim{}, false
}

// held returns one source's claim on a record, or nil.
func (r *RIB) held(rec *record, source uint8) *claim {
	if rec.best.source == source {
		return &rec.best
	}
	for i := rec.more; i != 0; i = r.table.extra[i].next {
		if r.table.extra[i].source == source {
			return &r.table.extra[i].claim
		}
	}
	return nil
}
