package datapath

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"roam/loader/route"
)

// underlay keeps the adjacencies current: it follows the kernel's routes, neighbours and links, and for each locator
// in use works out the next hop, its MAC, the egress port and the MTU. A locator without a resolved neighbour is asked
// for, through the kernel, until it answers; meanwhile its packets are dropped and counted.
//
// The kernel forgets what it does not use, and it does not see the data path's packets: a neighbour in use is
// confirmed every confirmEvery, so that a router that was replaced in silence is noticed.
type underlay struct {
	log   *slog.Logger
	dirty chan struct{}
	ports atomic.Pointer[map[int]underlayPort] // whose neighbours count; immutable

	mu     sync.Mutex
	states map[netip.Addr]LocatorState
}

// LocatorState is what the underlay knows about the way to a locator.
type LocatorState struct {
	Address   netip.Addr
	Up        bool
	Silent    bool   // the way is known, but the far end does not answer
	Why       string // why not up
	Interface string
	NextHop   netip.Addr
	MTU       int    // the largest inner IP packet
	Number    uint16 // of its counters
	Since     time.Time

	pathMTU int // of the underlay
}

const (
	askEvery     = time.Second
	confirmEvery = 30 * time.Second
)

func newUnderlay(log *slog.Logger) *underlay {
	return &underlay{log: log, dirty: make(chan struct{}, 1), states: map[netip.Addr]LocatorState{}}
}

// kick makes the tracker look again; it never blocks.
func (u *underlay) kick() {
	select {
	case u.dirty <- struct{}{}:
	default:
	}
}

// run follows the kernel until ctx ends, and calls refresh whenever something may have changed. It subscribes before the
// first look, so that nothing falls between.
func (u *underlay) run(ctx context.Context, refresh func(confirm bool) (waiting bool, err error)) error {
	done := make(chan struct{})
	defer close(done)
	lost := make(chan error, 4)
	if err := u.subscribe(done, lost); err != nil {
		return err
	}
	ask := time.NewTimer(0)
	defer ask.Stop()
	confirm := time.NewTicker(confirmEvery)
	defer confirm.Stop()
	for {
		sure := false
		select {
		case <-ctx.Done():
			return nil
		case err := <-lost: // events were dropped, perhaps: look at everything, and listen anew
			u.log.Debug("underlay events lost, reading all", "error", err)
			if err := u.subscribe(done, lost); err != nil {
				return err
			}
		case <-u.dirty:
		case <-ask.C:
		case <-confirm.C:
			sure = true
		}
		waiting, err := refresh(sure)
		if err != nil {
			u.log.Warn("underlay", "error", err)
		}
		if waiting {
			ask.Reset(askEvery)
		}
	}
}

// subscribe turns events of every kind into kicks. A subscription that breaks reports once on lost and ends.
func (u *underlay) subscribe(done chan struct{}, lost chan<- error) error {
	end := make(chan struct{})
	var once sync.Once
	broken := func(err error) {
		once.Do(func() { close(end); lost <- err })
	}
	go func() {
		select {
		case <-done:
			once.Do(func() { close(end) })
		case <-end:
		}
	}()
	routes := make(chan netlink.RouteUpdate, 64)
	neighbours := make(chan netlink.NeighUpdate, 64)
	links := make(chan netlink.LinkUpdate, 64)
	err := errors.Join(
		netlink.RouteSubscribeWithOptions(routes, end, netlink.RouteSubscribeOptions{ErrorCallback: broken}),
		netlink.NeighSubscribeWithOptions(neighbours, end, netlink.NeighSubscribeOptions{ErrorCallback: broken}),
		netlink.LinkSubscribeWithOptions(links, end, netlink.LinkSubscribeOptions{ErrorCallback: broken}),
	)
	if err != nil {
		once.Do(func() { close(end) })
		return fmt.Errorf("follow the underlay: %w", err)
	}
	go drain(routes, func(netlink.RouteUpdate) { u.kick() })
	go drain(neighbours, func(n netlink.NeighUpdate) {
		if ports := u.ports.Load(); ports == nil || (*ports)[n.LinkIndex].name != "" { // hosts come and go
			u.kick()
		}
	})
	go drain(links, func(netlink.LinkUpdate) { u.kick() })
	u.kick()
	return nil
}

func drain[T any](events <-chan T, act func(T)) {
	for e := range events {
		act(e)
	}
}

// underlayPort is an underlay interface as the tracker needs it.
type underlayPort struct {
	name string
	slot uint16
	mac  route.MAC
	mtu  int
}

// resolver knows, for one refresh, how each locator is reached.
type resolver struct {
	own        []netip.Addr
	ports      map[int]underlayPort // by interface index
	neighbours map[neighbourKey]netlink.Neigh
	ways       map[netip.Addr]way
}

// way is how a locator is reached, or why it is not.
type way struct {
	hop
	why error
}

type neighbourKey struct {
	link int
	addr netip.Addr
}

func newResolver(own []netip.Addr, ports map[int]underlayPort, locators []netip.Addr) (*resolver, error) {
	r := &resolver{own: own, ports: ports, neighbours: map[neighbourKey]netlink.Neigh{}, ways: map[netip.Addr]way{}}
	for link := range ports {
		for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
			list, err := netlink.NeighList(link, family)
			if err != nil {
				return nil, fmt.Errorf("list neighbours of %s: %w", ports[link].name, err)
			}
			for _, n := range list {
				if a, ok := netip.AddrFromSlice(n.IP); ok {
					r.neighbours[neighbourKey{link, a.Unmap()}] = n
				}
			}
		}
	}
	for _, a := range locators {
		if _, twice := r.ways[a]; !twice {
			h, err := r.resolve(a)
			r.ways[a] = way{h, err}
		}
	}
	return r, nil
}

// hop is the underlay's next hop towards a locator.
type hop struct {
	path
	link    int
	nextHop netip.Addr
	state   int // of the neighbour
	whole   int // the MTU, whatever is known of the rest of the way
}

// usable are the neighbour states whose MAC may be sent to.
const usable = netlink.NUD_REACHABLE | netlink.NUD_STALE | netlink.NUD_DELAY | netlink.NUD_PROBE |
	netlink.NUD_PERMANENT | netlink.NUD_NOARP

var (
	errUnresolved = errors.New("its next hop does not answer")
	errUnasked    = errors.New("it has come into use this moment")
)

// fixed are the states of neighbours that somebody has set by hand. To ask for one makes the kernel (5.16 and later) forget that: it would
// be lost where the far end answers no ARP.
const fixed = netlink.NUD_PERMANENT | netlink.NUD_NOARP

// resolve finds the way to a locator. With errUnresolved the hop names whom to ask; other errors are for the operator.
func (r *resolver) resolve(remote netip.Addr) (hop, error) {
	routes, err := netlink.RouteGet(remote.AsSlice())
	if err != nil || len(routes) == 0 {
		return hop{}, errors.New("the underlay has no route to it")
	}
	rt := routes[0]
	port, ok := r.ports[rt.LinkIndex]
	if !ok {
		return hop{}, fmt.Errorf("its route leaves by interface %s, which is not under underlay.interfaces", linkName(rt.LinkIndex))
	}
	local, ok := r.source(remote, rt.Src)
	if !ok {
		return hop{}, errors.New("we have no locator of its address family")
	}
	h := hop{link: rt.LinkIndex, nextHop: gatewayOf(rt, remote)}
	h.path = path{Source: port.mac, Local: local, Remote: remote, MTU: port.mtu, Port: port.slot}
	if rt.MTU > 0 {
		h.MTU = min(h.MTU, rt.MTU)
	}
	n, ok := r.neighbours[neighbourKey{h.link, h.nextHop}]
	h.state = n.State
	if !ok || n.State&usable == 0 || len(n.HardwareAddr) != 6 {
		return h, errUnresolved
	}
	copy(h.Destination[:], n.HardwareAddr)
	return h, nil
}

// source is our tunnel end for a locator: the one the kernel prefers where it is ours, else the first of the family.
func (r *resolver) source(remote netip.Addr, preferred net.IP) (netip.Addr, bool) {
	var first netip.Addr
	want, _ := netip.AddrFromSlice(preferred)
	for _, a := range r.own {
		if a.Is4() != remote.Is4() {
			continue
		}
		if a == want.Unmap() {
			return a, true
		}
		if !first.IsValid() {
			first = a
		}
	}
	return first, first.IsValid()
}

func gatewayOf(rt netlink.Route, remote netip.Addr) netip.Addr {
	if a, ok := netip.AddrFromSlice(rt.Gw); ok {
		return a.Unmap()
	}
	if via, ok := rt.Via.(*netlink.Via); ok {
		if a, ok := netip.AddrFromSlice(via.Addr); ok {
			return a.Unmap()
		}
	}
	return remote
}

func linkName(index int) string {
	if link, err := netlink.LinkByIndex(index); err == nil {
		return link.Attrs().Name
	}
	return fmt.Sprint(index)
}

// ask makes the kernel resolve or confirm a neighbour, as if it had a packet for it.
func ask(link int, addr netip.Addr) error {
	family := netlink.FAMILY_V4
	if addr.Is6() {
		family = netlink.FAMILY_V6
	}
	err := netlink.NeighSet(&netlink.Neigh{
		LinkIndex: link, Family: family, State: netlink.NUD_NONE, Flags: netlink.NTF_USE, IP: addr.AsSlice(),
	})
	if err != nil {
		return fmt.Errorf("ask the kernel for neighbour %s: %w", addr, err)
	}
	return nil
}

// note remembers a locator's state and says so when it changed.
func (u *underlay) note(s LocatorState) {
	u.mu.Lock()
	defer u.mu.Unlock()
	old, had := u.states[s.Address]
	s.Since = old.Since
	if !had || old.Up != s.Up || old.Why != s.Why {
		s.Since = time.Now()
		if !had && s.Why == errUnresolved.Error() {
			// Just asked for the first time: an answer is to be expected at once.
		} else if s.Up {
			u.log.Info("locator reachable", "locator", s.Address, "interface", s.Interface, "next_hop", s.NextHop, "mtu", s.MTU)
		} else {
			u.log.Warn("locator not reachable", "locator", s.Address, "why", s.Why)
		}
	}
	u.states[s.Address] = s
}

// keep forgets the locators that are not in the list.
func (u *underlay) keep(seen map[netip.Addr]bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for a := range u.states {
		if !seen[a] {
			delete(u.states, a)
		}
	}
}

func (u *underlay) state(locator netip.Addr) (LocatorState, bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	s, ok := u.states[locator]
	return s, ok
}

func (u *underlay) list() []LocatorState {
	u.mu.Lock()
	defer u.mu.Unlock()
	out := make([]LocatorState, 0, len(u.states))
	for _, s := range u.states {
		out = append(out, s)
	}
	return out
}
