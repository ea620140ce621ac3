package datapath

import (
	"fmt"
	"runtime"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// driverFacts is what is known of a driver's XDP: since which kernel it runs natively and takes frames over a page (the zero
// release: not at all), and the largest MTU that it takes without, on x86 with its pages of 4 KiB.
type driverFacts struct {
	native, frags release
	mtu           int
	remark        func(d *doctor, f Facts)
}

var drivers = map[string]driverFacts{
	"mlx5_core":  {native: release{4, 9}, frags: release{6, 4}, mtu: 3498},
	"i40e":       {native: release{4, 13}, frags: release{6, 4}, mtu: 3046, remark: queuePerCPU},
	"ice":        {native: release{5, 5}, frags: release{6, 3}, mtu: 3046},
	"ixgbe":      {native: release{4, 12}, mtu: 3050},
	"bnxt_en":    {native: release{4, 11}, frags: release{5, 19}, mtu: 3502},
	"ena":        {native: release{5, 6}, mtu: 3498, remark: halfOfQueues},
	"gve":        {native: release{6, 4}, mtu: 2032, remark: noHeadroom},
	"virtio_net": {native: release{4, 10}, frags: release{6, 3}, mtu: 3506},
	"igc":        {native: release{5, 13}, mtu: 1500},
	"vmxnet3":    {native: release{6, 6}, mtu: 3494},
	"veth":       {native: release{4, 19}, frags: release{5, 18}, mtu: 3520},
	"bonding":    {native: release{5, 15}},
}

// release is a kernel's version; the zero value is never.
type release struct{ major, minor int }

func (r release) String() string { return fmt.Sprintf("%d.%d", r.major, r.minor) }

// since reports whether kernel r has what came with other.
func (r release) since(other release) bool {
	return other != release{} && (r.major > other.major || r.major == other.major && r.minor >= other.minor)
}

// parseRelease reads the front of uname -r, such as 6.1.0-18-amd64.
func parseRelease(s string) (r release) {
	major, rest, _ := strings.Cut(s, ".")
	r.major, _ = strconv.Atoi(major)
	end := strings.IndexFunc(rest, func(c rune) bool { return c < '0' || c > '9' })
	if end >= 0 {
		rest = rest[:end]
	}
	r.minor, _ = strconv.Atoi(rest)
	return r
}

func runningRelease() release {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return release{}
	}
	return parseRelease(unix.ByteSliceToString(u.Release[:]))
}

// known compares a port with what is known of its driver. frags tells whether the running program takes frames over a page.
func (d *doctor) known(f Facts, kernel release, frags bool) {
	k, ok := drivers[f.Driver]
	if !ok || f.Mode == Generic {
		return
	}
	if !kernel.since(k.native) {
		d.add(LevelError, f.Name, fmt.Sprintf("driver %s has native XDP since Linux %s, and this is %s", f.Driver, k.native, kernel),
			"use a newer kernel, or set datapath.mode to generic")
	}
	if k.mtu != 0 && f.MTU > k.mtu && (!frags || !kernel.since(k.frags)) {
		fix := fmt.Sprintf("ip link set %s mtu %d", f.Name, k.mtu)
		switch {
		case kernel.since(k.frags):
			fix += "; or set datapath.frags to auto and restart roamd, which loses no packet"
		case k.frags != release{}:
			fix += fmt.Sprintf("; or use Linux %s or later, where the driver takes frames over a page", k.frags)
		}
		d.add(LevelError, f.Name, fmt.Sprintf("MTU %d is too large for native XDP on driver %s, which takes at most %d in one piece",
			f.MTU, f.Driver, k.mtu), fix)
	}
	if k.remark != nil {
		k.remark(d, f)
	}
}

// queuePerCPU: the driver sends redirected packets by the queue with the CPU's number, and drops them where there is none.
func queuePerCPU(d *doctor, f Facts) {
	if cpus := runtime.NumCPU(); f.TxQueues < cpus {
		d.add(LevelError, f.Name, fmt.Sprintf("driver %s sends by the queue with the CPU's number: it has %d, and packets handled by other of the %d CPUs are lost",
			f.Driver, f.TxQueues, cpus), fmt.Sprintf("ethtool -L %s combined %d, or bind the receive interrupts to the first %d CPUs", f.Name, cpus, f.TxQueues))
	}
}

// halfOfQueues: XDP needs as many queues again to send.
func halfOfQueues(d *doctor, f Facts) {
	if f.MaxQueues > 1 && f.RxQueues > f.MaxQueues/2 {
		d.add(LevelError, f.Name, fmt.Sprintf("driver %s wants at most half of its %d queues in use for native XDP, and %d are",
			f.Driver, f.MaxQueues, f.RxQueues), fmt.Sprintf("ethtool -L %s combined %d", f.Name, f.MaxQueues/2))
	}
}

func noHeadroom(d *doctor, f Facts) {
	d.add(LevelError, f.Name, fmt.Sprintf("driver %s lets no packet grow at its head: nothing that arrives here can enter a tunnel (drop_headroom)", f.Driver),
		"set datapath.mode to generic, or use another card")
}

// members are the ports of a bond, by which XDP runs.
func members(bond Facts) (list []Facts) {
	if bond.Driver != "bonding" {
		return nil
	}
	links, _ := netlink.LinkList()
	for _, l := range links {
		if l.Attrs().MasterIndex == bond.Index {
			if f, err := FactsOf(l.Attrs().Name); err == nil {
				f.Mode = bond.Mode
				list = append(list, f)
			}
		}
	}
	return list
}
