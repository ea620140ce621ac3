package bgp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/netip"
	"reflect"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
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
	translate, err := newTranslator(c, s.known)
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
	s.deadline = time.Now().Add(max(n.GracefulRestart, 2*patience))
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

// flush announces and withdraws what has changed.
func (sp *speaker) flush(ctx context.Context) error {
	sp.mu.Lock()
	changed := sp.changed
	sp.changed = make(map[route.Key]struct{})
	is := make(map[route.Key]lodger, len(changed))
	for key := range changed {
		if l, ok := sp.here[key]; ok {
			is[key] = l
		}
	}
	sp.mu.Unlock()
	var add, del []*apiutil.Path
	for key := range changed {
		more, less, err := sp.difference(key, is)
		if err != nil {
			return err
		}
		add, del = append(add, more...), append(del, less...)
	}
	// What replaces another route comes first: a host whose MAC changed is never withdrawn.
	for part := range slices.Chunk(add, batch) {
		if _, err := sp.server.AddPath(apiutil.AddPathRequest{Paths: part}); err != nil {
			sp.log.Error("announce", "error", err)
		}
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
		go debug.FreeOSMemory() // decoding them left as much garbage as they need; it would stay until as much is needed again
	}
	return sp.to.Synced(ctx)
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

// quiet makes of the library's errors warnings, of its other words what is of interest to who looks for something, and
// of what it says while it is stopped nothing: who is up and who is not is told by us.
type quiet struct {
	slog.Handler
	done <-chan struct{}
}

func (q quiet) Enabled(ctx context.Context, l slog.Level) bool {
	select {
	case <-q.done:
		return false
	default:
		return l >= slog.LevelInfo && q.Handler.Enabled(ctx, lower(l))
	}
}

func lower(l slog.Level) slog.Level {
	if l >= slog.LevelError {
		return slog.LevelWarn
	}
	return slog.LevelDebug
}

func (q quiet) Handle(ctx context.Context, r slog.Record) error {
	r.Level = lower(r.Level)
	return q.Handler.Handle(ctx, r)
}

func (q quiet) WithAttrs(a []slog.Attr) slog.Handler { return quiet{q.Handler.WithAttrs(a), q.done} }

func (q quiet) WithGroup(name string) slog.Handler { return quiet{q.Handler.WithGroup(name), q.done} }
