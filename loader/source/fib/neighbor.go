package fib

import (
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"roam/loader/route"
)

// neighbor names a station on an interface.
type neighbor struct {
	link int32
	addr netip.Addr
}

// routerMAC is what a routing daemon told the kernel of a neighbour, zero if nothing. The kernel is asked once and tells
// of changes; it is asked for no more than the few that next hops name, since there may be a million others.
func (s *Source) routerMAC(n neighbor) route.MAC {
	mac, asked := s.routers[n]
	if asked || s.kernel == nil {
		return mac
	}
	mac, err := s.kernel.neighbor(n)
	if err != nil {
		s.log.Warn("ask the kernel for a router's MAC", "router", n.addr, "err", err)
	}
	s.routers[n] = mac
	return mac
}

// neighborEvent doubts the routes when a router's MAC is another one: that is rare.
func (s *Source) neighborEvent(e event) {
	n, mac, err := decodeNeighbor(e.data)
	before, asked := s.routers[n]
	if err != nil || !asked {
		return
	}
	if e.kind == unix.RTM_DELNEIGH {
		mac = route.MAC{}
	}
	if mac != before {
		s.routers[n] = mac
		s.suspect()
	}
}

// neighbor asks for one neighbour, and has its changes reported from now on.
func (k *kernel) neighbor(n neighbor) (route.MAC, error) {
	if !k.neighbors {
		err := unix.SetsockoptInt(k.changes.GetFd(), unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, unix.RTNLGRP_NEIGH)
		if err != nil {
			return route.MAC{}, err
		}
		k.neighbors = true
	}
	body := make([]byte, unix.SizeofNdMsg)
	body[0] = unix.AF_INET
	if n.addr.Is6() {
		body[0] = unix.AF_INET6
	}
	nl.NativeEndian().PutUint32(body[4:], uint32(n.link))
	body = append(body, nl.NewRtAttr(unix.NDA_DST, n.addr.AsSlice()).Serialize()...)
	var mac route.MAC
	err := request(k.ask, unix.RTM_GETNEIGH, 0, unix.RTM_NEWNEIGH, body, func(b []byte) { _, mac, _ = decodeNeighbor(b) })
	if err == unix.ENOENT || err == unix.ENODEV {
		return route.MAC{}, nil
	}
	return mac, err
}
