package main

import (
	"context"
	"net/netip"
	"time"

	"roam/loader/api"
	"roam/loader/bfd"
	"roam/loader/config"
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
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// silent hands over the locators that do not answer.
func (d *daemon) silent(out map[netip.Addr]string) {
	d.gateway.SetSilent(out)
	d.kickFates()
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
