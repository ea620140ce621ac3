package main

import "fmt"

// object is JSON as Grafana has it: most of its fields are options of one kind of panel.
type object map[string]any

// dashboard is one page.
type dashboard struct {
	name, title, about string
	one                bool // of one gateway, not of all that are chosen
	panels             []panel
}

func (d dashboard) file() string { return d.name + ".json" }

// panel is one picture. Its place follows from the order and the widths: 24 columns make a row.
type panel struct {
	kind         string // timeseries, stat, table, heatmap, bargauge, state-timeline; "row" only has a title
	title, about string
	unit         string // of Grafana's list
	width        int
	queries      []query
	states       bool   // values are 0 and 1: down and up
	bad          string // threshold from which a value is shown in red; empty for none
	hidden       []string
}

// query is a PromQL expression and how to call what it finds.
type query struct{ expr, legend string }

var source = object{"type": "prometheus", "uid": "${datasource}"}

func (d dashboard) model() object {
	var panels []object
	x, y, height := 0, 0, 0
	for i, p := range d.panels {
		if x+p.columns() > 24 || p.kind == "row" {
			x, y, height = 0, y+height, 0
		}
		panels = append(panels, p.model(i+1, object{"x": x, "y": y, "w": p.columns(), "h": p.height()}))
		x, height = x+p.columns(), max(height, p.height())
	}
	return object{
		"uid": "roam-" + d.name, "title": "Roam: " + d.title, "description": d.about, "tags": []string{"roam"},
		"schemaVersion": 42, "editable": true, "graphTooltip": 1, "refresh": "30s", "timezone": "browser",
		"time": object{"from": "now-1h", "to": "now"},
		"links": []object{{
			"title": "Roam", "type": "dashboards", "tags": []string{"roam"}, "asDropdown": true, "icon": "external link",
			"includeVars": true, "keepTime": true, "targetBlank": false, "tooltip": "the other dashboards",
		}},
		"templating":  object{"list": d.variables()},
		"annotations": object{"list": []object{annotation}},
		"panels":      panels,
	}
}

func (d dashboard) variables() []object {
	const instances = "label_values(roam_build_info, instance)"
	instance := object{
		"name": "instance", "label": "Gateway", "type": "query", "datasource": source, "refresh": 2, "sort": 1,
		"query": object{"qryType": 1, "query": instances, "refId": "instances"},
		"multi": !d.one, "includeAll": !d.one,
	}
	if !d.one {
		instance["allValue"] = ".+"
		instance["current"] = object{"text": "All", "value": "$__all"}
	}
	return []object{
		{"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"},
		instance,
	}
}

// annotation marks what may explain a bend in a curve.
var annotation = object{
	"name": "Events", "enable": true, "iconColor": "orange", "datasource": source,
	"titleFormat": "{{kind}}", "textFormat": "{{instance}}: roamctl events --kind {{kind}} says why", "tagKeys": "kind,instance",
	"target": object{
		"refId": "events", "expr": `sum by (instance, kind) (increase(roam_events_total{instance=~"$instance",kind=~"locator_down|mtu_hole|port_down|source_down|conflict|frozen|reload|reload_failed|growth|growth_failed|upgrade"}[$__rate_interval])) > 0`,
	},
}

func (p panel) columns() int {
	if p.kind == "row" {
		return 24
	}
	return p.width
}

func (p panel) height() int {
	switch p.kind {
	case "row":
		return 1
	case "stat":
		return 4
	}
	return 8
}

func (p panel) model(id int, at object) object {
	if p.kind == "row" {
		return object{"id": id, "type": "row", "title": p.title, "collapsed": false, "gridPos": at, "panels": []object{}}
	}
	out := object{
		"id": id, "type": p.kind, "title": p.title, "description": p.about, "gridPos": at, "datasource": source,
		"targets": p.targets(), "options": p.options(),
		"fieldConfig": object{"defaults": p.defaults(), "overrides": []object{}},
	}
	if p.kind == "table" {
		hide := object{"Time": true, "Value": true, "__name__": true, "job": true}
		for _, label := range p.hidden {
			hide[label] = true
		}
		out["transformations"] = []object{{"id": "organize", "options": object{"excludeByName": hide}}}
	}
	return out
}

func (p panel) targets() []object {
	var list []object
	for i, q := range p.queries {
		t := object{
			"refId": string(rune('A' + i)), "datasource": source, "expr": q.expr, "legendFormat": q.legend, "editorMode": "code",
		}
		switch p.kind {
		case "table":
			t["format"], t["instant"], t["range"] = "table", true, false
		case "stat", "bargauge":
			t["instant"], t["range"] = true, false
		case "heatmap":
			t["format"], t["range"] = "heatmap", true
		default:
			t["range"] = true
		}
		list = append(list, t)
	}
	return list
}

func (p panel) defaults() object {
	d := object{"unit": p.unit, "color": object{"mode": "palette-classic"}}
	steps := []object{{"color": "green", "value": nil}}
	if p.bad != "" {
		var limit float64
		_, _ = fmt.Sscan(p.bad, &limit)
		steps = append(steps, object{"color": "red", "value": limit})
	}
	if p.kind == "stat" || p.kind == "bargauge" || p.states {
		d["color"] = object{"mode": "thresholds"}
		d["thresholds"] = object{"mode": "absolute", "steps": steps}
	}
	if p.states {
		d["thresholds"] = object{"mode": "absolute", "steps": []object{{"color": "red", "value": nil}, {"color": "green", "value": 1}}}
		d["mappings"] = []object{{"type": "value", "options": object{
			"0": object{"text": "down", "color": "red", "index": 0}, "1": object{"text": "up", "color": "green", "index": 1},
		}}}
	}
	if p.kind == "timeseries" {
		d["min"] = 0
		d["custom"] = object{"drawStyle": "line", "lineWidth": 1, "fillOpacity": 10, "showPoints": "auto"}
	}
	if p.unit == "percentunit" {
		d["min"], d["max"] = 0, 1
	}
	return d
}

func (p panel) options() object {
	legend := object{"showLegend": true, "displayMode": "list", "placement": "bottom", "calcs": []string{}}
	reduce := object{"calcs": []string{"lastNotNull"}, "fields": "", "values": false}
	switch p.kind {
	case "timeseries":
		return object{"legend": legend, "tooltip": object{"mode": "multi", "sort": "desc"}}
	case "state-timeline":
		return object{
			"legend": legend, "tooltip": object{"mode": "single", "sort": "none"}, "showValue": "never", "rowHeight": 0.9, "mergeValues": true,
		}
	case "stat":
		return object{
			"reduceOptions": reduce, "colorMode": "value", "graphMode": "none", "justifyMode": "auto", "textMode": "auto",
			"orientation": "auto", "wideLayout": true, "showPercentChange": false, "percentChangeColorMode": "standard",
		}
	case "bargauge":
		return object{
			"reduceOptions": reduce, "displayMode": "basic", "orientation": "horizontal", "valueMode": "color", "namePlacement": "auto",
			"showUnfilled": true, "minVizWidth": 8, "minVizHeight": 16, "maxVizHeight": 300, "sizing": "auto",
			"legend": object{"showLegend": false, "displayMode": "list", "placement": "bottom", "calcs": []string{}},
		}
	case "heatmap":
		return object{
			"calculate": false, "cellGap": 1, "showValue": "never", "yAxis": object{"unit": p.unit},
			"color":     object{"mode": "scheme", "scheme": "Oranges", "exponent": 0.5, "fill": "dark-orange", "reverse": false, "steps": 64},
			"exemplars": object{"color": "rgba(255,0,255,0.7)"}, "legend": object{"show": true},
			"tooltip": object{"mode": "single", "yHistogram": false},
		}
	}
	return object{"showHeader": true, "cellHeight": "sm"}
}
