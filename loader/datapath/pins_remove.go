package datapath

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Remove takes everything away that a Plane has put into the kernel: it detaches the ports, so that the kernel alone handles
// their packets, restores the kernel's settings, and removes the pins. What is pinned need not be of this version. Where
// nothing is pinned it does nothing. It goes on after an error and returns all of them; a second call takes up the rest. The error
// wraps ErrLocked while a daemon runs.
//
// Settings are restored only if it is called in the network namespace of the ports.
func Remove(dir string, log *slog.Logger) error {
	if log == nil {
		log = slog.Default()
	}
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if there, err := onBPFFS(dir); err != nil || !there {
		return err
	}
	folder, err := openPins(dir, log)
	if err != nil {
		return err
	}
	links, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return errors.Join(fmt.Errorf("open netlink: %w", err), folder.close())
	}
	p := &Plane{log: log, pins: folder, links: links, attached: make(map[int]*port)}
	p.kernel = &Kernel{links: links, journal: journal{path: folder.path(settingsName)}, log: log}
	err = p.removeAll()
	return errors.Join(err, p.Close())
}

func (p *Plane) removeAll() error {
	if err := p.readLinks(); err != nil {
		return err
	}
	var errs error
	for _, index := range sortedKeys(p.attached) {
		p.identify(p.attached[index])
		errs = errors.Join(errs, p.detach(index))
	}
	err := p.kernel.Restore()
	if errors.Is(err, ErrNamespace) {
		p.log.Warn("kernel settings were made in another network namespace and are left alone")
		err = nil
	}
	if err == nil {
		err = p.kernel.journal.remove()
	}
	errs = errors.Join(errs, err)
	if errs != nil {
		return errs
	}
	return p.removePins()
}

// removePins removes the generations, and the folder too where it is no mount point.
func (p *Plane) removePins() error {
	for _, name := range []string{liveName, nextName} {
		if err := os.Remove(p.pins.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove %s: %w", p.pins.path(name), err)
		}
	}
	numbers, err := p.pins.generations()
	if err != nil {
		return err
	}
	for _, n := range numbers {
		if err := p.pins.discard(n); err != nil {
			return err
		}
	}
	for _, dir := range []string{p.pins.path(linksName), p.pins.dir} {
		err := os.Remove(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.ENOTEMPTY) {
			return fmt.Errorf("remove %s: %w", filepath.Clean(dir), err)
		}
	}
	return nil
}
