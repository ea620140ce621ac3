// Package bfd finds out whether other gateways' locators can be reached, by BFD in asynchronous mode (RFC 5880) over
// several hops (RFC 5883): a session between each of our locators and each other one of its family.
//
// One session Up is enough for a locator: it proves the way there and back, whichever of our ends it takes. A locator
// that fell from Up is out, and is let back in when it has been Up for a while, the longer the more often it fell. See
// package standing for who is never out.
//
// What a session is and does is in session.go, without clock and network; this file gives it both. The tricky part is
// time: a machine that was itself away for a moment has packets waiting that it has not read yet, so a timer that
// fires late puts off detection by one packet, once in a silence.
package bfd

import (
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/gopacket/gopacket/layers"

	"roam/loader/standing"
)

// Config is how to speak.
type Config struct {
	Locators   []netip.Addr // ours
	Interval   time.Duration
	Multiplier uint8
	MinTTL     uint8 // packets that arrive with less come from too far
	Auth       *Auth // nil: none
}

// Options are what a Speaker needs.
type Options struct {
	Config *Config // nil: do not speak
	Log    *slog.Logger
	// Changed is told which locators are out, and why, whenever that changes. Calls do not overlap.
	Changed func(out map[netip.Addr]string)
}

// Speaker holds the sessions. Safe for concurrent use.
type Speaker struct {
	log     *slog.Logger
	changed func(map[netip.Addr]string)
	wake    chan struct{} // something is due sooner
	judged  chan struct{} // a verdict is another

	mu        sync.Mutex
	config    Config
	remotes   []netip.Addr
	closed    bool
	due       time.Time // Run looks at the sessions
	listeners map[netip.Addr]*net.UDPConn
	sessions  map[ends]*peer
	numbered  map[layers.BFDDiscriminator]*peer
	standings map[netip.Addr]*standing.Standing
	refused   map[netip.Addr]string // who sent what was no good, and why
}

// ends are what tells sessions apart before the other end knows our discriminator.
type ends struct{ local, remote netip.Addr }

// peer is a session and the socket that it sends from.
type peer struct {
	*session
	conn *net.UDPConn
}

// New returns a Speaker without sessions: see SetRemotes.
func New(o Options) *Speaker {
	s := &Speaker{
		log: o.Log, changed: o.Changed, wake: make(chan struct{}, 1), judged: make(chan struct{}, 1),
		listeners: map[netip.Addr]*net.UDPConn{}, sessions: map[ends]*peer{},
		numbered: map[layers.BFDDiscriminator]*peer{}, standings: map[netip.Addr]*standing.Standing{}, refused: map[netip.Addr]string{},
	}
	s.config = orNone(o.Config)
	return s
}

func orNone(c *Config) Config {
	if c == nil {
		return Config{}
	}
	return *c
}

func (s *Speaker) String() string { return "bfd" }

// SetConfig changes how to speak, with nil to not at all. Sessions go on where they can.
func (s *Speaker) SetConfig(c *Config) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.config = orNone(c)
	return s.reconcile()
}

// SetRemotes says which locators there are. What could not be opened is tried again at the next call.
func (s *Speaker) SetRemotes(remotes []netip.Addr) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remotes = slices.Clone(remotes)
	return s.reconcile()
}

// reconcile opens what is missing and closes what is not wanted any more.
func (s *Speaker) reconcile() error {
	if s.closed {
		return nil
	}
	now := time.Now()
	failed := s.setListeners()
	wanted := map[ends]bool{}
	for local := range s.listeners {
		for _, remote := range s.remotes {
			if local.Is4() == remote.Is4() && local != remote {
				e := ends{local, remote}
				wanted[e] = true
				failed = append(failed, s.require(e, now))
			}
		}
	}
	for e, p := range s.sessions {
		if !wanted[e] {
			for range goodbyes {
				s.farewell(p, now)
			}
			s.remove(e, p)
		}
	}
	s.forgetStandings()
	signal(s.wake)
	return errors.Join(failed...)
}

// forgetStandings drops what is known of locators without a session.
func (s *Speaker) forgetStandings() {
	has := map[netip.Addr]bool{}
	for e := range s.sessions {
		has[e.remote] = true
	}
	for remote := range s.standings {
		if !has[remote] {
			delete(s.standings, remote)
			delete(s.refused, remote)
			signal(s.judged)
		}
	}
}

func (s *Speaker) setListeners() (failed []error) {
	for local, conn := range s.listeners {
		if !slices.Contains(s.config.Locators, local) {
			_ = conn.Close()
			delete(s.listeners, local)
		}
	}
	for _, local := range s.config.Locators {
		if s.listeners[local] != nil {
			continue
		}
		conn, err := listen(local)
		if err != nil {
			failed = append(failed, err)
			continue
		}
		s.listeners[local] = conn
		go s.read(local, conn)
	}
	return failed
}

// require makes sure that there is a session, configured as it should be.
func (s *Speaker) require(e ends, now time.Time) error {
	p := s.sessions[e]
	if p == nil {
		conn, err := sender(e.local)
		if err != nil {
			return err
		}
		p = &peer{newSession(e.local, e.remote, s.discriminator(), now), conn}
		s.sessions[e], s.numbered[p.discriminator] = p, p
		if s.standings[e.remote] == nil {
			s.standings[e.remote] = &standing.Standing{}
		}
	}
	p.configure(s.config.Interval, s.config.Multiplier, now)
	if !sameAuth(p.auth.auth, s.config.Auth) {
		p.auth = newAuthenticator(s.config.Auth)
	}
	return nil
}

func sameAuth(a, b *Auth) bool { return a == b || a != nil && b != nil && *a == *b }

// discriminator draws a number that no session has (RFC 5880, section 10, would have it hard to guess).
func (s *Speaker) discriminator() layers.BFDDiscriminator {
	for {
		d := layers.BFDDiscriminator(rand.Uint32())
		if d != 0 && s.numbered[d] == nil {
			return d
		}
	}
}

func (s *Speaker) remove(e ends, p *peer) {
	_ = p.conn.Close()
	delete(s.sessions, e)
	delete(s.numbered, p.discriminator)
}

// signal leaves a token unless there is one.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
