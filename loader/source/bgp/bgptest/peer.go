// Package bgptest is a BGP neighbour for tests: it does as it is told, also what no honest speaker would do.
package bgptest

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// Peer is one end of a session. Its methods may be called from any goroutine.
type Peer struct {
	conn net.Conn
	done chan struct{}

	mu       sync.Mutex
	messages []*bgp.BGPMessage // received
	changed  chan struct{}
	err      error
}

// Options say who the peer is.
type Options struct {
	ASN      uint32
	RouterID netip.Addr
	Families []bgp.Family
	Graceful bool // announces graceful restart, and thereby that it marks the end of what it tells
	Hold     uint16
}

// Dial opens a session from local to remote and returns when both ends are established.
func Dial(local netip.Addr, remote netip.AddrPort, o Options) (*Peer, error) {
	d := net.Dialer{Timeout: 5 * time.Second, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(local, 0))}
	conn, err := d.Dial("tcp", remote.String())
	if err != nil {
		return nil, fmt.Errorf("call %s: %w", remote, err)
	}
	p := &Peer{conn: conn, done: make(chan struct{}), changed: make(chan struct{})}
	if err := p.open(o); err != nil {
		conn.Close()
		return nil, fmt.Errorf("open a session with %s: %w", remote, err)
	}
	go p.read()
	go p.keep()
	return p, nil
}

func (p *Peer) open(o Options) error {
	caps := []bgp.ParameterCapabilityInterface{bgp.NewCapFourOctetASNumber(o.ASN), bgp.NewCapRouteRefresh()}
	var tuples []*bgp.CapGracefulRestartTuple
	for _, f := range o.Families {
		caps = append(caps, bgp.NewCapMultiProtocol(f))
		tuples = append(tuples, bgp.NewCapGracefulRestartTuple(f, true))
	}
	if o.Graceful {
		caps = append(caps, bgp.NewCapGracefulRestart(false, false, 120, tuples))
	}
	if o.Hold == 0 {
		o.Hold = 90
	}
	as := uint16(23456) // AS_TRANS, RFC 6793
	if o.ASN < 1<<16 {
		as = uint16(o.ASN)
	}
	open, err := bgp.NewBGPOpenMessage(as, o.Hold, o.RouterID,
		[]bgp.OptionParameterInterface{bgp.NewOptionParameterCapability(caps)})
	if err != nil {
		return err
	}
	if err := p.Send(open, bgp.NewBGPKeepAliveMessage()); err != nil {
		return err
	}
	_ = p.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	for _, want := range []uint8{bgp.BGP_MSG_OPEN, bgp.BGP_MSG_KEEPALIVE} {
		m, err := p.receive()
		if err != nil {
			return err
		}
		if m.Header.Type != want {
			return fmt.Errorf("got message type %d (%v), want %d", m.Header.Type, m.Body, want)
		}
	}
	return p.conn.SetReadDeadline(time.Time{})
}

func (p *Peer) receive() (*bgp.BGPMessage, error) {
	header := make([]byte, bgp.BGP_HEADER_LENGTH)
	if _, err := io.ReadFull(p.conn, header); err != nil {
		return nil, err
	}
	length := int(binary.BigEndian.Uint16(header[16:]))
	if length < len(header) {
		return nil, fmt.Errorf("a message of %d bytes", length)
	}
	raw := append(header, make([]byte, length-len(header))...)
	if _, err := io.ReadFull(p.conn, raw[len(header):]); err != nil {
		return nil, err
	}
	return bgp.ParseBGPMessage(raw)
}

func (p *Peer) read() {
	defer close(p.done)
	for {
		m, err := p.receive()
		p.mu.Lock()
		if err == nil {
			p.messages = append(p.messages, m)
		}
		p.err = err
		close(p.changed)
		p.changed = make(chan struct{})
		p.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (p *Peer) keep() {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-p.done:
			return
		case <-tick.C:
			_ = p.Send(bgp.NewBGPKeepAliveMessage())
		}
	}
}

// Send writes messages.
func (p *Peer) Send(messages ...*bgp.BGPMessage) error {
	for _, m := range messages {
		raw, err := m.Serialize()
		if err != nil {
			return err
		}
		if err := p.SendRaw(raw); err != nil {
			return err
		}
	}
	return nil
}

// SendRaw writes bytes, right or wrong.
func (p *Peer) SendRaw(raw []byte) error {
	_, err := p.conn.Write(raw)
	return err
}

// Await waits for a received message that pleases check, also one that came before.
func (p *Peer) Await(limit time.Duration, what string, check func(*bgp.BGPMessage) bool) error {
	deadline := time.After(limit)
	for n := 0; ; {
		p.mu.Lock()
		list, changed, err := p.messages[n:], p.changed, p.err
		n = len(p.messages)
		p.mu.Unlock()
		for _, m := range list {
			if check(m) {
				return nil
			}
		}
		if err != nil {
			return fmt.Errorf("await %s: the session ended: %w", what, err)
		}
		select {
		case <-changed:
		case <-deadline:
			return fmt.Errorf("await %s: not within %v", what, limit)
		}
	}
}

// Messages are those received so far.
func (p *Peer) Messages() []*bgp.BGPMessage {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]*bgp.BGPMessage(nil), p.messages...)
}

// Close drops the connection without a word.
func (p *Peer) Close() {
	p.conn.Close()
	<-p.done
}

// Update is an UPDATE that announces routes of a multiprotocol family with these communities (RFC 4360, 8 bytes each).
func Update(asn uint32, hop netip.Addr, f bgp.Family, communities [][8]byte, nlri ...bgp.NLRI) (*bgp.BGPMessage, error) {
	var routes []bgp.PathNLRI
	for _, n := range nlri {
		routes = append(routes, bgp.PathNLRI{NLRI: n})
	}
	reach, err := bgp.NewPathAttributeMpReachNLRI(f, routes, hop)
	if err != nil {
		return nil, err
	}
	var extended []bgp.ExtendedCommunityInterface
	for _, c := range communities {
		e, err := bgp.ParseExtended(c[:])
		if err != nil {
			return nil, err
		}
		extended = append(extended, e)
	}
	path := []bgp.AsPathParamInterface{bgp.NewAs4PathParam(bgp.BGP_ASPATH_ATTR_TYPE_SEQ, []uint32{asn})}
	attrs := []bgp.PathAttributeInterface{bgp.NewPathAttributeOrigin(0), bgp.NewPathAttributeAsPath(path), reach}
	if len(extended) > 0 {
		attrs = append(attrs, bgp.NewPathAttributeExtendedCommunities(extended))
	}
	return bgp.NewBGPUpdateMessage(nil, attrs, nil), nil
}

// Withdraw is an UPDATE that takes routes back.
func Withdraw(f bgp.Family, nlri ...bgp.NLRI) (*bgp.BGPMessage, error) {
	var routes []bgp.PathNLRI
	for _, n := range nlri {
		routes = append(routes, bgp.PathNLRI{NLRI: n})
	}
	unreach, err := bgp.NewPathAttributeMpUnreachNLRI(f, routes)
	if err != nil {
		return nil, err
	}
	return bgp.NewBGPUpdateMessage(nil, []bgp.PathAttributeInterface{unreach}, nil), nil
}
