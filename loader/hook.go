package main

import (
	"cmp"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"roam/loader/api"
	"roam/loader/config"
	"roam/loader/event"
	"roam/loader/hook"
	"roam/loader/metrics"
	"roam/loader/rib"
	"roam/loader/route"
)

// hookName is the key that names the program, in warnings and events.
const hookName = "hooks.host_change"

// makeHook prepares the program that is run when hosts come and go. A gateway forwards without it, too.
func (d *daemon) makeHook(cfg *config.Config) {
	h := cfg.Hooks
	if h.HostChange == "" {
		return
	}
	k, err := hook.New(hook.Options{
		Program: h.HostChange, Timeout: h.Timeout, Parallel: h.Parallel, Dry: h.DryRun, Site: cfg.Site, State: cfg.API.State + ".hook",
		Names: names{d}, Log: d.log, Segment: d.segmentName, Place: d.site, Tell: d.tellHook,
	})
	if err != nil {
		d.failed.set(hookName, err)
		d.events.Add(event.Event{
			Kind: event.HookFailed, Subject: h.HostChange, What: hookName + " is not run", Why: err.Error(),
			Do: "repair the file, and restart roamd",
		})
		return
	}
	d.hook = k
	d.rib.AddSink(k)
}

func (d *daemon) segmentName(key route.Key) string {
	s, _ := segmentOf(d.config.Load(), key.Tenant, key.Prefix.Addr())
	return s.Name
}

// site is where a decision leads, by the name of the site where that is known, "" for nowhere.
func (d *daemon) site(at *route.Decision) string {
	switch {
	case at.Local != nil:
		return d.config.Load().Site
	case at.Gone || at.Via == nil:
		return ""
	}
	return d.place(*at)
}

// comes notes where a host was that moved to our site.
func (d *daemon) comes(t *rib.Turn) {
	if own := d.config.Load().Site; d.hook != nil && t.Moved && t.After.Host() && d.site(&t.After) == own {
		if from := d.site(&t.Before); from != own {
			d.hook.From(t.After.Key, from)
		}
	}
}

// tellHook notes a run of the program.
func (d *daemon) tellHook(n hook.Notice) {
	move := fmt.Sprintf("%s is at %s now, and was at %s", n.Address, cmp.Or(n.NewSite, "no site"), cmp.Or(n.OldSite, "none that is known"))
	e := event.Event{Kind: event.Hook, Subject: n.Address.String(), Tenant: n.Tenant, Why: move}
	switch n.Outcome {
	case hook.OK:
		e.What = fmt.Sprintf("%s has taken change %s of %s", hookName, n.Event, n.Address)
	case hook.DryRun:
		e.What = fmt.Sprintf("%s would be told of %s", hookName, n.Address)
		e.Do = "remove hooks.dry_run and restart roamd to have it run"
	default:
		e.Kind = event.HookFailed
		e.What = fmt.Sprintf("%s did not take change %s of %s, attempt %d", hookName, n.Event, n.Address, n.Attempt)
		e.Why = fmt.Sprintf("%v (%s)", n.Err, move)
		h := d.config.Load().Hooks
		e.Do = fmt.Sprintf("see that %s can do its work: it has to exit with 0 within %v", h.HostChange, h.Timeout)
		if n.Again > 0 {
			e.Do += fmt.Sprintf("; it is run again in %v", n.Again.Round(time.Second))
		}
	}
	d.events.Note(e.Kind, func() event.Event { return e })
}

// hookWarnings are for status.
func (d *daemon) hookWarnings() []string {
	s := d.hook.Status()
	var list []string
	if s.Failing > 0 {
		list = append(list, fmt.Sprintf("%s: %d hosts wait, %d of them because it fails: %v: roamctl events --kind hook_failed",
			hookName, s.Waiting, s.Failing, s.Last))
	}
	if s.Lost != nil {
		list = append(list, fmt.Sprintf("%s: what it was told is not kept over a restart: %v", hookName, s.Lost))
	}
	if d.hook != nil && d.config.Load().Hooks.DryRun {
		list = append(list, hookName+": hooks.dry_run is set: the program is not run")
	}
	return list
}

// hookChecks are for doctor.
func (d *daemon) hookChecks() []api.Check {
	program := d.config.Load().Hooks.HostChange
	if program == "" {
		return nil
	}
	s := d.hook.Status()
	check := api.Check{Name: "hook", Subject: program, Level: api.LevelOK, Found: fmt.Sprintf("executable; %d hosts wait", s.Waiting)}
	info, err := os.Stat(program)
	switch {
	case err != nil:
		check.Level, check.Found, check.Advice = api.LevelFail, err.Error(), "install it, or correct hooks.host_change"
	case info.IsDir() || unix.Access(program, unix.X_OK) != nil:
		check.Level, check.Found, check.Advice = api.LevelFail, "it cannot be executed", "chmod 755 "+program
	case s.Failing > 0:
		check.Level, check.Advice = api.LevelWarn, "roamctl events --kind hook_failed"
		check.Found = fmt.Sprintf("%d hosts wait, %d of them because it fails: %v", s.Waiting, s.Failing, s.Last)
	}
	return []api.Check{check}
}

// hookSnapshot adds the program's runs to what is shown; a change that it refuses leaves it behind as a sink.
func (d *daemon) hookSnapshot(s *metrics.Snapshot) {
	if d.hook == nil {
		return
	}
	status := d.hook.Status()
	for _, o := range hook.Outcomes {
		s.HookRuns = append(s.HookRuns, metrics.HookRuns{Outcome: string(o), Count: status.Runs[o]})
	}
	for i := range s.Sinks {
		if s.Sinks[i].Name == d.hook.Name() {
			s.Sinks[i].Behind += status.Failing
		}
	}
}
