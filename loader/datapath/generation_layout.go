package datapath

import (
	"errors"
	"fmt"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"roam/maps"
)

// ErrLayout says that what is pinned was written by another version and cannot be taken over. Nothing has been changed:
// forwarding goes on.
var ErrLayout = errors.New("the pinned tables are not this version's")

const (
	mapNameMax = unix.BPF_OBJ_NAME_LEN - 1 // the kernel cuts longer names
	otherRoamd = "run the roamd that made them, or begin anew with roamd --detach; forwarding goes on as it was"
)

// check returns the maps that this binary's program is to work on: those of a generation that both know. It refuses the
// generation if one of them has another layout, or if one that the running program needs is missing.
func (g *generation) check() (map[string]*ebpf.Map, error) {
	layout, err := maps.Layout()
	if err != nil {
		return nil, err
	}
	known := make(map[string]*ebpf.Map)
	for _, name := range sortedKeys(g.maps) {
		if layout[name] == nil {
			continue // of a version that knew more
		}
		known[name] = g.maps[name]
		if what := differences(layout[name], g.maps[name]); what != "" {
			return nil, fmt.Errorf("%w: map %s in %s has %s: %s", ErrLayout, name, generationName(g.number), what, otherRoamd)
		}
	}
	if err := g.checkPinned(layout); err != nil {
		return nil, err
	}
	if _, _, err := g.hosts().Headers(); err != nil {
		return nil, fmt.Errorf("%w: in %s, %w: %s", ErrLayout, generationName(g.number), err, otherRoamd)
	}
	return known, nil
}

// checkPinned refuses a generation whose program uses a table that somebody unpinned: a new, empty one in its place would take
// over the traffic.
func (g *generation) checkPinned(layout map[string]*ebpf.MapSpec) error {
	info, err := g.program.Info()
	if err != nil {
		return fmt.Errorf("ask which maps the running program uses: %w", err)
	}
	used, _ := info.MapIDs()
	pinned := make(map[string]bool)
	for name := range g.maps {
		pinned[name[:min(len(name), mapNameMax)]] = true
	}
	known := make(map[string]string)
	for name := range layout {
		known[name[:min(len(name), mapNameMax)]] = name
	}
	for _, id := range used {
		name, err := mapName(id)
		if err != nil {
			return err
		}
		if full := known[name]; full != "" && !pinned[name] {
			return fmt.Errorf("%w: the running program uses map %s, which is not pinned in %s: %s",
				ErrLayout, full, generationName(g.number), otherRoamd)
		}
	}
	for _, host := range []string{"hosts4", "hosts6", "host_overflow"} {
		if g.maps[host] == nil {
			return fmt.Errorf("%w: map %s is not pinned in %s: %s", ErrLayout, host, generationName(g.number), otherRoamd)
		}
	}
	return nil
}

func mapName(id ebpf.MapID) (string, error) {
	m, err := ebpf.NewMapFromID(id)
	if err != nil {
		return "", fmt.Errorf("open map %d of the running program: %w", id, err)
	}
	defer m.Close()
	info, err := m.Info()
	if err != nil {
		return "", fmt.Errorf("ask for the name of map %d: %w", id, err)
	}
	return info.Name, nil
}

// differences says what a map has where this program expects something else, or nothing.
func differences(want *ebpf.MapSpec, have *ebpf.Map) string {
	var what []string
	say := func(noun string, have, want any) {
		what = append(what, fmt.Sprintf("%s %v instead of %v", noun, have, want))
	}
	if have.Type() != want.Type {
		say("type", have.Type(), want.Type)
	}
	if have.KeySize() != want.KeySize {
		say("key size", have.KeySize(), want.KeySize)
	}
	if have.ValueSize() != want.ValueSize {
		say("value size", have.ValueSize(), want.ValueSize)
	}
	if want.MaxEntries != 0 && have.MaxEntries() != want.MaxEntries {
		say("size", have.MaxEntries(), want.MaxEntries)
	}
	flags := have.Flags()
	if want.Type == ebpf.DevMap {
		flags &^= unix.BPF_F_RDONLY_PROG // the kernel adds it
	}
	if flags != want.Flags {
		say("flags", fmt.Sprintf("%#x", flags), fmt.Sprintf("%#x", want.Flags))
	}
	return strings.Join(what, ", ")
}
