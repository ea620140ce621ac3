package lab_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"roam/lab"
)

// homeAt waits until every gateway takes a host's addresses to be at a site.
func homeAt(s *lab.Sites, site int, addresses ...netip.Addr) {
	s.Helper()
	for _, g := range s.GW {
		for _, ip := range addresses {
			s.Until(20*time.Second, fmt.Sprintf("%s knows %s at %s", g.Name, ip, lab.SiteNames[site]), func() error {
				c, err := winner(g, ip.String())
				if err == nil && c.Site != lab.SiteNames[site] {
					err = fmt.Errorf("it has %+v", c)
				}
				return err
			})
		}
	}
}

// TestHotMove: a host moves while it runs, and nobody is told. It shows itself, its new gateway asks it, and BGP tells the old
// one. The outage is what a stream of 1,000 packets a second misses, from each site to the host.
func TestHotMove(t *testing.T) {
	for _, how := range []struct {
		name string
		show func(h *lab.Host)
		out  bool // the host sends by itself all the time
	}{
		{"one announcement", (*lab.Host).Announce, false},
		{"only data", func(*lab.Host) {}, true},
	} {
		t.Run(how.name, func(t *testing.T) {
			s := lab.NewSites(t, bins, lab.Options{NoRoutes: true, Alone: true})
			for _, g := range s.GW {
				g.Config.Mobility = often
			}
			peers(t, s, "")
			h11, h12, h21 := s.H("h11"), s.H("h12"), s.H("h21")
			for _, h := range []*lab.Host{h11, h12, h21} {
				h.Announce()
				homeAt(s, h.Site, h.IPs()...)
			}
			reach(t, s, [2]*lab.Host{h12, h11}, [2]*lab.Host{h21, h11}, [2]*lab.Host{h11, h12}, [2]*lab.Host{h11, h21}, [2]*lab.Host{h12, h21})
			outages := map[string][]time.Duration{}
			const moves = 8
			for move := 1; move <= moves; move++ {
				site := move % 2
				list := map[string]*lab.Flow{ // the first says how long this machine stops by itself
					"nobody who moved": s.Flow(h12.Namespace, h12.IP4, h21.Namespace, h21.IP4, 1000, 64),
				}
				for i, family := range []string{"IPv4", "IPv6"} {
					list[family+" from dc1"] = s.Flow(h12.Namespace, h12.IPs()[i], h11.Namespace, h11.IPs()[i], 1000, 64)
					list[family+" from dc2"] = s.Flow(h21.Namespace, h21.IPs()[i], h11.Namespace, h11.IPs()[i], 1000, 64)
					if how.out { // one of the two is at the other site: a switch hides the rest from the gateway
						list[family+" to dc1"] = s.Flow(h11.Namespace, h11.IPs()[i], h12.Namespace, h12.IPs()[i], 500, 64)
						list[family+" to dc2"] = s.Flow(h11.Namespace, h11.IPs()[i], h21.Namespace, h21.IPs()[i], 500, 64)
					}
				}
				for _, f := range list {
					f.AwaitArrivals(50, 10*time.Second)
				}
				s.Replug(h11, site)
				how.show(h11)
				for _, f := range list {
					f.AwaitArrivals(100, 10*time.Second)
				}
				homeAt(s, site, h11.IPs()...)
				for _, f := range list {
					f.Halt()
				}
				for name, f := range list {
					outages[name] = append(outages[name], f.Stop().Gap)
				}
			}
			for name, list := range outages {
				slices.Sort(list)
				t.Logf("%-24s outage: median %v, of %v to %v", name, list[len(list)/2], list[0], list[len(list)-1])
				if list[len(list)/2] > 500*time.Millisecond { // whatever waits for a timer of the kernel takes a second
					t.Errorf("%s: %v", name, list)
				}
			}
		})
	}
}

// TestSilentHost: a host that says nothing by itself is found when a neighbour asks for it, or when a packet comes for it by a tunnel, and then
// both gateways know.
func TestSilentHost(t *testing.T) {
	s := lab.NewSites(t, bins, lab.Options{NoRoutes: true})
	h11, h12 := s.H("h11"), s.H("h12")
	third := s.Third(h11)
	peers(t, s, "")
	gw1 := s.GW[lab.DC1]
	for _, asker := range []struct {
		what string
		from *lab.Host
	}{{"a neighbour asks", h12}, {"a packet comes by a tunnel", third}} {
		for i, family := range []string{"IPv4", "IPv6"} {
			var took, known []time.Duration
			for range 5 {
				ip := h11.IPs()[i]
				h12.IP("neigh flush all")
				gw1.IP("neigh flush dev lan0")
				for _, g := range s.GW {
					s.Until(10*time.Second, g.Name+" has forgotten "+ip.String(), func() error {
						if c, err := winner(g, ip.String()); err == nil {
							return fmt.Errorf("it has %+v", c)
						}
						return nil
					})
				}
				start := time.Now()
				f := s.Flow(asker.from.Namespace, asker.from.IPs()[i], h11.Namespace, ip, 1000, 64)
				f.AwaitArrivals(1, 10*time.Second)
				took = append(took, time.Since(start))
				homeAt(s, lab.DC1, ip)
				known = append(known, time.Since(start))
				f.Stop()
			}
			slices.Sort(took)
			slices.Sort(known)
			t.Logf("%s, %s: first packet after %v, both gateways know after %v (medians of %d)",
				asker.what, family, took[len(took)/2], known[len(known)/2], len(took))
		}
	}
}

// TestScan: somebody asks for every address of a /16. What the data path reports of it is rationed by who asks, and in all where many ask; what
// the gateway asks in turn stays bounded, as does what it remembers, and a host that shows itself meanwhile is found at once.
func TestScan(t *testing.T) {
	s := lab.NewSites(t, bins, lab.Options{NoRoutes: true, Alone: true})
	gw1, h11, h12 := s.GW[lab.DC1], s.H("h11"), s.H("h12")
	gw1.Config.Subnets = []string{"10.1.0.0/16", "2001:db8:1::/64"}
	gw1.Up()
	before, _ := gw1.Memory()
	start := time.Now()
	h12.AskAll(netip.MustParsePrefix("10.1.0.0/17"))
	h11.Announce()
	shown := time.Now()
	s.Until(5*time.Second, "gw1 finds the host that shows itself", func() error {
		_, err := winner(gw1, h11.IP4.String())
		return err
	})
	found := time.Since(shown)
	h12.AskAll(netip.MustParsePrefix("10.1.128.0/17"))
	asked := len(strings.Split(gw1.Run("ip", "neigh", "show", "dev", "lan0", "nud", "all"), "\n"))
	after, _ := gw1.Memory()
	t.Logf("65,536 addresses in %v: %d neighbours in the kernel, %d KiB more memory, another host found after %v",
		time.Since(start), asked, (after-before)>>10, found)
	if asked > 300 || after-before > 16<<20 {
		t.Errorf("%d neighbours, %d KiB more", asked, (after-before)>>10)
	}
	wanted := rationed(t, gw1, start, 0, 50, 20)
	start = time.Now()
	for i := range 64 {
		asker := *h12
		asker.IP4 = netip.AddrFrom4([4]byte{10, 1, 250, byte(i)})
		asker.AskAll(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1, byte(i), 0}), 24))
	}
	rationed(t, gw1, start, wanted, 400, 200)
	last, _ := gw1.Memory()
	if last-before > 16<<20 {
		t.Errorf("%d KiB more", (last-before)>>10)
	}
}

// rationed checks how many addresses were reported as wanted since start, when there were so many: at least those that may be at once, and no more
// than the ration. It returns how many there are.
func rationed(t *testing.T, g *lab.Gateway, start time.Time, before, burst, rate int) (total int) {
	t.Helper()
	text, _ := g.Scrape()
	most := burst + burst/10 + int(float64(rate)*time.Since(start).Seconds()) // two CPUs may both take the last of a ration
	for line := range strings.Lines(text) {
		if count, ok := strings.CutPrefix(line, `roam_sightings_total{kind="wanted"} `); ok {
			if _, err := fmt.Sscan(count, &total); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Logf("%d addresses reported as wanted, of at most %d", total-before, most)
	if n := total - before; n < burst || n > most {
		t.Errorf("%d addresses were reported as wanted, the ration is %d at once and %d a second", n, burst, rate)
	}
	return total
}
