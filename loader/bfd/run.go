package bfd

import (
	"context"
	"time"

	"github.com/gopacket/gopacket/layers"
)

// Run keeps the sessions going until ctx ends, and then says goodbye.
func (s *Speaker) Run(ctx context.Context) error {
	told := make(chan struct{})
	go func() { defer close(told); s.report(ctx) }()
	due := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
			continue
		case <-s.wake:
		case <-timer.C:
		}
		now := time.Now()
		due = s.tick(now, now.Sub(due))
		timer.Reset(time.Until(due))
	}
	<-told
	s.goodbye()
	return nil
}

// report hands verdicts on without holding up the sessions.
func (s *Speaker) report(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.judged:
			s.changed(s.Out())
		}
	}
}

// late is how late a timer may be before it says something about us.
const late = 20 * time.Millisecond

// idle is when to look again where nothing is due.
const idle = time.Minute

// tick does what is due, and returns when to come again.
func (s *Speaker) tick(now time.Time, lateness time.Duration) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := now.Add(idle)
	for _, p := range s.sessions {
		if lateness > late {
			p.spare(now)
		}
		s.tell(p, p.expire(now), now)
		if !p.sendAt.IsZero() && !now.Before(p.sendAt) {
			s.send(p, false)
			p.transmitted(now)
		}
		next = earlier(next, p.next())
	}
	for remote, st := range s.standings {
		if st.Up && st.Out {
			s.judge(remote, now)
			next = earlier(next, st.Back())
		}
	}
	s.due = next
	return next
}

const (
	goodbyes     = 3 // packets may be lost
	goodbyePause = 50 * time.Millisecond
)

// goodbye ends all sessions. Who has taken notice says so at once, being Down then.
func (s *Speaker) goodbye() {
	for range goodbyes {
		if !s.farewells() {
			break
		}
		time.Sleep(goodbyePause)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for e, p := range s.sessions {
		s.remove(e, p)
	}
	for local, conn := range s.listeners {
		_ = conn.Close()
		delete(s.listeners, local)
	}
}

// farewells reports whether somebody has not taken notice yet.
func (s *Speaker) farewells() (waiting bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.sessions {
		if p.state != layers.BFDStateAdminDown || p.remoteState == layers.BFDStateUp {
			waiting = waiting || p.remoteState == layers.BFDStateUp
			s.farewell(p, time.Now())
		}
	}
	return waiting
}

// farewell tells the other end that silence is on purpose.
func (s *Speaker) farewell(p *peer, now time.Time) {
	p.enter(layers.BFDStateAdminDown, layers.BFDDiagnosticAdminDown, now)
	s.send(p, false)
}
