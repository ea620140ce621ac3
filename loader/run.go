package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	sdaemon "github.com/coreos/go-systemd/v22/daemon"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"roam/loader/api"
	"roam/loader/bfd"
	"roam/loader/config"
	"roam/loader/datapath"
	"roam/loader/designate"
	"roam/loader/event"
	"roam/loader/feed"
	"roam/loader/hook"
	"roam/loader/host"
	"roam/loader/lan"
	"roam/loader/metrics"
	"roam/loader/mld"
	"roam/loader/probe"
	"roam/loader/radv"
	"roam/loader/rib"
	"roam/loader/route"
	apisource "roam/loader/source/api"
	"roam/loader/source/bgp"
	"roam/loader/source/fabric"
	"roam/loader/source/fib"
	"roam/loader/source/file"
	"roam/maps"
)

// How much a source's word weighs where pins and sequences are equal: what somebody typed comes before what is written
// down, that before what a routing daemon says, and the kernel's neighbour table last. Between neighbours and BGP there is no
// preference: at equal sequence the lowest locator wins, at every gateway alike. A host of a fabric whose word comes from an earlier life
// gives way to both.
const (
	preferAPI    = 400
	preferFile   = 300
	preferFIB    = 200
	preferHost   = 100
	preferBGP    = preferHost
	preferFabric = 50
)

// daemon is everything that lives as long as the process.
type daemon struct {
	path    string // of the configuration
	started time.Time
	log     *slog.Logger
	config  atomic.Pointer[config.Config]

	plane      *datapath.Plane
	gateway    *datapath.Gateway
	rib        *rib.RIB
	hosts      *host.Source
	fib        *fib.Source
	file       *file.Source
	bgp        *bgp.Source
	fabric     *fabric.Source
	bfd        *bfd.Speaker
	probe      *probe.Prober
	inject     *apisource.Source
	feed       *feed.Feed
	hook       *hook.Hook // nil: none is configured
	radv       *radv.Advertiser
	lan        *lan.Refresher
	mld        *mld.Listener
	designator *designate.Designator
	server     *api.Server
	metrics    *prometheus.Registry
	events     *event.Log
	timings    *metrics.Timings
	reports    map[string]*timedReporter // by source; complete before anything runs
	proofs     proofs
	firsts     chan firstPacket

	reloads chan reload
	look    chan struct{} // asks for a look at fates
	failed  failures
	judging sync.Mutex
	holes   map[netip.Addr]int // sizes that foundMTU has told of

	elected  chan struct{} // asks for a look at the elections
	electing sync.Mutex    // guards the two that follow
	duties   duties
	siblings map[string][]route.MAC // other gateways that are heard, by segment
	synced   atomic.Bool            // every source has reported
	drained  atomic.Bool            // somebody took this gateway out of service
}

// task is something long-lived. It returns nil when its context ends, and an error when the daemon cannot go on without it.
type task interface {
	Run(ctx context.Context) error
	String() string
}

// newDaemon constructs everything. From the call of Set on, packets meet the new program.
func newDaemon(path string, cfg *config.Config, log *slog.Logger) (_ *daemon, err error) {
	d := &daemon{path: path, started: time.Now(), log: log, reloads: make(chan reload), look: make(chan struct{}, 1), firsts: make(chan firstPacket, firstPackets), events: event.New(log), reports: map[string]*timedReporter{}, holes: map[netip.Addr]int{}}
	d.config.Store(cfg)
	constants := tune(cfg)
	constants.Frags = cfg.Datapath.Frags == config.FragsAuto && datapath.NeedFrags(ports(cfg), log)
	d.plane, err = datapath.Open(datapath.Options{
		Pin: cfg.Datapath.Pin, Hosts: cfg.Datapath.Hosts, Tune: constants, Log: log,
	})
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.close())
		}
	}()
	if d.plane.Adopted() {
		d.events.Add(upgraded(d.plane.Generation()))
	}
	if d.gateway, err = datapath.NewGateway(d.plane, log); err != nil {
		return nil, err
	}
	if err = d.gateway.Set(planeSpec(cfg)); err != nil {
		return nil, err
	}
	if int(cfg.Datapath.Hosts) > d.plane.Hosts().Cap() {
		if err = d.grow(cfg.Datapath.Hosts, "datapath.hosts says so"); err != nil {
			return nil, err
		}
	}
	d.rib = rib.New(rib.Options{Log: log, Hold: d.hold, Turning: d.turning, Turned: d.turned, Locator: cfg.Underlay.Locators[0].Public, Site: cfg.Site})
	d.rib.AddSink(d.gateway)
	d.makeSources(cfg)
	d.radv = radv.New(log)
	d.lan = lan.New(log)
	d.makeDesignator(cfg)
	d.mld = mld.New(log, func() { d.rib.Retell(d.mld) })
	d.mld.Set(listened(cfg))
	d.rib.AddSink(d.mld)
	d.rib.AddSink(d.hosts)
	d.rib.AddSink(d.fabric)
	d.rib.AddSink(d.bgp)
	d.feed = feed.New()
	d.rib.AddSink(d.feed)
	d.makeHook(cfg)
	d.bfd = bfd.New(bfd.Options{Config: bfdConfig(cfg), Log: log, Changed: func(map[netip.Addr]string) { d.judge() }})
	if err = d.makeProber(cfg); err != nil {
		return nil, err
	}
	d.server = api.NewServer(cfg.API.Socket, d.backend(), log)
	d.metrics = prometheus.NewRegistry()
	collector := metrics.New(d, version, kernelRelease(), log)
	d.timings = &collector.Timings
	d.metrics.MustRegister(collector,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return d, nil
}

func (d *daemon) makeSources(cfg *config.Config) {
	known := func(a netip.Addr) (route.Locator, string, bool) { return knownLocator(d.config.Load(), a) }
	d.bgp = bgp.New(bgp.Options{
		Config: bgpConfig(cfg), Log: d.log, Restarted: d.plane.Adopted(), Announced: d.announced,
		Departed: func(tenant route.TenantID, mac route.MAC, sequence uint32) { d.hosts.Departed(tenant, mac, sequence) },
	})
	d.hosts = host.New(host.Options{
		Segments: hostSegments(cfg, d.gateway.SegmentIndex), Site: cfg.Site, Locator: cfg.Underlay.Locators[0].Public, Log: d.log, MACs: d.setMAC, Sequence: d.bgp.Sequence,
		Addresses: d.bgp.Addresses, Holder: d.bgp.Holder, Moved: d.movedAway, Tell: d.tellHost, State: cfg.API.State + ".frozen", Names: names{d}, Passive: cfg.Datapath.Shadow,
	})
	d.fabric = fabric.New(fabric.Options{
		Segments: fabricSegments(cfg), Site: cfg.Site, Log: d.log, Sequence: d.bgp.Sequence, Left: d.leftFabric,
		State: cfg.API.State + ".fabric", Names: names{d},
	})
	d.fib = fib.New(fib.Options{Tables: fibTables(cfg), Log: d.log, Known: known})
	d.inject = apisource.New(cfg.API.State, names{d}, held{d}, d.log)
	d.file = file.New(filePath(cfg), names{d}.TenantID, d.log)
}

// hold is how long a host of this key may be tunnelled on after it left.
func (d *daemon) hold(key route.Key) time.Duration {
	if s, ok := segmentOf(d.config.Load(), key.Tenant, key.Prefix.Addr()); ok {
		return s.Mobility.Hold
	}
	return rib.DefaultHold
}

// movedAway has the neighbours of a host that lives at another site now send to the gateway what is for it.
func (d *daemon) movedAway(segment int, addr netip.Addr) {
	for _, t := range d.config.Load().Tenants {
		for _, s := range t.Segments {
			if int(d.gateway.SegmentIndex(s.Name)) == segment {
				d.lan.Moved(deviceOf(s), s.Gateway.MAC, addr)
			}
		}
	}
}

func (d *daemon) setMAC(segment int, mac route.MAC, present bool) {
	if err := d.gateway.SetMAC(uint16(segment), mac, present); err != nil {
		d.log.Warn("note a station", "error", err)
	}
	for _, t := range d.config.Load().Tenants {
		for _, s := range t.Segments {
			switch link := accessRef(s); {
			case int(d.gateway.SegmentIndex(s.Name)) != segment:
			case present:
				d.lan.Back(device(link), mac)
			default:
				d.lan.Left(device(link), mac)
			}
		}
	}
}

// run works until ctx ends or a task fails.
func (d *daemon) run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, t := range d.tasks() {
		group.Go(func() error {
			if err := t.Run(ctx); err != nil && ctx.Err() == nil {
				return fmt.Errorf("%s: %w", t, err)
			}
			return nil
		})
	}
	return group.Wait()
}

func (d *daemon) tasks() []task {
	list := []task{
		d.rib, d.gateway, d.server, d.bfd, d.probe,
		d.sourceTask(d.inject, preferAPI),
		d.sourceTask(d.file, preferFile),
		d.sourceTask(d.fib, preferFIB),
		d.sourceTask(d.hosts, preferHost),
		d.sourceTask(d.bgp, preferBGP),
		d.sourceTask(d.fabric, preferFabric),
		do{"ports", d.watchPorts},
		do{"locators", d.followLocators},
		d.radv,
		d.lan,
		d.mld,
		d.designator,
		do{"elections", d.followElections},
		do{"sightings", d.passSightings},
		do{"first packets", d.followFirstPackets},
		do{"reload", d.handleReloads},
		do{"growth", d.growWhenFull},
		do{"fates", d.watchFates},
		do{"ready", d.announce},
	}
	if d.hook != nil {
		list = append(list, d.hook)
	}
	if listen := d.config.Load().Metrics.Listen; listen != "" {
		list = append(list, do{"metrics", func(ctx context.Context) error { return d.serveMetrics(ctx, listen) }})
	}
	return list
}

// do is a task made of a function.
type do struct {
	name string
	run  func(context.Context) error
}

func (t do) Run(ctx context.Context) error { return t.run(ctx) }
func (t do) String() string                { return t.name }

const sourceRetry = 2 * time.Second

// sourceTask runs a source and, when it fails, runs it again: what the others know must not go with it.
func (d *daemon) sourceTask(s route.Source, preference int) task {
	to := d.timed(s.Name(), d.rib.Reporter(s.Name(), preference))
	return do{"source " + s.Name(), func(ctx context.Context) error {
		for {
			err := s.Run(ctx, to)
			if ctx.Err() != nil {
				return nil
			}
			if once, ok := s.(interface{ Once() bool }); ok && once.Once() {
				return err
			}
			d.failed.set(s.Name(), err)
			d.kickFates()
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(sourceRetry):
			}
			d.failed.set(s.Name(), nil)
		}
	}}
}

func (d *daemon) watchPorts(ctx context.Context) error {
	err := d.plane.Watch(ctx, func(datapath.PortChange) error {
		d.rerank()
		d.designator.LinksChanged()
		d.gateway.LinksChanged()
		d.fabric.LinksChanged()
		d.kickFates()
		return nil
	})
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// passSightings tells the source of hosts what the data path sees of them.
func (d *daemon) passSightings(ctx context.Context) error {
	seen, err := d.gateway.Sightings(ctx)
	if err != nil {
		return err
	}
	for s := range seen {
		if s.Kind == maps.SightFirst {
			select {
			case d.firsts <- firstPacket{route.KeyOf(s.Tenant, s.Addr), s.When}:
			default: // it is told of again, a second later
			}
			continue
		}
		d.hosts.Saw(ctx, host.Sign{
			Kind: signKind(s.Kind), Tenant: s.Tenant, Link: s.Port.Name, VLAN: s.Port.VLAN, Inner: s.Port.Inner, MAC: s.MAC, Addr: s.Addr, When: s.When,
		})
	}
	return nil
}

func signKind(k maps.SightKind) host.SignKind {
	switch k {
	case maps.SightData:
		return host.SignData
	case maps.SightARPProbe, maps.SightNDDAD:
		return host.SignProbe
	case maps.SightRARP:
		return host.SignRARP
	}
	return host.SignClaim
}

// growWhenFull doubles the host table when it holds as many hosts as it was made for: there is a fifth of its slots
// left then, but they get dear.
func (d *daemon) growWhenFull(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		hosts := d.plane.Hosts()
		if max(hosts.Len4(), hosts.Len6()) < hosts.Cap() {
			continue
		}
		_ = d.grow(uint32(2*hosts.Cap()), "it is full") // told of; it may succeed the next time
	}
}

// announce tells systemd, and the log, that the daemon does its work: the sources have reported and the socket answers.
func (d *daemon) announce(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-d.rib.AllSynced():
	}
	d.synced.Store(true)
	d.rerank()
	hosts := d.plane.Hosts()
	d.events.Add(event.Event{
		Kind: event.Ready, Subject: d.config.Load().Site,
		What: fmt.Sprintf("roamd %s is ready at site %s: every source has reported", version, d.config.Load().Site),
		Why: fmt.Sprintf("%d IPv4 and %d IPv6 hosts in generation %d, %v after the start",
			hosts.Len4(), hosts.Len6(), d.plane.Generation(), time.Since(d.started).Round(time.Millisecond)),
	})
	_, err := sdaemon.SdNotify(false, sdaemon.SdNotifyReady)
	if err != nil {
		d.log.Warn("notify systemd", "error", err)
	}
	return nil
}

func (d *daemon) serveMetrics(ctx context.Context, listen string) error {
	l, err := net.Listen("tcp", listen)
	if err != nil {
		// Metrics are worth a warning, not the gateway's life.
		d.failed.set("metrics", fmt.Errorf("listen on %s: %w", listen, err))
		d.log.Error("no metrics", "listen", listen, "error", err)
		return nil
	}
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(d.metrics, promhttp.HandlerOpts{EnableOpenMetrics: true}))
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// close lets go of everything that forwards without us.
func (d *daemon) close() error {
	var err error
	if d.gateway != nil {
		err = d.gateway.Close()
	}
	return errors.Join(err, d.plane.Close())
}

// handleReloads applies the configuration anew on SIGHUP or on request.
func (d *daemon) handleReloads(ctx context.Context) error {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hup:
			d.tellReload(d.reload())
		case ask := <-d.reloads:
			r := d.reload()
			d.tellReload(r)
			ask.answer <- r
		}
	}
}

func detach(cfg *config.Config, log *slog.Logger) error {
	if err := datapath.Remove(cfg.Datapath.Pin, log); err != nil {
		return err
	}
	fmt.Printf("detached: nothing is pinned in %s any more\n", cfg.Datapath.Pin)
	return nil
}

func kernelRelease() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}
