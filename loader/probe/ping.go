package probe

import (
	"context"
	"net/netip"
	"slices"
	"time"
)

// Echo is what came of one Ping.
type Echo struct {
	Size     int // of the inner packet
	Answered bool
	Took     time.Duration
}

// Ping sends one probe of a size, 0 for the least, and waits until it is answered or ctx ends, which is no error.
func (p *Prober) Ping(ctx context.Context, to netip.Addr, size int) (Echo, error) {
	reply := make(chan Answer, 1)
	q := &question{to: to, size: size, reply: reply, at: time.Now()}
	p.mu.Lock()
	sent, err := p.post(q)
	p.mu.Unlock()
	if err != nil {
		return Echo{Size: sent}, err
	}
	select {
	case a := <-reply:
		return Echo{Size: a.Size, Answered: true, Took: time.Since(q.at)}, nil
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.sent, q.token)
	return Echo{Size: sent}, nil
}

// Status is how a locator fares.
type Status struct {
	Address    netip.Addr
	State      State
	Why        string        // silent
	RoundTrip  time.Duration // smoothed, 0 for not known
	Hole       bool          // some sizes get lost that interface and route take
	Sent, Lost uint64        // small probes
}

// Statuses lists all locators that are probed, in order.
func (p *Prober) Statuses() []Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	var list []Status
	for a, x := range p.peers {
		list = append(list, Status{
			Address: a, State: x.state(), Why: x.why(), RoundTrip: x.roundTrip, Hole: x.sizing.holed(), Sent: x.sent, Lost: x.lost,
		})
	}
	slices.SortFunc(list, func(a, b Status) int { return a.Address.Compare(b.Address) })
	return list
}
