// Package lab_test holds the multi-host tests: real daemons on both sides of real tunnels, in network namespaces.
// Each test says which promise it checks; what the network looks like is drawn in lab/sites.go.
package lab_test

import (
	"fmt"
	"net/netip"
	"os"
	"testing"
	"time"

	"roam/lab"
)

// bins are the programs under test, built from the tree as it is; newer is the same tree built as another version.
var bins, newer lab.Binaries

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "multi-host tests need root: they make network namespaces and load BPF programs")
		return 1
	}
	dir, err := os.MkdirTemp("", "roam-bin-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	for version, built := range map[string]*lab.Binaries{"lab1": &bins, "lab2": &newer} {
		if *built, err = lab.Build(dir+"/"+version, version); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	code := m.Run()
	if left := lab.Leftovers(os.Getpid()); len(left) > 0 {
		fmt.Fprintf(os.Stderr, "FAIL: the tests left behind %q\n", left)
		return 1
	}
	return code
}

// up builds the sites and starts their daemons.
func up(t *testing.T, options lab.Options) *lab.Sites {
	t.Helper()
	s := lab.NewSites(t, bins, options)
	s.Up()
	return s
}

// reach checks that each host answers another in both families. It also lets caches fill, so that a stream that is
// counted afterwards does not begin with a wait for an address to be resolved.
func reach(t *testing.T, s *lab.Sites, pairs ...[2]*lab.Host) {
	t.Helper()
	for _, pair := range pairs {
		for _, ip := range pair[1].IPs() {
			s.Until(10*time.Second, fmt.Sprintf("%s reaches %s", pair[0].Name, ip), func() error {
				out, err := pair[0].Try("ping", "-n", "-c", "1", "-W", "1", ip.String())
				if err != nil {
					return fmt.Errorf("%w\n%s\n%s", err, out, state(s))
				}
				return nil
			})
		}
	}
}

// state shows what the gateways counted, as far as their daemons answer.
func state(s *lab.Sites) (text string) {
	for _, g := range s.GW {
		if g == nil {
			continue
		}
		out, err := g.Ctl("counters")
		text += fmt.Sprintf("%s:\n%s", g.Name, out)
		if err != nil {
			text += err.Error() + "\n"
		}
	}
	return text
}

// flows starts streams between two hosts, both ways and in both families, rate packets a second in all.
func flows(s *lab.Sites, a, b *lab.Host, rate int) []*lab.Flow {
	s.Helper()
	var list []*lab.Flow
	for i := range 2 {
		list = append(list,
			s.Flow(a.Namespace, a.IPs()[i], b.Namespace, b.IPs()[i], rate/4, 100),
			s.Flow(b.Namespace, b.IPs()[i], a.Namespace, a.IPs()[i], rate/4, 100))
	}
	progress(list, 50)
	return list
}

// progress waits until each stream has brought more packets.
func progress(list []*lab.Flow, more int) { lab.AwaitAll(list, more, 10*time.Second) }

// lossless ends the streams and checks that each packet arrived once, with the given TTL.
func lossless(t *testing.T, s *lab.Sites, list []*lab.Flow, ttl int, during string) {
	t.Helper()
	for _, f := range list {
		r := f.Stop()
		if r.Lost() != 0 || r.Duplicated != 0 {
			t.Errorf("%s: flow %s: %v\n%s", during, f, r, state(s))
		}
		if ttl != 0 && r.TTL != [2]int{ttl, ttl} {
			t.Errorf("%s: flow %s: arrived with TTL %v, want %d", during, f, r.TTL, ttl)
		}
	}
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }
