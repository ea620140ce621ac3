package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"roam/loader/event"
	"roam/loader/rib"
	"roam/loader/route"
)

// proof is what this gateway knows of one move, from the host's first sign to the first packet by its new way. No gateway sees all of it: the new
// home sees the sign, the announcement and what it delivers; the old one when the host was last heard and what it sends on; the others what they send.
type proof struct {
	known     time.Time // the move was decided here
	to        string
	here      bool      // it moved to here
	detected  time.Time // first sign, as the data path saw it; zero if it did not move to here, or nothing here saw it
	announced time.Time // its claim was given to the sessions of BGP; zero if there are none, or it did not move to here
	last      time.Time // it was last heard here, if it moved away
}

// proofs are the moves whose first packet has not been seen. As many as the RIB has the data path look for: what became of hosts to whom
// nobody sends is swept when there is no room, and not at each move of a storm.
type proofs struct {
	mu    sync.Mutex
	open  map[route.Key]*proof
	swept time.Time
}

const (
	maxProofs    = 4096
	sweepProofs  = time.Second // from one sweep to the next, at least
	firstPackets = 256         // between the ring and the RIB
)

// firstPacket is that a packet left for a host that moved.
type firstPacket struct {
	key  route.Key
	when time.Time
}

func (p *proofs) begin(key route.Key, is *proof, hold func(route.Key) time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open == nil {
		p.open = make(map[route.Key]*proof)
	}
	if len(p.open) >= maxProofs && is.known.Sub(p.swept) >= sweepProofs {
		p.swept = is.known
		for k, old := range p.open {
			if is.known.Sub(old.known) >= hold(k) {
				delete(p.open, k)
			}
		}
	}
	if _, again := p.open[key]; again || len(p.open) < maxProofs {
		p.open[key] = is
	}
}

// announced notes when a host's claim left, the first time since it moved, and returns how long that was after its first sign.
func (p *proofs) announced(key route.Key, at time.Time) (took time.Duration, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	is := p.open[key]
	if is == nil || !is.here || !is.announced.IsZero() {
		return 0, false
	}
	is.announced = at
	return at.Sub(is.detected), !is.detected.IsZero()
}

// end returns what is known of a move, once.
func (p *proofs) end(key route.Key) (proof, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	is := p.open[key]
	delete(p.open, key)
	if is == nil {
		return proof{}, false
	}
	return *is, true
}

// prove begins to collect what is known of a move. It runs in the RIB's goroutine, before the sinks hear of it.
func (d *daemon) prove(t *rib.Turn) {
	if !t.Awaited {
		return
	}
	is := &proof{known: t.When, to: d.place(t.After), here: t.After.Local != nil}
	if t.Detection > 0 {
		is.detected = t.When.Add(-t.Detection)
	}
	if t.Before.Local != nil && !is.here {
		is.last = d.lastHeard(t.After.Key)
		if gone := t.When.Add(-t.Outage); t.Outage > 0 && gone.After(is.last) {
			is.last = gone
		}
	}
	d.proofs.begin(t.After.Key, is, d.hold)
}

// lastHeard is when a host here last sent something, or answered.
func (d *daemon) lastHeard(key route.Key) time.Time {
	answered := d.hosts.LastAnswer(key)
	if sent, ok := d.gateway.LastSent(key); ok && sent.After(answered) {
		return sent
	}
	return answered
}

// announced notes that the claim to a host was given to the sessions of BGP. It runs in their source's goroutine.
func (d *daemon) announced(key route.Key, at time.Time) {
	if took, ok := d.proofs.announced(key, at); ok {
		d.timings.MoveAnnounced(took)
	}
}

// followFirstPackets completes the proofs of moves. It waits for the RIB, which sightings of hosts must not.
func (d *daemon) followFirstPackets(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case f := <-d.firsts:
			if err := d.rib.Seen(ctx, f.key); err != nil {
				continue // it ends
			}
			if err := d.gateway.FirstSeen(f.key); err != nil {
				d.log.Warn("note a first packet", "error", err)
			}
			d.reached(f)
		}
	}
}

// reached tells of the first packet to a host that moved.
func (d *daemon) reached(f firstPacket) {
	is, ok := d.proofs.end(f.key)
	if !ok {
		return
	}
	if is.last.After(f.when) { // it is known within some jiffies only
		is.last = f.when
	}
	host := f.key.Prefix.Addr().String()
	e := event.Event{
		Kind: event.Reached, Subject: host, Tenant: names{d}.TenantName(f.key.Tenant),
		Detected: is.detected, Announced: is.announced, LastPacket: is.last, FirstPacket: f.when,
	}
	since, what := f.when.Sub(is.known), "its move was known"
	switch {
	case !is.detected.IsZero():
		since, what = f.when.Sub(is.detected), "it first showed itself"
		d.timings.MoveReached(since)
	case !is.last.IsZero():
		since, what = f.when.Sub(is.last), "it was last heard here"
		d.timings.MoveSilent(since)
		e.EstimatedOutageSeconds = since.Seconds()
	}
	where := "here"
	if !is.here {
		where = "at " + is.to
	}
	e.What = fmt.Sprintf("%s was reached %s, %v after %s", host, where, since.Round(10*time.Microsecond), what)
	if !is.announced.IsZero() && !is.detected.IsZero() {
		e.What += fmt.Sprintf("; announced after %v", is.announced.Sub(is.detected).Round(10*time.Microsecond))
	}
	d.events.Note(e.Kind, func() event.Event { return e })
}
