package datapath

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// setting is one thing in the kernel that has a value. Its String names it, in the journal too.
type setting interface {
	String() string
	get(k *Kernel) (string, error) // errAbsent where there is nothing that could have a value
	set(k *Kernel, value string) error
}

// errAbsent says that a setting's interface, or the kernel's support for it, is not there.
var errAbsent = errors.New("not there")

// Values of settings that are there or not.
const (
	present = "present"
	absent  = "absent"
	on      = "on"
	off     = "off"
	kept    = "kept"
)

// undoOrder is the order in which kinds of setting are undone. Switching all forwarding off makes interfaces forget that they
// forwarded before, so those come last.
var undoOrder = []string{"flag", "route", "address", "nowhere", "rule", "vlan", "pair", "sysctl", "keep"}

func rank(key string) int {
	kind, _, _ := strings.Cut(key, " ")
	return slices.Index(undoOrder, kind)
}

// parseSetting reads what String wrote.
func parseSetting(key string) (setting, error) {
	w := append(strings.Fields(key), "", "", "", "")
	prefix, prefixErr := netip.ParsePrefix(w[2])
	switch {
	case w[0] == "sysctl" && filepath.Clean(w[1]) == w[1] && strings.HasPrefix(w[1], "net/"):
		return sysctl(w[1]), nil
	case w[0] == "keep" && filepath.Clean(w[1]) == w[1] && strings.HasPrefix(w[1], "net/"):
		return keptSetting{w[1]}, nil
	case w[0] == "address" && prefixErr == nil:
		return addressSetting{w[1], prefix}, nil
	case w[0] == "route" && prefixErr == nil:
		return routeSetting{link: w[1], subnet: prefix}, nil
	case w[0] == "nowhere" && prefixErr == nil:
		return nowhereSetting{w[1], prefix}, nil
	case w[0] == "flag":
		return flagSetting{w[1], w[2]}, nil
	case w[0] == "pair" && w[2] != "":
		return pairSetting{w[1], w[2]}, nil
	case w[0] == "rule":
		if table, err := strconv.Atoi(w[2]); err == nil {
			return ruleSetting{w[1], table}, nil
		}
	case w[0] == "vlan":
		if id, err := strconv.ParseUint(w[2], 10, 12); err == nil {
			return vlanSetting{link: w[1], id: uint16(id)}, nil
		}
	}
	return nil, fmt.Errorf("the record of kernel settings holds %q, which this version does not know", key)
}

// sysctl is a file under /proc/sys, named with slashes: interface names may hold dots.
type sysctl string

const sysctlRoot = "/proc/sys"

func (s sysctl) String() string { return "sysctl " + string(s) }

func (s sysctl) get(*Kernel) (string, error) {
	b, err := os.ReadFile(filepath.Join(sysctlRoot, string(s)))
	if errors.Is(err, fs.ErrNotExist) {
		return "", errAbsent
	}
	return strings.TrimSpace(string(b)), err
}

func (s sysctl) set(_ *Kernel, value string) error {
	return os.WriteFile(filepath.Join(sysctlRoot, string(s)), []byte(value), 0)
}

// keptSetting is an interface's forwarding switch that was on before all were. It is kept in the journal alone; to undo it is to
// switch it on again.
type keptSetting struct{ path string }

func (s keptSetting) String() string { return "keep " + s.path }
func (s keptSetting) sysctl() sysctl { return sysctl(s.path) }
func (s keptSetting) set(k *Kernel, v string) error {
	if v == kept {
		return nil
	}
	return s.sysctl().set(k, v)
}

func (s keptSetting) get(k *Kernel) (string, error) {
	if _, err := s.sysctl().get(k); err != nil {
		return "", err
	}
	if noted, err := k.journal.read(); err != nil || noted[s.String()].set == kept {
		return kept, err
	}
	return "1", nil
}

// addressSetting is an address on an interface.
type addressSetting struct {
	link    string
	address netip.Prefix // the address itself with its subnet's length
}

func (s addressSetting) String() string { return "address " + s.link + " " + s.address.String() }

func (s addressSetting) get(k *Kernel) (string, error) {
	l, err := findLink(k, s.link)
	if err != nil {
		return "", err
	}
	list, err := k.links.AddrList(l, familyOf(s.address.Addr()))
	if err != nil {
		return "", err
	}
	for _, a := range list {
		if prefixOf(a.IPNet) == s.address {
			return present, nil
		}
	}
	return absent, nil
}

func (s addressSetting) set(k *Kernel, value string) error {
	l, err := findLink(k, s.link)
	if err != nil {
		return err
	}
	a := &netlink.Addr{IPNet: ipNet(s.address)}
	if value == absent {
		return k.links.AddrDel(l, a)
	}
	if s.link == "lo" && s.address.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD // every site has it: that is no duplicate
	}
	err = k.links.AddrAdd(l, a)
	if errors.Is(err, unix.EACCES) && s.address.Addr().Is6() {
		return fmt.Errorf("IPv6 is switched off there: set net.ipv6.conf.%s.disable_ipv6 to 0", s.link)
	}
	if errors.Is(err, unix.EEXIST) {
		return errors.New("the address is there with another prefix length: remove it, or correct the subnet")
	}
	return err
}

// routeProtocol marks routes as ours, in `ip route` too.
const routeProtocol = netlink.RouteProtocol(214)

// routeSetting is the connected route to a subnet whose hosts are behind an interface that has no address in it.
type routeSetting struct {
	link   string
	subnet netip.Prefix
	source netip.Addr // to speak from; no part of the setting's name
}

func (s routeSetting) String() string { return "route " + s.link + " " + s.subnet.String() }

func (s routeSetting) get(k *Kernel) (string, error) {
	l, err := findLink(k, s.link)
	if err != nil {
		return "", err
	}
	filter := &netlink.Route{Dst: ipNet(s.subnet), LinkIndex: l.Attrs().Index}
	routes, err := k.links.RouteListFiltered(familyOf(s.subnet.Addr()), filter, netlink.RT_FILTER_DST|netlink.RT_FILTER_OIF)
	if err != nil {
		return "", err
	}
	for _, r := range routes {
		if r.Gw == nil && len(r.MultiPath) == 0 {
			return present, nil
		}
	}
	return absent, nil
}

func (s routeSetting) set(k *Kernel, value string) error {
	l, err := findLink(k, s.link)
	if err != nil {
		return err
	}
	r := &netlink.Route{
		Dst: ipNet(s.subnet), LinkIndex: l.Attrs().Index, Protocol: routeProtocol, Scope: netlink.SCOPE_LINK,
		Table: unix.RT_TABLE_MAIN, Type: unix.RTN_UNICAST,
	}
	if value == absent {
		err := k.links.RouteDel(r)
		if errors.Is(err, unix.ESRCH) { // somebody has put one of theirs in its place
			return nil
		}
		return err
	}
	if s.source.IsValid() {
		r.Src = s.source.AsSlice()
	}
	return k.links.RouteAdd(r)
}

// nowhereSetting has the kernel drop what arrives by an interface for a subnet of a fabric. A blackhole in the routing table would drop what
// comes *from* the subnet, too, where rp_filter is 2.
type nowhereSetting struct {
	link   string
	subnet netip.Prefix
}

// nowherePriority is the last before the main table: the administrator's own rules come first.
const nowherePriority = 32765

func (s nowhereSetting) String() string { return "nowhere " + s.link + " " + s.subnet.String() }

func (s nowhereSetting) get(k *Kernel) (string, error) {
	rules, err := k.links.RuleList(familyOf(s.subnet.Addr()))
	if err != nil {
		return "", err
	}
	for _, r := range rules {
		if r.IifName == s.link && r.Priority == nowherePriority && r.Dst != nil && r.Dst.String() == s.subnet.String() {
			return present, nil
		}
	}
	return absent, nil
}

func (s nowhereSetting) set(k *Kernel, value string) error {
	r := netlink.NewRule()
	r.Family, r.IifName, r.Dst, r.Priority = familyOf(s.subnet.Addr()), s.link, ipNet(s.subnet), nowherePriority
	r.Type = unix.RTN_BLACKHOLE
	if value == absent {
		return k.links.RuleDel(r)
	}
	return k.links.RuleAdd(r)
}

// flagSetting is promiscuous mode, or the reception of all multicast, as `ip link` would set it.
type flagSetting struct{ link, flag string }

func (s flagSetting) String() string { return "flag " + s.link + " " + s.flag }

func (s flagSetting) bit() (uint32, error) {
	switch s.flag {
	case "promisc":
		return unix.IFF_PROMISC, nil
	case "allmulti":
		return unix.IFF_ALLMULTI, nil
	}
	return 0, fmt.Errorf("no flag %q", s.flag)
}

func (s flagSetting) get(k *Kernel) (string, error) {
	bit, err := s.bit()
	if err != nil {
		return "", err
	}
	l, err := findLink(k, s.link)
	if err != nil {
		return "", err
	}
	if l.Attrs().RawFlags&bit != 0 {
		return on, nil
	}
	return off, nil
}

func (s flagSetting) set(k *Kernel, value string) error {
	l, err := findLink(k, s.link)
	if err != nil {
		return err
	}
	switch s.flag + value {
	case "promisc" + on:
		return k.links.SetPromiscOn(l)
	case "promisc" + off:
		return k.links.SetPromiscOff(l)
	case "allmulti" + on:
		return k.links.LinkSetAllmulticastOn(l)
	}
	return k.links.LinkSetAllmulticastOff(l)
}

// upSetting is an interface's administrative state. Roam brings ports up and never down.
type upSetting struct{ link string }

func (s upSetting) String() string { return "up " + s.link }

func (s upSetting) get(k *Kernel) (string, error) {
	l, err := findLink(k, s.link)
	if err != nil {
		return "", err
	}
	if l.Attrs().RawFlags&unix.IFF_UP != 0 {
		return on, nil
	}
	return off, nil
}

func (s upSetting) set(k *Kernel, _ string) error {
	l, err := findLink(k, s.link)
	if err != nil {
		return err
	}
	if err := k.links.LinkSetUp(l); err != nil {
		return fmt.Errorf("bring %s up: %w", s.link, err)
	}
	return nil
}

// vlanSetting is the kernel's device for a tagged port: it untags what the program passes.
type vlanSetting struct {
	link  string
	id    uint16
	outer bool // of two tags the outer one: 802.1ad
}

// vlanName is the usual name of a VLAN device, cut to what the kernel takes.
func vlanName(link string, id uint16) string {
	suffix := "." + strconv.Itoa(int(id))
	return link[:min(len(link), 15-len(suffix))] + suffix
}

func (s vlanSetting) String() string { return fmt.Sprintf("vlan %s %d", s.link, s.id) }

func (s vlanSetting) get(k *Kernel) (string, error) {
	parent, err := findLink(k, s.link)
	if err != nil {
		return "", err
	}
	l, err := findLink(k, vlanName(s.link, s.id))
	if errors.Is(err, errAbsent) {
		return absent, nil
	}
	if err != nil {
		return "", err
	}
	v, ok := l.(*netlink.Vlan)
	if !ok || v.VlanId != int(s.id) || v.ParentIndex != parent.Attrs().Index {
		return "", fmt.Errorf("interface %s is not VLAN %d of %s: rename it", l.Attrs().Name, s.id, s.link)
	}
	return present, nil
}

func (s vlanSetting) set(k *Kernel, value string) error {
	if value == absent {
		l, err := findLink(k, vlanName(s.link, s.id))
		if err != nil {
			return err
		}
		return k.links.LinkDel(l)
	}
	parent, err := findLink(k, s.link)
	if err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.ParentIndex = vlanName(s.link, s.id), parent.Attrs().Index
	proto := netlink.VLAN_PROTOCOL_8021Q
	if s.outer {
		proto = netlink.VLAN_PROTOCOL_8021AD
	}
	err = k.links.LinkAdd(&netlink.Vlan{LinkAttrs: attrs, VlanId: int(s.id), VlanProtocol: proto})
	if errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("%w: the kernel has no VLAN devices: load its module 8021q", err)
	}
	return err
}

// findLink finds an interface; errAbsent where there is none.
func findLink(k *Kernel, name string) (netlink.Link, error) {
	l, err := k.links.LinkByName(name)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return nil, errAbsent
	}
	return l, err
}

func familyOf(a netip.Addr) int {
	if a.Is4() {
		return netlink.FAMILY_V4
	}
	return netlink.FAMILY_V6
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func prefixOf(n *net.IPNet) netip.Prefix {
	a, _ := netip.AddrFromSlice(n.IP)
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(a.Unmap(), bits)
}
