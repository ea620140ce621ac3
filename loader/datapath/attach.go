package datapath

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"roam/loader/route"
)

// Mode says where in the receive path the program runs.
type Mode string

// The two modes. Generic is for drivers without native XDP: the kernel has made a socket buffer of every packet by then, and
// copies many, so that it forwards a fraction of what native mode does.
const (
	Native  Mode = "native"
	Generic Mode = "generic"
)

// ErrNoInterface says that a port's interface does not exist, or not yet: Watch attaches it when it comes.
var ErrNoInterface = errors.New("no such interface")

// Attachment is one port with our program on it.
type Attachment struct {
	Name    string
	Index   int // interface index
	Mode    Mode
	Program uint32 // id in the kernel
	MAC     route.MAC
	MTU     int
}

// port is one pinned attachment.
type port struct {
	index int
	link  link.Link
	name  string // "" until somebody asks for the interface by name
	mode  Mode
}

func (a *port) String() string {
	if a.name == "" {
		return fmt.Sprintf("the interface with index %d", a.index)
	}
	return a.name
}

// dead tells that the interface has vanished: the kernel cut the link then.
func (a *port) dead() (bool, error) {
	info, err := a.link.Info()
	if err != nil {
		return false, fmt.Errorf("ask where the link of %s is: %w", a, err)
	}
	x := info.XDP()
	return x == nil || int(x.Ifindex) != a.index, nil
}

func (p *Plane) linkPath(index int) string { return p.pins.path(linksName, strconv.Itoa(index)) }

// readLinks opens the pinned attachments.
func (p *Plane) readLinks() error {
	indexes, err := p.pins.list(linksName, "")
	if err != nil {
		return err
	}
	for _, index := range indexes {
		l, err := link.LoadPinnedLink(p.linkPath(index), nil)
		if err != nil {
			return fmt.Errorf("open the attachment to the interface with index %d: %w", index, err)
		}
		p.attached[index] = &port{index: index, link: l}
	}
	return nil
}

// programs are the ids of the programs that ports run now.
func (p *Plane) programs() map[ebpf.ProgramID]bool {
	running := make(map[ebpf.ProgramID]bool)
	for _, a := range p.attached {
		if info, err := a.link.Info(); err == nil {
			if x := info.XDP(); x != nil && x.Ifindex != 0 {
				running[info.Program] = true
			}
		}
	}
	return running
}

// Attach puts the program on one more interface. Doing so twice changes nothing; another mode than before costs the
// packets of a moment. The error wraps ErrNoInterface where there is none of that name: Watch attaches it when it comes.
func (p *Plane) Attach(name string, mode Mode) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wanted[name] = mode
	return p.attach(name, mode)
}

// Detach takes the program off an interface: the kernel alone handles its packets from here on.
func (p *Plane) Detach(name string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.wanted, name)
	for index, a := range p.attached {
		if a.name == name {
			return p.detach(index)
		}
	}
	return nil
}

// DetachOthers takes the program off every interface but these: also off those that an earlier process attached to. Watch
// tells of these whether they are attached, or even exist, or not.
func (p *Plane) DetachOthers(keep []string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.expected = slices.Clone(keep)
	var errs error
	for name := range p.wanted {
		if !slices.Contains(keep, name) {
			delete(p.wanted, name)
		}
	}
	for _, index := range sortedKeys(p.attached) {
		a := p.attached[index]
		if a.name == "" {
			p.identify(a)
		}
		if !slices.Contains(keep, a.name) {
			errs = errors.Join(errs, p.detach(index))
		}
	}
	return errs
}

// identify finds the name of a port that an earlier process attached to.
func (p *Plane) identify(a *port) {
	l, err := p.links.LinkByIndex(a.index)
	if err != nil {
		return
	}
	info, err := a.link.Info()
	if xdp := l.Attrs().Xdp; err == nil && xdp != nil && xdp.ProgId == uint32(info.Program) {
		a.name, a.mode = l.Attrs().Name, modeOf(xdp)
	}
}

// Attached lists the ports by interface index.
func (p *Plane) Attached() []Attachment {
	p.mu.Lock()
	defer p.mu.Unlock()
	var list []Attachment
	for _, index := range sortedKeys(p.attached) {
		a := p.attached[index]
		at := Attachment{Name: a.name, Index: index, Mode: a.mode}
		if info, err := a.link.Info(); err == nil {
			at.Program = uint32(info.Program)
		}
		if l, err := p.links.LinkByIndex(index); err == nil {
			at.MTU = l.Attrs().MTU
			copy(at.MAC[:], l.Attrs().HardwareAddr)
		}
		list = append(list, at)
	}
	return list
}

// attach is called with mu held.
func (p *Plane) attach(name string, mode Mode) error {
	l, err := p.links.LinkByName(name)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return fmt.Errorf("attach to %s: %w: create it, or correct its name", name, ErrNoInterface)
	}
	if err != nil {
		return fmt.Errorf("attach to %s: %w", name, err)
	}
	index := l.Attrs().Index
	here, err := p.ours(l, mode)
	if here || err != nil {
		return err
	}
	if l, err = p.links.LinkByIndex(index); err != nil { // as it is without what ours has removed
		return fmt.Errorf("attach to %s: %w", name, err)
	}
	if err := refuseForeign(l); err != nil {
		return err
	}
	for other, a := range p.attached {
		if a.name == name { // the name has passed on to another interface
			if err := p.detach(other); err != nil {
				return err
			}
		}
	}
	return p.attachNew(name, index, mode)
}

// ours reports whether the program already runs on an interface as it should. A pin that no longer belongs to the
// interface, or an attachment in another mode, is removed.
func (p *Plane) ours(l netlink.Link, mode Mode) (bool, error) {
	name, index := l.Attrs().Name, l.Attrs().Index
	a := p.attached[index]
	if a == nil {
		return false, nil
	}
	if dead, err := a.dead(); err != nil {
		return false, err
	} else if dead {
		return false, p.drop(index)
	}
	info, err := a.link.Info()
	if err != nil {
		return false, fmt.Errorf("ask what runs on %s: %w", name, err)
	}
	xdp := l.Attrs().Xdp
	if xdp == nil || xdp.ProgId != uint32(info.Program) {
		return false, fmt.Errorf("attach to %s: the attachment pinned for interface index %d is not on this interface: "+
			"the pins belong to another network namespace, give this one a pin folder of its own", name, index)
	}
	if a.name == "" && mode == Generic {
		p.warnGeneric(name)
	}
	a.name, a.mode = name, modeOf(xdp)
	if a.mode != mode {
		p.log.Warn("re-attaching in another mode: packets of a moment go to the kernel", "port", name, "mode", mode)
		return false, p.detach(index)
	}
	return true, nil
}

// attachedGeneric is XDP_ATTACHED_SKB of linux/if_link.h.
const attachedGeneric = 2

func modeOf(xdp *netlink.LinkXdp) Mode {
	if xdp.AttachMode == attachedGeneric {
		return Generic
	}
	return Native
}

// attachNew attaches, pins, and remembers.
func (p *Plane) attachNew(name string, index int, mode Mode) (err error) {
	var u undo
	defer u.onError(&err)
	if err := p.step.before("attach " + name); err != nil {
		return err
	}
	flags := link.XDPDriverMode
	if mode == Generic {
		flags = link.XDPGenericMode
		p.warnGeneric(name)
	}
	l, err := link.AttachXDP(link.XDPOptions{Program: p.objects.Program, Interface: index, Flags: flags})
	if err != nil {
		return explainAttach(name, mode, err)
	}
	u.add(func() error { return errors.Join(l.Detach(), l.Close()) })
	if err := p.step.before("pin the attachment to " + name); err != nil {
		return err
	}
	if err := os.MkdirAll(p.pins.path(linksName), 0o700); err != nil {
		return fmt.Errorf("make the folder of attachments: %w", err)
	}
	if err := l.Pin(p.linkPath(index)); err != nil {
		return fmt.Errorf("pin the attachment to %s: %w", name, err)
	}
	p.attached[index] = &port{index: index, link: l, name: name, mode: mode}
	return nil
}

func (p *Plane) warnGeneric(name string) {
	p.log.Warn("generic mode, as configured: far slower than native, and meant for drivers that have no other", "port", name)
}

// detach takes the program off a port that lives. Called with mu held.
func (p *Plane) detach(index int) error {
	a := p.attached[index]
	if err := p.step.before("detach " + a.String()); err != nil {
		return err
	}
	if err := a.link.Detach(); err != nil && !errors.Is(err, unix.ENOLINK) {
		return fmt.Errorf("detach from %s: %w", a, err)
	}
	return errors.Join(unaccept(p.links, index), p.drop(index))
}

// drop removes the pin of a port that is detached.
func (p *Plane) drop(index int) error {
	a := p.attached[index]
	delete(p.attached, index)
	err := os.Remove(p.linkPath(index))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err = errors.Join(err, a.link.Close()); err != nil {
		return fmt.Errorf("remove the attachment to %s: %w", a, err)
	}
	return nil
}

// SetTx lets packets leave through an interface under a port's slot number. The entry goes away with the interface, and Watch
// puts it back when an interface of that name returns.
func (p *Plane) SetTx(slot uint16, name string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	l, err := p.links.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find interface %s for port slot %d: %w", name, slot, err)
	}
	return p.setTx(slot, name, l.Attrs().Index)
}

func (p *Plane) setTx(slot uint16, name string, index int) error {
	if err := p.objects.TxPorts.Put(uint32(slot), uint32(index)); err != nil {
		return fmt.Errorf("let port slot %d send through %s: %w", slot, name, err)
	}
	p.transmit[slot] = name
	return nil
}

// ClearTx takes a slot's interface away; what is sent there is dropped and counted.
func (p *Plane) ClearTx(slot uint16) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.transmit, slot)
	err := p.objects.TxPorts.Delete(uint32(slot))
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("take the interface of port slot %d away: %w", slot, err)
	}
	return nil
}
