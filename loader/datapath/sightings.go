package datapath

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"roam/loader/route"
	"roam/maps"
)

// Sighting is what the data path saw of a host, or an address that somebody misses: a hint, not a proof.
type Sighting struct {
	Kind    maps.SightKind
	Tenant  route.TenantID
	Port    PortRef // where; of a wanted host, where the packet came in
	Segment uint16  // behind that port; 0 for none, as of a packet that came by a tunnel
	MAC     route.MAC
	Addr    netip.Addr // not valid for maps.SightRARP
	When    time.Time
}

// places says what slots and spaces mean. It is made anew by each change and read without a lock.
type places struct {
	ports    map[uint16]PortRef
	segments map[uint16]uint16 // by slot
	tenants  map[uint16]route.TenantID
}

// notePlaces is called with the lock held.
func (g *Gateway) notePlaces() {
	p := &places{ports: map[uint16]PortRef{}, segments: map[uint16]uint16{}, tenants: map[uint16]route.TenantID{}}
	for ref, slot := range g.placed.slots {
		p.ports[slot] = ref
		p.segments[slot] = g.table.ports.Port(slot).Segment
	}
	for id, space := range g.table.tenants.ids {
		p.tenants[space] = id
	}
	g.places.Store(p)
}

func (p *places) resolve(s maps.Sighting) (Sighting, bool) {
	ref, known := p.ports[s.Port]
	tenant, also := p.tenants[s.Tenant]
	return Sighting{
		Kind: s.Kind, Tenant: tenant, Port: ref, Segment: p.segments[s.Port], MAC: s.MAC, Addr: s.Addr,
		When: bootTime().Add(s.When),
	}, known && also
}

// bootTime is when the kernel's monotonic clock began. Whoever is interrupted between the two clocks finds it too early: of a few looks the latest
// is right, so that what happens later in the kernel never seems to be earlier than what this program did before.
func bootTime() (at time.Time) {
	for range 3 {
		if t := time.Now().Add(-uptime()); t.After(at) {
			at = t
		}
	}
	return at
}

func uptime() time.Duration {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) // fails for no clock that exists
	return time.Duration(now.Nano())
}

// Sightings returns what the data path sees until ctx ends, which closes the channel. A reader that falls behind finds the oldest ones; the
// others are counted as lost. Sightings of ports that are gone are left out. One call at a time.
func (g *Gateway) Sightings(ctx context.Context) (<-chan Sighting, error) {
	ring, err := maps.OpenSightings(g.plane.Objects())
	if err != nil {
		return nil, err
	}
	out := make(chan Sighting)
	stop := context.AfterFunc(ctx, func() { _ = ring.Close() })
	go func() {
		defer close(out)
		defer stop()
		for {
			seen, err := ring.Read()
			if errors.Is(err, os.ErrClosed) {
				return
			}
			if err != nil {
				g.log.Warn("a sighting was lost", "error", err)
				continue
			}
			s, ok := g.places.Load().resolve(seen)
			if !ok {
				continue
			}
			select {
			case out <- s:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out, nil
}

// SightCounts says how many sightings there were of each kind, and how many were lost.
func (g *Gateway) SightCounts() ([]maps.SightCount, error) {
	return maps.ReadSightCounters(g.plane.Objects().SightCounters)
}

// LastSent is when a host here last sent a packet, false if that is not known (see maps.Senders). It takes no lock of the gateway's.
func (g *Gateway) LastSent(key route.Key) (at time.Time, ok bool) {
	for space, tenant := range g.places.Load().tenants {
		if tenant != key.Tenant || g.senders == nil {
			continue
		}
		err := g.plane.Use(func(o *maps.Objects) (err error) {
			at, ok, err = g.senders.Last(o, space, key.Prefix.Addr())
			return err
		})
		if err != nil {
			g.log.Warn("when a host was last heard is not known", "host", key.Prefix.Addr(), "error", err)
		}
		return at, ok
	}
	return at, false
}
