package main

import (
	"net/netip"

	"roam/maps"
	"roam/maps/bench"
)

// optionHosts is the size of the tables at which options are compared.
const optionHosts = 1 << 10

// options are what an operator may choose, each changed alone; the first is how it comes.
var options = []struct {
	name   string
	change func(*maps.Tune)
}{
	{"as it comes", func(*maps.Tune) {}},
	{"datapath.source_check: off", func(t *maps.Tune) { t.SourceCheck = maps.SourceOff }},
	{"datapath.source_check: strict", func(t *maps.Tune) { t.SourceCheck = maps.SourceStrict }},
	{"datapath.mss_clamp: false", func(t *maps.Tune) { t.ClampMSS = false }},
	{"datapath.icmp: {rate: 0}", func(t *maps.Tune) { t.ICMPRate = 0 }},
	{"datapath.frags: true", func(t *maps.Tune) { t.Frags = true }},
	{"underlay.dscp: 46", func(t *maps.Tune) { t.OuterDSCP = 46 }},
	{"a segment's l2vni", func(t *maps.Tune) { t.Bridging = true }},
	{"a segment's gateway.keep_ttl: true", func(t *maps.Tune) { t.KeepTTL = true }},
	{"a segment's egress, of other hosts", func(t *maps.Tune) { t.Egress = true }},
	{"no sightings", func(t *maps.Tune) { t.Sightings = 0 }},
	{"all that can be off, off", func(t *maps.Tune) {
		t.SourceCheck, t.ClampMSS, t.ICMPRate, t.Sightings = maps.SourceOff, false, 0, 0
	}},
}

// addOptions enters a row for each option, of IPv4 hosts over IPv4, one hot host.
func (b *bed) addOptions(r row, outer netip.Addr) error {
	r.Structure, r.Inner, r.Outer, r.Hosts, r.Fill, r.Drawn = bench.Table, 4, 4, r.gateway.hosts, r.gateway.fill(), 1
	for _, o := range options {
		tune := maps.DefaultTune
		o.change(&tune)
		w, err := r.gateway.load(bench.Table, nil, shape{outer: outer}, tune, false)
		if err != nil {
			return err
		}
		b.closers = append(b.closers, w.close)
		one := r
		one.Option, one.walker, one.program = o.name, w, w.Walk
		b.rows = append(b.rows, &one)
	}
	return nil
}
