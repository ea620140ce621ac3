package main

import (
	"fmt"
	"net/netip"
	"strings"

	"roam/maps"
	"roam/maps/bench"
)

// A series varies one thing, at a size of table that does not matter or that is the same for all of its rows. Its rows stand in a
// table of their own.
const (
	seriesEncap = "encapsulation"
	seriesBytes = "frame size"
	seriesFill  = "fill"
	seriesMiss  = "miss"
)

// frameSizes are without the frame's checksum. Below 62 an IPv6 header with ports does not fit.
var frameSizes = []int{64, 128, 256, 512, 1024, 1280, 1514}

// addEncapsulations enters a row for each encapsulation and family of the underlay, of IPv4 hosts.
func (b *bed) addEncapsulations(g *gateway, w *walker) {
	for _, name := range encapNames {
		for _, outer := range []int{4, 6} {
			b.addOne(row{
				What: "encap", Series: seriesEncap, Encap: name, Outer: outer, gateway: g, walker: w, program: w.Walk, want: xdpRedirect,
				reason: "fwd_encap", settings: underlay{v6: outer == 6, encap: name, checksum: outer == 6},
			})
		}
	}
}

// addDecapsulations enters the same for what arrives.
func (b *bed) addDecapsulations(g *gateway) error {
	for _, name := range encapNames {
		for _, own := range []netip.Addr{own4, own6} {
			w, err := b.walker(g, bench.Table, nil, shape{outer: own, encap: name})
			if err != nil {
				return err
			}
			r := row{
				What: "decap", Series: seriesEncap, Encap: name, Outer: 4, gateway: g, walker: w, program: w.Walk, want: xdpRedirect,
				reason: "fwd_deliver",
			}
			if own.Is6() {
				r.Outer = 6
			}
			b.addOne(r)
		}
	}
	return nil
}

// addFrameSizes enters rows of longer and longer frames over IPv6, whose UDP checksum covers all of them, and over IPv4, whose has
// none.
func (b *bed) addFrameSizes(g *gateway) error {
	for _, bytes := range frameSizes {
		w, err := b.walker(g, bench.Table, nil, shape{bytes: bytes})
		if err != nil {
			return err
		}
		r := row{
			What: "encap", Series: seriesBytes, Bytes: bytes, Outer: 4, gateway: g, walker: w, program: w.Walk, want: xdpRedirect, reason: "fwd_encap",
		}
		b.addOne(r)
		r.Outer, r.Checksum, r.settings = 6, true, underlay{v6: true, checksum: true}
		b.addOne(r)
	}
	return nil
}

// addFills enters tables of one size that are more and more full. The hosts that packets go to are the same in all.
func (b *bed) addFills(capacity int) error {
	for _, part := range []int{20, 40, 60, 80, 90} {
		slots := capacity / 4 * 5
		g, err := b.gateway(crowd{hosts: slots * part / 100, capacity: capacity}, side{loopback, maps.RoleAccess}, side{b.out, maps.RoleUnderlay})
		if err != nil {
			return err
		}
		w, err := b.walker(g, bench.Table, nil, shape{})
		if err != nil {
			return err
		}
		b.addOne(row{
			What: "encap", Series: seriesFill, Outer: 4, Drawn: capacity / 8, gateway: g, walker: w, program: w.Walk, want: xdpRedirect, reason: "fwd_encap",
		})
	}
	return nil
}

// addMisses enters destinations that no table has: for the kernel, or behind a prefix that all of them have in common.
func (b *bed) addMisses(g *gateway, w *walker) {
	r := row{
		What: "no route", Series: seriesMiss, Outer: 4, first: uint32(g.hosts), gateway: g, walker: w, program: w.Walk, want: xdpPass,
		reason: "pass_no_route",
	}
	b.addOne(r)
	r.Drawn = g.hosts
	b.addOne(r)
	r.What, r.prefix, r.want, r.reason = "prefix", netip.MustParsePrefix("10.0.0.0/8"), xdpRedirect, "fwd_encap"
	b.addOne(r)
	r.Drawn = 1
	b.addOne(r)
}

// addEncapSeries enters the series of packets that go into tunnels.
func (b *bed) addEncapSeries(g *gateway) error {
	w, err := b.walker(g, bench.Table, nil, shape{})
	if err != nil {
		return err
	}
	b.addEncapsulations(g, w)
	b.addMisses(g, w)
	return b.addFrameSizes(g)
}

// addOne enters a row of IPv4 hosts in the host table.
func (b *bed) addOne(r row) {
	r.Structure, r.Inner, r.Hosts, r.Fill, r.Drawn = bench.Table, 4, r.gateway.hosts, r.gateway.fill(), max(r.Drawn, 1)
	r.Capacity = r.gateway.capacity
	b.rows = append(b.rows, &r)
}

// writeSeries is a table with a line for each value of what a series varies.
func (r *Result) writeSeries(b *strings.Builder, title, about, series string, value func(*row) string, column func(*row) string) {
	var lines, columns []string
	cells := map[[2]string]string{}
	for _, t := range r.Tests {
		if t.Series == series {
			lines, columns = with(lines, value(t)), with(columns, column(t))
			cells[[2]string{value(t), column(t)}] = fmt.Sprintf("**%.0f** · %.0f (%.0f–%.0f)", t.Calm, t.Figure.Median, t.Figure.P10, t.Figure.P90)
		}
	}
	if len(lines) == 0 {
		return
	}
	fmt.Fprintf(b, "### %s\n\n%s\n\n| |", title, about)
	for _, c := range columns {
		fmt.Fprintf(b, " %s |", c)
	}
	b.WriteString("\n|---" + strings.Repeat("|---", len(columns)) + "|\n")
	for _, l := range lines {
		fmt.Fprintf(b, "| %s |", l)
		for _, c := range columns {
			fmt.Fprintf(b, " %s |", cells[[2]string{l, c}])
		}
		b.WriteString("\n")
	}
	b.WriteString("\n")
}

func (r *Result) writeAllSeries(b *strings.Builder) {
	over := func(t *row) string {
		s := fmt.Sprintf("%s, over IPv%d", t.What, t.Outer)
		if t.Checksum {
			s += " with UDP checksum"
		}
		return s
	}
	r.writeSeries(b, "Each encapsulation", "One hot IPv4 host, ns above the empty wrapper; over IPv6, the outer UDP checksum of encapsulations that have one is computed.",
		seriesEncap, func(t *row) string { return t.Encap }, over)
	r.writeSeries(b, "Frame size", "One hot IPv4 host, ns above the empty wrapper, by bytes of the frame without its checksum: where nothing has to be added up, length costs nothing here.",
		seriesBytes, func(t *row) string { return fmt.Sprint(t.Bytes) }, over)
	r.writeSeries(b, "Fill", "Random IPv4 hosts, an eighth of what the table is made for, with more and more others beside: slots in use. Up to 80% is what a table is made for.",
		seriesFill, func(t *row) string { return fmt.Sprintf("%.0f%% of a table for %s", 100*t.Fill, size(t.Capacity)) }, over)
	r.writeSeries(b, "Misses", "Destinations that are in no host table: one, or random ones.", seriesMiss, func(t *row) string {
		if t.Drawn > 1 {
			return "random"
		}
		return "one"
	}, func(t *row) string { return t.What })
}

// with appends what is new.
func with(list []string, s string) []string {
	for _, known := range list {
		if known == s {
			return list
		}
	}
	return append(list, s)
}
