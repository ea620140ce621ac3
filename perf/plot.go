package main

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"roam/maps/bench"
)

// plot is a chart of lines, both axes logarithmic.
type plot struct {
	title string
	x, y  string
	label func(x float64) string
	lines []line
}

type line struct {
	name   string
	color  string
	points []point
}

// point has its spread with it.
type point struct{ x, y, low, high float64 }

// colors tell lines apart also where one sees no colors: they differ in lightness.
var colors = []string{"#1b6ca8", "#d1751f", "#7a4fa3", "#2f8f5b", "#b03a48", "#777777", "#0f3d3e"}

// plots are the pictures of a result by file name: those that it has rows for.
func (r *Result) plots() map[string]plot {
	plots := map[string]plot{"table-size.svg": r.plotTables(), "frame-size.svg": r.plotFrames(), "rate.svg": r.plotRates(), "latency.svg": r.plotLatency()}
	for name, p := range plots {
		if len(p.lines) == 0 {
			delete(plots, name)
		}
	}
	return plots
}

// plotTables shows what a packet costs against the size of the table, for the three structures in the same walk.
func (r *Result) plotTables() plot {
	p := plot{
		title: "Encapsulation, IPv4 in VXLAN over IPv4, random hosts, Linux " + r.Machine.Kernel,
		x:     "hosts in the table", y: "ns per packet above an empty wrapper",
		label: func(x float64) string { return size(int(x)) },
	}
	for _, s := range []struct {
		structure bench.Structure
		name      string
	}{{bench.Table, "host table"}, {bench.Hash, "BPF hash"}, {bench.Trie, "LPM trie"}} {
		p.add(s.name, r.Tests, func(t *row) (float64, bool) {
			return float64(t.Hosts), t.What == "encap" && t.Structure == s.structure && t.Inner == 4 && t.Outer == 4 && t.Sources <= 1 &&
				t.Option == "" && t.Series == "" && (t.Drawn > 1 || t.Hosts == 1)
		})
	}
	return p
}

// plotFrames shows what the outer UDP checksum costs against the size of the frame.
func (r *Result) plotFrames() plot {
	p := plot{
		title: "Encapsulation of one hot IPv4 host in VXLAN, Linux " + r.Machine.Kernel,
		x:     "bytes of the frame without its checksum", y: "ns per packet above an empty wrapper",
		label: func(x float64) string { return fmt.Sprint(x) },
	}
	for _, checksum := range []bool{false, true} {
		p.add(map[bool]string{false: "over IPv4", true: "IPv6, checksum"}[checksum], r.Tests, func(t *row) (float64, bool) {
			return float64(t.Bytes), t.Series == seriesBytes && t.Checksum == checksum
		})
	}
	return p
}

// plotRates shows loss-free rates against the size of the frame. IMIX has a mean of 366 bytes.
func (r *Result) plotRates() plot {
	bytes := map[string]float64{"64 bytes": 64, "IMIX": 366, "1518 bytes": 1518}
	p := plot{
		title: "Loss-free rate of one core over veth, one host, Linux " + r.Machine.Kernel, x: "bytes of the frame", y: "Mpps",
		label: func(x float64) string { return fmt.Sprint(x) },
	}
	for _, f := range forwarders {
		l := line{name: f.name, color: colors[len(p.lines)%len(colors)]}
		for _, s := range r.System {
			if s.Forwarder == f.name && s.Hosts == 1 && len(s.Rounds) > 0 && slices.Min(s.lossFree()) > 0 {
				rate := summarize(s.lossFree())
				l.points = append(l.points, point{bytes[s.Frame], rate.Median / 1e6, rate.P10 / 1e6, rate.P90 / 1e6})
			}
		}
		p.append(l)
	}
	return p
}

// plotLatency shows how long packets are under way at half of the loss-free rate.
func (r *Result) plotLatency() plot {
	of := []string{"p50", "p90", "p99", "p99.9"}
	p := plot{
		title: "Latency at half of each one's loss-free rate, 64 bytes, Linux " + r.Machine.Kernel, x: "percentile", y: "µs",
		label: func(x float64) string { return of[int(math.Log2(x))] },
	}
	for _, f := range forwarders {
		l := line{name: f.name, color: colors[len(p.lines)%len(colors)]}
		for _, s := range r.System {
			if s.Forwarder != f.name || s.Hosts != 1 || s.Frame != "64 bytes" || len(s.Rounds) == 0 {
				continue
			}
			half := s.latency(1)
			for i, ns := range []float64{half.P50, half.P90, half.P99, half.P999} {
				l.points = append(l.points, point{math.Ldexp(1, i), ns / 1e3, ns / 1e3, ns / 1e3})
			}
		}
		p.append(l)
	}
	return p
}

func (p *plot) append(l line) {
	if len(l.points) > 0 {
		p.lines = append(p.lines, l)
	}
}

// add draws a line through the rows that at gives a place.
func (p *plot) add(name string, rows []*row, at func(*row) (x float64, in bool)) {
	l := line{name: name, color: colors[len(p.lines)%len(colors)]}
	for _, t := range rows {
		if x, in := at(t); in {
			l.points = append(l.points, point{x, t.Calm, math.Min(t.Calm, t.Figure.P10), t.Figure.P90})
		}
	}
	p.append(l)
}

const (
	plotWidth, plotHeight = 840, 440
	plotLeft, plotRight   = 70, 230
	plotTop, plotBottom   = 50, 60
)

// scale maps values to the canvas.
type scale struct{ minX, maxX, minY, maxY float64 }

func (p plot) scale() scale {
	s := scale{minX: math.Inf(1), minY: math.Inf(1), maxY: 0}
	for _, l := range p.lines {
		for _, pt := range l.points {
			s.minX, s.maxX = math.Min(s.minX, math.Log2(pt.x)), math.Max(s.maxX, math.Log2(pt.x))
			s.minY, s.maxY = math.Min(s.minY, pt.low), math.Max(s.maxY, pt.high)
		}
	}
	s.maxX = math.Max(s.maxX, s.minX+1)
	s.maxY = math.Pow(10, math.Ceil(math.Log10(s.maxY)))
	s.minY = math.Min(s.maxY/10, math.Pow(10, math.Floor(math.Log10(math.Max(s.maxY/1e6, s.minY)))))
	return s
}

func (s scale) x(v float64) float64 {
	return plotLeft + (math.Log2(v)-s.minX)/(s.maxX-s.minX)*(plotWidth-plotLeft-plotRight)
}

func (s scale) y(v float64) float64 {
	part := (math.Log10(math.Max(v, s.minY)) - math.Log10(s.minY)) / (math.Log10(s.maxY) - math.Log10(s.minY))
	return plotHeight - plotBottom - part*(plotHeight-plotTop-plotBottom)
}

func (p plot) svg() string {
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n", plotWidth, plotHeight)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="white"/>`+"\n", plotWidth, plotHeight)
	text(&b, plotLeft, 25, "start", p.title)
	s := p.scale()
	p.axes(&b, s)
	for _, l := range p.lines {
		l.draw(&b, s)
	}
	b.WriteString("</svg>\n")
	return b.String()
}

func text(b *strings.Builder, x, y float64, anchor, s string) {
	s = strings.NewReplacer("&", "&amp;", "<", "&lt;").Replace(s)
	fmt.Fprintf(b, `<text x="%.1f" y="%.1f" text-anchor="%s">%s</text>`+"\n", x, y, anchor, s)
}

func (p plot) axes(b *strings.Builder, s scale) {
	right, bottom := float64(plotWidth-plotRight), float64(plotHeight-plotBottom)
	for decade := s.minY; decade <= s.maxY; decade *= 10 {
		for _, step := range []float64{1, 2, 5} {
			if v := decade * step; v <= s.maxY {
				fmt.Fprintf(b, `<path d="M%d %.1fH%.1f" stroke="#ddd"/>`+"\n", plotLeft, s.y(v), right)
				text(b, plotLeft-8, s.y(v)+4, "end", fmt.Sprintf("%g", v))
			}
		}
	}
	for _, l := range p.lines[:1] {
		for _, pt := range l.points {
			fmt.Fprintf(b, `<path d="M%.1f %.1fv5" stroke="#333"/>`+"\n", s.x(pt.x), bottom)
			text(b, s.x(pt.x), bottom+20, "middle", p.label(pt.x))
		}
	}
	fmt.Fprintf(b, `<path d="M%d %dV%.1fH%.1f" stroke="#333" fill="none"/>`+"\n", plotLeft, plotTop, bottom, right)
	text(b, (plotLeft+right)/2, bottom+44, "middle", p.x)
	fmt.Fprintf(b, `<g transform="translate(18 %.1f) rotate(-90)">`, (plotTop+bottom)/2)
	text(b, 0, 0, "middle", p.y)
	b.WriteString("</g>\n")
}

func (l line) draw(b *strings.Builder, s scale) {
	var path strings.Builder
	for i, pt := range l.points {
		fmt.Fprintf(&path, "%c%.1f %.1f", "ML"[min(i, 1)], s.x(pt.x), s.y(pt.y))
		fmt.Fprintf(b, `<path d="M%.1f %.1fV%.1f" stroke="%s" stroke-opacity="0.5"/>`+"\n", s.x(pt.x), s.y(pt.low), s.y(pt.high), l.color)
		fmt.Fprintf(b, `<circle cx="%.1f" cy="%.1f" r="3" fill="%s"/>`+"\n", s.x(pt.x), s.y(pt.y), l.color)
	}
	fmt.Fprintf(b, `<path d="%s" stroke="%s" stroke-width="2" fill="none"/>`+"\n", path.String(), l.color)
	if n := len(l.points); n > 0 {
		text(b, s.x(l.points[n-1].x)+8, s.y(l.points[n-1].y)+4, "start", l.name)
	}
}
