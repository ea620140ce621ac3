package bgp

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// session is what we keep about a neighbour beside the library's state machine.
//
// Each time it comes up its epoch rises. Paths of an earlier epoch are stale: they stay until the neighbour has
// announced everything again (End-of-RIB, RFC 4724), or for Neighbor.GracefulRestart at most. That is done here rather
// than by the library because it keeps stale routes only of neighbours that promise to come back, while to us a dead
// reflector says nothing about the gateways behind it: whether those live is for liveness to find out.
type session struct {
	*Neighbor
	peer  uint16
	epoch uint32
	up    bool
	since time.Time // of the state, zero before the first
	flaps int
	why   string // it went down the last time

	missing  map[bgp.Family]bool // families without End-of-RIB in this epoch
	told     bool                // has once told everything it knows, or had its chance
	deadline time.Time           // when what is stale goes and the first report counts as finished; zero: nothing is due
	reopen   time.Time           // when to try again after the prefix limit
}

// patience is how long a neighbour that sends no End-of-RIB has for what it knows, from its first route or the last.
const patience = 5 * time.Second

// peerUp begins an epoch.
func (s *session) peerUp(p *apiutil.Peer, now time.Time) {
	s.up, s.since, s.epoch = true, now, s.epoch+1
	s.missing = make(map[bgp.Family]bool)
	marks := false
	for _, c := range p.State.RemoteCap {
		switch c := c.(type) {
		case *bgp.CapMultiProtocol:
			if slices.ContainsFunc(s.Families, func(f Family) bool { return familyOf(f) == c.CapValue }) {
				s.missing[c.CapValue] = true
			}
		case *bgp.CapGracefulRestart:
			marks = true
		}
	}
	s.deadline = now.Add(patience)
	if marks && len(s.missing) > 0 {
		s.deadline = now.Add(max(s.GracefulRestart, patience))
	}
}

// heard puts off the end of a first report that has no mark.
func (s *session) heard(now time.Time) {
	if s.up && !s.deadline.IsZero() && s.deadline.Sub(now) < patience {
		s.deadline = now.Add(patience)
	}
}

// peerDown reports whether the neighbour's routes go at once: it said goodbye, or was sent away.
func (s *session) peerDown(p *apiutil.Peer, now time.Time) (goodbye bool) {
	s.up, s.since = false, now
	s.flaps++
	s.why = p.State.DisconnectMessage
	limit := p.State.AdminState == api.PeerState_ADMIN_STATE_PFX_CT
	if limit {
		s.why = "more routes than max_prefix allows"
	}
	s.deadline = now.Add(s.GracefulRestart)
	switch p.State.DisconnectReason {
	case api.PeerState_DISCONNECT_REASON_NOTIFICATION_RECEIVED:
		// The library hands out the code as text only. 6 is Cease: the neighbour is being shut down or told so. Other
		// codes are about the session, not about its routes (RFC 8538).
		goodbye = strings.Contains(s.why, "code 6(") || strings.Contains(s.why, "cease")
	case api.PeerState_DISCONNECT_REASON_ADMIN_DOWN, api.PeerState_DISCONNECT_REASON_HARD_RESET,
		api.PeerState_DISCONNECT_REASON_DECONFIGURED:
		goodbye = true
	}
	return goodbye || limit || s.GracefulRestart == 0
}

func familyOf(f Family) bgp.Family {
	return [...]bgp.Family{EVPN: bgp.RF_EVPN, IPv4: bgp.RF_IPv4_UC, IPv6: bgp.RF_IPv6_UC}[f]
}

// familyOfKind is the one that brings paths of a kind.
func (id pathID) family() bgp.Family {
	switch {
	case id.kind != kindUnicast:
		return bgp.RF_EVPN
	case netip.AddrFrom16(id.addr).Is4In6():
		return bgp.RF_IPv4_UC
	}
	return bgp.RF_IPv6_UC
}

// Session is a neighbour and how it fares.
type Session struct {
	Neighbor netip.Addr
	ASN      uint32
	State    string    // of RFC 4271, section 8.2.2, in lower case
	Since    time.Time // zero: never was otherwise
	Families []Family
	Received uint64 // routes it announces
	Taken    uint64 // of these, those that are followed
	Flaps    int    // times it went down
	Why      string // it went down the last time, "" for never
}

// Standing is how a neighbour fares, as far as that can be told without walking anything.
type Standing struct {
	Neighbor netip.Addr
	Up       bool
	Flaps    int // times it went down
}

func (sp *speaker) standings() (list []Standing) {
	sp.tableMu.RLock()
	defer sp.tableMu.RUnlock()
	for _, s := range sp.sessions {
		list = append(list, Standing{s.Address, s.up, s.flaps})
	}
	return list
}

// sessionList asks the library for the states and adds what is known here.
func (sp *speaker) sessionList(ctx context.Context) ([]Session, error) {
	peers := make(map[string]*api.Peer)
	err := sp.server.ListPeer(ctx, &api.ListPeerRequest{}, func(p *api.Peer) { peers[p.Conf.NeighborAddress] = p })
	if err != nil {
		return nil, fmt.Errorf("list BGP sessions: %w", err)
	}
	sp.tableMu.RLock()
	defer sp.tableMu.RUnlock()
	taken := make(map[uint16]uint64)
	sp.table.each(func(p *path) { taken[p.peer]++ })
	var list []Session
	for _, s := range sp.sessions {
		out := Session{
			Neighbor: s.Address, ASN: s.ASN, State: "idle", Since: s.since, Families: s.Families, Taken: taken[s.peer],
			Flaps: s.flaps, Why: s.why,
		}
		if p := peers[s.Address.String()]; p != nil {
			out.State = strings.ToLower(strings.TrimPrefix(p.State.SessionState.String(), "SESSION_STATE_"))
			for _, f := range p.AfiSafis {
				out.Received += f.State.GetReceived()
			}
		}
		list = append(list, out)
	}
	slices.SortFunc(list, func(a, b Session) int { return a.Neighbor.Compare(b.Neighbor) })
	return list, nil
}
