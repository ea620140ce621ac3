package config

import "time"

// Defaults of the election: a dead gateway is replaced within 0.45 s.
const (
	defaultElectionPriority   = 100
	defaultElectionInterval   = 150 * time.Millisecond
	defaultElectionMultiplier = 3
	defaultElectionPreempt    = 10 * time.Second
)

// Election is how the gateways on a segment find out which of them answers there.
type Election struct {
	Priority   uint8
	Interval   time.Duration // between hellos
	Multiplier int           // hellos that may be missing
	Preempt    time.Duration // how long a higher priority waits
}

// election is on unless it is turned off: who hears no other gateway is designated.
func election(v value) *Election {
	e := &Election{defaultElectionPriority, defaultElectionInterval, defaultElectionMultiplier, defaultElectionPreempt}
	if v.absent() {
		return e
	}
	if !v.isMapping() {
		if word, ok := v.text(); ok && word != "off" {
			v.fail("%q is unknown: use off, or a mapping with the keys priority, interval, multiplier, preempt", word)
		}
		return nil
	}
	f := v.mapping("priority", "interval", "multiplier", "preempt")
	e.Priority = uint8(f.get("priority").number(uint64(e.Priority), 1, 255))
	e.Interval = f.get("interval").duration(e.Interval, 10*time.Millisecond, time.Second)
	e.Multiplier = int(f.get("multiplier").number(uint64(e.Multiplier), 2, 20))
	e.Preempt = f.get("preempt").duration(e.Preempt, 0, time.Hour)
	return e
}
