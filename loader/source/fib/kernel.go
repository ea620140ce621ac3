package fib

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// kernel is the netlink sockets: one that hears of changes, one for dumps, one for questions in the middle of a dump. They
// belong to the namespace of the thread that opened them.
type kernel struct {
	changes, dumps, ask *nl.NetlinkSocket

	neighbors bool // changes of neighbours are heard of, too
}

const (
	queue       = 4096 // events between the socket and the table
	dumpTimeout = 30   // seconds without an answer
	dumpTries   = 3    // of a dump that changes interrupt
)

func openKernel(buffer int) (*kernel, error) {
	changes, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE,
		unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_NEXTHOP)
	if err != nil {
		return nil, fmt.Errorf("subscribe to kernel routes: %w", err)
	}
	if changes.SetReceiveBufferSize(buffer, true) != nil {
		// Without CAP_NET_ADMIN the kernel's own limit serves; an overrun only costs a dump.
		_ = changes.SetReceiveBufferSize(buffer, false)
	}
	k := &kernel{changes: changes}
	for _, s := range []**nl.NetlinkSocket{&k.dumps, &k.ask} {
		if *s, err = nl.Subscribe(unix.NETLINK_ROUTE); err != nil {
			k.close()
			return nil, fmt.Errorf("open a netlink socket: %w", err)
		}
		_ = (*s).SetReceiveTimeout(&unix.Timeval{Sec: dumpTimeout})
		// With strict checking the kernel dumps one table only; older or unwilling ones dump all, and we choose.
		_ = unix.SetsockoptInt((*s).GetFd(), unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1)
	}
	return k, nil
}

func (k *kernel) close() {
	for _, s := range []*nl.NetlinkSocket{k.changes, k.dumps, k.ask} {
		if s != nil {
			s.Close()
		}
	}
}

// receive reads changes until stop is called, which closes the sockets and waits.
func (k *kernel) receive() (events <-chan event, stop func()) {
	out := make(chan event, queue)
	end, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		defer close(out)
		for {
			if !k.next(out, end) {
				return
			}
		}
	}()
	return out, func() {
		close(end)
		k.close()
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
		if !send(out, event{kind: m.Header.Type, flags: m.Header.Flags, data: m.Data}, end) {
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

// dump asks for everything of one kind and calls f with each answer. What changed meanwhile may interrupt it; after
// a few tries that is taken as it is, and reported.
func (k *kernel) dump(ask, answer uint16, body []byte, start func(), f func([]byte)) (interrupted bool, err error) {
	for range dumpTries {
		start()
		err = request(k.dumps, ask, unix.NLM_F_DUMP, answer, body, f)
		if !errors.Is(err, nl.ErrDumpInterrupted) {
			return false, err
		}
	}
	return true, nil
}

// request asks for something and calls f with each answer.
func request(over *nl.NetlinkSocket, ask uint16, flags int, answer uint16, body []byte, f func([]byte)) error {
	r := nl.NewNetlinkRequest(int(ask), flags)
	r.AddRawData(body)
	r.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: {Seq: uint32(time.Now().UnixNano()), Socket: over}}
	return r.ExecuteIter(unix.NETLINK_ROUTE, answer, func(b []byte) bool { f(b); return true })
}

// dump replaces the state with what the kernel says now.
func (s *Source) dump(k *kernel) error {
	s.mu.Lock()
	tables := s.tables
	clear(s.status.Ignored)
	s.status.Dumps++
	s.mu.Unlock()
	clear(s.stale)
	clear(s.shunned)
	clear(s.routers)

	again, err := s.dumpNexthops(k)
	if err != nil {
		return err
	}
	state := make(map[uint32]*table, len(tables))
	for _, t := range tables {
		n := &table{Table: t, paths: make(map[netip.Prefix]*path)}
		for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
			interrupted, err := s.dumpTable(k, n, family)
			if err != nil {
				return fmt.Errorf("table %d: %w", t.ID, err)
			}
			again = again || interrupted
		}
		state[t.ID] = n
	}
	s.state = state
	if again {
		s.suspect()
	}
	return nil
}

func (s *Source) dumpTable(k *kernel, t *table, family uint8) (interrupted bool, err error) {
	body := make([]byte, unix.SizeofRtMsg)
	body[0] = family
	body = append(body, nl.NewRtAttr(unix.RTA_TABLE, nl.Uint32Attr(t.ID)).Serialize()...)
	start := func() {
		maps.DeleteFunc(t.paths, func(p netip.Prefix, _ *path) bool { return p.Addr().Is4() == (family == unix.AF_INET) })
	}
	interrupted, err = k.dump(unix.RTM_GETROUTE, unix.RTM_NEWROUTE, body, start, func(b []byte) {
		if m, err := decodeRoute(b); err == nil && m.table == t.ID && m.family == family && m.flags&unix.RTM_F_CLONED == 0 {
			s.add(t, m)
		}
	})
	if errors.Is(err, unix.ENOENT) {
		return false, nil // the kernel makes a table with its first route
	}
	return interrupted, err
}

// add takes one route of a dump.
func (s *Source) add(t *table, m message) {
	to, reason, _ := s.target(t, m)
	if reason != "" {
		s.ignore(reason, place{t.ID, m.prefix}, m.object)
		return
	}
	t.append(m.prefix, path{target: to, metric: m.metric, object: m.object})
}

// dumpNexthops learns the nexthop objects. Routes normally come with what their object says; a kernel with
// nexthop_compat_mode off names the object only.
func (s *Source) dumpNexthops(k *kernel) (interrupted bool, err error) {
	start := func() { s.nexthops = make(map[uint32]nexthop) }
	return k.dump(unix.RTM_GETNEXTHOP, unix.RTM_NEWNEXTHOP, make([]byte, unix.SizeofNhmsg), start, func(b []byte) {
		if id, n, err := decodeNexthop(b); err == nil {
			s.nexthops[id] = n
		}
	})
}
