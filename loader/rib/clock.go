package rib

import "time"

// Clock is the time a RIB lives in; tests bring their own.
type Clock interface {
	Now() time.Time
	// After delivers the time once, d from now; at once when d is not positive.
	After(d time.Duration) <-chan time.Time
}

type systemClock struct{}

func (systemClock) Now() time.Time                         { return time.Now() }
func (systemClock) After(d time.Duration) <-chan time.Time { return time.After(d) }
