package main

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"time"

	"roam/lab"
)

// crowdSide is what it came to that a crowd of hosts moved at once, from one site of Roam to the other. Each has a MAC of its own, announces
// itself, and answers; all announce themselves again every second until both gateways have every one of them right.
type crowdSide struct {
	Hosts  int     `json:"hosts"`
	First  float64 `json:"learned_s"` // from the first announcement until both gateways had them all at the first site
	Moved  float64 `json:"moved_s"`   // likewise at the other one, and no other place for any of them
	Rounds int     `json:"rounds"`    // of announcements that it took
	Half   float64 `json:"half_s"`    // when half of them were right
}

// The kernel keeps neighbours of all namespaces in one table, whose limits only the first one sees.
const neighbourLimits = "/proc/sys/net/ipv4/neigh/default/gc_thresh"

func runCrowd(t lab.TB, bins lab.Binaries, n int) *crowdSide {
	s := lab.NewSites(t, bins, lab.Options{NoRoutes: true, Racks: true, Capacity: 4 * n})
	for _, i := range []string{"3", "2", "1"} {
		before, err := os.ReadFile(neighbourLimits + i)
		if err != nil {
			continue // the gateways' own namespace then has none to be seen
		}
		s.Defer(func() { _ = os.WriteFile(neighbourLimits+i, before, 0) })
		_ = os.WriteFile(neighbourLimits+i, fmt.Appendf(nil, "%d", 8*n), 0)
	}
	for site, g := range s.GW {
		g.Config.Subnets = []string{"10.1.0.0/16", "2001:db8:1::/64"}
		g.Config.BGP = &lab.BGP{ASN: 65001 + site, Neighbors: []string{fmt.Sprintf("{address: 192.0.2.%d, asn: %d}", 2-site, 65002-site)}}
		g.Launch()
	}
	for _, g := range s.GW {
		g.AwaitReady()
	}
	crowd := s.Crowd(lab.DC1, netip.MustParseAddr("10.1.16.0"), n)
	c := &crowdSide{Hosts: n}
	c.First, _, _ = settled(s, crowd)
	s.Replug(crowd.Host, lab.DC2)
	c.Moved, c.Half, c.Rounds = settled(s, crowd)
	s.Close()
	return c
}

// settled has a crowd announce itself until both gateways have all of it where it is, and returns how long that took, and half of it.
func settled(s *lab.Sites, c *lab.Crowd) (whole, half float64, rounds int) {
	start := time.Now()
	announced := time.Time{}
	s.Until(2*time.Minute, fmt.Sprintf("%d hosts are found at %s", c.Size, lab.SiteNames[c.Site]), func() error {
		if time.Since(announced) > time.Second {
			rounds++
			c.Announce()
			announced = time.Now()
		}
		right := [2]int{}
		for i, g := range s.GW {
			right[i] = countAt(g, c)
		}
		took := time.Since(start).Seconds()
		if half == 0 && min(right[0], right[1]) >= c.Size/2 {
			half = took
		}
		if right != [2]int{c.Size, c.Size} {
			return fmt.Errorf("%d and %d are", right[0], right[1])
		}
		whole = took
		return nil
	})
	return whole, half, rounds
}

// countAt is how many of a crowd a gateway has at their site; each is in its list once.
func countAt(g *lab.Gateway, c *lab.Crowd) (n int) {
	out, err := g.Ctl("-o", "json", "host", "list")
	var hosts []struct {
		Address netip.Addr
		Site    string
		Here    bool
	}
	if err != nil || json.Unmarshal([]byte(out), &hosts) != nil {
		return 0
	}
	here := g.Config.Site == lab.SiteNames[c.Site]
	for _, h := range hosts {
		if h.Site == lab.SiteNames[c.Site] && h.Here == here && !h.Address.Less(c.First) && !c.Addr(c.Size-1).Less(h.Address) {
			n++
		}
	}
	return n
}

func (c *crowdSide) markdown() string {
	return fmt.Sprintf("\n| %d hosts, each with its MAC, move to the other site at once | |\n|---|---|\n| found at the first site, all of them, by both gateways | %.2f s |\n"+
		"| moved: half of them right at both | %.2f s |\n| moved: the last one right, none wrong | %.2f s, %d rounds of announcements |\n\n"+
		"They announce themselves once a second, in 100 ms or so. Looking costs the gateways time, too: each list of all hosts is read over and over.\n",
		c.Hosts, c.First, c.Half, c.Moved, c.Rounds)
}
