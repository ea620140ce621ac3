package main

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"

	"roam/loader/designate"
	"roam/loader/host"
	"roam/loader/metrics"
)

// Snapshot implements metrics.Reader. What cannot be read does not hide the rest.
func (d *daemon) Snapshot(ctx context.Context) (metrics.Snapshot, error) {
	var s metrics.Snapshot
	d.ownSnapshot(&s)
	return s, errors.Join(d.countSnapshot(&s), d.ribSnapshot(ctx, &s))
}

// ownSnapshot is what the daemon knows by itself.
func (d *daemon) ownSnapshot(s *metrics.Snapshot) {
	s.Refused = d.gateway.Refused()
	for _, t := range d.gateway.Tables() {
		s.Tables = append(s.Tables, metrics.Table{Name: t.Name, Entries: t.Entries, Capacity: t.Capacity})
	}
	for _, p := range d.gateway.Ports() {
		s.Ports = append(s.Ports, metrics.Port{Name: p.String(), Mode: cmp.Or(string(p.Mode), "none"), Driver: p.Driver})
	}
	for kind, n := range d.events.Totals() {
		s.Events = append(s.Events, metrics.Events{Kind: string(kind), Count: n})
	}
	hosts := d.hosts.Status()
	s.Frozen = hosts.Frozen
	for _, o := range host.Outcomes {
		s.Claims = append(s.Claims, metrics.Claims{Outcome: string(o), Count: hosts.Claims[o]})
	}
	s.Groups = map[string]int{}
	for _, l := range d.mld.Links() {
		s.Groups[l.Interface] = l.Groups
	}
	for _, p := range d.probe.Statuses() {
		s.Probes = append(s.Probes, metrics.Probes{Locator: p.Address.String(), Sent: p.Sent, Lost: p.Lost, Hole: p.Hole})
	}
	for _, n := range d.bgp.Standings() {
		s.Sessions = append(s.Sessions, metrics.Session{Protocol: "bgp", Neighbor: n.Neighbor.String(), Up: n.Up, Flaps: n.Flaps})
	}
	for _, n := range d.bfd.Sessions() {
		s.Sessions = append(s.Sessions, metrics.Session{
			Protocol: "bfd", Neighbor: n.Remote.String(), Local: n.Local.String(), Up: n.State == "up", Flaps: n.Flaps,
		})
	}
	for _, seg := range d.segmentStates() {
		s.Segments = append(s.Segments, metrics.Segment{
			Name: seg.Name, Designated: seg.State == string(designate.Designated), Others: max(0, len(seg.Gateways)-1),
		})
	}
	s.Shadow = d.plane.Shadow()
	s.Generation = d.plane.Generation()
}

// countSnapshot is what the data path has counted.
func (d *daemon) countSnapshot(s *metrics.Snapshot) (err error) {
	if s.Packets, err = d.packets(); err != nil {
		return err
	}
	states, counts, err := d.locators()
	if err != nil {
		return err
	}
	for a, st := range states {
		c := counts[st.Number]
		s.Locators = append(s.Locators, metrics.Locator{Address: a.String(), Packets: c.Packets, Bytes: c.Bytes, Up: st.Up})
	}
	seen, err := d.gateway.SightCounts()
	for _, n := range seen {
		s.Sightings = append(s.Sightings, metrics.Sightings{Kind: n.Kind, Count: n.Count})
	}
	return err
}

func (d *daemon) ribSnapshot(ctx context.Context, s *metrics.Snapshot) error {
	routes, hosts, err := d.rib.Counts(ctx)
	if err != nil {
		return err
	}
	n := names{d}
	for _, r := range routes {
		s.Routes = append(s.Routes, metrics.Routes{Tenant: n.TenantName(r.Tenant), Source: r.Source, Count: uint64(r.Claims)})
	}
	for _, h := range hosts {
		tenant := n.TenantName(h.Tenant)
		s.Hosts = append(s.Hosts,
			metrics.Hosts{Tenant: tenant, State: "here", Count: uint64(h.Here)},
			metrics.Hosts{Tenant: tenant, State: "elsewhere", Count: uint64(h.Away - h.Held)},
			metrics.Hosts{Tenant: tenant, State: "held", Count: uint64(h.Held)})
		s.Moves = append(s.Moves, metrics.Moves{Tenant: tenant, Count: h.Moves})
	}
	sinks, err := d.rib.Sinks(ctx)
	if err != nil {
		return err
	}
	for _, k := range sinks {
		s.Sinks = append(s.Sinks, metrics.Sink{Name: k.Name, Behind: k.Behind})
	}
	d.hookSnapshot(s)
	sources, err := d.sources(ctx)
	for _, src := range sources {
		s.Sources = append(s.Sources, metrics.Source{Name: src.Name, Up: src.Up, Changes: src.Changes})
	}
	return err
}

// mergePackets adds up what has one name: an interface may have been given another slot.
func mergePackets(list []metrics.Packets) []metrics.Packets {
	slices.SortFunc(list, func(a, b metrics.Packets) int {
		return cmp.Or(compareStrings(a.Port, b.Port), compareStrings(a.Reason, b.Reason))
	})
	var out []metrics.Packets
	for _, p := range list {
		if n := len(out); n > 0 && out[n-1].Port == p.Port && out[n-1].Reason == p.Reason {
			out[n-1].Packets += p.Packets
			out[n-1].Bytes += p.Bytes
			continue
		}
		out = append(out, p)
	}
	return out
}

func compareStrings(a, b string) int { return strings.Compare(a, b) }
