package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"

	"roam/loader/api"
)

// knowledge is what the daemon knows that a plan is checked against.
type knowledge struct {
	hosts  map[string][]api.Host // by tenant
	sites  map[string]api.Site
	mtu    map[string]int // of interfaces
	shadow bool
}

// learn asks for it, and names the tenant of entries that do not.
func learn(ctx context.Context, d *api.Client, entries []planEntry) (*knowledge, error) {
	k := &knowledge{hosts: map[string][]api.Host{}, sites: map[string]api.Site{}, mtu: map[string]int{}}
	status, err := d.Status(ctx)
	if err != nil {
		return nil, err
	}
	k.shadow = status.Shadow
	for _, p := range status.Ports {
		k.mtu[p.Interface] = p.MTU
	}
	sites, err := d.Sites(ctx)
	for _, s := range sites {
		k.sites[s.Name] = s
	}
	if err != nil {
		return nil, err
	}
	for i := range entries {
		e := &entries[i]
		if e.Tenant == "" && len(status.Tenants) > 0 {
			e.Tenant = status.Tenants[0].Name
		}
		if _, done := k.hosts[e.Tenant]; done {
			continue
		}
		list := []api.Host{}
		if err := d.Hosts(ctx, e.Tenant, func(line []byte) error {
			var h api.Host
			err := json.Unmarshal(line, &h)
			list = append(list, h)
			return err
		}); err != nil {
			return nil, err
		}
		k.hosts[e.Tenant] = list
	}
	return k, nil
}

// check says of each move whether it may be carried out, and what to expect. It returns how many may not.
func (k *knowledge) check(list []plannedMove) (blocked int) {
	for i := range list {
		m := &list[i]
		if why := k.obstacle(m); why != "" {
			m.State, m.Notes = moveBlocked, append(m.Notes, why)
			blocked++
			continue
		}
		if leadsTo(m.host.Via, m.host.Here, k.sites[m.To]) {
			m.State = moveThere
			continue
		}
		if note := k.narrower(m); note != "" {
			m.Notes = append(m.Notes, note)
		}
		if m.host.MAC == "" {
			m.Notes = append(m.Notes, "its MAC is not known: other hosts of the same machine are not recognised by it")
		}
	}
	return blocked
}

// obstacle says why a host may not move there, "" if it may.
func (k *knowledge) obstacle(m *plannedMove) string {
	site, known := k.sites[m.To]
	switch {
	case k.shadow:
		return "this gateway is in shadow mode: it moves nobody"
	case !known:
		return fmt.Sprintf("no site is named %q: roamctl site list", m.To)
	case m.host == nil:
		return "nobody knows this host: roamctl route get " + m.Address.String()
	case leadsTo(m.host.Via, m.host.Here, site):
		return ""
	case !site.Own && !slices.ContainsFunc(site.Locators, reachable):
		return "no locator of " + m.To + " answers: roamctl site list"
	case m.host.Pinned && m.host.Source != api.SourceName:
		return "it is sticky: " + m.host.Source + " pins it where it is"
	case m.host.Sequence > 0 && m.host.Source != api.SourceName:
		return fmt.Sprintf("what %s says of it has sequence %d and would win: it moves where it shows itself", m.host.Source, m.host.Sequence)
	}
	switch m.host.State {
	case "frozen":
		return "it is frozen: roamctl host clear " + m.Address.String()
	case "conflict":
		return "two stations claim it: roamctl host show " + m.Address.String()
	}
	return ""
}

func reachable(l api.SiteLocator) bool { return l.State == "up" && l.Probe != "silent" }

// leadsTo tells whether a route leads to a site and nowhere else.
func leadsTo(via []api.Locator, here bool, s api.Site) bool {
	if s.Own || len(via) == 0 {
		return s.Own && here
	}
	return !slices.ContainsFunc(via, func(l api.Locator) bool {
		return !slices.ContainsFunc(s.Locators, func(sl api.SiteLocator) bool { return sl.Address == l.Address })
	})
}

// narrower warns of a tunnel that carries less than the host's own segment.
func (k *knowledge) narrower(m *plannedMove) string {
	segment, tunnel := 0, 0
	if m.host.Local != nil {
		segment = k.mtu[m.host.Local.Interface]
	}
	for _, l := range k.sites[m.To].Locators {
		if l.MTU > 0 && (tunnel == 0 || l.MTU < tunnel) {
			tunnel = l.MTU
		}
	}
	if segment == 0 || tunnel == 0 || tunnel >= segment {
		return ""
	}
	return fmt.Sprintf("the tunnel carries %d bytes, its segment %d", tunnel, segment)
}

// answering is a locator of a site that is to be asked by a probe, the preferred one that is reachable.
func answering(s api.Site) (best netip.Addr, ok bool) {
	priority := 0
	for _, l := range s.Locators {
		if reachable(l) && (!ok || int(l.Priority) < priority) {
			best, priority, ok = l.Address, int(l.Priority), true
		}
	}
	return best, ok
}
