package datapath

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// refuseForeign refuses an interface on which somebody else's program runs.
func refuseForeign(l netlink.Link) error {
	xdp := l.Attrs().Xdp
	if xdp == nil || !xdp.Attached {
		return nil
	}
	name := l.Attrs().Name
	what := fmt.Sprintf("program %d", xdp.ProgId)
	if xdp.ProgId == 0 {
		what = "more than one program"
	} else if prog, err := ebpf.NewProgramFromID(ebpf.ProgramID(xdp.ProgId)); err == nil {
		if info, err := prog.Info(); err == nil && info.Name != "" {
			what += fmt.Sprintf(" (%q)", info.Name)
		}
		_ = prog.Close()
	}
	return fmt.Errorf("attach to %s: it already runs XDP %s, which is not ours: end the application that attached it, or "+
		"take it off with `ip link set dev %s xdp off`", name, what, name)
}

// explainAttach turns the kernel's refusal, an error number, into a sentence about this port. The kernel's own words go
// to its log only.
func explainAttach(name string, mode Mode, err error) error {
	f, _ := FactsOf(name)
	limit := drivers[f.Driver].mtu
	var what string
	switch {
	case errors.Is(err, unix.EBUSY), errors.Is(err, unix.EEXIST):
		what = "another XDP program came first: end the application that attached it"
	case errors.Is(err, unix.EOPNOTSUPP) && mode == Native:
		what = fmt.Sprintf("driver %s has no native XDP, or an offload forbids it (LRO, GRO_HW, checksum towards the guest): "+
			"turn that off with `ethtool -K %s lro off rx-gro-hw off`, or set datapath.mode to generic, which is far slower",
			orUnknown(f.Driver), name)
	case errors.Is(err, unix.ERANGE) && f.Driver == "veth":
		what = fmt.Sprintf("the MTU of the other end of the cable is too large for native XDP without fragments: "+
			"set it to %d or less there", limit)
	case errors.Is(err, unix.ENOSPC) && f.Driver == "veth":
		what = fmt.Sprintf("the other end of the cable has more transmit queues than this end has receive queues (%d): "+
			"create the pair with as many, or reduce them there with `ethtool -L PEER tx %d`", f.RxQueues, max(f.RxQueues, 1))
	case errors.Is(err, unix.ENOTCONN):
		what = "the other end of the cable is missing: create the pair anew"
	case limit != 0 && f.MTU > limit:
		what = fmt.Sprintf("MTU %d is too large for native XDP without fragments on driver %s: set it to %d or less",
			f.MTU, f.Driver, limit)
	case errors.Is(err, unix.ENOMEM):
		what = fmt.Sprintf("driver %s has no queues or memory to spare for XDP: reduce the queues in use with `ethtool -L %s`",
			orUnknown(f.Driver), name)
	case errors.Is(err, unix.EPERM):
		what = "not permitted: it takes CAP_NET_ADMIN and CAP_BPF"
	default:
		what = "the kernel's log may say why (dmesg)"
	}
	return fmt.Errorf("attach to %s in %s mode: %s: %w", name, mode, what, err)
}

func orUnknown(s string) string {
	if s == "" {
		return "(unknown)"
	}
	return s
}
