package main

import (
	"context"
	"fmt"
	"maps"
	"time"

	"roam/loader/event"
)

// A fate is how something fares that comes and goes by itself: a locator, a port, a source. Whatever the reason, news
// of it is a difference between two looks, and a look is cheap; so nobody has to remember to tell.
type fate struct {
	up, down event.Kind
	subject  string
	alive    bool
	what     string // it is, in a sentence; followed by how it fares
	why, do  string // where it is not alive
}

// fatesEvery is how often to look when nothing gives a reason to. What came back faster was never missed by anybody.
const fatesEvery = time.Second

// kickFates asks for a look soon; it never blocks.
func (d *daemon) kickFates() {
	select {
	case d.look <- struct{}{}:
	default:
	}
}

// watchFates tells of what came and went.
func (d *daemon) watchFates(ctx context.Context) error {
	tick := time.NewTicker(fatesEvery)
	defer tick.Stop()
	known := knownFates{}
	for {
		d.rerank()
		fates, err := d.fates(ctx)
		if err == nil {
			for _, e := range known.compare(fates) {
				d.events.Add(e)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-d.look:
		}
	}
}

// fates looks at everything that comes and goes.
func (d *daemon) fates(ctx context.Context) ([]fate, error) {
	var list []fate
	for _, l := range d.gateway.Locators() {
		a := l.Address.String()
		f := fate{
			up: event.LocatorUp, down: event.LocatorDown, subject: a, alive: l.Up, what: "locator " + a,
			why: l.Why, do: fmt.Sprintf("ip route get %s; roamctl site list", a),
		}
		if l.Silent {
			f.do = "roamctl session list; its hosts are reached by other locators, where they have any"
		}
		list = append(list, f)
	}
	for _, p := range d.gateway.Ports() {
		f := fate{
			up: event.PortUp, down: event.PortDown, subject: p.String(), what: "port " + p.String(), alive: p.Err == nil && p.Mode != "",
			why: "nothing is attached", do: "roamctl doctor",
		}
		if p.Err != nil {
			f.why = p.Err.Error()
		}
		list = append(list, f)
	}
	sources, err := d.sources(ctx)
	for _, s := range sources {
		list = append(list, fate{
			up: event.SourceUp, down: event.SourceDown, subject: s.Name, what: "source " + s.Name, alive: s.Up,
			why: s.Error, do: "roamctl status; what it said last stays in force, and it is tried again",
		})
	}
	return list, err
}

// standing is how something fared at the last look.
type standing int

const (
	unseen standing = iota
	doubted
	dead
	alive
)

// knownFates are those of the last look, by kind and subject.
type knownFates map[[2]string]standing

// compare returns the news and remembers. What is seen for the first time and is not alive gets until the next look:
// most things need a moment when they begin.
func (k knownFates) compare(now []fate) (news []event.Event) {
	next := make(knownFates, len(now))
	for _, f := range now {
		key := [2]string{string(f.down), f.subject}
		was, is := k[key], dead
		switch {
		case f.alive:
			is = alive
		case was == unseen:
			is = doubted
		}
		if is != was && is != doubted {
			news = append(news, f.event())
		}
		next[key] = is
	}
	clear(k)
	maps.Copy(k, next)
	return news
}

func (f fate) event() event.Event {
	if f.alive {
		return event.Event{Kind: f.up, Subject: f.subject, What: f.what + " is up"}
	}
	return event.Event{Kind: f.down, Subject: f.subject, What: f.what + " is down", Why: f.why, Do: f.do}
}
