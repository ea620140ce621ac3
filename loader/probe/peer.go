package probe

import (
	"time"

	"roam/loader/due"
	"roam/loader/standing"
)

// State is what in-band liveness says of a locator.
type State string

// The states.
const (
	Unknown State = "unknown" // it never answered: it may not know what a probe is
	Answers State = "answers"
	Silent  State = "silent" // it answered once, and no longer, or not long enough again
)

// slowest is how rarely a locator is asked that never answered.
const slowest = 10 * time.Second

// peer is what is known of one locator. Its user serialises the calls, and tells the time.
type peer struct {
	way      Way
	due.Turn // of the next small probe
	standing standing.Standing
	sizing   sizing

	ever       bool      // it answered
	unanswered int       // small probes since anything was heard
	since      time.Time // the first of them
	pause      time.Duration
	roundTrip  time.Duration // smoothed (RFC 6298, section 2)
	sent, lost uint64
}

func newPeer(w Way, first time.Time) *peer { return &peer{way: w, Turn: due.Turn{Due: first}} }

func (x *peer) set(w Way) {
	if !w.Known {
		x.way.Known = false
		return
	}
	if w.Whole != x.way.Whole {
		x.sizing = sizing{}
	}
	x.way = w
}

// step judges, and says what to send now. It never leaves due in the past.
func (x *peer) step(now time.Time, interval time.Duration, c Config) (small bool, whole int) {
	if !x.way.Known { // whose fault it is, is known
		x.Due = now.Add(interval)
		return false, 0
	}
	patience := max(time.Duration(c.Multiplier)*interval, 2*x.roundTrip)
	if x.ever && x.unanswered >= c.Multiplier && now.Sub(x.since) >= patience {
		x.standing.Follow(false, false, now)
	}
	x.pause = interval
	if !x.ever {
		x.pause = min(interval<<min(x.unanswered, 16), max(interval, slowest))
	}
	x.Due = now.Add(x.pause)
	if x.unanswered++; x.unanswered == 1 {
		x.since = now
	}
	if c.FullSize > 0 && x.standing.Up {
		whole = x.sizing.step(now, x.way, c.FullSize, patience)
	}
	return true, whole
}

// heard takes notice of an answer.
func (x *peer) heard(took time.Duration, size int, whole bool, now time.Time) {
	x.unanswered = 0
	if !x.ever {
		x.ever, x.Due = true, now
	}
	x.standing.Follow(true, false, now)
	if whole {
		x.sizing.passed(size, now)
		return
	}
	if x.roundTrip == 0 {
		x.roundTrip = took
	}
	x.roundTrip += (took - x.roundTrip) / 8
}

func (x *peer) state() State {
	switch {
	case !x.ever:
		return Unknown
	case x.standing.Out:
		return Silent
	}
	return Answers
}

// why is it silent, "" where it is not.
func (x *peer) why() string {
	switch {
	case x.state() != Silent:
		return ""
	case x.standing.Up:
		return "probes through the tunnel are answered again, and have to be for " + x.standing.Hold.String()
	}
	return "probes through the tunnel are not answered any more"
}
