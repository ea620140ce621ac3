package bgp

import (
	"context"
	"fmt"
	"math"
	"net/netip"
	"reflect"
	"slices"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
)

// call announces what there is and then adds the neighbours: see the package's comment.
func (sp *speaker) call(ctx context.Context) error {
	floods, err := sp.announce.floods()
	if err != nil {
		return err
	}
	if len(floods) > 0 {
		if _, err := sp.server.AddPath(apiutil.AddPathRequest{Paths: floods}); err != nil {
			return fmt.Errorf("announce bridged segments: %w", err)
		}
	}
	if err := sp.flush(ctx); err != nil {
		return err
	}
	sp.called = true
	for i := range sp.config.Neighbors {
		if err := sp.addNeighbor(ctx, &sp.config.Neighbors[i], sp.restarted); err != nil {
			return err
		}
	}
	return nil
}

func (sp *speaker) addNeighbor(ctx context.Context, n *Neighbor, restarted bool) error {
	s := &session{Neighbor: n, peer: uint16(len(sp.byPeer))}
	if len(sp.byPeer) > math.MaxUint16 {
		return errAgain // more than that came and went: count anew
	}
	// What was forwarded before a restart stays until its neighbour has had the time it was promised; a first start
	// waits for nobody who does not answer.
	s.deadline = time.Now().Add(2 * patience)
	if restarted {
		s.deadline = time.Now().Add(max(n.GracefulRestart, 2*patience))
	}
	sp.tableMu.Lock()
	sp.byPeer = append(sp.byPeer, s)
	sp.sessions[n.Address] = s
	sp.tableMu.Unlock()
	return sp.addPeer(ctx, n, restarted)
}

func (sp *speaker) addPeer(ctx context.Context, n *Neighbor, restarted bool) error {
	if err := sp.server.AddPeer(ctx, &api.AddPeerRequest{Peer: n.peer(sp.config.ASN, restarted)}); err != nil {
		return fmt.Errorf("add neighbour %s: %w", n.Address, err)
	}
	return nil
}

func (sp *speaker) deletePeer(ctx context.Context, a netip.Addr) error {
	if err := sp.server.DeletePeer(ctx, &api.DeletePeerRequest{Address: a.String()}); err != nil {
		return fmt.Errorf("remove neighbour %s: %w", a, err)
	}
	return nil
}

// peer is the neighbour in the library's words.
func (n *Neighbor) peer(own uint32, restarted bool) *api.Peer {
	p := &api.Peer{
		Conf: &api.PeerConf{NeighborAddress: n.Address.String(), PeerAsn: n.ASN, AuthPassword: n.Password},
		Timers: &api.Timers{Config: &api.TimersConfig{
			HoldTime: seconds(n.Hold), KeepaliveInterval: seconds(n.Keepalive), ConnectRetry: seconds(n.ConnectRetry),
			IdleHoldTimeAfterReset: seconds(patience),
		}},
		Transport: &api.Transport{PassiveMode: n.Passive, RemotePort: uint32(n.Port)},
	}
	if n.Local.IsValid() {
		p.Transport.LocalAddress = n.Local.String()
	}
	switch {
	case n.TTLSecurity > 0:
		p.TtlSecurity = &api.TtlSecurity{Enabled: true, TtlMin: 256 - uint32(n.TTLSecurity)}
	case n.ASN != own && n.Multihop > 0:
		p.EbgpMultihop = &api.EbgpMultihop{Enabled: true, MultihopTtl: uint32(n.Multihop)}
	}
	graceful := n.GracefulRestart > 0
	if graceful {
		p.GracefulRestart = &api.GracefulRestart{
			Enabled: true, RestartTime: uint32(seconds(n.GracefulRestart)), NotificationEnabled: true,
			DeferralTime: uint32(seconds(deferral)), LocalRestarting: restarted,
		}
	}
	for _, f := range n.Families {
		af := familyOf(f)
		family := apiutil.ToApiFamily(af.Afi(), af.Safi())
		p.AfiSafis = append(p.AfiSafis, &api.AfiSafi{
			Config:            &api.AfiSafiConfig{Family: family, Enabled: true},
			MpGracefulRestart: &api.MpGracefulRestart{Config: &api.MpGracefulRestartConfig{Enabled: graceful}},
			PrefixLimits:      &api.PrefixLimit{Family: family, MaxPrefixes: n.MaxPrefix},
			// A plain reflector knows no sequences: it had better tell of every gateway that has a host.
			AddPaths: &api.AddPaths{Config: &api.AddPathsConfig{Receive: f != EVPN}},
		})
	}
	return p
}

func seconds(d time.Duration) uint64 { return uint64(d / time.Second) }

// reconfigure makes the neighbours those of the configuration. Everything else that differs is errAgain.
func (sp *speaker) reconfigure(ctx context.Context) error {
	sp.mu.Lock()
	next := sp.Source.config
	sp.mu.Unlock()
	if next == sp.config {
		return nil
	}
	if next == nil {
		return errAgain
	}
	a, b := *sp.config, *next
	a.Neighbors, b.Neighbors = nil, nil
	if !reflect.DeepEqual(a, b) {
		return errAgain
	}
	return sp.setNeighbors(ctx, next)
}

func (sp *speaker) setNeighbors(ctx context.Context, next *Config) error {
	if reflect.DeepEqual(sp.config.Neighbors, next.Neighbors) {
		return nil
	}
	// Policies and marks go by a neighbour's place in the list.
	if !sp.called || restricted(sp.config) || restricted(next) || familiesOf(sp.config) != familiesOf(next) {
		return errAgain
	}
	keep := make(map[netip.Addr]bool)
	for i := range next.Neighbors {
		n := &next.Neighbors[i]
		if s := sp.sessions[n.Address]; s != nil && reflect.DeepEqual(s.Neighbor, n) {
			keep[n.Address] = true
		}
	}
	touched := make(map[hostKey]struct{})
	for address, s := range sp.sessions {
		if keep[address] {
			continue
		}
		if err := sp.deletePeer(ctx, address); err != nil {
			return err
		}
		sp.tableMu.Lock()
		delete(sp.sessions, address)
		s.up = false
		sp.sweep(s, touched, 0)
		sp.tableMu.Unlock()
	}
	sp.config = next
	for i := range next.Neighbors {
		if n := &next.Neighbors[i]; !keep[n.Address] {
			if err := sp.addNeighbor(ctx, n, false); err != nil {
				return err
			}
		}
	}
	sp.tableMu.Lock()
	changes := sp.changes(touched)
	sp.tableMu.Unlock()
	return sp.report(ctx, changes)
}

func restricted(c *Config) bool {
	return slices.ContainsFunc(c.Neighbors, func(n Neighbor) bool {
		return len(n.Export.Prefixes)+len(n.Export.Communities)+len(n.NextHops) > 0
	})
}

func familiesOf(c *Config) (families [3]bool) {
	for i := range c.Neighbors {
		for _, f := range c.Neighbors[i].Families {
			families[f] = true
		}
	}
	return families
}
