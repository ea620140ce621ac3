package datapath

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"

	"roam/maps"
)

const (
	generationPrefix = "gen"
	programName      = "datapath"
)

// generation is one folder of pins, opened: a program, and the maps it works on by name.
type generation struct {
	number  int
	program *ebpf.Program
	maps    map[string]*ebpf.Map
}

func generationName(n int) string { return generationPrefix + strconv.Itoa(n) }

// generations lists what is there, complete or not, oldest first.
func (p *pins) generations() ([]int, error) {
	numbers, err := p.list("", generationPrefix)
	slices.Sort(numbers)
	return numbers, err
}

// live is the number of the generation in force, 0 for none.
func (p *pins) live() (int, error) {
	target, err := os.Readlink(p.path(liveName))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read which generation is live: %w", err)
	}
	n, err := strconv.Atoi(strings.TrimPrefix(target, generationPrefix))
	if err != nil || generationName(n) != target {
		return 0, fmt.Errorf("%s points to %q, which is no generation: point it to one of them, or run roamd --detach",
			p.path(liveName), target)
	}
	return n, nil
}

// commit puts a generation in force.
func (p *pins) commit(n int) error {
	next := p.path(nextName)
	if err := os.Remove(next); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove an unfinished commit: %w", err)
	}
	if err := os.Symlink(generationName(n), next); err != nil {
		return fmt.Errorf("prepare the commit of generation %d: %w", n, err)
	}
	if err := os.Rename(next, p.path(liveName)); err != nil {
		return errors.Join(fmt.Errorf("commit generation %d: %w", n, err), os.Remove(next))
	}
	return nil
}

// discard removes a generation's pins; the program goes first, since its pin is what makes a generation complete.
func (p *pins) discard(n int) error {
	dir := p.path(generationName(n))
	err := os.Remove(p.path(generationName(n), programName))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove generation %d: %w", n, err)
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove generation %d: %w", n, err)
	}
	return nil
}

// pin writes a generation. The program comes last and makes it complete. What was written is taken back by u.
func (p *pins) pin(n int, o *maps.Objects, step Step, u *undo) error {
	name := generationName(n)
	if err := step.before("make " + name); err != nil {
		return err
	}
	if err := os.Mkdir(p.path(name), 0o700); err != nil {
		return fmt.Errorf("make generation %d: %w", n, err)
	}
	u.add(func() error { return p.discard(n) })
	all := o.Pins()
	for _, key := range sortedKeys(all) {
		if err := step.before("pin " + key); err != nil {
			return err
		}
		if err := pinCopy(all[key].Clone, p.path(name, key)); err != nil {
			return fmt.Errorf("pin map %s in generation %d: %w", key, n, err)
		}
	}
	if err := step.before("pin " + programName); err != nil {
		return err
	}
	if err := pinCopy(o.Program.Clone, p.path(name, programName)); err != nil {
		return fmt.Errorf("pin the program in generation %d: %w", n, err)
	}
	return nil
}

// pinCopy pins a second descriptor: the library remembers one path for each, and moves the pin if it is given another.
func pinCopy[T interface {
	Pin(string) error
	Close() error
}](clone func() (T, error), path string,
) error {
	c, err := clone()
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Pin(path)
}

// open opens a complete generation. The error is fs.ErrNotExist for one that is not complete.
func (p *pins) open(n int) (_ *generation, err error) {
	name := generationName(n)
	g := &generation{number: n, maps: make(map[string]*ebpf.Map)}
	defer func() {
		if err != nil {
			_ = g.close()
		}
	}()
	g.program, err = ebpf.LoadPinnedProgram(p.path(name, programName), nil)
	if err != nil {
		return nil, fmt.Errorf("open the program of generation %d: %w", n, err)
	}
	entries, err := os.ReadDir(p.path(name))
	if err != nil {
		return nil, fmt.Errorf("list generation %d: %w", n, err)
	}
	for _, e := range entries {
		if e.Name() == programName {
			continue
		}
		g.maps[e.Name()], err = ebpf.LoadPinnedMap(p.path(name, e.Name()), nil)
		if err != nil {
			return nil, fmt.Errorf("open map %s of generation %d: %w", e.Name(), n, err)
		}
	}
	return g, nil
}

func (g *generation) close() error {
	var err error
	if g.program != nil {
		err = g.program.Close()
	}
	for _, m := range g.maps {
		if m != nil {
			err = errors.Join(err, m.Close())
		}
	}
	return err
}

func (g *generation) hosts() maps.HostMaps {
	return maps.HostMaps{
		Buckets4: g.maps["hosts4"], Buckets6: g.maps["hosts6"], Overflow: g.maps["host_overflow"],
	}
}

func programID(p *ebpf.Program) (ebpf.ProgramID, error) {
	info, err := p.Info()
	if err != nil {
		return 0, fmt.Errorf("ask for a program's id: %w", err)
	}
	id, ok := info.ID()
	if !ok {
		return 0, errors.New("ask for a program's id: the kernel tells none")
	}
	return id, nil
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K {
	keys := make([]K, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}
