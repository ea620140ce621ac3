package lab_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"roam/lab"
	"roam/loader/source/bgp/bgptest"
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
			source := "bgp"
			if g.Config.Site == lab.SiteNames[site] {
				source = "host"
			}
			if c.Source != source || c.Sequence != sequence || c.Site != lab.SiteNames[site] {
				return fmt.Errorf("it has %+v", c)
			}
			return nil
		})
	}
}

// found has each gateway speak to the hosts of its site, so that its kernel knows them as neighbours.
func found(s *lab.Sites, hosts ...*lab.Host) {
	s.Helper()
	for _, h := range hosts {
		for _, ip := range h.IPs() {
			s.Until(10*time.Second, fmt.Sprintf("%s finds %s", s.GW[h.Site].Name, ip), func() error {
				out, err := s.GW[h.Site].Try("ping", "-n", "-c", "1", "-W", "1", ip.String())
				if err != nil {
					return fmt.Errorf("%w: %s", err, out)
				}
				return nil
			})
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

const frrReflector = `
router bgp 65000
 bgp router-id 192.0.2.9
 no bgp default ipv4-unicast
 neighbor gateways peer-group
 neighbor gateways remote-as 65000
 neighbor gateways timers 3 9
 neighbor gateways timers connect 1
 neighbor 192.0.2.1 peer-group gateways
 neighbor 192.0.2.2 peer-group gateways
 address-family l2vpn evpn
  neighbor gateways activate
  neighbor gateways route-reflector-client
 exit-address-family
`

const birdReflector = `
router id 192.0.2.9;
log stderr all;
protocol device { scan time 1; }
protocol direct { ipv4; ipv6; interface "wan0"; }
template bgp roam {
	local 192.0.2.9 as 65000; rr client;
	connect delay time 1; connect retry time 1; error wait time 1, 1;
	ipv4 { import all; export all; next hop keep;%[1]s };
	ipv6 { import all; export all; next hop keep;%[1]s };
}
protocol bgp gw1 from roam { neighbor 192.0.2.1 as 65000; }
protocol bgp gw2 from roam { neighbor 192.0.2.2 as 65000; }
`

// TestBGPReflected: gateways that know only a route reflector of another make. FRR reflects EVPN, BIRD host routes as plain
// unicast, of which it hands on the best or all (RFC 7911).
func TestBGPReflected(t *testing.T) {
	for name, reflector := range map[string]struct {
		families string
		start    func(s *lab.Sites, rr *lab.Namespace)
	}{
		"FRR": {"[evpn]", func(_ *lab.Sites, rr *lab.Namespace) { rr.FRR("", frrReflector) }},
		"BIRD": {"[ipv4, ipv6]", func(s *lab.Sites, rr *lab.Namespace) {
			startBIRDWith(s, rr, fmt.Sprintf(birdReflector, ""))
		}},
		"BIRD with all paths": {"[ipv4, ipv6]", func(s *lab.Sites, rr *lab.Namespace) {
			startBIRDWith(s, rr, fmt.Sprintf(birdReflector, " add paths tx;"))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s := lab.NewSites(t, bins, lab.Options{NoRoutes: true, Dual: true})
			reflector.start(s, s.Stand("rr", 9))
			for _, g := range s.GW {
				g.Config.BGP = &lab.BGP{ASN: 65000, Neighbors: []string{
					"{address: 192.0.2.9, families: " + reflector.families + "}",
				}}
			}
			startAll(s)
			h11, h12, h21 := s.H("h11"), s.H("h12"), s.H("h21")
			found(s, h11, h12, h21)
			for _, g := range s.GW {
				knows(s, g, h11, lab.DC1, 0)
				knows(s, g, h21, lab.DC2, 0)
			}
			reach(t, s, [2]*lab.Host{h11, h21}, [2]*lab.Host{h21, h11})
			list := flows(s, h12, h21, 400)
			for move := 1; move <= 3; move++ {
				site := move % 2
				s.Replug(h11, site)
				found(s, h11)
				for _, g := range s.GW {
					knows(s, g, h11, site, uint32(move))
				}
				reach(t, s, [2]*lab.Host{h12, h11}, [2]*lab.Host{h21, h11}, [2]*lab.Host{h11, h21})
			}
			lossless(t, s, list, 62, "hosts that did not move")
		})
	}
}

// startBIRDWith runs BIRD with a configuration.
func startBIRDWith(s *lab.Sites, n *lab.Namespace, text string) {
	s.Helper()
	config := filepath.Join(s.Dir, n.Name+"-bird.conf")
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		s.Fatalf("write BIRD's configuration: %v", err)
	}
	socket := filepath.Join(s.Dir, n.Name+"-bird.ctl")
	p := n.Start("bird", "-f", "-c", config, "-s", socket, "-P", filepath.Join(s.Dir, n.Name+"-bird.pid"))
	s.Until(5*time.Second, "BIRD answers", func() error {
		out, err := n.Try("birdc", "-s", socket, "show", "status")
		if err != nil {
			return fmt.Errorf("%w: %s%s", err, out, p.Tail(10))
		}
		return nil
	})
}

// TestBGPRestart: daemons with sessions up are killed and started again under traffic. No packet is lost, what others learnt
// stays, and what went meanwhile is forgotten.
func TestBGPRestart(t *testing.T) {
	s := lab.NewSites(t, bins, lab.Options{NoRoutes: true})
	peers(t, s, "")
	h11, h21, h22 := s.H("h11"), s.H("h21"), s.H("h22")
	gw1, gw2 := s.GW[lab.DC1], s.GW[lab.DC2]
	found(s, h11, h21, h22)
	knows(s, gw1, h22, lab.DC2, 0)
	knows(s, gw2, h11, lab.DC1, 0)
	reach(t, s, [2]*lab.Host{h11, h21}, [2]*lab.Host{h21, h11})
	list := flows(s, h11, h21, 2000)

	gw1.Daemon.Kill()
	progress(list, 100)
	s.Unplug(h22) // leaves while gw1 is deaf
	for _, ip := range h22.IPs() {
		gw2.IP("neigh del " + ip.String() + " dev lan0")
	}
	gw1.Start()
	gw1.AwaitReady()
	progress(list, 100)
	s.Until(30*time.Second, "gw1 forgets the host that left", func() error {
		for _, ip := range h22.IPs() {
			if c, err := winner(gw1, ip.String()); err == nil {
				return fmt.Errorf("it has %+v", c)
			}
		}
		return nil
	})
	knows(s, gw1, h21, lab.DC2, 0)
	gw2.Restart()
	progress(list, 100)
	knows(s, gw1, h21, lab.DC2, 0)
	knows(s, gw2, h11, lab.DC1, 0)
	for _, g := range s.GW { // an orderly stop says no word either: forwarding goes on
		g.Stop()
		progress(list, 500)
		g.Start()
		g.AwaitReady()
	}
	lossless(t, s, list, 62, "restarts")
}

// TestBGPRestartWithMany: a daemon with 100,000 hosts of BGP and with BFD is killed and started again under traffic. Nothing is lost,
// all hosts are there the while, and those that were withdrawn meanwhile are forgotten.
func TestBGPRestartWithMany(t *testing.T) {
	const asn, many, gone = 64999, 100_000, 100
	s := lab.NewSites(t, bins, lab.Options{NoRoutes: true, Capacity: many + 1000, Alone: true})
	gw1, gen := s.GW[lab.DC1], s.Stand("gen", 9)
	gw1.Config.BFD = "{interval: 100ms, multiplier: 3}"
	s.GW[lab.DC2].Config.BFD = gw1.Config.BFD
	for site, g := range s.GW {
		g.Config.BGP = &lab.BGP{ASN: 65001 + site, Neighbors: []string{fmt.Sprintf("{address: 192.0.2.%d, asn: %d}", 2-site, 65002-site)}}
	}
	gw1.Config.BGP.Neighbors = append(gw1.Config.BGP.Neighbors, fmt.Sprintf("{address: 192.0.2.9, asn: %d, passive: true}", asn))
	hosts := make([]netip.Addr, many)
	for i := range hosts {
		hosts[i] = netip.AddrFrom4([4]byte{20, byte(i >> 16), byte(i >> 8), byte(i)})
	}
	announce := func(hosts []netip.Addr) *bgptest.Peer {
		t.Helper()
		all, err := bgptest.Origin{ASN: asn, VNI: 7001}.Hosts(netip.MustParseAddr("192.0.2.2"), 0, hosts...)
		if err != nil {
			t.Fatal(err)
		}
		end, err := bgptest.EndOfRIB()
		if err != nil {
			t.Fatal(err)
		}
		var peer *bgptest.Peer
		s.Until(20*time.Second, "gw1 takes the generator's session", func() error {
			return gen.Do(func() (err error) {
				from := netip.MustParseAddr("192.0.2.9")
				peer, err = bgptest.Dial(from, netip.MustParseAddrPort("192.0.2.1:179"), bgptest.Options{
					ASN: asn, RouterID: from, Families: bgptest.EVPN, Graceful: true, Hold: 90,
				})
				return err
			})
		})
		t.Cleanup(peer.Close)
		if err := errors.Join(peer.SendRaw(all), peer.SendRaw(end)); err != nil {
			t.Fatal(err)
		}
		return peer
	}
	knowsMany := func(n int) {
		t.Helper()
		s.Until(30*time.Second, fmt.Sprintf("gw1 has %d hosts in its table", n), func() error {
			var st daemonStatus
			if out, err := gw1.Ctl("-o", "json", "status"); err != nil || decode(out, &st) != nil {
				return fmt.Errorf("status: %v: %s", err, out)
			}
			for _, table := range st.Tables {
				if got := int(table.Entries); table.Name == "hosts4" && (got < n || got > n+gone/2) { // some of its own beside
					return fmt.Errorf("it has %d", got)
				}
			}
			return nil
		})
	}

	for _, g := range s.GW {
		g.Launch()
	}
	announce(hosts)
	for _, g := range s.GW {
		g.AwaitReady()
	}
	knowsMany(many)
	h11, h21 := s.H("h11"), s.H("h21")
	found(s, h11, h21)
	knows(s, gw1, h21, lab.DC2, 0)
	knows(s, s.GW[lab.DC2], h11, lab.DC1, 0)
	reach(t, s, [2]*lab.Host{h11, h21}, [2]*lab.Host{h21, h11})
	list := flows(s, h11, h21, 2000)

	gw1.Daemon.Kill()
	progress(list, 500)
	gw1.Launch()
	announce(hosts[gone:])
	gw1.AwaitReady()
	knowsMany(many - gone)
	if c, err := winner(gw1, hosts[0].String()); err == nil {
		t.Errorf("gw1 still has %+v", c)
	}
	knows(s, gw1, h21, lab.DC2, 0)
	progress(list, 500)
	lossless(t, s, list, 62, "a restart with many hosts")
}

// TestBGPReflectorDies: forwarding goes on with what is known, a host that moves meanwhile is known once the reflector is back.
func TestBGPReflectorDies(t *testing.T) {
	s := lab.NewSites(t, bins, lab.Options{NoRoutes: true})
	rr := s.Stand("rr", 9).FRR("", frrReflector)
	for _, g := range s.GW {
		g.Config.BGP = &lab.BGP{ASN: 65000, Neighbors: []string{"192.0.2.9"}}
	}
	startAll(s)
	h11, h12, h21 := s.H("h11"), s.H("h12"), s.H("h21")
	found(s, h11, h12, h21)
	for _, g := range s.GW {
		knows(s, g, h11, lab.DC1, 0)
		knows(s, g, h21, lab.DC2, 0)
	}
	knows(s, s.GW[lab.DC2], h12, lab.DC1, 0)
	reach(t, s, [2]*lab.Host{h12, h21}, [2]*lab.Host{h21, h12})
	list := flows(s, h12, h21, 1000)
	rr.BGP.Kill()
	for _, g := range s.GW {
		s.Until(20*time.Second, g.Name+" notices", func() error {
			if out := g.MustCtl("session", "list"); strings.Contains(out, "established") {
				return fmt.Errorf("sessions:\n%s", out)
			}
			return nil
		})
		knows(s, g, h12, lab.DC1, 0)
		knows(s, g, h21, lab.DC2, 0)
	}
	s.Replug(h11, lab.DC2)
	found(s, h11)
	knows(s, s.GW[lab.DC2], h11, lab.DC2, 1)
	rr.StartBGP()
	knows(s, s.GW[lab.DC1], h11, lab.DC2, 1)
	lossless(t, s, list, 62, "the reflector's death and return")
}
