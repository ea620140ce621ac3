package api

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"roam/loader/route"
)

// fakeNames knows two tenants and three sites.
type fakeNames struct{}

func (fakeNames) TenantID(name string) (route.TenantID, bool) {
	id, ok := map[string]route.TenantID{"": 1, "default": 1, "blue": 2}[name]
	return id, ok
}

func (fakeNames) TenantName(id route.TenantID) string { return []string{"", "default", "blue"}[id] }

func (fakeNames) SiteLocators(name string) ([]route.Locator, bool, bool) {
	switch name {
	case "dc1":
		return nil, true, true
	case "dc2":
		return []route.Locator{locator("192.0.2.2"), locator("2001:db8:ff::2")}, false, true
	}
	return nil, false, false
}

func locator(s string) route.Locator {
	return route.Locator{Address: netip.MustParseAddr(s), Priority: 1, Weight: 100}
}

func claim(prefix string, locators ...route.Locator) route.Change {
	c := route.Change{Claim: route.Claim{Key: route.Key{Tenant: 1, Prefix: netip.MustParsePrefix(prefix)}}}
	if len(locators) == 0 {
		c.Local = &route.Local{}
		return c
	}
	c.Via = &route.Via{Locators: locators}
	return c
}

func with(c route.Change, f func(*route.Change)) route.Change {
	f(&c)
	return c
}

func equal(t *testing.T, got, want any) {
	t.Helper()
	opts := cmp.Options{
		cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
		cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	}
	if d := cmp.Diff(want, got, opts); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
}

var lists = []struct {
	name   string
	format Format
	in     string
	want   []route.Change
}{
	{
		"plain", CSV, "10.0.0.1/32,default,192.0.2.2,vxlan,1,100\n2001:db8::1/128,,192.0.2.2,,,\n",
		[]route.Change{claim("10.0.0.1/32", locator("192.0.2.2")), claim("2001:db8::1/128", locator("192.0.2.2"))},
	},
	{"no end of line", CSV, "10.0.0.1,default,192.0.2.2", []route.Change{claim("10.0.0.1/32", locator("192.0.2.2"))}},
	{
		"header, spaces, carriage returns, byte order mark, comments, empty lines", CSV,
		"\ufeffPrefix, Tenant, Locator\r\n# one\r\n\r\n 10.0.0.1/32 , default , 192.0.2.2 \r\n",
		[]route.Change{claim("10.0.0.1/32", locator("192.0.2.2"))},
	},
	{
		"columns in another order, quoted", CSV, "\"weight\",\"locator\",\"prefix\"\n\"7\",\"192.0.2.2\",\"10.0.0.0/8\"\n",
		[]route.Change{claim("10.0.0.0/8", with(claim("0.0.0.0/0", locator("192.0.2.2")), func(c *route.Change) { c.Via.Locators[0].Weight = 7 }).Via.Locators...)},
	},
	{"only a header", CSV, "prefix,tenant,locator,encap,priority,weight\n", nil},
	{"nothing", CSV, "", nil},
	{"nothing in JSON", JSONL, "\n\n", nil},
	{
		"lines of one prefix, apart", CSV,
		"10.0.0.1/32,,192.0.2.2\n10.0.0.2/32,,192.0.2.3\n10.0.0.1/32,,192.0.2.3\n10.0.0.2/32,,192.0.2.2\n",
		[]route.Change{
			claim("10.0.0.1/32", locator("192.0.2.2"), locator("192.0.2.3")),
			claim("10.0.0.2/32", locator("192.0.2.3"), locator("192.0.2.2")),
		},
	},
	{
		"one prefix in two tenants", CSV, "10.0.0.1/32,,192.0.2.2\n10.0.0.1/32,blue,192.0.2.2\n",
		[]route.Change{claim("10.0.0.1/32", locator("192.0.2.2")), with(claim("10.0.0.1/32", locator("192.0.2.2")), func(c *route.Change) { c.Tenant = 2 })},
	},
	{
		"mac and local", CSV, "10.0.0.1/32,,local,,,,02:00:00:00:00:07\n",
		[]route.Change{with(claim("10.0.0.1/32"), func(c *route.Change) { c.MAC = route.MAC{2, 0, 0, 0, 0, 7} })},
	},
	{
		"all columns", CSV, "prefix,locator,router_mac,site,pinned\n10.0.0.1/32,192.0.2.2,02:00:00:00:00:07,dc9,true\n10.0.0.2/32,,,dc2,\n",
		[]route.Change{
			with(claim("10.0.0.1/32", locator("192.0.2.2")), func(c *route.Change) {
				c.Via.Locators[0].RouterMAC, c.Site, c.Pinned = route.MAC{2, 0, 0, 0, 0, 7}, "dc9", true
			}),
			with(claim("10.0.0.2/32", locator("192.0.2.2"), locator("2001:db8:ff::2")), func(c *route.Change) { c.Site = "dc2" }),
		},
	},
	{
		"JSON", JSONL, `{"prefix":"10.0.0.1/32","tenant":"blue","via":["192.0.2.2",{"address":"2001:db8:ff::2","priority":0,"weight":9,"router_mac":"02:00:00:00:00:07"}],"mac":"02:00:00:00:00:08","pinned":true}`,
		[]route.Change{with(claim("10.0.0.1/32", locator("192.0.2.2"), locator("2001:db8:ff::2")), func(c *route.Change) {
			c.Tenant, c.MAC, c.Pinned = 2, route.MAC{2, 0, 0, 0, 0, 8}, true
			c.Via.Locators[1].Priority, c.Via.Locators[1].Weight, c.Via.Locators[1].RouterMAC = 0, 9, route.MAC{2, 0, 0, 0, 0, 7}
		})},
	},
	{
		"JSON, the same rest behind other prefixes, in every spelling", JSONL, `
{"prefix":"10.0.0.1/32","via":["192.0.2.2"]}
{"prefix": "10.0.0.2/32", "via": ["192.0.2.2"]}
{"prefix": "10.0.0.3/32", "via": ["192.0.2.2"]}
{"prefix":"10.0.0.4/32","mac":"02:00:00:00:00:01","via":["192.0.2.2"]}
{"prefix":"10.0.0.5/32","mac":"02:00:00:00:00:02","via":["192.0.2.2"]}
{"via":["192.0.2.2"],"prefix":"10.0.0.6"}
{"prefix":"10.0.0.8/32","via":["192.0.2.2"],"prefix":"10.0.0.7/32"}
{"prefix":"10.0.0.9/32","via":["192.0.2.2"],"Prefix":"10.0.0.8/32"}
{"prefix":"10.0.0.1/32","via":["192.0.2.2"],"\u0070refix":"10.0.0.9/32"}
`,
		[]route.Change{
			claim("10.0.0.1/32", locator("192.0.2.2")), claim("10.0.0.2/32", locator("192.0.2.2")),
			claim("10.0.0.3/32", locator("192.0.2.2")),
			with(claim("10.0.0.4/32", locator("192.0.2.2")), func(c *route.Change) { c.MAC = route.MAC{2, 0, 0, 0, 0, 1} }),
			with(claim("10.0.0.5/32", locator("192.0.2.2")), func(c *route.Change) { c.MAC = route.MAC{2, 0, 0, 0, 0, 2} }),
			claim("10.0.0.6/32", locator("192.0.2.2")), claim("10.0.0.7/32", locator("192.0.2.2")),
			claim("10.0.0.8/32", locator("192.0.2.2")), claim("10.0.0.9/32", locator("192.0.2.2")),
		},
	},
	{
		"JSON by site", JSONL, `{"prefix":"10.0.0.1/32","site":"dc2"}` + "\n" + `{"prefix":"10.0.0.2/32","site":"dc1"}` + "\n" + `{"prefix":"10.0.0.3/32","local":true}`,
		[]route.Change{
			with(claim("10.0.0.1/32", locator("192.0.2.2"), locator("2001:db8:ff::2")), func(c *route.Change) { c.Site = "dc2" }),
			with(claim("10.0.0.2/32"), func(c *route.Change) { c.Site = "dc1" }),
			claim("10.0.0.3/32"),
		},
	},
}

func TestReadRoutes(t *testing.T) {
	for _, test := range lists {
		t.Run(test.name, func(t *testing.T) {
			got, _, err := ReadRoutes(strings.NewReader(test.in), test.format, fakeNames{}, 0, nil)
			if err != nil {
				t.Fatal(err)
			}
			equal(t, got, test.want)
		})
	}
}

func TestWrongRoutes(t *testing.T) {
	for _, test := range []struct {
		format   Format
		in, want string
	}{
		{CSV, "10.0.0.300/32,default,192.0.2.2", `line 1: "10.0.0.300/32" is no prefix such as 10.1.0.7/32, 10.2.0.0/16 or 2001:db8:1::7/128`},
		{CSV, "10.0.0.1/32,,192.0.2.2\n10.0.0.1/33,,192.0.2.2", `line 2: "10.0.0.1/33" is no prefix such as 10.1.0.7/32, 10.2.0.0/16 or 2001:db8:1::7/128`},
		{CSV, "10.0.0.1/24,,192.0.2.2", `line 1: 10.0.0.1/24 has bits set to the right of its length: write 10.0.0.0/24`},
		{CSV, "224.0.0.1/32,,192.0.2.2", `line 1: 224.0.0.1 is a multicast address`},
		{CSV, "::ffff:10.0.0.1/128,,192.0.2.2", `line 1: ::ffff:10.0.0.1 is an IPv4-mapped IPv6 address: write 10.0.0.1`},
		{CSV, "::ffff:10.0.0.0/112,,192.0.2.2", `line 1: ::ffff:10.0.0.0/112 is an IPv4-mapped IPv6 prefix: write it as IPv4`},
		{CSV, "fe80::1%lan0,,192.0.2.2", `line 1: "fe80::1%lan0" is no prefix such as 10.1.0.7/32, 10.2.0.0/16 or 2001:db8:1::7/128`},
		{CSV, "10.0.0.1/32,red,192.0.2.2", `line 1: no tenant is named "red"`},
		{CSV, "10.0.0.1/32,,", `line 1: no locator: a line is prefix,tenant,locator,encap,priority,weight,mac`},
		{CSV, "10.0.0.1/32", `line 1: no locator: a line is prefix,tenant,locator,encap,priority,weight,mac`},
		{CSV, "10.0.0.1/32,,gw2", `line 1: locator "gw2" is no address`},
		{CSV, "10.0.0.1/32,,0.0.0.0", `line 1: locator 0.0.0.0: 0.0.0.0 is the unspecified address`},
		{CSV, "10.0.0.1/32,,192.0.2.2,mpls", `line 1: locator 192.0.2.2: unknown encapsulation "mpls": use one of vxlan, vxlan-gpe, geneve, gre, ipip, gue, lisp, geneve-l2, gre-nokey`},
		{CSV, "10.0.0.1/32,,192.0.2.2,vxlan,256", `line 1: priority "256" is no number from 0 to 255`},
		{CSV, "10.0.0.1/32,,192.0.2.2,vxlan,1,0", `line 1: locator 192.0.2.2: weight 0 would carry nothing: use 1..255, or priority 255 to take the locator out`},
		{CSV, "10.0.0.1/32,,192.0.2.2,vxlan,1,100,ff:ff:ff:ff:ff:ff", `line 1: ff:ff:ff:ff:ff:ff is a multicast MAC address: a station's has an even first byte`},
		{CSV, "10.0.0.1/32,,192.0.2.2,vxlan,1,100,,x", `line 1: 8 fields for 7 columns (prefix,tenant,locator,encap,priority,weight,mac)`},
		{CSV, "10.0.0.1/32,\"a\"b\",192.0.2.2", `line 1: "a\"b": no field holds a quote or a comma`},
		{CSV, "10.0.0.1/32,,192.0.2.2\n\n10.0.0.1/32,,192.0.2.2", `line 3: 10.0.0.1/32 is in the list already with locator 192.0.2.2`},
		{CSV, "10.0.0.1/32,,192.0.2.2\n10.0.0.1/32,,local", `line 2: 10.0.0.1/32 points both here and elsewhere in this list`},
		{CSV, "10.0.0.1/32,,192.0.2.2\n10.0.0.1/32,,192.0.2.3,,,,02:00:00:00:00:01", `line 2: 10.0.0.1/32 is in the list already with another mac, site or pinned`},
		{CSV, "prefix,tenant\n", `line 1: the columns prefix and locator are needed`},
		{CSV, "prefix,locator,colour\n", `line 1: unknown column "colour": known are prefix, tenant, locator, encap, priority, weight, mac, router_mac, site, pinned`},
		{CSV, "prefix,locator,prefix\n", `line 1: column prefix is named twice`},
		{CSV, "prefix,locator,pinned\n10.0.0.1,192.0.2.2,maybe", `line 2: pinned "maybe" is neither true nor false`},
		{CSV, "10.0.0.1/32,,192.0.2.2\n" + strings.Repeat("x", 70000), `line 2: longer than 65536 bytes`},
		{CSV, strings.Repeat(",", 20), `line 1: more than 10 fields`},
		{JSONL, `{"prefix":"10.0.0.1/32"`, `line 1: "{\"prefix\":\"10.0.0.1/32\"" is not JSON: unexpected EOF`},
		{JSONL, `10.0.0.1/32,default`, `line 1: "10.0.0.1/32,default" is no JSON object such as {"prefix":"10.1.0.7/32","via":["192.0.2.2"]}`},
		{JSONL, `{"prefix":"10.0.0.1/32","via":["192.0.2.2"]} {}`, `line 1: more than one JSON value`},
		{JSONL, `{"prefix":"10.0.0.1/32","locator":"192.0.2.2"}`, `line 1: unknown field "locator"`},
		{JSONL, `{"prefix":"10.0.0.1/32","via":[{"address":"192.0.2.2","wieght":1}]}`, `line 1: unknown field "wieght"`},
		{JSONL, `{"prefix":"10.0.0.1/32","via":["gw2"]}`, `line 1: locator "gw2" is no address`},
		{JSONL, `{"prefix":"10.0.0.1/32","via":["192.0.2.2","192.0.2.2"]}`, `line 1: locator 192.0.2.2 is given twice`},
		{JSONL, `{"prefix":"10.0.0.1/32"}`, `line 1: neither via nor site is given: say where the route points to`},
		{JSONL, `{"prefix":"10.0.0.1/32","local":true,"via":["192.0.2.2"]}`, `line 1: both via and local are given: a route points to one of them`},
		{JSONL, `{"prefix":"10.0.0.1/32","site":"dc9"}`, `line 1: no site is named "dc9"`},
		{JSONL, `{"tenant":"blue","via":["192.0.2.2"]}`, `line 1: "" is no prefix such as 10.1.0.7/32, 10.2.0.0/16 or 2001:db8:1::7/128`},
		{JSONL, "{\"prefix\":\"10.0.0.1\",\"site\":\"dc2\"}\n{\"prefix\":\"10.0.0.1/32\",\"site\":\"dc1\"}", `line 2: 10.0.0.1/32 is in the list already: give all its locators in one line`},
		{JSONL, `{"prefix":7}`, `line 1: field prefix takes no number`},
	} {
		changes, _, err := ReadRoutes(strings.NewReader(test.in), test.format, fakeNames{}, 0, nil)
		if err == nil || err.Error() != test.want {
			t.Errorf("%.100s\n got %v\nwant %s", test.in, err, test.want)
		}
		if changes != nil {
			t.Errorf("%.100s: an error and changes", test.in)
		}
	}
}

func TestReadFailure(t *testing.T) {
	in := io.MultiReader(strings.NewReader("10.0.0.1/32,,192.0.2.2\n10.0"), iotestErr{})
	if _, _, err := ReadRoutes(in, CSV, fakeNames{}, 0, nil); err == nil || err.Error() != "read after line 1: wire cut" {
		t.Errorf("got %v", err)
	}
}

type iotestErr struct{}

func (iotestErr) Read([]byte) (int, error) { return 0, fmt.Errorf("wire cut") }

// What is written is read back as the same routes, in both formats.
func TestWriteRoutes(t *testing.T) {
	for _, test := range lists {
		for _, format := range []Format{CSV, JSONL} {
			w := NewRouteWriter(format, fakeNames{})
			for i := range test.want {
				w.Need(&test.want[i].Claim)
			}
			b := w.Header(nil)
			for i := range test.want {
				b = w.Append(b, &test.want[i].Claim)
			}
			got, _, err := ReadRoutes(bytes.NewReader(b), format, fakeNames{}, int64(len(b)), nil)
			if err != nil {
				t.Fatalf("%s as %s: %v\n%s", test.name, format, err, b)
			}
			equal(t, got, test.want)
		}
	}
}

func TestWrittenForm(t *testing.T) {
	c := claim("10.0.0.1/32", locator("192.0.2.2"))
	csv, json := NewRouteWriter(CSV, fakeNames{}), NewRouteWriter(JSONL, fakeNames{})
	if got, want := string(csv.Append(csv.Header(nil), &c.Claim)), "prefix,tenant,locator,encap,priority,weight\n10.0.0.1/32,default,192.0.2.2,vxlan,1,100\n"; got != want {
		t.Errorf("got %s want %s", got, want)
	}
	if got, want := string(json.Append(json.Header(nil), &c.Claim)), `{"prefix":"10.0.0.1/32","tenant":"default","via":["192.0.2.2"]}`+"\n"; got != want {
		t.Errorf("got %s want %s", got, want)
	}
}

// Random addresses, dense enough to repeat, against a map.
func TestIndex(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	var x Index
	var changes []route.Change
	twin := make(map[route.Key]int)
	for range 50000 {
		key := route.Key{Tenant: route.TenantID(1 + rng.IntN(2)), Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(rng.IntN(256)), byte(rng.IntN(256))}), 32)}
		at, found := x.Put(key, changes)
		want, known := twin[key]
		if found != known || found && at != want {
			t.Fatalf("%v: %d %t, want %d %t", key, at, found, want, known)
		}
		if !found {
			twin[key] = len(changes)
			changes = append(changes, route.Change{Claim: route.Claim{Key: key}})
		}
	}
}

func manyRoutes(format Format, n int) []byte {
	w := NewRouteWriter(format, fakeNames{})
	b := w.Header(nil)
	vias := make([]*route.Via, 16)
	for i := range vias {
		vias[i] = &route.Via{Locators: []route.Locator{locator(fmt.Sprintf("192.0.2.%d", i+1))}}
	}
	for i := range n {
		c := route.Claim{Key: route.Key{Tenant: 1}, Via: vias[i%len(vias)]}
		if i%2 == 0 {
			c.Prefix = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 32)
		} else {
			c.Prefix = netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 12: byte(i >> 24), byte(i >> 16), byte(i >> 8), byte(i)}), 128)
		}
		b = w.Append(b, &c)
	}
	return b
}

func BenchmarkReadRoutes(b *testing.B) {
	for _, format := range []Format{CSV, JSONL} {
		b.Run(string(format), func(b *testing.B) {
			const n = 1_000_000
			data := manyRoutes(format, n)
			for b.Loop() {
				changes, _, err := ReadRoutes(bytes.NewReader(data), format, fakeNames{}, int64(len(data)), nil)
				if err != nil || len(changes) != n {
					b.Fatal(len(changes), err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/line")
		})
	}
}

func FuzzReadRoutes(f *testing.F) {
	for _, test := range lists {
		f.Add([]byte(test.in), test.format == CSV)
	}
	f.Fuzz(func(t *testing.T, data []byte, csv bool) {
		format := JSONL
		if csv {
			format = CSV
		}
		changes, _, err := ReadRoutes(bytes.NewReader(data), format, fakeNames{}, 0, nil)
		if err != nil {
			return
		}
		for _, format := range []Format{CSV, JSONL} {
			w := NewRouteWriter(format, fakeNames{})
			for i := range changes {
				w.Need(&changes[i].Claim)
			}
			b := w.Header(nil)
			for i := range changes {
				b = w.Append(b, &changes[i].Claim)
			}
			again, _, err := ReadRoutes(bytes.NewReader(b), format, fakeNames{}, 0, nil)
			if err != nil {
				t.Fatalf("written as %s: %v\n%s", format, err, b)
			}
			equal(t, again, changes)
		}
	})
}

// The short way and the decoder agree about every line.
func FuzzSplitObject(f *testing.F) {
	for _, test := range lists {
		for line := range strings.Lines(test.in) {
			f.Add([]byte(strings.TrimSpace(line)))
		}
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		prefix, mac, rest, simple := splitObject(line)
		if !simple {
			return
		}
		var whole, other NewRoute
		if decodeLine(line, &whole) != nil {
			return
		}
		if whole.Prefix != string(prefix) || whole.MAC != string(mac) {
			t.Fatalf("%q is prefix %q mac %q, split as %q %q", line, whole.Prefix, whole.MAC, prefix, mac)
		}
		if err := decodeLine(append([]byte(`{"prefix":"192.0.2.77"`), rest...), &other); err != nil {
			t.Fatalf("%q behind another prefix: %v", rest, err)
		}
		other.Prefix, other.MAC = whole.Prefix, whole.MAC
		equal(t, other, whole)
	})
}
