package bgp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
	"github.com/osrg/gobgp/v4/pkg/server"
	"go.uber.org/goleak"

	"roam/loader/route"
	"roam/loader/source/bgp/bgptest"
)

// The library leaves a channel of some of its state machines open.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/eapache/channels.(*InfiniteChannel).infiniteBuffer"))
}

var (
	addr   = netip.MustParseAddr
	prefix = netip.MustParsePrefix
)

func mac(s string) route.MAC {
	m, err := route.ParseMAC(s)
	if err != nil {
		panic(err)
	}
	return m
}

func host(s string) route.Key { return route.KeyOf(1, addr(s)) }

const limit = 20 * time.Second // for what takes milliseconds on an idle machine

// freePort finds a port that nobody listens on, for all the addresses that a test uses.
func freePort(t *testing.T) uint16 {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return uint16(l.Addr().(*net.TCPAddr).Port)
}

// gateway n is a speaker on 127.0.0.n with locators 192.0.2.n and 2001:db8:ff::n at site dc<n>, AS 65000+n.
type gateway struct {
	*Source
	*twin
	t      *testing.T
	config Config
	told   sync.Map // what it says that it announced, and when
	end    context.CancelFunc
	ended  chan error
}

func configOf(n int, port uint16, neighbors ...Neighbor) Config {
	return Config{
		ASN: 65000 + uint32(n), RouterID: addr(fmt.Sprintf("192.0.2.%d", n)), Listen: []netip.Addr{loop(n)}, Port: port,
		Site:      fmt.Sprintf("dc%d", n),
		Sites:     []Site{{Name: "dc1"}, {Name: "dc2"}, {Name: "dc3"}},
		Locators:  []netip.Addr{addr(fmt.Sprintf("192.0.2.%d", n)), addr(fmt.Sprintf("2001:db8:ff::%d", n))},
		RouterMAC: mac(fmt.Sprintf("02:00:00:00:00:%02x", n)),
		Tenants: []Tenant{{
			ID: 1, VNI: 7001, Reserved: []netip.Addr{addr("10.1.0.1"), addr("2001:db8:1::1")},
			Segments: []Segment{{Subnets: []netip.Prefix{prefix("10.1.0.0/24"), prefix("2001:db8:1::/64")}}},
		}},
		Neighbors: neighbors,
	}
}

func loop(n int) netip.Addr { return addr(fmt.Sprintf("127.0.0.%d", n)) }

// to is gateway or peer n as a neighbour.
func to(n int, port uint16, families ...Family) Neighbor {
	if len(families) == 0 {
		families = []Family{EVPN}
	}
	return Neighbor{
		Address: loop(n), ASN: 65000 + uint32(n), Port: port, Multihop: 64, Hold: 30 * time.Second, Keepalive: 10 * time.Second,
		ConnectRetry: time.Second, GracefulRestart: 30 * time.Second, Families: families, Tenant: 1,
	}
}

func start(t *testing.T, c Config) *gateway {
	t.Helper()
	for i := range c.Neighbors {
		c.Neighbors[i].Local = c.Listen[0]
	}
	g := &gateway{t: t, config: c, twin: newTwin(), ended: make(chan error, 1)}
	g.Source = New(Options{
		Config: &c, Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Announced: func(key route.Key, at time.Time) { g.told.Store(key, at) },
	})
	g.run()
	t.Cleanup(g.stop)
	return g
}

func (g *gateway) run() {
	ctx, cancel := context.WithCancel(context.Background())
	g.end = cancel
	go func() { g.ended <- g.Source.Run(ctx, g.twin) }()
	if err := g.OthersSynced(ctx); err != nil {
		g.t.Fatal(err)
	}
}

func (g *gateway) stop() {
	if g.end == nil {
		return
	}
	g.end()
	g.end = nil
	if err := <-g.ended; err != nil {
		g.t.Errorf("speaker: %v", err)
	}
}

// lives says that a host lives here; the zero MAC and sequence 0 are left out.
func (g *gateway) lives(key route.Key, m route.MAC, sequence uint32) {
	g.t.Helper()
	g.decide(route.Decision{Claim: route.Claim{Key: key, Local: &route.Local{Link: 7}, MAC: m, Sequence: sequence}, Source: "host"})
}

func (g *gateway) leaves(key route.Key) {
	g.t.Helper()
	g.decide(route.Decision{Claim: route.Claim{Key: key}, Gone: true})
}

func (g *gateway) decide(d ...route.Decision) {
	g.t.Helper()
	if err := g.Apply(context.Background(), d); err != nil {
		g.t.Fatal(err)
	}
}

func (g *gateway) state(want string, neighbors ...int) {
	g.t.Helper()
	g.until(fmt.Sprintf("sessions with %v to be %s", neighbors, want), func() error {
		list, err := g.Sessions(context.Background())
		for _, n := range neighbors {
			i := slices.IndexFunc(list, func(s Session) bool { return s.Neighbor == loop(n) })
			if i < 0 || list[i].State != want {
				return fmt.Errorf("sessions %+v %w", list, err)
			}
		}
		return nil
	})
}

// until waits for something that nothing announces.
func (g *gateway) until(what string, check func() error) {
	g.t.Helper()
	for deadline := time.Now().Add(limit); ; time.Sleep(10 * time.Millisecond) {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			g.t.Fatalf("%s: %v", what, err)
		}
	}
}

// twin is a reporter that remembers.
type twin struct {
	mu      sync.Mutex
	claims  map[route.Key]route.Claim
	heard   map[route.Key]bool // since Begin
	synced  int
	changed chan struct{}
}

func newTwin() *twin {
	return &twin{claims: make(map[route.Key]route.Claim), heard: make(map[route.Key]bool), changed: make(chan struct{})}
}

func (w *twin) do(f func()) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
	close(w.changed)
	w.changed = make(chan struct{})
	return nil
}

func (w *twin) Begin(context.Context) error { return w.do(func() { clear(w.heard) }) }

func (w *twin) Report(_ context.Context, changes []route.Change) error {
	for _, c := range changes {
		if err := c.Key.Valid(); err != nil {
			return err
		}
		if !c.Withdraw && (c.Via == nil || c.Local != nil) {
			return errors.New("a claim that leads nowhere")
		}
	}
	return w.do(func() {
		for _, c := range changes {
			w.heard[c.Key] = !c.Withdraw
			if c.Withdraw {
				delete(w.claims, c.Key)
			} else {
				w.claims[c.Key] = c.Claim
			}
		}
	})
}

func (w *twin) Synced(context.Context) error {
	return w.do(func() {
		w.synced++
		maps.DeleteFunc(w.claims, func(k route.Key, _ route.Claim) bool { return !w.heard[k] })
	})
}

// words are the claims as short text: "10.1.0.7/32 via 192.0.2.1 dc1 02:00:00:00:0a:07 seq 3 pinned".
func (w *twin) words() []string {
	list := []string{}
	for _, c := range w.claims {
		text := c.Prefix.String() + " via"
		for _, l := range c.Via.Locators {
			text += " " + l.Address.String()
			if l.Encap != route.VXLAN {
				text += "," + l.Encap.String()
			}
		}
		if c.Site != "" {
			text += " " + c.Site
		}
		if !c.MAC.IsZero() {
			text += " " + c.MAC.String()
		}
		if c.Sequence != 0 {
			text += fmt.Sprintf(" seq %d", c.Sequence)
		}
		if c.Pinned {
			text += " pinned"
		}
		if c.Tenant != 1 {
			text += fmt.Sprintf(" tenant %d", c.Tenant)
		}
		list = append(list, text)
	}
	slices.Sort(list)
	return list
}

func (w *twin) await(t *testing.T, what string, check func() bool) {
	t.Helper()
	deadline := time.After(limit)
	for {
		w.mu.Lock()
		ok, changed, words := check(), w.changed, w.words()
		w.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("%s: not within %v; claims:\n%s", what, limit, strings.Join(words, "\n"))
		}
	}
}

// hears waits until exactly these claims are held.
func (g *gateway) hears(want ...string) {
	g.t.Helper()
	slices.Sort(want)
	g.await(g.t, "want\n"+strings.Join(want, "\n"), func() bool { return slices.Equal(g.words(), want) })
}

func (g *gateway) awaitSynced() {
	g.t.Helper()
	g.await(g.t, "the first full report", func() bool { return g.synced > 0 })
}

// reflector is a route reflector of another make: GoBGP with its own tables, on 127.0.0.n, for clients in its AS.
func reflector(t *testing.T, n int, port uint16, clients ...int) {
	t.Helper()
	ctx := context.Background()
	s := server.NewBgpServer(server.LoggerOption(slog.New(quiet{slog.NewTextHandler(t.Output(), nil), nil}), new(slog.LevelVar)))
	go s.Serve()
	t.Cleanup(func() {
		if err := s.StopBgp(ctx, &api.StopBgpRequest{}); err == nil {
			s.Stop()
		}
	})
	err := s.StartBgp(ctx, &api.StartBgpRequest{Global: &api.Global{
		Asn: 65000, RouterId: fmt.Sprintf("192.0.2.%d", n), ListenPort: int32(port), ListenAddresses: []string{loop(n).String()},
	}})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range clients {
		p := to(c, port, EVPN, IPv4, IPv6)
		peer := p.peer(65000, false)
		peer.Conf.PeerAsn, peer.EbgpMultihop = 65000, nil
		peer.Transport.LocalAddress, peer.Transport.PassiveMode = loop(n).String(), true
		peer.RouteReflector = &api.RouteReflector{RouteReflectorClient: true}
		if err := s.AddPeer(ctx, &api.AddPeerRequest{Peer: peer}); err != nil {
			t.Fatal(err)
		}
	}
}

// client is a configuration in the reflector's AS.
func client(n int, port uint16, rr ...int) Config {
	c := configOf(n, port)
	c.ASN = 65000
	for _, r := range rr {
		neighbor := to(r, port, EVPN, IPv4, IPv6)
		neighbor.ASN = 65000
		c.Neighbors = append(c.Neighbors, neighbor)
	}
	return c
}

// raw opens a session from 127.0.0.n to gateway 1, which waits for it.
func raw(t *testing.T, n int, port uint16, graceful bool) *bgptest.Peer {
	t.Helper()
	var p *bgptest.Peer
	var err error
	for deadline := time.Now().Add(limit); ; {
		p, err = bgptest.Dial(loop(n), netip.AddrPortFrom(loop(1), port), bgptest.Options{
			ASN: 65000 + uint32(n), RouterID: addr(fmt.Sprintf("192.0.2.%d", n)), Graceful: graceful,
			Families: []bgp.Family{bgp.RF_EVPN, bgp.RF_IPv4_UC, bgp.RF_IPv6_UC},
		})
		if err == nil || time.Now().After(deadline) {
			break
		}
		time.Sleep(200 * time.Millisecond) // the gateway is not listening yet, or rests after the last session
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func passive(n Neighbor) Neighbor {
	n.Passive = true
	return n
}

// macIP is an EVPN type 2 route of peer n.
func macIP(n int, m, ip string, labels ...uint32) bgp.NLRI {
	if len(labels) == 0 {
		labels = []uint32{7001}
	}
	rd, err := bgp.NewRouteDistinguisherIPAddressAS(addr(fmt.Sprintf("192.0.2.%d", n)), 1)
	if err != nil {
		panic(err)
	}
	var a netip.Addr
	if ip != "" {
		a = addr(ip)
	}
	r, err := bgp.NewEVPNMacIPAdvertisementRoute(rd, bgp.EthernetSegmentIdentifier{}, 0, m, a, labels)
	if err != nil {
		panic(err)
	}
	return r
}

// announce sends EVPN routes with the tenant's target, peer n's locator and what else is given.
func announce(t *testing.T, p *bgptest.Peer, n int, communities [][8]byte, nlri ...bgp.NLRI) {
	t.Helper()
	list := append([][8]byte{derivedTarget(65000+uint32(n), 7001)}, communities...)
	m, err := bgptest.Update(65000+uint32(n), addr(fmt.Sprintf("192.0.2.%d", n)), bgp.RF_EVPN, list, nlri...)
	if err != nil {
		t.Fatal(err)
	}
	send(t, p, m)
}

func withdraw(t *testing.T, p *bgptest.Peer, nlri ...bgp.NLRI) {
	t.Helper()
	m, err := bgptest.Withdraw(bgp.RF_EVPN, nlri...)
	if err != nil {
		t.Fatal(err)
	}
	send(t, p, m)
}

func send(t *testing.T, p *bgptest.Peer, m ...*bgp.BGPMessage) {
	t.Helper()
	if err := p.Send(m...); err != nil {
		t.Fatal(err)
	}
}

var errStillUp = errors.New("it is still up")

// announced lists what the library holds to be sent.
func (g *gateway) announced() (list []string) {
	g.t.Helper()
	g.Source.mu.Lock()
	sp := g.speaking
	g.Source.mu.Unlock()
	for _, f := range []bgp.Family{bgp.RF_EVPN, bgp.RF_IPv4_UC, bgp.RF_IPv6_UC} {
		err := sp.server.ListPath(apiutil.ListPathRequest{TableType: api.TableType_TABLE_TYPE_GLOBAL, Family: f},
			func(p bgp.NLRI, _ []*apiutil.Path) { list = append(list, p.String()) })
		if err != nil {
			g.t.Fatal(err)
		}
	}
	return list
}

func newRandom(t *testing.T) (*rand.Rand, uint64) {
	t.Helper()
	seed := rand.Uint64()
	return rand.New(rand.NewPCG(seed, 0)), seed
}
