package lab_test

import (
	"fmt"
	"html"
	"math"
	"regexp"
	"slices"
	"strings"

	"roam/lab"
)

// A drawing shows a dashboard from its own JSON and the answers to its queries over a run: no Grafana can be had where
// this is tested, and a query that finds data may still be a picture that tells nothing. It knows the grid, titles,
// legends and units, and of each kind of panel the bare minimum.
type drawing struct {
	strings.Builder
	from, to float64 // seconds of the run
	events   []float64
}

// mark notes when what an annotation found began.
func (d *drawing) mark(found []lab.Series) {
	for _, s := range found {
		before := math.Inf(-1)
		for _, p := range s.Points {
			if p[0]-before > 1.5 {
				d.events = append(d.events, p[0])
			}
			before = p[0]
		}
	}
}

const (
	cellWidth, cellHeight = 50, 30 // of Grafana's grid, in pixels
	perPanel              = 8      // lines of a legend, rows of a table
)

var colors = []string{"#3274d9", "#56a64b", "#e02f44", "#ff780a", "#8f3bb8", "#e0b400", "#37872d", "#1f60c4"}

type shownPanel struct {
	Type, Title string
	GridPos     struct{ X, Y, W, H int }
	FieldConfig struct{ Defaults struct{ Unit string } }
	Targets     []struct{ Expr, LegendFormat string }
}

// curve is a series with the name its legend gives it.
type curve struct {
	name string
	lab.Series
}

var legendPart = regexp.MustCompile(`{{(\w+)}}`)

func named(format string, s lab.Series) curve {
	return curve{legendPart.ReplaceAllStringFunc(format, func(m string) string { return s.Labels[m[2:len(m)-2]] }), s}
}

func (d *drawing) begin(title string, panels []shownPanel) {
	bottom := 0
	for _, p := range panels {
		bottom = max(bottom, p.GridPos.Y+p.GridPos.H)
	}
	fmt.Fprintf(d, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="11">`+"\n",
		24*cellWidth, bottom*cellHeight+30)
	fmt.Fprintf(d, `<rect width="100%%" height="100%%" fill="#f4f5f5"/><text x="8" y="20" font-size="15">%s</text>`+"\n", html.EscapeString(title))
	d.text(float64(24*cellWidth-150), 20, "#ff780a", "dashed: what happened")
}

func (d *drawing) panel(p shownPanel, curves []curve) {
	x, y := float64(p.GridPos.X*cellWidth+4), float64(p.GridPos.Y*cellHeight+34)
	w, h := float64(p.GridPos.W*cellWidth-8), float64(p.GridPos.H*cellHeight-8)
	fmt.Fprintf(d, `<g transform="translate(%.0f %.0f)"><rect width="%.0f" height="%.0f" fill="#fff" stroke="#ddd"/>`, x, y, w, h)
	d.text(8, 16, "#222", "<tspan font-weight=\"bold\">"+html.EscapeString(p.Title)+"</tspan>")
	unit := p.FieldConfig.Defaults.Unit
	switch p.Type {
	case "stat":
		if len(curves) > 0 {
			fmt.Fprintf(d, `<text x="%.0f" y="%.0f" font-size="30" text-anchor="middle" fill="#37872d">%s</text>`, w/2, h/2+20, value(curves[0].last(), unit))
		}
	case "table":
		for i, c := range curves[:min(perPanel, len(curves))] {
			d.text(8, 40+18*float64(i), "#222", html.EscapeString(labelsOf(c)))
		}
	case "bargauge":
		for i, c := range curves[:min(perPanel, len(curves))] {
			d.text(8, 42+24*float64(i), "#222", html.EscapeString(c.name)+" "+value(c.last(), unit))
			fmt.Fprintf(d, `<rect x="8" y="%.0f" width="%.1f" height="6" fill="%s"/>`, 45+24*float64(i), (w-16)*share(c.last(), curves, unit), colors[i%len(colors)])
		}
	case "state-timeline":
		d.states(curves, w)
	case "heatmap":
		d.cells(curves, w, h)
	default:
		d.lines(curves, w, h, unit)
	}
	d.WriteString("</g>\n")
}

func (d *drawing) text(x, y float64, color, markup string) {
	fmt.Fprintf(d, `<text x="%.0f" y="%.0f" fill="%s">%s</text>`, x, y, color, markup)
}

func (d *drawing) x(at, w float64) float64 { return 55 + (w-65)*(at-d.from)/(d.to-d.from) }

func (d *drawing) lines(curves []curve, w, h float64, unit string) {
	legend := 14 * float64(min(perPanel, len(curves))+1) / 2
	top, bottom := 26.0, h-legend-20
	high := 0.0
	for _, c := range curves {
		for _, p := range c.Points {
			high = max(high, p[1])
		}
	}
	high = round(high, unit)
	for _, at := range d.events {
		fmt.Fprintf(d, `<path d="M%.1f %.0fV%.1f" stroke="#ff780a" stroke-opacity="0.5" stroke-dasharray="2 3"/>`, d.x(at, w), top, bottom)
	}
	for i := range 3 {
		y := bottom - (bottom-top)*float64(i)/2
		fmt.Fprintf(d, `<path d="M55 %.1fH%.0f" stroke="#eee"/>`, y, w-10)
		d.text(4, y+4, "#666", value(high*float64(i)/2, unit))
	}
	d.seconds(bottom+12, w)
	for i, c := range curves {
		color, before := colors[i%len(colors)], math.Inf(-1)
		var path strings.Builder
		for _, p := range c.Points {
			verb := "L"
			if p[0]-before > 1.5 { // a gap stays one
				verb = "M"
			}
			fmt.Fprintf(&path, "%s%.1f %.1f", verb, d.x(p[0], w), bottom-(bottom-top)*p[1]/high)
			before = p[0]
		}
		fmt.Fprintf(d, `<path d="%s" fill="none" stroke="%s" stroke-width="1.5" stroke-linecap="round"/>`, path.String(), color)
		if i < perPanel {
			d.text(8+w/2*float64(i%2), bottom+28+14*float64(i/2), color, html.EscapeString(c.name))
		}
	}
}

// seconds writes below a panel how long the run has lasted there.
func (d *drawing) seconds(y, w float64) {
	for at := 0.0; at < d.to-d.from; at += 10 {
		d.text(d.x(d.from+at, w)-6, y, "#999", fmt.Sprintf("%.0f s", at))
	}
}

// round is the next number up that is easy to halve: 1, 2 or 5 and zeros.
func round(high float64, unit string) float64 {
	if high <= 0 || unit == "percentunit" && high > 0.5 {
		return 1
	}
	power := math.Pow(10, math.Floor(math.Log10(high)))
	for _, digit := range []float64{1, 2, 5} {
		if digit*power >= high {
			return digit * power
		}
	}
	return 10 * power
}

// states draws a bar for each curve, red where it is 0.
func (d *drawing) states(curves []curve, w float64) {
	for i, c := range curves[:min(perPanel, len(curves))] {
		y := 36 + 24*float64(i)
		d.text(8, y+2, "#222", html.EscapeString(c.name))
		for _, p := range c.Points {
			color := "#56a64b"
			if p[1] == 0 {
				color = "#e02f44"
			}
			x := d.x(p[0], w)
			fmt.Fprintf(d, `<rect x="%.1f" y="%.0f" width="%.1f" height="7" fill="%s"/>`, x, y+7, max(0, min(d.x(p[0]+1, w)+0.5, w-10)-x), color)
		}
	}
}

// cells draws a cumulative histogram's buckets over time.
func (d *drawing) cells(curves []curve, w, h float64) {
	slices.SortFunc(curves, func(a, b curve) int { return int(math.Copysign(1, bound(a)-bound(b))) })
	height := (h - 40) / float64(max(1, len(curves)))
	below := map[float64]float64{}
	for i, c := range curves {
		y := h - 10 - height*float64(i+1)
		d.text(8, y+height-1, "#666", html.EscapeString(c.name))
		for _, p := range c.Points {
			if n := p[1] - below[p[0]]; n > 0 {
				fmt.Fprintf(d, `<rect x="%.1f" y="%.1f" width="6" height="%.1f" fill="#ff780a" fill-opacity="%.2f"/>`, d.x(p[0], w), y, height-1, min(1, 0.3+n/4))
			}
			below[p[0]] = p[1]
		}
	}
}

func bound(c curve) float64 {
	v := math.Inf(1)
	_, _ = fmt.Sscan(c.Labels["le"], &v)
	return v
}

func (c curve) last() float64 { return c.Points[len(c.Points)-1][1] }

func share(v float64, curves []curve, unit string) float64 {
	high := 1.0
	for _, c := range curves {
		if unit != "percentunit" {
			high = max(high, c.last())
		}
	}
	return v / high
}

func labelsOf(c curve) string {
	var parts []string
	for name, v := range c.Labels {
		if name != "__name__" && name != "job" {
			parts = append(parts, name+"="+v)
		}
	}
	slices.Sort(parts)
	return strings.Join(parts, "   ")
}

// value writes a number with its unit as Grafana does, roughly.
func value(v float64, unit string) string {
	suffix := map[string]string{"pps": "p/s", "bps": "b/s", "cps": "c/s", "bytes": "B", "s": "s"}[unit]
	switch {
	case unit == "percentunit":
		return fmt.Sprintf("%.3g%%", 100*v)
	case v >= 1e6:
		return fmt.Sprintf("%.3gM%s", v/1e6, suffix)
	case v >= 1e3:
		return fmt.Sprintf("%.3gk%s", v/1e3, suffix)
	case unit == "s" && v > 0 && v < 0.1:
		return fmt.Sprintf("%.3gms", 1e3*v)
	}
	return fmt.Sprintf("%.3g%s", v, suffix)
}
