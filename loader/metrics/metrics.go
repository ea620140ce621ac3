// Package metrics shows the daemon and its data path to Prometheus. What is a state or a count is read at scrape time
// from one Snapshot, and nothing of it is kept between scrapes; only durations are observed as they happen (Timings). Labels are bounded by what is configured: ports, reasons, locators,
// tenants, sources; never a host's address.
package metrics

import (
	"context"
	"log/slog"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Snapshot is everything that is shown, at one moment.
type Snapshot struct {
	Packets  []Packets
	Refused  map[string]uint64 // packets that a port's driver refused after they were counted, by interface
	Locators []Locator
	Routes   []Routes
	Hosts    []Hosts
	Moves    []Moves
	Tables   []Table
	Sources  []Source
	Ports    []Port
	Sinks    []Sink
	Events   []Events

	Sightings []Sightings
	Claims    []Claims
	Frozen    int            // hosts that moved too often
	Groups    map[string]int // multicast groups that are listened to on a port, by interface
	Probes    []Probes
	HookRuns  []HookRuns // of the program that hears of hosts, if there is one
	Sessions  []Session
	Segments  []Segment

	Shadow     bool // nothing of what is counted happened
	Generation int  // of the data path's programs and tables: upgrades and growth make new ones; 0: not known
}

// Packets is what one port did with packets for one reason. Bytes are of frames as they arrived.
type Packets struct {
	Port, Reason   string
	Packets, Bytes uint64
}

// Locator is what was sent to a tunnel end, and whether it can be reached.
type Locator struct {
	Address        string
	Packets, Bytes uint64
	Up             bool
}

// Routes counts what a source says of a tenant.
type Routes struct {
	Tenant, Source string
	Count          uint64
}

// Hosts counts the hosts of a tenant by where they live: "here", "elsewhere", "held".
type Hosts struct {
	Tenant, State string
	Count         uint64
}

// Moves counts hosts that changed their home since the daemon started.
type Moves struct {
	Tenant string
	Count  uint64
}

// Table is how full a table of the data path is.
type Table struct {
	Name              string
	Entries, Capacity uint64
}

// Source is how an origin of routes fares.
type Source struct {
	Name    string
	Up      bool
	Changes uint64
}

// Port is how the program is attached: mode is "native", "generic" or "none".
type Port struct{ Name, Mode, Driver string }

// Sink is a reader of the RIB's decisions, and how many hosts and prefixes it has not taken yet.
type Sink struct {
	Name   string
	Behind int
}

// Events counts what happened of a kind (see loader/event) since the daemon started.
type Events struct {
	Kind  string
	Count uint64
}

// Sightings counts the signs of hosts that the data path saw, by kind; "lost" are those that nobody read in time.
type Sightings struct {
	Kind  string
	Count uint64
}

// Claims counts those to hosts of our segments that were not simply taken, by what became of them.
type Claims struct {
	Outcome string
	Count   uint64
}

// Probes counts what was sent through the tunnel to a locator to see whether it answers, and how much of that was not answered. Hole says
// that some size gets lost that interface and route take.
type Probes struct {
	Locator    string
	Sent, Lost uint64
	Hole       bool
}

// HookRuns counts the runs of hooks.host_change by how they ended.
type HookRuns struct {
	Outcome string
	Count   uint64
}

// Session is a neighbour of BGP, or a locator that BFD watches, and how it fares.
type Session struct {
	Protocol, Neighbor, Local string // Local is empty where there is but one end of ours
	Up                        bool
	Flaps                     int // times it went down
}

// Segment says whether this gateway answers on a segment, and how many others are heard there.
type Segment struct {
	Name       string
	Designated bool
	Others     int
}

// Reader takes snapshots. Safe for concurrent use.
type Reader interface {
	Snapshot(ctx context.Context) (Snapshot, error)
}

// Timeout bounds how long a scrape may wait for the daemon.
const Timeout = 5 * time.Second

// Collector is a prometheus.Collector over a Reader.
type Collector struct {
	reader Reader
	log    *slog.Logger
	build  prometheus.Metric
	Timings
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("roam_"+name, help, labels, nil)
}

var (
	packets        = desc("packets_total", "Packets by ingress port and reason; the prefix of a reason is its verdict.", "port", "reason")
	byteCount      = desc("bytes_total", "Bytes of frames as they arrived, by ingress port and reason.", "port", "reason")
	refused        = desc("refused_packets_total", "Packets that the driver of an egress port refused after they were counted as forwarded.", "port")
	locatorPackets = desc("locator_packets_total", "Packets sent into the tunnel to a locator.", "locator")
	locatorBytes   = desc("locator_bytes_total", "Bytes of frames, as they arrived, sent into the tunnel to a locator.", "locator")
	locatorUp      = desc("locator_up", "Whether the underlay knows the way to a locator and, where it is watched, it answers (1) or not (0).", "locator")
	routes         = desc("routes", "Routes a source claims, by tenant.", "tenant", "source")
	hosts          = desc("hosts", "Hosts by tenant and where they live: here, elsewhere, or held after a move.", "tenant", "state")
	moves          = desc("host_moves_total", "Hosts that changed their home.", "tenant")
	entries        = desc("table_entries", "Entries of a data-path table.", "table")
	capacity       = desc("table_capacity", "Entries a data-path table holds before it grows or is full.", "table")
	sourceUp       = desc("source_up", "Whether a source of routes is reporting (1) or not (0).", "source")
	sourceChanges  = desc("source_changes_total", "Changes a source of routes has reported.", "source")
	portInfo       = desc("port_info", "How the program is attached to a port; always 1.", "port", "mode", "driver")
	sinkBehind     = desc("sink_behind", "Hosts and prefixes whose decision a reader of the RIB has not taken yet.", "sink")
	events         = desc("events_total", "What happened, by kind, as roamctl events tells it.", "kind")
	sightings      = desc("sightings_total", "Signs of hosts that the data path saw, by kind; lost are those that nobody read in time.", "kind")
	hostClaims     = desc("host_claims_total", "Claims to addresses of our segments that were not simply taken, by what became of them.", "outcome")
	frozen         = desc("hosts_frozen", "Hosts that moved too often and stay where they were.")
	groups         = desc("multicast_groups", "Multicast groups that the gateway listens to on an access port: those of IPv6 hosts elsewhere.", "port")
	probesSent     = desc("probes_sent_total", "Small probes sent through the tunnel to a locator.", "locator")
	probesLost     = desc("probes_lost_total", "Small probes sent through the tunnel to a locator that were not answered in time.", "locator")
	mtuHole        = desc("locator_mtu_hole", "Whether some size gets lost on the way to a locator that interface and route take (1) or not (0).", "locator")
	hookRuns       = desc("hook_runs_total", "Runs of the program that hears of hosts that come and go, by how they ended.", "outcome")
	sessionUp      = desc("session_up", "Whether the session with a neighbour of BGP, or of BFD, is up (1) or not (0).", "protocol", "neighbor", "local")
	sessionFlaps   = desc("session_flaps_total", "Times that a session went down.", "protocol", "neighbor", "local")
	designated     = desc("segment_designated", "Whether this gateway is the one that answers on a segment (1) or not (0).", "segment")
	otherGateways  = desc("segment_other_gateways", "Other gateways that are heard on a segment.", "segment")
	generation     = desc("datapath_generation", "Number of the data path's current programs and tables; an upgrade or growth of a table makes new ones.")
	shadow         = desc("shadow", "Whether the gateway is in shadow mode (1), where all that it counts is what it would have done, or not (0).")
	buildInfo      = desc("build_info", "The daemon's version, and the Go and kernel versions it runs on; always 1.", "version", "goversion", "kernel")
	scrapeErrors   = desc("scrape_success", "Whether the data path and the RIB could be read (1) or not (0).")
)

// New returns a collector; version and kernel become labels of roam_build_info.
func New(reader Reader, version, kernel string, log *slog.Logger) *Collector {
	return &Collector{reader: reader, log: log, Timings: newTimings(), build: prometheus.MustNewConstMetric(
		buildInfo, prometheus.GaugeValue, 1, version, runtime.Version(), kernel,
	)}
}

// Describe implements prometheus.Collector.
func (c *Collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		packets, byteCount, refused, locatorPackets, locatorBytes, locatorUp, routes, hosts, moves, entries, capacity,
		sourceUp, sourceChanges, portInfo, sinkBehind, events, sightings, hostClaims, frozen, groups, probesSent, probesLost, mtuHole, sessionUp,
		sessionFlaps, designated, otherGateways, hookRuns, generation, shadow, buildInfo, scrapeErrors,
	} {
		ch <- d
	}
	for _, t := range c.collectors() {
		t.Describe(ch)
	}
}

// Collect implements prometheus.Collector.
func (c *Collector) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), Timeout)
	defer cancel()
	ch <- c.build
	for _, t := range c.collectors() {
		t.Collect(ch)
	}
	s, err := c.reader.Snapshot(ctx)
	ch <- prometheus.MustNewConstMetric(scrapeErrors, prometheus.GaugeValue, flag(err == nil))
	if err != nil {
		c.log.Warn("metrics are incomplete", "error", err)
	}
	send := func(d *prometheus.Desc, kind prometheus.ValueType, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, kind, v, labels...)
	}
	counter, gauge := prometheus.CounterValue, prometheus.GaugeValue
	for _, p := range s.Packets {
		send(packets, counter, float64(p.Packets), p.Port, p.Reason)
		send(byteCount, counter, float64(p.Bytes), p.Port, p.Reason)
	}
	for port, n := range s.Refused {
		send(refused, counter, float64(n), port)
	}
	for _, l := range s.Locators {
		send(locatorPackets, counter, float64(l.Packets), l.Address)
		send(locatorBytes, counter, float64(l.Bytes), l.Address)
		send(locatorUp, gauge, flag(l.Up), l.Address)
	}
	for _, r := range s.Routes {
		send(routes, gauge, float64(r.Count), r.Tenant, r.Source)
	}
	for _, h := range s.Hosts {
		send(hosts, gauge, float64(h.Count), h.Tenant, h.State)
	}
	for _, m := range s.Moves {
		send(moves, counter, float64(m.Count), m.Tenant)
	}
	for _, t := range s.Tables {
		send(entries, gauge, float64(t.Entries), t.Name)
		send(capacity, gauge, float64(t.Capacity), t.Name)
	}
	for _, src := range s.Sources {
		send(sourceUp, gauge, flag(src.Up), src.Name)
		send(sourceChanges, counter, float64(src.Changes), src.Name)
	}
	for _, p := range s.Ports {
		send(portInfo, gauge, 1, p.Name, p.Mode, p.Driver)
	}
	for _, k := range s.Sinks {
		send(sinkBehind, gauge, float64(k.Behind), k.Name)
	}
	for _, e := range s.Events {
		send(events, counter, float64(e.Count), e.Kind)
	}
	for _, g := range s.Sightings {
		send(sightings, counter, float64(g.Count), g.Kind)
	}
	for _, k := range s.Claims {
		send(hostClaims, counter, float64(k.Count), k.Outcome)
	}
	send(frozen, gauge, float64(s.Frozen))
	for port, n := range s.Groups {
		send(groups, gauge, float64(n), port)
	}
	for _, p := range s.Probes {
		send(probesSent, counter, float64(p.Sent), p.Locator)
		send(probesLost, counter, float64(p.Lost), p.Locator)
		send(mtuHole, gauge, flag(p.Hole), p.Locator)
	}
	for _, h := range s.HookRuns {
		send(hookRuns, counter, float64(h.Count), h.Outcome)
	}
	for _, n := range s.Sessions {
		send(sessionUp, gauge, flag(n.Up), n.Protocol, n.Neighbor, n.Local)
		send(sessionFlaps, counter, float64(n.Flaps), n.Protocol, n.Neighbor, n.Local)
	}
	for _, seg := range s.Segments {
		send(designated, gauge, flag(seg.Designated), seg.Name)
		send(otherGateways, gauge, float64(seg.Others), seg.Name)
	}
	send(shadow, gauge, flag(s.Shadow))
	if s.Generation != 0 {
		send(generation, gauge, float64(s.Generation))
	}
}

func flag(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
