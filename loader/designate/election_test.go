package designate

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"roam/loader/route"
)

const (
	interval = 150 * time.Millisecond
	hold     = 3 * interval
	preempt  = 5 * time.Second
)

var start = time.Unix(1e9, 0)

// script drives one election and names the state after each step.
type script struct {
	*testing.T
	Election
	now time.Time
}

func begin(t *testing.T) *script {
	s := &script{T: t, now: start}
	s.Preempt = preempt
	s.say(5, Ready, 100)
	s.Up(s.now)
	s.is(Listening)
	return s
}

func gateway(n byte, r Rank, priority uint8) Hello {
	return Hello{MAC: route.MAC{2, 0, 0, 0, 0, n}, Rank: r, Priority: priority, Hold: hold}
}

func (s *script) say(n byte, r Rank, priority uint8) { s.Say(gateway(n, r, priority), s.now) }

func (s *script) hear(n byte, r Rank, priority uint8, designated bool) {
	h := gateway(n, r, priority)
	h.Designated = designated
	s.Hear(h, s.now)
}

func (s *script) wait(d time.Duration) { s.now = s.now.Add(d); s.Tick(s.now) }

func (s *script) is(want State) {
	s.Helper()
	if is, _ := s.State(); is != want {
		s.Fatalf("after %v: %s, want %s", s.now.Sub(start), is, want)
	}
}

// TestElection: each rule once.
func TestElection(t *testing.T) {
	for name, play := range map[string]func(*script){
		"alone: designated once others had time to be heard": func(s *script) {
			s.wait(hold - 1)
			s.is(Listening)
			s.wait(1)
			s.is(Designated)
		},
		"a designated one stays, though it has the higher MAC": func(s *script) {
			s.hear(9, Ready, 100, true)
			s.wait(hold - 1)
			s.hear(9, Ready, 100, true)
			s.wait(1)
			s.is(Standby)
			for range 100 {
				s.wait(interval)
				s.hear(9, Ready, 100, true)
				s.is(Standby)
			}
		},
		"it dies": func(s *script) {
			s.hear(9, Ready, 100, true)
			s.wait(hold - 1)
			s.hear(9, Ready, 100, true)
			s.wait(hold - 1)
			s.is(Standby)
			s.wait(1)
			s.is(Designated)
		},
		"it dies, and another comes before us": func(s *script) {
			s.hear(9, Ready, 100, true)
			s.wait(hold / 2)
			s.hear(1, Ready, 100, false)
			s.wait(hold / 2)
			s.is(Standby)
			s.hear(1, Ready, 100, true)
			s.is(Standby)
		},
		"it is cut off": func(s *script) {
			s.hear(9, Ready, 100, true)
			s.wait(hold)
			s.hear(9, CutOff, 100, true)
			s.is(Designated)
		},
		"it is isolated: others may be about to be": func(s *script) {
			s.hear(9, Ready, 100, true)
			s.wait(hold - 1)
			for _, mine := range []Rank{Isolated, Ready} {
				s.hear(9, Isolated, 100, true)
				s.say(5, mine, 100)
				s.wait(hold - 1)
				s.is(Standby)
			}
			s.hear(9, Isolated, 100, true)
			s.wait(1)
			s.is(Designated)
		},
		"it leaves, and we have a lower priority": func(s *script) {
			s.hear(9, Ready, 200, true)
			s.wait(hold - 1)
			s.hear(9, Ready, 200, true)
			s.wait(1)
			s.is(Standby)
			s.hear(9, Leaving, 200, true)
			s.is(Designated)
		},
		"a higher priority waits": func(s *script) {
			s.hear(9, Ready, 50, true)
			s.wait(hold - 1)
			s.hear(9, Ready, 50, true)
			s.wait(1)
			for waited := time.Duration(0); waited < preempt; waited += interval {
				s.hear(9, Ready, 50, true)
				s.wait(interval)
				if waited+interval < preempt {
					s.is(Standby)
				}
			}
			s.hear(9, Ready, 50, true)
			s.is(Designated)
		},
		"a higher priority that comes and goes waits anew": func(s *script) {
			s.wait(hold - 1)
			for i := range 200 {
				s.hear(9, Ready, 50, true)
				if i%20 == 0 {
					s.say(5, Starting, 100)
				} else {
					s.say(5, Ready, 100)
				}
				s.is([]State{Listening, Standby}[min(i, 1)])
				s.wait(interval)
			}
		},
		"two are designated, ours has the lower MAC": func(s *script) {
			s.wait(hold)
			s.hear(9, Ready, 100, true)
			s.is(Designated)
		},
		"two are designated, ours has the higher MAC": func(s *script) {
			s.wait(hold)
			s.hear(1, Ready, 100, false)
			s.is(Designated)
			s.hear(1, Ready, 100, true)
			s.is(Standby)
		},
		"we are cut off, and nobody is better": func(s *script) {
			s.wait(hold)
			s.say(5, CutOff, 100)
			s.is(Designated)
			s.hear(9, CutOff, 100, false)
			s.is(Designated)
		},
		"the port goes down, and comes back": func(s *script) {
			s.wait(hold)
			s.is(Designated)
			s.Down(s.now)
			s.is(Down)
			s.hear(9, Ready, 100, true)
			s.is(Down)
			if len(s.Others()) > 0 || !s.Next().IsZero() {
				s.Errorf("hears %v, decides at %v", s.Others(), s.Next())
			}
			s.Up(s.now)
			s.is(Listening)
		},
		"our own hello comes back": func(s *script) {
			s.hear(5, Ready, 200, true)
			s.wait(hold)
			s.is(Designated)
		},
	} {
		t.Run(name, func(t *testing.T) { play(begin(t)) })
	}
}

// lan is a model of gateways on a LAN that splits and heals, and loses some hellos.
type lan struct {
	g        *rand.Rand
	now      time.Time
	gateways []*member
}

type member struct {
	Election
	hello Hello
	alive bool
	part  int // of the LAN
	send  time.Time
	said  State
}

// step lets the LAN be until a point in time, in steps of a hello's travel, loss being one in so many.
func (l *lan) run(until time.Time, loss int) {
	for ; l.now.Before(until); l.now = l.now.Add(5 * time.Millisecond) {
		for _, m := range l.gateways {
			if m.alive {
				m.Tick(l.now)
				l.speak(m, loss)
			}
		}
	}
}

// speak sends a hello where one is due: in time, or since the state is another.
func (l *lan) speak(m *member, loss int) {
	is, _ := m.State()
	if is == Down || l.now.Before(m.send) && is == m.said {
		return
	}
	m.send, m.said = l.now.Add(interval), is
	for _, other := range l.gateways {
		if other != m && other.alive && other.part == m.part && (loss == 0 || l.g.IntN(loss) > 0) {
			other.Hear(m.Hello(), l.now)
		}
	}
}

// shake does something to a gateway.
func (l *lan) shake() string {
	m := l.gateways[l.g.IntN(len(l.gateways))]
	switch l.g.IntN(6) {
	case 0:
		m.alive = false
		return fmt.Sprint(m.hello.MAC, " dies")
	case 1:
		if !m.alive {
			*m = member{hello: m.hello, alive: true, part: m.part}
			m.Preempt = preempt
			m.Say(m.hello, l.now)
			m.Up(l.now)
			return fmt.Sprint(m.hello.MAC, " starts")
		}
	case 2:
		m.part = l.g.IntN(2)
		return fmt.Sprint(m.hello.MAC, " is in part ", m.part)
	case 3:
		m.hello.Rank = Rank(l.g.IntN(int(Ready) + 1))
		m.Say(m.hello, l.now)
		return fmt.Sprint(m.hello.MAC, " is ", m.hello.Rank)
	case 4:
		m.hello.Priority = uint8(l.g.IntN(3))
		m.Say(m.hello, l.now)
		return fmt.Sprint(m.hello.MAC, " has priority ", m.hello.Priority)
	case 5:
		m.Down(l.now)
		if l.g.IntN(2) == 0 {
			m.Up(l.now)
			return fmt.Sprint(m.hello.MAC, "'s port flaps")
		}
		return fmt.Sprint(m.hello.MAC, "'s port is down")
	}
	return "nothing"
}

// designated counts who is designated in a part of the LAN, and who could be.
func (l *lan) designated(part int) (are, could int) {
	for _, m := range l.gateways {
		is, _ := m.State()
		if !m.alive || m.part != part || is == Down {
			continue
		}
		could++
		if is == Designated {
			are++
		}
	}
	return are, could
}

// TestElectionWalk: whatever happens to gateways and to the LAN between them, a while later each of its parts has exactly one
// designated gateway, and keeps it as long as nothing happens.
func TestElectionWalk(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("SEED"); s != "" {
		seed, _ = strconv.ParseUint(s, 10, 64)
	}
	g := rand.New(rand.NewPCG(seed, 0))
	for round := range 300 {
		l := &lan{g: g, now: start}
		for n := range 2 + g.IntN(3) {
			l.gateways = append(l.gateways, &member{hello: gateway(byte(n), Ready, 1)})
		}
		var story []string
		for range 8 {
			for range 1 + g.IntN(5) {
				story = append(story, fmt.Sprintf("%v: %s", l.now.Sub(start), l.shake()))
				l.run(l.now.Add(time.Duration(g.IntN(700))*time.Millisecond), 1+g.IntN(4))
			}
			l.run(l.now.Add(2*hold), 0) // one that died is missed, one that came has listened
			for settled := l.now.Add(preempt + 3*hold); l.now.Before(settled); l.run(l.now.Add(10*time.Millisecond), 0) {
				for part := range 2 {
					are, could := l.designated(part)
					if are != min(could, 1) {
						t.Fatalf("seed %d, round %d: %d of %d gateways in part %d are designated\n%q", seed, round, are, could, part, story)
					}
				}
			}
		}
	}
}
