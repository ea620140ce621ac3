// Package standing says whether a locator that is watched is in or out: one that fell is out, and is let back in when it has answered
// for a while, the longer the more often it fell.
package standing

import "time"

// How long a locator must answer before it is let back in after it fell. The time doubles with each fall that follows
// before it has answered for calm.
const (
	FirstHold = time.Second
	longHold  = 64 * time.Second
	calm      = 2 * time.Minute
)

// Standing is what those who watch a locator know of it. One that never answered is in: its gateway may not speak what it is asked in.
// So is one whose gateway says that it stops to: RFC 5882, section 4.2, has such a session mean nothing. The zero Standing is of one that
// never answered. Its user serialises the calls.
type Standing struct {
	Up   bool          // it answers
	Out  bool          // it fell, and is not let back in yet
	Hold time.Duration // it must answer for that long to be let back in

	since time.Time
}

// Follow takes notice: whether it answers, and if not, whether it has said goodbye.
func (s *Standing) Follow(up, goodbye bool, now time.Time) {
	switch {
	case up && !s.Up:
		s.since = now
	case !up && s.Up && !goodbye:
		if s.Hold = min(2*s.Hold, longHold); s.Hold == 0 || now.Sub(s.since) >= calm {
			s.Hold = FirstHold
		}
		s.Out = true
	}
	s.Up = up
	if !up && goodbye || up && !now.Before(s.Back()) {
		s.Out = false
	}
}

// Back is when a locator that goes on answering is let in.
func (s *Standing) Back() time.Time { return s.since.Add(s.Hold) }
