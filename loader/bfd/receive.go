package bfd

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/gopacket/gopacket/layers"
)

func (s *Speaker) read(local netip.Addr, conn *net.UDPConn) {
	packet, control := make([]byte, 256), make([]byte, 64)
	for {
		n, nc, _, from, err := conn.ReadMsgUDPAddrPort(packet, control)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			s.receive(ends{local, from.Addr().Unmap()}, packet[:n], ttlOf(control[:nc]), time.Now())
		}
	}
}

func (s *Speaker) receive(e ends, data []byte, ttl uint8, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, packet, err := s.match(e, data, ttl, now)
	if err != nil {
		s.refuse(e.remote, err)
		return
	}
	delete(s.refused, e.remote)
	a := p.session.receive(packet, now)
	if a.final {
		s.send(p, true)
	}
	s.tell(p, a, now)
	if packet.State == layers.BFDStateAdminDown {
		s.judge(p.remote, now) // which is no news to a session that is Down
	}
	if p.next().Before(s.due) {
		signal(s.wake)
	}
}

// match finds the session of a packet and makes sure that it comes from its other end.
func (s *Speaker) match(e ends, data []byte, ttl uint8, now time.Time) (*peer, *layers.BFD, error) {
	p := s.sessions[e]
	if p == nil {
		return nil, nil, errors.New("it is no locator that is known")
	}
	if ttl < s.config.MinTTL {
		return nil, nil, fmt.Errorf("TTL %d is below %d: it is further away than underlay.bfd.min_ttl allows", ttl, s.config.MinTTL)
	}
	packet, err := decode(data)
	if err != nil {
		return nil, nil, err
	}
	if d := packet.YourDiscriminator; d != 0 && s.numbered[d] != p {
		return nil, nil, errors.New("it is for a session that does not exist any more")
	}
	return p, packet, p.auth.check(packet, now)
}

// refuse says once for each reason why somebody's packets are not taken. Strangers are not remembered: there may be many.
func (s *Speaker) refuse(remote netip.Addr, err error) {
	if s.standings[remote] == nil || s.refused[remote] == err.Error() {
		return
	}
	s.refused[remote] = err.Error()
	s.log.Debug("BFD packet refused", "locator", remote, "why", err)
}

// tell sends news to the other end, and looks at what they mean for the locator.
func (s *Speaker) tell(p *peer, a answer, now time.Time) {
	if !a.news {
		return
	}
	s.log.Info("BFD session", "state", stateName(p.state), "locator", p.remote, "local", p.local, "why", p.why())
	s.send(p, false)
	s.judge(p.remote, now)
}

// judge takes notice of a locator's sessions.
func (s *Speaker) judge(remote netip.Addr, now time.Time) {
	up, goodbye := false, false
	for e, p := range s.sessions {
		if e.remote == remote {
			up = up || p.state == layers.BFDStateUp
			goodbye = goodbye || p.remoteState == layers.BFDStateAdminDown
		}
	}
	st := s.standings[remote]
	was := st.Out
	if st.Follow(up, goodbye, now); st.Out != was {
		signal(s.judged)
	}
}

func (s *Speaker) send(p *peer, final bool) {
	data, err := encode(p.packet(final), &p.auth)
	if err == nil {
		_, err = p.conn.WriteToUDPAddrPort(data, netip.AddrPortFrom(p.remote, Port))
	}
	if err != nil { // the other end will notice, and so shall we
		s.log.Debug("send BFD packet", "locator", p.remote, "error", err)
	}
}
