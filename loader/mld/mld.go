// Package mld listens, on access LANs, to the groups that neighbour solicitations for remote hosts go to.
//
// Who looks for 2001:db8:1::21 asks ff02::1:ff00:21, and a switch that snoops (RFC 4541) gives that to ports with a listener
// only. The data path answers for every IPv6 host that lives elsewhere, so this gateway must be a listener of all their groups. The
// kernel could join for us, one system call a group and bounded by optmem; here a listener speaks for itself over a packet socket:
// MLDv2 (RFC 3810), MLDv1 where the querier speaks that. It takes what the RIB decides as a sink, so a host that comes home leaves
// its group. Routers of multicast get everything from switches that know RFC 4286; so an advertisement of one is sent now and then,
// which also brings us what hosts ask of addresses that no table has yet.
//
// The tricky part is size. A link has at most MaxGroups groups; that hosts are left out is told once, and the RIB is asked for them
// when there is room. Whatever is to be said waits in queues that are bounded by the groups, and leaves at a pace that a switch's
// processor keeps up with.
//
// Nothing is said when the daemon ends: forwarding goes on without it, and switches remember for some four minutes.
package mld

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/mdlayher/packet"

	"roam/loader/ether"
	"roam/loader/keep"
	"roam/loader/route"
)

// Link is an access LAN, on which solicitations for some addresses are answered.
type Link struct {
	Interface string // on which the kernel sees the LAN's packets untagged
	Tenant    route.TenantID
	Subnets   []netip.Prefix // IPv6: hosts in them that live elsewhere are answered for
	Own       []netip.Addr   // IPv6: the gateway's, always answered for
}

// MaxGroups bounds the groups of a link. A query costs one report for 72 of them where the MTU is 1500: 228 reports, 340 kB,
// spread over the response delay, which is 10 s with most queriers. To an MLDv1 querier it is a message for each: 33 s at our pace,
// of the 260 s after which a switch forgets.
const MaxGroups = 16384

// RFC 3810, section 9, and RFC 4286, section 6.
const (
	robustness     = 2
	queryEvery     = 125 * time.Second
	repeatWithin   = time.Second // unsolicited report interval
	version1Lasts  = robustness*queryEvery + 10*time.Second
	advertiseEvery = 20 * time.Second
	advertiseFirst = 2 * time.Second // so many of the first advertisements are no further apart
	initialCount   = 3
	advertiseDelay = 2 * time.Second // of the answer to a solicitation, at most

	// Between reports. A switch's processor reads every one, and loses without a word what comes too fast; 500 a second are at
	// most 6 Mbit/s, enough for all groups in half a second (MLDv1: in half a minute), and leave it time for its other ports.
	pace        = 2 * time.Millisecond
	reopenAfter = 2 * time.Second
)

// Listener listens on the links that it was last given, to the groups of hosts that the RIB has elsewhere. Safe for concurrent
// use.
type Listener struct {
	log   *slog.Logger
	again func()
	limit int

	changed chan struct{} // ports
	missing chan struct{} // hosts: the RIB has to tell everything anew

	mu     sync.Mutex
	ports  map[string]*port // by interface
	tenant map[route.TenantID][]*port
}

// New makes a Listener without links. again has the RIB tell this sink everything once more; it is called from Run.
func New(log *slog.Logger, again func()) *Listener {
	return &Listener{
		log: log, again: again, limit: MaxGroups, ports: map[string]*port{},
		changed: make(chan struct{}, 1), missing: make(chan struct{}, 1),
	}
}

func (l *Listener) String() string { return "multicast listener" }

// Set replaces the links, whose interfaces are all different. Equal ones change nothing, and one whose subnets or addresses change
// keeps the groups that it still needs.
func (l *Listener) Set(links []Link) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ports, tenant, differ := map[string]*port{}, map[route.TenantID][]*port{}, len(links) != len(l.ports)
	for _, link := range links {
		p := l.ports[link.Interface]
		if p == nil || p.link.Tenant != link.Tenant {
			p = newPort(link.Interface, l.limit, l.missing)
		}
		if !reflect.DeepEqual(p.link, link) {
			differ = true
			p.become(link)
		}
		ports[link.Interface] = p
		tenant[link.Tenant] = append(tenant[link.Tenant], p)
	}
	l.ports, l.tenant = ports, tenant
	if differ {
		poke(l.changed)
		poke(l.missing)
	}
}

// poke wakes who waits for the channel, now or at the next time.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Name implements route.Sink.
func (l *Listener) Name() string { return "mld" }

// Apply implements route.Sink.
func (l *Listener) Apply(_ context.Context, decisions []route.Decision) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range decisions {
		d := &decisions[i]
		a := d.Prefix.Addr()
		if !a.Is6() || !d.Host() {
			continue
		}
		for _, p := range l.tenant[d.Tenant] {
			if p.settle(a, !d.Gone && !d.Reject && d.Via != nil) {
				l.log.Warn("more IPv6 hosts live elsewhere than switches are told of",
					"interface", p.name, "why", fullWhy(l.limit), "do", FullAdvice)
			}
		}
	}
	return nil
}

func fullWhy(limit int) string {
	return fmt.Sprintf("a link has at most %d solicited-node groups; a switch that snoops MLD keeps solicitations for other hosts "+
		"from this gateway", limit)
}

// FullAdvice is what to do about a link with too many groups.
const FullAdvice = "make the gateway's port a multicast router port of the switch, by hand where it does not know RFC 4286, " +
	"or switch MLD snooping off in this VLAN"

// Status is how a link fares.
type Status struct {
	Interface string
	Groups    int
	Full      string     // why hosts are left out, "" where none are
	Querier   netip.Addr // the last that asked for everything, not valid before
	Version   int        // of MLD: 1 or 2
}

// Links says how all links fare, by interface.
func (l *Listener) Links() []Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	var list []Status
	for _, p := range l.ports {
		list = append(list, p.status(time.Now()))
	}
	slices.SortFunc(list, func(a, b Status) int { return strings.Compare(a.Interface, b.Interface) })
	return list
}

// Run works until ctx ends.
func (l *Listener) Run(ctx context.Context) error {
	var served keep.Set[*port]
	defer served.Wait()
	for ctx.Err() == nil {
		ports := map[*port]bool{}
		l.mu.Lock()
		for _, p := range l.ports {
			ports[p] = true
		}
		l.mu.Unlock()
		served.Be(ctx, ports, l.keep)
		select {
		case <-ctx.Done():
		case <-l.changed:
		case <-l.missing:
			l.again()
		}
	}
	return nil
}

// keep serves a port whenever its interface is there.
func (l *Listener) keep(ctx context.Context, p *port) {
	keep.Up(ctx, reopenAfter, nil, func(ctx context.Context) error { return serve(ctx, p) }, func(err error) {
		l.log.Warn("switches that snoop are not told what the gateway listens to", "interface", p.name, "error", err)
	})
}

// serve speaks for a port until ctx ends or the interface fails.
func serve(ctx context.Context, p *port) error {
	nic, err := ether.Interface(p.name)
	if err != nil {
		return err
	}
	conn, err := packet.Listen(nic, packet.Raw, ether.TypeIPv6, &packet.Config{Filter: questions})
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	asked := make(chan question)
	failed := make(chan error, 1)
	go func() { failed <- ether.Hear(ctx, conn, parse, asked) }()
	p.begin()
	defer p.end()
	due := time.NewTimer(0)
	advertise := time.NewTimer(rand.N(advertiseFirst))
	var free time.Time // when the pace allows the next report
	for sent := 0; ; {
		next := free
		if now := time.Now(); !now.Before(free) {
			var f []byte
			if f, next = p.say(now, route.MAC(nic.HardwareAddr), room(nic.MTU)); f != nil {
				if err := send(conn, f); err != nil {
					return err
				}
				free = now.Add(pace)
				next = free
			}
		}
		if due.Stop(); !next.IsZero() {
			due.Reset(time.Until(next))
		}
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return err
		case <-due.C:
		case <-p.wake:
		case q := <-asked:
			if q.solicited {
				advertise.Reset(rand.N(advertiseDelay))
				continue
			}
			if !p.ask(time.Now(), q, room(nic.MTU)) {
				continue
			}
			if nic, err = ether.Interface(p.name); err != nil { // its MTU or MAC may be another by now
				return err
			}
		case <-advertise.C:
			if err := send(conn, advertisement(route.MAC(nic.HardwareAddr))); err != nil {
				return err
			}
			wait := advertiseEvery + rand.N(advertiseEvery/20) - advertiseEvery/40
			if sent++; sent < initialCount {
				wait = min(wait, advertiseFirst)
			}
			advertise.Reset(wait)
		}
	}
}

func send(conn *packet.Conn, frame []byte) error {
	_, err := conn.WriteTo(frame, &packet.Addr{HardwareAddr: frame[:6]})
	return err
}
