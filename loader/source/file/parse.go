package file

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"roam/loader/route"
)

const (
	maxErrors   = 20 // reported of one file
	maxLocators = 64 // of one route: the members of a next-hop set of the data path
)

// Parse reads a route file: a list of {prefix, tenant, mac, pinned, via}, where via is a list of {address, encap,
// priority, weight, router_mac} or plain addresses, or one plain address. name stands in the messages. The error
// joins one for everything that is wrong, each with file, line and column, the first 20 of them.
func Parse(name string, data []byte, tenant func(string) (route.TenantID, bool)) ([]route.Change, error) {
	p := &parse{name: name, tenant: tenant, lines: make(map[route.Key]int)}
	tree, err := parser.ParseBytes(data, 0)
	if err != nil {
		var at yaml.Error
		if errors.As(err, &at) && at.GetToken() != nil {
			pos := at.GetToken().Position
			return nil, fmt.Errorf("%s:%d:%d: not YAML: %s", name, pos.Line, pos.Column, at.GetMessage())
		}
		return nil, fmt.Errorf("%s: not YAML: %w", name, err)
	}
	for i, doc := range tree.Docs {
		if i > 0 {
			p.fail(doc.Body, "one document is expected: remove the second \"---\"")
			break
		}
		if doc.Body != nil {
			p.file(doc.Body)
		}
	}
	if len(p.errs) > 0 {
		return nil, errors.Join(p.errs...)
	}
	return p.changes, nil
}

type parse struct {
	name    string
	tenant  func(string) (route.TenantID, bool)
	in      route.Interner
	lines   map[route.Key]int
	changes []route.Change
	errs    []error
}

// fail notes an error at a node; more than enough is enough.
func (p *parse) fail(n ast.Node, format string, args ...any) {
	if len(p.errs) == maxErrors {
		p.errs = append(p.errs, fmt.Errorf("%s: and more", p.name))
	}
	if len(p.errs) > maxErrors {
		return
	}
	place := p.name
	if line, column := position(n); line > 0 {
		place = fmt.Sprintf("%s:%d:%d", p.name, line, column)
	}
	p.errs = append(p.errs, fmt.Errorf("%s: %w", place, fmt.Errorf(format, args...)))
}

// position is where a reader would point: of a block mapping, its first key.
func position(n ast.Node) (line, column int) {
	if m, ok := n.(*ast.MappingNode); ok && !m.IsFlowStyle && len(m.Values) > 0 {
		return position(m.Values[0].Key)
	}
	if n == nil || n.GetToken() == nil || n.GetToken().Position == nil {
		return 0, 0
	}
	return n.GetToken().Position.Line, n.GetToken().Position.Column
}

func (p *parse) file(root ast.Node) {
	list, ok := root.(*ast.SequenceNode)
	if !ok {
		p.fail(root, "a list of routes is expected: start each with \"- prefix: ...\"")
		return
	}
	p.changes = make([]route.Change, 0, len(list.Values))
	for _, item := range list.Values {
		p.route(item)
	}
}

// fields reads a mapping with these keys and no others; null stands for a missing value.
func (p *parse) fields(n ast.Node, known ...string) (map[string]ast.Node, bool) {
	m, ok := n.(*ast.MappingNode)
	if !ok {
		p.fail(n, "a mapping with the keys %s is expected", strings.Join(known, ", "))
		return nil, false
	}
	values := make(map[string]ast.Node, len(m.Values))
	for _, kv := range m.Values {
		key, isText := kv.Key.(*ast.StringNode)
		if !isText || !slices.Contains(known, key.Value) {
			p.fail(kv.Key, "unknown key %.40s: known here are %s", kv.Key, strings.Join(known, ", "))
			ok = false
			continue
		}
		if _, null := kv.Value.(*ast.NullNode); !null {
			values[key.Value] = kv.Value
		}
	}
	return values, ok
}

// text reads a scalar as it is written, "" for a missing one.
func (p *parse) text(n ast.Node) (string, bool) {
	switch n := n.(type) {
	case nil:
		return "", true
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return n.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return n.GetToken().Value, true
	}
	p.fail(n, "a single value is expected")
	return "", false
}

func (p *parse) route(n ast.Node) {
	f, ok := p.fields(n, "prefix", "tenant", "mac", "pinned", "via")
	if f == nil {
		return
	}
	var c route.Change
	for _, read := range []func(map[string]ast.Node, ast.Node, *route.Change) bool{p.prefix, p.inTenant, p.mac, p.pinned, p.via} {
		ok = read(f, n, &c) && ok
	}
	if !ok {
		return
	}
	line, _ := position(n)
	if first, twice := p.lines[c.Key]; twice {
		p.fail(cmp.Or(f["prefix"], n), "%s is already on line %d: give all its locators there", c.Prefix, first)
		return
	}
	p.lines[c.Key] = line
	p.changes = append(p.changes, c)
}

func (p *parse) prefix(f map[string]ast.Node, n ast.Node, c *route.Change) bool {
	s, ok := p.text(f["prefix"])
	if !ok {
		return false
	}
	if f["prefix"] == nil {
		p.fail(n, "prefix is missing")
		return false
	}
	prefix, err := netip.ParsePrefix(s)
	if err != nil {
		a, err := netip.ParseAddr(s)
		if err != nil || a.Zone() != "" {
			p.fail(f["prefix"], "%.80q is no prefix such as 10.1.0.7/32 or \"2001:db8:1::7/128\"", s)
			return false
		}
		prefix = netip.PrefixFrom(a, a.BitLen())
	}
	if err := route.ValidPrefix(prefix); err != nil {
		p.fail(f["prefix"], "%w", err)
		return false
	}
	c.Prefix = prefix
	return true
}

func (p *parse) inTenant(f map[string]ast.Node, n ast.Node, c *route.Change) bool {
	name, ok := p.text(f["tenant"])
	if !ok {
		return false
	}
	if c.Tenant, ok = p.tenant(name); !ok {
		p.fail(cmp.Or(f["tenant"], n), "no tenant is named %.64q: add it to the configuration, or correct the name", name)
	}
	return ok
}

func (p *parse) mac(f map[string]ast.Node, _ ast.Node, c *route.Change) bool {
	var ok bool
	c.MAC, ok = p.station(f["mac"])
	return ok
}

// station reads a MAC address, zero for a missing one.
func (p *parse) station(n ast.Node) (route.MAC, bool) {
	s, ok := p.text(n)
	if !ok {
		return route.MAC{}, false
	}
	m, err := route.ParseMAC(s)
	if err == nil {
		err = m.Valid()
	}
	if err != nil {
		p.fail(n, "%w", err)
	}
	return m, err == nil
}

func (p *parse) pinned(f map[string]ast.Node, _ ast.Node, c *route.Change) bool {
	s, ok := p.text(f["pinned"])
	switch {
	case !ok:
		return false
	case s != "" && s != "true" && s != "false":
		p.fail(f["pinned"], "%.20q is neither true nor false", s)
		return false
	}
	c.Pinned = s == "true"
	return true
}

func (p *parse) via(f map[string]ast.Node, n ast.Node, c *route.Change) bool {
	items := []ast.Node{f["via"]}
	list, isList := f["via"].(*ast.SequenceNode)
	if isList {
		items = list.Values
	}
	if f["via"] == nil || len(items) == 0 {
		p.fail(cmp.Or(f["via"], n), "via is missing: give the locators, such as via: [192.0.2.2]")
		return false
	}
	if len(items) > maxLocators {
		p.fail(f["via"], "%d locators are given: a route takes %d", len(items), maxLocators)
		return false
	}
	locators := make([]route.Locator, 0, len(items))
	for _, item := range items {
		l, ok := p.locator(item)
		if !ok {
			return false
		}
		if slices.ContainsFunc(locators, func(o route.Locator) bool { return o.Address == l.Address }) {
			p.fail(item, "locator %s is given twice", l.Address)
			return false
		}
		locators = append(locators, l)
	}
	c.Via = p.in.Via(locators)
	return true
}

// locator reads {address, encap, priority, weight, router_mac} or a plain address.
func (p *parse) locator(n ast.Node) (route.Locator, bool) {
	l := route.Locator{Priority: route.DefaultPriority, Weight: route.DefaultWeight}
	at, ok := n, true
	if _, isMapping := n.(*ast.MappingNode); isMapping {
		f, known := p.fields(n, "address", "encap", "priority", "weight", "router_mac")
		ok = known
		if at = f["address"]; at == nil {
			p.fail(n, "address is missing")
			return l, false
		}
		ok = p.encap(f["encap"], &l.Encap) && ok
		ok = p.number(f["priority"], 0, &l.Priority) && ok
		ok = p.number(f["weight"], 1, &l.Weight) && ok
		var right bool
		l.RouterMAC, right = p.station(f["router_mac"])
		ok = ok && right
	}
	s, isText := p.text(at)
	if !isText || !ok {
		return l, false
	}
	var err error
	if l.Address, err = netip.ParseAddr(s); err != nil {
		p.fail(at, "%.80q is no address such as 192.0.2.2 or \"2001:db8:ff::2\"", s)
		return l, false
	}
	if err := l.Valid(); err != nil {
		p.fail(at, "%w", err)
		return l, false
	}
	return l, true
}

func (p *parse) encap(n ast.Node, into *route.Encap) bool {
	s, ok := p.text(n)
	if !ok || s == "" {
		return ok
	}
	e, err := route.ParseEncap(s)
	if err == nil {
		err = e.Valid()
	}
	if err != nil {
		p.fail(n, "%w", err)
		return false
	}
	*into = e
	return true
}

func (p *parse) number(n ast.Node, least uint64, into *uint8) bool {
	s, ok := p.text(n)
	if !ok || n == nil {
		return ok
	}
	v, err := strconv.ParseUint(s, 10, 8)
	if err != nil || v < least {
		p.fail(n, "%.20q is no number from %d to 255", s, least)
		return false
	}
	*into = uint8(v)
	return true
}
