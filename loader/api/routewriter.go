package api

import (
	"bytes"
	"encoding/json"
	"strconv"

	"roam/loader/route"
)

// RouteWriter writes route lists that ReadRoutes reads. Like the reader it does a thing once: what stands behind
// the prefix is rendered once per target. It is not safe for concurrent use.
//
// A list reads as if a hand had written it: a default is left out of JSON, and CSV has one of the optional columns
// only where some route needs it, which the caller finds out first with Need.
type RouteWriter struct {
	names  Names
	format Format
	needed [numColumns]bool
	rests  map[restKey][]rest
}

type restKey struct {
	tenant route.TenantID
	via    *route.Via
	site   string
	local  bool
	pinned bool
}

// rest is a line without its prefix and its MAC: what stands before the MAC, and what stands behind.
type rest struct{ before, after []byte }

// NewRouteWriter returns a writer of that format.
func NewRouteWriter(format Format, names Names) *RouteWriter {
	return &RouteWriter{names: names, format: format, rests: make(map[restKey][]rest)}
}

// Need notes what a claim takes to be written. It may keep nothing of it.
func (w *RouteWriter) Need(c *route.Claim) {
	w.needed[colMAC] = w.needed[colMAC] || !c.MAC.IsZero()
	w.needed[colSite] = w.needed[colSite] || c.Site != ""
	w.needed[colPinned] = w.needed[colPinned] || c.Pinned
	if c.Via == nil || w.needed[colRouterMAC] {
		return
	}
	for _, l := range c.Via.Locators {
		w.needed[colRouterMAC] = w.needed[colRouterMAC] || LocatorOf(l).RouterMAC != ""
	}
}

// covers tells whether the columns suffice for a claim.
func (w *RouteWriter) covers(c *route.Claim) bool {
	before := w.needed
	w.Need(c)
	return w.format != CSV || w.needed == before
}

// Header appends the line that names the columns, nothing for JSON.
func (w *RouteWriter) Header(b []byte) []byte {
	if w.format != CSV {
		return b
	}
	for col, name := range columnNames {
		if column(col) < colMAC || w.needed[col] {
			b = append(append(b, name...), ',')
		}
	}
	b[len(b)-1] = '\n'
	return b
}

// Append appends the lines of a claim.
func (w *RouteWriter) Append(b []byte, c *route.Claim) []byte {
	key := restKey{c.Tenant, c.Via, c.Site, c.Local != nil, c.Pinned}
	rests, ok := w.rests[key]
	if !ok {
		if len(w.rests) >= maxRests {
			clear(w.rests)
		}
		rests = w.render(c)
		w.rests[key] = rests
	}
	for _, r := range rests {
		if w.format == CSV {
			b = w.appendCSV(b, c, r)
			continue
		}
		b = append(b, `{"prefix":"`...)
		b = append(c.Prefix.AppendTo(b), '"')
		if !c.MAC.IsZero() {
			b = append(append(append(b, `,"mac":"`...), c.MAC.String()...), '"')
		}
		b = append(append(b, r.after...), '\n')
	}
	return b
}

func (w *RouteWriter) appendCSV(b []byte, c *route.Claim, r rest) []byte {
	b = append(c.Prefix.AppendTo(b), r.before...)
	if w.needed[colMAC] {
		b = append(b, ',')
		if !c.MAC.IsZero() {
			b = append(b, c.MAC.String()...)
		}
	}
	return append(append(b, r.after...), '\n')
}

func (w *RouteWriter) render(c *route.Claim) []rest {
	if w.format != CSV {
		return []rest{w.renderJSON(c)}
	}
	if c.Via == nil {
		return []rest{w.renderCSV(c, []string{here, "", "", ""}, "")}
	}
	var rests []rest
	for _, l := range c.Via.Locators {
		rests = append(rests, w.renderCSV(c, []string{
			l.Address.String(), l.Encap.String(), strconv.Itoa(int(l.Priority)), strconv.Itoa(int(l.Weight)),
		}, LocatorOf(l).RouterMAC))
	}
	return rests
}

func (w *RouteWriter) renderCSV(c *route.Claim, locator []string, routerMAC string) rest {
	var r rest
	r.before = append(append(r.before, ','), w.names.TenantName(c.Tenant)...)
	for _, field := range locator {
		r.before = append(append(r.before, ','), field...)
	}
	pinned := ""
	if c.Pinned {
		pinned = "true"
	}
	for i, field := range [...]string{routerMAC, c.Site, pinned} {
		if w.needed[int(colRouterMAC)+i] {
			r.after = append(append(r.after, ','), field...)
		}
	}
	return r
}

func (w *RouteWriter) renderJSON(c *route.Claim) rest {
	line := struct {
		Prefix string `json:"prefix"`
		Tenant string `json:"tenant"`
		Via    []any  `json:"via,omitempty"`
		Site   string `json:"site,omitempty"`
		Local  bool   `json:"local,omitempty"`
		Pinned bool   `json:"pinned,omitempty"`
	}{Tenant: w.names.TenantName(c.Tenant), Site: c.Site, Local: c.Local != nil, Pinned: c.Pinned}
	if c.Via != nil {
		for _, l := range c.Via.Locators {
			m := LocatorOf(l)
			if m == (Locator{Address: l.Address, Encap: route.VXLAN.String(), Priority: route.DefaultPriority, Weight: route.DefaultWeight}) {
				line.Via = append(line.Via, l.Address)
				continue
			}
			line.Via = append(line.Via, m)
		}
	}
	b, err := json.Marshal(line)
	if err != nil {
		panic("encode a route: " + err.Error()) // strings, numbers and addresses: there is nothing to fail
	}
	return rest{after: bytes.TrimPrefix(b, []byte(`{"prefix":""`))}
}
