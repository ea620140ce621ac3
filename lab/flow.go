package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Flow is a steady stream of numbered UDP datagrams from one namespace to another, in one direction. Arrivals are
// stamped by the kernel, so that a slow reader does not look like a slow network.
type Flow struct {
	name string
	lab  *Lab
	to   netip.AddrPort

	send      *net.UDPConn
	recv      []*net.UDPConn
	stop      context.CancelFunc
	sent      atomic.Int64
	sender    sync.WaitGroup
	receivers sync.WaitGroup
	sendErr   error
	halted    time.Time // when the sender had ended

	mu      sync.Mutex
	tally   Tally
	left    []time.Time   // when each packet did
	arrived chan struct{} // one token while there is news
}

// flowPorts gives each flow of this process a destination port of its own.
var flowPorts atomic.Uint32

const (
	flowMagic  = 0x526f616d
	flowHeader = 12 // magic 4, sequence 8
)

// Flow starts a stream of rate datagrams a second, each of size bytes of UDP payload, from src in one namespace to dst
// in another. A zero src leaves the choice to the kernel.
func (l *Lab) Flow(from *Namespace, src netip.Addr, to *Namespace, dst netip.Addr, rate, size int) *Flow {
	l.Helper()
	f := &Flow{
		name: fmt.Sprintf("%s -> %s (%s)", from.Name, to.Name, dst), lab: l,
		to:      netip.AddrPortFrom(dst, uint16(20000+flowPorts.Add(1)%20000)),
		arrived: make(chan struct{}, 1),
	}
	f.Or(to)
	l.must(from.Do(func() (err error) {
		var local *net.UDPAddr
		if src.IsValid() {
			local = net.UDPAddrFromAddrPort(netip.AddrPortFrom(src, 0))
		}
		f.send, err = net.DialUDP("udp", local, net.UDPAddrFromAddrPort(f.to))
		return err
	}), "dial flow %s", f.name)
	ctx, cancel := context.WithCancel(context.Background())
	f.stop = cancel
	l.Defer(func() {
		cancel()
		f.hangUp()
	})
	f.sender.Add(1)
	go f.transmit(ctx, rate, max(size, flowHeader))
	return f
}

// Or lets packets arrive in one more namespace that has the destination's address: a host and its twin at the place
// it moves to are one receiver in the books.
func (f *Flow) Or(to *Namespace) {
	f.lab.Helper()
	f.lab.must(to.Do(func() error {
		conn, err := listenStamped(f.to)
		if err == nil {
			f.recv = append(f.recv, conn)
		}
		return err
	}), "listen for flow %s", f.name)
	f.receivers.Add(1)
	go f.receive(f.recv[len(f.recv)-1])
}

func (f *Flow) hangUp() {
	_ = f.send.Close()
	for _, conn := range f.recv {
		_ = conn.Close()
	}
	f.receivers.Wait()
}

func (f *Flow) String() string { return f.name }

// Sent is how many packets have left so far. Safe from any goroutine.
func (f *Flow) Sent() int { return int(f.sent.Load()) }

// SentBefore is how many packets had left by then. Safe from any goroutine.
func (f *Flow) SentBefore(t time.Time) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, _ := slices.BinarySearchFunc(f.left, t, time.Time.Compare)
	return n
}

// Received is how many distinct packets have arrived so far. Safe from any goroutine.
func (f *Flow) Received() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.tally.received
}

// AwaitArrivals waits until more packets have arrived, counted from now: proof that the stream runs.
func (f *Flow) AwaitArrivals(more int, limit time.Duration) {
	f.lab.Helper()
	goal := f.Received() + more
	if !f.await(limit, func() bool { return f.Received() >= goal }) {
		f.lab.Fatalf("flow %s: %d of %d expected packets within %v (sent %d)", f, more-goal+f.Received(), more, limit, f.Sent())
	}
}

// AwaitAll is AwaitArrivals of many streams, at the same time.
func AwaitAll(list []*Flow, more int, limit time.Duration) {
	goals := make([]int, len(list))
	for i, f := range list {
		goals[i] = f.Received() + more
	}
	for i, f := range list {
		f.lab.Helper()
		f.AwaitArrivals(goals[i]-f.Received(), limit)
	}
}

// Arrives is AwaitArrivals that says whether they came. Safe from any goroutine.
func (f *Flow) Arrives(more int, limit time.Duration) bool {
	goal := f.Received() + more
	return f.await(limit, func() bool { return f.Received() >= goal })
}

// Halt ends the sending. Where many streams lose packets, those that are halted before the first is stopped wait for their stragglers at
// the same time.
func (f *Flow) Halt() {
	f.stop()
	f.sender.Wait()
	if f.halted.IsZero() {
		f.halted = time.Now()
	}
}

// Stop ends the stream, waits until the last packet has arrived or nothing has come for half a second, and tells
// what became of it.
func (f *Flow) Stop() Result {
	f.lab.Helper()
	f.Halt()
	if f.sendErr != nil {
		f.lab.Fatalf("flow %s: send: %v", f, f.sendErr)
	}
	const silence, unread = 500 * time.Millisecond, 50 * time.Millisecond // a packet may have come, and its reader not been woken
	for before := -1; f.Received() < f.Sent() && f.Received() != before; {
		before = f.Received()
		f.await(max(silence-time.Since(f.heard()), unread), func() bool { return f.Received() > before })
	}
	f.hangUp()
	return f.tally.Result(f.Sent())
}

// heard is when the last packet came, or could have come.
func (f *Flow) heard() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.tally.last.After(f.halted) {
		return f.tally.last
	}
	return f.halted
}

// Restored is when the stream, which has been stopped, came through again after its last loss: see Tally.
func (f *Flow) Restored() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.tally.Restored()
}

// await waits until check holds, looking whenever a packet arrives.
func (f *Flow) await(limit time.Duration, check func() bool) bool {
	deadline := time.After(limit)
	for !check() {
		select {
		case <-f.arrived:
		case <-deadline:
			return check()
		}
	}
	return true
}

// transmit keeps to a timetable: a late packet is followed at once by the next, up to a few; a sender that was away
// for longer moves its timetable rather than flooding queues that no steady stream would fill.
func (f *Flow) transmit(ctx context.Context, rate, size int) {
	defer f.sender.Done()
	const catchUp = 16
	packet := make([]byte, size)
	binary.BigEndian.PutUint32(packet, flowMagic)
	interval := time.Second / time.Duration(rate)
	next := time.Now()
	for seq := uint64(0); ctx.Err() == nil; seq++ {
		if wait := time.Until(next); wait > 0 {
			time.Sleep(wait)
		} else if -wait > catchUp*interval {
			next = time.Now()
		}
		next = next.Add(interval)
		binary.BigEndian.PutUint64(packet[4:], seq)
		f.mu.Lock()
		f.left = append(f.left, time.Now())
		f.mu.Unlock()
		// An ICMP error that an earlier packet met is reported on a later one: the later one has not left.
		_, err := f.send.Write(packet)
		for retry := 0; transient(err) && retry < 3; retry++ {
			_, err = f.send.Write(packet)
		}
		if err != nil && !transient(err) {
			f.sendErr = err
			return
		}
		f.sent.Add(1)
	}
}

func transient(err error) bool {
	return errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.EHOSTUNREACH) || errors.Is(err, unix.ENETUNREACH)
}

func (f *Flow) receive(conn *net.UDPConn) {
	defer f.receivers.Done()
	packet, control := make([]byte, 65536), make([]byte, 256)
	for {
		n, nc, _, _, err := conn.ReadMsgUDPAddrPort(packet, control)
		if err != nil {
			return
		}
		if n < flowHeader || binary.BigEndian.Uint32(packet) != flowMagic {
			continue
		}
		at, ttl := stamp(control[:nc])
		f.mu.Lock()
		f.tally.Add(int(binary.BigEndian.Uint64(packet[4:])), at, ttl)
		f.mu.Unlock()
		select {
		case f.arrived <- struct{}{}:
		default:
		}
	}
}

// listenStamped opens a UDP socket whose packets come with their arrival time and TTL, and with room for seconds of
// traffic.
func listenStamped(at netip.AddrPort) (*net.UDPConn, error) {
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		controlErr := raw.Control(func(fd uintptr) {
			err = stampSocket(int(fd), at.Addr().Is4())
		})
		return errors.Join(controlErr, err)
	}}
	conn, err := config.ListenPacket(context.Background(), "udp", at.String())
	if err != nil {
		return nil, err
	}
	return conn.(*net.UDPConn), nil
}

func stampSocket(fd int, ipv4 bool) error {
	level, option := unix.IPPROTO_IPV6, unix.IPV6_RECVHOPLIMIT
	if ipv4 {
		level, option = unix.IPPROTO_IP, unix.IP_RECVTTL
	}
	for _, set := range [][3]int{
		{unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 32 << 20},
		{unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1},
		{level, option, 1},
	} {
		if err := unix.SetsockoptInt(fd, set[0], set[1], set[2]); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
	}
	return nil
}

// stamp reads arrival time and TTL from a packet's control messages.
func stamp(control []byte) (at time.Time, ttl int) {
	at = time.Now()
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return at, 0
	}
	for _, m := range messages {
		switch {
		case m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SO_TIMESTAMPNS && len(m.Data) >= 16:
			at = time.Unix(int64(binary.NativeEndian.Uint64(m.Data)), int64(binary.NativeEndian.Uint64(m.Data[8:])))
		case m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_TTL && len(m.Data) >= 4,
			m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_HOPLIMIT && len(m.Data) >= 4:
			ttl = int(binary.NativeEndian.Uint32(m.Data))
		}
	}
	return at, ttl
}
