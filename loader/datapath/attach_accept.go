package datapath

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// acceptName marks our filter among those of an interface.
const acceptName = "roam_accept"

// acceptFilter is where the filter stands on an interface: before anybody else's.
func acceptFilter(index int) netlink.FilterAttrs {
	return netlink.FilterAttrs{
		LinkIndex: index, Parent: netlink.HANDLE_MIN_INGRESS, Handle: 1, Protocol: unix.ETH_P_ALL, Priority: 1,
	}
}

// accept lets the kernel take what the program passes on an interface whose driver runs XDP on finished socket buffers;
// see bpf/accept.h. Replacing an earlier one is atomic. The filter lives as long as the interface, whoever made it.
func accept(h *netlink.Handle, index int, program *ebpf.Program) error {
	qdisc := &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
	}}
	if err := h.QdiscAdd(qdisc); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add the clsact queueing discipline: %w", err)
	}
	filter := &netlink.BpfFilter{FilterAttrs: acceptFilter(index), Fd: program.FD(), Name: acceptName, DirectAction: true}
	if err := h.FilterReplace(filter); err != nil {
		return fmt.Errorf("add the filter that accepts passed packets: %w", err)
	}
	return nil
}

// unaccept removes the filter, and the queueing discipline where nobody else uses it.
func unaccept(h *netlink.Handle, index int) error {
	link, err := h.LinkByIndex(index)
	if err != nil {
		return nil // it went with the interface
	}
	others := 0
	for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
		filters, err := h.FilterList(link, parent)
		if err != nil {
			return nil // no clsact: nothing of ours
		}
		for _, f := range filters {
			if b, ok := f.(*netlink.BpfFilter); !ok || b.Name != acceptName {
				others++
			} else if err := h.FilterDel(f); err != nil && !errors.Is(err, unix.ENOENT) {
				return fmt.Errorf("remove the filter that accepts passed packets: %w", err)
			}
		}
	}
	if others > 0 {
		return nil
	}
	return dropClsact(h, link)
}

func dropClsact(h *netlink.Handle, link netlink.Link) error {
	list, err := h.QdiscList(link)
	if err != nil {
		return fmt.Errorf("list the queueing disciplines of %s: %w", link.Attrs().Name, err)
	}
	for _, q := range list {
		if q.Type() == "clsact" {
			if err := h.QdiscDel(q); err != nil && !errors.Is(err, unix.ENOENT) {
				return fmt.Errorf("remove the clsact queueing discipline of %s: %w", link.Attrs().Name, err)
			}
		}
	}
	return nil
}

// AcceptPassed sets up an interface on which native XDP runs on finished socket buffers; elsewhere there is nothing to do.
func (p *Plane) AcceptPassed(name string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	l, err := p.links.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find interface %s: %w", name, err)
	}
	if err := accept(p.links, l.Attrs().Index, p.objects.Accept); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}
