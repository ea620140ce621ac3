package bfd

import "time"

// How long a locator must be Up before it is let back in after it fell. The time doubles with each fall that follows
// before it has been Up for calm.
const (
	firstHold = time.Second
	longHold  = 64 * time.Second
	calm      = 2 * time.Minute
)

// standing is what the sessions with a locator mean for it. One that was never Up is in: its gateway may not speak BFD.
// So is one whose gateway says that it stops to (AdminDown): RFC 5882, section 4.2, has such a session mean nothing.
type standing struct {
	up    bool // a session is
	since time.Time
	out   bool // it fell, and is not let back in yet
	hold  time.Duration
}

// follow takes notice of the sessions: whether one is Up, and if not, whether the other end has said goodbye.
func (s *standing) follow(up, goodbye bool, now time.Time) {
	switch {
	case up && !s.up:
		s.since = now
	case !up && s.up && !goodbye:
		if s.hold = min(2*s.hold, longHold); s.hold == 0 || now.Sub(s.since) >= calm {
			s.hold = firstHold
		}
		s.out = true
	}
	s.up = up
	if !up && goodbye || up && !now.Before(s.back()) {
		s.out = false
	}
}

// back is when a locator that stays Up is let in.
func (s *standing) back() time.Time { return s.since.Add(s.hold) }
