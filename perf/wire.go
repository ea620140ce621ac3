package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"roam/lab"
)

// wire sends packets to hosts, and sees in which tunnels they come out: what the data path does, whatever its control plane
// says.
type wire struct {
	from    int // UDP socket of who asks, -1 before ask
	capture int // raw socket at the other end
	done    chan struct{}

	mu   sync.Mutex
	seen map[netip.Addr]sighting // by inner destination
}

// sighting is the last tunnel that a packet to a host came out of.
type sighting struct {
	locator netip.Addr
	first   time.Time // since then, without another between
}

// openWire captures what arrives at a namespace's wan0.
func openWire(at *lab.Namespace) (*wire, error) {
	w := &wire{from: -1, capture: -1, done: make(chan struct{}), seen: make(map[netip.Addr]sighting)}
	err := at.Do(func() error {
		link, err := net.InterfaceByName("wan0")
		if err != nil {
			return err
		}
		ip := int(binary.NativeEndian.Uint16([]byte{unix.ETH_P_IP >> 8, unix.ETH_P_IP & 0xff}))
		if w.capture, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, ip); err != nil {
			return err
		}
		_ = unix.SetsockoptInt(w.capture, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20)
		_ = unix.SetsockoptTimeval(w.capture, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100_000})
		return unix.Bind(w.capture, &unix.SockaddrLinklayer{Protocol: uint16(ip), Ifindex: link.Index})
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("capture: %w", err), closeSocket(w.capture))
	}
	go w.read()
	return w, nil
}

func (w *wire) close() {
	_ = closeSocket(w.capture)
	_ = closeSocket(w.from)
	<-w.done
}

func closeSocket(fd int) error {
	if fd < 0 {
		return nil
	}
	return unix.Close(fd)
}

// ask has a host send what follows, and forgets what was seen of another's packets.
func (w *wire) ask(from *lab.Host) error {
	_ = closeSocket(w.from)
	w.mu.Lock()
	clear(w.seen)
	w.mu.Unlock()
	return from.Do(func() (err error) {
		w.from, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		return err
	})
}

// read takes the tunnel packets that arrive: Ethernet, IPv4, UDP, VXLAN, Ethernet, IPv4.
func (w *wire) read() {
	defer close(w.done)
	const outer, tunnel, inner = 14, 14 + 20, 14 + 20 + 8 + 8 + 14
	b := make([]byte, 2048)
	for {
		n, _, err := unix.Recvfrom(w.capture, b, 0)
		switch {
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return
		case n < inner+20 || b[outer] != 0x45 || b[outer+9] != unix.IPPROTO_UDP || b[inner] != 0x45,
			binary.BigEndian.Uint16(b[tunnel+2:]) != 4789:
			continue
		}
		locator, host := netip.AddrFrom4([4]byte(b[outer+16:])), netip.AddrFrom4([4]byte(b[inner+16:]))
		w.mu.Lock()
		if w.seen[host].locator != locator {
			w.seen[host] = sighting{locator, time.Now()}
		}
		w.mu.Unlock()
	}
}

// timed does something and returns how many seconds later packets to all of the hosts come out of tunnels to a locator.
func (w *wire) timed(hosts []netip.Addr, locator netip.Addr, do func() error) (float64, error) {
	start := time.Now()
	doing := make(chan error, 1)
	go func() { doing <- do() }()
	last := start
	for left := hosts; len(left) > 0; {
		if time.Since(start) > bgpLimit {
			return 0, fmt.Errorf("%d of %d hosts, among them %s, are not behind %s within %v", len(left), len(hosts), left[0], locator, bgpLimit)
		}
		if err := w.send(left[:min(128, len(left))]); err != nil { // a cable's end queues 256 packets
			return 0, err
		}
		time.Sleep(100 * time.Microsecond)
		w.mu.Lock()
		for len(left) > 0 && w.seen[left[0]].locator == locator {
			if at := w.seen[left[0]].first; at.After(last) {
				last = at
			}
			left = left[1:]
		}
		w.mu.Unlock()
		if time.Since(start) > time.Second { // nobody needs a rate of 600,000 to wait for
			time.Sleep(5 * time.Millisecond)
		}
	}
	return last.Sub(start).Seconds(), <-doing
}

// send sends a packet to each host.
func (w *wire) send(hosts []netip.Addr) error {
	for _, h := range hosts {
		err := unix.Sendto(w.from, []byte("roam"), 0, &unix.SockaddrInet4{Port: 9, Addr: h.As4()})
		if err != nil && !errors.Is(err, unix.EHOSTUNREACH) && !errors.Is(err, unix.ENETUNREACH) && !errors.Is(err, unix.ECONNREFUSED) {
			return fmt.Errorf("send to %s: %w", h, err)
		}
	}
	return nil
}
