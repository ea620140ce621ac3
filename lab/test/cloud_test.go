package lab_test

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"roam/lab"
)

// TestCloudFabric moves a host into a cloud and back while it talks with one that stays. The gateway there has one interface,
// behind NAT, in a fabric that answers ARP for everybody, believes no announcement, and lets nothing through of an address that
// is not assigned. Nobody assigns it but the hook, by the adapter of docs/examples. The cloud's API is out of order at first, and
// the daemon dies in the midst of that: the change is made all the same, once.
func TestCloudFabric(t *testing.T) {
	s := lab.NewSites(t, bins, lab.Options{NoRoutes: true})
	c := s.Cloud(bins)
	gw1, gwc, h11, h12 := s.GW[lab.DC1], c.GW, s.H("h11"), s.H("h12")
	gw1.Config.Peers = []lab.Peer{{Site: lab.CloudSite, Locators: []lab.PeerLocator{{Address: lab.CloudPublic}}}}
	gw1.Config.Foreign = []string{lab.CloudMAC}
	gw1.Config.Mobility = "{probe: {interval: 1m}}" // that a host left it hears from the other site only
	gw1.Config.BGP = &lab.BGP{ASN: 65001, Neighbors: []string{"{address: " + lab.CloudPublic + ", asn: 65002, passive: true}"}}
	gwc.Config.BGP = &lab.BGP{ASN: 65002, Neighbors: []string{"{address: 192.0.2.1, asn: 65001, timers: {connect_retry: 1s}}"}}
	gwc.Config.Hook = c.Adapter(h11)
	for _, g := range []*lab.Gateway{gw1, gwc} {
		g.Launch()
	}
	gw1.AwaitReady()
	gwc.AwaitReady()
	for _, h := range []*lab.Host{h11, h12} {
		h.Announce()
		home(s, lab.SiteNames[lab.DC1], 0, h, gw1, gwc)
	}
	reach(t, s, [2]*lab.Host{h12, h11}, [2]*lab.Host{h11, h12})

	list := chat(s, h11, h12)
	c.API.Break(true)
	c.Plug(h11)
	for _, ip := range h11.IPs() {
		gwc.MustCtl("host", "move", ip.String(), "--to", lab.CloudSite)
	}
	for _, ip := range h11.IPs() {
		awaitEvent(s, gwc, "hook_failed", ip.String())
	}
	home(s, lab.CloudSite, 1, h11, gw1, gwc)
	if text := metrics(t, gwc); !strings.Contains(text, `roam_sink_behind{sink="hook"} 2`) {
		t.Error("two changes are refused, and the sink is not behind")
	}
	const fails = "hooks.host_change: 2 hosts wait, 2 of them because it fails: exit status 1: cloud-adapter: PUT"
	if out := gwc.MustCtl("status"); !strings.Contains(out, fails) {
		t.Errorf("status does not say that the hook fails:\n%s", out)
	}
	s.Until(10*time.Second, "the fabric drops what nobody was assigned", func() error {
		if c.Dropped() == 0 {
			return errors.New("it has dropped nothing")
		}
		return nil
	})
	gwc.Restart()
	c.API.Break(false)
	assigned(s, c, h11, true)
	home(s, lab.CloudSite, 1, h11, gw1, gwc)
	progress(list, 20)
	refused, granted := c.API.Events()
	for _, id := range granted {
		if !slices.Contains(refused, id) {
			t.Errorf("change %s was made, and not asked for before the restart, when %v were", id, refused)
		}
	}
	if len(granted) != 2 {
		t.Errorf("changes %v were made, want one for each address", granted)
	}
	behindNAT(t, s, gw1, gwc)
	explained := gwc.MustCtl("explain", h12.IP4.String(), h11.IP4.String())
	if !strings.Contains(explained, "behind the fabric's router "+lab.CloudMAC) {
		t.Errorf("explain does not name the fabric's router:\n%s", explained)
	}

	s.Replug(h11, lab.DC1)
	h11.IP("neigh flush dev eth0")
	h11.Announce()
	home(s, lab.SiteNames[lab.DC1], 2, h11, gw1, gwc)
	assigned(s, c, h11, false)
	progress(list, 20)
	for _, f := range list {
		t.Logf("while the API is out of order: %s: %v", f, f.Stop())
	}

	if out := gwc.MustCtl("route", "list", "--source", "api"); strings.Contains(out, h11.IP4.String()) {
		t.Errorf("a restart of gwc would say again that h11 is there:\n%s", out)
	}
	if warnings := gwc.MustCtl("status"); strings.Contains(warnings, "hooks.host_change") {
		t.Errorf("status goes on warning:\n%s", warnings)
	}

	// And once more, with nothing out of order.
	wire := s.Switch.Capture("fabric-wan", "udp port 4789")
	list = chat(s, h11, h12)
	c.Plug(h11)
	for _, ip := range h11.IPs() {
		gwc.MustCtl("host", "move", ip.String(), "--to", lab.CloudSite)
	}
	home(s, lab.CloudSite, 3, h11, gw1, gwc)
	assigned(s, c, h11, true)
	progress(list, 50)
	for _, f := range list {
		t.Logf("with the API at work: %s: %v", f, f.Stop())
	}
	wire.Stop()
	translated(t, wire)
}

// chat starts streams between two hosts, both ways in both families, and waits until they run.
func chat(s *lab.Sites, a, b *lab.Host) []*lab.Flow {
	s.Helper()
	var list []*lab.Flow
	for i := range 2 {
		list = append(list, s.Flow(a.Namespace, a.IPs()[i], b.Namespace, b.IPs()[i], 100, 100),
			s.Flow(b.Namespace, b.IPs()[i], a.Namespace, a.IPs()[i], 100, 100))
	}
	progress(list, 20)
	return list
}

// translated checks that what the cloud's gateway sends through the tunnel arrives from its public address, by a port that NAT
// has made up.
func translated(t *testing.T, c *lab.Capture) {
	t.Helper()
	rows := c.Fields("ip.src == "+lab.CloudPublic, "udp.srcport")
	for _, row := range rows {
		outer, _, _ := strings.Cut(row[0], ",")
		if port, err := strconv.Atoi(outer); err != nil || port < 30000 || port > 39999 {
			t.Fatalf("a packet from port %q", row[0])
		}
	}
	if inside := c.Fields("ip.src == "+lab.CloudLocator, "udp.srcport"); len(rows) == 0 || len(inside) > 0 {
		t.Errorf("%d packets from the public address, and %d from the one inside", len(rows), len(inside))
	}
}

// home waits until gateways take a host's addresses to be at a site, to which they came by so many moves.
func home(s *lab.Sites, site string, moves uint32, h *lab.Host, gateways ...*lab.Gateway) {
	s.Helper()
	for _, g := range gateways {
		for _, ip := range h.IPs() {
			s.Until(20*time.Second, fmt.Sprintf("%s knows %s at %s", g.Name, ip, site), func() error {
				c, err := winner(g, ip.String())
				if err == nil && (c.Site != site || c.Sequence != moves) {
					err = fmt.Errorf("it has %+v", c)
				}
				return err
			})
		}
	}
}

// assigned waits until the cloud has assigned a host's addresses, or none of them.
func assigned(s *lab.Sites, c *lab.Cloud, h *lab.Host, want bool) {
	s.Helper()
	for _, ip := range h.IPs() {
		s.Until(20*time.Second, fmt.Sprintf("%s is assigned: %v", ip, want), func() error {
			if got := c.API.Assigned(ip); got != want {
				return fmt.Errorf("it is: %v", got)
			}
			return nil
		})
	}
}

// behindNAT checks that probes come back through NAT to both gateways, and what site list says of the locator.
func behindNAT(t *testing.T, s *lab.Sites, gw1, gwc *lab.Gateway) {
	t.Helper()
	type locator struct {
		Address, Inside netip.Addr
		State, Probe    string
	}
	var sites []struct {
		Name     string
		Own      bool
		Locators []locator
	}
	gwc.JSON(&sites, "site", "list")
	for _, site := range sites {
		if site.Own && site.Locators[0] != (locator{addr(lab.CloudPublic), addr(lab.CloudLocator), "own", ""}) {
			t.Errorf("site list of gwc: %+v", site)
		}
	}
	for g, other := range map[*lab.Gateway]string{gw1: lab.CloudPublic, gwc: "192.0.2.1"} {
		s.Until(10*time.Second, g.Name+" has "+other+" answer", func() error {
			out, err := g.Ctl("ping", other, "--count", "1")
			if err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
			return nil
		})
	}
	if out := gwc.MustCtl("doctor"); !strings.Contains(out, "others send to "+lab.CloudPublic) {
		t.Errorf("doctor does not tell of NAT:\n%s", out)
	}
}
