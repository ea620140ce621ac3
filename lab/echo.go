package lab

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Echo is a steady stream of ICMP echo requests, or of UDP datagrams that are sent back, whose replies are counted: ping, with books. The
// gap of its Result is the longest time in which no reply came, so no smaller than the interval.
type Echo struct {
	name   string
	lab    *Lab
	conn   echoConn
	id     uint16
	reply  byte
	stop   context.CancelFunc
	sent   atomic.Int64
	sender sync.WaitGroup
	failed atomic.Pointer[error] // why it no longer sends

	mu      sync.Mutex
	tally   Tally
	arrived chan struct{}
	closed  chan struct{}
}

type echoConn interface {
	net.Conn
	net.PacketConn
}

// echoIDs gives each stream of this process an identifier of its own.
var echoIDs atomic.Uint32

// Echo starts pinging dst from a namespace, one request every interval.
func (l *Lab) Echo(from *Namespace, dst netip.Addr, interval time.Duration) *Echo {
	l.Helper()
	network, request, reply := "ip4:icmp", byte(8), byte(0)
	if dst.Is6() {
		network, request, reply = "ip6:ipv6-icmp", 128, 129
	}
	return l.echo(fmt.Sprintf("%s ping %s", from.Name, dst), from, request, reply, interval, func() (echoConn, error) {
		return net.DialIP(network, nil, &net.IPAddr{IP: dst.AsSlice()})
	})
}

// What the first byte of a datagram is, instead of ICMP's type.
const (
	datagramThere = 1
	datagramBack  = 2
)

// EchoUDP starts sending datagrams from one namespace to dst in another, which sends them back, one every interval.
func (l *Lab) EchoUDP(from, to *Namespace, dst netip.Addr, interval time.Duration) *Echo {
	l.Helper()
	var far *net.UDPConn
	l.must(to.Do(func() (err error) {
		far, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(dst, 0)))
		return err
	}), "listen at %s", dst)
	l.Defer(func() { _ = far.Close() })
	go reflect(far)
	name := fmt.Sprintf("%s -> %s -> %s (UDP to %s)", from.Name, to.Name, from.Name, dst)
	return l.echo(name, from, datagramThere, datagramBack, interval, func() (echoConn, error) {
		return net.DialUDP("udp", nil, far.LocalAddr().(*net.UDPAddr))
	})
}

// reflect sends datagrams back until the socket is closed.
func reflect(conn *net.UDPConn) {
	datagram := make([]byte, 65536)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(datagram)
		switch {
		case err != nil && !transient(err):
			return
		case err == nil && n > 0:
			datagram[0] = datagramBack
			_, _ = conn.WriteToUDPAddrPort(datagram[:n], from) // what is lost is the sender's to count
		}
	}
}

func (l *Lab) echo(name string, from *Namespace, request, reply byte, interval time.Duration, dial func() (echoConn, error)) *Echo {
	l.Helper()
	e := &Echo{
		name: name, lab: l, id: uint16(echoIDs.Add(1)) | 0x4000, reply: reply,
		arrived: make(chan struct{}, 1), closed: make(chan struct{}),
	}
	l.must(from.Do(func() (err error) {
		e.conn, err = dial()
		return err
	}), "open %s", e.name)
	ctx, cancel := context.WithCancel(context.Background())
	e.stop = cancel
	l.Defer(func() {
		cancel()
		_ = e.conn.Close()
	})
	go e.receive()
	e.sender.Add(1)
	go e.transmit(ctx, request, interval)
	return e
}

func (e *Echo) String() string { return e.name }

// Received is how many distinct replies have come so far. Safe from any goroutine.
func (e *Echo) Received() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.tally.received
}

// AwaitReplies waits until more replies have come, counted from now.
func (e *Echo) AwaitReplies(more int, limit time.Duration) {
	e.lab.Helper()
	goal, deadline := e.Received()+more, time.After(limit)
	for e.Received() < goal {
		select {
		case <-e.arrived:
		case <-deadline:
			e.lab.Fatalf("%s: %d of %d expected replies within %v (%d sent, %v)", e, more-goal+e.Received(), more, limit,
				e.sent.Load(), e.sendError())
		}
	}
}

// Stop ends the stream, gives the last replies half a second, and tells what became of it.
func (e *Echo) Stop() Result {
	e.lab.Helper()
	e.stop()
	e.sender.Wait()
	if err := e.sendError(); err != nil {
		e.lab.Fatalf("%s: send: %v", e, err)
	}
	deadline := time.After(500 * time.Millisecond)
wait:
	for e.Received() < int(e.sent.Load()) {
		select {
		case <-e.arrived:
		case <-deadline:
			break wait
		}
	}
	_ = e.conn.Close()
	<-e.closed
	return e.tally.Result(int(e.sent.Load()))
}

func (e *Echo) sendError() error {
	if err := e.failed.Load(); err != nil {
		return *err
	}
	return nil
}

func (e *Echo) transmit(ctx context.Context, request byte, interval time.Duration) {
	defer e.sender.Done()
	next := time.Now()
	for seq := uint64(0); ctx.Err() == nil; seq++ {
		// Type, code, checksum, identifier, sequence; then the sequence again, whole.
		packet := make([]byte, 8+8+40)
		packet[0] = request
		binary.BigEndian.PutUint16(packet[4:], e.id)
		binary.BigEndian.PutUint16(packet[6:], uint16(seq))
		binary.BigEndian.PutUint64(packet[8:], seq)
		if request == 8 { // the kernel does it for ICMPv6
			binary.BigEndian.PutUint16(packet[2:], checksum(packet))
		}
		if _, err := e.conn.Write(packet); err != nil && !transient(err) {
			e.failed.Store(&err)
			return
		}
		e.sent.Add(1)
		next = next.Add(interval)
		select {
		case <-time.After(time.Until(next)):
		case <-ctx.Done():
		}
	}
}

func (e *Echo) receive() {
	defer close(e.closed)
	packet := make([]byte, 65536)
	for {
		n, _, err := e.conn.ReadFrom(packet) // Read would include the IPv4 header
		if err != nil {
			if transient(err) {
				continue
			}
			return
		}
		if n < 16 || packet[0] != e.reply || binary.BigEndian.Uint16(packet[4:]) != e.id {
			continue
		}
		e.mu.Lock()
		e.tally.Add(int(binary.BigEndian.Uint64(packet[8:])), time.Now(), 0)
		e.mu.Unlock()
		select {
		case e.arrived <- struct{}{}:
		default:
		}
	}
}

// checksum is the Internet checksum (RFC 1071) of data, whose own checksum field must be zero.
func checksum(data []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(data); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(data[i:]))
	}
	if len(data)%2 == 1 {
		sum += uint32(data[len(data)-1]) << 8
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}
