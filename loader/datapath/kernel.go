package datapath

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"

	"roam/loader/route"
)

// PortSpec says what a port is for, as far as the kernel has to know.
type PortSpec struct {
	Name     string
	VLAN     uint16 // 802.1Q tag, 0 for none: the kernel works on a VLAN device then, which is created where there is none
	Inner    uint16 // second tag (QinQ), 0 for none: a VLAN device on the first one
	Access   bool   // towards hosts
	Underlay bool   // towards other gateways
	Uplink   bool   // routed, towards the rest of the tenant's network
	Fragment string // of a fragment port: the kernel's end, made together with this one
	Table    int    // of a fragment port: where what arrives at the kernel's end is looked up

	NextHop route.MAC // of the router that takes everything behind the port of a fabric, else zero

	Subnets []netip.Prefix // of the segment behind an access port
	Own     []netip.Addr   // this gateway's alone, in one of the subnets
	Gateway []netip.Addr   // shared with the gateways of other sites; none where another router is the hosts' gateway

	// Isolated keeps the addresses of a tenant that shares them with another out of the kernel's one routing table, but for
	// own addresses, by which neighbours are asked on this port.
	Isolated bool

	// AcceptLocal lets the kernel take packets from an address that it holds itself. What the program passes never needs it; the
	// two ends of a veth pair in one namespace do.
	AcceptLocal bool
}

// Kernel is the kernel's side of the ports: what the program passes must be taken, resolved, answered and forwarded
// there, and nothing that the program answers may be answered there too.
//
// Set makes it so, Restore undoes it. Both act on the network namespace of the calling thread. What was already right is left
// alone and stays as it is; of the rest, the earlier value is kept in the pinned map "settings" before it is changed, so that it
// is known as long as the pins are, by whatever process. A setting that somebody has changed again since is theirs, and
// not restored. These are the settings, and why:
//
//   - net.ipv4.ip_forward and net.ipv6.conf.all.forwarding are 1: passed packets are to be forwarded.
//   - rp_filter is 0 or 2 on each port, in effect (the larger of the port's and all's counts): a host that moved here has
//     its route elsewhere, and strict mode would drop what it sends without a word.
//   - send_redirects is 0 on each port and on all (one of them suffices to send): a one-armed gateway would tell hosts to
//     speak to each other directly, across sites.
//   - arp_ignore is at least 1 and arp_announce is 2 on access ports and uplinks: shared addresses, which lie on lo, are neither
//     answered for by the kernel nor spoken from, or hosts would learn a MAC that is not the gateway's.
//   - accept_ra is 0 on access ports: a router on the segment must not become this gateway's default router. On interfaces that
//     listened to routers as a host does (1), it is 2: the kernel would stop listening the moment it forwards, and
//     with its default route the machine might lose the way to its operator.
//   - Shared addresses lie on lo, as /32 or /128, without duplicate address detection: the kernel takes packets for them, and no
//     other site's copy makes it give them up.
//   - Own addresses lie on the access port with the length of their subnet, whose connected route is how the kernel finds
//     hosts. A subnet without an own address gets that route by itself, from the shared address.
//   - Access ports are promiscuous and take all multicast: frames to the MACs of hosts that moved away, of the shared gateway and
//     of older gateways are to be seen, and so are neighbour solicitations for addresses that live elsewhere. The flags are
//     the interface's, not a socket's, since forwarding outlives the process.
//   - gc_thresh1 to 3 of the neighbour tables, where they are to be seen, have room for a million hosts that live here.
//   - What comes in by the port of a fabric, or by an underlay port, for a subnet of the fabric and is not routed by the program is dropped by
//     a rule of `ip rule`: the kernel's route leads to the fabric's router, whose route for who is not there leads back here.
//   - A fragment port (see fragmentPort) is a veth pair and a routing rule for its far end.
//   - Ports are up, and stay so.
//
// A shared link-local address such as fe80::1 stays out of the kernel. With it on the access port, the kernel would choose it as
// the source of its own solicitations and thereby tell hosts the port's MAC for it. The program answers for it; packets
// addressed to it, which are rare, find nobody.
//
// Safe for concurrent use.
type Kernel struct {
	links *netlink.Handle
	log   *slog.Logger

	mu      sync.Mutex
	journal journal
}

// wish is a setting, and the values that will do; where none of them is there the first is set.
type wish struct {
	setting setting
	values  []string
}

// Set brings the kernel in line with ports, and undoes what was set for ports, addresses and subnets that are no longer
// among them. A second Set with the same ports changes nothing. It goes on after an error and returns all of
// them. An interface that does not exist is left out: Set again when it has come.
func (k *Kernel) Set(ports []PortSpec) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	wishes, errs := k.wishes(ports)
	wanted := make(map[string]bool)
	for _, w := range wishes {
		wanted[w.setting.String()] = true
	}
	// First what is to go: a route that comes with an address goes with it, and may be wanted in its own right.
	errs = errors.Join(errs, k.undo(func(key string) bool { return !wanted[key] }))
	for _, w := range wishes {
		errs = errors.Join(errs, k.fulfil(w))
	}
	return errs
}

// Restore undoes everything that Set has done.
func (k *Kernel) Restore() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.undo(func(string) bool { return true })
}

// forgetElsewhere drops a record of settings made in another network namespace. Its caller has seen that no port there is
// attached any more, as when a container was made anew.
func (k *Kernel) forgetElsewhere() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.journal.open(false); !errors.Is(err, ErrNamespace) {
		return nil
	}
	k.log.Warn("forgetting the kernel settings made in another network namespace, where no port is left")
	return k.journal.remove()
}

// fulfil changes what is not right, and notes down first what it was.
func (k *Kernel) fulfil(w wish) error {
	have, err := w.setting.get(k)
	if errors.Is(err, errAbsent) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", w.setting, err)
	}
	if slices.Contains(w.values, have) {
		return nil
	}
	if up, ok := w.setting.(upSetting); ok { // stays: not for the journal
		return up.set(k, w.values[0])
	}
	if err := k.journal.write(w.setting.String(), change{was: have, set: w.values[0]}); err != nil {
		return err
	}
	if err := w.setting.set(k, w.values[0]); err != nil {
		return fmt.Errorf("set %s to %s: %w", w.setting, w.values[0], err)
	}
	k.log.Info("kernel setting", "what", w.setting.String(), "was", have, "now", w.values[0])
	return nil
}

// undo takes back the changes with the chosen keys.
func (k *Kernel) undo(chosen func(key string) bool) error {
	changes, err := k.journal.read()
	if err != nil {
		return err
	}
	keys := sortedKeys(changes)
	slices.SortStableFunc(keys, func(a, b string) int { return rank(a) - rank(b) })
	var errs error
	for _, key := range keys {
		if chosen(key) {
			errs = errors.Join(errs, k.takeBack(key, changes[key]))
		}
	}
	return errs
}

func (k *Kernel) takeBack(key string, c change) error {
	s, err := parseSetting(key)
	if err != nil {
		return err
	}
	have, err := s.get(k)
	if err != nil && !errors.Is(err, errAbsent) {
		return fmt.Errorf("read %s: %w", s, err)
	}
	if err == nil && have == c.set {
		if err := s.set(k, c.was); err != nil {
			return fmt.Errorf("restore %s to %s: %w", s, c.was, err)
		}
		k.log.Info("kernel setting restored", "what", key, "now", c.was)
	}
	return k.journal.forget(key)
}

// wishes lists what ports ask of the kernel, in the order to set it. Ports whose interface is missing ask nothing.
func (k *Kernel) wishes(ports []PortSpec) (list []wish, errs error) {
	seen := make(map[string]bool)
	add := func(s setting, values ...string) {
		if !seen[s.String()] {
			seen[s.String()] = true
			list = append(list, wish{s, values})
		}
	}
	ipv6 := exists(sysctlRoot + "/net/ipv6")
	if len(ports) > 0 {
		k.keepForwarding(add, ipv6)
		if ipv6 {
			k.keepRouters(ports, add)
			add(sysctl(forwarding6), "1")
		}
		add(sysctl(forwarding4), "1")
		add(sysctl("net/ipv4/conf/all/send_redirects"), "0")
		keepNeighbours(k, "ipv4", add)
		if ipv6 {
			keepNeighbours(k, "ipv6", add)
		}
	}
	for _, p := range ports {
		if err := p.check(ipv6); err != nil {
			errs = errors.Join(errs, err)
			continue
		}
		if p.Fragment != "" {
			k.fragmentWishes(p, ipv6, add)
			continue
		}
		if !k.there(p.Name) {
			continue
		}
		if p.VLAN != 0 {
			add(vlanSetting{p.Name, p.VLAN, p.Inner != 0}, present)
		}
		if p.Inner != 0 {
			add(vlanSetting{vlanName(p.Name, p.VLAN), p.Inner, false}, present)
		}
		k.portWishes(p, ipv6, add)
		k.fabricWishes(p, ports, ipv6, add)
	}
	return list, errs
}

// fabricWishes has the kernel drop what it is passed for hosts of a fabric that nobody knows: the fabric would send it back.
func (k *Kernel) fabricWishes(p PortSpec, ports []PortSpec, ipv6 bool, add func(setting, ...string)) {
	for _, from := range ports {
		if p.NextHop.IsZero() || !from.Underlay && from.Device() != p.Device() {
			continue
		}
		for _, subnet := range p.Subnets {
			if ipv6 || subnet.Addr().Is4() {
				add(nowhereSetting{from.Device(), subnet}, present)
			}
		}
	}
}

// keepNeighbours raises the limits of the neighbour table, which are the machine's and are seen in its first network
// namespace only: by default it holds 1024 entries, and hosts that live here are entries.
func keepNeighbours(k *Kernel, family string, add func(setting, ...string)) {
	for _, limit := range []struct {
		name  string
		least int
	}{{"gc_thresh3", 1 << 20}, {"gc_thresh2", 1 << 19}, {"gc_thresh1", 1 << 18}} {
		path := sysctl("net/" + family + "/neigh/default/" + limit.name)
		value := strconv.Itoa(limit.least)
		if have, err := path.get(k); err == nil {
			if n, err := strconv.Atoi(have); err == nil && n >= limit.least {
				value = have
			}
		}
		add(path, value)
	}
}

// fragmentWishes asks for a veth pair and what makes the kernel return all that arrives at its far end.
func (k *Kernel) fragmentWishes(p PortSpec, ipv6 bool, add func(setting, ...string)) {
	add(pairSetting{p.Name, p.Fragment}, present)
	add(ruleSetting{p.Fragment, p.Table}, present)
	for _, name := range []string{p.Name, p.Fragment} {
		v4 := "net/ipv4/conf/" + name + "/"
		add(sysctl(v4+"send_redirects"), "0")
		add(sysctl(v4+"rp_filter"), rpFilter(k)[0])
		if ipv6 {
			add(sysctl("net/ipv6/conf/"+name+"/disable_ipv6"), "1")
		}
		add(upSetting{name}, on)
	}
}

func (k *Kernel) portWishes(p PortSpec, ipv6 bool, add func(setting, ...string)) {
	dev := p.Device()
	for _, name := range slices.Compact([]string{p.Name, dev}) {
		add(upSetting{name}, on)
		v4 := "net/ipv4/conf/" + name + "/"
		add(sysctl(v4+"send_redirects"), "0")
		add(sysctl(v4+"rp_filter"), rpFilter(k)...)
		if p.Access || p.Uplink {
			add(sysctl(v4+"arp_ignore"), atLeastOne(k, "net/ipv4/conf/all/arp_ignore", "1", "2")...)
			add(sysctl(v4+"arp_announce"), "2")
		}
		if p.AcceptLocal {
			add(sysctl(v4+"accept_local"), "1")
		}
		if p.Access && ipv6 {
			add(sysctl("net/ipv6/conf/"+name+"/accept_ra"), "0")
		}
	}
	if !p.Access {
		return
	}
	for _, a := range p.Gateway {
		if !a.IsLinkLocalUnicast() && !p.Isolated {
			add(addressSetting{"lo", netip.PrefixFrom(a, a.BitLen())}, present)
		}
	}
	for _, a := range p.Own {
		add(addressSetting{dev, netip.PrefixFrom(a, p.subnetOf(a).Bits())}, present)
	}
	for _, subnet := range p.Subnets {
		if !slices.ContainsFunc(p.Own, subnet.Contains) && !p.Isolated {
			add(routeSetting{dev, subnet, p.sourceIn(subnet)}, present)
		}
	}
	for _, flag := range []string{"promisc", "allmulti"} {
		add(flagSetting{p.Name, flag}, on)
	}
}

// rpFilter lists the values of a port that make 0 or 2 of it in effect.
func rpFilter(k *Kernel) []string {
	switch all, _ := sysctl("net/ipv4/conf/all/rp_filter").get(k); all {
	case "0":
		return []string{"0", "2"}
	case "1":
		return []string{"2"}
	}
	return []string{"0", "1", "2"}
}

// atLeastOne lists values, and also 0 where all already has one of them.
func atLeastOne(k *Kernel, all string, values ...string) []string {
	if v, _ := sysctl(all).get(k); slices.Contains(values, v) {
		return append(values, "0")
	}
	return values
}

// The switches of all forwarding.
const (
	forwarding4 sysctl = "net/ipv4/ip_forward"
	forwarding6 sysctl = "net/ipv6/conf/all/forwarding"
)

// keepRouters has interfaces that take router advertisements go on doing so once this machine forwards.
func (k *Kernel) keepRouters(ports []PortSpec, add func(setting, ...string)) {
	all, err := forwarding6.get(k)
	noted, _ := k.journal.read()
	paths, _ := filepath.Glob(sysctlRoot + "/net/ipv6/conf/*/accept_ra")
	for _, path := range paths {
		name := filepath.Base(filepath.Dir(path))
		access := func(p PortSpec) bool { return p.Access && (p.Name == name || p.Device() == name) }
		if name == "all" || name == "default" || name == "lo" || slices.ContainsFunc(ports, access) {
			continue
		}
		s := sysctl(strings.TrimPrefix(path, sysctlRoot+"/"))
		value, _ := s.get(k)
		if noted[s.String()].set == "2" || err == nil && all == "0" && value == "1" {
			add(s, "2")
		}
	}
}

// keepForwarding notes the interfaces that forward while the others do not: switching all of them on, and off again, would
// make them forget it.
func (k *Kernel) keepForwarding(add func(setting, ...string), ipv6 bool) {
	families := map[string]sysctl{"ipv4": forwarding4}
	if ipv6 {
		families["ipv6"] = forwarding6
	}
	for _, family := range sortedKeys(families) {
		all, err := families[family].get(k)
		noted, _ := k.journal.read()
		paths, _ := filepath.Glob(sysctlRoot + "/net/" + family + "/conf/*/forwarding")
		for _, path := range paths {
			s := keptSetting{strings.TrimPrefix(path, sysctlRoot+"/")}
			if name := filepath.Base(filepath.Dir(path)); name == "all" {
				continue
			}
			value, _ := s.sysctl().get(k)
			_, before := noted[s.String()]
			if before || err == nil && all == "0" && value == "1" {
				add(s, kept)
			}
		}
	}
}

// Device is the interface on which the kernel sees the port's packets: the VLAN device for a tagged port.
func (p PortSpec) Device() string {
	if p.VLAN == 0 {
		return p.Name
	}
	if p.Inner != 0 {
		return vlanName(vlanName(p.Name, p.VLAN), p.Inner)
	}
	return vlanName(p.Name, p.VLAN)
}

func (p PortSpec) subnetOf(a netip.Addr) netip.Prefix {
	for _, s := range p.Subnets {
		if s.Contains(a) {
			return s
		}
	}
	return netip.Prefix{}
}

// sourceIn is the shared address to speak from in a subnet without an own one.
func (p PortSpec) sourceIn(subnet netip.Prefix) netip.Addr {
	for _, a := range p.Gateway {
		if subnet.Contains(a) {
			return a
		}
	}
	return netip.Addr{}
}

// check refuses what the kernel could not be told.
func (p PortSpec) check(ipv6 bool) error {
	if p.Name == "" || len(p.Name) > 15 || strings.ContainsAny(p.Name, "/ \t\n") || p.Name == "." || p.Name == ".." ||
		p.Name == "all" || p.Name == "default" {
		return fmt.Errorf("port %q: that is no interface name", p.Name)
	}
	if p.Inner > 4094 || p.Inner != 0 && p.VLAN == 0 {
		return fmt.Errorf("port %s: inner VLAN %d is outside 1..4094, or the only one", p.Name, p.Inner)
	}
	if p.VLAN > 4094 {
		return fmt.Errorf("port %s: VLAN %d is outside 1..4094", p.Name, p.VLAN)
	}
	for _, a := range p.Own {
		if !p.subnetOf(a).IsValid() {
			return fmt.Errorf("port %s: own address %s lies in none of its subnets %v: correct one of them", p.Name, a, p.Subnets)
		}
	}
	needs6 := func(a netip.Addr) bool { return a.Is6() && !a.IsLinkLocalUnicast() }
	if !ipv6 && (slices.ContainsFunc(p.Own, needs6) || slices.ContainsFunc(p.Gateway, needs6)) {
		return fmt.Errorf("port %s has IPv6 addresses, but this kernel runs without IPv6: boot it without ipv6.disable=1", p.Name)
	}
	return nil
}

func (k *Kernel) there(name string) bool {
	_, err := k.links.LinkByName(name)
	return err == nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

func (k *Kernel) close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.journal.close()
}
