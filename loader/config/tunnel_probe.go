package config

import "time"

// Defaults of probes: silence is noticed within 0.4 s, a size that does not pass within ten seconds.
const (
	defaultTunnelProbeInterval   = 100 * time.Millisecond
	defaultTunnelProbeMultiplier = 3
	defaultTunnelProbeFullSize   = 5 * time.Second
	leastTunnelProbeFullSize     = time.Second
)

// TunnelProbe is how tunnels are probed, by packets that the far data path answers.
type TunnelProbe struct {
	Interval   time.Duration
	Multiplier int           // unanswered in a row
	FullSize   time.Duration // between probes of full size; 0: none
}

// probe is on unless it is turned off: who does not know what a probe is takes no notice.
func (r *reader) probe(v value) *TunnelProbe {
	p := &TunnelProbe{Interval: defaultTunnelProbeInterval, Multiplier: defaultTunnelProbeMultiplier, FullSize: defaultTunnelProbeFullSize}
	if v.absent() {
		return p
	}
	if !v.isMapping() {
		if word, ok := v.text(); ok && word != "off" {
			v.fail("%q is unknown: use off, or a mapping with the keys interval, multiplier, full_size_interval", word)
		}
		return nil
	}
	f := v.mapping("interval", "multiplier", "full_size_interval")
	p.Interval = f.get("interval").duration(p.Interval, 10*time.Millisecond, 10*time.Second)
	p.Multiplier = int(f.get("multiplier").number(uint64(p.Multiplier), 1, 50))
	whole := f.get("full_size_interval")
	p.FullSize = whole.duration(p.FullSize, 0, time.Hour)
	if p.FullSize > 0 && p.FullSize < leastTunnelProbeFullSize {
		whole.fail("%v is too short: give 1s or more, or 0s for no probes of full size", p.FullSize)
	}
	return p
}
