package bpftest

import (
	"errors"
	"sync"

	"github.com/cilium/ebpf"

	"roam/maps"
)

// countsAtOnce tells whether the kernel reads per-CPU arrays in batches: Linux 5.13 and later.
var countsAtOnce = sync.OnceValue(func() bool {
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	if err != nil {
		panic(err)
	}
	defer m.Close()
	_, err = m.BatchLookup(new(ebpf.MapBatchCursor), make([]uint32, 1), make([]uint64, ebpf.MustPossibleCPU()), nil)
	return !errors.Is(err, ebpf.ErrNotSupported)
})

// countsInTurn is counts where each counter takes a call, and all of them half a second on an emulated machine: those of
// the ports that there are or were, of no port, and of the locators that tunnels lead to.
func (w *world) countsInTurn() (counts, error) {
	c := counts{}
	read := func(m *ebpf.Map, index uint32, name string) error {
		err := m.Lookup(index, &w.perCPU)
		var sum maps.Counter
		for _, one := range w.perCPU {
			sum.Packets += one.Packets
			sum.Bytes += one.Bytes
		}
		if sum != (maps.Counter{}) {
			c[name] = sum
		}
		return err
	}
	for slot := range w.counting {
		for name, number := range reasonNumbers() {
			if err := read(w.objects.Counters, uint32(slot)*reasonsPerPort+number, countName(slot, name)); err != nil {
				return nil, err
			}
		}
	}
	for _, t := range w.adjacencies {
		if err := read(w.objects.LocatorCounters, uint32(t.locator), locatorName(t.locator)); err != nil {
			return nil, err
		}
	}
	return c, nil
}
