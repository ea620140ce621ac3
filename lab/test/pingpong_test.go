package lab_test

import (
	"fmt"
	"maps"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"roam/lab"
)

// pingPongs is how often a host moves to and fro; ROAM_MOVES takes another number.
func pingPongs(t *testing.T) int {
	text := os.Getenv("ROAM_MOVES")
	if text == "" {
		return 100
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 8 {
		t.Fatalf("ROAM_MOVES=%q: write a number of moves, 8 or more", text)
	}
	return n &^ 1 // and it ends where it began
}

// held is what could leak: how full each table is, routes and hosts, goroutines, descriptors, and what the kernel has of neighbours and routes.
// Sockets and goroutines come and go with each scrape and session, so those two are known to a few.
func held(g *lab.Gateway) map[string]int {
	all := map[string]int{}
	text, _ := g.Scrape()
	for _, m := range regexp.MustCompile(`(?m)^((?:roam_table_entries|roam_routes|roam_hosts|roam_multicast_groups|go_goroutines|process_open_fds)(?:{.*?})?) (\S+)$`).FindAllStringSubmatch(text, -1) {
		v, _ := strconv.ParseFloat(m[2], 64)
		all[m[1]] = int(v)
	}
	for _, list := range []string{"-4 route show table all", "-6 route show table all", "-4 neigh show nud permanent", "-4 rule", "-6 rule"} {
		all[list] = strings.Count(g.Run("ip", strings.Fields(list)...), "\n")
	}
	// Of the host that moves, but for what the kernel itself keeps of one that failed.
	for _, line := range strings.Split(g.Run("ip", "neigh", "show", "dev", "lan0"), "\n") {
		if f := strings.Fields(line); slices.Contains(f, "lladdr") && strings.HasSuffix(f[0], "11") {
			all["neighbour "+f[0]]++
		}
	}
	return all
}

// leaked compares what gateways hold with what they held.
func leaked(before, after map[string]int) (list []string) {
	slack := map[string]int{"go_goroutines": 8, "process_open_fds": 4}
	keys := map[string]int{}
	maps.Copy(keys, before)
	maps.Copy(keys, after)
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		if d := after[key] - before[key]; d > slack[key] || -d > slack[key] && slack[key] == 0 {
			list = append(list, fmt.Sprintf("%s: %d, before %d", key, after[key], before[key]))
		}
	}
	return list
}

// agree waits until both gateways have the host at its site with one sequence, in RIB and BGP, in their kernels, and in their tables: explain asks the
// real program.
func agree(t *testing.T, s *lab.Sites, h *lab.Host) {
	t.Helper()
	homeAt(s, h.Site, h.IPs()...)
	for _, ip := range h.IPs() {
		s.Until(10*time.Second, fmt.Sprintf("both gateways have %s with one sequence", ip), func() error {
			var sequences []uint32
			for _, g := range s.GW {
				c, err := winner(g, ip.String())
				if err != nil {
					return err
				}
				sequences = append(sequences, c.Sequence)
			}
			if sequences[0] != sequences[1] {
				return fmt.Errorf("they have %v", sequences)
			}
			return nil
		})
		for site, g := range s.GW {
			s.Until(10*time.Second, fmt.Sprintf("the kernel of %s agrees about %s", g.Name, ip), func() error {
				line := g.Run("ip", "neigh", "show", ip.String(), "dev", "lan0")
				if here := strings.Contains(line, "lladdr "+h.MAC); here != (site == h.Site) || !here && strings.Contains(line, "lladdr") {
					return fmt.Errorf("it has %q", line)
				}
				return nil
			})
		}
	}
	path(t, s.GW[1-h.Site], s.GW[h.Site], s.H([]string{"h12", "h21"}[1-h.Site]), h)
}

// TestPingPong: a host moves to and fro ten times a second while it is spoken to from both sites. In the end the gateways agree about it, and hold what
// they held before.
func TestPingPong(t *testing.T) {
	s := lab.NewSites(t, bins, lab.Options{NoRoutes: true, Racks: true})
	for _, g := range s.GW {
		g.Config.Mobility = "{hold: 1s, freeze: {moves: 1000, window: 1s}}"
	}
	peers(t, s, "")
	h11, h12, h21 := s.H("h11"), s.H("h12"), s.H("h21")
	for _, h := range []*lab.Host{h11, h12, h21} {
		h.Announce()
		homeAt(s, h.Site, h.IPs()...)
	}
	reach(t, s, [2]*lab.Host{h12, h11}, [2]*lab.Host{h21, h11})
	var list []*lab.Flow
	for i := range 2 {
		for _, from := range []*lab.Host{h12, h21} {
			list = append(list, s.Flow(from.Namespace, from.IPs()[i], h11.Namespace, h11.IPs()[i], 500, 64))
		}
	}
	move := func(n int) {
		s.Replug(h11, n%2)
		h11.Announce()
		progress(list, 50) // a tenth of a second: an address that shows itself more often than that is not looked at each time
	}
	for n := 1; n <= 4; n++ { // what there is once of everything that takes part in a move
		move(n)
	}
	agree(t, s, h11)
	moves := pingPongs(t)
	before := []map[string]int{settledAt(s, s.GW[0]), settledAt(s, s.GW[1])}
	start := time.Now()
	for n := 1; n <= moves; n++ {
		move(n)
	}
	took := time.Since(start)
	agree(t, s, h11)
	sent, lost := 0, 0
	for _, f := range list {
		f.AwaitArrivals(50, 10*time.Second)
		r := f.Stop()
		sent, lost = sent+r.Sent, lost+r.Lost()
	}
	c, _ := winner(s.GW[0], h11.IP4.String())
	t.Logf("%d moves in %v, sequence %d; of %d packets %d were lost", moves, took.Round(time.Millisecond), c.Sequence, sent, lost)
	if c.Sequence < uint32(moves) {
		t.Errorf("sequence %d after %d moves", c.Sequence, moves)
	}
	nothingLeaked(s, before)
	for _, g := range s.GW {
		for _, e := range events(g) {
			if e.Kind == "frozen" || e.Kind == "refused" { // one that is back before it was let go is in conflict with itself
				t.Errorf("%s tells of %+v", g.Name, e)
			}
		}
	}
}

// settledAt is what a gateway holds once that no longer changes: holds have ended, and what was freed has waited for its readers.
func settledAt(s *lab.Sites, g *lab.Gateway) (now map[string]int) {
	s.Helper()
	same := 0
	s.Until(20*time.Second, g.Name+" comes to rest", func() error {
		last := now
		now = held(g)
		time.Sleep(100 * time.Millisecond)
		if changed := append(leaked(last, now), leaked(now, last)...); len(changed) > 0 {
			same = 0
			return fmt.Errorf("still changing: %v", changed)
		}
		if same++; same < 12 { // longer than the hold
			return fmt.Errorf("only for %d looks", same)
		}
		return nil
	})
	return now
}

func nothingLeaked(s *lab.Sites, before []map[string]int) {
	s.Helper()
	for i, g := range s.GW {
		s.Until(20*time.Second, g.Name+" holds what it held before", func() error {
			if list := leaked(before[i], held(g)); len(list) > 0 {
				return fmt.Errorf("not so: %v", list)
			}
			return nil
		})
	}
}

// TestPingPongFrozen is the same with the freeze at its defaults: five moves are followed, and then the host stays where it was for both gateways, however
// often it goes on moving. Nothing piles up meanwhile, and once cleared it is found where it is.
func TestPingPongFrozen(t *testing.T) {
	s := lab.NewSites(t, bins, lab.Options{NoRoutes: true, Racks: true})
	for _, g := range s.GW {
		g.Config.Mobility = "{hold: 1s}"
	}
	peers(t, s, "")
	gw1, h11, h12, h21 := s.GW[lab.DC1], s.H("h11"), s.H("h12"), s.H("h21")
	for _, h := range []*lab.Host{h11, h12, h21} {
		h.Announce()
		homeAt(s, h.Site, h.IPs()...)
	}
	reach(t, s, [2]*lab.Host{h12, h11}, [2]*lab.Host{h12, h21})
	before := []map[string]int{settledAt(s, s.GW[0]), settledAt(s, s.GW[1])}
	for move := 1; move <= 5; move++ {
		s.Replug(h11, move%2)
		h11.Announce()
		homeAt(s, move%2, h11.IPs()...)
		gone(s, s.GW[1-move%2], h11)
	}
	clock := s.Flow(h12.Namespace, h12.IP4, h21.Namespace, h21.IP4, 1000, 64)
	moves := pingPongs(t)
	start := time.Now()
	for move := 6; move <= moves+1; move++ {
		s.Replug(h11, move%2)
		h11.Announce()
		clock.AwaitArrivals(100, 10*time.Second)
	}
	t.Logf("%d moves in %v", moves-4, time.Since(start).Round(time.Millisecond))
	if r := clock.Stop(); r.Lost() != 0 {
		t.Errorf("hosts that stayed: %v", r)
	}
	h11.Announce() // it is at dc2, its last good place
	agree(t, s, h11)
	for _, ip := range h11.IPs() {
		if e := awaitEvent(s, gw1, "frozen", ip.String()); !strings.Contains(e.Why, "6 times") || !strings.Contains(e.Do, "roamctl host clear "+ip.String()) {
			t.Errorf("%s: %+v", ip, e)
		}
		if h := show(gw1, ip); h.State != "frozen" || h.Site != "dc2" || !slices.ContainsFunc(h.History, func(e happened) bool { return e.Kind == "frozen" }) {
			t.Errorf("%s: %+v", ip, h)
		}
		if n := countEvents(s, "frozen", ip); n != 1 {
			t.Errorf("%s was frozen %d times", ip, n)
		}
	}
	reach(t, s, [2]*lab.Host{h12, h11}, [2]*lab.Host{h21, h11})
	s.Replug(h11, lab.DC1)
	for _, ip := range h11.IPs() {
		gw1.MustCtl("host", "clear", ip.String())
	}
	homeAt(s, lab.DC1, h11.IPs()...)
	gone(s, s.GW[lab.DC2], h11)
	agree(t, s, h11)
	reach(t, s, [2]*lab.Host{h12, h11}, [2]*lab.Host{h21, h11})
	nothingLeaked(s, before)
}

// countEvents is how often the gateways told of something.
func countEvents(s *lab.Sites, kind string, ip netip.Addr) (n int) {
	for _, g := range s.GW {
		for _, e := range events(g) {
			if e.Kind == kind && e.Subject == ip.String() {
				n++
			}
		}
	}
	return n
}

// TestSiblings: a station with two IPv4 addresses moves and announces one of them. The others follow, each at once: their gateways know by BGP what
// addresses a MAC has.
func TestSiblings(t *testing.T) {
	s := lab.NewSites(t, bins, lab.Options{NoRoutes: true, Racks: true})
	h11, h12 := s.H("h11"), s.H("h12")
	other := *h11
	other.IP4, other.IP6 = netip.MustParseAddr("10.1.0.13"), netip.MustParseAddr("2001:db8:1::13")
	peers(t, s, "")
	h11.Addresses("eth0", other.IP4.String()+"/24", other.IP6.String()+"/64")
	for _, h := range []*lab.Host{h11, &other, h12} {
		h.Announce()
		homeAt(s, h.Site, h.IPs()...)
	}
	reach(t, s, [2]*lab.Host{h12, h11}, [2]*lab.Host{h12, &other})
	for _, site := range []int{lab.DC2, lab.DC1} {
		var list []*lab.Flow // from the old site: nobody at the new one asks for them
		for i := range 2 {
			list = append(list, s.Flow(h12.Namespace, h12.IPs()[i], other.Namespace, other.IPs()[i], 1000, 64))
		}
		progress(list, 50)
		s.Replug(h11, site)
		other.Site = site
		start := time.Now()
		h11.Announce()
		homeAt(s, site, append(h11.IPs(), other.IPs()...)...)
		took := time.Since(start)
		progress(list, 50)
		for _, f := range list {
			t.Logf("to %s: all four known at both sites after %v; %s: %v", lab.SiteNames[site], took, f, f.Stop())
		}
		for _, ip := range other.IPs() {
			e := awaitEvent(s, s.GW[site], "move", ip.String())
			if d := e.Time.Sub(start); d > 2*time.Second { // what waits for a presence probe takes three
				t.Errorf("%s was found after %v", ip, d)
			}
		}
		gone(s, s.GW[1-site], &other)
	}
}
