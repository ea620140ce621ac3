package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"

	"roam/loader/metrics"
)

// file is what the linter reads of a dashboard: as Grafana gets it, whoever wrote it.
type file struct {
	UID, Title, Description string
	Tags                    []string
	Templating              struct{ List []struct{ Name, Type string } }
	Annotations             struct {
		List []struct {
			Datasource              ref
			Target                  target
			TitleFormat, TextFormat string
		}
	}
	Panels []onePanel
}

type onePanel struct {
	ID                       int
	Type, Title, Description string
	Datasource               ref
	GridPos                  struct{ X, Y, W, H int }
	FieldConfig              struct{ Defaults struct{ Unit string } }
	Targets                  []target
}

type ref struct{ Type, UID string }

type target struct {
	RefID, Expr, LegendFormat string
	Datasource                ref
}

// TestCommitted: the files are what `go generate ./docs/grafana` writes.
func TestCommitted(t *testing.T) {
	for _, d := range dashboards {
		want, err := render(d)
		if err != nil {
			t.Fatal(err)
		}
		if have, err := os.ReadFile(d.file()); err != nil || !bytes.Equal(have, want) {
			t.Errorf("%s is not current (%v): go generate ./docs/grafana", d.file(), err)
		}
	}
}

// TestLint enforces what makes a dashboard one that can be imported anywhere and read by anybody.
func TestLint(t *testing.T) {
	uids := map[string]bool{}
	for _, d := range dashboards {
		text, err := os.ReadFile(d.file())
		if err != nil {
			t.Fatal(err)
		}
		var f file
		if err := json.Unmarshal(text, &f); err != nil {
			t.Fatalf("%s: %v", d.file(), err)
		}
		for _, finding := range lint(f) {
			t.Errorf("%s: %s", d.file(), finding)
		}
		if uids[f.UID] {
			t.Errorf("%s: uid %s is another's", d.file(), f.UID)
		}
		uids[f.UID] = true
	}
}

func lint(f file) (findings []string) {
	say := func(format string, args ...any) { findings = append(findings, fmt.Sprintf(format, args...)) }
	if f.UID == "" || f.Title == "" || f.Description == "" || !slices.Contains(f.Tags, "roam") {
		say("uid, title, description or the tag roam is missing")
	}
	if v := f.Templating.List; len(v) < 2 || v[0].Name != "datasource" || v[0].Type != "datasource" || v[1].Name != "instance" || v[1].Type != "query" {
		say("the first variables are not datasource and instance")
	}
	for _, a := range f.Annotations.List {
		findings = append(findings, a.Datasource.lint("annotation")...)
		findings = append(findings, lintExpr("annotation", a.Target.Expr)...)
		for _, text := range []string{a.TitleFormat, a.TextFormat} {
			if text == "" {
				say("an annotation does not say what happened")
			}
			findings = append(findings, lintLegend("annotation", target{Expr: a.Target.Expr, LegendFormat: text})...)
		}
	}
	titles, ids := map[string]bool{}, map[int]bool{}
	var placed []onePanel
	for _, p := range f.Panels {
		if p.Title == "" || titles[p.Title] || ids[p.ID] {
			say("panel %d %q: no title, or a title or id that another panel has", p.ID, p.Title)
		}
		titles[p.Title], ids[p.ID] = true, true
		for _, other := range placed {
			if overlap(p, other) {
				say("panel %q covers %q", p.Title, other.Title)
			}
		}
		if placed = append(placed, p); p.GridPos.X+p.GridPos.W > 24 || p.GridPos.W == 0 || p.GridPos.H == 0 {
			say("panel %q is outside the 24 columns", p.Title)
		}
		if p.Type != "row" {
			findings = append(findings, p.lint()...)
		}
	}
	return findings
}

func overlap(a, b onePanel) bool {
	x := a.GridPos.X < b.GridPos.X+b.GridPos.W && b.GridPos.X < a.GridPos.X+a.GridPos.W
	y := a.GridPos.Y < b.GridPos.Y+b.GridPos.H && b.GridPos.Y < a.GridPos.Y+a.GridPos.H
	return x && y
}

func (r ref) lint(where string) []string {
	if r != (ref{"prometheus", "${datasource}"}) {
		return []string{where + ": the data source is fixed: use ${datasource}"}
	}
	return nil
}

func (p onePanel) lint() (findings []string) {
	say := func(format string, args ...any) {
		findings = append(findings, fmt.Sprintf("panel %q: ", p.Title)+fmt.Sprintf(format, args...))
	}
	if !strings.HasSuffix(p.Description, ".") {
		say("no description of whole sentences")
	}
	if p.FieldConfig.Defaults.Unit == "" {
		say("no unit")
	}
	findings = append(findings, p.Datasource.lint(p.Title)...)
	refs := map[string]bool{}
	for _, q := range p.Targets {
		findings = append(findings, q.Datasource.lint(p.Title)...)
		findings = append(findings, lintExpr(p.Title, q.Expr)...)
		if refs[q.RefID] {
			say("two queries are called %s", q.RefID)
		}
		refs[q.RefID] = true
		if q.LegendFormat == "" && p.Type != "table" {
			say("query %s has no legend", q.RefID)
		}
		findings = append(findings, lintLegend(p.Title, q)...)
	}
	if len(p.Targets) == 0 {
		say("no query")
	}
	return findings
}

var (
	legendLabel = regexp.MustCompile(`{{([a-z_]+)}}`)
	rangeText   = regexp.MustCompile(`\[([^\]]+)\]`)
	exported    = regexp.MustCompile(`fqName: "([a-z_]+)"`)
	// Ours is what others say of a gateway: the client library of its process, Prometheus of a scrape.
	others = regexp.MustCompile(`^(process|go|scrape)_`)
)

// lintLegend finds labels that an aggregation does not keep.
func lintLegend(where string, q target) (findings []string) {
	expr, err := parse(q.Expr)
	if err != nil {
		return nil // told elsewhere
	}
	kept, known := keeps(expr)
	for _, m := range legendLabel.FindAllStringSubmatch(q.LegendFormat, -1) {
		if known && !slices.Contains(kept, m[1]) {
			findings = append(findings, fmt.Sprintf("panel %q: the legend says {{%s}}, which the query does not keep", where, m[1]))
		}
	}
	return findings
}

// keeps returns the labels an expression is grouped by, where it is grouped.
func keeps(expr parser.Expr) (by []string, known bool) {
	switch e := expr.(type) {
	case *parser.AggregateExpr:
		return e.Grouping, !e.Without
	case *parser.BinaryExpr:
		if by, known = keeps(e.LHS); known {
			return by, true
		}
		return keeps(e.RHS)
	case *parser.Call:
		if e.Func.Name == "histogram_quantile" {
			return keeps(e.Args[1])
		}
	}
	return nil, false
}

// parse reads an expression whose durations are Grafana's variables.
func parse(expr string) (parser.Expr, error) {
	return parser.NewParser(parser.Options{}).ParseExpr(strings.NewReplacer("$__rate_interval", "5m", "$__range", "1h").Replace(expr))
}

func lintExpr(where, text string) (findings []string) {
	say := func(format string, args ...any) {
		findings = append(findings, fmt.Sprintf("panel %q: ", where)+fmt.Sprintf(format, args...)+": "+text)
	}
	expr, err := parse(text)
	if err != nil {
		say("%v", err)
		return findings
	}
	for _, m := range rangeText.FindAllStringSubmatch(text, -1) {
		if m[1] != "$__rate_interval" && m[1] != "$__range" {
			say("the range [%s] is fixed: use $__rate_interval", m[1])
		}
	}
	known := metricNames()
	parser.Inspect(expr, func(node parser.Node, path []parser.Node) error {
		switch n := node.(type) {
		case *parser.VectorSelector:
			if !slices.ContainsFunc(n.LabelMatchers, func(m *labels.Matcher) bool {
				return m.Name == "instance" && m.Type == labels.MatchRegexp && m.Value == "$instance"
			}) {
				say(`%s is not restricted to instance=~"$instance"`, n.Name)
			}
			if base := histogramPart.ReplaceAllString(n.Name, ""); !known[n.Name] && !known[base] && !others.MatchString(n.Name) {
				say("%s is no metric of ours", n.Name)
			}
			if function := enclosing(path); isCounter(n.Name) != (function == "rate" || function == "increase") {
				say("%s: rate() or increase() belong to counters, and counters into them", n.Name)
			}
		case *parser.Call:
			by, grouped := []string(nil), false
			if n.Func.Name == "histogram_quantile" {
				by, grouped = keeps(n.Args[1])
			}
			if grouped && !slices.Contains(by, "le") {
				say("histogram_quantile without le")
			}
		}
		return nil
	})
	return findings
}

var histogramPart = regexp.MustCompile(`_(bucket|sum|count)$`)

func isCounter(name string) bool {
	return strings.HasSuffix(name, "_total") || histogramPart.MatchString(name)
}

// enclosing is the innermost function around a node.
func enclosing(path []parser.Node) string {
	for i := len(path) - 1; i >= 0; i-- {
		if call, ok := path[i].(*parser.Call); ok {
			return call.Func.Name
		}
	}
	return ""
}

// metricNames are those that the daemon exports.
func metricNames() map[string]bool {
	descs := make(chan *prometheus.Desc, 64)
	metrics.New(nil, "", "", slog.Default()).Describe(descs)
	close(descs)
	names := map[string]bool{}
	for d := range descs {
		names[exported.FindStringSubmatch(d.String())[1]] = true
	}
	return names
}

// TestEveryMetricIsShown: what the daemon tells Prometheus, some panel tells its reader.
func TestEveryMetricIsShown(t *testing.T) {
	shown := map[string]bool{}
	for _, d := range dashboards {
		for _, p := range d.panels {
			for _, q := range p.queries {
				for _, name := range regexp.MustCompile(`roam_[a-z_]+`).FindAllString(q.expr, -1) {
					shown[name], shown[histogramPart.ReplaceAllString(name, "")] = true, true
				}
			}
		}
	}
	for name := range metricNames() {
		if !shown[name] {
			t.Errorf("%s is on no panel", name)
		}
	}
}

// The linter finds what it is there to find.
func TestLinter(t *testing.T) {
	for expr, want := range map[string]string{
		`sum(`:                                  "parse error",
		`roam_locator_up`:                       "is not restricted",
		`roam_locator_up{instance="$instance"}`: "is not restricted",
		`roam_locator_ups{instance=~"$instance"}`:                        "is no metric of ours",
		`roam_packets_total{instance=~"$instance"}`:                      "counters into them",
		`rate(roam_locator_up{instance=~"$instance"}[$__rate_interval])`: "belong to counters",
		`rate(roam_packets_total{instance=~"$instance"}[5m])`:            "is fixed",
		`histogram_quantile(0.9, sum by (tenant) (rate(roam_host_move_outage_seconds_bucket{instance=~"$instance"}[$__rate_interval])))`: "without le",
	} {
		found := lintExpr("x", expr)
		if len(found) != 1 || !strings.Contains(found[0], want) {
			t.Errorf("%s: %q, want %q", expr, found, want)
		}
	}
	good := onePanel{Title: "x", Description: "y.", Type: "stat", Datasource: ref{"prometheus", "${datasource}"}}
	good.FieldConfig.Defaults.Unit = "short"
	good.Targets = []target{{"A", `sum by (port) (roam_port_info{instance=~"$instance"})`, "{{port}}", good.Datasource}}
	if found := good.lint(); len(found) > 0 {
		t.Errorf("found in a good panel: %q", found)
	}
	for want, spoil := range map[string]func(*onePanel){
		"whole sentences": func(p *onePanel) { p.Description = "y" },
		"no unit":         func(p *onePanel) { p.FieldConfig.Defaults.Unit = "" },
		"is fixed":        func(p *onePanel) { p.Datasource.UID = "abc" },
		"no query":        func(p *onePanel) { p.Targets = nil },
		"does not keep":   func(p *onePanel) { p.Targets = []target{{"A", p.Targets[0].Expr, "{{reason}}", p.Datasource}} },
		"no legend":       func(p *onePanel) { p.Targets = []target{{"A", p.Targets[0].Expr, "", p.Datasource}} },
	} {
		bad := good
		spoil(&bad)
		if found := bad.lint(); len(found) != 1 || !strings.Contains(found[0], want) {
			t.Errorf("%q, want %q", found, want)
		}
	}
	if !overlap(good.at(0, 0), good.at(5, 3)) || overlap(good.at(0, 0), good.at(6, 0)) {
		t.Error("panels that cover each other are not told from those that do not")
	}
}

func (p onePanel) at(x, y int) onePanel {
	p.GridPos.X, p.GridPos.Y, p.GridPos.W, p.GridPos.H = x, y, 6, 4
	return p
}
