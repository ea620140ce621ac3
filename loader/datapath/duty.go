package datapath

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"roam/maps"
)

// SetDuty says who answers ARP and neighbour discovery on a segment, and takes what is flooded there: this gateway, or a standby's designated
// one. For is how long this one's word holds if nobody renews it, 0 for good: by then others take a daemon that died for dead. A segment
// that nobody has said anything of is as it was found pinned, and else stands by.
//
// It waits for no change of routes or ports: who is late is taken for dead.
func (g *Gateway) SetDuty(segment string, standby bool, lasts time.Duration) error {
	g.duty.Lock()
	defer g.duty.Unlock()
	index := g.duties[segment]
	if index == 0 {
		return fmt.Errorf("segment %s is not in the tables", segment)
	}
	var until uint64
	if lasts > 0 {
		now, err := monotonic()
		if err != nil {
			return err
		}
		until = now + uint64(lasts)
	}
	g.table.ports.SetDuty(index, standby, until)
	return nil
}

// putSegment writes a segment, and has it go on as it was; who is new on it listens first.
func (g *Gateway) putSegment(s SegmentSpec, seg maps.Segment) error {
	g.duty.Lock()
	defer g.duty.Unlock()
	index := g.placed.segments[s.Name]
	had := g.table.ports.Segment(index)
	switch {
	case !s.Elected:
	case had.Mac != seg.Mac || had.Tenant != seg.Tenant:
		seg.Flags |= maps.SegmentStandby
	default:
		seg.Flags |= had.Flags & maps.SegmentStandby
		seg.DesignatedUntil = had.DesignatedUntil
	}
	g.duties = g.placed.segments
	return g.table.ports.PutSegment(index, seg)
}

// monotonic is the clock of the data path, in ns.
func monotonic() (uint64, error) {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return 0, fmt.Errorf("read the monotonic clock: %w", err)
	}
	return uint64(now.Nano()), nil
}
