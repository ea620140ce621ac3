package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Timings are the durations that are observed as they happen; everything else is read at scrape time. Each is a
// classic and a native histogram at once. Safe for concurrent use.
type Timings struct {
	detection, announcement, reach, silence, outage, roundTrip prometheus.Histogram
	forwarding                                                 *prometheus.HistogramVec
}

func newTimings() Timings {
	options := func(name, help string, buckets []float64) prometheus.HistogramOpts {
		return prometheus.HistogramOpts{
			Name: "roam_" + name, Help: help, Buckets: buckets,
			// Native buckets 10 % apart; a hundred of them span what is observed here.
			NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 100,
			NativeHistogramMinResetDuration: time.Hour,
		}
	}
	fast := prometheus.ExponentialBuckets(0.0001, 4, 8) // 0.1 ms to 1.6 s
	slow := []float64{0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60}
	return Timings{
		detection: prometheus.NewHistogram(options("host_move_detection_seconds",
			"From a host's first sign at this gateway, as the data path saw it, to the decision that it moved here.", slow)),
		announcement: prometheus.NewHistogram(options("host_move_announcement_seconds",
			"From a host's first sign at this gateway to its claim being given to the sessions of BGP.", slow)),
		reach: prometheus.NewHistogram(options("host_move_first_packet_seconds",
			"From a host's first sign at this gateway to the first packet that left for it here.", slow)),
		silence: prometheus.NewHistogram(options("host_move_estimated_outage_seconds",
			"From when a host that moved away was last heard here to the first packet that left for its new home.", slow)),
		outage: prometheus.NewHistogram(options("host_move_outage_seconds",
			"Time in which this gateway knew no way to a host that moved; 0 where one home replaced another in one step.", slow)),
		roundTrip: prometheus.NewHistogram(options("probe_round_trip_seconds",
			"From a small probe of a tunnel to the far data path's answer.", prometheus.ExponentialBuckets(0.00005, 2, 15))), // to 0.8 s
		forwarding: prometheus.NewHistogramVec(options("route_to_forwarding_seconds",
			"From a source's report, of one route or of many, to the tables of the data path holding what came of it.", fast), []string{"source"}),
	}
}

// MoveDetected notes how long it took to see that a host is here now.
func (t *Timings) MoveDetected(d time.Duration) { t.detection.Observe(d.Seconds()) }

// MoveAnnounced notes how long after its first sign here a host was announced.
func (t *Timings) MoveAnnounced(d time.Duration) { t.announcement.Observe(d.Seconds()) }

// MoveReached notes how long after its first sign here the first packet left for a host.
func (t *Timings) MoveReached(d time.Duration) { t.reach.Observe(d.Seconds()) }

// MoveSilent notes how long it was from a host's last word here to the first packet for its new home.
func (t *Timings) MoveSilent(d time.Duration) { t.silence.Observe(d.Seconds()) }

// MoveOutage notes how long nobody here knew a way to a host that moved.
func (t *Timings) MoveOutage(d time.Duration) { t.outage.Observe(d.Seconds()) }

// RoundTrip notes how long the answer to a probe of a tunnel took.
func (t *Timings) RoundTrip(d time.Duration) { t.roundTrip.Observe(d.Seconds()) }

// Forwarding notes how long a report of a source took to take effect.
func (t *Timings) Forwarding(source string, d time.Duration) {
	t.forwarding.WithLabelValues(source).Observe(d.Seconds())
}

func (t *Timings) collectors() []prometheus.Collector {
	return []prometheus.Collector{t.detection, t.announcement, t.reach, t.silence, t.outage, t.roundTrip, t.forwarding}
}
