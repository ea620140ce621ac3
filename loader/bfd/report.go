package bfd

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/gopacket/gopacket/layers"

	"roam/loader/standing"
)

// Out is which locators are out, and why.
func (s *Speaker) Out() map[netip.Addr]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[netip.Addr]string{}
	for remote, st := range s.standings {
		if st.Out {
			out[remote] = s.reason(remote, st)
		}
	}
	return out
}

func (s *Speaker) reason(remote netip.Addr, st *standing.Standing) string {
	if st.Up {
		return fmt.Sprintf("BFD is up again and has to stay so for %v", st.Hold)
	}
	for e, p := range s.sessions {
		if e.remote == remote && p.flaps > 0 {
			return "BFD: " + p.why()
		}
	}
	return "BFD: no session is up"
}

// Session is how a session fares.
type Session struct {
	Local, Remote netip.Addr
	State         string // of RFC 5880 in lower case: admin-down, down, init, up
	Since         time.Time
	Flaps         int           // times it left Up
	Why           string        // it is as it is, "" for nothing to tell
	Detection     time.Duration // without a packet, after which the other end counts as lost; 0: nothing heard yet
}

// Sessions lists all sessions in order of their ends.
func (s *Speaker) Sessions() []Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []Session
	for _, p := range s.sessions {
		list = append(list, Session{
			Local: p.local, Remote: p.remote, State: stateName(p.state), Since: p.since, Flaps: p.flaps,
			Why: s.whyOf(p), Detection: p.detection(),
		})
	}
	slices.SortFunc(list, func(a, b Session) int {
		if c := a.Remote.Compare(b.Remote); c != 0 {
			return c
		}
		return a.Local.Compare(b.Local)
	})
	return list
}

// whyOf also tells of packets that come and are not taken.
func (s *Speaker) whyOf(p *peer) string {
	if why := s.refused[p.remote]; why != "" && p.state != layers.BFDStateUp {
		return "a packet was refused: " + why
	}
	return p.why()
}

// why is the last change in words.
func (s *session) why() string {
	switch {
	case s.remoteState == layers.BFDStateAdminDown:
		return "the other end has stopped speaking BFD"
	case s.diagnostic == layers.BFDDiagnosticTimeExpired:
		return "no packet came within the detection time"
	case s.diagnostic == layers.BFDDiagnosticNeighborSignalDown:
		return fmt.Sprintf("the other end went down (%v)", s.remoteDiagnostic)
	case s.state == layers.BFDStateDown && s.remoteDiscriminator == 0:
		return "no answer yet"
	}
	return ""
}

func stateName(st layers.BFDState) string {
	return [...]string{"admin-down", "down", "init", "up"}[st]
}
