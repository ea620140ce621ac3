// Package radv tells hosts who their IPv6 router is: it answers router solicitations and advertises from time to time
// (RFC 4861, section 6.2).
//
// What is advertised is the gateway that all sites share: its link-local address, its MAC, the segment's prefixes. The tricky part is
// what is not done: no farewell is sent when the daemon ends, because forwarding goes on without it; hosts keep their router for
// its lifetime, half an hour by default, and the next process is there long before that. Nor is a host that moved told anything: the router
// that it knows is the one of its new site, which goes on saying so. Neighbour solicitations for the router's address are the data
// path's, which answers them with R = 1.
package radv

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"reflect"
	"sync"
	"time"

	"github.com/mdlayher/packet"

	"roam/loader/ether"
	"roam/loader/keep"
	"roam/loader/route"
)

// Link is a segment whose hosts learn their router.
type Link struct {
	Interface string         // on which the kernel sees the segment's packets untagged
	Router    netip.Addr     // link-local, shared by all sites
	MAC       route.MAC      // of the router
	Prefixes  []netip.Prefix // IPv6
	Lifetime  time.Duration  // of the router, in whole seconds: 12 s to 9,000 s
}

// intervals are the least and the longest time between two advertisements to all: a host may miss two of them (RFC 4861, section 6.2.1).
func (l Link) intervals() (least, most time.Duration) {
	most = min(l.Lifetime/3, maxInterval)
	return max(most/3, minInterval), most
}

// RFC 4861, section 10, and the bounds of section 6.2.1.
const (
	maxInterval     = 1800 * time.Second
	minInterval     = 3 * time.Second
	initialInterval = 16 * time.Second
	initialCount    = 3
	minDelay        = 3 * time.Second // between advertisements to all
	reopenAfter     = 2 * time.Second
)

// Advertiser advertises on the links that it was last given. Safe for concurrent use.
type Advertiser struct {
	log *slog.Logger

	mu      sync.Mutex
	links   []Link
	changed chan struct{}
}

// New makes an Advertiser without links.
func New(log *slog.Logger) *Advertiser {
	return &Advertiser{log: log, changed: make(chan struct{}, 1)}
}

func (a *Advertiser) String() string { return "router advertisements" }

// Set replaces the links. Equal ones change nothing.
func (a *Advertiser) Set(links []Link) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if reflect.DeepEqual(a.links, links) {
		return
	}
	a.links = links
	select {
	case a.changed <- struct{}{}:
	default:
	}
}

// Run works until ctx ends.
func (a *Advertiser) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		a.mu.Lock()
		links := a.links
		a.mu.Unlock()
		session, stop := context.WithCancel(ctx)
		var group sync.WaitGroup
		for _, l := range links {
			group.Go(func() { a.keep(session, l) })
		}
		select {
		case <-ctx.Done():
		case <-a.changed:
		}
		stop()
		group.Wait()
	}
	return nil
}

// keep serves a link whenever its interface is there.
func (a *Advertiser) keep(ctx context.Context, l Link) {
	keep.Up(ctx, reopenAfter, nil, func(ctx context.Context) error { return serve(ctx, l) }, func(err error) {
		a.log.Warn("router advertisements", "interface", l.Interface, "error", err)
	})
}

// serve advertises on a link until ctx ends or the interface fails.
func serve(ctx context.Context, l Link) error {
	nic, err := net.InterfaceByName(l.Interface)
	if err != nil {
		return err
	}
	conn, err := packet.Listen(nic, packet.Raw, ether.TypeIPv6, &packet.Config{Filter: solicitations})
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	asked := make(chan solicitation)
	failed := make(chan error, 1)
	go func() { failed <- ether.Hear(ctx, conn, parseSolicitation, asked) }()
	all := time.NewTimer(0)
	var last time.Time
	for sent := 0; ; {
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return err
		case s := <-asked:
			if !s.from.IsUnspecified() {
				if err := send(conn, nic, l, s.mac, s.from); err != nil {
					return err
				}
				continue
			}
			all.Reset(max(0, time.Until(last.Add(minDelay)))) // who has no address yet hears what all hear
		case <-all.C:
			if err := send(conn, nic, l, allNodesMAC, allNodes); err != nil {
				return err
			}
			sent++
			last = time.Now()
			least, most := l.intervals()
			wait := least + rand.N(most-least)
			if sent <= initialCount {
				wait = min(wait, initialInterval)
			}
			all.Reset(wait)
		}
	}
}

func send(conn *packet.Conn, nic *net.Interface, l Link, mac route.MAC, to netip.Addr) error {
	mtu := nic.MTU
	if now, err := net.InterfaceByIndex(nic.Index); err == nil {
		mtu = now.MTU
	}
	_, err := conn.WriteTo(advertisement(l, mtu, mac, to), &packet.Addr{HardwareAddr: mac[:]})
	return err
}
