package maps

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
)

// Pinned are the maps that a daemon left pinned, opened for reading only: what can be told of the data path while nobody
// is there to be asked. Safe for concurrent use.
type Pinned struct {
	Generation string // name of the generation in force, such as "gen3"
	Shadow     bool   // it passes every frame as it came

	ports, counters, hosts4, hosts6 *ebpf.Map
}

// OpenPinned opens the generation in force under a daemon's pin folder.
func OpenPinned(folder string) (_ *Pinned, err error) {
	p := &Pinned{}
	if p.Generation, err = os.Readlink(filepath.Join(folder, "live")); err != nil {
		return nil, fmt.Errorf("find what is pinned: %w", err)
	}
	defer func() {
		if err != nil {
			_ = p.Close()
		}
	}()
	for name, to := range map[string]**ebpf.Map{
		datapathMapPorts: &p.ports, datapathMapCounters: &p.counters, datapathMapHosts4: &p.hosts4, datapathMapHosts6: &p.hosts6,
	} {
		*to, err = ebpf.LoadPinnedMap(filepath.Join(folder, p.Generation, name), &ebpf.LoadPinOptions{ReadOnly: true})
		if err != nil {
			return nil, fmt.Errorf("open pinned map %s: %w", name, err)
		}
	}
	_, err = os.Stat(filepath.Join(folder, p.Generation, ShadowMap))
	p.Shadow = err == nil
	if h, err := readHeader4(p.hosts4); err != nil {
		return nil, err
	} else if h.Version != Version {
		return nil, fmt.Errorf("the pinned maps have layout version %d, this program reads %d", h.Version, Version)
	}
	return p, nil
}

// Close closes the descriptors.
func (p *Pinned) Close() error {
	var err error
	for _, m := range []*ebpf.Map{p.ports, p.counters, p.hosts4, p.hosts6} {
		if m != nil {
			err = errors.Join(err, m.Close())
		}
	}
	return err
}

// Counters reads the counters by slot and reason.
func (p *Pinned) Counters() ([]PortCount, error) { return ReadCounters(p.counters) }

// Ports reads the ports by slot.
func (p *Pinned) Ports() (map[uint16]Port, error) {
	keys, values := make([]uint32, Ports), make([]Port, Ports)
	if err := readAll(p.ports, keys, values); err != nil {
		return nil, err
	}
	out := map[uint16]Port{}
	for i, port := range values {
		if port.Ifindex != 0 {
			out[uint16(keys[i])] = port
		}
	}
	return out, nil
}

// Hosts counts the slots in use and all slots of each family's table. A host that is being displaced counts twice.
func (p *Pinned) Hosts() (used4, used6, slots uint64, err error) {
	buckets4, buckets6 := make([]datapathBucket, p.hosts4.MaxEntries()), make([]datapathBucket6, p.hosts6.MaxEntries())
	err = errors.Join(
		readAll(p.hosts4, make([]uint32, len(buckets4)), buckets4), readAll(p.hosts6, make([]uint32, len(buckets6)), buckets6))
	if err != nil {
		return 0, 0, 0, err
	}
	for _, b := range buckets4[:len(buckets4)-int(behind4)] {
		used4 += countSlots(b.Slot[:])
	}
	for _, b := range buckets6[:len(buckets6)-int(behind6)] {
		used6 += countSlots(b.Slot[:])
	}
	return used4, used6, uint64(len(buckets4)-int(behind4)) * bucketSizeU, nil
}

func countSlots(slots []uint64) (used uint64) {
	for _, slot := range slots {
		if slot&^vacated != 0 {
			used++
		}
	}
	return used
}

// readAll fills values with an array map's entries in one batch.
func readAll[T any](m *ebpf.Map, keys []uint32, values []T) error {
	var cursor ebpf.MapBatchCursor
	n, err := m.BatchLookup(&cursor, keys, values, nil)
	if err != nil && n < len(keys) {
		return fmt.Errorf("read %s: %w", m, err)
	}
	return nil
}
