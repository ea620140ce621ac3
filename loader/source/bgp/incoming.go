package bgp

import (
	"context"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"roam/loader/route"
	"roam/loader/tidy"
)

// take applies an event and all that wait behind it, up to a batch, and reports what comes of them.
func (sp *speaker) take(ctx context.Context, e event) error {
	touched := make(map[hostKey]struct{})
	now := time.Now()
	sp.tableMu.Lock()
	for more := true; more; {
		sp.apply(e, now, touched)
		if more = len(touched) < batch; more {
			select {
			case e = <-sp.events:
			default:
				more = false
			}
		}
	}
	changes := sp.changes(touched)
	sp.tableMu.Unlock()
	if sp.received > refuse {
		sp.index.clear()
		sp.received = 0
	}
	return sp.report(ctx, changes)
}

func (sp *speaker) apply(e event, now time.Time, touched map[hostKey]struct{}) {
	switch {
	case e.peer != nil:
		sp.peerEvent(e.peer, now, touched)
	case e.eor != nil:
		if s := sp.sessions[e.eor.PeerAddress]; s != nil {
			delete(s.missing, e.eor.Family)
			sp.sweep(s, touched, e.eor.Family)
			if len(s.missing) == 0 {
				s.told, s.deadline = true, time.Time{}
			}
		}
	default:
		sp.received += len(e.paths)
		for _, p := range e.paths {
			sp.pathEvent(p, now, touched)
		}
	}
}

func (sp *speaker) pathEvent(p *apiutil.Path, now time.Time, touched map[hostKey]struct{}) {
	s := sp.sessions[p.PeerAddress]
	if s == nil || !s.up {
		return
	}
	s.heard(now)
	id, why := identify(s.peer, p.RemoteID, p.Nlri)
	if why == "" && p.Withdrawal {
		sp.table.remove(id, touched)
		return
	}
	var is path
	var from origin
	if why == "" {
		is, from, why = sp.translate.path(s.Neighbor, id, p.Nlri, p.Attrs)
	}
	if why != "" {
		// Taken before and refused now is as good as withdrawn.
		sp.table.remove(id, touched)
		if !p.Withdrawal && why != notFollowed && id.kind != kindMAC {
			sp.ignore(why, s.Address, p.Nlri)
		}
		return
	}
	is.epoch, is.origin = s.epoch, sp.table.origin(from)
	sp.table.put(is, touched)
	if id.kind == kindMAC && from.site != sp.config.Site { // of one with an address the RIB's decision tells
		sp.departs(is.tenant, is.mac, is.sequence)
	}
}

func (sp *speaker) peerEvent(p *apiutil.Peer, now time.Time, touched map[hostKey]struct{}) {
	s := sp.sessions[p.State.NeighborAddress]
	switch up := p.State.SessionState == bgp.BGP_FSM_ESTABLISHED; {
	case s == nil, up == s.up:
	case up:
		s.peerUp(p, now)
		sp.log.Info("BGP session is up", "neighbour", s.Address, "asn", s.ASN)
		sp.alternatives(s, touched)
	default:
		goodbye := s.peerDown(p, now)
		sp.log.Warn("BGP session is down", "neighbour", s.Address, "why", s.why, "routes_stay", !goodbye)
		if goodbye {
			sp.sweep(s, touched, 0)
			s.deadline = time.Time{}
		} else {
			sp.alternatives(s, touched)
		}
		if p.State.AdminState == api.PeerState_ADMIN_STATE_PFX_CT {
			s.reopen = now.Add(sp.reopenAfter())
		}
	}
}

func (sp *speaker) reopenAfter() time.Duration {
	if sp.config.Reopen > 0 {
		return sp.config.Reopen
	}
	return defaultReopen
}

// alternatives touches the hosts for which it matters whether a session's paths are stale: those that others name, too.
func (sp *speaker) alternatives(s *session, touched map[hostKey]struct{}) {
	sp.table.each(func(p *path) {
		if key, ok := p.key(); ok && p.peer == s.peer {
			if first := sp.table.hosts[key]; sp.table.slab[first].nextHost != 0 {
				touched[key] = struct{}{}
			}
		}
	})
}

// sweep removes a session's stale paths, of one family or (0) of all.
func (sp *speaker) sweep(s *session, touched map[hostKey]struct{}, family bgp.Family) {
	var gone []pathID
	sp.table.each(func(p *path) {
		if p.peer == s.peer && (family == 0 || p.family() == family) && !sp.fresh(p.peer, p.epoch) {
			gone = append(gone, p.pathID)
		}
	})
	for _, id := range gone {
		sp.table.remove(id, touched)
	}
}

// changes are the claims of the touched keys.
func (sp *speaker) changes(touched map[hostKey]struct{}) []route.Change {
	changes := make([]route.Change, 0, len(touched))
	for key := range touched {
		c, ok := sp.table.claim(key)
		if !ok {
			c = route.Claim{Key: key.route()}
		}
		changes = append(changes, route.Change{Claim: c, Withdraw: !ok})
	}
	return changes
}

func (sp *speaker) report(ctx context.Context, changes []route.Change) error {
	if len(changes) > 0 {
		if err := sp.to.Report(ctx, changes); err != nil {
			return err
		}
	}
	if sp.synced || !sp.called {
		return nil
	}
	for _, s := range sp.sessions {
		if !s.told {
			return nil
		}
	}
	sp.synced = true
	if sp.table.len() > many {
		tidy.Later()
	}
	return sp.to.Synced(ctx)
}
