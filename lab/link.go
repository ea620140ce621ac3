package lab

import (
	"fmt"
	"net"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// End is one end of a cable: an interface in a namespace.
type End struct {
	In     *Namespace
	Name   string
	MAC    string // drawn by the kernel when empty
	Bridge string // plugged into this bridge of the same namespace, when set
}

// Cable joins two interfaces (a veth pair) and brings them up. queues is the number of queues each way.
//
// Both ends compute checksums, cut segments and write VLAN tags into the frame themselves: XDP sees a frame as it is,
// and one with a partial checksum or its tag in the metadata would be wrong on a real wire. Both receive through NAPI
// (GRO on), or a native redirect into the other end would be refused.
func (l *Lab) Cable(a, b End, mtu, queues int) {
	l.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.NumRxQueues, attrs.NumTxQueues = a.Name, mtu, queues, queues
	attrs.HardwareAddr = l.mac(a.MAC)
	veth := &netlink.Veth{
		LinkAttrs: attrs, PeerName: b.Name, PeerHardwareAddr: l.mac(b.MAC), PeerMTU: uint32(mtu),
		PeerNumRxQueues: uint32(queues), PeerNumTxQueues: uint32(queues),
		PeerNamespace: netlink.NsFd(b.In.ns),
	}
	l.must(a.In.nl.LinkAdd(veth), "lay cable %s:%s - %s:%s", a.In.Name, a.Name, b.In.Name, b.Name)
	for _, end := range []End{a, b} {
		end.In.Run("ethtool", "-K", end.Name,
			"tx", "off", "tso", "off", "gso", "off", "txvlan", "off", "rxvlan", "off")
		if end.Bridge != "" {
			end.In.Plug(end.Name, end.Bridge)
		}
		l.must(end.In.nl.LinkSetUp(end.In.link(end.Name)), "set %s up", end.Name)
	}
	// Only while both ends are up does this tell the other end that it may send frames by XDP.
	for _, end := range []End{a, b} {
		end.In.Run("ethtool", "-K", end.Name, "gro", "on")
	}
	// An IPv6 address is unusable until the kernel has noticed the carrier, which it does in its own time.
	for _, end := range []End{a, b} {
		l.Until(5*time.Second, end.Name+" comes up", func() error {
			if state := end.In.link(end.Name).Attrs().OperState; state != netlink.OperUp {
				return fmt.Errorf("it is %v", state)
			}
			return nil
		})
	}
}

// Addresses gives an interface addresses, written with their prefix lengths, usable at once.
func (n *Namespace) Addresses(link string, cidrs ...string) {
	n.lab.Helper()
	for _, cidr := range cidrs {
		addr, err := netlink.ParseAddr(cidr)
		n.lab.must(err, "read address")
		if addr.IP.To4() == nil {
			addr.Flags = unix.IFA_F_NODAD
		}
		n.lab.must(n.nl.AddrAdd(n.link(link), addr), "add address %s to %s:%s", cidr, n.Name, link)
	}
}

// Bridge creates a plain learning bridge: no spanning tree, no snooping, no delay.
func (n *Namespace) Bridge(name string, mtu int) {
	n.lab.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = name, mtu
	snooping := false
	n.lab.must(n.nl.LinkAdd(&netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &snooping}), "add bridge %s", name)
	n.lab.must(n.nl.LinkSetUp(n.link(name)), "set %s up", name)
}

// Plug moves a port into a bridge, out of the one it was in. The far end of the cable keeps its carrier, its MAC and
// its addresses and learns nothing of it: what a live migration looks like to the guest.
func (n *Namespace) Plug(port, bridge string) {
	n.lab.Helper()
	n.lab.must(n.nl.LinkSetMaster(n.link(port), n.link(bridge)), "plug %s into %s", port, bridge)
}

// VXLAN creates the kernel's own tunnel device: vni, UDP port 4789, from local, learning nothing. mac is its
// address, the inner destination that peers must use.
func (n *Namespace) VXLAN(name string, vni int, local, mac string) {
	n.lab.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.HardwareAddr = name, n.lab.mac(mac)
	n.lab.must(n.nl.LinkAdd(&netlink.Vxlan{
		LinkAttrs: attrs, VxlanId: vni, SrcAddr: net.ParseIP(local), Port: 4789, Learning: false,
		UDPCSum: true, UDP6ZeroCSumRx: true,
	}), "add VXLAN device %s", name)
	n.lab.must(n.nl.LinkSetUp(n.link(name)), "set %s up", name)
}

// MAC is the address of an interface.
func (n *Namespace) MAC(link string) string {
	n.lab.Helper()
	return n.link(link).Attrs().HardwareAddr.String()
}

// Links lists the names of a namespace's interfaces.
func (n *Namespace) Links() []string {
	n.lab.Helper()
	links, err := n.nl.LinkList()
	n.lab.must(err, "list interfaces of %s", n.Name)
	var names []string
	for _, link := range links {
		names = append(names, link.Attrs().Name)
	}
	return names
}

// XDP is the id of the program attached to an interface and whether the driver runs it, or 0.
func (n *Namespace) XDP(link string) (program uint32, native bool) {
	n.lab.Helper()
	xdp := n.link(link).Attrs().Xdp
	if xdp == nil || !xdp.Attached {
		return 0, false
	}
	const drv = 1 // XDP_ATTACHED_DRV
	return xdp.ProgId, xdp.AttachMode == drv
}

func (n *Namespace) link(name string) netlink.Link {
	n.lab.Helper()
	link, err := n.nl.LinkByName(name)
	n.lab.must(err, "find interface %s in %s", name, n.Name)
	return link
}

func (l *Lab) mac(s string) net.HardwareAddr {
	l.Helper()
	if s == "" {
		return nil
	}
	mac, err := net.ParseMAC(s)
	l.must(err, "read MAC")
	return mac
}
