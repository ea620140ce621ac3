package datapath

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"roam/maps"
)

// Explained is what the real program did with a packet in a dry run: over the live tables, with counters of its own, and
// without sending anything.
type Explained struct {
	Reason  string
	Verdict maps.Verdict
	Action  string // of XDP
	Frame   []byte // as it leaves, or as the kernel gets it
	Report  maps.WalkReport
	Ingress PortRef
	Egress  PortRef    // where it was forwarded
	Locator netip.Addr // of the tunnel it takes
	From    netip.Addr // of the tunnel it came from
	Held    bool
	Kind    uint8 // of the next hop that was found, maps.Kind...
}

var actions = []string{"XDP_ABORTED", "XDP_DROP", "XDP_PASS", "XDP_TX", "XDP_REDIRECT"}

// xdpContext is struct xdp_md of <linux/bpf.h>.
type xdpContext struct {
	Data, DataEnd, DataMeta, IngressIfindex, RxQueueIndex, EgressIfindex uint32
}

const minFrame = 14 // of a test run: the Ethernet header

// Explain runs the program on a frame as if it arrived at a port. It takes a fresh instance each time, the better part of a second,
// so that a trace never shares state with what forwards. Linux before 5.15 cannot say where a packet of a dry run arrives.
func (g *Gateway) Explain(frame []byte, at PortRef) (Explained, error) {
	dry, err := g.dryInstance() // not under mu: while the kernel verifies it, routes go on changing
	if err != nil {
		return Explained{}, err
	}
	defer dry.Close()
	g.mu.Lock()
	defer g.mu.Unlock()
	slot, ok := g.placed.slots[at]
	if !ok {
		return Explained{}, fmt.Errorf("%s is no port of the data path", at)
	}
	ctx := xdpContext{DataEnd: uint32(len(frame)), IngressIfindex: g.table.ports.Port(slot).Ifindex}
	out := make([]byte, len(frame)+maps.HeaderMax+64)
	run := ebpf.RunOptions{Data: frame, DataOut: out, Context: ctx}
	action, err := dry.Program.Run(&run)
	if errors.Is(err, unix.EINVAL) && len(frame) >= minFrame {
		return Explained{}, fmt.Errorf("run the program on the packet: %w (before Linux 5.15 a test run cannot be told the port where "+
			"a packet arrives: explain on a gateway with a newer kernel, or look at roamctl counters)", err)
	}
	if err != nil {
		return Explained{}, fmt.Errorf("run the program on the packet: %w", err)
	}
	e := Explained{Frame: run.DataOut, Ingress: at, Action: actions[min(int(action), len(actions)-1)]}
	if err := dry.Report.Lookup(uint32(0), &e.Report); err != nil {
		return e, fmt.Errorf("read the report of the dry run: %w", err)
	}
	g.fill(&e)
	return e, nil
}

func (g *Gateway) dryInstance() (dry *maps.Objects, err error) {
	err = g.plane.Use(func(live *maps.Objects) error {
		shared := live.All()
		for _, own := range []string{"counters", "locator_counters", "report", "complaints", "icmp_sources"} {
			delete(shared, own)
		}
		tune := g.plane.tune
		tune.Shadow = false // what it would make of the frame is the question
		dry, err = maps.Load(maps.Options{Hosts: live.HostMaps(), Reuse: shared, Dry: true, Tune: tune})
		return err
	})
	return dry, err
}

// fill translates the numbers of a report.
func (g *Gateway) fill(e *Explained) {
	e.Reason = maps.ReasonName(maps.Reason(e.Report.Reason))
	e.Verdict = maps.VerdictOf(e.Reason)
	for ref, slot := range g.placed.slots {
		if e.Verdict == maps.Forwarded && slot == e.Report.Egress {
			e.Egress = ref
		}
	}
	if e.Report.Decapsulated != 0 {
		e.From = g.table.locators.Key(e.Report.FromLocator).Address
	}
	e.Kind = g.table.nexthops.Kind(e.Report.Nexthop)
	id := e.Report.Nexthop
	if e.Report.Member != 0 {
		id = e.Report.Member
	}
	if t, ok := g.table.nexthops.Target(e.Report.Nexthop); ok {
		e.Held = t.Flags&maps.FlagHeld != 0
	}
	if t, ok := g.table.nexthops.Target(id); ok && t.Kind == maps.KindAdjacency {
		e.Locator = g.table.locators.Key(t.Variant).Address
	}
}

func (r PortRef) String() string {
	if r.Inner != 0 {
		return fmt.Sprintf("%s.%d.%d", r.Name, r.VLAN, r.Inner)
	}
	if r.VLAN != 0 {
		return fmt.Sprintf("%s.%d", r.Name, r.VLAN)
	}
	return r.Name
}
