package lab_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"roam/lab"
)

// claimed is what these tests read of a claim.
type claimed struct {
	Prefix   string `json:"prefix"`
	Source   string `json:"source"`
	Site     string `json:"site"`
	Sequence uint32 `json:"sequence"`
	Best     bool   `json:"best"`
	Why      string `json:"why"`
	Via      []struct {
		Address string `json:"address"`
	} `json:"via"`
	Preference int `json:"preference"`
}

// winner returns the winning claim of a host, if there is one.
func winner(g *lab.Gateway, address string) (claimed, error) {
	var found struct {
		Routes []claimed `json:"routes"`
	}
	out, err := g.Ctl("-o", "json", "route", "get", address)
	if err != nil {
		return claimed{}, err
	}
	if err := decode(out, &found); err != nil {
		return claimed{}, err
	}
	for _, c := range found.Routes {
		if c.Best && strings.HasPrefix(c.Prefix, address+"/") {
			return c, nil
		}
	}
	return claimed{}, fmt.Errorf("nobody claims %s on %s:\n%s", address, g.Name, out)
}

// knows waits until a gateway takes a host to be at a site, with a sequence.
func knows(s *lab.Sites, g *lab.Gateway, h *lab.Host, site int, sequence uint32) {
	s.Helper()
	for _, ip := range h.IPs() {
		s.Until(20*time.Second, fmt.Sprintf("%s knows %s at %s with sequence %d", g.Name, ip, lab.SiteNames[site], sequence), func() error {
			c, err := winner(g, ip.String())
			if err != nil {
				return err
			}
			here := g.Config.Site == lab.SiteNames[site]
			if here != (c.Source != "bgp") || c.Sequence != sequence || c.Site != lab.SiteNames[site] {
				return fmt.Errorf("it has %+v", c)
			}
			return nil
		})
	}
}

// found has each gateway look for the hosts of its site, as traffic or their own announcements would.
func found(s *lab.Sites, hosts ...*lab.Host) {
	s.Helper()
	for _, h := range hosts {
		for _, ip := range h.IPs() {
			s.GW[h.Site].MustCtl("host", "move", ip.String(), "--to", lab.SiteNames[h.Site])
		}
	}
}

// peers configures the gateways as each other's neighbours, and starts them together: neither is ready without the other.
func peers(t *testing.T, s *lab.Sites, more string) {
	t.Helper()
	for site, g := range s.GW {
		g.Config.BGP = &lab.BGP{ASN: 65001 + site, Neighbors: []string{
			fmt.Sprintf("{address: 192.0.2.%d, asn: %d%s}", 2-site, 65002-site, more),
		}}
	}
	startAll(s)
}

func startAll(s *lab.Sites) {
	s.Helper()
	for _, g := range s.GW {
		if g != nil {
			g.Launch()
		}
	}
	for _, g := range s.GW {
		if g != nil {
			g.AwaitReady()
		}
	}
}

// TestBGPDirect: two gateways tell each other over BGP where hosts are, without a route file. A host that moves is known
// everywhere, and its sequence rises by one per move.
func TestBGPDirect(t *testing.T) {
	s := lab.NewSites(t, bins, lab.Options{NoRoutes: true})
	peers(t, s, "")
	h11, h12, h21, h22 := s.H("h11"), s.H("h12"), s.H("h21"), s.H("h22")
	found(s, h11, h12, h21, h22)
	for _, g := range s.GW {
		for _, h := range s.Hosts {
			knows(s, g, h, h.Site, 0)
		}
	}
	reach(t, s, [2]*lab.Host{h11, h21}, [2]*lab.Host{h21, h11}, [2]*lab.Host{h12, h22}, [2]*lab.Host{h22, h12})
	list := flows(s, h12, h21, 400)
	for move := 1; move <= 4; move++ {
		site := move % 2
		s.Replug(h11, site)
		found(s, h11)
		for _, g := range s.GW {
			knows(s, g, h11, site, uint32(move))
		}
		reach(t, s, [2]*lab.Host{h12, h11}, [2]*lab.Host{h22, h11}, [2]*lab.Host{h11, h21})
	}
	lossless(t, s, list, 62, "hosts that did not move")
	out := s.GW[lab.DC1].MustCtl("session", "list")
	if !strings.Contains(out, "established") || !strings.Contains(out, "evpn") {
		t.Errorf("session list:\n%s", out)
	}
}

func decode(text string, into any) error { return json.Unmarshal([]byte(text), into) }
