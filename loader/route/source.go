package route

import "context"

// Source tells the RIB what it knows until its context ends. It makes one full report, marks its end with
// Reporter.Synced, and then reports differences; a new full report may start at any time (resynchronisation)
// with Reporter.Begin and ends with Synced again: what was held from this source and was not heard again since
// Begin is gone then.
type Source interface {
	Name() string
	Run(ctx context.Context, to Reporter) error
}

// Reporter is a source's end of the RIB. All methods may be called from one goroutine per source and block until
// the RIB has taken the message, so that a fast source cannot outrun it.
type Reporter interface {
	// Begin starts a full report.
	Begin(ctx context.Context) error
	// Report hands over a batch, applied in order and as one: either every change is valid and applied, or the
	// error names the first that is not and nothing changed.
	Report(ctx context.Context, changes []Change) error
	// Synced ends a full report.
	Synced(ctx context.Context) error
}

// Sink takes the RIB's decisions, in order. Applying one twice changes nothing. An error names the change that
// could not be applied; the RIB keeps its decision and reports the sink as behind.
type Sink interface {
	Name() string
	Apply(ctx context.Context, changes []Decision) error
}

// Decision is the RIB's answer for one key: the winning claim, or none.
type Decision struct {
	Claim
	Source  string // of the winner
	Gone    bool   // no claim is left: forget the key; Claim holds only its Key
	Held    bool   // moved away from here moments ago: the data path may tunnel on what a tunnel brings for it
	Moved   bool   // not held, but moved moments ago: not all sites know of it yet
	Awaited bool   // held or moved, and its first packet since has not been seen
}
