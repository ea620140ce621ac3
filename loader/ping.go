package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"roam/loader/api"
	"roam/loader/datapath"
	"roam/loader/probe"
)

// Ping probes a tunnel once, and says what it can where nothing comes back.
func (o operator) Ping(ctx context.Context, r api.PingRequest) (api.Ping, error) {
	if o.d.config.Load().Datapath.Shadow {
		return api.Ping{}, &api.Error{Message: "a gateway in shadow mode sends nothing", Hint: "ping from a gateway that forwards", Status: http.StatusConflict}
	}
	way, err := o.d.wayTo(r.Locator)
	if err != nil {
		return api.Ping{}, err
	}
	if way.Known && r.Size > way.Fits && !r.DF {
		return api.Ping{}, &api.Error{
			Message: fmt.Sprintf("a packet of %d bytes does not fit into the tunnel to %s, which carries %d", r.Size, r.Locator, way.Fits),
			Hint:    "a host that sends one hears of it, or it is fragmented; with --df it is sent as it is, which shows what the way makes of it", Status: http.StatusBadRequest,
		}
	}
	waiting, cancel := context.WithTimeout(ctx, time.Duration(r.Timeout*float64(time.Second)))
	defer cancel()
	echo, err := o.d.probe.Ping(waiting, r.Locator, r.Size)
	switch {
	case errors.Is(err, unix.EMSGSIZE):
		return api.Ping{}, &api.Error{
			Message: fmt.Sprintf("a packet of %d bytes cannot be sent to %s: the interface takes no more than %d inside this tunnel", r.Size, r.Locator, way.Whole),
			Hint:    "raise the MTU of the underlay's interface, here and on the whole way", Status: http.StatusBadRequest,
		}
	case errors.Is(err, datapath.ErrNoWay):
		return api.Ping{}, &api.Error{Message: err.Error() + ": " + o.d.whyNoWay(r.Locator), Hint: "roamctl doctor", Status: http.StatusConflict}
	case err != nil:
		return api.Ping{}, fmt.Errorf("probe %s: %w", r.Locator, err)
	}
	p := api.Ping{Locator: r.Locator, Size: echo.Size, Answered: echo.Answered, Seconds: echo.Took.Seconds()}
	if !p.Answered {
		p.Why = o.d.whyNoAnswer(r.Locator, echo.Size)
	}
	return p, nil
}

// wayTo finds the way to a locator in use.
func (d *daemon) wayTo(a netip.Addr) (datapath.Way, error) {
	for _, l := range d.config.Load().Underlay.Locators {
		if l.Address == a || l.Public == a {
			return datapath.Way{}, &api.Error{Message: a.String() + " is our own tunnel end", Hint: "name another gateway's", Status: http.StatusBadRequest}
		}
	}
	for _, w := range d.gateway.Ways() {
		if w.Address == a {
			return w, nil
		}
	}
	return datapath.Way{}, &api.Error{
		Message: a.String() + " is no locator that is known here", Hint: "roamctl site list shows those that are configured, routes may name others",
		Status: http.StatusNotFound,
	}
}

func (d *daemon) whyNoWay(a netip.Addr) string {
	for _, l := range d.gateway.Locators() {
		if l.Address == a && l.Why != "" {
			return l.Why
		}
	}
	return "it is being looked for"
}

// whyNoAnswer is what is known when no answer came to a probe of a size.
func (d *daemon) whyNoAnswer(a netip.Addr, size int) string {
	way, err := d.wayTo(a)
	if err == nil && size > way.Fits {
		return fmt.Sprintf("no more than %d bytes are known to pass", way.Fits)
	}
	for _, p := range d.probe.Statuses() {
		switch {
		case p.Address != a:
		case p.State == probe.Unknown:
			return "it has never answered a probe: is it a Roam that knows our locator and this tenant, and do firewalls let the tunnel through?"
		case p.State == probe.Answers && size > way.Least:
			return "small probes are answered: it was lost, or packets of this size are"
		default:
			return p.Why
		}
	}
	return ""
}
