package main

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"time"

	"roam/loader/api"
	"roam/loader/bfd"
	"roam/loader/config"
	"roam/loader/datapath"
	"roam/loader/event"
	"roam/loader/probe"
)

// bfdConfig is nil where other ends are not watched.
func bfdConfig(c *config.Config) *bfd.Config {
	b := c.Underlay.BFD
	if b == nil {
		return nil
	}
	out := &bfd.Config{Interval: b.Interval, Multiplier: b.Multiplier, MinTTL: b.MinTTL}
	for _, l := range c.Underlay.Locators {
		out.Locators = append(out.Locators, l.Address)
	}
	if a := b.Auth; a != nil {
		out.Auth = &bfd.Auth{Meticulous: a.Type == config.BFDMeticulousSHA1, ID: a.ID, Key: a.Key}
	}
	return out
}

// probeConfig is nil where tunnels are not probed.
func probeConfig(c *config.Config) *probe.Config {
	p := c.Underlay.Probe
	if p == nil {
		return nil
	}
	return &probe.Config{Interval: p.Interval, Multiplier: p.Multiplier, FullSize: p.FullSize}
}

// makeProber opens what probes are sent by.
func (d *daemon) makeProber(cfg *config.Config) error {
	socket, err := d.gateway.OpenProbes()
	if err != nil {
		return err
	}
	d.probe = probe.New(probe.Options{
		Config: probeConfig(cfg), Log: d.log, Tunnel: tunnels{socket}, Changed: d.judge, Found: d.foundMTU,
		RoundTrip: func(took time.Duration) { d.timings.RoundTrip(took) },
	})
	return nil
}

// tunnels implements probe.Tunnel over the data path's socket.
type tunnels struct{ *datapath.Probes }

func (t tunnels) Receive() (probe.Answer, error) {
	from, a, err := t.Probes.Receive()
	return probe.Answer{From: from, Token: a.Token, Sequence: a.Sequence, Size: a.Size}, err
}

// followLocatorsEvery is how soon a locator that has come into use is watched.
const followLocatorsEvery = time.Second

// followLocators has every locator watched that is configured or in use.
func (d *daemon) followLocators(ctx context.Context) error {
	tick := time.NewTicker(followLocatorsEvery)
	defer tick.Stop()
	for {
		var remotes []netip.Addr
		for _, l := range d.gateway.Locators() {
			remotes = append(remotes, l.Address)
		}
		d.failed.set(d.bfd.String(), d.bfd.SetRemotes(remotes))
		var ways []probe.Way
		for _, w := range d.gateway.Ways() {
			ways = append(ways, probe.Way{Address: w.Address, Key: w.Key, Known: w.Known, Whole: w.Whole, Least: w.Least})
		}
		d.probe.SetWays(ways)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// judge hands over the locators that do not answer.
func (d *daemon) judge() {
	d.judging.Lock()
	defer d.judging.Unlock()
	d.gateway.SetSilent(silent(d.bfd.Out(), d.probe.Statuses()))
	d.rerank()
	d.kickFates()
}

// silent puts together what BFD and probes say: which locators are silent, and why. The tunnel has the last word where it ever spoke: BFD
// takes another port, and its sessions end with a daemon though the data path goes on.
func silent(fell map[netip.Addr]string, probed []probe.Status) map[netip.Addr]string {
	out := maps.Clone(fell)
	if out == nil {
		out = map[netip.Addr]string{}
	}
	for _, p := range probed {
		switch p.State {
		case probe.Answers:
			delete(out, p.Address)
		case probe.Silent:
			out[p.Address] = p.Why
		}
	}
	return out
}

// foundMTU has the data path keep to the size that gets to a locator and back, 0 for every one, and tells of it. Calls do not overlap.
func (d *daemon) foundMTU(locator netip.Addr, size int) {
	a, was := locator.String(), d.holes[locator]
	believed := d.gateway.FoundMTU(locator, size)
	d.holes[locator] = size
	switch {
	case size == was:
	case size == 0:
		delete(d.holes, locator)
		d.events.Add(event.Event{Kind: event.MTUHealed, Subject: a, What: "packets of every size get to locator " + a + " again"})
	default:
		e := event.Event{
			Kind: event.MTUHole, Subject: a, What: fmt.Sprintf("packets of more than %d bytes get lost on the way to locator %s", size, a),
			Why: "probes as large as the tunnel should carry are not answered, small ones are, and no router said why",
			Do:  fmt.Sprintf("raise the MTU of the way, or give the route to %s the MTU it has; roamctl ping %s --df --size N tries", a, a),
		}
		if !believed {
			e.Why += "; no path has so small an MTU: it is not followed"
		}
		d.events.Add(e)
	}
}

func (d *daemon) bfdSessions() []api.Session {
	var list []api.Session
	for _, s := range d.bfd.Sessions() {
		list = append(list, api.Session{
			Protocol: "bfd", Neighbor: s.Remote, Local: s.Local, State: s.State, Up: s.State == "up", Flaps: s.Flaps, Why: s.Why,
			AgeSeconds: time.Since(s.Since).Seconds(), DetectionSeconds: s.Detection.Seconds(),
		})
	}
	return list
}
