package api

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"roam/loader/route"
)

// column is a column of a CSV route list.
type column int

const (
	colPrefix column = iota
	colTenant
	colLocator // an address, or "local"
	colEncap
	colPriority
	colWeight
	colMAC // this one and the following are optional
	colRouterMAC
	colSite
	colPinned
	numColumns
)

var columnNames = [numColumns]string{
	"prefix", "tenant", "locator", "encap", "priority", "weight", "mac", "router_mac", "site", "pinned",
}

// here is the locator of a route that points to this gateway's own segment.
const here = "local"

// columns says which column each field of a line is.
type columns []column

// standard is the order without a header line.
var standard = columns{colPrefix, colTenant, colLocator, colEncap, colPriority, colWeight, colMAC}

// header reads the first line as one that names columns, if its first field is no prefix.
func header(fields [][]byte) (columns, bool, error) {
	if _, err := parsePrefix(fields[0]); err == nil {
		return standard, false, nil
	}
	var cols columns
	for _, f := range fields {
		i := slices.Index(columnNames[:], strings.ToLower(string(f)))
		switch {
		case i < 0 && len(cols) == 0 && bytes.ContainsAny(f, ".:/"):
			return standard, false, nil // a line of data whose prefix is wrong, to be reported as one
		case i < 0:
			return nil, true, fmt.Errorf("unknown column %.40q: known are %s", f, strings.Join(columnNames[:], ", "))
		case slices.Contains(cols, column(i)):
			return nil, true, fmt.Errorf("column %s is named twice", f)
		}
		cols = append(cols, column(i))
	}
	if !slices.Contains(cols, colPrefix) || !slices.Contains(cols, colLocator) && !slices.Contains(cols, colSite) {
		return nil, true, fmt.Errorf("the columns prefix and locator are needed")
	}
	return cols, true, nil
}

// csv reads one line of comma-separated values.
func (l *listReader) csv(line []byte) error {
	var space [numColumns + 1][]byte
	fields, err := split(line, space[:0])
	if err != nil {
		return err
	}
	if l.columns == nil {
		named := false
		if l.columns, named, err = header(fields); named || err != nil {
			return err
		}
	}
	if len(fields) > len(l.columns) {
		return fmt.Errorf("%d fields for %d columns (%s)", len(fields), len(l.columns), l.columns)
	}
	var prefix, mac []byte
	l.key = l.key[:0]
	for i, f := range fields {
		switch l.columns[i] {
		case colPrefix:
			prefix = f
		case colMAC:
			mac = f
		default:
			l.key = append(append(l.key, f...), ',')
		}
	}
	c, err := l.rest(l.key, func() (route.Change, error) { return l.fields(fields) })
	if err != nil {
		return err
	}
	if c.Prefix, err = parsePrefix(prefix); err != nil {
		return err
	}
	if c.MAC, err = parseMAC(string(mac)); err != nil {
		return err
	}
	if first := l.add(c); first != nil {
		return l.join(first, &c)
	}
	return nil
}

func (c columns) String() string {
	names := make([]string, len(c))
	for i, col := range c {
		names[i] = columnNames[col]
	}
	return strings.Join(names, ",")
}

// split cuts a line at its commas. Nothing that belongs into a route list needs quotes; those that a program set
// around a field anyway are taken off.
func split(line []byte, fields [][]byte) ([][]byte, error) {
	for {
		field, rest, more := bytes.Cut(line, []byte{','})
		field = bytes.TrimSpace(field)
		if n := len(field); n >= 2 && field[0] == '"' && field[n-1] == '"' {
			field = field[1 : n-1]
		}
		if bytes.IndexByte(field, '"') >= 0 {
			return nil, fmt.Errorf("%.60q: no field holds a quote or a comma", field)
		}
		if len(fields) > int(numColumns) {
			return nil, fmt.Errorf("more than %d fields", numColumns)
		}
		fields = append(fields, field)
		if !more {
			return fields, nil
		}
		line = rest
	}
}

// fields decodes everything but the prefix and the MAC.
func (l *listReader) fields(fields [][]byte) (route.Change, error) {
	var at [numColumns]string
	for i, f := range fields {
		at[l.columns[i]] = string(f)
	}
	n := NewRoute{Tenant: at[colTenant], Site: at[colSite]}
	switch at[colPinned] {
	case "", "false", "0":
	case "true", "1":
		n.Pinned = true
	default:
		return route.Change{}, fmt.Errorf("pinned %.20q is neither true nor false", at[colPinned])
	}
	switch {
	case at[colLocator] == here:
		n.Local = true
	case at[colLocator] == "" && n.Site == "":
		return route.Change{}, fmt.Errorf("no locator: a line is %s", standard)
	case at[colLocator] != "":
		locator, err := csvLocator(&at)
		if err != nil {
			return route.Change{}, err
		}
		n.Via = []Locator{locator}
	}
	return l.target(&n)
}

func csvLocator(at *[numColumns]string) (Locator, error) {
	l := Locator{
		Encap: route.VXLAN.String(), Priority: route.DefaultPriority, Weight: route.DefaultWeight,
		RouterMAC: at[colRouterMAC],
	}
	var err error
	if l.Address, err = netip.ParseAddr(at[colLocator]); err != nil {
		return l, fmt.Errorf("locator %.60q is no address", at[colLocator])
	}
	if at[colEncap] != "" {
		l.Encap = at[colEncap]
	}
	for _, field := range [...]struct {
		col  column
		into *uint8
	}{{colPriority, &l.Priority}, {colWeight, &l.Weight}} {
		if at[field.col] == "" {
			continue
		}
		n, err := strconv.ParseUint(at[field.col], 10, 8)
		if err != nil {
			return l, fmt.Errorf("%s %.20q is no number from 0 to 255", columnNames[field.col], at[field.col])
		}
		*field.into = uint8(n)
	}
	return l, nil
}

// join adds the locator of a later line to the route of an earlier one.
func (l *listReader) join(first, c *route.Change) error {
	if first.Via == nil || c.Via == nil {
		return fmt.Errorf("%s points both here and elsewhere in this list", c.Prefix)
	}
	if first.MAC != c.MAC || first.Site != c.Site || first.Pinned != c.Pinned {
		return fmt.Errorf("%s is in the list already with another mac, site or pinned", c.Prefix)
	}
	pair := [2]*route.Via{first.Via, c.Via}
	via, ok := l.joined[pair]
	if !ok {
		for _, added := range c.Via.Locators {
			if slices.ContainsFunc(first.Via.Locators, func(old route.Locator) bool { return old.Address == added.Address }) {
				return fmt.Errorf("%s is in the list already with locator %s", c.Prefix, added.Address)
			}
		}
		all := slices.Concat(first.Via.Locators, c.Via.Locators)
		if len(all) > MaxLocators {
			return fmt.Errorf("%s has more than %d locators", c.Prefix, MaxLocators)
		}
		via = l.in.Via(all)
		if l.joined == nil {
			l.joined = make(map[[2]*route.Via]*route.Via)
		}
		if len(l.joined) < maxRests {
			l.joined[pair] = via
		}
	}
	first.Via = via
	return nil
}

// parsePrefix is ParsePrefix for bytes, with a short cut for the shape that a million lines have.
func parsePrefix(b []byte) (netip.Prefix, error) {
	if a, ok := parseHost4(b); ok {
		return netip.PrefixFrom(a, 32), route.ValidHost(a)
	}
	return ParsePrefix(string(b))
}

// parseHost4 reads exactly a.b.c.d/32.
func parseHost4(b []byte) (netip.Addr, bool) {
	b, ok := bytes.CutSuffix(b, []byte("/32"))
	if !ok || len(b) > 15 {
		return netip.Addr{}, false
	}
	var a [4]byte
	part, digits, n := 0, 0, 0
	for _, c := range b {
		switch {
		case '0' <= c && c <= '9' && digits < 3 && (digits == 0 || n != 0):
			n = n*10 + int(c-'0')
			digits++
		case c == '.' && digits > 0 && part < 3 && n < 256:
			a[part] = byte(n)
			part, digits, n = part+1, 0, 0
		default:
			return netip.Addr{}, false
		}
	}
	if part != 3 || digits == 0 || n > 255 {
		return netip.Addr{}, false
	}
	a[3] = byte(n)
	return netip.AddrFrom4(a), true
}
