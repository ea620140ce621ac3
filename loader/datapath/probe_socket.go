package datapath

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"roam/maps"
)

// Probes sends probes of tunnels, and gets what the data path makes of answers: frames of an EtherType that nobody else uses. One packet socket
// does both. Safe for concurrent use, but Receive by one goroutine only.
type Probes struct {
	gateway *Gateway
	file    *os.File
	buffer  []byte
}

// ErrNoWay says that there is no way to a locator at the moment: the text says why.
var ErrNoWay = errors.New("no way to the locator")

// OpenProbes opens the socket in the network namespace of the calling thread, which must be the gateway's.
func (g *Gateway) OpenProbes() (*Probes, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(wire16(maps.ProbeEtherType)))
	if err != nil {
		return nil, fmt.Errorf("open a packet socket for probes of tunnels: %w", err)
	}
	return &Probes{gateway: g, file: os.NewFile(uintptr(fd), "probes"), buffer: make([]byte, math.MaxUint16)}, nil
}

// Close ends Receive.
func (p *Probes) Close() error { return p.file.Close() }

// Send sends a probe to a locator whose inner packet has so many bytes, the least that a probe can be where that is more, and returns how
// many they are. An error that wraps ErrNoWay is the underlay's fault; unix.EMSGSIZE says that the interface does not take as much.
func (p *Probes) Send(to netip.Addr, size int, token uint64, sequence uint16) (int, error) {
	w := (*p.gateway.ways.Load())[to]
	if w == nil || !w.Known {
		return 0, fmt.Errorf("%w %s", ErrNoWay, to)
	}
	size = max(size, w.Least)
	frame := w.frame(size, token, sequence)
	if len(frame) > math.MaxUint16 {
		return size, unix.EMSGSIZE
	}
	raw, err := p.file.SyscallConn()
	if err != nil {
		return size, err
	}
	link := &unix.SockaddrLinklayer{Ifindex: w.link, Protocol: wire16(frameType(frame)), Halen: 6}
	copy(link.Addr[:], frame[:6])
	var failed error
	err = raw.Control(func(fd uintptr) { failed = unix.Sendto(int(fd), frame, 0, link) })
	return size, errors.Join(err, failed)
}

func frameType(frame []byte) uint16 { return uint16(frame[12])<<8 | uint16(frame[13]) }

// Receive waits for an answer. It returns os.ErrClosed after Close; after any other error it may be called again.
func (p *Probes) Receive() (from netip.Addr, answer ProbeAnswer, err error) {
	n, err := p.file.Read(p.buffer)
	if err != nil {
		return from, answer, err
	}
	from, err = answerFrom(p.buffer[:n])
	if err != nil {
		return from, answer, err
	}
	w := (*p.gateway.ways.Load())[from]
	if w == nil || !w.Known {
		return from, answer, errNoAnswer
	}
	answer, err = w.parse(p.buffer[:n])
	return from, answer, err
}
