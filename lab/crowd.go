package lab

import (
	"encoding/binary"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Crowd is any number of hosts behind one cable, each with an IPv4 address and a MAC of its own, that do nothing but announce themselves and
// answer ARP requests.
type Crowd struct {
	*Host
	First netip.Addr
	Size  int

	link     *net.Interface
	conn     *packet.Conn
	answered atomic.Int64
}

// Answered is how many questions they have answered. Safe from any goroutine.
func (c *Crowd) Answered() int { return int(c.answered.Load()) }

// Crowd plugs a crowd in at a site. Its addresses are those from first on.
func (s *Sites) Crowd(site int, first netip.Addr, size int) *Crowd {
	s.Helper()
	c := &Crowd{Host: &Host{Namespace: s.Namespace("crowd"), Site: site, Port: "crowd", MAC: "02:00:00:00:fe:01"}, First: first, Size: size}
	s.Cable(End{In: c.Namespace, Name: "eth0", MAC: c.MAC}, End{In: s.Switch, Name: c.Port, Bridge: s.access(site)}, hostMTU, 1)
	c.IP("link set eth0 promisc on")
	s.must(c.Do(func() (err error) {
		if c.link, err = net.InterfaceByName("eth0"); err != nil {
			return err
		}
		requests, err := bpf.Assemble([]bpf.Instruction{
			bpf.LoadAbsolute{Off: 21, Size: 1},
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: 1, SkipFalse: 1},
			bpf.RetConstant{Val: 64},
			bpf.RetConstant{Val: 0},
		})
		if err != nil {
			return err
		}
		c.conn, err = packet.Listen(c.link, packet.Raw, unix.ETH_P_ARP, &packet.Config{Filter: requests})
		if err != nil {
			return err
		}
		raw, err := c.conn.SyscallConn()
		if err != nil {
			return err
		}
		return raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20) })
	}), "make a crowd")
	s.Defer(func() { _ = c.conn.Close() })
	go c.answer()
	return c
}

// Addr is the address of one of them.
func (c *Crowd) Addr(n int) netip.Addr {
	b := c.First.As4()
	binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(b[:])+uint32(n))
	return netip.AddrFrom4(b)
}

// Announce has each of them announce itself once, at most 100 a millisecond: what is sent faster than that a switch port loses.
func (c *Crowd) Announce() {
	c.lab.Helper()
	everybody := net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	for n := range c.Size {
		if n%100 == 99 {
			time.Sleep(time.Millisecond)
		}
		c.lab.must(c.arp(1, n, everybody, c.Addr(n)), "announce %s", c.Addr(n))
	}
}

// answer answers who asks for one of them.
func (c *Crowd) answer() {
	b := make([]byte, 64)
	first := binary.BigEndian.Uint32(c.First.AsSlice())
	for {
		n, _, err := c.conn.ReadFrom(b)
		if err != nil {
			return
		}
		if n < 42 || [4]byte(b[28:32]) == [4]byte(b[38:42]) { // announcements are no questions
			continue
		}
		if i := binary.BigEndian.Uint32(b[38:]) - first; i < uint32(c.Size) {
			c.answered.Add(1)
			_ = c.arp(2, int(i), net.HardwareAddr(b[22:28]), netip.AddrFrom4([4]byte(b[28:32]))) // who asked will ask again
		}
	}
}

// arp sends a message of one of them (RFC 826).
func (c *Crowd) arp(op byte, n int, to net.HardwareAddr, target netip.Addr) error {
	mac := []byte{0x02, 0xcc, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}
	b := append(append(make([]byte, 0, 60), to...), mac...)
	b = append(b, 0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, op)
	b = append(append(b, mac...), c.Addr(n).AsSlice()...)
	b = append(append(b, to...), target.AsSlice()...)
	_, err := c.conn.WriteTo(b[:60], &packet.Addr{HardwareAddr: to})
	return err
}
