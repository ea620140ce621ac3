package lab

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// VRRP is what machines share that take over from each other: a virtual router of each family (RFC 5798).
type VRRP struct {
	Group   int
	IP4     netip.Addr
	IP6     netip.Addr
	Virtual bool // the addresses have the group's MAC wherever they are; else that of the machine that has them
	Unicast bool // the machines speak to each other's own addresses, as across a router
}

// MAC is the group's, of a family (RFC 5798, section 7.3).
func (v VRRP) MAC(family int) string { return fmt.Sprintf("00:00:5e:00:%02x:%02x", family+1, v.Group) }

// IPs are the shared addresses, one of each family.
func (v VRRP) IPs() []netip.Addr { return []netip.Addr{v.IP4, v.IP6} }

// Keepalived is a machine of a VRRP group.
type Keepalived struct {
	*Host
	*Process

	group VRRP
}

var vrrpNames = []string{"four", "six"}

// Keepalived starts a machine of a group; who has the higher priority is its master. The peer is told where Unicast is set.
func (h *Host) Keepalived(v VRRP, priority int, peer *Host) *Keepalived {
	h.lab.Helper()
	at := func(what string) string { return filepath.Join(h.lab.Dir, h.Name+"-keepalived."+what) }
	var text strings.Builder
	for family, name := range vrrpNames {
		fmt.Fprintf(&text, "vrrp_instance %s {\nstate BACKUP\ninterface eth0\nversion 3\nvirtual_router_id %d\npriority %d\nadvert_int 0.5\n", name, v.Group, priority)
		if v.Virtual {
			fmt.Fprintf(&text, "use_vmac %s\n", name)
		}
		if v.Virtual && v.Unicast {
			text.WriteString("vmac_xmit_base\n")
		}
		if v.Unicast {
			fmt.Fprintf(&text, "unicast_src_ip %s\nunicast_peer {\n%s\n}\n", h.IPs()[family], peer.IPs()[family])
		}
		text.WriteString("virtual_ipaddress {\n")
		if family == 1 {
			fmt.Fprintf(&text, "fe80::%x\n", v.Group) // RFC 5798, section 5.2.9: a link-local address is the first
		}
		fmt.Fprintf(&text, "%s\n}\n}\n", v.IPs()[family])
	}
	h.Sysctl("net.ipv4.conf.all.arp_ignore", "1") // or the interface with the IPv6 group's MAC answers for IPv4 addresses, too
	h.lab.must(os.WriteFile(at("conf"), []byte(text.String()), 0o600), "write the configuration of keepalived on %s", h.Name)
	return &Keepalived{Host: h, group: v, Process: h.Start("keepalived",
		"--vrrp", "--dont-fork", "--log-console", "--no-syslog", "--use-file", at("conf"), "--pid", at("pid"), "--vrrp_pid", at("vrrp.pid"))}
}

// AwaitMaster waits until a machine that was started has the shared addresses of both families.
func (k *Keepalived) AwaitMaster(limit time.Duration) {
	k.lab.Helper()
	for _, name := range vrrpNames {
		k.lab.must(k.Said("("+name+") Entering MASTER STATE", limit), "take over on %s", k.Host.Name)
	}
}

// Die has a machine fail: nothing that it still sends arrives anywhere. It has nothing of the group when it comes back.
func (k *Keepalived) Die(s *Sites) {
	s.Helper()
	s.Unplug(k.Host)
	k.Kill()
	s.Until(5*time.Second, k.Host.Name+" has lost what it shared", func() error {
		out := k.Host.Run("ip", "addr")
		for _, ip := range k.group.IPs() {
			if strings.Contains(out, "inet "+ip.String()+"/") || strings.Contains(out, "inet6 "+ip.String()+"/") {
				return fmt.Errorf("it has %s", ip)
			}
		}
		if left := k.Host.Links(); k.group.Virtual && len(left) > 2 {
			return fmt.Errorf("it has %v", left)
		}
		return nil
	})
}
