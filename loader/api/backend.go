package api

import (
	"context"
	"net/netip"
	"time"

	"roam/loader/route"
)

// Backend is everything the server asks for. Each part is small and may be replaced by a fake; methods are
// called from many goroutines. An error of type *Error travels as it is, any other as an internal failure.
type Backend struct {
	Observer
	Recorder
	Tracer
	Routes
	Feed
	Injector
	Operator
	Names
}

// Observer knows how the daemon and its data path fare.
type Observer interface {
	Status(ctx context.Context) (Status, error)
	Sites(ctx context.Context) (List[Site], error)
	Sessions(ctx context.Context) (List[Session], error)
	Counters(ctx context.Context) (Counters, error)
	// Shadow says what was seen in shadow mode, in groups of at most so many hosts. Without shadow mode it is an *Error with status 409.
	Shadow(ctx context.Context, group int) (ShadowReport, error)
}

// Claim is a route as the RIB holds it.
type Claim struct {
	route.Claim
	Source     string
	Preference int
	Best       bool
	Why        func() string // what the best one won by; nil for the others
	Age        time.Duration // since it last changed
	Mobility   Mobility      // of a host
}

// Mobility is what a host is doing.
type Mobility struct {
	State string    // here, probing, leaving, away, held, conflict, frozen, sticky, learning
	Until time.Time // of a frozen host: when it recovers, zero for by hand

	Designated string // the gateway that answers on its segment, of a host here that is looked up
}

// Filter chooses among claims; zero fields choose everything.
type Filter struct {
	Tenant route.TenantID
	Source string
	Site   string       // to this site
	Within netip.Prefix // equal to or inside it
	Hosts  bool         // single addresses only
	Best   bool         // winners only
}

// Routes reads the RIB.
type Routes interface {
	// Lookup returns the claims whose prefix covers an address, longest prefix first, of one prefix the best first.
	Lookup(ctx context.Context, tenant route.TenantID, address netip.Addr) ([]Claim, error)
	// Walk calls f for every chosen claim in the order of tenant and prefix, of one prefix the best first. It holds
	// nothing up while f runs, and f may keep nothing of what it is given but the Via. An error of f ends it.
	Walk(ctx context.Context, filter Filter, f func(*Claim) error) error
}

// Injector keeps the routes that came through this socket.
type Injector interface {
	// Inject applies the changes all or nothing, and returns when they are in the RIB and on disk. Withdrawing
	// what was not injected is an *Error with status 404.
	Inject(ctx context.Context, changes []route.Change) error
	// Flush withdraws everything and returns how much that was.
	Flush(ctx context.Context) (int, error)
}

// Operator does what an operator asks for.
type Operator interface {
	Explain(ctx context.Context, request ExplainRequest) (Explanation, error)
	// Ping probes once. Unknown locators, and sizes that cannot be sent, are an *Error; no answer is none.
	Ping(ctx context.Context, request PingRequest) (Ping, error)
	Doctor(ctx context.Context) (List[Check], error)
	Reload(ctx context.Context) (Reloaded, error)
	// CheckMoves says what would become of hosts that move, as far as this gateway knows, in order. It changes nothing. Tenants are there.
	CheckMoves(moves []MoveCheck) List[MoveChecked]
	// Clear frees a host that is frozen; false if it is not.
	Clear(key route.Key) bool
	// Drain takes this gateway out of service, or puts it back. The same word again changes nothing.
	Drain(out bool)
}

// Names translates between what people say and numbers.
type Names interface {
	// TenantID returns the number of a tenant; "" is the first one's.
	TenantID(name string) (route.TenantID, bool)
	TenantName(id route.TenantID) string
	// SiteLocators returns the locators of a configured site, none and own for ours.
	SiteLocators(name string) (locators []route.Locator, own, ok bool)
}
