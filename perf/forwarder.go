package main

import (
	"errors"
	"net"
	"strconv"
	"strings"

	"roam/maps"
	"roam/maps/bench"
)

// forwarder is one of those that are put to the test, each in namespaces of its own.
type forwarder struct {
	name    string
	plain   bool   // it forwards, and does not encapsulate
	program string // that it needs, and that a Debian package of PEERS in the Makefile brings
	start   func(c *course, hosts int) error
}

// forwarders are in the order of the table. The first is the ceiling of the course, the second is us.
var forwarders = []forwarder{
	{name: "bare XDP redirect", plain: true, start: startRedirect},
	{name: "Roam", start: startRoam},
	{name: "bpf_fib_lookup and encapsulation", start: startFIB},
	{name: "kernel, plain forward", plain: true, start: startKernel},
	{name: "kernel, VXLAN", start: startKernelVXLAN},
	{name: "Open vSwitch, userspace, VXLAN", program: "ovs-vswitchd", start: startOVS},
	{name: "DPDK testpmd over af_packet", plain: true, program: "dpdk-testpmd", start: startTestpmd("net_af_packet")},
	{name: "DPDK testpmd over af_xdp", plain: true, program: "dpdk-testpmd", start: startTestpmd("net_af_xdp")},
}

// startRedirect does the least that a program can do.
func startRedirect(c *course, _ int) error {
	if err := c.gw.Do(func() error { return c.wire.Out.Put(uint32(0), uint32(c.wan0)) }); err != nil {
		return err
	}
	return errors.Join(c.attach(c.wire.Redirect), c.own())
}

// startRoam attaches the data path as the daemon does, over tables with as many hosts of each family.
func startRoam(c *course, hosts int) error {
	err := c.gw.Do(func() (err error) {
		c.gateway, err = newGateway(crowd{hosts: hosts}, side{uint32(c.lan0), maps.RoleAccess}, side{uint32(c.wan0), maps.RoleUnderlay})
		return err
	})
	if err != nil {
		return err
	}
	c.closers = append(c.closers, c.gateway.close)
	return errors.Join(c.attach(c.gateway.objects.Program), c.own())
}

// startFIB has one tunnel, whose way the kernel knows.
func startFIB(c *course, _ int) error {
	c.underlay()
	p, err := bench.LoadFIB(own4, far4, vni)
	if err != nil {
		return err
	}
	c.closers = append(c.closers, p.Close)
	return errors.Join(c.attach(p), c.own())
}

// underlay gives the forwarder an address towards the far end, and a neighbour there.
func (c *course) underlay() {
	for _, key := range []string{"all.forwarding=1", "all.rp_filter=0", "lan0.rp_filter=0"} {
		name, value, _ := strings.Cut(key, "=")
		c.gw.Sysctl("net.ipv4.conf."+name, value)
	}
	c.gw.IP(
		"address add 11.0.0.1/8 dev lan0",
		"address add "+own4.String()+"/24 dev wan0",
		"neighbour add "+far4.String()+" lladdr "+net.HardwareAddr(farMAC[:]).String()+" dev wan0 nud permanent",
	)
}

func startKernel(c *course, _ int) error {
	c.underlay()
	c.gw.IP("route add 10.0.0.0/8 via " + far4.String())
	return c.own()
}

// startKernelVXLAN makes the kernel a gateway that does the same work: all hosts behind one VXLAN device, every neighbour known.
func startKernelVXLAN(c *course, _ int) error {
	c.underlay()
	c.gw.IP(
		"link add vx0 type vxlan id "+strconv.Itoa(vni)+" local "+own4.String()+" remote "+far4.String()+
			" dstport 4789 nolearning noudpcsum ttl 64",
		"link set vx0 mtu 1500 up",
		"address add 172.16.0.1/30 dev vx0",
		"neighbour add 172.16.0.2 lladdr "+net.HardwareAddr(farMAC[:]).String()+" dev vx0 nud permanent",
		"route add 10.0.0.0/8 via 172.16.0.2 dev vx0",
	)
	return c.own()
}
