package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"roam/lab"
	"roam/maps"
	"roam/maps/bench"
)

// liveFrames is BPF_F_TEST_XDP_LIVE_FRAMES: what a program answers is done, since Linux 5.18.
const liveFrames = 1 << 1

// Ends of the cables of the live lab, all 64-byte frames in, and out to the far side:
//
//	gw:lan0 ---- lan:host0     frames are injected as if lan0 had received them
//	gw:wan0 ---- far:wan0      for XDP; an XDP program at the far end counts and drops
//	gw:krn0 ---- far:krn0      for the kernel; the far end's stack drops what is not for its MAC
//
// Both ends of a cable cost something. The kernel's far end is spared XDP, which on skbs costs more than it saves.
type liveLab struct {
	lab           *lab.Lab
	gw, far       *lab.Namespace
	lan0, wan0    int // interface indexes
	rows          []*liveRow
	bed           bed
	detach        link.Link
	sunk          *ebpf.Map
	gateway, home *gateway
}

// liveRow is one line of the table of live frames.
type liveRow struct {
	What    string    `json:"what"`
	Figure  Figure    `json:"ns"`      // per packet delivered
	Rate    Figure    `json:"mpps"`    // delivered
	Samples []float64 `json:"samples"` // ns

	program *ebpf.Program
	walker  *walker
	traffic bench.Traffic
	share   int                    // of packets: fast ones need more
	count   func() (uint64, error) // at the far end
}

func newLive(l *lab.Lab, hosts int) (*liveLab, error) {
	v := &liveLab{lab: l, gw: l.Namespace("gw"), far: l.Namespace("far")}
	lan := l.Namespace("lan")
	l.Cable(lab.End{In: v.gw, Name: "lan0", MAC: net.HardwareAddr(ownMAC[:]).String()}, lab.End{In: lan, Name: "host0"}, 1500, 1)
	l.Cable(lab.End{In: v.gw, Name: "wan0"}, lab.End{In: v.far, Name: "wan0"}, 1600, 1)
	l.Cable(lab.End{In: v.gw, Name: "krn0"}, lab.End{In: v.far, Name: "krn0"}, 1600, 1)
	v.kernelRoutes()
	err := v.gw.Do(func() error { return v.buildGateways(hosts) })
	if err == nil {
		err = v.attachSink()
	}
	if err != nil {
		return nil, errors.Join(err, v.close())
	}
	return v, nil
}

// kernelRoutes makes the kernel a gateway that does the same work: all hosts behind one VXLAN device, every neighbour known.
func (v *liveLab) kernelRoutes() {
	for _, key := range []string{"conf.all.forwarding=1", "conf.all.rp_filter=0", "conf.lan0.rp_filter=0"} {
		name, value, _ := strings.Cut(key, "=")
		v.gw.Sysctl("net.ipv4."+name, value)
	}
	far := net.HardwareAddr(farMAC[:]).String()
	v.gw.IP(
		"address add 11.0.0.1/8 dev lan0",
		"address add "+own4.String()+"/24 dev krn0",
		"neighbour add "+far4.String()+" lladdr "+far+" dev krn0 nud permanent",
		"link add vx0 type vxlan id "+strconv.Itoa(vni)+" local "+own4.String()+" remote "+far4.String()+
			" dstport 4789 nolearning noudpcsum ttl 64",
		"link set vx0 mtu 1500 up",
		"address add 172.16.0.1/30 dev vx0",
		"neighbour add 172.16.0.2 lladdr "+far+" dev vx0 nud permanent",
		"route add 10.0.0.0/8 via 172.16.0.2 dev vx0",
	)
	v.far.Run("ethtool", "-K", "krn0", "gro", "off")
}

// buildGateways is called in the gateway's namespace: one that sends to other sites, one that hears from them.
func (v *liveLab) buildGateways(hosts int) (err error) {
	for name, index := range map[string]*int{"lan0": &v.lan0, "wan0": &v.wan0} {
		i, err := net.InterfaceByName(name)
		if err != nil {
			return fmt.Errorf("find %s: %w", name, err)
		}
		*index = i.Index
	}
	lan, wan := uint32(v.lan0), uint32(v.wan0)
	v.gateway, err = v.bed.gateway(crowd{hosts: hosts}, side{lan, maps.RoleAccess}, side{wan, maps.RoleUnderlay})
	if err != nil {
		return err
	}
	v.home, err = v.bed.gateway(crowd{hosts: 1 << 10, local: 1 << 10}, side{lan, maps.RoleUnderlay}, side{wan, maps.RoleAccess})
	if err != nil {
		return err
	}
	return v.addRows()
}

func (v *liveLab) addRows() error {
	w, err := v.gateway.load(bench.Table, nil, shape{}, maps.DefaultTune, true)
	if err != nil {
		return err
	}
	v.bed.closers = append(v.bed.closers, w.close)
	h, err := v.home.load(bench.Table, nil, shape{outer: own4}, maps.DefaultTune, true)
	if err != nil {
		return err
	}
	v.bed.closers = append(v.bed.closers, h.close)
	v.sunk = w.Sunk
	hot := bench.Traffic{Random: 1, Egress: uint32(v.gateway.egress)}
	random := hot
	random.Destinations = uint32(v.gateway.hosts - 1)
	all := size(v.gateway.hosts)
	v.rows = []*liveRow{
		{What: "bare redirect", program: w.Redirect, walker: w, traffic: hot, share: 2, count: v.countXDP},
		{What: "encap, one host of " + all, program: w.Walk, walker: w, traffic: hot, share: 2, count: v.countXDP},
		{What: "encap, random hosts of " + all, program: w.Walk, walker: w, traffic: random, share: 2, count: v.countXDP},
		{What: "decap, one host", program: h.Walk, walker: h, traffic: hot, share: 2, count: v.countXDP},
		{What: "kernel, one host into VXLAN", program: w.Pass, walker: w, traffic: hot, share: 1, count: v.countKernel},
	}
	return nil
}

func (v *liveLab) attachSink() error {
	return v.far.Do(func() (err error) {
		i, err := net.InterfaceByName("wan0")
		if err != nil {
			return fmt.Errorf("find the far end: %w", err)
		}
		v.detach, err = link.AttachXDP(link.XDPOptions{Program: v.rows[0].walker.Sink, Interface: i.Index, Flags: link.XDPDriverMode})
		if err != nil {
			return fmt.Errorf("attach the sink: %w", err)
		}
		return nil
	})
}

func (v *liveLab) close() error {
	var err error
	if v.detach != nil {
		err = v.detach.Close()
	}
	return errors.Join(err, v.bed.close())
}

func (v *liveLab) countXDP() (uint64, error) {
	var perCPU []maps.Counter
	if err := v.sunk.Lookup(uint32(0), &perCPU); err != nil {
		return 0, fmt.Errorf("read the sink: %w", err)
	}
	var n uint64
	for _, c := range perCPU {
		n += c.Packets
	}
	return n, nil
}

// countKernel reads what the kernel's far end received.
func (v *liveLab) countKernel() (n uint64, err error) {
	err = v.far.Do(func() error {
		text, err := os.ReadFile("/proc/thread-self/net/dev")
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(text)) {
			if name, values, ok := strings.Cut(strings.TrimSpace(line), ":"); ok && name == "krn0" {
				n, err = strconv.ParseUint(strings.Fields(values)[1], 10, 64)
				return err
			}
		}
		return errors.New("the kernel's far end is gone")
	})
	return n, err
}

// xdpContext is struct xdp_md as a test run takes it: the frame is what the interface received.
type xdpContext struct {
	Data, DataEnd, DataMeta, Ingress, Queue, Egress uint32
}

// measure injects frames and counts them at the far end. It is called in the gateway's namespace; all but few must arrive.
func (v *liveLab) measure(r *liveRow, packets int) error {
	if err := r.walker.Traffic.Set(&r.traffic); err != nil {
		return err
	}
	before, err := r.count()
	if err != nil {
		return err
	}
	packets *= r.share
	start := time.Now()
	_, err = r.program.Run(&ebpf.RunOptions{
		Data: r.walker.frame, Repeat: uint32(packets), Flags: liveFrames,
		Context: xdpContext{DataEnd: uint32(len(r.walker.frame)), Ingress: uint32(v.lan0)},
	})
	took := time.Since(start)
	if err != nil {
		return fmt.Errorf("inject frames for %s: %w", r.What, err)
	}
	after, err := r.count()
	if err != nil {
		return err
	}
	arrived := after - before
	if arrived < uint64(packets)*99/100 {
		return fmt.Errorf("%s: of %d frames only %d arrived at the far end", r.What, packets, arrived)
	}
	r.Samples = append(r.Samples, float64(took.Nanoseconds())/float64(arrived))
	return nil
}

func (r *liveRow) summarize() {
	r.Figure = summarize(r.Samples)
	rates := make([]float64, len(r.Samples))
	for i, ns := range r.Samples {
		rates[i] = 1e3 / ns
	}
	r.Rate = summarize(rates)
}
