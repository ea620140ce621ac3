package main

import (
	"fmt"
	"reflect"
	"strings"

	"roam/loader/config"
	"roam/loader/event"
)

// reload is a request for the configuration to be applied anew.
type reload struct{ answer chan reloaded }

type reloaded struct {
	changes, warnings []string
	err               error
}

// reload reads the configuration and applies what differs. An error leaves the earlier configuration in force.
func (d *daemon) reload() reloaded {
	old := d.config.Load()
	next, err := config.Load(d.path, old)
	if err != nil {
		return reloaded{err: err}
	}
	restart := needRestart(old, next)
	next.Datapath.Shadow = old.Datapath.Shadow
	hush(next)
	r := reloaded{changes: changed(old, next), warnings: append(next.Warnings, restart...)}
	if len(r.changes) == 0 {
		return r
	}
	if err := d.gateway.Set(planeSpec(next)); err != nil {
		if undo := d.gateway.Set(planeSpec(old)); undo != nil {
			d.log.Error("could not go back to the earlier configuration", "error", undo)
		}
		return reloaded{err: err}
	}
	if err := d.plane.Retune(tune(next)); err != nil {
		if undo := d.gateway.Set(planeSpec(old)); undo != nil {
			d.log.Error("could not go back to the earlier configuration", "error", undo)
		}
		return reloaded{err: err}
	}
	d.config.Store(next)
	d.fabric.SetSegments(fabricSegments(next))
	d.fib.SetTables(fibTables(next))
	d.file.Reload(filePath(next))
	d.reelect(next)
	d.mld.Set(listened(next))
	d.bgp.SetConfig(bgpConfig(next))
	d.failed.set(d.bfd.String(), d.bfd.SetConfig(bfdConfig(next)))
	d.probe.SetConfig(probeConfig(next))
	if have := d.plane.Hosts().Cap(); int(next.Datapath.Hosts) > have {
		if err := d.grow(next.Datapath.Hosts, "datapath.hosts says so"); err != nil {
			return reloaded{err: err}
		}
		r.changes = append(r.changes, fmt.Sprintf("host table grown from %d to %d hosts", have, d.plane.Hosts().Cap()))
	}
	return r
}

// tellReload notes what a request to apply the configuration came to.
func (d *daemon) tellReload(r reloaded) {
	if r.err != nil {
		d.events.Add(event.Event{
			Kind: event.ReloadFailed, Subject: d.path, What: "the configuration was not applied, the earlier one stays in force",
			Why: r.err.Error(), Do: "correct the file, see roamd --check, and reload again",
		})
		return
	}
	e := event.Event{Kind: event.Reload, Subject: d.path, What: "the configuration was applied anew", Why: "nothing differs"}
	if len(r.changes) > 0 {
		e.Why = strings.Join(r.changes, ", ")
	}
	e.Do = strings.Join(r.warnings, ", ")
	d.events.Add(e)
}

// changed names the top-level parts that differ.
func changed(old, next *config.Config) []string {
	var list []string
	a, b := reflect.ValueOf(*old), reflect.ValueOf(*next)
	for i := range a.NumField() {
		name := a.Type().Field(i).Name
		if name != "Warnings" && !reflect.DeepEqual(a.Field(i).Interface(), b.Field(i).Interface()) {
			list = append(list, fmt.Sprintf("%s differs", lower(name)))
		}
	}
	return list
}

// needRestart names what cannot change while the daemon runs. A restart loses no packet.
func needRestart(old, next *config.Config) []string {
	var list []string
	for _, f := range []struct {
		key       string
		old, next any
	}{
		{"datapath.pin", old.Datapath.Pin, next.Datapath.Pin},
		{"datapath.frags", old.Datapath.Frags, next.Datapath.Frags},
		{"datapath.shadow", old.Datapath.Shadow, next.Datapath.Shadow},
		{"api", old.API, next.API},
		{"metrics", old.Metrics, next.Metrics},
		{"hooks", old.Hooks, next.Hooks},
	} {
		if !reflect.DeepEqual(f.old, f.next) {
			list = append(list, f.key+" takes effect at the next start of roamd")
		}
	}
	return list
}

func lower(s string) string {
	if s == "API" {
		return "api"
	}
	return string(s[0]|0x20) + s[1:]
}
