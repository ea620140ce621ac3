package lab

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Stream is one TCP connection that carries pseudo-random bytes from one namespace to another. Both ends digest what
// they handle, so that a stream that merely goes on is told from one that arrives whole.
type Stream struct {
	name  string
	lab   *Lab
	conn  *net.TCPConn // the sender's end
	peer  net.Conn
	stop  context.CancelFunc
	wrote chan streamEnd
	read  chan streamEnd
	got   atomic.Int64
}

// streamEnd is what one end of a stream has to say when it is over.
type streamEnd struct {
	bytes int64
	sum   [sha256.Size]byte
	stall time.Duration
	err   error
}

// StreamResult is what became of a stream.
type StreamResult struct {
	Sent, Received int64         // bytes
	Whole          bool          // the receiver's digest is the sender's
	Stall          time.Duration // longest time between two arrivals
	Retransmits    int           // segments
	Err            error         // the connection broke
}

func (r StreamResult) String() string {
	s := fmt.Sprintf("%.1f MB sent, %.1f MB received, ", float64(r.Sent)/1e6, float64(r.Received)/1e6)
	if r.Whole {
		s += "content equal"
	} else {
		s += "CONTENT DIFFERS"
	}
	s += fmt.Sprintf(", longest stall %v, %d segments retransmitted", r.Stall.Round(100*time.Microsecond), r.Retransmits)
	if r.Err != nil {
		s += fmt.Sprintf(", broken: %v", r.Err)
	}
	return s
}

// Stream connects from one namespace to dst in another and starts sending rate bytes a second.
func (l *Lab) Stream(from, to *Namespace, dst netip.Addr, rate int) *Stream {
	l.Helper()
	s := &Stream{
		name: fmt.Sprintf("%s -> %s (TCP to %s)", from.Name, to.Name, dst), lab: l,
		wrote: make(chan streamEnd, 1), read: make(chan streamEnd, 1),
	}
	var listener net.Listener
	l.must(to.Do(func() (err error) {
		listener, err = net.Listen("tcp", netip.AddrPortFrom(dst, 0).String())
		return err
	}), "listen for %s", s.name)
	defer listener.Close()
	accepted := make(chan error, 1)
	go func() {
		var err error
		s.peer, err = listener.Accept()
		accepted <- err
	}()
	l.must(from.Do(func() error {
		conn, err := net.DialTimeout("tcp", listener.Addr().String(), 5*time.Second)
		if err == nil {
			s.conn = conn.(*net.TCPConn)
		}
		return err
	}), "connect %s", s.name)
	l.must(<-accepted, "accept %s", s.name)
	ctx, cancel := context.WithCancel(context.Background())
	s.stop = cancel
	l.Defer(func() {
		cancel()
		_ = s.conn.Close()
		_ = s.peer.Close()
	})
	go s.transmit(ctx, rate)
	go s.receive()
	return s
}

func (s *Stream) String() string { return s.name }

// Received is how many bytes have arrived so far. Safe from any goroutine.
func (s *Stream) Received() int64 { return s.got.Load() }

// Stop ends the stream: the sender closes its direction, the receiver reads to the end, which may take ten seconds.
func (s *Stream) Stop() StreamResult {
	s.lab.Helper()
	_ = s.peer.SetReadDeadline(time.Now().Add(10 * time.Second))
	_ = s.conn.SetWriteDeadline(time.Now().Add(10 * time.Second))
	s.stop()
	wrote := <-s.wrote
	read := <-s.read
	r := StreamResult{
		Sent: wrote.bytes, Received: read.bytes, Stall: read.stall, Retransmits: retransmits(s.conn),
		Err: errors.Join(wrote.err, read.err),
	}
	r.Whole = r.Err == nil && r.Sent > 0 && r.Sent == r.Received && wrote.sum == read.sum
	_ = s.conn.Close()
	_ = s.peer.Close()
	return r
}

func (s *Stream) transmit(ctx context.Context, rate int) {
	const chunk = 8192
	var (
		source   = rand.NewChaCha8([32]byte([]byte("roam: any fixed seed does here..")))
		digest   = sha256.New()
		buffer   = make([]byte, chunk)
		interval = time.Duration(float64(time.Second) * chunk / float64(rate))
		next     = time.Now()
		end      streamEnd
	)
	for ctx.Err() == nil && end.err == nil {
		_, _ = source.Read(buffer)
		digest.Write(buffer)
		var n int
		n, end.err = s.conn.Write(buffer)
		end.bytes += int64(n)
		next = next.Add(interval)
		if late := time.Since(next); late > 100*time.Millisecond {
			next = time.Now()
		}
		time.Sleep(time.Until(next))
	}
	if err := s.conn.CloseWrite(); end.err == nil {
		end.err = err
	}
	end.sum = finish(digest)
	s.wrote <- end
}

func (s *Stream) receive() {
	digest, buffer := sha256.New(), make([]byte, 65536)
	var end streamEnd
	last := time.Now()
	for {
		n, err := s.peer.Read(buffer)
		now := time.Now()
		end.stall, last = max(end.stall, now.Sub(last)), now
		digest.Write(buffer[:n])
		end.bytes += int64(n)
		s.got.Store(end.bytes)
		if err != nil {
			if !errors.Is(err, io.EOF) {
				end.err = err
			}
			break
		}
	}
	end.sum = finish(digest)
	s.read <- end
}

func finish(h hash.Hash) (sum [sha256.Size]byte) {
	h.Sum(sum[:0])
	return sum
}

func retransmits(conn *net.TCPConn) (segments int) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0
	}
	_ = raw.Control(func(fd uintptr) {
		if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			segments = int(info.Total_retrans)
		}
	})
	return segments
}
