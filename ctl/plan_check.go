package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"

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

const checkedAtOnce = 1000 // a request is a megabyte at most

// consult asks a gateway what it knows of moves. Of another site's only those to it are asked.
func consult(ctx context.Context, d *api.Client, site string, moves []plannedMove) error {
	var asked []*plannedMove
	for i := range moves {
		if site == "" || moves[i].To == site {
			asked = append(asked, &moves[i])
		}
	}
	for part := range slices.Chunk(asked, checkedAtOnce) {
		var r api.CheckMoves
		for _, m := range part {
			c := api.MoveCheck{Address: m.Address, Tenant: m.Tenant, To: m.To}
			if m.host != nil {
				c.MAC = m.host.MAC
			}
			r.Moves = append(r.Moves, c)
		}
		answer, err := d.CheckMoves(ctx, r)
		switch {
		case err != nil:
			return err
		case site != "" && answer.Site != site:
			return usage("--ask SITE=SOCKET names the site that answers at the socket", "the gateway that is asked for %s is one of %s", site, answer.Site)
		case len(answer.Moves) != len(part):
			return fmt.Errorf("asked for %d moves, the gateway answers for %d", len(part), len(answer.Moves))
		}
		for i, m := range part {
			if site == "" {
				m.here = answer.Moves[i]
			} else {
				m.there = append(m.there, answer.Moves[i])
			}
		}
	}
	return nil
}

// consultOthers asks the gateways that --ask names.
func consultOthers(ctx context.Context, asks []string, moves []plannedMove) error {
	for _, text := range asks {
		site, socket, ok := strings.Cut(text, "=")
		if !ok || site == "" || socket == "" {
			return usage("such as --ask dc2=/run/roam/dc2.sock, a socket that ssh -L brings here", "%q is no site and socket", text)
		}
		d := api.NewClient(socket)
		err := consult(ctx, d, site, moves)
		d.Close()
		if err != nil {
			return fmt.Errorf("ask the gateway of %s: %w", site, err)
		}
	}
	return nil
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
		for _, said := range append([]api.MoveChecked{m.here}, m.there...) {
			for _, note := range said.Warnings {
				if !slices.Contains(m.Notes, note) {
					m.Notes = append(m.Notes, note)
				}
			}
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
	if why := m.turnedAway(); why != "" {
		return why
	}
	switch m.host.State {
	case "frozen":
		return "it is frozen: roamctl host clear " + m.Address.String()
	case "conflict":
		return "two stations claim it: roamctl host show " + m.Address.String()
	}
	return ""
}

// turnedAway says why the gateways that were asked would not have it. What two of them do with its packets has to be the same: else those and their
// answers take different ways, and firewalls see half of each connection.
func (m *plannedMove) turnedAway() string {
	if m.here.Refused != "" {
		return m.here.Refused
	}
	for _, there := range m.there {
		switch {
		case there.Refused != "":
			return m.To + " says: " + there.Refused
		case there.Egress != m.here.Egress:
			return fmt.Sprintf("its egress policy is %s here and %s at %s: its packets and their answers would take different ways",
				cmp.Or(m.here.Egress, "local"), cmp.Or(there.Egress, "local"), m.To)
		}
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
