package metrics

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os/exec"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/expfmt"
)

type fake struct {
	s   Snapshot
	err error
}

func (f fake) Snapshot(context.Context) (Snapshot, error) { return f.s, f.err }

var full = Snapshot{
	Packets:  []Packets{{"lan0", "fwd_encap", 3, 300}, {"lan0", "drop_ttl", 1, 60}},
	Locators: []Locator{{"192.0.2.2", 3, 300, true}},
	Routes:   []Routes{{"default", "api", 7}},
	Hosts:    []Hosts{{"default", "elsewhere", 7}},
	Moves:    []Moves{{"default", 2}},
	Tables:   []Table{{"hosts", 7, 1 << 20}},
	Sources:  []Source{{"api", true, 9}},
	Ports:    []Port{{"lan0", "native", "veth"}},
}

func collector(f fake) *Collector {
	return New(f, "v1", "6.18", slog.New(slog.NewTextHandler(io.Discard, nil)))
}

func TestMetricsValues(t *testing.T) {
	err := testutil.CollectAndCompare(collector(fake{s: full}), strings.NewReader(`
# HELP roam_locator_up Whether the underlay knows the way to a locator (1) or not (0).
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

// Prometheus' own linter must have nothing to say.
func TestMetricsLint(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(collector(fake{s: full}))
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	for _, f := range families {
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
