// Package api is the daemon's control socket: plain HTTP with JSON, and JSON lines where there may be a million
// of something, on a Unix socket, so that curl can drive it. messages.go is what travels, server.go and its
// neighbours answer, client.go asks. docs/openapi.yaml describes the same for others and is checked against this
// package by a test.
//
// The server knows no RIB and no data path. It asks a Backend, a handful of small interfaces that package main
// fills in, and owns what is between: limits, strictness, streaming, and the reading and writing of route lists
// (routelist.go), which has to take a million lines in about a second.
//
// JSON field names are a promise: they are added to, never changed.
package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"

	"roam/loader/route"
)

// Error is how every failure travels: what went wrong, and the way out where there is one.
type Error struct {
	Message string `json:"error"`
	Hint    string `json:"hint,omitempty"`
	Status  int    `json:"-"` // of HTTP; 0 is 500
}

func (e *Error) Error() string { return e.Message }

// Status answers GET /v1/status.
type Status struct {
	Version       string        `json:"version"`
	Site          string        `json:"site"`
	Shadow        bool          `json:"shadow"` // looks and does nothing: what it counts is what it would have done
	PID           int           `json:"pid"`
	UptimeSeconds float64       `json:"uptime_seconds"`
	Ports         List[Port]    `json:"ports"`
	Tables        List[Table]   `json:"tables"`
	Sources       List[Source]  `json:"sources"`
	Tenants       List[Tenant]  `json:"tenants"`
	Segments      List[Segment] `json:"segments"`
	Warnings      List[string]  `json:"warnings"`
}

// Segment says which gateway answers on a segment.
type Segment struct {
	Name         string               `json:"name"`
	Tenant       string               `json:"tenant"`
	Interface    string               `json:"interface"`
	State        string               `json:"state"`         // of this gateway: designated, standby, listening, down
	SinceSeconds float64              `json:"since_seconds"` // in that state
	Gateways     List[SegmentGateway] `json:"gateways"`      // that are heard, this one first; none where there is no election
}

// SegmentGateway is a gateway on a segment.
type SegmentGateway struct {
	MAC        string     `json:"mac"`              // of its port
	Address    netip.Addr `json:"address,omitzero"` // its own
	Site       string     `json:"site"`
	Rank       string     `json:"rank"` // ready, starting, isolated, cut off, leaving
	Priority   uint8      `json:"priority"`
	Designated bool       `json:"designated"`
	Own        bool       `json:"own"`
}

// Port is an interface, or one VLAN of it, that the data path works on.
type Port struct {
	Interface string       `json:"interface"`
	VLAN      uint16       `json:"vlan"`
	Roles     List[string] `json:"roles"` // access, underlay, uplink
	Mode      string       `json:"mode"`  // native, generic, or "" while nothing is attached
	MTU       int          `json:"mtu"`
	Error     string       `json:"error,omitempty"` // why nothing is attached
}

// Table is one table of the data path and how full it is.
type Table struct {
	Name     string `json:"name"`
	Entries  uint64 `json:"entries"`
	Capacity uint64 `json:"capacity"`
}

// Source is an origin of routes.
type Source struct {
	Name    string `json:"name"`
	Up      bool   `json:"up"`
	Synced  bool   `json:"synced"` // has made a full report
	Routes  uint64 `json:"routes"`
	Changes uint64 `json:"changes"`
	Error   string `json:"error,omitempty"` // the last one, while it lasts
}

// Tenant is a routing domain.
type Tenant struct {
	Name     string       `json:"name"`
	ID       uint16       `json:"id"`
	VNI      uint32       `json:"vni"`
	Segments List[string] `json:"segments"`
}

// Locator is one tunnel end. As input it may be a plain address; what is left out has the default (vxlan,
// priority 1, weight 100, derived router MAC).
type Locator struct {
	Address   netip.Addr `json:"address"`
	Encap     string     `json:"encap"`
	Priority  uint8      `json:"priority"`
	Weight    uint8      `json:"weight"`
	RouterMAC string     `json:"router_mac,omitempty"`
}

// UnmarshalJSON takes an object, or a plain address.
func (l *Locator) UnmarshalJSON(data []byte) error {
	type plain Locator
	p := plain{Encap: route.VXLAN.String(), Priority: route.DefaultPriority, Weight: route.DefaultWeight}
	if len(data) > 0 && data[0] == '"' {
		if err := json.Unmarshal(data, &p.Address); err != nil {
			return fmt.Errorf("locator %s is no address", data)
		}
	} else if err := strict(data, &p); err != nil {
		return err
	}
	*l = Locator(p)
	return nil
}

// Route says what the locator is to the rest of the daemon.
func (l Locator) Route() (route.Locator, error) {
	r := route.Locator{Address: l.Address, Priority: l.Priority, Weight: l.Weight}
	var err error
	if r.Encap, err = route.ParseEncap(l.Encap); err != nil {
		return r, err
	}
	if r.RouterMAC, err = route.ParseMAC(l.RouterMAC); err != nil {
		return r, err
	}
	return r, r.Valid()
}

// LocatorOf is the opposite of Locator.Route. A router MAC that anybody derives from the address is left out.
func LocatorOf(r route.Locator) Locator {
	l := Locator{Address: r.Address, Encap: r.Encap.String(), Priority: r.Priority, Weight: r.Weight}
	if !r.RouterMAC.IsZero() && r.RouterMAC != route.RouterMAC(r.Address) {
		l.RouterMAC = r.RouterMAC.String()
	}
	return l
}

// Route is one source's claim about one prefix, as GET /v1/routes lists it. One of via, local and reject says
// where packets go.
type Route struct {
	Prefix     netip.Prefix `json:"prefix"`
	Tenant     string       `json:"tenant"`
	Via        []Locator    `json:"via,omitempty"`
	Local      *Local       `json:"local,omitempty"`
	Reject     bool         `json:"reject,omitempty"`
	MAC        string       `json:"mac,omitempty"`
	Source     string       `json:"source"`
	Preference int          `json:"preference"` // of the source
	Site       string       `json:"site,omitempty"`
	Sequence   uint32       `json:"sequence"`
	Pinned     bool         `json:"pinned"`
	Best       bool         `json:"best"`
	Why        string       `json:"why,omitempty"` // of the best one: what it won by
	AgeSeconds float64      `json:"age_seconds"`
}

// Local says where on this gateway a host lives; no interface means that the kernel finds out.
type Local struct {
	Interface string `json:"interface,omitempty"`
	VLAN      uint16 `json:"vlan,omitempty"`
}

// NewRoute injects a route: POST /v1/routes, and one line of an import. One of via, site and local says where to.
type NewRoute struct {
	Prefix string    `json:"prefix"`           // a bare address is a host
	MAC    string    `json:"mac,omitempty"`    // the host's own
	Tenant string    `json:"tenant,omitempty"` // "": the first
	Via    []Locator `json:"via,omitempty"`
	Site   string    `json:"site,omitempty"` // a configured site; with via or local only a note
	Local  bool      `json:"local,omitempty"`
	Pinned bool      `json:"pinned,omitempty"`
}

// Injected answers what changed the injected routes.
type Injected struct {
	Added   int `json:"added"`
	Removed int `json:"removed"`
}

// Progress is a line of an import's answer. The last line has Done set, or is an Error.
type Progress struct {
	Read  int  `json:"read"` // lines so far
	Done  bool `json:"done,omitempty"`
	Added int  `json:"added,omitempty"`
}

// Found answers GET /v1/routes/lookup: the routes that cover an address, the one that packets follow first.
type Found struct {
	Address netip.Addr `json:"address"`
	Tenant  string     `json:"tenant"`
	Routes  []Route    `json:"routes"`
}

// Host is one address and where it lives now, as GET /v1/hosts lists it.
type Host struct {
	Address    netip.Addr `json:"address"`
	Tenant     string     `json:"tenant"`
	State      string     `json:"state"` // as docs/mobility.md draws them
	Until      time.Time  `json:"frozen_until,omitzero"`
	Here       bool       `json:"here"`
	Site       string     `json:"site,omitempty"`
	Via        []Locator  `json:"via,omitempty"`
	Local      *Local     `json:"local,omitempty"`
	MAC        string     `json:"mac,omitempty"`
	Source     string     `json:"source"`
	Sequence   uint32     `json:"sequence"`
	Pinned     bool       `json:"pinned"`
	Designated string     `json:"designated,omitempty"` // of a single host here: the gateway that answers on its segment
	AgeSeconds float64    `json:"age_seconds"`
	History    []Event    `json:"history,omitempty"` // of a single host: what the log of events still has of it, oldest first
}

// Clear is the body of POST /v1/hosts/clear, and its answer.
type Clear struct {
	Address netip.Addr `json:"address"`
	Tenant  string     `json:"tenant,omitempty"`
}

// Drain is the body of POST /v1/gateway/drain, and its answer.
type Drain struct {
	Drained bool `json:"drained"`
}

// Move is the body of POST /v1/hosts/move.
type Move struct {
	Address netip.Addr `json:"address"`
	Tenant  string     `json:"tenant,omitempty"`
	To      string     `json:"to"` // a configured site, or our own
}

// CheckMoves is the body of POST /v1/hosts/check: moves that are to be looked at, not made.
type CheckMoves struct {
	Moves List[MoveCheck] `json:"moves"`
}

// MoveCheck is one of them.
type MoveCheck struct {
	Address netip.Addr `json:"address"`
	Tenant  string     `json:"tenant,omitempty"`
	MAC     string     `json:"mac,omitempty"` // the host's, if it is known
	To      string     `json:"to"`            // a site
}

// MovesChecked answers POST /v1/hosts/check, in the order of the request.
type MovesChecked struct {
	Site  string            `json:"site"` // whose gateway it is that answers
	Moves List[MoveChecked] `json:"moves"`
}

// MoveChecked is what this gateway knows of a move.
type MoveChecked struct {
	Refused  string       `json:"refused,omitempty"` // why the host cannot live there, or not as it is meant to
	Warnings List[string] `json:"warnings"`
	Egress   string       `json:"egress,omitempty"` // its policy here, to compare it with other gateways': "" for none
}

// Site is a site with its locators, as GET /v1/sites lists it.
type Site struct {
	Name     string            `json:"name"`
	Own      bool              `json:"own"`
	Hosts    uint64            `json:"hosts"` // that live there, as far as we know
	Locators List[SiteLocator] `json:"locators"`
}

// SiteLocator is a locator and how it fares.
type SiteLocator struct {
	Address   netip.Addr `json:"address"`         // that others send to
	Inside    netip.Addr `json:"inside,omitzero"` // of our own behind NAT: what the interface has
	Encap     string     `json:"encap"`
	Priority  uint8      `json:"priority"`
	Weight    uint8      `json:"weight"`
	RouterMAC string     `json:"router_mac"` // configured or derived
	State     string     `json:"state"`      // up, down, unresolved, own, or "" where nobody knows
	MTU       int        `json:"mtu,omitempty"`
	Probe     string     `json:"probe,omitempty"` // in-band liveness: unknown, answers, silent
	RoundTrip float64    `json:"round_trip_seconds,omitempty"`
	MTUHole   bool       `json:"mtu_hole,omitempty"` // some size gets lost that interface and route take
	Packets   uint64     `json:"packets"`
	Bytes     uint64     `json:"bytes"`
}

// Session is a neighbour of a protocol that tells of routes or of their locators, as GET /v1/sessions lists it.
type Session struct {
	Protocol         string       `json:"protocol"` // bgp, bfd
	Neighbor         netip.Addr   `json:"neighbor"`
	Local            netip.Addr   `json:"local,omitzero"` // our end, where there may be several
	Up               bool         `json:"up"`
	State            string       `json:"state"`         // in the protocol's words: established, active, ...
	AgeSeconds       float64      `json:"age_seconds"`   // since it came up or went down
	Flaps            int          `json:"flaps"`         // times it went down
	Why              string       `json:"why,omitempty"` // it went down the last time
	ASN              uint32       `json:"asn,omitempty"`
	Families         List[string] `json:"families,omitempty"`
	Received         uint64       `json:"received,omitempty"`          // routes it announces
	Taken            uint64       `json:"taken,omitempty"`             // of these, those that are followed
	DetectionSeconds float64      `json:"detection_seconds,omitempty"` // without a packet, after which the neighbour counts as lost
}

// Counters answers GET /v1/counters.
type Counters struct {
	Reasons  List[ReasonCount]  `json:"reasons"`
	Locators List[LocatorCount] `json:"locators"`
	Refused  List[RefusedCount] `json:"refused"` // those that refused any
	Shadow   bool               `json:"shadow"`  // what would have happened
}

// RefusedCount is how many packets a port's driver refused after they were counted as forwarded, since the daemon began.
type RefusedCount struct {
	Port    string `json:"port"`
	Packets uint64 `json:"packets"`
}

// ReasonCount is what happened so often on a port since its counters were made.
type ReasonCount struct {
	Port    string `json:"port"`
	Reason  string `json:"reason"`
	Verdict string `json:"verdict"` // forwarded, passed, dropped
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

// LocatorCount is what was sent to a locator.
type LocatorCount struct {
	Locator string `json:"locator"`
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

// ExplainRequest is the body of POST /v1/explain: a packet to be made from its fields, or the packet itself.
type ExplainRequest struct {
	Tenant      string     `json:"tenant,omitempty"`
	Source      netip.Addr `json:"source,omitzero"`
	Destination netip.Addr `json:"destination,omitzero"`
	Protocol    string     `json:"protocol,omitempty"`  // icmp, tcp or udp, or a number; icmp where left out
	Port        uint16     `json:"port,omitempty"`      // destination port of TCP and UDP
	Interface   string     `json:"interface,omitempty"` // where it arrives; the port of the source's segment where left out
	VLAN        uint16     `json:"vlan,omitempty"`
	Packet      []byte     `json:"packet,omitempty"` // an Ethernet frame; then source and destination are left out
}

// Explanation answers POST /v1/explain.
type Explanation struct {
	Verdict string            `json:"verdict"` // forwarded, passed, dropped
	Reason  string            `json:"reason"`
	Text    string            `json:"text"` // one sentence
	Steps   List[ExplainStep] `json:"steps"`
	Input   List[string]      `json:"input"` // decoded headers, outermost first
	Output  []string          `json:"output,omitempty"`
	Egress  string            `json:"egress,omitempty"` // the port it leaves by
	Frame   []byte            `json:"frame,omitempty"`  // as it leaves
}

// ExplainStep is one step of the packet walk.
type ExplainStep struct {
	Step  string `json:"step"`
	Found string `json:"found"`
	Why   string `json:"why,omitempty"`
}

// PingRequest is the body of POST /v1/ping: one probe of the tunnel to a locator.
type PingRequest struct {
	Locator netip.Addr `json:"locator"`
	Size    int        `json:"size,omitempty"`            // of the inner IP packet; 0: the least
	DF      bool       `json:"df,omitempty"`              // also if it is larger than what is known to fit
	Timeout float64    `json:"timeout_seconds,omitempty"` // 0: one
}

// Ping answers POST /v1/ping.
type Ping struct {
	Locator  netip.Addr `json:"locator"`
	Size     int        `json:"size"`
	Answered bool       `json:"answered"`
	Seconds  float64    `json:"seconds"`
	Why      string     `json:"why,omitempty"` // not answered: what is known
}

// Check is one finding of GET /v1/doctor.
type Check struct {
	Name    string `json:"name"`    // what was looked at: driver, mtu, sysctl ...
	Subject string `json:"subject"` // of what: an interface, a locator, the kernel
	Level   string `json:"level"`   // ok, warn, fail
	Found   string `json:"found"`
	Advice  string `json:"advice,omitempty"`
}

// Levels of a Check.
const (
	LevelOK   = "ok"
	LevelWarn = "warn"
	LevelFail = "fail"
)

// Reloaded answers POST /v1/reload.
type Reloaded struct {
	Changes  List[string] `json:"changes"` // one sentence each; empty when nothing differed
	Warnings List[string] `json:"warnings"`
}

// List is a list that reads as [] rather than null when it is empty.
type List[T any] []T

// MarshalJSON writes an empty list as one.
func (l List[T]) MarshalJSON() ([]byte, error) {
	if len(l) == 0 {
		return []byte("[]"), nil
	}
	return json.Marshal([]T(l))
}

// strict decodes one JSON value and refuses fields that nobody reads.
func strict(data []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	err := d.Decode(into)
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return fmt.Errorf("%.60q is not JSON: %w", data, err)
	case errors.As(err, &kind) && kind.Field != "":
		return fmt.Errorf("field %s takes no %s", kind.Field, kind.Value)
	case err != nil:
		return errors.New(strings.TrimPrefix(err.Error(), "json: "))
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("more than one JSON value")
	}
	return nil
}
