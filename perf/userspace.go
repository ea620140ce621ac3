package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"roam/lab"
)

// Forwarders in user space get the last CPU, and receive from interfaces of the kernel, because a veth pair has no driver of theirs.
// What the kernel does for them while it receives, it does where the generator is: that counts in their favour.

// startOVS has Open vSwitch forward in its own process (datapath_type=netdev) into a VXLAN tunnel.
func startOVS(c *course, _ int) error {
	dir := filepath.Join(c.Dir, "ovs")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make a folder: %w", err)
	}
	file := func(name string) string { return filepath.Join(dir, name) }
	db := "unix:" + file("db.sock")
	run := func(name string, args ...string) error {
		return c.try("env", append([]string{"OVS_RUNDIR=" + dir, name}, args...)...)
	}
	if err := run("ovsdb-tool", "create", file("conf.db"), "/usr/share/openvswitch/vswitch.ovsschema"); err != nil {
		return err
	}
	c.gw.Start("env", "OVS_RUNDIR="+dir, "ovsdb-server", file("conf.db"), "--remote=p"+db, "--unixctl="+file("db.ctl"), "--no-chdir")
	if err := awaitFile(file("db.sock")); err != nil {
		return err
	}
	vsctl := func(args ...string) error {
		return run("ovs-vsctl", append([]string{"--db=" + db, "--timeout=10"}, args...)...)
	}
	if err := vsctl("--no-wait", "init"); err != nil {
		return err
	}
	c.hire("env", "OVS_RUNDIR="+dir, "taskset", "-c", strconv.Itoa(lastCPU()), "ovs-vswitchd", db, "--unixctl="+file("vs.ctl"), "--no-chdir")
	far := net.HardwareAddr(farMAC[:]).String()
	for _, step := range [][]string{
		{"add-br", "br-phy", "--", "set", "bridge", "br-phy", "datapath_type=netdev", "--", "add-port", "br-phy", "wan0"},
		{"add-br", "br-int", "--", "set", "bridge", "br-int", "datapath_type=netdev", "--", "add-port", "br-int", "lan0"},
		{
			"add-port", "br-int", "vx0", "--", "set", "interface", "vx0", "type=vxlan", "options:remote_ip=" + far4.String(),
			fmt.Sprintf("options:key=%d", vni),
		},
	} {
		if err := vsctl(step...); err != nil {
			return err
		}
	}
	for _, step := range [][]string{
		{"ip", "address", "add", own4.String() + "/24", "dev", "br-phy"},
		{"ip", "link", "set", "br-phy", "mtu", "1600", "up"},
		{"ovs-appctl", "-t", file("vs.ctl"), "tnl/neigh/set", "br-phy", far4.String(), far},
		{"ovs-ofctl", "add-flow", file("br-int.mgmt"), "in_port=lan0,ip,actions=dec_ttl,mod_dl_dst:" + far + ",output:vx0"},
	} {
		if err := run(step[0], step[1:]...); err != nil {
			return err
		}
	}
	return nil
}

// startTestpmd has DPDK's test program carry frames from one interface to the other, with new MAC addresses: it has no way to put
// them into a tunnel without a network card that does.
func startTestpmd(driver string) func(*course, int) error {
	return func(c *course, _ int) error {
		p := c.hire("dpdk-testpmd", "-l", fmt.Sprintf("0,%d", lastCPU()), "--main-lcore", "0", "--no-huge", "-m", "512", "--no-pci",
			"--no-telemetry", "--file-prefix", filepath.Base(c.Dir), "--iova-mode=va",
			"--vdev="+driver+"0,iface=lan0", "--vdev="+driver+"1,iface=wan0",
			"--", "--forward-mode=mac", "--eth-peer=1,"+net.HardwareAddr(farMAC[:]).String(), "--total-num-mbufs=16384", "--auto-start",
			"--stats-period=3600")
		return p.Said("NIC statistics for port 1", 20*time.Second)
	}
}

// hire starts a process that forwards.
func (c *course) hire(name string, args ...string) *lab.Process {
	p := c.gw.Start(name, args...)
	c.crew = append(c.crew, p)
	return p
}

// promote has others wait for those that forward in user space, as they do for a forwarder in the kernel. Not before these are up: DPDK's
// threads wait for each other in turn while they start.
func (c *course) promote() error {
	for _, p := range c.crew {
		if err := eachThread(strconv.Itoa(p.PID()), realtime); err != nil {
			return err
		}
	}
	return nil
}

// rest has those that forward in user space leave their CPU to others.
func (c *course) rest() { c.signal(syscall.SIGSTOP) }

// resume ends their rest.
func (c *course) resume() { c.signal(syscall.SIGCONT) }

func (c *course) signal(s syscall.Signal) {
	for _, p := range c.crew {
		p.Signal(s)
	}
}

// try runs a command where the forwarder is. Unlike those of the lab, a peer may be unable to run.
func (c *course) try(name string, args ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	out, err := c.gw.Command(ctx, name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

func awaitFile(path string) error {
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(path); err == nil || time.Now().After(end) {
			return err
		}
	}
}
