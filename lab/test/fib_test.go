package lab_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"roam/lab"
)

// birdText is one gateway's BIRD: it announces the hosts of its site to the other one over BGP, a session per family,
// and writes what it hears into kernel table 100, from where Roam takes it. The IPv6 session is multihop so that the
// next hop is the global address: a link-local one names no tunnel end.
const birdText = `
router id 192.0.2.%[1]d;
log stderr all;
protocol device { scan time 1; }
protocol direct { ipv6; interface "wan0"; }
protocol static hosts4 { ipv4;
	include "%[3]s/hosts4.conf";
}
protocol static hosts6 { ipv6;
	include "%[3]s/hosts6.conf";
}
protocol kernel k4 { ipv4 { import none; export where source = RTS_BGP; }; kernel table 100; }
protocol kernel k6 { ipv6 { import none; export where source = RTS_BGP; }; kernel table 100; }
protocol bgp bgp4 {
	local 192.0.2.%[1]d as 6500%[1]d; neighbor 192.0.2.%[2]d as 6500%[2]d;
	connect delay time 1; connect retry time 1; error wait time 1, 1;
	ipv4 { import all; export where proto = "hosts4"; next hop self; };
}
protocol bgp bgp6 {
	local 2001:db8:ff::%[1]d as 6500%[1]d; neighbor 2001:db8:ff::%[2]d as 6500%[2]d; multihop 2;
	connect delay time 1; connect retry time 1; error wait time 1, 1;
	ipv6 { import all; export where proto = "hosts6"; next hop self; };
}
`

// TestBIRD has a real routing daemon tell the gateways where hosts live: BGP between the sites, host routes into a
// kernel table, and packets follow. A host moves when its site's daemon announces it, and comes back.
func TestBIRD(t *testing.T) {
	s := up(t, lab.Options{NoRoutes: true, FIBTable: 100, Dual: true})
	var birds [2]*bird
	for site := range birds {
		birds[site] = startBIRD(t, s, site)
	}
	h11, h12, h21, h22 := s.H("h11"), s.H("h12"), s.H("h21"), s.H("h22")
	reach(t, s, [2]*lab.Host{h11, h21}, [2]*lab.Host{h21, h11}, [2]*lab.Host{h12, h22}, [2]*lab.Host{h22, h12})
	list := flows(s, h12, h21, 400)

	s.Replug(h11, lab.DC2)
	birds[lab.DC2].announce(h11, h21, h22)
	birds[lab.DC1].announce(h12)
	reach(t, s, [2]*lab.Host{h12, h11}, [2]*lab.Host{h21, h11}, [2]*lab.Host{h11, h12})
	s.Replug(h11, lab.DC1)
	birds[lab.DC1].announce(h11, h12)
	birds[lab.DC2].announce(h21, h22)
	reach(t, s, [2]*lab.Host{h21, h11}, [2]*lab.Host{h12, h11}, [2]*lab.Host{h11, h22})
	lossless(t, s, list, 62, "hosts that did not move")

	// A routing daemon that ends in an orderly way takes its routes along.
	if err := birds[lab.DC2].process.Stop(syscall.SIGTERM); err != nil {
		t.Errorf("stop BIRD: %v", err)
	}
	s.Until(10*time.Second, "gw1 forgets dc2's hosts", func() error {
		out := s.GW[lab.DC1].MustCtl("route", "list")
		if strings.Contains(out, h21.IP4.String()) || strings.Contains(out, h21.IP6.String()) {
			return fmt.Errorf("it still lists:\n%s", out)
		}
		return nil
	})
}

// bird is a running routing daemon of one site.
type bird struct {
	s       *lab.Sites
	dir     string
	gateway *lab.Gateway
	process *lab.Process
}

func startBIRD(t *testing.T, s *lab.Sites, site int) *bird {
	t.Helper()
	b := &bird{s: s, gateway: s.GW[site], dir: filepath.Join(s.Dir, "bird"+fmt.Sprint(site+1))}
	if err := os.Mkdir(b.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	b.write(hostsAt(s, site)...)
	config := filepath.Join(b.dir, "bird.conf")
	if err := os.WriteFile(config, fmt.Appendf(nil, birdText, site+1, 2-site, b.dir), 0o600); err != nil {
		t.Fatal(err)
	}
	b.process = b.gateway.Namespace.Start("bird", "-f", "-c", config, "-s", b.socket(), "-P", filepath.Join(b.dir, "pid"))
	s.Until(5*time.Second, "BIRD answers", func() error {
		out, err := b.gateway.Try("birdc", "-s", b.socket(), "show", "status")
		if err != nil {
			return fmt.Errorf("%w: %s%s", err, out, b.process.Tail(10))
		}
		return nil
	})
	return b
}

func hostsAt(s *lab.Sites, site int) (hosts []*lab.Host) {
	for _, h := range s.Hosts {
		if h.Site == site {
			hosts = append(hosts, h)
		}
	}
	return hosts
}

func (b *bird) socket() string { return filepath.Join(b.dir, "ctl") }

// announce replaces the hosts that this site announces.
func (b *bird) announce(hosts ...*lab.Host) {
	b.s.Helper()
	b.write(hosts...)
	b.gateway.Run("birdc", "-s", b.socket(), "configure")
}

func (b *bird) write(hosts ...*lab.Host) {
	b.s.Helper()
	var text [2]string
	for _, h := range hosts {
		for i, ip := range h.IPs() {
			text[i] += "route " + lab.HostRoute(ip) + " blackhole;\n"
		}
	}
	for i, name := range []string{"hosts4.conf", "hosts6.conf"} {
		if err := os.WriteFile(filepath.Join(b.dir, name), []byte(text[i]), 0o600); err != nil {
			b.s.Fatalf("write BIRD's hosts: %v", err)
		}
	}
}
