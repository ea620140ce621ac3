package maps

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
)

const reasonsPerPort = int(datapathLimitsREASONS)

// PortCount is what one port did with packets for one reason.
type PortCount struct {
	Slot   uint16
	Reason Reason
	Counter
}

// ReadCounters sums the reasons over all CPUs and returns those that are not zero. One batch read, or before Linux 5.13 one
// for each counter. Safe for concurrent use, also on a read-only pinned map.
func ReadCounters(m *ebpf.Map) ([]PortCount, error) {
	sums, err := readPerCPU(m)
	if err != nil {
		return nil, err
	}
	var out []PortCount
	for i, c := range sums {
		if c.Packets != 0 {
			out = append(out, PortCount{uint16(i / reasonsPerPort), Reason(i % reasonsPerPort), c})
		}
	}
	return out, nil
}

// ReadLocatorCounters returns what was sent to each locator number, by number.
func ReadLocatorCounters(m *ebpf.Map) ([]Counter, error) { return readPerCPU(m) }

func readPerCPU(m *ebpf.Map) ([]Counter, error) {
	n := int(m.MaxEntries())
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return nil, fmt.Errorf("count CPUs: %w", err)
	}
	keys := make([]uint32, n)
	values := make([]Counter, n*cpus)
	err = readAll(m, keys, values)
	if errors.Is(err, ebpf.ErrNotSupported) {
		err = readEach(m, keys, values, cpus)
	}
	if err != nil {
		return nil, err
	}
	sums := make([]Counter, n)
	for i := range n {
		for _, c := range values[i*cpus : (i+1)*cpus] {
			sums[keys[i]].Packets += c.Packets
			sums[keys[i]].Bytes += c.Bytes
		}
	}
	return sums, nil
}

// readEach is readAll of a per-CPU array where the kernel has no batches for it.
func readEach(m *ebpf.Map, keys []uint32, values []Counter, cpus int) error {
	for i := range keys {
		keys[i] = uint32(i)
		one := values[i*cpus : (i+1)*cpus]
		if err := m.Lookup(keys[i], one); err != nil {
			return fmt.Errorf("read %s: %w", m, err)
		}
	}
	return nil
}
