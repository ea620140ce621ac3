package datapath

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
)

// Level says how bad a Finding is.
type Level string

// Levels.
const (
	LevelError   Level = "error"   // packets are lost
	LevelWarning Level = "warning" // packets may be lost, or are slow
	LevelInfo    Level = "info"
)

// Finding is something about a port or the machine that an operator should know, and what to do about it.
type Finding struct {
	Level Level  `json:"level"`
	Port  string `json:"port"` // "" for the machine
	What  string `json:"what"`
	Fix   string `json:"fix,omitempty"`
}

// Doctor looks at the ports and at the kernel's side of them, and changes nothing. No finding means that nothing is amiss.
func (p *Plane) Doctor(ports []PortSpec) []Finding {
	d := &doctor{}
	d.machine()
	mtus := make(map[string]int)
	for _, spec := range ports {
		f, err := FactsOf(spec.Name)
		if err != nil {
			d.add(LevelError, spec.Name, "the interface does not exist", "create it, or correct its name in the configuration")
			continue
		}
		mtus[spec.Name] = f.MTU
		d.attachment(f, p.programOn(f.Index))
		for _, f := range append(members(f), f) {
			d.driver(f)
			d.known(f, runningRelease(), p.tune.Frags)
		}
		d.tags(f, spec)
		d.segment(spec)
		d.fabric(p.links, f.Index, spec)
	}
	d.room(ports, mtus)
	d.neighbours(p.links)
	d.kernel(p.kernel, ports)
	return d.findings
}

// programOn is the id of the program that our attachment to an interface runs, 0 for none.
func (p *Plane) programOn(index int) uint32 {
	p.mu.Lock()
	defer p.mu.Unlock()
	a := p.attached[index]
	if a == nil {
		return 0
	}
	info, err := a.link.Info()
	if err != nil {
		return 0
	}
	return uint32(info.Program)
}

type doctor struct{ findings []Finding }

func (d *doctor) add(level Level, port, what, fix string) {
	f := Finding{Level: level, Port: port, What: what, Fix: fix}
	if !slices.Contains(d.findings, f) {
		d.findings = append(d.findings, f)
	}
}

// machine looks at what concerns every port.
func (d *doctor) machine() {
	if jit, err := sysctl("net/core/bpf_jit_enable").get(nil); err == nil && jit == "0" {
		d.add(LevelWarning, "", "the kernel interprets BPF programs instead of compiling them: forwarding is several times slower",
			"sysctl net.core.bpf_jit_enable=1")
	}
}

// neighbours compares the kernel's neighbour tables, in which it keeps the hosts that live here, with their limits. Only the
// first network namespace shows these.
func (d *doctor) neighbours(h *netlink.Handle) {
	for name, family := range map[string]int{"ipv4": netlink.FAMILY_V4, "ipv6": netlink.FAMILY_V6} {
		limit := sysctl("net/" + name + "/neigh/default/gc_thresh3")
		value, err := limit.get(nil)
		most, _ := strconv.Atoi(value)
		if err != nil || most == 0 {
			continue
		}
		list, err := h.NeighList(0, family)
		if err == nil && len(list) > most*3/4 {
			d.add(LevelWarning, "", fmt.Sprintf("the kernel's %s neighbour table holds %d of at most %d entries: hosts beyond that are not found",
				name, len(list), most), fmt.Sprintf("sysctl %s=%d", strings.ReplaceAll(string(limit), "/", "."), 4*most))
		}
	}
}

// tunnelHeaders4 is what VXLAN over IPv4 adds to a packet: IPv4, UDP, VXLAN and the inner Ethernet header. IPv6 adds 20 more.
const tunnelHeaders4 = 20 + 8 + 8 + 14

// room compares what hosts may send with what fits into the tunnels.
func (d *doctor) room(ports []PortSpec, mtus map[string]int) {
	for _, under := range ports {
		for _, access := range ports {
			have, need := mtus[under.Name], mtus[access.Name]+tunnelHeaders4
			if !under.Underlay || !access.Access || under.Name == access.Name || have == 0 || need == tunnelHeaders4 || have >= need {
				continue
			}
			d.add(LevelWarning, under.Name, fmt.Sprintf("MTU %d leaves hosts %d bytes through IPv4 tunnels and %d through IPv6: "+
				"packets of up to %d, as %s lets them send, are dropped", have, have-tunnelHeaders4, have-tunnelHeaders4-20,
				mtus[access.Name], access.Name), fmt.Sprintf("give the underlay an MTU of %d or more, or hosts a smaller one", need+20))
		}
	}
}

func (d *doctor) attachment(f Facts, ours uint32) {
	switch {
	case f.Program == 0:
		d.add(LevelError, f.Name, "no XDP program is attached: Roam sees none of its packets",
			"look for the attach error in roamd's log")
	case f.Program != ours:
		d.add(LevelError, f.Name, fmt.Sprintf("XDP program %d is attached, which is not ours", f.Program),
			"end the application that attached it")
	case f.Mode == Generic:
		d.add(LevelWarning, f.Name, "XDP runs in generic mode, which forwards a fraction of what native mode does",
			"set datapath.mode to native if the driver can do it")
	}
	if !f.Up || !f.Carrier {
		d.add(LevelError, f.Name, "the interface is down or has no carrier", "check the cable, and `ip link set "+f.Name+" up`")
	}
}

func (d *doctor) driver(f Facts) {
	if f.FeaturesKnown {
		d.features(f)
	}
	for _, lro := range []string{"rx-lro", "rx-gro-hw"} {
		if f.Offloads[lro] {
			d.add(LevelWarning, f.Name, lro+" is on: it merges packets before XDP sees them", "ethtool -K "+f.Name+" "+offloadFlag(lro)+" off")
		}
	}
}

func offloadFlag(feature string) string {
	if feature == "rx-lro" {
		return "lro"
	}
	return feature
}

func (d *doctor) features(f Facts) {
	if f.Features&FeatureTransmit == 0 && f.Mode != Generic {
		switch f.Driver {
		case "veth":
			d.add(LevelError, f.Name, "packets that XDP sends out here are lost: the other end of the cable does not take them",
				"turn GRO off and on again at the other end while both are up (ethtool -K PEER gro off; ethtool -K PEER gro on), "+
					"or attach an XDP program there")
		default:
			d.add(LevelError, f.Name, "packets that XDP sends out here are lost: the driver does not take redirected packets now",
				"attach an XDP program to this port, give the driver more queues, or use another card")
		}
	}
	if f.Features&FeatureBasic == 0 {
		d.add(LevelWarning, f.Name, fmt.Sprintf("driver %s offers no native XDP at present", orUnknown(f.Driver)), queueFix(f))
	}
}

func queueFix(f Facts) string {
	if f.Driver == "veth" {
		return fmt.Sprintf("the other end of the cable must use at most as many transmit queues as this end has receive queues (%d)", f.RxQueues)
	}
	return "set datapath.mode to generic, or use another card"
}

func (d *doctor) tags(f Facts, spec PortSpec) {
	if spec.VLAN == 0 || !f.StripsVLAN {
		return
	}
	if err := f.SeesTags(); err != nil {
		d.add(LevelError, f.Name, err.Error(), "ethtool -K "+f.Name+" rxvlan off")
		return
	}
	d.add(LevelWarning, f.Name, "the other end of the cable may keep 802.1Q tags beside the frame, where XDP does not see them",
		"ethtool -K PEER txvlan off")
}

func (d *doctor) segment(spec PortSpec) {
	if !spec.Access || len(spec.Gateway) == 0 {
		return
	}
	for _, subnet := range spec.Subnets {
		if subnet.Addr().Is4() && !slices.ContainsFunc(spec.Own, subnet.Contains) {
			d.add(LevelWarning, spec.Name, fmt.Sprintf("subnet %s has no address of this gateway alone: the kernel asks for its hosts "+
				"from the shared address, and they learn this port's MAC for it", subnet), "add one to gateway.own_addresses")
		}
	}
}

// fabric compares the router that hosts of a fabric are reached by with what the kernel has learned of the port.
func (d *doctor) fabric(h *netlink.Handle, link int, spec PortSpec) {
	list, err := h.NeighList(link, netlink.FAMILY_ALL)
	if err != nil || spec.NextHop.IsZero() {
		return
	}
	var others []string
	for _, n := range list {
		switch mac := n.HardwareAddr.String(); {
		case mac == spec.NextHop.String():
			return
		case len(n.HardwareAddr) == len(spec.NextHop) && n.State&(netlink.NUD_FAILED|netlink.NUD_NOARP) == 0:
			others = append(others, mac)
		}
	}
	if slices.Sort(others); len(others) > 0 {
		d.add(LevelWarning, spec.Name, fmt.Sprintf("the router of this fabric is said to be %s, but who answers on this port is %s: "+
			"packets to hosts here may reach nobody", spec.NextHop, strings.Join(slices.Compact(others), ", ")),
			"correct access.next_hop_mac: ip neigh show dev "+spec.Name)
	}
}

// kernel reports settings that are not as they should be now.
func (d *doctor) kernel(k *Kernel, ports []PortSpec) {
	k.mu.Lock()
	defer k.mu.Unlock()
	wishes, err := k.wishes(ports)
	if err != nil {
		for line := range strings.Lines(err.Error()) {
			d.add(LevelError, "", strings.TrimSpace(line), "")
		}
	}
	for _, w := range wishes {
		if _, skip := w.setting.(keptSetting); skip {
			continue
		}
		have, err := w.setting.get(k)
		switch {
		case errors.Is(err, errAbsent):
		case err != nil:
			d.add(LevelWarning, "", fmt.Sprintf("cannot read %s: %v", w.setting, err), "")
		case !slices.Contains(w.values, have):
			d.add(LevelError, "", fmt.Sprintf("kernel setting %s is %s instead of %s", w.setting, have, w.values[0]),
				"find out what changes it; `roamctl reload` sets it again")
		}
	}
}
