package datapath

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"roam/maps"
)

// Whether a program takes frames longer than a page is part of the layout: the kernel lets a devmap serve only programs that
// agree on it. A start that changes it therefore gives the new program a devmap of its own, which holds the
// same ports before the first packet meets it; each program sends through its own until the last port has changed over.

const txPorts = "tx_ports"

// NeedFrags reports whether the MTU of one of these interfaces is more than its driver takes in one piece. It says so where the
// kernel cannot help.
func NeedFrags(interfaces []string, log *slog.Logger) bool {
	for _, name := range interfaces {
		f, err := FactsOf(name)
		if err != nil || f.MTULimit == 0 || f.MTU <= f.MTULimit {
			continue
		}
		if err := loadsWith(nil, true); err != nil {
			log.Warn("frames over a page need Linux 5.18 or later", "interface", name, "mtu", f.MTU, "limit", f.MTULimit, "error", err)
			return false
		}
		return true
	}
	return false
}

// partEgress takes the egress ports out of the maps to reuse, and returns them, if the program to be loaded cannot share them with
// the running one.
func (p *Plane) partEgress(known map[string]*ebpf.Map) (*ebpf.Map, error) {
	m := known[txPorts]
	if m == nil {
		return nil, nil
	}
	err := loadsWith(m, p.tune.Frags)
	if errors.Is(err, unix.EINVAL) {
		delete(known, txPorts)
		return m, nil
	}
	return nil, err
}

// loadsWith tries whether a program with or without frags may use an egress map, or exist at all.
func loadsWith(egress *ebpf.Map, frags bool) error {
	spec := &ebpf.ProgramSpec{Name: "roam_probe", Type: ebpf.XDP, License: "Dual BSD/GPL"}
	if egress != nil {
		spec.Instructions = asm.Instructions{asm.LoadMapPtr(asm.R1, egress.FD())}
	}
	spec.Instructions = append(spec.Instructions, asm.Mov.Imm(asm.R0, 2), asm.Return())
	if frags {
		spec.Flags = unix.BPF_F_XDP_HAS_FRAGS
	}
	prog, err := ebpf.NewProgram(spec)
	if err != nil {
		return fmt.Errorf("try a program with frags=%t: %w", frags, err)
	}
	return prog.Close()
}

// copyEgress gives a new map the ports of an old one. A port whose interface is not in this network namespace is an error: the start
// is refused while everything still is as it was.
func copyEgress(to, from *ebpf.Map) error {
	for slot := range uint32(maps.Ports) {
		var index uint32
		if err := from.Lookup(slot, &index); errors.Is(err, ebpf.ErrKeyNotExist) {
			continue
		} else if err != nil {
			return fmt.Errorf("read egress port %d: %w", slot, err)
		}
		if err := to.Put(slot, index); err != nil {
			return fmt.Errorf("carry egress port %d, interface index %d, over to the new program: %w", slot, index, err)
		}
	}
	return nil
}
