package lab_test

import (
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"roam/lab"
)

// watched is what these tests read of a session.
type watched struct {
	Protocol, Neighbor, Local, State, Why string
	Flaps                                 int
	Up                                    bool
}

func bfdSessions(g *lab.Gateway) (list []watched) {
	g.JSON(&list, "session", "list")
	return slices.DeleteFunc(list, func(w watched) bool { return w.Protocol != "bfd" })
}

// allUp waits until a gateway has so many sessions, all up.
func allUp(s *lab.Lab, g *lab.Gateway, sessions int) {
	s.Helper()
	s.Until(10*time.Second, g.Name+" has its sessions up", func() error {
		list := bfdSessions(g)
		if len(list) != sessions || slices.ContainsFunc(list, func(w watched) bool { return !w.Up }) {
			return fmt.Errorf("%+v", list)
		}
		return nil
	})
}

// locator is a locator's state in `roamctl site list`.
func locator(g *lab.Gateway, address string) string {
	var sites []struct {
		Locators []struct{ Address, State string }
	}
	g.JSON(&sites, "site", "list")
	for _, site := range sites {
		for _, l := range site.Locators {
			if l.Address == address {
				return l.State
			}
		}
	}
	return "not listed"
}

func awaitLocator(s *lab.Lab, g *lab.Gateway, address, state string, limit time.Duration) {
	s.Helper()
	s.Until(limit, fmt.Sprintf("%s takes %s to be %s", g.Name, address, state), func() error {
		if is := locator(g, address); is != state {
			return fmt.Errorf("it is %s: %+v", is, bfdSessions(g))
		}
		return nil
	})
}

// damped waits until 192.0.2.2 is back, which it may not be within a second of the time at which its trouble ended.
func damped(t *testing.T, s *lab.Lab, g *lab.Gateway, ended time.Time) {
	t.Helper()
	awaitLocator(s, g, "192.0.2.2", "up", 10*time.Second)
	took := time.Since(ended)
	t.Logf("192.0.2.2 is back %v after its trouble ended", took.Round(time.Millisecond))
	if took < time.Second {
		t.Errorf("it was back after %v: it has to stay up for a second first", took)
	}
}

// metrics reads what a gateway tells Prometheus.
func metrics(t *testing.T, g *lab.Gateway) string {
	t.Helper()
	var conn net.Conn
	err := g.Do(func() (err error) {
		conn, err = net.Dial("tcp", "127.0.0.1:9177")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET /metrics HTTP/1.0\r\n\r\n")
	text, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestLocatorLost: each site has two ways in. One of them is cut in the middle, where nobody sees a link go down, and
// the flows that took it are on the other within a second; it is let back in when it has stayed up for a while, and that
// loses nothing.
func TestLocatorLost(t *testing.T) {
	s := lab.NewSites(t, bins, lab.Options{TwoWays: true, Alone: true})
	for _, g := range s.GW {
		g.Config.BFD = "{interval: 100ms, multiplier: 3, auth: {key: lab}}"
		g.Config.Probe = "off" // BFD alone; together: TestProbeAndBFD
	}
	s.Up()
	h11, h21, gw1 := s.H("h11"), s.H("h21"), s.GW[lab.DC1]
	reach(t, s, [2]*lab.Host{h11, h21})
	for _, g := range s.GW {
		allUp(s.Lab, g, 4)
	}

	var list []*lab.Flow
	for range 4 { // each flow takes one way, and of sixteen some take the other
		list = append(list, flows(s, h11, h21, 800)...)
	}
	s.Sever("gw2-wan")
	cut := time.Now()
	awaitLocator(s.Lab, gw1, "192.0.2.2", "down", 2*time.Second)
	t.Logf("192.0.2.2 is down %v after the cut", time.Since(cut).Round(time.Millisecond))
	if is := locator(gw1, "198.18.0.2"); is != "up" {
		t.Errorf("the other locator is %s", is)
	}
	if down := awaitEvent(s, gw1, "locator_down", "192.0.2.2"); !strings.HasPrefix(down.Why, "BFD: ") {
		t.Errorf("the event: %+v", down)
	}
	if text := metrics(t, gw1); !strings.Contains(text, `roam_locator_up{locator="192.0.2.2"} 0`) ||
		!strings.Contains(text, `roam_locator_up{locator="198.18.0.2"} 1`) ||
		!strings.Contains(text, `roam_session_up{local="192.0.2.1",neighbor="192.0.2.2",protocol="bfd"} 0`) {
		t.Errorf("metrics:\n%s", text)
	}
	progress(list, 20)
	hit := 0
	for _, f := range list {
		r := f.Stop()
		if r.Lost() > 0 {
			hit++
			t.Logf("%s: gap %v, %d of %d lost", f, r.Gap.Round(time.Millisecond), r.Lost(), r.Sent)
		}
		if r.Gap > time.Second {
			t.Errorf("%s: %v", f, r)
		}
	}
	if hit == 0 || hit == len(list) {
		t.Errorf("%d of %d flows were hit: there are not two ways", hit, len(list))
	}

	list = flows(s, h11, h21, 800)
	s.Switch.Plug("gw2-wan", "wan")
	healed := time.Now()
	for _, g := range s.GW {
		allUp(s.Lab, g, 4)
	}
	damped(t, s.Lab, gw1, healed)
	awaitLocator(s.Lab, s.GW[lab.DC2], "192.0.2.1", "up", 10*time.Second)
	progress(list, 20)
	lossless(t, s, list, 62, "the way back in")

	// An orderly stop is no failure, and neither is a crash where there is no other gateway to go to.
	list = flows(s, h11, h21, 800)
	s.GW[lab.DC2].Stop()
	progress(list, 100)
	for _, address := range []string{"192.0.2.2", "198.18.0.2"} {
		if is := locator(gw1, address); is != "up" {
			t.Errorf("dc2 said goodbye, and %s is %s", address, is)
		}
	}
	s.GW[lab.DC2].Start()
	s.GW[lab.DC2].AwaitReady()
	allUp(s.Lab, gw1, 4)
	s.GW[lab.DC2].Daemon.Kill()
	awaitLocator(s.Lab, gw1, "192.0.2.2", "down", 5*time.Second)
	awaitLocator(s.Lab, gw1, "198.18.0.2", "down", 5*time.Second)
	progress(list, 20)
	s.GW[lab.DC2].Start()
	s.GW[lab.DC2].AwaitReady()
	awaitLocator(s.Lab, gw1, "192.0.2.2", "up", 10*time.Second)
	progress(list, 100)
	lossless(t, s, list, 62, "restarts of the far daemon")
}

// farBFD is FRR's end of TestBFDWithFRR. FRR wants packets from at most five hops away.
const farBFD = `
bfd
 profile fast
  transmit-interval 100
  receive-interval 100
  detect-multiplier 3
  minimum-ttl 250
 exit
 peer 192.0.2.1 multihop local-address 192.0.2.2
  profile fast
 exit
 peer 2001:db8:ff::1 multihop local-address 2001:db8:ff::2
  profile fast
 exit
`

// farPeer is what FRR tells of a session.
type farPeer struct {
	Peer             string
	Status           string
	Diagnostic       string
	RemoteDiagnostic string `json:"remote-diagnostic"`
	RemoteReceive    int    `json:"remote-receive-interval"`
	RemoteTransmit   int    `json:"remote-transmit-interval"`
	RemoteMultiplier int    `json:"remote-detect-multiplier"`
}

// awaitPeers waits until FRR says of both sessions what is wanted.
func awaitPeers(s *lab.Lab, f *lab.FRR, limit time.Duration, what string, want func(farPeer) bool) time.Duration {
	s.Helper()
	begun := time.Now()
	s.Until(limit, "FRR has both sessions "+what, func() error {
		var peers []farPeer
		if err := decode(f.Show("show bfd peers json"), &peers); err != nil {
			return err
		}
		if len(peers) != 2 || slices.ContainsFunc(peers, func(p farPeer) bool { return !want(p) }) {
			return fmt.Errorf("%+v", peers)
		}
		return nil
	})
	return time.Since(begun)
}

// TestBFDWithFRR: sessions with FRR's bfdd over several hops, in both families. Either daemon is stopped in its tracks, and the other
// notices within the detection time; both stop in an orderly way, and nobody is blamed.
func TestBFDWithFRR(t *testing.T) {
	s := lab.NewSites(t, bins, lab.Options{KernelFar: true})
	gw1 := s.GW[lab.DC1]
	gw1.Config.BFD = "{min_ttl: 255}"
	gw1.Config.Locators = append(gw1.Config.Locators, "2001:db8:ff::1")
	gw1.Config.Peers[0].Locators = append(gw1.Config.Peers[0].Locators, lab.PeerLocator{Address: "2001:db8:ff::2", Priority: 2})
	s.Up()
	reach(t, s, [2]*lab.Host{s.H("h11"), s.H("h21")})
	far := s.Far.FRRBFD(farBFD)
	isUp := func(p farPeer) bool { return p.Status == "up" }
	awaitPeers(s.Lab, far, 20*time.Second, "up, with our intervals", func(p farPeer) bool {
		return isUp(p) && p.RemoteReceive == 100 && p.RemoteTransmit == 100 && p.RemoteMultiplier == 3
	})
	allUp(s.Lab, gw1, 2)

	// roamctl takes a while on a busy machine, and vtysh too: the slack is theirs.
	const detection, slack = 300 * time.Millisecond, 700 * time.Millisecond
	far.BFD.Signal(syscall.SIGSTOP)
	stopped := time.Now()
	awaitLocator(s.Lab, gw1, "192.0.2.2", "down", detection+slack)
	t.Logf("bfdd stopped: down after %v", time.Since(stopped).Round(time.Millisecond))
	awaitLocator(s.Lab, gw1, "2001:db8:ff::2", "down", slack)
	for _, w := range bfdSessions(gw1) {
		if w.State != "down" || w.Flaps != 1 || !strings.Contains(w.Why, "detection time") {
			t.Errorf("session %+v", w)
		}
	}
	reach(t, s, [2]*lab.Host{s.H("h11"), s.H("h21")}) // the only way is taken all the same
	far.BFD.Signal(syscall.SIGCONT)
	damped(t, s.Lab, gw1, time.Now())
	allUp(s.Lab, gw1, 2)

	awaitPeers(s.Lab, far, 10*time.Second, "up", isUp)
	gw1.Daemon.Signal(syscall.SIGSTOP)
	took := awaitPeers(s.Lab, far, detection+slack, "down", func(p farPeer) bool { return p.Status == "down" })
	t.Logf("roamd stopped: FRR has it down after %v", took.Round(time.Millisecond))
	gw1.Daemon.Signal(syscall.SIGCONT)
	awaitPeers(s.Lab, far, 10*time.Second, "up", isUp)

	awaitLocator(s.Lab, gw1, "192.0.2.2", "up", 10*time.Second)
	far.Show("configure", "bfd", "profile fast", "shutdown")
	s.Until(5*time.Second, "FRR's goodbye is heard", func() error {
		for _, w := range bfdSessions(gw1) {
			if w.Up || !strings.Contains(w.Why, "stopped speaking") {
				return fmt.Errorf("%+v", w)
			}
		}
		return nil
	})
	if is := locator(gw1, "192.0.2.2"); is != "up" {
		t.Errorf("a goodbye, and the locator is %s", is)
	}
	far.Show("configure", "bfd", "profile fast", "no shutdown")
	awaitPeers(s.Lab, far, 10*time.Second, "up", isUp)
	gw1.Stop()
	awaitPeers(s.Lab, far, 5*time.Second, "told of our goodbye", func(p farPeer) bool {
		return p.Status == "down" && strings.Contains(p.RemoteDiagnostic, "administratively down")
	})
}

// farKeys is BIRD's end of TestBFDWithKeys.
const farKeys = `
router id 192.0.2.2;
protocol device { }
protocol bfd {
  multihop {
    interval 100 ms; multiplier 3;
    authentication %s;
    password "a key of both" { id 7; };
  };
  neighbor 192.0.2.1 local 192.0.2.2 multihop;
}
`

// TestBFDWithKeys: BIRD and we agree on what keyed SHA1 is, in both manners, and a key that differs keeps us apart.
func TestBFDWithKeys(t *testing.T) {
	for name, c := range map[string]struct{ ours, theirs string }{
		"sha1":            {"{type: sha1, id: 7, key: a key of both}", "keyed sha1"},
		"meticulous-sha1": {"{type: meticulous-sha1, id: 7, key: a key of both}", "meticulous keyed sha1"},
		"another key":     {"{type: sha1, id: 7, key: another key}", "keyed sha1"},
	} {
		t.Run(name, func(t *testing.T) {
			s := lab.NewSites(t, bins, lab.Options{KernelFar: true})
			gw1 := s.GW[lab.DC1]
			gw1.Config.BFD = "{auth: " + c.ours + "}"
			s.Up()
			startBIRDWith(s, s.Far, fmt.Sprintf(farKeys, c.theirs))
			if name != "another key" {
				allUp(s.Lab, gw1, 1)
				return
			}
			s.Until(10*time.Second, "the key is found to differ", func() error {
				if w := bfdSessions(gw1); len(w) == 0 || w[0].Up || !strings.Contains(w[0].Why, "is the key the same on both ends?") {
					return fmt.Errorf("%+v", w)
				}
				return nil
			})
			if is := locator(gw1, "192.0.2.2"); is != "up" {
				t.Errorf("a session that was never up, and the locator is %s", is)
			}
		})
	}
}
