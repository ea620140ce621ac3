package kernels_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"testing"
	"time"

	"roam/lab"
	"roam/loader/route"
)

// peers is one gateway of ours and one site whose gateway, and host, is a guest with the kernel's own tunnel devices.
//
//	h              lan        gw1: roamd        wan         far: guest, tunnel device
//	10.1.0.11 ---------- lan0         wan0 ------------------ wan0
//	2001:db8:1::11            192.0.2.1                       192.0.2.2
//	                          2001:db8:ff::1                  2001:db8:ff::2
//	                                                          10.1.0.21, 2001:db8:1::21
type peers struct {
	*lab.Lab
	machine, h *lab.Namespace
	gw         *lab.Gateway
	far        *lab.Guest
}

func newPeers(t *testing.T, k lab.Kernel) *peers {
	t.Helper()
	p := &peers{Lab: lab.New(t)}
	p.machine = p.Namespace("switch")
	p.machine.Bridge("lan", hostMTU)
	p.machine.Bridge("wan", underlayMTU)
	p.h = p.Namespace("h")
	p.Cable(lab.End{In: p.h, Name: "eth0"}, lab.End{In: p.machine, Name: "h", Bridge: "lan"}, hostMTU, 1)
	p.h.Addresses("eth0", host[0]+"/24", host[1]+"/64")
	p.h.IP("route add default via 10.1.0.1", "route add default via fe80::1 dev eth0")
	p.gw = p.Gateway("gw1", bins)
	p.Cable(lab.End{In: p.gw.Namespace, Name: "lan0"}, lab.End{In: p.machine, Name: "gw1-lan", Bridge: "lan"}, hostMTU, 1)
	p.Cable(lab.End{In: p.gw.Namespace, Name: "wan0"}, lab.End{In: p.machine, Name: "gw1-wan", Bridge: "wan"}, underlayMTU, 1)
	p.gw.Addresses("wan0", locator[0]+"/24", locator[1]+"/64")
	c := &p.gw.Config
	c.Site, c.RouterMAC, c.Access, c.Underlay, c.Locators = "dc1", routerMAC, "lan0", []string{"wan0"}, locator[:]
	c.Subnets, c.Shared, c.Own = subnets, shared, own
	p.far = p.machine.Guest("far", lab.GuestSpec{
		Kernel: k, Programs: []string{"ip", "ping"},
		Modules: []string{"vxlan", "geneve", "ip_gre", "ip6_gre", "ipip", "sit", "ip6_tunnel", "fou", "fou6"},
		NICs:    []lab.NIC{{Name: "wan0", Bridge: "wan", MAC: "02:00:00:00:0a:02"}},
	})
	p.far.Run(
		"for key in all default; do echo 0 >/proc/sys/net/ipv6/conf/$key/accept_dad; done",
		fmt.Sprintf("ip link set wan0 mtu %d up", underlayMTU),
		"ip addr add "+farLocator[0]+"/24 dev wan0", "ip addr add "+farLocator[1]+"/64 dev wan0 nodad",
		"ip addr add "+prefix(farHost[0])+" dev lo", "ip addr add "+prefix(farHost[1])+" dev lo",
		"nc -ll -p 7 -e /busybox/cat >/dev/null 2>&1 &",
	)
	return p
}

// TestPeers has every tunnel device of the newest kernel that is tested as the far end of Roam's encapsulation, over IPv4 and
// over IPv6.
func TestPeers(t *testing.T) {
	if len(lines()) == 0 {
		t.Skip("boots another kernel: make test-kernels")
	}
	k := kernel(t, lines()[len(lines())-1])
	t.Parallel()
	p := newPeers(t, k)
	met.Release = p.far.Kernel.Release
	for _, d := range devices {
		result := peer{Encap: d.encap, Device: d.name}
		for u := range locator {
			t.Run(d.encap+pick(locator[u], " over IPv4", " over IPv6"), func(t *testing.T) {
				if d.since != "" && lab.Newer(d.since, p.far.Kernel.Release) {
					t.Skipf("needs Linux %s in the guest for its %s", d.since, d.name)
				}
				whole := p.TB
				p.TB = t
				defer func() { p.TB = whole }()
				p.test(t, d, u)
				result.Over[u] = !t.Failed()
			})
		}
		met.Peers = append(met.Peers, result)
	}
}

// Every encapsulation has a device as far end; the kernel has none for LISP.
func TestPeersAreAll(t *testing.T) {
	for e := route.Encap(0); e.Valid() == nil; e++ {
		has := slices.ContainsFunc(devices, func(d device) bool { return d.encap == e.String() })
		if want := e.String() != "lisp"; has != want {
			t.Errorf("%s has a device: %v, want %v", e, has, want)
		}
	}
}

// test brings up both ends over underlay u, and has packets of every size go both ways in both families.
func (p *peers) test(t *testing.T, d device, u int) {
	defer func() { _, _ = p.far.Try(30*time.Second, down) }()
	c := p.machine.Capture("far-wan0", "")
	p.far.Run(d.up(farLocator[u], locator[u])...)
	p.tell(d, u)
	before := p.gw.Counters()
	for i := range host {
		p.ping(i)
		p.echo(i)
	}
	c.Stop()
	if faults := c.Faults(); len(faults) > 0 {
		t.Errorf("%d broken packets, such as %q", len(faults), faults[:min(5, len(faults))])
	}
	for _, from := range []string{locator[u], farLocator[u]} {
		filter := fmt.Sprintf("(%s) && %s.src == %s", d.shown, pick(from, "ip", "ipv6"), from)
		if seen := len(c.Fields(filter, "frame.number")); seen < 200 {
			t.Errorf("only %d packets %q", seen, filter)
		}
	}
	if moved := p.gw.Counters().Since(before); moved.Dropped() != 0 {
		t.Errorf("gw1 dropped packets: %v", moved)
	}
}

// tell has the gateway reach the far host through the device, by a fresh start of the daemon.
func (p *peers) tell(d device, u int) {
	p.Helper()
	end := lab.PeerLocator{Address: farLocator[u], Encap: d.encap}
	if d.kind == ethernet {
		end.RouterMAC = farMAC
	}
	p.gw.Config.Peers = []lab.Peer{{Site: "dc2", Locators: []lab.PeerLocator{end}}}
	if p.gw.Daemon != nil {
		p.gw.Stop()
	}
	for _, to := range farHost {
		p.gw.SetRoute(prefix(to), "dc2")
	}
	p.gw.Up()
}

// ping sends the smallest and the largest packets both ways in a family.
func (p *peers) ping(i int) {
	p.Helper()
	for _, size := range []int{0, 56, hostMTU - 28 - 20*i} {
		args := []string{"-n", "-c", "3", "-i", "0.1", "-W", "2", "-M", "do", "-s", strconv.Itoa(size)}
		p.Until(20*time.Second, fmt.Sprintf("%d bytes from the host to %s", size, farHost[i]), func() error {
			out, err := p.h.Try("ping", append(args, farHost[i])...)
			if err != nil {
				err = fmt.Errorf("%w\n%s\n%v", err, out, p.gw.Counters())
			}
			return err
		})
		p.far.Run(fmt.Sprintf("ping -n -c 3 -i 0.1 -W 2 -M do -s %d %s", size, host[i]))
	}
}

// echo has a megabyte come back over TCP as it was sent: full segments both ways at once.
func (p *peers) echo(i int) {
	p.Helper()
	sent := make([]byte, 1<<20)
	_, _ = rand.NewChaCha8([32]byte{}).Read(sent)
	var back []byte
	err := p.h.Do(func() error {
		conn, err := net.DialTimeout("tcp", net.JoinHostPort(farHost[i], "7"), 5*time.Second)
		if err != nil {
			return err
		}
		defer conn.Close()
		wrote := make(chan error, 1)
		go func() {
			_, err := conn.Write(sent)
			wrote <- errors.Join(err, conn.(*net.TCPConn).CloseWrite())
		}()
		err = conn.SetDeadline(time.Now().Add(20 * time.Second))
		if err == nil {
			back, err = io.ReadAll(conn)
		}
		return errors.Join(err, <-wrote)
	})
	if err != nil || !bytes.Equal(sent, back) {
		p.Fatalf("TCP echo by %s: %d of %d bytes came back, equal: %v, %v\n%v",
			farHost[i], len(back), len(sent), bytes.Equal(sent, back), err, p.gw.Counters())
	}
}
