package datapath

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/vishvananda/netlink"

	"roam/loader/route"
)

// PortChange is news of a port's interface.
type PortChange struct {
	Name  string
	Index int  // interface index, 0 when Gone
	Was   int  // the index that it had before, 0 for none
	Gone  bool // the interface has vanished, and with it its attachment and its devmap entries
	MAC   route.MAC
	MTU   int
	Up    bool // it is up and has a carrier
}

// Watch keeps the ports attached until ctx ends: where an interface vanishes it cleans up, where one of that name appears it
// attaches and lets packets leave through it again. Each change of an interface is told to changed, which may be nil: a
// vanished one after it was cleaned up; a new one before it is attached, so that the tables can be made ready for its new index.
// changed may call the Plane. At the start every interface that is there is told once. An error of changed or
// of an attachment is logged and tried again at the interface's next change, or after a while.
//
// Watch works from what is there, not from the messages, which only wake it: a lost one costs nothing but time.
func (p *Plane) Watch(ctx context.Context, changed func(PortChange) error) error {
	w := &watch{plane: p, changed: changed, known: make(map[string]PortChange)}
	for ctx.Err() == nil {
		if err := w.follow(ctx); err != nil {
			return err
		}
	}
	return ctx.Err()
}

type watch struct {
	plane   *Plane
	changed func(PortChange) error
	known   map[string]PortChange
}

const (
	watchRetry  = 2 * time.Second // after a failed attachment
	watchBuffer = 1 << 20         // bytes of messages the kernel keeps for us
)

// follow reads one subscription to its end, which comes early when messages were lost.
func (w *watch) follow(ctx context.Context) error {
	done := make(chan struct{})
	defer close(done)
	updates := make(chan netlink.LinkUpdate, 64)
	err := netlink.LinkSubscribeWithOptions(updates, done, netlink.LinkSubscribeOptions{
		ReceiveBufferSize: watchBuffer, ReceiveBufferForceSize: true,
		ErrorCallback: func(err error) {
			if ctx.Err() == nil {
				w.plane.log.Debug("interface news interrupted, looking again", "error", err)
			}
		},
	})
	if err != nil {
		return fmt.Errorf("subscribe to news of interfaces: %w", err)
	}
	var retry <-chan time.Time
	look := func() {
		retry = nil
		if !w.look() {
			retry = time.After(watchRetry)
		}
	}
	look()
	for {
		select {
		case <-ctx.Done():
			go drainLinks(updates) // its goroutine may be waiting to hand over one more
			return nil
		case _, ok := <-updates:
			if !ok {
				return nil
			}
			for more := true; more; { // a burst is one reason to look
				select {
				case _, more = <-updates:
				default:
					more = false
				}
			}
			look()
		case <-retry:
			look()
		}
	}
}

func drainLinks(updates <-chan netlink.LinkUpdate) {
	for range updates {
		continue
	}
}

// look brings every wanted port in line with what is there, and reports whether all went well.
func (w *watch) look() bool {
	p := w.plane
	p.mu.Lock()
	names := append(sortedKeys(p.wanted), p.expected...)
	p.mu.Unlock()
	slices.Sort(names)
	fine := true
	for _, name := range slices.Compact(names) {
		if err := w.port(name); err != nil {
			p.log.Warn("port is not ready", "port", name, "error", err)
			fine = false
		}
	}
	return fine
}

func (w *watch) port(name string) error {
	l, err := w.plane.links.LinkByName(name)
	if err != nil && !errors.As(err, new(netlink.LinkNotFoundError)) {
		return err
	}
	before, told := w.known[name]
	now := PortChange{Name: name, Gone: true}
	if err == nil {
		a := l.Attrs()
		now = PortChange{Name: name, Index: a.Index, MTU: a.MTU, Up: a.OperState == netlink.OperUp}
		copy(now.MAC[:], a.HardwareAddr)
	}
	now.Was = before.Index
	if err := w.plane.sever(name, now.Index); err != nil {
		return err
	}
	if now.Gone && !told || told && same(before, now) {
		return w.attach(now)
	}
	if w.changed != nil {
		if err := w.changed(now); err != nil {
			return err
		}
	}
	if now.Gone {
		w.plane.log.Warn("interface has vanished: its port is out of service until it returns", "port", name)
		delete(w.known, name)
		w.known[name] = PortChange{Name: name, Gone: true}
		return nil
	}
	if err := w.attach(now); err != nil {
		return err
	}
	w.known[name] = now
	return nil
}

func same(a, b PortChange) bool {
	a.Was, b.Was = 0, 0
	return a == b
}

// attach makes sure that a port that is there runs the program.
func (w *watch) attach(now PortChange) error {
	if now.Gone {
		return nil
	}
	p := w.plane
	p.mu.Lock()
	defer p.mu.Unlock()
	mode, ok := p.wanted[now.Name]
	if !ok {
		return nil // no longer
	}
	if err := p.attach(now.Name, mode); err != nil {
		return err
	}
	return p.restoreTx(now.Name, now.Index)
}

// sever removes what is left of attachments under a name to interfaces other than index. Their devmap entries went with the
// interfaces.
func (p *Plane) sever(name string, index int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, other := range sortedKeys(p.attached) {
		a := p.attached[other]
		if a.name != name || other == index {
			continue
		}
		if err := p.detach(other); err != nil {
			return err
		}
	}
	return nil
}

// restoreTx lets packets leave through an interface that has come back, under the slots that it had.
func (p *Plane) restoreTx(name string, index int) error {
	for _, slot := range sortedKeys(p.transmit) {
		if p.transmit[slot] != name {
			continue
		}
		var now uint32
		if err := p.objects.TxPorts.Lookup(uint32(slot), &now); err == nil && now == uint32(index) {
			continue
		}
		if err := p.setTx(slot, name, index); err != nil {
			return err
		}
	}
	return nil
}
