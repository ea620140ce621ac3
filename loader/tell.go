package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"roam/loader/event"
	"roam/loader/rib"
	"roam/loader/route"
)

// turning notes what will not be known any more when the tables are written. It runs in the RIB's goroutine.
func (d *daemon) turning(t *rib.Turn) {
	d.comes(t)
	// The kernel's neighbours are the only source that sees hosts itself; the others are told where they are.
	if t.Moved && t.Cause == d.hosts.Name() && t.After.Local != nil {
		t.Detection = d.reports[t.Cause].running(t.When)
		if first, seen := d.hosts.FirstSign(t.After.Key); seen {
			t.Detection = max(t.Detection, t.When.Sub(first))
		}
	}
	d.prove(t)
}

// turned tells what the RIB says of a host that has another home or another source. It runs in the RIB's goroutine, when the tables are written.
func (d *daemon) turned(t rib.Turn) {
	kind := event.Claim
	if t.Moved {
		kind = event.Move
		d.timings.MoveOutage(t.Outage)
		if t.Detection > 0 {
			d.timings.MoveDetected(t.Detection)
		}
	}
	d.events.Note(kind, func() event.Event {
		host := t.After.Prefix.Addr().String()
		e := event.Event{Subject: host, Tenant: names{d}.TenantName(t.After.Tenant), Why: t.Why(), Time: t.When}
		if !t.Moved {
			e.What = fmt.Sprintf("%s has the word about %s now, before it was %s", t.After.Source, host, t.Before.Source)
			return e
		}
		e.What = fmt.Sprintf("%s moved from %s to %s", host, d.place(t.Before), d.place(t.After))
		if t.Detection > 0 {
			e.What += fmt.Sprintf(", %v after it first showed itself", t.Detection.Round(10*time.Microsecond))
			e.DetectionSeconds = t.Detection.Seconds()
		}
		if t.Outage >= time.Millisecond {
			e.What += fmt.Sprintf("; for %v no way to it was known", t.Outage.Round(time.Millisecond))
		}
		return e
	})
}

// place is where a decision leads, as an operator calls it.
func (d *daemon) place(at route.Decision) string {
	switch {
	case at.Local != nil:
		return "here"
	case at.Site != "":
		return at.Site
	case at.Via == nil:
		return "nowhere"
	}
	first := at.Via.Locators[0].Address
	if _, site, ok := knownLocator(d.config.Load(), first); ok && site != "" {
		return site
	}
	return first.String()
}

// grow makes room for that many hosts, and tells how it went.
func (d *daemon) grow(hosts uint32, why string) error {
	have := d.plane.Hosts().Cap()
	if err := d.plane.Grow(hosts); err != nil {
		d.events.Add(event.Event{
			Kind: event.GrowthFailed, Subject: "hosts", What: fmt.Sprintf("the host table could not grow from %d to %d hosts", have, hosts),
			Why: err.Error(), Do: "free memory, or set datapath.hosts; roamctl status shows how full the tables are",
		})
		return err
	}
	d.events.Add(event.Event{
		Kind: event.Growth, Subject: "hosts", What: fmt.Sprintf("the host table has grown from %d to %d hosts", have, d.plane.Hosts().Cap()), Why: why,
	})
	return nil
}

func upgraded(generation int) event.Event {
	return event.Event{
		Kind: event.Upgrade, Subject: fmt.Sprint(generation), What: fmt.Sprintf("roamd %s took over the running data path as generation %d", version, generation),
		Why: "an earlier daemon left it pinned: its routes hold until every source has reported",
	}
}

// timedReporter is a source's end of the RIB that notes how long it takes for a report to be in force: the RIB answers
// when its sinks, and so the tables, have been given what came of it.
type timedReporter struct {
	route.Reporter
	begun atomic.Int64 // of the report under way, in Unix nanoseconds
	took  func(time.Duration)
}

// timed wraps a source's reporter. Call it before anything runs.
func (d *daemon) timed(source string, to route.Reporter) route.Reporter {
	t := &timedReporter{Reporter: to, took: func(took time.Duration) { d.timings.Forwarding(source, took) }}
	d.reports[source] = t
	return t
}

// Report implements route.Reporter.
func (t *timedReporter) Report(ctx context.Context, changes []route.Change) error {
	begun := time.Now()
	t.begun.Store(begun.UnixNano())
	err := t.Reporter.Report(ctx, changes)
	if err == nil && len(changes) > 0 {
		t.took(time.Since(begun))
	}
	return err
}

// running is how long the report under way had taken by then.
func (t *timedReporter) running(then time.Time) time.Duration {
	return then.Sub(time.Unix(0, t.begun.Load()))
}
