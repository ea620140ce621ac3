package config

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// Error is one thing wrong with a configuration file.
type Error struct {
	File         string
	Line, Column int    // from 1; 0 where the file as a whole is meant
	Path         string // of the key, such as tenants[0].segments[1].access.vlan; "" for the whole file
	Message      string
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", e.Line, e.Column)
	}
	if e.Path != "" {
		b.WriteString(": " + e.Path)
	}
	return b.String() + ": " + e.Message
}

// reader collects what is wrong while the tree is walked, so that one run reports everything.
type reader struct {
	file     string
	errs     []*Error
	warnings []string
	seen     map[string]value // first use of what must be unique
	ports    []Port           // access and uplink
	subnets  []placed         // of the tenant being read
	remotes  map[netip.Addr]value
}

// value is a node of the tree with its place. Every method works on an absent value too and then reports
// nothing, so that a mistake is reported once and not again by whoever reads below it.
type value struct {
	r    *reader
	node ast.Node // nil: the key is absent, empty or null
	at   *token.Position
	path string
}

// open parses data into the value of its root.
func (r *reader) open(data []byte) (value, bool) {
	tree, err := parser.ParseBytes(data, 0)
	if err != nil {
		r.syntax(err)
		return value{}, false
	}
	root := value{r: r}
	switch {
	case len(tree.Docs) > 1:
		root.at = tree.Docs[1].GetToken().Position
		root.fail("one document is expected: remove the second \"---\"")
		return root, false
	case len(tree.Docs) == 1 && tree.Docs[0].Body != nil:
		root.node = tree.Docs[0].Body
		root.at = position(root.node)
	}
	return root, true
}

func (r *reader) syntax(err error) {
	e := &Error{File: r.file, Message: err.Error()}
	var at yaml.Error
	if errors.As(err, &at) {
		e.Message = at.GetMessage()
		if tk := at.GetToken(); tk != nil && tk.Position != nil {
			e.Line, e.Column = tk.Position.Line, tk.Position.Column
		}
	}
	e.Message = "not YAML: " + e.Message
	r.errs = append(r.errs, e)
}

// err returns everything found, in the order of the file.
func (r *reader) err() error {
	slices.SortStableFunc(r.errs, func(a, b *Error) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	all := make([]error, len(r.errs))
	for i, e := range r.errs {
		all[i] = e
	}
	return errors.Join(all...)
}

// position is where a reader of the file would point: of a block mapping, the first key.
func position(n ast.Node) *token.Position {
	if m, ok := n.(*ast.MappingNode); ok && !m.IsFlowStyle && len(m.Values) > 0 {
		return position(m.Values[0].Key)
	}
	if tk := n.GetToken(); tk != nil {
		return tk.Position
	}
	return nil
}

func (v value) absent() bool { return v.node == nil }

func (v value) fail(format string, args ...any) {
	e := &Error{File: v.r.file, Path: v.path, Message: fmt.Sprintf(format, args...)}
	if v.at != nil {
		e.Line, e.Column = v.at.Line, v.at.Column
	}
	v.r.errs = append(v.r.errs, e)
}

func (v value) warn(format string, args ...any) {
	place := v.path
	if v.at != nil {
		place = fmt.Sprintf("%s:%d: %s", v.r.file, v.at.Line, v.path)
	}
	v.r.warnings = append(v.r.warnings, place+": "+fmt.Sprintf(format, args...))
}

// child gives the place below v named by a path element. An absent child points at its parent.
func (v value) child(element string, n ast.Node, at *token.Position) value {
	c := value{r: v.r, at: v.at, path: v.path + element}
	if v.path == "" {
		c.path = strings.TrimPrefix(c.path, ".")
	}
	if at != nil {
		c.at = at
	}
	switch n := n.(type) {
	case nil, *ast.NullNode:
	case *ast.AnchorNode, *ast.AliasNode, *ast.TagNode, *ast.MergeKeyNode:
		c.at = position(n)
		c.fail("anchors, aliases and tags are not taken here: write the value out")
	default:
		c.node = n
		if p := position(n); p != nil {
			c.at = p
		}
	}
	return c
}

// fields is a mapping whose keys were checked.
type fields struct {
	of     value
	values map[string]value
}

// get returns the value of one of the known keys.
func (f fields) get(key string) value {
	if v, ok := f.values[key]; ok {
		return v
	}
	return f.of.child("."+key, nil, nil)
}

// require is get for a key that has no default.
func (f fields) require(key, wayOut string) value {
	v := f.get(key)
	if v.absent() && (f.of.absent() || f.of.isMapping()) && !f.of.r.failedAt(v.path) {
		v.fail("is missing: %s", wayOut)
	}
	return v
}

// failedAt tells whether the value of that path was already refused, and therefore reads as absent.
func (r *reader) failedAt(path string) bool {
	return slices.ContainsFunc(r.errs, func(e *Error) bool { return e.Path == path })
}

// mapping reads a mapping with these keys and no others.
func (v value) mapping(known ...string) fields {
	f := fields{of: v, values: make(map[string]value)}
	if v.absent() {
		return f
	}
	m, ok := v.node.(*ast.MappingNode)
	if !ok {
		v.fail("a mapping with the keys %s is expected, this is %s", strings.Join(known, ", "), kind(v.node))
		return f
	}
	for _, kv := range m.Values {
		at := position(kv.Key)
		name := keyName(kv.Key)
		c := v.child("."+name, kv.Value, at)
		if _, merge := kv.Key.(*ast.MergeKeyNode); merge || !slices.Contains(known, name) {
			c.at = at
			c.fail("unknown key: known here are %s", strings.Join(known, ", "))
			continue
		}
		if sentence, ok := later[generic(c.path)]; ok && !c.absent() {
			c.warn("%s", sentence)
		}
		f.values[name] = c
	}
	return f
}

func keyName(k ast.MapKeyNode) string {
	if s, ok := k.(*ast.StringNode); ok {
		return s.Value
	}
	return k.String()
}

// list reads a sequence.
func (v value) list() []value {
	if v.absent() {
		return nil
	}
	s, ok := v.node.(*ast.SequenceNode)
	if !ok {
		v.fail("a list is expected, this is %s: put it into [ ]", kind(v.node))
		return nil
	}
	items := make([]value, 0, len(s.Values))
	for i, n := range s.Values {
		item := v.child(fmt.Sprintf("[%d]", i), n, nil)
		if item.absent() {
			if !v.r.failedAt(item.path) {
				item.fail("is empty: fill it in or remove it")
			}
			continue
		}
		items = append(items, item)
	}
	return items
}

// all reads a list of values of one kind; those that were refused are left out.
func all[T any](v value, read func(value) (T, bool)) []T {
	var out []T
	for _, item := range v.list() {
		if t, ok := read(item); ok {
			out = append(out, t)
		}
	}
	return out
}

// text reads a scalar as it is written.
func (v value) text() (string, bool) {
	switch n := v.node.(type) {
	case nil:
		return "", false
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return n.Value.Value, true
	case *ast.MappingNode, *ast.SequenceNode, *ast.MappingValueNode:
		v.fail("a single value is expected, this is %s", kind(v.node))
		return "", false
	}
	return v.node.GetToken().Value, true
}

// unique reports a second use of a name among things of one kind.
func (v value) unique(kind, name string) bool {
	key := kind + "\x00" + name
	if first, ok := v.r.seen[key]; ok {
		v.fail("%s %s is already used on line %d by %s", kind, name, first.at.Line, first.path)
		return false
	}
	if v.r.seen == nil {
		v.r.seen = make(map[string]value)
	}
	v.r.seen[key] = v
	return true
}

// generic is a path without list positions: the key in the tables of keys.
func generic(path string) string {
	var b strings.Builder
	depth := 0
	for _, c := range path {
		switch {
		case c == '[':
			depth++
		case c == ']':
			depth--
		case depth == 0:
			b.WriteRune(c)
		}
	}
	return b.String()
}

func kind(n ast.Node) string {
	switch n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a mapping"
	case *ast.SequenceNode:
		return "a list"
	case *ast.NullNode:
		return "empty"
	}
	return "a single value"
}

func (v value) isMapping() bool {
	_, ok := v.node.(*ast.MappingNode)
	return ok
}

func (v value) isList() bool {
	_, ok := v.node.(*ast.SequenceNode)
	return ok
}
