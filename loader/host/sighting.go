package host

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"roam/loader/route"
)

// told is what was reported of a neighbour, and to whom its MAC counts.
type told struct {
	sighting
	sequence uint32
}

type sighting struct {
	station
	key   route.Key // zero for a router, which is not claimed
	local route.Local
}

func (p *port) name() string {
	if p.VLAN == 0 {
		return p.Link
	}
	if p.Inner != 0 {
		return fmt.Sprintf("%s VLAN %d.%d", p.Link, p.VLAN, p.Inner)
	}
	return fmt.Sprintf("%s VLAN %d", p.Link, p.VLAN)
}

// covers reports whether a host with this address may live on the segment.
func (p *port) covers(addr netip.Addr) bool {
	if addr.IsMulticast() || addr.IsLinkLocalUnicast() || addr.IsUnspecified() || addr.IsLoopback() {
		return false
	}
	for _, subnet := range p.Subnets {
		if subnet.Contains(addr) {
			return !edge(subnet, addr)
		}
	}
	return false
}

// allows reports whether the segment takes an address that it covers for a host.
func (p *port) allows(addr netip.Addr) bool {
	return len(p.Allow) == 0 || slices.ContainsFunc(p.Allow, func(a netip.Prefix) bool { return a.Contains(addr) })
}

// edge reports whether addr is the network or the broadcast address of an IPv4 subnet that has them (RFC 3021).
func edge(subnet netip.Prefix, addr netip.Addr) bool {
	if !addr.Is4() || subnet.Bits() > 30 {
		return false
	}
	next := addr.Next()
	return addr == subnet.Masked().Addr() || !next.IsValid() || !subnet.Contains(next)
}

// classify says what a neighbour is: a host to claim, a router to know, or (false) neither.
func (s *Source) classify(e entry, n neighbour) (sighting, bool) {
	p := s.ports[e.link]
	if p == nil || n.mac.IsZero() || n.mac[0]&1 != 0 || slices.Contains(p.NotHost, n.mac) {
		return sighting{}, false
	}
	t := sighting{station: station{p.Index, n.mac}}
	switch {
	case slices.Contains(p.Routers, e.addr):
		return t, true
	case !p.covers(e.addr), !p.allows(e.addr), slices.Contains(p.Gateway, e.addr), slices.Contains(p.Own, e.addr):
		return sighting{}, false
	}
	for _, r := range p.Routers {
		if s.neighbours[entry{e.link, r}].mac == n.mac {
			return sighting{}, false
		}
	}
	t.key, t.local = hostKey(p.Tenant, e.addr), p.local
	return t, true
}

// compare brings what was told of these neighbours in line with what they are, and returns the changes: first what
// goes, then what comes, for an address may do both on two ports. MACs are announced the other way round, so that one
// that only changes its address is never gone.
func (s *Source) compare(entries map[entry]struct{}) (changes []route.Change) {
	type departed struct {
		station
		suspended bool
		moved     netip.Addr // to another site
	}
	var gone []departed
	come := make(map[entry]told)
	s.mu.Lock()
	for e := range entries {
		before, was := s.told[e]
		after, is := s.classify(e, s.neighbours[e])
		if is && (!was || before.sighting != after) {
			come[e] = told{after, s.sight(before, after)}
		}
		if !was || is && before.sighting == after {
			continue
		}
		_, suspended := s.suspended[e]
		left := departed{station: before.station, suspended: suspended}
		if !is && before.key != (route.Key{}) {
			left.moved = s.vacate(before)
		}
		gone = append(gone, left)
		delete(s.suspended, e)
		delete(s.told, e)
		delete(s.doing, before.key)
		s.unbind(before)
		delete(s.leaving, e)
		delete(s.young, e)
		delete(s.defences, e)
		delete(s.contests, e) // it was about this holder
		if before.key != (route.Key{}) {
			delete(s.here, before.key)
			changes = append(changes, route.Change{Claim: route.Claim{Key: before.key}, Withdraw: true})
		}
	}
	for e, t := range come {
		s.told[e] = t
		if t.key != (route.Key{}) {
			s.here[t.key] = e
			delete(s.doing, t.key)
			delete(s.vacant, t.key)
		}
	}
	s.mu.Unlock()
	for e, t := range come {
		if t.key != (route.Key{}) {
			s.watch(e)
		}
		s.alive(e) // it has just answered the kernel, or did before this daemon began
		changes = append(changes, s.arrive(e, t)...)
	}
	for _, d := range gone {
		if d.suspended {
			s.recount(d.station, -1, -1)
		} else {
			s.recount(d.station, -1, 0)
		}
		if d.moved.IsValid() {
			s.moves(d.segment, d.moved)
		}
	}
	return changes
}

// vacate returns the address of a host that left for another site, invalid where no other site has it: it may yet turn up there. The caller holds mu.
func (s *Source) vacate(t told) (moved netip.Addr) {
	if _, elsewhere, _ := s.others(t.key, route.MAC{}); elsewhere {
		return t.key.Prefix.Addr()
	}
	if len(s.vacant) < maxBound {
		s.vacant[t.key] = vacancy{t.segment, s.now().Add(quarantineTime)}
	}
	return netip.Addr{}
}

// sight gives a sighting its sequence. One that differs from the last in its place only is no move.
func (s *Source) sight(before told, now sighting) (sequence uint32) {
	switch {
	case now.key == route.Key{}:
		return 0
	case before.key == now.key && before.mac == now.mac:
		return before.sequence
	case before.key == now.key: // another MAC has the address now
		sequence = next(before.sequence)
	}
	if others, elsewhere, ok := s.others(now.key, now.mac); ok {
		if elsewhere {
			others = next(others)
		}
		sequence = max(sequence, others)
	}
	return max(sequence, s.stations[now.station].sequence)
}

// next is the sequence after n; it ends at the largest, where the lowest locator decides.
func next(n uint32) uint32 { return max(n, n+1) }

func (s *Source) claim(t told) route.Change {
	local := t.local
	return route.Change{Claim: route.Claim{Key: t.key, Local: &local, Site: s.site, MAC: t.mac, Sequence: t.sequence}}
}

// arrive counts an address of a station and returns what is to be claimed: it, and with a higher sequence all other
// addresses of the station as well.
func (s *Source) arrive(e entry, t told) (changes []route.Change) {
	p := s.stations[t.station]
	raised := p.addresses > 0 && t.sequence > p.sequence
	p.sequence = max(p.sequence, t.sequence)
	s.stations[t.station] = p
	s.recount(t.station, +1, 0)
	if t.key != (route.Key{}) {
		t.sequence = p.sequence
		s.told[e] = t
		changes = append(changes, s.claim(t))
	}
	if raised {
		changes = append(changes, s.raised(t.station)...)
	}
	return changes
}

// raise gives a host a higher sequence.
func (s *Source) raise(e entry, sequence uint32) []route.Change {
	t, ok := s.told[e]
	p := s.stations[t.station]
	if !ok || p.sequence >= sequence {
		return nil
	}
	p.sequence = sequence
	s.stations[t.station] = p
	return s.raised(t.station)
}

// raised claims the addresses of a station that do not have its sequence yet.
func (s *Source) raised(st station) (changes []route.Change) {
	sequence := s.stations[st].sequence
	for e, t := range s.told {
		if t.station == st && t.key != (route.Key{}) && t.sequence < sequence {
			t.sequence = sequence
			s.told[e] = t
			changes = append(changes, s.claim(t))
		}
	}
	return changes
}

// recount changes how many addresses a station has, and tells of its MAC when it comes or goes with them. What is suspended does not count: a
// host that moves is reached by those who still send to its MAC from the moment that its new site is heard of.
func (s *Source) recount(st station, addresses, suspended int) {
	p := s.stations[st]
	before := p.addresses > p.suspended
	p.addresses += addresses
	p.suspended += suspended
	if s.stations[st] = p; p.addresses == 0 {
		delete(s.stations, st)
	}
	if after := p.addresses > p.suspended; after != before {
		s.macsTo(st.segment, st.mac, after)
	}
}

// suspend and resume say of an address of a host here whether it still counts.
func (s *Source) suspend(e entry) {
	t, here := s.told[e]
	if _, already := s.suspended[e]; here && !already {
		s.suspended[e] = struct{}{}
		s.recount(t.station, 0, +1)
	}
}

func (s *Source) resume(e entry) {
	if _, is := s.suspended[e]; is {
		delete(s.suspended, e)
		s.recount(s.told[e].station, 0, -1)
	}
}

// take applies an event and all that wait behind it, up to a batch, and returns the neighbours that changed.
func (s *Source) take(e event, events <-chan event) map[entry]struct{} {
	changed := make(map[entry]struct{})
	for range batch {
		s.apply(e, changed)
		var ok bool
		select {
		case e, ok = <-events:
			if ok {
				continue
			}
		default:
		}
		break
	}
	return changed
}

func (s *Source) report(ctx context.Context, to route.Reporter, changed map[entry]struct{}, more ...route.Change) error {
	changes := append(s.compare(changed), more...)
	if len(changes) == 0 {
		return nil
	}
	err := to.Report(ctx, changes)
	s.reported(changes)
	return err
}

// reported forgets the first signs of hosts that have been claimed.
func (s *Source) reported(changes []route.Change) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range changes {
		if !changes[i].Withdraw {
			delete(s.firsts, changes[i].Key)
		}
	}
}

// resync looks at ports and neighbours anew and makes a full report.
func (s *Source) resync(ctx context.Context, k *kernel, to route.Reporter) error {
	if !s.dump(k) {
		return nil
	}
	all := make(map[entry]struct{})
	for e := range s.told {
		all[e] = struct{}{}
	}
	for e := range s.neighbours {
		all[e] = struct{}{}
	}
	s.compare(all)
	s.findRouters()

	if err := to.Begin(ctx); err != nil {
		return err
	}
	var changes []route.Change
	for _, t := range s.told {
		if t.key != (route.Key{}) {
			changes = append(changes, s.claim(t))
		}
	}
	if err := to.Report(ctx, changes); err != nil {
		return err
	}
	s.reported(changes)
	return to.Synced(ctx)
}
