package host

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"roam/loader/route"
)

// kernel is a netlink socket that hears of changes and a handle that asks and acts. Both belong to the namespace of
// the thread that opened them.
type kernel struct {
	changes *nl.NetlinkSocket
	handle  *netlink.Handle
}

// event is one netlink message, or the news that some were lost.
type event struct {
	kind uint16 // RTM_NEWNEIGH …
	data []byte
	lost bool
}

const queue = 4096 // events between the socket and the table

func openKernel(buffer int) (*kernel, error) {
	changes, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_NEIGH, unix.RTNLGRP_LINK)
	if err != nil {
		return nil, fmt.Errorf("subscribe to neighbours: %w", err)
	}
	if changes.SetReceiveBufferSize(buffer, true) != nil {
		// Without CAP_NET_ADMIN the kernel's own limit serves; an overrun only costs a dump.
		_ = changes.SetReceiveBufferSize(buffer, false)
	}
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		changes.Close()
		return nil, fmt.Errorf("open a netlink socket: %w", err)
	}
	return &kernel{changes: changes, handle: handle}, nil
}

// receive reads changes until stop is called, which closes the sockets and waits.
func (k *kernel) receive() (events <-chan event, stop func()) {
	out := make(chan event, queue)
	end, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		defer close(out)
		for k.next(out, end) {
		}
	}()
	return out, func() {
		close(end)
		k.changes.Close()
		k.handle.Close()
		<-done
	}
}

// next reads once from the socket; false means that it is closed.
func (k *kernel) next(out chan<- event, end <-chan struct{}) bool {
	messages, from, err := k.changes.Receive()
	switch {
	case errors.Is(err, unix.ENOBUFS):
		return send(out, event{lost: true}, end)
	case errors.Is(err, unix.EINTR):
		return true
	case err != nil:
		return false
	case from.Pid != nl.PidKernel:
		return true
	}
	for _, m := range messages {
		if !send(out, event{kind: m.Header.Type, data: m.Data}, end) {
			return false
		}
	}
	return true
}

func send(out chan<- event, e event, end <-chan struct{}) bool {
	select {
	case out <- e:
		return true
	case <-end:
		return false
	}
}

// apply brings an event into the table; the neighbours whose meaning may have changed are added to changed.
func (s *Source) apply(e event, changed map[entry]struct{}) {
	switch {
	case e.lost:
		s.mu.Lock()
		s.status.Overruns++
		s.mu.Unlock()
		s.log.Warn("neighbour changes were lost: dumping the table")
		s.suspect()
	case e.kind == unix.RTM_NEWLINK || e.kind == unix.RTM_DELLINK:
		s.suspect()
	case e.kind == unix.RTM_NEWNEIGH || e.kind == unix.RTM_DELNEIGH:
		if len(e.data) < unix.SizeofNdMsg {
			return
		}
		if n, err := netlink.NeighDeserialize(e.data); err == nil {
			s.see(*n, e.kind == unix.RTM_NEWNEIGH, changed)
		}
	}
}

// see takes what the kernel says about one neighbour.
func (s *Source) see(n netlink.Neigh, exists bool, changed map[entry]struct{}) {
	p := s.ports[n.LinkIndex]
	addr, ok := netip.AddrFromSlice(n.IP)
	if p == nil || !ok || n.Flags&netlink.NTF_PROXY != 0 || n.Family != unix.AF_INET && n.Family != unix.AF_INET6 {
		return
	}
	e := entry{n.LinkIndex, addr}
	before, was := s.neighbours[e]
	after, is := present(n)
	_, lost := s.lost[e]
	switch {
	case !exists && is && was, lost && n.State&netlink.NUD_INCOMPLETE != 0:
		if !lost {
			s.lost[e] = lostTicks
		}
		return // whoever removes an entry on purpose marks it as failed first
	case is && exists:
		if (!was || before.mac != after.mac) && !s.admit(e, after) {
			return
		}
		s.neighbours[e] = after
		if _, moved := s.young[e]; moved && (!was || before.mac != after.mac) { // and so has its station
			s.arrived(Sign{Tenant: p.Tenant, Link: p.Link, VLAN: p.VLAN, Inner: p.Inner, MAC: after.mac})
		}
		if _, stays := s.leaving[e]; stays {
			delete(s.leaving, e)
			s.resume(e)
		}
		if n.State&netlink.NUD_REACHABLE != 0 {
			s.alive(e)
		}
		delete(s.hints, e)
		delete(s.searches, e)
	default:
		is = false
		delete(s.neighbours, e)
		if _, shown := s.hints[e]; shown && was {
			s.probe(e) // it showed itself while it was let go
		}
	}
	delete(s.lost, e)
	if was == is && before.mac == after.mac {
		return
	}
	changed[e] = struct{}{}
	if slices.Contains(p.Routers, addr) {
		for other := range s.neighbours { // who shares the router's MAC is no host
			if other.link == e.link {
				changed[other] = struct{}{}
			}
		}
	}
}

const usable = netlink.NUD_REACHABLE | netlink.NUD_STALE | netlink.NUD_DELAY | netlink.NUD_PROBE |
	netlink.NUD_PERMANENT | netlink.NUD_NOARP

// present returns the neighbour if its state means that it is there.
func present(n netlink.Neigh) (neighbour, bool) {
	if n.State&usable == 0 || len(n.HardwareAddr) != len(route.MAC{}) {
		return neighbour{}, false
	}
	return neighbour{mac: route.MAC(n.HardwareAddr), permanent: n.State&netlink.NUD_PERMANENT != 0}, true
}

// dump replaces ports and neighbours with what the kernel says now. When that fails it is tried again later, and
// what was known stays.
func (s *Source) dump(k *kernel) bool {
	s.doubt = time.Time{}
	err := s.findPorts(k)
	if err == nil {
		err = s.dumpNeighbours(k)
	}
	if err != nil {
		s.doubt = time.Now().Add(retry)
		s.log.Error("dump neighbours: trying again", "err", err, "in", retry)
	}
	return err == nil
}

func (s *Source) dumpNeighbours(k *kernel) error {
	all := make(map[entry]neighbour)
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		list, err := k.handle.NeighList(0, family)
		if errors.Is(err, netlink.ErrDumpInterrupted) {
			s.suspect()
		} else if err != nil {
			return err
		}
		for _, n := range list {
			addr, ok := netip.AddrFromSlice(n.IP)
			if found, is := present(n); ok && is && s.ports[n.LinkIndex] != nil {
				e := entry{n.LinkIndex, addr}
				if before, was := s.neighbours[e]; (!was || before.mac != found.mac) && !s.admit(e, found) {
					if was {
						all[e] = before
					}
					continue
				}
				all[e] = found
				if !s.dumped && n.State&netlink.NUD_STALE != 0 {
					s.doubtful = append(s.doubtful, e)
				}
			}
		}
	}
	s.neighbours, s.dumped = all, true
	clear(s.lost)
	return nil
}

// findPorts finds the interfaces behind the segments; those that are missing are waited for.
func (s *Source) findPorts(k *kernel) error {
	links, err := k.handle.LinkList()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Dumps++
	s.status.Missing = nil
	s.ports = make(map[int]*port)
	for _, seg := range s.segments {
		p := &port{Segment: seg}
		if index, ok := p.find(links); ok {
			s.ports[index] = p
		} else {
			s.status.Missing = append(s.status.Missing, p.name())
		}
	}
	return nil
}

// find returns the index of the interface that holds the segment's neighbours: the port itself, or the VLAN device
// on it that carries the segment's tag.
func (p *port) find(links []netlink.Link) (index int, ok bool) {
	for _, l := range links {
		if l.Attrs().Name == p.Link {
			p.local = route.Local{Link: l.Attrs().Index, VLAN: p.VLAN, Inner: p.Inner}
			p.down = l.Attrs().RawFlags&unix.IFF_RUNNING == 0
		}
	}
	if p.local.Link == 0 || p.VLAN == 0 {
		return p.local.Link, p.local.Link != 0
	}
	index, ok = vlanOn(links, p.local.Link, p.VLAN)
	if ok && p.Inner != 0 {
		return vlanOn(links, index, p.Inner)
	}
	return index, ok
}

func vlanOn(links []netlink.Link, parent int, id uint16) (index int, ok bool) {
	for _, l := range links {
		if v, is := l.(*netlink.Vlan); is && v.ParentIndex == parent && v.VlanId == int(id) {
			return v.Index, true
		}
	}
	return 0, false
}

// resolve makes the kernel find a neighbour, as if it had a packet for it.
func (k *kernel) resolve(e entry) error {
	return k.handle.NeighSet(&netlink.Neigh{
		LinkIndex: e.link, Family: family(e.addr), Flags: netlink.NTF_USE, IP: net.IP(e.addr.AsSlice()),
	})
}

// forget deletes a neighbour; one that is gone already is no error.
func (k *kernel) forget(e entry) error {
	err := k.handle.NeighDel(&netlink.Neigh{LinkIndex: e.link, Family: family(e.addr), IP: net.IP(e.addr.AsSlice())})
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENXIO) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// set enters a neighbour in place of the one that is there. The kernel asks it at once whether it is.
func (k *kernel) set(e entry, mac route.MAC) error {
	return k.handle.NeighSet(&netlink.Neigh{
		LinkIndex: e.link, Family: family(e.addr), State: netlink.NUD_PROBE, IP: net.IP(e.addr.AsSlice()), HardwareAddr: mac[:],
	})
}

func family(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}
