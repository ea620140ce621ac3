// Package probe finds out whether the tunnels themselves carry packets: it sends probes through the tunnel to every locator in use, which
// the far data path answers, not a daemon.
//
// A small probe is sent every interval; a locator that answered once and then lets so many in a row go by is silent. One that
// never answered is unknown: it may be no Roam, or an older one, and is asked ever more rarely. A probe as large as the tunnel is to carry goes out every
// few seconds; where it is lost while small ones pass, the size that does pass is looked for (sizing.go).
//
// What is known of a locator is in peer.go, without clock and network. One goroutine sends, the peer that is due first from a heap; one reads.
// However many locators there are, no more than MaxRate probes leave in a second: beyond that the interval gets longer.
package probe

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"sync"
	"time"

	"roam/loader/due"
)

// MaxRate is how many probes are sent in a second, to all locators together.
const MaxRate = 2000

// Config is how to probe.
type Config struct {
	Interval   time.Duration
	Multiplier int           // unanswered probes in a row after which a locator is silent
	FullSize   time.Duration // between probes of full size, 0 for none
}

// Way is a locator in use.
type Way struct {
	Address netip.Addr
	Key     string // what was found of another key's tunnel says nothing of this one
	Known   bool   // the underlay has a way to it, else it is not probed
	Whole   int    // the largest inner packet that interface and route take
	Least   int    // the smallest probe
}

// Answer is what came back.
type Answer struct {
	From     netip.Addr
	Token    uint64
	Sequence uint16
	Size     int // of the inner packet
}

// Tunnel carries probes.
type Tunnel interface {
	// Send sends a probe with an inner packet of size bytes, or the least there can be, and returns how many.
	Send(to netip.Addr, size int, token uint64, sequence uint16) (int, error)
	// Receive waits for an answer, os.ErrClosed ends that. Other errors are of single packets.
	Receive() (Answer, error)
	// Close ends Receive.
	Close() error
}

// Options are what a Prober needs.
type Options struct {
	Config *Config // nil: probe only by Ping
	Log    *slog.Logger
	Tunnel Tunnel
	// Changed is told when some locator is silent that was not, or the other way. Calls do not overlap.
	Changed func()
	// RoundTrip is told of every answer to a probe of the usual kind.
	RoundTrip func(time.Duration)
	// Found is told the largest size that passes where not all do, every time that is found anew, and 0 when all do again. Like
	// RoundTrip it must not call the Prober.
	Found func(locator netip.Addr, size int)
}

// Prober probes. Safe for concurrent use.
type Prober struct {
	Options
	wake   chan struct{}
	judged chan struct{}

	mu       sync.Mutex
	config   Config
	peers    map[netip.Addr]*peer
	queue    due.Queue[*peer]
	sent     map[uint64]*question // by token
	order    []*question          // as sent
	sequence uint16
}

// question is a probe on its way.
type question struct {
	to    netip.Addr
	token uint64
	size  int
	at    time.Time
	whole bool          // asks whether the size passes
	reply chan<- Answer // of Ping, else nil
}

// New returns a Prober without locators: see SetWays.
func New(o Options) *Prober {
	p := &Prober{
		Options: o, wake: make(chan struct{}, 1), judged: make(chan struct{}, 1), peers: map[netip.Addr]*peer{}, sent: map[uint64]*question{},
	}
	if o.Config != nil {
		p.config = *o.Config
	}
	return p
}

func (p *Prober) String() string { return "probe" }

// SetConfig changes how to probe, nil to not at all, which forgets what was found.
func (p *Prober) SetConfig(c *Config) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c == nil {
		p.config = Config{}
		p.drop(func(*peer) bool { return true })
	} else {
		p.config = *c
	}
	signal(p.wake)
}

// SetWays says which locators are in use.
func (p *Prober) SetWays(ways []Way) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.config.Interval == 0 {
		return
	}
	now := time.Now()
	used := map[netip.Addr]bool{}
	for _, w := range ways {
		used[w.Address] = true
		old := p.peers[w.Address]
		if old != nil && (old.way.Key == w.Key || !w.Known) {
			old.set(w)
			continue
		}
		if old != nil {
			p.drop(func(x *peer) bool { return x == old })
		}
		n := newPeer(w, now.Add(rand.N(p.interval())))
		p.peers[w.Address] = n
		p.queue.Put(n)
	}
	p.drop(func(x *peer) bool { return !used[x.way.Address] })
	signal(p.wake)
}

// drop forgets peers.
func (p *Prober) drop(which func(*peer) bool) {
	for a, x := range p.peers {
		if which(x) {
			if x.standing.Out {
				signal(p.judged)
			}
			if x.sizing.holed() {
				p.Found(a, 0)
			}
			p.queue.Remove(x)
			delete(p.peers, a)
		}
	}
}

// interval is how often each locator is probed: as configured, or as MaxRate allows.
func (p *Prober) interval() time.Duration {
	return max(p.config.Interval, time.Duration(len(p.peers))*time.Second/MaxRate)
}

// patience is how long an answer is waited for before the probe counts as lost.
func (p *Prober) patience() time.Duration {
	return max(time.Second, time.Duration(p.config.Multiplier)*p.interval())
}

// Run probes until ctx ends.
func (p *Prober) Run(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { _ = p.Tunnel.Close() })()
	var done sync.WaitGroup
	done.Go(func() { p.report(ctx) })
	done.Go(func() { p.read(ctx) })
	defer done.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-p.wake:
		case <-timer.C:
		}
		timer.Reset(time.Until(p.tick(time.Now())))
	}
}

// idle is when to look again where nothing is due.
const idle = time.Second

// tick sends what is due, and returns when to come again.
func (p *Prober) tick(now time.Time) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.expire(now)
	next := now.Add(idle)
	for x := p.queue.First(); x != nil; x = p.queue.First() {
		if x.Due.After(now) {
			if x.Due.Before(next) {
				next = x.Due
			}
			break
		}
		p.ask(x, now)
		p.queue.Put(x)
	}
	return next
}

// ask sends a peer the probes that are due.
func (p *Prober) ask(x *peer, now time.Time) {
	was := x.standing.Out
	small, whole := x.step(now, p.interval(), p.config)
	if small {
		p.send(x, &question{to: x.way.Address, size: x.way.Least, at: now})
	}
	if whole != 0 {
		p.send(x, &question{to: x.way.Address, size: whole, at: now, whole: true})
	}
	p.settle(x, was)
}

// settle hands on what a step came to.
func (p *Prober) settle(x *peer, was bool) {
	if x.standing.Out != was {
		p.Log.Info("in-band liveness", "locator", x.way.Address, "state", x.state())
		signal(p.judged)
	}
	if size, news := x.sizing.told(); news {
		p.Found(x.way.Address, size)
	}
}

func (p *Prober) send(x *peer, q *question) {
	if _, err := p.post(q); err != nil {
		p.Log.Debug("send a probe", "locator", q.to, "size", q.size, "error", err)
		if !q.whole { // the underlay has no way at the moment, or the socket no room: nothing was asked
			x.unanswered--
		}
		return
	}
	if !q.whole {
		x.sent++
	}
}

// post sends a question, and remembers it.
func (p *Prober) post(q *question) (size int, err error) {
	p.sequence++
	for q.token = rand.Uint64(); q.token == 0 || p.sent[q.token] != nil; {
		q.token = rand.Uint64()
	}
	p.sent[q.token] = q
	if q.size, err = p.Tunnel.Send(q.to, q.size, q.token, p.sequence); err != nil {
		delete(p.sent, q.token)
		return q.size, err
	}
	p.order = append(p.order, q)
	return q.size, nil
}

// expire gives up on what was not answered in time.
func (p *Prober) expire(now time.Time) {
	patience := p.patience()
	n := 0
	for ; n < len(p.order) && now.Sub(p.order[n].at) >= patience; n++ {
		q := p.order[n]
		if p.sent[q.token] == nil || q.reply != nil {
			continue // answered; or Ping's, which waits as long as it likes
		}
		delete(p.sent, q.token)
		if x := p.peers[q.to]; x != nil && !q.whole {
			x.lost++
		}
	}
	p.order = append(p.order[:0], p.order[n:]...)
}

// read takes answers until ctx ends.
func (p *Prober) read(ctx context.Context) {
	for {
		a, err := p.Tunnel.Receive()
		if ctx.Err() != nil || errors.Is(err, os.ErrClosed) {
			return
		}
		if err == nil {
			p.answered(a, time.Now())
		}
	}
}

func (p *Prober) answered(a Answer, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	q := p.sent[a.Token]
	if q == nil || q.to != a.From {
		return
	}
	delete(p.sent, a.Token)
	if q.reply != nil {
		q.reply <- a // it has room
		return
	}
	x := p.peers[q.to]
	if x == nil {
		return
	}
	was := x.standing.Out
	took := max(0, now.Sub(q.at))
	first := !x.ever
	x.heard(took, a.Size, q.whole, now)
	if first { // from now on it is asked at the usual pace
		p.queue.Put(x)
		signal(p.wake)
	}
	if !q.whole {
		p.RoundTrip(took)
	}
	p.settle(x, was)
}

// report hands verdicts on without holding up the probes.
func (p *Prober) report(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.judged:
			p.Changed()
		}
	}
}

// signal leaves a token unless there is one.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
