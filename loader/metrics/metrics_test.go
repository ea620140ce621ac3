package metrics

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
)

type fake struct {
	s   Snapshot
	err error
}

func (f fake) Snapshot(context.Context) (Snapshot, error) { return f.s, f.err }

var full = Snapshot{
	Packets:  []Packets{{"lan0", "fwd_encap", 3, 300}, {"lan0", "drop_ttl", 1, 60}},
	Refused:  map[string]uint64{"wan0": 4},
	Locators: []Locator{{"192.0.2.2", 3, 300, true}},
	Routes:   []Routes{{"default", "api", 7}},
	Hosts:    []Hosts{{"default", "elsewhere", 7}},
	Moves:    []Moves{{"default", 2}},
	Tables:   []Table{{"hosts", 7, 1 << 20}},
	Sources:  []Source{{"api", true, 9}},
	Ports:    []Port{{"lan0", "native", "veth"}},
	Sinks:    []Sink{{"datapath", 0}},
	Events:   []Events{{"move", 2}},

	Sightings: []Sightings{{"data", 3}, {"lost", 1}},
	Claims:    []Claims{{"frozen", 2}},
	Frozen:    1,
	Groups:    map[string]int{"lan0": 5},
	Segments:  []Segment{{Name: "web", Designated: true, Others: 1}},

	Probes:   []Probes{{"192.0.2.2", 100, 2, true}},
	HookRuns: []HookRuns{{"ok", 3}},

	Sessions: []Session{{"bgp", "192.0.2.9", "", true, 1}, {"bfd", "192.0.2.2", "192.0.2.1", false, 3}},

	Generation: 3,
}

func collector(f fake) *Collector {
	return New(f, "v1", "6.18", slog.New(slog.NewTextHandler(io.Discard, nil)))
}

func TestMetricsValues(t *testing.T) {
	err := testutil.CollectAndCompare(collector(fake{s: full}), strings.NewReader(`
# HELP roam_locator_up Whether the underlay knows the way to a locator and, where it is watched, it answers (1) or not (0).
# TYPE roam_locator_up gauge
roam_locator_up{locator="192.0.2.2"} 1
# HELP roam_packets_total Packets by ingress port and reason; the prefix of a reason is its verdict.
# TYPE roam_packets_total counter
roam_packets_total{port="lan0",reason="drop_ttl"} 1
roam_packets_total{port="lan0",reason="fwd_encap"} 3
# HELP roam_table_capacity Entries a data-path table holds before it grows or is full.
# TYPE roam_table_capacity gauge
roam_table_capacity{table="hosts"} 1.048576e+06
`), "roam_locator_up", "roam_packets_total", "roam_table_capacity")
	if err != nil {
		t.Error(err)
	}
}

// A daemon that cannot be read says so instead of showing zeros.
func TestMetricsFailure(t *testing.T) {
	c := collector(fake{err: errors.New("busy")})
	if n := testutil.CollectAndCount(c, "roam_packets_total"); n != 0 {
		t.Errorf("%d packet series from a daemon that could not be read", n)
	}
	err := testutil.CollectAndCompare(c, strings.NewReader(`
# HELP roam_scrape_success Whether the data path and the RIB could be read (1) or not (0).
# TYPE roam_scrape_success gauge
roam_scrape_success 0
`), "roam_scrape_success")
	if err != nil {
		t.Error(err)
	}
}

// contract is what users' dashboards and alerts are built on: names and labels are added to, never taken away.
var contract = map[string][]string{
	"roam_packets_total":                      {"port", "reason"},
	"roam_bytes_total":                        {"port", "reason"},
	"roam_refused_packets_total":              {"port"},
	"roam_locator_packets_total":              {"locator"},
	"roam_locator_bytes_total":                {"locator"},
	"roam_locator_up":                         {"locator"},
	"roam_routes":                             {"source", "tenant"},
	"roam_hosts":                              {"state", "tenant"},
	"roam_table_entries":                      {"table"},
	"roam_table_capacity":                     {"table"},
	"roam_host_moves_total":                   {"tenant"},
	"roam_host_move_detection_seconds":        nil,
	"roam_host_move_outage_seconds":           nil,
	"roam_host_move_announcement_seconds":     nil,
	"roam_host_move_first_packet_seconds":     nil,
	"roam_host_move_estimated_outage_seconds": nil,
	"roam_route_to_forwarding_seconds":        {"source"},
	"roam_source_up":                          {"source"},
	"roam_source_changes_total":               {"source"},
	"roam_sink_behind":                        {"sink"},
	"roam_events_total":                       {"kind"},
	"roam_sightings_total":                    {"kind"},
	"roam_host_claims_total":                  {"outcome"},
	"roam_hosts_frozen":                       nil,
	"roam_multicast_groups":                   {"port"},
	"roam_segment_designated":                 {"segment"},
	"roam_segment_other_gateways":             {"segment"},
	"roam_probe_round_trip_seconds":           nil,
	"roam_probes_sent_total":                  {"locator"},
	"roam_probes_lost_total":                  {"locator"},
	"roam_locator_mtu_hole":                   {"locator"},
	"roam_hook_runs_total":                    {"outcome"},
	"roam_session_up":                         {"local", "neighbor", "protocol"},
	"roam_session_flaps_total":                {"local", "neighbor", "protocol"},
	"roam_port_info":                          {"driver", "mode", "port"},
	"roam_datapath_generation":                nil,
	"roam_shadow":                             nil,
	"roam_build_info":                         {"goversion", "kernel", "version"},
	"roam_scrape_success":                     nil,
}

func gather(t *testing.T) []*dto.MetricFamily {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	c := collector(fake{s: full})
	c.MoveDetected(30 * time.Millisecond)
	c.MoveAnnounced(31 * time.Millisecond)
	c.MoveReached(40 * time.Millisecond)
	c.MoveSilent(90 * time.Millisecond)
	c.MoveOutage(0)
	c.RoundTrip(300 * time.Microsecond)
	c.Forwarding("api", 200*time.Microsecond)
	reg.MustRegister(c)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	return families
}

func TestMetricsContract(t *testing.T) {
	missing := maps.Clone(contract)
	for _, f := range gather(t) {
		want, ok := contract[f.GetName()]
		if !ok {
			t.Errorf("%s is new: add it to the contract", f.GetName())
		}
		delete(missing, f.GetName())
		var labels []string
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, l.GetName())
		}
		if !slices.Equal(labels, want) {
			t.Errorf("%s has labels %v, promised are %v", f.GetName(), labels, want)
		}
		if h := f.GetMetric()[0].GetHistogram(); h != nil && (len(h.GetBucket()) == 0 || h.GetZeroCount()+uint64(len(h.GetPositiveSpan())) == 0) {
			t.Errorf("%s is not both a classic and a native histogram", f.GetName())
		}
	}
	for name := range missing {
		t.Errorf("%s is promised and not there", name)
	}
}

// Prometheus' own linter must have nothing to say.
func TestMetricsLint(t *testing.T) {
	var text bytes.Buffer
	for _, f := range gather(t) {
		if _, err := expfmt.MetricFamilyToText(&text, f); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("promtool", "check", "metrics")
	cmd.Stdin = &text
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}
