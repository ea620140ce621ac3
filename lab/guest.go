package lab

import (
	"fmt"
	"path/filepath"
	"strings"
	"time"
)

// Guest is a machine of the lab with a kernel of its own, under qemu. The processor is emulated, so that it runs where
// virtualisation does not nest: a guest tells right from wrong, never fast from slow. Its processors take turns in one thread:
// with a thread each, one may run a breakpoint that the other has already patched away, and a kernel that turns a static key
// panics.
type Guest struct {
	Name   string
	Kernel Kernel

	in      *Namespace
	process *Process
	shell   shell
}

// GuestSpec says what a guest is made of. Its file system has only what is listed, busybox beside it, and is lost with it.
type GuestSpec struct {
	Kernel   Kernel
	Modules  []string // kernel modules, without what they depend on
	Programs []string // of this machine, with their libraries
	Files    []string // of this machine, at the same path
	NICs     []NIC
}

// NIC is a virtio_net interface of a guest.
type NIC struct {
	Name   string // in the guest
	Bridge string // that its cable is plugged into, in the guest's namespace
	MAC    string
}

const guestCPUs = 2

// Guest boots a guest whose cables lie in the namespace, and waits until it takes commands.
func (n *Namespace) Guest(name string, spec GuestSpec) *Guest {
	n.lab.Helper()
	g := &Guest{Name: name, Kernel: spec.Kernel, in: n}
	initrd := filepath.Join(n.lab.Dir, name+".initrd")
	n.lab.must(writeInitrd(initrd, spec.Kernel, append([]string{"virtio_pci", "virtio_net"}, spec.Modules...), spec.Programs, spec.Files),
		"write the initrd of %s", name)
	serial := filepath.Join(n.lab.Dir, name+".serial")
	args := []string{
		"-M", "q35", "-accel", "tcg,thread=single", "-cpu", "max", "-smp", fmt.Sprint(guestCPUs), "-m", "5120",
		"-nographic", "-nodefaults", "-no-reboot",
		"-kernel", filepath.Join(spec.Kernel.dir, "vmlinuz"), "-initrd", initrd, "-append", "console=ttyS0 quiet panic=-1",
		"-serial", "stdio", "-serial", "unix:" + serial + ",server=on,wait=off",
	}
	for i, nic := range spec.NICs {
		args = append(args, n.plugGuest(name, i, nic)...)
	}
	g.process = n.Start("qemu-system-x86_64", args...)
	n.lab.must(g.process.Said("guest is ready", time.Minute), "boot %s", spec.Kernel.Release)
	var err error
	g.shell, err = dialShell(serial)
	n.lab.must(err, "reach the shell of %s", name)
	n.lab.Defer(g.shell.close)
	for i, nic := range spec.NICs {
		g.Run(fmt.Sprintf("ip link set eth%d name %s", i, nic.Name))
	}
	return g
}

// plugGuest lays a guest's cable and returns what qemu has to know of it. Native XDP on virtio_net wants a transmit queue
// for each processor beside the ones that are there already. The cable carries no offloads (vnet_hdr): frames are whole on it.
func (n *Namespace) plugGuest(guest string, i int, nic NIC) []string {
	tap := guest + "-" + nic.Name
	n.IP("tuntap add "+tap+" mode tap multi_queue", "link set "+tap+" mtu 2000 up")
	n.Plug(tap, nic.Bridge)
	const queues = 2 * guestCPUs
	return []string{
		"-netdev", fmt.Sprintf("tap,id=n%d,ifname=%s,script=no,downscript=no,vhost=off,vnet_hdr=off,queues=%d", i, tap, queues),
		"-device", fmt.Sprintf("virtio-net-pci,netdev=n%d,mac=%s,mq=on,vectors=%d,romfile=", i, nic.MAC, 2*queues+2),
	}
}

// Try runs a shell script in the guest and returns what it printed on both streams. One at a time.
func (g *Guest) Try(limit time.Duration, script string) (string, error) {
	out, status, err := g.shell.run(limit, script)
	switch {
	case err != nil:
		err = fmt.Errorf("%w, console:%s", err, g.process.Tail(20))
	case status != 0:
		err = fmt.Errorf("exit status %d", status)
	}
	return out, err
}

// Run runs a script of at most a minute, whose commands must all succeed.
func (g *Guest) Run(lines ...string) string {
	g.in.lab.Helper()
	script := strings.Join(lines, "\n")
	out, err := g.Try(time.Minute, "set -e\n"+script)
	if err != nil {
		g.in.lab.Fatalf("on %s: %v\n%s\n%s", g.Name, err, script, out)
	}
	return out
}

// Write makes a file in the guest.
func (g *Guest) Write(file, text string) {
	g.in.lab.Helper()
	g.Run("mkdir -p "+filepath.Dir(file), "cat >"+file+" <<'END-OF-FILE'", text, "END-OF-FILE")
}
