package datapath

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"roam/maps"
)

// Options say where and how a Plane works. The zero value of all but Pin serves.
type Options struct {
	Pin   string       // folder for pins, absolute; a BPF file system is mounted where there is none
	Hosts uint32       // capacity of host tables that are created, hosts of each family
	Tune  maps.Tune    // load-time constants; zero: maps.DefaultTune
	Log   *slog.Logger // nil: slog.Default
	Step  Step         // for tests
}

// DefaultHosts is the capacity of host tables when nobody asks for another.
const DefaultHosts = 1 << 20

// Plane is the forwarding plane in the kernel: the program in force, its maps, and the ports it is attached to.
//
// It works in the network namespace of the thread that calls it, which must be the one that called Open. Its methods are
// safe for concurrent use and wait for one another.
type Plane struct {
	log  *slog.Logger
	step Step
	tune maps.Tune

	mu      sync.Mutex
	pins    *pins
	links   *netlink.Handle
	kernel  *Kernel
	grace   *maps.Grace
	hosts   *maps.Hosts
	objects *maps.Objects
	live    int // number of the generation in force
	adopted bool
	traced  bool // the program in force tells of packets, see trace.go
	growing bool // a growth is committed, but the old tables are written still

	wanted   map[string]Mode   // ports by interface name
	expected []string          // interfaces that Watch tells of although they are no ports yet
	attached map[int]*port     // by interface index
	transmit map[uint16]string // devmap slots by interface name
}

// Open takes over what is pinned and puts this binary's program in the place of the one that runs, without losing a
// packet; where nothing is pinned it creates empty tables. An error leaves everything as it was, forwarding included: one that
// wraps ErrLayout says that the tables are another version's, ErrLocked that another process has them.
func Open(o Options) (_ *Plane, err error) {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Hosts == 0 {
		o.Hosts = DefaultHosts
	}
	if o.Tune == (maps.Tune{}) {
		o.Tune = maps.DefaultTune
	}
	_ = rlimit.RemoveMemlock() // before Linux 5.11; where it may not be removed, loading says so
	p := &Plane{
		log: o.Log, step: o.Step, tune: o.Tune,
		wanted: make(map[string]Mode), attached: make(map[int]*port), transmit: make(map[uint16]string),
	}
	if p.pins, err = openPins(o.Pin, o.Log); err != nil {
		return nil, err
	}
	var u undo
	defer u.onError(&err)
	u.add(p.Close)
	if p.links, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	p.kernel = &Kernel{links: p.links, journal: journal{path: p.pins.path(settingsName)}, log: o.Log}
	if p.grace, err = maps.NewGrace(); err != nil {
		return nil, err
	}
	if err = p.readLinks(); err != nil {
		return nil, err
	}
	base, err := p.pins.survey(p.programs())
	if err != nil {
		return nil, err
	}
	if base == nil {
		err = p.create(o.Hosts, &u)
	} else {
		err = p.adopt(base, &u)
		_ = base.close()
	}
	if err != nil {
		return nil, err
	}
	u.keep()
	p.clean()
	return p, nil
}

// survey finds the generation to go on from: the newest complete one that a link runs, or else the one that is live. nil means
// that nothing is there to go on from.
//
// After a crash in the critical section some links run a newer generation than the live one. Its tables are complete,
// or no link would have been changed; going on from it finishes the transaction. A newer generation that no link runs
// is what a crash left of the preparations.
func (p *pins) survey(running map[ebpf.ProgramID]bool) (*generation, error) {
	live, err := p.live()
	if err != nil {
		return nil, err
	}
	numbers, err := p.generations()
	if err != nil {
		return nil, err
	}
	var found *generation
	for _, n := range numbers {
		if n < live {
			continue
		}
		g, err := p.open(n)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		id, err := programID(g.program)
		if err != nil {
			return nil, errors.Join(err, g.close())
		}
		if n != live && !running[id] {
			_ = g.close()
			continue
		}
		if found != nil {
			_ = found.close()
		}
		found = g
	}
	if found == nil && (live != 0 || len(running) > 0) {
		return nil, fmt.Errorf("%w: %s holds attachments or a live generation, but no complete generation to go on from: %s",
			ErrLayout, p.dir, otherRoamd)
	}
	return found, nil
}

// create makes empty tables and the first generation.
func (p *Plane) create(hosts uint32, u *undo) error {
	if err := p.step.before("create the host table"); err != nil {
		return err
	}
	tables, err := maps.CreateHostMaps(hosts)
	if err != nil {
		return err
	}
	defer tables.Close()
	return p.start(tables, nil, nil, u)
}

// adopt loads this binary's program over the tables of base.
func (p *Plane) adopt(base *generation, u *undo) error {
	known, err := base.check()
	if err != nil {
		return err
	}
	if err := p.adoptShadow(base, known); err != nil {
		return err
	}
	p.adopted = true
	egress, err := p.partEgress(known)
	if err != nil {
		return err
	}
	return p.start(base.hosts(), known, egress, u)
}

// start carries out the transaction of a start, and becomes the writer of the tables before a packet meets the program. The
// egress ports of an earlier program that this one cannot share, if any, are carried over.
func (p *Plane) start(tables maps.HostMaps, reuse map[string]*ebpf.Map, egress *ebpf.Map, u *undo) error {
	next, err := p.begin(tables, reuse, u)
	if err != nil {
		return err
	}
	if egress != nil {
		if err := copyEgress(next.objects.TxPorts, egress); err != nil {
			return err
		}
	}
	if err := p.step.before("open the host table"); err != nil {
		return err
	}
	hosts, err := maps.OpenHosts(tables, p.grace)
	if err != nil {
		return err
	}
	u.add(hosts.Close)
	if err := next.swap(); err != nil {
		return err
	}
	if err := next.commit(); err != nil {
		return err
	}
	p.hosts, p.objects, p.live = hosts, next.objects, next.number
	return nil
}

// transaction is the way from one generation to the next.
type transaction struct {
	plane   *Plane
	number  int
	undo    *undo
	objects *maps.Objects
	front   bool // a program that is replaced only goes over to another
}

// begin loads the program over the given tables. The next generation's number is one that no folder has yet: what a crash
// left is removed only once the transaction is done.
func (p *Plane) begin(hosts maps.HostMaps, reuse map[string]*ebpf.Map, u *undo) (*transaction, error) {
	numbers, err := p.pins.generations()
	if err != nil {
		return nil, err
	}
	t := &transaction{plane: p, number: 1, undo: u}
	if len(numbers) > 0 {
		t.number = numbers[len(numbers)-1] + 1
	}
	if err := p.step.before("load"); err != nil {
		return nil, err
	}
	t.objects, err = maps.Load(maps.Options{Hosts: hosts, Reuse: reuse, Tune: p.tune, Trace: p.traced})
	if err != nil {
		return nil, err
	}
	u.add(t.objects.Close)
	return t, nil
}

// swap pins the next generation and brings every port to it. With its first link the critical section begins: the
// caller ends it with commit. A program that goes over to another must have been left by every packet before the two are
// taken apart: that is waited for, whichever way the transaction ends.
func (t *transaction) swap() error {
	p := t.plane
	if err := p.pins.pin(t.number, t.objects, p.step, t.undo); err != nil {
		return err
	}
	if t.objects.Traced() {
		t.undo.add(p.grace.Wait)
	}
	for _, index := range sortedKeys(p.attached) {
		if err := t.update(p.attached[index]); err != nil {
			return err
		}
	}
	if t.front {
		return p.grace.Wait()
	}
	return nil
}

// update brings one port to the next generation. A port whose interface has vanished has nothing to update: what is left of
// it is cleaned up later.
func (t *transaction) update(a *port) error {
	if err := t.plane.step.before(fmt.Sprintf("swap port %d", a.index)); err != nil {
		return err
	}
	info, err := a.link.Info()
	if err != nil {
		return fmt.Errorf("ask what runs on %s: %w", a, err)
	}
	before, err := ebpf.NewProgramFromID(info.Program)
	if err != nil {
		return fmt.Errorf("open the program that runs on %s: %w", a, err)
	}
	t.undo.atEnd(before.Close)
	t.front = t.front || maps.GoesOver(before)
	err = a.link.Update(t.objects.Program)
	if errors.Is(err, unix.ENOLINK) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("put the new program on %s: %w", a, err)
	}
	t.undo.add(func() error {
		if err := a.link.Update(before); err != nil && !errors.Is(err, unix.ENOLINK) {
			return fmt.Errorf("put the old program back on %s: %w", a, err)
		}
		return nil
	})
	return nil
}

// commit ends the critical section: from here on the next generation is the one in force.
func (t *transaction) commit() error {
	if err := t.plane.step.before("commit"); err != nil {
		return err
	}
	return t.plane.pins.commit(t.number)
}

// clean removes what the transaction, or an earlier one that was interrupted, has left behind. Nothing depends on it.
func (p *Plane) clean() {
	numbers, err := p.pins.generations()
	for _, n := range numbers {
		if n != p.live {
			err = errors.Join(err, p.step.before("remove "+generationName(n)), p.pins.discard(n))
		}
	}
	if e := os.Remove(p.pins.path(nextName)); e != nil && !errors.Is(e, fs.ErrNotExist) {
		err = errors.Join(err, e)
	}
	for _, index := range sortedKeys(p.attached) {
		if dead, e := p.attached[index].dead(); dead {
			err = errors.Join(err, p.drop(index))
		} else {
			err = errors.Join(err, e)
		}
	}
	if len(p.attached) == 0 {
		err = errors.Join(err, p.kernel.forgetElsewhere())
	}
	if err != nil {
		p.log.Warn("some old pins could not be removed; the next start tries again", "error", err)
	}
}

// Objects returns the program in force and the maps. The program and the host tables change with Grow, which closes the
// earlier ones: who needs them works inside Use. The other maps stay the same, and open, until Close.
func (p *Plane) Objects() *maps.Objects {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.objects
}

// Use calls f with the program in force and the maps, none of which is replaced or closed meanwhile. f must not call the
// Plane.
func (p *Plane) Use(f func(*maps.Objects) error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return f(p.objects)
}

// Hosts returns the writer of the host tables, the same one through every growth.
func (p *Plane) Hosts() *maps.Hosts { return p.hosts }

// Grace returns the plane's means to wait for a grace period.
func (p *Plane) Grace() *maps.Grace { return p.grace }

// Kernel returns the kernel's side of the ports.
func (p *Plane) Kernel() *Kernel { return p.kernel }

// Adopted reports whether Open found tables that hold something.
func (p *Plane) Adopted() bool { return p.adopted }

// Generation is the number of the generation in force. It grows with each upgrade and each growth.
func (p *Plane) Generation() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.live
}

// Close lets go of everything and gives up the lock. Forwarding goes on.
func (p *Plane) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var err error
	for index, a := range p.attached {
		err = errors.Join(err, a.link.Close())
		delete(p.attached, index)
	}
	if p.hosts != nil {
		err = errors.Join(err, p.hosts.Close())
	}
	if p.objects != nil {
		err = errors.Join(err, p.objects.Close())
	}
	if p.grace != nil {
		err = errors.Join(err, p.grace.Close())
	}
	if p.kernel != nil {
		err = errors.Join(err, p.kernel.close())
	}
	if p.links != nil {
		p.links.Close()
	}
	return errors.Join(err, p.pins.close())
}
