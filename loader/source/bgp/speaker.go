package bgp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/server"

	"roam/loader/route"
)

// speaker is one life of the library's server, with one configuration but for the list of neighbours.
type speaker struct {
	*Source
	config    *Config
	to        route.Reporter
	server    *server.BgpServer
	index     macIndex
	received  int // paths since the index was emptied
	translate *translator
	announce  *announcer
	events    chan event
	done      chan struct{} // closed when nobody reads events any more
	cancel    func()        // of the subscription

	sessions  map[netip.Addr]*session // guarded by tableMu
	byPeer    []*session              // by session.peer; guarded by tableMu
	announced map[route.Key]lodger
	called    bool // the neighbours were added
	synced    bool // a first full report was made
}

// event is what the library tells: one of its fields.
type event struct {
	paths []*apiutil.Path
	eor   *apiutil.Path
	peer  *apiutil.Peer
}

const (
	eventQueue = 64      // events between the library and the table
	batch      = 4096    // claims in one report, routes in one announcement
	refuse     = 1 << 16 // paths received between two times that the library's index of MACs is emptied
	many       = 100_000 // paths that leave enough garbage behind to be worth collecting at once

	// How long we defer our own routes after a restart for neighbours that do not answer. Those that do have told all
	// they know by then, and nothing of ours waits for their choice.
	deferral = 5 * time.Second
)

var errAgain = errors.New("the configuration changed")

// speak runs a speaker until ctx ends, something fails, or the configuration calls for another one (errAgain is not
// returned).
func (s *Source) speak(ctx context.Context, c *Config, to route.Reporter) error {
	sp, err := newSpeaker(s, c, to)
	if err != nil {
		return err
	}
	if err := sp.start(ctx); err != nil {
		return errors.Join(err, sp.stop())
	}
	s.mu.Lock()
	s.speaking = sp
	for key := range s.here { // the earlier speaker's announcements went with it
		s.changed[key] = struct{}{}
	}
	s.mu.Unlock()
	err = sp.serve(ctx)
	s.mu.Lock()
	s.speaking = nil
	s.mu.Unlock()
	if errors.Is(err, errAgain) || ctx.Err() != nil {
		err = nil
	}
	return errors.Join(err, sp.stop())
}

func newSpeaker(s *Source, c *Config, to route.Reporter) (*speaker, error) {
	translate, err := newTranslator(c)
	if err != nil {
		return nil, err
	}
	sp := &speaker{
		Source: s, config: c, to: to, translate: translate, announce: newAnnouncer(c, translate),
		events: make(chan event, eventQueue), done: make(chan struct{}),
		cancel: func() {}, sessions: make(map[netip.Addr]*session), announced: make(map[route.Key]lodger),
	}
	s.tableMu.Lock()
	s.table = newTable(sp.fresh)
	s.tableMu.Unlock()
	return sp, nil
}

func (sp *speaker) fresh(peer uint16, epoch uint32) bool {
	s := sp.byPeer[peer]
	return s.up && s.epoch == epoch
}

func (sp *speaker) start(ctx context.Context) error {
	c := sp.config
	sp.server = server.NewBgpServer(server.LoggerOption(slog.New(quiet{sp.log.Handler(), sp.done}), new(slog.LevelVar)))
	go sp.server.Serve()
	global := &api.Global{Asn: c.ASN, RouterId: c.RouterID.String(), ListenPort: -1}
	if c.Port != 0 {
		global.ListenPort = int32(c.Port)
	}
	for _, a := range c.Listen {
		global.ListenAddresses = append(global.ListenAddresses, a.String())
	}
	if err := sp.server.StartBgp(ctx, &api.StartBgpRequest{Global: global}); err != nil {
		return fmt.Errorf("start the BGP speaker: %w", err)
	}
	if err := setPolicies(ctx, sp.server, c); err != nil {
		return err
	}
	var err error
	if sp.index, err = macIndexOf(sp.server); err != nil {
		return err
	}
	return sp.watch()
}

// watch subscribes to what neighbours say. Not to withdrawals that the library makes up when a session ends: what
// happens to the routes then is decided here.
func (sp *speaker) watch() error {
	ctx, cancel := context.WithCancel(context.Background())
	sp.cancel = cancel
	send := func(e event) {
		select {
		case sp.events <- e:
		case <-sp.done:
		}
	}
	err := sp.server.WatchEvent(ctx, server.WatchEventMessageCallbacks{
		OnPathUpdate: func(paths []*apiutil.Path, _ time.Time) { send(event{paths: paths}) },
		OnPathEor:    func(p *apiutil.Path, _ time.Time) { send(event{eor: p}) },
		OnPeerUpdate: func(p *apiutil.WatchEventMessage_PeerEvent, _ time.Time) {
			if p.Type == apiutil.PEER_EVENT_STATE {
				send(event{peer: &p.Peer})
			}
		},
	}, server.WatchUpdate(false, "", ""), server.WatchEor(false), server.WatchPeer())
	if err != nil {
		return fmt.Errorf("watch the BGP speaker: %w", err)
	}
	return nil
}

// stop ends the sessions without a word, so that neighbours keep our routes for a while: forwarding goes on.
func (sp *speaker) stop() error {
	close(sp.done)
	sp.cancel()
	err := sp.server.StopBgp(context.Background(), &api.StopBgpRequest{AllowGracefulRestart: true})
	sp.server.Stop()
	return err
}

// serve reports and announces until ctx ends or errAgain.
func (sp *speaker) serve(ctx context.Context) error {
	if err := sp.to.Begin(ctx); err != nil {
		return err
	}
	release := sp.release
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		timer.Reset(sp.next(time.Now()))
		var err error
		select {
		case <-ctx.Done():
			return nil
		case <-release:
			release = nil
			err = sp.call(ctx)
		case <-sp.wake:
			if err = sp.reconfigure(ctx); err == nil && sp.called {
				err = sp.flush(ctx)
			}
		case e := <-sp.events:
			err = sp.take(ctx, e)
		case <-timer.C:
			err = sp.tick(ctx, time.Now())
		}
		if err != nil {
			return err
		}
	}
}

// next is how long until something is due.
func (sp *speaker) next(now time.Time) time.Duration {
	next := time.Hour
	for _, s := range sp.sessions {
		for _, due := range []time.Time{s.deadline, s.reopen} {
			if !due.IsZero() {
				next = min(next, due.Sub(now))
			}
		}
	}
	return max(next, 0)
}

// tick does what is due.
func (sp *speaker) tick(ctx context.Context, now time.Time) error {
	touched := make(map[hostKey]struct{})
	var closed []*Neighbor
	sp.tableMu.Lock()
	for _, s := range sp.sessions {
		if !s.deadline.IsZero() && !now.Before(s.deadline) {
			s.told, s.deadline = true, time.Time{}
			sp.sweep(s, touched, 0)
		}
		if !s.reopen.IsZero() && !now.Before(s.reopen) {
			s.reopen = time.Time{}
			closed = append(closed, s.Neighbor)
		}
	}
	changes := sp.changes(touched)
	sp.tableMu.Unlock()
	for _, n := range closed { // made anew: the library counts what it kept of the last session
		if err := errors.Join(sp.deletePeer(ctx, n.Address), sp.addPeer(ctx, n, false)); err != nil {
			return err
		}
	}
	return sp.report(ctx, changes)
}
