package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"roam/lab"
)

// What it costs the data path that Prometheus looks: a real roamd with a million hosts forwards live frames of 64 bytes, in turn left
// alone and scraped each second. One CPU is the generator's and, in its softirq, the gateway's; the daemon and who scrapes have the others.
//
//	[gen]--gen0---lan0--[gw: roamd]--wan0---wan0--[far: drops IPv4, answers ARP]
const (
	scrapeTurn   = 2500 * time.Millisecond // of one way; at least two scrapes
	scrapeEvery  = time.Second
	scrapeFrames = 1 << 17 // between two looks at the clock
)

// scrapeResult is one run.
type scrapeResult struct {
	Machine Machine `json:"machine"`
	Date    string  `json:"date"`
	Hosts   int     `json:"hosts"`
	Rounds  int     `json:"rounds"`
	Alone   Figure  `json:"alone_mpps"`
	Scraped Figure  `json:"scraped_mpps"`
	Ratio   Figure  `json:"ratio"`   // scraped of alone, round by round
	Scrape  Figure  `json:"seconds"` // that a scrape took meanwhile
	Series  int     `json:"series"`
	Bytes   int     `json:"bytes"` // of an answer
}

// scrapeBed is the network of the measurement.
type scrapeBed struct {
	gen      *lab.Namespace
	gw       *lab.Gateway
	program  *ebpf.Program // of the generator
	frame    []byte
	ingress  int // of gen0
	detach   []link.Link
	programs []*ebpf.Program
}

func runScrape(hosts, rounds int, out string) error {
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
	b, err := newScrapeBed(lab.New(t), bins, hosts, dir)
	if err != nil {
		return err
	}
	defer b.close()
	result := &scrapeResult{Machine: thisMachine(), Date: time.Now().UTC().Format(time.DateOnly), Hosts: hosts, Rounds: rounds}
	if err := b.gen.Do(func() error { return b.measure(result) }); err != nil {
		return err
	}
	if err := result.write(out); err != nil {
		return err
	}
	fmt.Print(result.markdown())
	return nil
}

func newScrapeBed(l *lab.Lab, bins lab.Binaries, hosts int, dir string) (b *scrapeBed, err error) {
	b = &scrapeBed{gen: l.Namespace("gen"), gw: l.Gateway("gw", bins)}
	far := l.Namespace("far")
	l.Cable(lab.End{In: b.gw.Namespace, Name: "lan0"}, lab.End{In: b.gen, Name: "gen0"}, 1500, 1)
	l.Cable(lab.End{In: b.gw.Namespace, Name: "wan0"}, lab.End{In: far, Name: "wan0"}, 1600, 1)
	b.gw.Addresses("wan0", "192.0.2.1/24")
	far.Addresses("wan0", "192.0.2.2/24")
	const gatewayMAC, hostMAC = "02:00:5e:10:00:01", "02:00:00:00:01:0b"
	c := &b.gw.Config
	c.Site, c.Access, c.Underlay, c.Subnets, c.Locators = "dc1", "lan0", []string{"wan0"}, []string{"10.1.0.0/24"}, []string{"192.0.2.1"}
	c.Shared, c.Own, c.GatewayMAC, c.RouterMAC, c.Probe = []string{"10.1.0.1"}, []string{"10.1.0.2"}, gatewayMAC, "02:00:00:00:00:01", "off"
	c.Peers = []lab.Peer{{Site: "dc2", Locators: []lab.PeerLocator{{Address: "192.0.2.2", RouterMAC: "02:00:00:00:00:02"}}}}
	c.Hosts = 1 << 20
	b.gw.SetRoute("10.1.0.21/32", "dc2")
	b.gw.Up()
	if err := b.fill(hosts, filepath.Join(dir, "hosts.csv")); err != nil {
		return nil, err
	}
	if err := b.openGenerator(hostMAC, gatewayMAC); err != nil {
		return nil, errors.Join(err, b.close())
	}
	sink, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, License: "GPL", Instructions: dropIPv4})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("load the sink: %w", err), b.close())
	}
	b.programs = append(b.programs, sink)
	if err := far.Do(func() error { return b.attach("wan0", sink) }); err != nil {
		return nil, errors.Join(err, b.close())
	}
	return b, nil
}

// fill imports hosts that live elsewhere, of either family.
func (b *scrapeBed) fill(hosts int, file string) error {
	var list strings.Builder
	for i := range hosts {
		addr := host4(20, i/2)
		if i%2 == 1 {
			addr = host6(0xa, i/2)
		}
		fmt.Fprintf(&list, "%s,default,192.0.2.2,vxlan,1,100\n", lab.HostRoute(addr))
	}
	if err := os.WriteFile(file, []byte(list.String()), 0o600); err != nil {
		return fmt.Errorf("write the list of hosts: %w", err)
	}
	_, err := b.gw.Ctl("route", "import", "--format", "csv", file)
	return err
}

// dropIPv4 lets ARP through, so that the far end stays a neighbour.
var dropIPv4 = asm.Instructions{
	asm.LoadMem(asm.R2, asm.R1, 0, asm.Word), // data
	asm.LoadMem(asm.R3, asm.R1, 4, asm.Word), // data_end
	asm.Mov.Imm(asm.R0, 2),                   // XDP_PASS
	asm.Mov.Reg(asm.R4, asm.R2),
	asm.Add.Imm(asm.R4, 14),
	asm.JGT.Reg(asm.R4, asm.R3, "out"),
	asm.LoadMem(asm.R5, asm.R2, 12, asm.Half),
	asm.HostTo(asm.BE, asm.R5, asm.Half),
	asm.JNE.Imm(asm.R5, 0x0800, "out"),
	asm.Mov.Imm(asm.R0, 1), // XDP_DROP
	asm.Return().WithSymbol("out"),
}

// sendAgain writes the first bytes of a frame anew, because the gateway has left its own in the same memory, and sends it. Whole words: a
// frame begins at an even place.
func sendAgain(head []byte) asm.Instructions {
	program := asm.Instructions{
		asm.LoadMem(asm.R2, asm.R1, 0, asm.Word),
		asm.LoadMem(asm.R3, asm.R1, 4, asm.Word),
		asm.Mov.Imm(asm.R0, 1),
		asm.Mov.Reg(asm.R4, asm.R2),
		asm.Add.Imm(asm.R4, int32(len(head))),
		asm.JGT.Reg(asm.R4, asm.R3, "out"),
	}
	for i := 0; i+2 <= len(head); i += 2 {
		program = append(program, asm.StoreImm(asm.R2, int16(i), int64(binary.NativeEndian.Uint16(head[i:])), asm.Half))
	}
	return append(program, asm.Mov.Imm(asm.R0, 3), asm.Return().WithSymbol("out")) // XDP_TX
}

func (b *scrapeBed) openGenerator(from, to string) error {
	src, err := net.ParseMAC(from)
	if err != nil {
		return fmt.Errorf("the generator: %w", err)
	}
	dst, err := net.ParseMAC(to)
	if err != nil {
		return fmt.Errorf("the generator: %w", err)
	}
	ip := &layers.IPv4{
		Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: netip.MustParseAddr("10.1.0.11").AsSlice(), DstIP: netip.MustParseAddr("10.1.0.21").AsSlice(),
	}
	udp := &layers.UDP{SrcPort: 40000, DstPort: 9}
	_ = udp.SetNetworkLayerForChecksum(ip)
	buffer := gopacket.NewSerializeBuffer()
	err = gopacket.SerializeLayers(buffer, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true},
		&layers.Ethernet{SrcMAC: src, DstMAC: dst, EthernetType: layers.EthernetTypeIPv4}, ip, udp, gopacket.Payload(make([]byte, 18)))
	if err != nil {
		return fmt.Errorf("build the frame: %w", err)
	}
	b.frame = buffer.Bytes()
	b.program, err = ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, License: "GPL", Instructions: sendAgain(b.frame[:34])})
	if err != nil {
		return fmt.Errorf("load the generator: %w", err)
	}
	b.programs = append(b.programs, b.program)
	return b.gen.Do(func() error {
		i, err := net.InterfaceByName("gen0")
		if err != nil {
			return fmt.Errorf("find the generator's interface: %w", err)
		}
		b.ingress = i.Index
		return nil
	})
}

func (b *scrapeBed) attach(name string, p *ebpf.Program) error {
	i, err := net.InterfaceByName(name)
	if err != nil {
		return fmt.Errorf("find %s: %w", name, err)
	}
	l, err := link.AttachXDP(link.XDPOptions{Program: p, Interface: i.Index, Flags: link.XDPDriverMode})
	if err != nil {
		return fmt.Errorf("attach to %s: %w", name, err)
	}
	b.detach = append(b.detach, l)
	return nil
}

func (b *scrapeBed) close() error {
	var errs []error
	for _, l := range b.detach {
		errs = append(errs, l.Close())
	}
	for _, p := range b.programs {
		errs = append(errs, p.Close())
	}
	return errors.Join(errs...)
}

// measure is called in the generator's namespace.
func (b *scrapeBed) measure(r *scrapeResult) error {
	if err := pinThread(); err != nil {
		return err
	}
	if _, err := b.turn(); err != nil { // for caches, and the neighbour
		return err
	}
	var alone, scraped, took []float64
	for i := range r.Rounds {
		progress("scrapes, round %d of %d", i+1, r.Rounds)
		ways := []func() error{
			func() error { return keep(&alone, b.turn) },
			func() error {
				stop, seen := make(chan struct{}), make(chan []float64)
				go func() { seen <- b.scrapes(stop, r) }()
				err := keep(&scraped, b.turn)
				close(stop)
				took = append(took, <-seen...)
				return err
			},
		}
		if err := errors.Join(ways[i%2](), ways[1-i%2]()); err != nil { // either is first in every other round
			return err
		}
	}
	r.Alone, r.Scraped, r.Ratio, r.Scrape = summarize(alone), summarize(scraped), summarize(ratios(scraped, alone)), summarize(took)
	return nil
}

func keep(to *[]float64, turn func() (float64, error)) error {
	mpps, err := turn()
	*to = append(*to, mpps)
	return err
}

// turn sends for a while and returns millions of packets a second that were sent on through the tunnel.
func (b *scrapeBed) turn() (float64, error) {
	before := b.gw.Counters()["fwd_encap"]
	sent, start := 0, time.Now()
	for time.Since(start) < scrapeTurn {
		_, err := b.program.Run(&ebpf.RunOptions{
			Data: b.frame, Repeat: scrapeFrames, Flags: liveFrames, Context: xdpContext{DataEnd: uint32(len(b.frame)), Ingress: uint32(b.ingress)},
		})
		if err != nil {
			return 0, fmt.Errorf("send frames: %w", err)
		}
		sent += scrapeFrames
	}
	took := time.Since(start)
	arrived := b.gw.Counters()["fwd_encap"] - before
	if arrived < uint64(sent)*99/100 {
		return 0, fmt.Errorf("of %d frames only %d went on: %v", sent, arrived, b.gw.Counters())
	}
	return float64(arrived) / took.Seconds() / 1e6, nil
}

// scrapes gets the metrics each second until it is told to stop, and returns how long each took.
func (b *scrapeBed) scrapes(stop <-chan struct{}, r *scrapeResult) (took []float64) {
	tick := time.NewTicker(scrapeEvery)
	defer tick.Stop()
	for {
		text, d := b.gw.Scrape()
		took, r.Bytes, r.Series = append(took, d.Seconds()), len(text), 0
		for line := range strings.Lines(text) {
			if !strings.HasPrefix(line, "#") {
				r.Series++
			}
		}
		select {
		case <-stop:
			return took
		case <-tick.C:
		}
	}
}

func (r *scrapeResult) write(dir string) error {
	return writeResult(dir, r.Machine, "scrape", r, r.markdown())
}

func (r *scrapeResult) markdown() string {
	m := r.Machine
	figure := func(f Figure, format string, scale float64) string {
		return fmt.Sprintf(format+" ("+format+"-"+format+")", scale*f.Median, scale*f.P10, scale*f.P90)
	}
	return fmt.Sprintf("# Scrapes\n\n%s, %d CPUs; Linux %s; commit %s; %s. %d rounds of %v each way, in turn; medians (10th to 90th percentile).\n\n"+
		"| a roamd with %d hosts, 64-byte frames into a tunnel | |\n|---|---|\n| nobody scrapes | %s Mpps |\n| scraped each second | %s Mpps |\n"+
		"| ratio, round by round | %s |\n| a scrape meanwhile | %s ms, %d series, %d bytes |\n",
		m.CPU, m.CPUs, m.Kernel, m.Commit, r.Date, r.Rounds, scrapeTurn, r.Hosts, figure(r.Alone, "%.2f", 1), figure(r.Scraped, "%.2f", 1),
		figure(r.Ratio, "%.3f", 1), figure(r.Scrape, "%.1f", 1000), r.Series, r.Bytes)
}
