package bfd

import (
	"net/netip"
	"testing"
	"time"

	"github.com/gopacket/gopacket/layers"
)

const (
	adminDown = layers.BFDStateAdminDown
	down      = layers.BFDStateDown
	initial   = layers.BFDStateInit
	up        = layers.BFDStateUp
)

var epoch = time.Unix(1_000_000, 0)

// end is one end of a session at a time of the test's choosing.
func end(state layers.BFDState, interval time.Duration, multiplier uint8) *session {
	s := newSession(netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"), 7, epoch)
	s.configure(interval, multiplier, epoch)
	if state == initial || state == up {
		s.receive(says(down), epoch)
	}
	if state == up {
		s.receive(says(initial), epoch)
	}
	if state == adminDown {
		s.enter(adminDown, layers.BFDDiagnosticAdminDown, epoch)
	}
	return s
}

// says is a packet of the other end, which sends and takes ten a second, and counts to three.
func says(state layers.BFDState) *layers.BFD {
	return &layers.BFD{
		Version: 1, State: state, DetectMultiplier: 3, MyDiscriminator: 9, YourDiscriminator: 7,
		DesiredMinTxInterval: 100_000, RequiredMinRxInterval: 100_000,
	}
}

// TestStates walks every arrow of the figure in RFC 5880, section 6.2, and what has none. Diagnostics are those of
// sections 6.8.4, 6.8.6 and 6.8.16.
func TestStates(t *testing.T) {
	const none, expired, signaled, admin = layers.BFDDiagnosticNone, layers.BFDDiagnosticTimeExpired,
		layers.BFDDiagnosticNeighborSignalDown, layers.BFDDiagnosticAdminDown
	const timeout = layers.BFDState(99)
	for _, c := range []struct {
		from, event, to layers.BFDState
		why             layers.BFDDiagnostic
	}{
		{down, adminDown, down, none},
		{down, down, initial, none},
		{down, initial, up, none},
		{down, up, down, none},
		{initial, adminDown, down, signaled},
		{initial, down, initial, none},
		{initial, initial, up, none},
		{initial, up, up, none},
		{initial, timeout, down, expired},
		{up, adminDown, down, signaled},
		{up, down, down, signaled},
		{up, initial, up, none},
		{up, up, up, none},
		{up, timeout, down, expired},
		{adminDown, adminDown, adminDown, admin},
		{adminDown, down, adminDown, admin},
		{adminDown, initial, adminDown, admin},
		{adminDown, up, adminDown, admin},
	} {
		s := end(c.from, 100*time.Millisecond, 3)
		if s.state != c.from {
			t.Fatalf("the test began in %v, not %v", s.state, c.from)
		}
		var a answer
		if c.event == timeout {
			if a = s.expire(s.deadAt.Add(-1)); a.news {
				t.Errorf("%v: ended before the detection time", c.from)
			}
			a = s.expire(s.deadAt)
		} else {
			a = s.receive(says(c.event), epoch)
		}
		if s.state != c.to || s.diagnostic != c.why {
			t.Errorf("%v on %v: %v (%v), want %v (%v)", c.from, c.event, s.state, s.diagnostic, c.to, c.why)
		}
		if a.news != (c.from != c.to) {
			t.Errorf("%v on %v: news %v", c.from, c.event, a.news)
		}
		p := s.packet(false)
		if p.State != c.to || p.Diagnostic != c.why || p.ControlPlaneIndependent || p.Demand || p.Multipoint || p.Version != 1 {
			t.Errorf("%v on %v: packet %+v", c.from, c.event, p)
		}
		want := layers.BFDDiscriminator(9)
		if c.event == timeout {
			want = 0 // section 6.8.1: nobody is there any more
		}
		if p.YourDiscriminator != want {
			t.Errorf("%v on %v: your discriminator %d, want %d", c.from, c.event, p.YourDiscriminator, want)
		}
	}
}

// TestIntervals: what is announced, when packets leave, and when the other end counts as lost.
func TestIntervals(t *testing.T) {
	ms := func(n int) time.Duration { return time.Duration(n) * time.Millisecond }
	for _, c := range []struct {
		what                 string
		state                layers.BFDState
		mine                 time.Duration
		multiplier           uint8
		theirTx, theirRx     int // ms
		demand               bool
		announced            time.Duration
		interval, detectsIn  time.Duration
		earliest, latestSend time.Duration
	}{
		{"both alike", up, ms(100), 3, 100, 100, false, ms(100), ms(100), ms(300), ms(75), ms(100)},
		{"slow while Down", down, ms(100), 3, 100, 100, false, time.Second, time.Second, ms(300), ms(750), time.Second},
		{"they take less", up, ms(100), 3, 100, 400, false, ms(100), ms(400), ms(300), ms(300), ms(400)},
		{"they send less", up, ms(100), 3, 400, 100, false, ms(100), ms(100), ms(1200), ms(75), ms(100)},
		{"we take less", up, ms(400), 3, 100, 100, false, ms(400), ms(400), ms(1200), ms(300), ms(400)},
		{"multiplier 1", up, ms(100), 1, 100, 100, false, ms(100), ms(100), ms(300), ms(75), ms(90)},
		{"they want none", up, ms(100), 3, 100, 0, false, ms(100), 0, ms(300), 0, 0},
		{"they are in demand mode", up, ms(100), 3, 100, 100, true, ms(100), 0, ms(300), 0, 0},
	} {
		s := end(c.state, c.mine, c.multiplier)
		p := says(c.state)
		p.DesiredMinTxInterval, p.RequiredMinRxInterval = layers.BFDTimeInterval(c.theirTx*1000), layers.BFDTimeInterval(c.theirRx*1000)
		p.Demand, p.Final = c.demand, true
		if c.state == down {
			p.State = up // no arrow
		}
		s.receive(p, epoch)
		if got := duration(s.packet(false).DesiredMinTxInterval); got != c.announced {
			t.Errorf("%s: announced %v, want %v", c.what, got, c.announced)
		}
		if got := s.interval(); got != c.interval {
			t.Errorf("%s: interval %v, want %v", c.what, got, c.interval)
		}
		if got := s.deadAt.Sub(epoch); got != c.detectsIn {
			t.Errorf("%s: detection in %v, want %v", c.what, got, c.detectsIn)
		}
		seen := map[time.Duration]bool{}
		for now := epoch; len(seen) < 50 && c.interval != 0; now = s.sendAt {
			s.transmitted(now)
			after := s.sendAt.Sub(now)
			seen[after] = true
			if after < c.earliest || after > c.latestSend {
				t.Fatalf("%s: the next packet after %v, want %v to %v", c.what, after, c.earliest, c.latestSend)
			}
		}
		if c.interval == 0 && !s.sendAt.IsZero() {
			t.Errorf("%s: a packet is due", c.what)
		}
	}
}

// TestPoll: a change of intervals is announced with P until F confirms it (RFC 5880, section 6.8.3). Until then packets
// go out at the shorter interval, and the longer one counts for detection.
func TestPoll(t *testing.T) {
	s := end(up, 100*time.Millisecond, 3)
	confirm := func() {
		p := says(up)
		p.Final = true
		s.receive(p, epoch)
	}
	if !s.packet(false).Poll {
		t.Error("coming Up, the interval changed, and there is no poll")
	}
	if final := s.packet(true); !final.Final || final.Poll {
		t.Errorf("F and P at once: %+v", final)
	}
	confirm()
	if s.packet(false).Poll {
		t.Error("the poll goes on after F")
	}
	if s.interval() != 100*time.Millisecond {
		t.Errorf("interval %v", s.interval())
	}

	s.configure(400*time.Millisecond, 3, epoch)
	s.receive(says(up), epoch)
	if !s.packet(false).Poll || s.interval() != 100*time.Millisecond || s.detection() != 1200*time.Millisecond {
		t.Errorf("slower: poll %v, interval %v, detection %v before F", s.packet(false).Poll, s.interval(), s.detection())
	}
	confirm()
	if s.interval() != 400*time.Millisecond || s.detection() != 1200*time.Millisecond {
		t.Errorf("slower: interval %v, detection %v after F", s.interval(), s.detection())
	}

	s.configure(100*time.Millisecond, 3, epoch)
	s.receive(says(up), epoch)
	if s.interval() != 100*time.Millisecond || s.detection() != 1200*time.Millisecond {
		t.Errorf("faster: interval %v, detection %v before F", s.interval(), s.detection())
	}
	confirm()
	if s.detection() != 300*time.Millisecond {
		t.Errorf("faster: detection %v after F", s.detection())
	}

	poll := says(up)
	poll.Poll = true
	if a := s.receive(poll, epoch); !a.final || a.news {
		t.Errorf("a poll is answered with %+v", a)
	}
}

// TestForget: who falls silent has said nothing any more, so that a successor with other wishes is served.
func TestForget(t *testing.T) {
	s := end(up, 100*time.Millisecond, 3)
	p := says(up)
	p.RequiredMinRxInterval = 0
	s.receive(p, epoch)
	s.expire(s.deadAt)
	if s.sendAt.IsZero() || s.interval() != slow {
		t.Errorf("interval %v after the other end fell silent", s.interval())
	}
	if a := s.expire(s.since.Add(time.Hour)); a.news {
		t.Error("it fell silent twice")
	}
	if s.flaps != 1 {
		t.Errorf("%d flaps", s.flaps)
	}
}
