package fabric

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"roam/loader/route"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a source whose reports are read after each step; nothing runs beside it.
type world struct {
	*testing.T
	*Source
	elsewhere map[route.Key]uint32 // what another site announces
	said      []string
	left      []string
}

var routerMAC = route.MAC{0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc}

func newWorld(t *testing.T) *world {
	return lifeOver(t, "")
}

// lifeOver is a world over what an earlier one left.
func lifeOver(t *testing.T, state string) *world {
	w := &world{T: t, elsewhere: map[route.Key]uint32{}}
	w.Source = New(Options{
		State: state, Names: names{},
		Site: "cloud", Index: func(string) int { return 7 },
		Segments: []Segment{{
			Tenant: 1, Link: "eth0", VLAN: 5, NextHop: routerMAC,
			Subnets: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/24"), netip.MustParsePrefix("2001:db8:1::/64")},
		}},
		Sequence: func(k route.Key, _ route.MAC) (uint32, bool, bool) { n, ok := w.elsewhere[k]; return n, ok, ok },
		Left: func(_ context.Context, keys []route.Key) {
			for _, k := range keys {
				w.left = append(w.left, k.Prefix.String())
			}
		},
	})
	return w
}

// Begin, Report and Synced implement route.Reporter.
func (w *world) Begin(context.Context) error  { w.said = append(w.said, "begin"); return nil }
func (w *world) Synced(context.Context) error { w.said = append(w.said, "synced"); return nil }
func (w *world) Report(_ context.Context, changes []route.Change) error {
	for _, c := range changes {
		if c.Withdraw {
			w.said = append(w.said, c.Prefix.String()+" gone")
		} else {
			l := c.Local
			w.said = append(w.said, fmt.Sprintf("%s at %d.%d by %s, sequence %d, site %s", c.Prefix, l.Link, l.VLAN, l.NextHop, c.Sequence, c.Site))
		}
	}
	return nil
}

// expect has the source report, and compares.
func (w *world) expect(lines ...string) {
	w.Helper()
	w.said = nil
	if err := w.report(w.Context(), w); err != nil {
		w.Fatal(err)
	}
	slices.Sort(w.said)
	slices.Sort(lines)
	if !slices.Equal(w.said, lines) {
		w.Errorf("said\n  %s\nwant\n  %s", strings.Join(w.said, "\n  "), strings.Join(lines, "\n  "))
	}
}

func key(s string) route.Key { return route.KeyOf(1, netip.MustParseAddr(s)) }

func via(k route.Key, site string, sequence uint32) route.Decision {
	v := &route.Via{Locators: []route.Locator{{Address: netip.MustParseAddr("192.0.2.1")}}}
	return route.Decision{Claim: route.Claim{Key: k, Site: site, Sequence: sequence, Via: v}}
}

func (w *world) decide(d ...route.Decision) {
	w.Helper()
	if err := w.Apply(w.Context(), d); err != nil {
		w.Fatal(err)
	}
}

const at = " at 7.5 by 12:34:56:78:9a:bc, sequence "

// A host is here when somebody says so, with a sequence above that of the site it comes from, until a site claims it with a
// higher one.
func TestToldIsSeen(t *testing.T) {
	w := newWorld(t)
	h, h6 := key("10.1.0.21"), key("2001:db8:1::21")
	w.elsewhere[h] = 6
	w.Told(h, true)
	w.Told(h6, true)
	w.Told(key("10.2.0.1"), true) // of no segment here
	w.expect("10.1.0.21/32"+at+"7, site cloud", "2001:db8:1::21/128"+at+"0, site cloud")
	w.expect()

	w.decide(via(h, "cloud", 9)) // another gateway of our site has it as well
	w.expect("10.1.0.21/32" + at + "9, site cloud")
	w.decide(via(h, "dc1", 10), via(key("10.1.0.22"), "dc1", 1))
	w.expect("10.1.0.21/32 gone")
	if !slices.Equal(w.left, []string{"10.1.0.21/32"}) {
		t.Errorf("left: %v", w.left)
	}
	w.Told(h6, false)
	w.Told(h6, false)
	w.expect("2001:db8:1::21/128 gone")
	if len(w.left) != 1 {
		t.Errorf("left: %v, but the word was taken back", w.left)
	}
}

// What an earlier life's word brings is no sighting: another site's claim stays above it.
func TestRestartTakesNothing(t *testing.T) {
	w := newWorld(t)
	h := key("10.1.0.21")
	w.elsewhere[h] = 6
	here := route.Decision{Claim: route.Claim{Key: h, Local: &route.Local{}}, Source: "api"}
	w.decide(here)
	w.expect("10.1.0.21/32" + at + "0, site cloud")
	w.decide(via(h, "dc1", 6))
	w.expect("10.1.0.21/32 gone")
	w.Told(h, true)
	w.expect("10.1.0.21/32" + at + "7, site cloud")
}

type names struct{}

func (names) TenantID(name string) (route.TenantID, bool) { return 1, name == "default" }
func (names) TenantName(route.TenantID) string            { return "default" }

// A restart finds the hosts with the sequences that they had, whatever line a crash tore.
func TestSequencesOutliveTheDaemon(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sub", "fabric")
	w := lifeOver(t, path)
	w.SetSegments(w.Segments)
	w.expect("begin", "synced")
	h, gone := key("10.1.0.21"), key("2001:db8:1::21")
	w.elsewhere[h] = 6
	w.Told(h, true)
	w.expect("10.1.0.21/32" + at + "7, site cloud")
	w.Told(gone, true)
	w.expect("2001:db8:1::21/128" + at + "0, site cloud")
	w.Told(gone, false)
	w.expect("2001:db8:1::21/128 gone")
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.WriteString(`{"address":"10.1.0`); err != nil {
		t.Fatal(err)
	}
	file.Close()

	w = lifeOver(t, path)
	w.SetSegments(w.Segments)
	w.expect("begin", "10.1.0.21/32"+at+"7, site cloud", "synced")
	w.decide(route.Decision{Claim: route.Claim{Key: h, Local: &route.Local{}}, Source: "api"})
	w.expect()
	text, err := os.ReadFile(path)
	if err != nil || string(text) != `{"address":"10.1.0.21","tenant":"default","sequence":7}`+"\n" {
		t.Errorf("%s, %v", text, err)
	}
}

// A change of ports or segments is told of all hosts, and forgets those that no fabric has any more.
func TestSegmentsChange(t *testing.T) {
	w := newWorld(t)
	w.Told(key("10.1.0.21"), true)
	w.Told(key("2001:db8:1::21"), true)
	w.expect("10.1.0.21/32"+at+"0, site cloud", "2001:db8:1::21/128"+at+"0, site cloud")
	w.LinksChanged()
	w.expect("begin", "10.1.0.21/32"+at+"0, site cloud", "2001:db8:1::21/128"+at+"0, site cloud", "synced")
	s := w.Segments[0]
	s.Subnets = s.Subnets[:1]
	w.SetSegments([]Segment{s})
	w.expect("begin", "10.1.0.21/32"+at+"0, site cloud", "synced")
	w.ToldNothing()
	w.expect("10.1.0.21/32 gone")
}

func TestRunEnds(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Source.Run(ctx, w) }()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
