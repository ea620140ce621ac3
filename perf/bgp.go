package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"roam/lab"
	"roam/loader/source/bgp/bgptest"
)

// What BGP costs, beside FRR with the kernel's VXLAN: a neighbour announces a million EVPN hosts to one gateway, then to the
// other, moves ten thousand of them, then one at a time. What counts is when packets follow, on the wire:
//
//	h11 -- [gw1: Roam] --+                      +-- 192.0.2.8
//	                    (wan)-- gen: announces, captures
//	h31 -- [far: FRR] ---+                      +-- 192.0.2.9
const (
	genASN = 65009
	genVNI = 7001

	bgpSample = 1000 // hosts, drawn at random, that say when all are forwarded
	bgpMoves  = 10_000
	bgpSingle = 300
	bgpLimit  = 5 * time.Minute
)

var (
	hopA = netip.MustParseAddr("192.0.2.9")
	hopB = netip.MustParseAddr("192.0.2.8")
)

// bgpSide is a gateway under test and what it came to.
type bgpSide struct {
	What      string  `json:"what"`
	Loaded    float64 `json:"loaded_seconds"` // from the first byte until all are forwarded
	Anonymous int     `json:"anonymous_bytes"`
	Maps      int     `json:"maps_bytes,omitempty"` // of BPF
	Storm     float64 `json:"storm_seconds"`
	P50       float64 `json:"single_p50_seconds"`
	P99       float64 `json:"single_p99_seconds"`

	addr   netip.Addr
	asker  *lab.Host
	memory func() (anonymous, maps int)
	pids   func() []int
}

// bgpResult is one run.
type bgpResult struct {
	Machine Machine    `json:"machine"`
	Date    string     `json:"date"`
	Hosts   int        `json:"hosts"`
	Sides   []*bgpSide `json:"sides"`
}

func runBGP(hosts int, out string) error {
	t := &topLevel{}
	defer t.end()
	dir, err := os.MkdirTemp("", "roam-bin-")
	if err != nil {
		return fmt.Errorf("make a folder for the programs: %w", err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	bins, err := lab.Build(dir, "bench")
	if err != nil {
		return err
	}
	s := lab.NewSites(t, bins, lab.Options{NoRoutes: true, FRRFar: true, Capacity: hosts})
	gen := s.Stand("gen", 9)
	gen.Addresses("wan0", hopB.String()+"/24")
	gw1 := s.GW[lab.DC1]
	gw1.Config.BGP = &lab.BGP{ASN: 65001, Neighbors: []string{fmt.Sprintf("{address: %s, asn: %d, passive: true}", hopA, genASN)}}
	gw1.Config.Peers = nil
	s.FRR.Show("configure terminal", "router bgp 65002", "no neighbor 192.0.2.1", fmt.Sprintf("neighbor %s remote-as %d", hopA, genASN),
		fmt.Sprintf("neighbor %s passive", hopA), "address-family l2vpn evpn", fmt.Sprintf("neighbor %s activate", hopA))
	w, err := openWire(gen)
	if err != nil {
		return err
	}
	defer w.close()
	result := &bgpResult{Machine: thisMachine(), Date: time.Now().UTC().Format(time.DateOnly), Hosts: hosts}
	roam := &bgpSide{What: "Roam", addr: netip.MustParseAddr("192.0.2.1"), asker: s.H("h11"), memory: gw1.Memory, pids: func() []int { return []int{gw1.Daemon.PID()} }}
	frr := &bgpSide{What: "FRR and the kernel", addr: netip.MustParseAddr("192.0.2.2"), asker: s.H("h31"), memory: func() (int, int) {
		return lab.Anonymous(s.FRR.BGP.PID()) + lab.Anonymous(s.FRR.Zebra.PID()), 0
	}, pids: func() []int { return []int{s.FRR.BGP.PID(), s.FRR.Zebra.PID()} }}
	gw1.Launch()
	if err := roam.measure(gen, w, hosts); err != nil {
		return fmt.Errorf("%s: %w", roam.What, err)
	}
	gw1.Daemon.Kill()
	if err := frr.measure(gen, w, hosts); err != nil {
		return fmt.Errorf("%s: %w", frr.What, err)
	}
	result.Sides = []*bgpSide{roam, frr}
	if err := result.write(out); err != nil {
		return err
	}
	fmt.Print(result.markdown())
	return nil
}

// measure has one gateway learn everything.
func (b *bgpSide) measure(gen *lab.Namespace, w *wire, n int) error {
	random := rand.New(rand.NewPCG(1, 1)) // the same for both
	hosts := make([]netip.Addr, n)
	for i := range hosts {
		u := uint32(i) * 2654435761 & 0xffffff // scattered, and a bijection
		hosts[i] = netip.AddrFrom4([4]byte{20, byte(u >> 16), byte(u >> 8), byte(u)})
	}
	origin := bgptest.Origin{ASN: genASN, VNI: genVNI}
	all, err := origin.Hosts(hopA, 0, hosts...)
	if err != nil {
		return err
	}
	end, err := bgptest.EndOfRIB()
	if err != nil {
		return err
	}
	if err := w.ask(b.asker); err != nil {
		return err
	}
	peer, err := b.dial(gen)
	if err != nil {
		return err
	}
	defer peer.Close()
	sample := append(slices.Clone(hosts[max(0, n-16):]), drawn(random, hosts, bgpSample)...)
	progress("%s: %d hosts are announced", b.What, n)
	b.Loaded, err = w.timed(sample, hopA, func() error { return errors.Join(peer.SendRaw(all), peer.SendRaw(end)) })
	if err != nil {
		return err
	}
	if err := rest(b.pids()...); err != nil {
		return err
	}
	b.Anonymous, b.Maps = b.memory()

	progress("%s: hosts move", b.What)
	moving := drawn(random, hosts, min(bgpMoves, n/2))
	storm, err := origin.Hosts(hopB, 1, moving...)
	if err != nil {
		return err
	}
	if b.Storm, err = w.timed(moving, hopB, func() error { return peer.SendRaw(storm) }); err != nil {
		return err
	}
	var singles []float64
	for i, host := range drawn(random, moving, min(bgpSingle, len(moving))) {
		update, err := origin.Hosts(hopA, 2, host)
		if err != nil {
			return err
		}
		took, err := w.timed([]netip.Addr{host}, hopA, func() error { return peer.SendRaw(update) })
		if err != nil {
			return fmt.Errorf("move %d: %w", i+1, err)
		}
		singles = append(singles, took)
	}
	slices.Sort(singles)
	b.P50, b.P99 = percentile(singles, 0.5), percentile(singles, 0.99)
	return nil
}

// dial opens the session, as soon as the other end listens.
func (b *bgpSide) dial(gen *lab.Namespace) (peer *bgptest.Peer, err error) {
	for end := time.Now().Add(time.Minute); ; time.Sleep(200 * time.Millisecond) {
		err = gen.Do(func() (err error) {
			peer, err = bgptest.Dial(hopA, netip.AddrPortFrom(b.addr, 179), bgptest.Options{
				ASN: genASN, RouterID: hopA, Families: bgptest.EVPN, Graceful: true, Hold: 600,
			})
			return err
		})
		if err == nil || time.Now().After(end) {
			return peer, err
		}
	}
}

// drawn are n different ones of a list.
func drawn(random *rand.Rand, list []netip.Addr, n int) []netip.Addr {
	list = slices.Clone(list)
	n = min(n, len(list))
	for i := range n {
		k := i + random.IntN(len(list)-i)
		list[i], list[k] = list[k], list[i]
	}
	return list[:n]
}

func (r *bgpResult) write(dir string) error {
	return writeResult(dir, r.Machine, "bgp", r, r.markdown())
}

func (r *bgpResult) markdown() string {
	var b strings.Builder
	m := r.Machine
	fmt.Fprintf(&b, "# BGP\n\n%s, %d CPUs; Linux %s; commit %s; %s. One run, one gateway after the other; generator, gateway and captures share the CPUs.\n\n",
		m.CPU, m.CPUs, m.Kernel, m.Commit, r.Date)
	row := func(what string, cell func(*bgpSide) string) {
		fmt.Fprintf(&b, "| %s |", what)
		for _, s := range r.Sides {
			fmt.Fprintf(&b, " %s |", cell(s))
		}
		b.WriteString("\n")
	}
	row(fmt.Sprintf("%d EVPN hosts of one neighbour, half RT-2, half RT-5", r.Hosts), func(s *bgpSide) string { return s.What })
	b.WriteString("|---" + strings.Repeat("|---", len(r.Sides)) + "|\n")
	row("from the first byte until all are forwarded", func(s *bgpSide) string { return fmt.Sprintf("%.1f s", s.Loaded) })
	row("anonymous memory at rest afterwards (FRR: bgpd and zebra)", func(s *bgpSide) string {
		text := fmt.Sprintf("%d MB", s.Anonymous>>20)
		if s.Maps > 0 {
			return text + fmt.Sprintf(", maps %d MB", s.Maps>>20)
		}
		return text + ", without the kernel's routes"
	})
	row(fmt.Sprintf("%d of them move, until packets follow all", min(bgpMoves, r.Hosts/2)), func(s *bgpSide) string { return fmt.Sprintf("%.0f ms", 1000*s.Storm) })
	row("one of them moves, until packets follow: median", func(s *bgpSide) string { return fmt.Sprintf("%.2f ms", 1000*s.P50) })
	row("99th percentile", func(s *bgpSide) string { return fmt.Sprintf("%.2f ms", 1000*s.P99) })
	fmt.Fprintf(&b, "\nAll are forwarded: packets to %d of them drawn at random, and to the last, have been seen in tunnels to the announced locator.\n", bgpSample)
	return b.String()
}
