package bfd

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Port is the UDP port of multihop BFD (RFC 5883, section 5).
const Port = 4784

// Packets leave with the largest TTL from a port of this range (RFC 5881, sections 4 and 5, which RFC 5883 keeps), and,
// as what keeps a network together, with DSCP CS6.
const (
	sentTTL    = 255
	firstPort  = 49152
	portCount  = 65536 - firstPort
	controlTOS = 48 << 2
)

// listen opens the socket for packets to one of our locators. The address need not be there yet.
func listen(local netip.Addr) (*net.UDPConn, error) {
	level, option := unix.IPPROTO_IP, unix.IP_RECVTTL
	if local.Is6() {
		level, option = unix.IPPROTO_IPV6, unix.IPV6_RECVHOPLIMIT
	}
	return open(netip.AddrPortFrom(local, Port), [3]int{level, option, 1})
}

// sender opens the socket of one session, with a port of its own.
func sender(local netip.Addr) (conn *net.UDPConn, err error) {
	options := [][3]int{{unix.IPPROTO_IP, unix.IP_TTL, sentTTL}, {unix.IPPROTO_IP, unix.IP_TOS, controlTOS}}
	if local.Is6() {
		options = [][3]int{
			{unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, sentTTL}, {unix.IPPROTO_IPV6, unix.IPV6_TCLASS, controlTOS},
		}
	}
	for range 16 {
		port := uint16(firstPort + rand.IntN(portCount))
		if conn, err = open(netip.AddrPortFrom(local, port), options...); !errors.Is(err, unix.EADDRINUSE) {
			break
		}
	}
	return conn, err
}

func open(at netip.AddrPort, options ...[3]int) (*net.UDPConn, error) {
	free := [3]int{unix.IPPROTO_IP, unix.IP_FREEBIND, 1}
	if at.Addr().Is6() {
		free = [3]int{unix.IPPROTO_IPV6, unix.IPV6_FREEBIND, 1}
	}
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		controlErr := raw.Control(func(fd uintptr) {
			for _, o := range append(options, free) {
				err = errors.Join(err, os.NewSyscallError("setsockopt", unix.SetsockoptInt(int(fd), o[0], o[1], o[2])))
			}
		})
		return errors.Join(controlErr, err)
	}}
	conn, err := config.ListenPacket(context.Background(), "udp", at.String())
	if errors.Is(err, unix.EADDRINUSE) && at.Port() == Port {
		return nil, fmt.Errorf("BFD at %s: %w: does another BFD daemon run here? Stop it, or leave underlay.bfd out", at, err)
	}
	if err != nil {
		return nil, fmt.Errorf("BFD at %s: %w", at, err)
	}
	return conn.(*net.UDPConn), nil
}

// ttlOf reads the TTL that a packet arrived with, 0 where the kernel did not tell.
func ttlOf(control []byte) uint8 {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return 0
	}
	for _, m := range messages {
		v4 := m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_TTL
		v6 := m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_HOPLIMIT
		if (v4 || v6) && len(m.Data) >= 4 {
			return uint8(binary.NativeEndian.Uint32(m.Data))
		}
	}
	return 0
}
