package bfd

import (
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/gopacket/gopacket/layers"
)

// slow is how often a session that is not Up may send at most (RFC 5880, section 6.8.3): who does not answer is not
// bothered.
const slow = time.Second

// session is the state of RFC 5880, section 6.8.1, and what happens to it. It touches neither clock nor network: it is
// told the time, and answers what to send. Asynchronous mode in the active role; of demand mode only the wish of the
// other end is heeded.
type session struct {
	local, remote netip.Addr
	multiplier    uint8
	wanted        time.Duration // between packets, in both directions, once Up
	auth          authenticator

	state, remoteState                 layers.BFDState
	diagnostic, remoteDiagnostic       layers.BFDDiagnostic
	discriminator, remoteDiscriminator layers.BFDDiscriminator

	// What we announce. It is in force once the other end has confirmed it, except where it only makes us send sooner
	// or wait longer (section 6.8.3).
	desiredTx, requiredRx time.Duration
	agreedTx, agreedRx    time.Duration
	polling               bool

	remoteTx, remoteRx time.Duration // what it wishes to send, and can bear to receive
	remoteMultiplier   uint8
	remoteDemand       bool

	sent   time.Time // the last packet that the timer called for
	sendAt time.Time // the next one; zero: none is wanted
	deadAt time.Time // the detection time ends; zero: nothing was heard since it did
	spared bool      // it was put off since something was heard

	since time.Time // of the state
	flaps int       // times it left Up
}

func newSession(local, remote netip.Addr, d layers.BFDDiscriminator, now time.Time) *session {
	s := &session{
		local: local, remote: remote, discriminator: d, state: layers.BFDStateDown, since: now,
		auth: newAuthenticator(nil),
	}
	s.forget()
	s.sendAt = now
	return s
}

// forget drops what the other end has said: it may come back as another.
func (s *session) forget() {
	s.remoteState, s.remoteDiscriminator, s.remoteDemand = layers.BFDStateDown, 0, false
	s.remoteTx, s.remoteRx, s.remoteMultiplier = 0, time.Microsecond, 0
	s.deadAt = time.Time{}
}

// configure sets how often to send and to expect packets.
func (s *session) configure(interval time.Duration, multiplier uint8, now time.Time) {
	s.multiplier = multiplier
	if s.wanted != interval {
		s.wanted = interval
		s.announce(now)
	}
}

// announce brings what is announced in line with the configuration and the state.
func (s *session) announce(now time.Time) {
	s.desiredTx, s.requiredRx = max(s.wanted, slow), s.wanted
	if s.state == layers.BFDStateUp {
		s.desiredTx = s.wanted
		s.polling = true
		s.agreedTx, s.agreedRx = min(s.agreedTx, s.desiredTx), max(s.agreedRx, s.requiredRx)
	} else {
		s.agree()
	}
	s.schedule(now)
}

func (s *session) agree() {
	s.polling = false
	s.agreedTx, s.agreedRx = s.desiredTx, s.requiredRx
}

// enter changes the state and reports whether it was another.
func (s *session) enter(state layers.BFDState, why layers.BFDDiagnostic, now time.Time) bool {
	if s.state == state {
		return false
	}
	if s.state == layers.BFDStateUp {
		s.flaps++
	}
	s.state, s.diagnostic, s.since = state, why, now
	s.announce(now)
	return true
}

// answer is what a packet or the clock calls for at once.
type answer struct {
	final bool // the other end polls
	news  bool // our state is another
}

// receive digests a packet that was found to belong to the session and to be authentic (section 6.8.6, from where its
// contents are taken over).
func (s *session) receive(p *layers.BFD, now time.Time) (a answer) {
	s.remoteDiscriminator, s.remoteState, s.remoteDiagnostic = p.MyDiscriminator, p.State, p.Diagnostic
	s.remoteDemand, s.remoteMultiplier = p.Demand, uint8(p.DetectMultiplier)
	s.remoteTx, s.remoteRx = duration(p.DesiredMinTxInterval), duration(p.RequiredMinRxInterval)
	if p.Final && s.polling {
		s.agree()
	}
	if s.state == layers.BFDStateAdminDown {
		return a
	}
	a.news = s.advance(p.State, now)
	a.final = p.Poll
	s.deadAt, s.spared = now.Add(s.detection()), false
	s.auth.heard(now, s.detection())
	s.schedule(now)
	return a
}

// advance is the figure of section 6.2.
func (s *session) advance(remote layers.BFDState, now time.Time) bool {
	const down, init, up = layers.BFDStateDown, layers.BFDStateInit, layers.BFDStateUp
	switch {
	case remote == layers.BFDStateAdminDown, s.state == up && remote == down:
		return s.enter(down, layers.BFDDiagnosticNeighborSignalDown, now)
	case s.state == down && remote == down:
		return s.enter(init, layers.BFDDiagnosticNone, now)
	case s.state == down && remote == init, s.state == init && remote != down:
		return s.enter(up, layers.BFDDiagnosticNone, now)
	}
	return false
}

// detection is the time without a packet after which the other end counts as lost (section 6.8.4).
func (s *session) detection() time.Duration {
	return time.Duration(s.remoteMultiplier) * max(s.agreedRx, s.remoteTx)
}

// spare gives the other end, once in a silence, the time of one more packet: we were away ourselves, and what it has sent
// is still to be read.
func (s *session) spare(now time.Time) {
	more := now.Add(max(s.agreedRx, s.remoteTx))
	if !s.deadAt.IsZero() && !s.spared && s.deadAt.Before(more) {
		s.deadAt, s.spared = more, true
	}
}

// expire lets the detection time run out.
func (s *session) expire(now time.Time) (a answer) {
	if s.deadAt.IsZero() || now.Before(s.deadAt) {
		return a
	}
	s.forget()
	if s.state == layers.BFDStateInit || s.state == layers.BFDStateUp {
		a.news = s.enter(layers.BFDStateDown, layers.BFDDiagnosticTimeExpired, now)
	}
	s.schedule(now)
	return a
}

// interval is the time between periodic packets before jitter, 0 where none are wanted (section 6.8.7).
func (s *session) interval() time.Duration {
	up := s.state == layers.BFDStateUp && s.remoteState == layers.BFDStateUp
	if s.remoteRx == 0 || s.remoteDemand && up && !s.polling {
		return 0
	}
	return max(s.agreedTx, s.remoteRx)
}

// transmitted notes that the periodic packet has left.
func (s *session) transmitted(now time.Time) {
	s.sent, s.sendAt = now, time.Time{}
	s.schedule(now)
}

// schedule makes sure that the next packet comes neither later nor sooner than the interval now allows. A quarter of it
// is left to chance, so that sessions do not march in step; with a multiplier of 1 at least a tenth must be, or the
// other end would count the last packet as lost.
func (s *session) schedule(now time.Time) {
	i := s.interval()
	if i == 0 {
		s.sendAt = time.Time{}
		return
	}
	longest := s.sent.Add(i)
	if s.multiplier == 1 {
		longest = s.sent.Add(i * 9 / 10)
	}
	shortest := s.sent.Add(i * 3 / 4)
	if s.sendAt.IsZero() || s.sendAt.After(longest) || s.sendAt.Before(shortest) {
		s.sendAt = shortest.Add(time.Duration(rand.Int64N(int64(longest.Sub(shortest)) + 1)))
	}
	if s.sendAt.Before(now) {
		s.sendAt = now
	}
}

// packet is what there is to say (section 6.8.7). C is 0: the session shares the fate of the daemon, whose data path
// goes on without it.
func (s *session) packet(final bool) layers.BFD {
	return layers.BFD{
		Version: 1, Diagnostic: s.diagnostic, State: s.state, Poll: s.polling && !final, Final: final,
		DetectMultiplier: layers.BFDDetectMultiplier(s.multiplier),
		MyDiscriminator:  s.discriminator, YourDiscriminator: s.remoteDiscriminator,
		DesiredMinTxInterval:  layers.BFDTimeInterval(s.desiredTx / time.Microsecond),
		RequiredMinRxInterval: layers.BFDTimeInterval(s.requiredRx / time.Microsecond),
	}
}

// next is when to look at the session again.
func (s *session) next() time.Time { return earlier(s.sendAt, s.deadAt) }

// earlier ignores times that are zero.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

func duration(i layers.BFDTimeInterval) time.Duration { return time.Duration(i) * time.Microsecond }
