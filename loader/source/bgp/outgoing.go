package bgp

import (
	"context"
	"runtime"
	"slices"
	"time"

	"github.com/osrg/gobgp/v4/pkg/apiutil"

	"roam/loader/route"
)

// flush announces and withdraws what has changed.
func (sp *speaker) flush(ctx context.Context) error {
	sp.mu.Lock()
	changed := sp.changed
	sp.changed = make(map[route.Key]struct{})
	is := make(map[route.Key]lodger, len(changed))
	for key := range changed {
		if l, ok := sp.here[key]; ok && !sp.silent {
			is[key] = l
		}
	}
	sp.mu.Unlock()
	begun := time.Now()
	var add, del []*apiutil.Path
	for key := range changed {
		more, less, err := sp.difference(key, is)
		if err != nil {
			return err
		}
		if len(more) == 0 {
			delete(is, key)
		}
		add, del = append(add, more...), append(del, less...)
	}
	// What replaces another route comes first: a host whose MAC changed is never withdrawn.
	for part := range slices.Chunk(add, batch) {
		if _, err := sp.server.AddPath(apiutil.AddPathRequest{Paths: part}); err != nil {
			sp.log.Error("announce", "error", err)
			clear(is)
		}
	}
	for key := range is {
		sp.leaves(key, begun)
	}
	if len(del) > 0 {
		// A host that left can be withdrawn a little later: its new site outranks us already, and who turns the switches here heard of it with us.
		runtime.Gosched()
	}
	for part := range slices.Chunk(del, batch) {
		if err := sp.server.DeletePath(apiutil.DeletePathRequest{Paths: part}); err != nil {
			sp.log.Error("withdraw", "error", err)
		}
	}
	return ctx.Err()
}

// difference is what makes one key's announcement right.
func (sp *speaker) difference(key route.Key, is map[route.Key]lodger) (add, del []*apiutil.Path, err error) {
	before, was := sp.announced[key]
	after, here := is[key]
	if here {
		if add, err = sp.announce.routes(key, after); err != nil {
			return nil, nil, err
		}
		sp.announced[key] = after
	} else {
		delete(sp.announced, key)
	}
	if !was || here && before.mac == after.mac {
		return add, nil, nil
	}
	old, err := sp.announce.routes(key, before)
	for _, p := range old {
		if !slices.ContainsFunc(add, func(q *apiutil.Path) bool { return q.Family == p.Family && q.Nlri.String() == p.Nlri.String() }) {
			del = append(del, p)
		}
	}
	return add, del, err
}
