package maps

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"unsafe"

	"github.com/cilium/ebpf"
)

const (
	tableMagic = 0x54534f484d414f52 // "ROAMHOST" in memory
	waitingMax = uint32(datapathLimitsOVERFLOW_ENTRIES)
	minBuckets = 4
	behind4    = uint32(frontLines) + 1 // entries of an array that follow its buckets
	behind6    = uint32(front6Buckets+waitingBuckets) + 1
	hostsMax   = 1 << 29 // of each family: every word of an array has a number of 32 bits
)

// TableHeader is the last entry of a bucket array, struct table_header in bpf/abi.h: the seed and the size that every
// reader and writer of the table must use. It is written once, when the table is created.
type TableHeader = datapathTableHeader

// TableConfig is what a program must know of a table, struct table_config in bpf/config.h.
type TableConfig = datapathTableConfig

// HostMaps are the three maps of one host table. The descriptors belong to whoever holds the value.
type HostMaps struct {
	Buckets4 *ebpf.Map // "hosts4": struct bucket: the table's, those in front (host_front.go), the header
	Buckets6 *ebpf.Map // "hosts6": struct bucket6: the same, and before the header the waiting room (host_waiting.go)
	Overflow *ebpf.Map // "host_overflow": hosts that wait for a displacement, address to position in the waiting room
}

// CreateHostMaps creates an empty table, unpinned, for at least capacity hosts of each family. Four fifths of
// its slots are that many; beyond them it still takes hosts up to about 99% of the slots, at a growing price
// per host. The seeds are random: whoever chooses addresses cannot choose buckets.
func CreateHostMaps(capacity uint32) (HostMaps, error) {
	if capacity > hostsMax {
		return HostMaps{}, fmt.Errorf("host table for %d hosts: ask for at most %d", capacity, hostsMax)
	}
	slots := uint64(capacity) * 5 / 4
	buckets4 := uint32(max((slots+bucketSizeU-1)/bucketSizeU, minBuckets))
	buckets6 := uint32((uint64(buckets4)*bucketSizeU + bucket6SizeU - 1) / bucket6SizeU)
	var m HostMaps
	for _, part := range []struct {
		to   **ebpf.Map
		spec ebpf.MapSpec
	}{
		{&m.Buckets4, arraySpec("hosts4", bucketBytes, buckets4+behind4)},
		{&m.Buckets6, arraySpec("hosts6", bucket6Bytes, buckets6+behind6)},
		{&m.Overflow, ebpf.MapSpec{
			Name: "host_overflow", Type: ebpf.Hash, KeySize: 20, ValueSize: 4, MaxEntries: waitingMax, Flags: sysNoPrealloc,
		}},
	} {
		created, err := ebpf.NewMap(&part.spec)
		if err != nil {
			_ = m.Close()
			return HostMaps{}, fmt.Errorf("create map %s with %d entries: %w", part.spec.Name, part.spec.MaxEntries, err)
		}
		*part.to = created
	}
	if err := m.writeHeaders(); err != nil {
		_ = m.Close()
		return HostMaps{}, err
	}
	return m, nil
}

// The flags of the map definitions in bpf/maps.h.
const (
	sysNoPrealloc = 1 << 0  // BPF_F_NO_PREALLOC
	sysMmapable   = 1 << 10 // BPF_F_MMAPABLE
	bucketSizeU   = uint64(bucketSize)
	bucket6SizeU  = uint64(bucket6Size)
	bucketBytes   = uint32(unsafe.Sizeof(datapathBucket{}))
	bucket6Bytes  = uint32(unsafe.Sizeof(datapathBucket6{}))
)

func arraySpec(name string, size, entries uint32) ebpf.MapSpec {
	return ebpf.MapSpec{
		Name: name, Type: ebpf.Array, KeySize: 4, ValueSize: size, MaxEntries: entries, Flags: sysMmapable,
	}
}

func (m HostMaps) writeHeaders() error {
	var seeds [32]byte
	if _, err := rand.Read(seeds[:]); err != nil {
		return fmt.Errorf("draw the seeds of the host table: %w", err)
	}
	word := func(i int) uint64 { return binary.LittleEndian.Uint64(seeds[8*i:]) }
	h := TableHeader{Magic: tableMagic, Version: Version}
	h.Buckets, h.Seed = m.Buckets4.MaxEntries()-behind4, [2]uint64{word(0), word(1)}
	if err := WriteTableHeader(m.Buckets4, h); err != nil {
		return fmt.Errorf("write the header of map hosts4: %w", err)
	}
	h.Buckets, h.Seed = m.Buckets6.MaxEntries()-behind6, [2]uint64{word(2), word(3)}
	if err := WriteTableHeader(m.Buckets6, h); err != nil {
		return fmt.Errorf("write the header of map hosts6: %w", err)
	}
	return nil
}

// Headers reads and checks both headers. An error says in a sentence why this program cannot use the table.
func (m HostMaps) Headers() (v4, v6 TableHeader, err error) {
	if v4, err = readHeader4(m.Buckets4); err != nil {
		return v4, v6, err
	}
	if v6, err = readHeader6(m.Buckets6); err != nil {
		return v4, v6, err
	}
	if m.Overflow.KeySize() != 20 || m.Overflow.ValueSize() != 4 {
		err = fmt.Errorf("map host_overflow has keys of %d and values of %d bytes instead of 20 and 4: "+
			"these maps do not belong together, remove them to begin anew", m.Overflow.KeySize(), m.Overflow.ValueSize())
	}
	return v4, v6, err
}

// Slots is how many hosts of a family have room in buckets.
func (m HostMaps) Slots() int { return int(m.Buckets4.MaxEntries()-behind4) * bucketSize }

// ReadTableHeader reads the last entry of an array of buckets, whatever it holds.
func ReadTableHeader(m *ebpf.Map) (h TableHeader, err error) {
	entry := make([]byte, max(m.ValueSize(), uint32(unsafe.Sizeof(h))))
	if err := m.Lookup(m.MaxEntries()-1, &entry); err != nil {
		return h, err
	}
	_, err = binary.Decode(entry, binary.NativeEndian, &h)
	return h, err
}

// WriteTableHeader writes it.
func WriteTableHeader(m *ebpf.Map, h TableHeader) error {
	entry := make([]byte, m.ValueSize())
	if _, err := binary.Encode(entry, binary.NativeEndian, &h); err != nil {
		return err
	}
	return m.Put(m.MaxEntries()-1, entry)
}

func readHeader4(m *ebpf.Map) (TableHeader, error) {
	return readHeader("hosts4", m, bucketBytes, behind4)
}

func readHeader6(m *ebpf.Map) (TableHeader, error) {
	return readHeader("hosts6", m, bucket6Bytes, behind6)
}

func readHeader(name string, m *ebpf.Map, size, behind uint32) (TableHeader, error) {
	if m.Type() != ebpf.Array || m.ValueSize() != size || m.MaxEntries() < 2 {
		return TableHeader{}, fmt.Errorf("map %s is no host table (type %s, %d entries of %d bytes): remove it to begin anew",
			name, m.Type(), m.MaxEntries(), m.ValueSize())
	}
	h, err := ReadTableHeader(m)
	if err != nil {
		return h, fmt.Errorf("read the header of map %s: %w", name, err)
	}
	switch {
	case h.Magic != tableMagic:
		return h, fmt.Errorf("map %s is no host table (magic %#x): remove it to begin anew", name, h.Magic)
	case h.Version != Version:
		return h, fmt.Errorf("map %s has layout version %d and this program writes version %d: "+
			"run the version that made it, or remove it to begin anew", name, h.Version, Version)
	case uint64(h.Buckets)+uint64(behind) != uint64(m.MaxEntries()):
		return h, fmt.Errorf("map %s has %d entries, and its header says %d buckets, which makes %d: remove it to begin anew",
			name, m.MaxEntries(), h.Buckets, uint64(h.Buckets)+uint64(behind))
	}
	return h, nil
}

// Configure makes spec's program use this table: it sets the sizes of the table's maps and the constants
// hosts4_config and hosts6_config, and returns the maps to load it with
// (ebpf.CollectionOptions.MapReplacements), which still belong to m.
func (m HostMaps) Configure(spec *ebpf.CollectionSpec) (map[string]*ebpf.Map, error) {
	v4, v6, err := m.Headers()
	if err != nil {
		return nil, err
	}
	replace := map[string]*ebpf.Map{
		"hosts4": m.Buckets4, "hosts6": m.Buckets6, "host_overflow": m.Overflow,
	}
	for name, with := range replace {
		if spec.Maps[name] == nil {
			return nil, fmt.Errorf("the program has no map %s: it was built from another bpf/maps.h", name)
		}
		spec.Maps[name].MaxEntries = with.MaxEntries()
	}
	for name, h := range map[string]*TableHeader{"hosts4_config": &v4, "hosts6_config": &v6} {
		v := spec.Variables[name]
		if v == nil {
			return nil, fmt.Errorf("the program has no constant %s: it was built from another bpf/config.h", name)
		}
		if err := v.Set(TableConfig{Seed: h.Seed, Buckets: h.Buckets}); err != nil {
			return nil, fmt.Errorf("set constant %s: %w", name, err)
		}
	}
	return replace, nil
}

// Clone duplicates the descriptors; the maps are the same.
func (m HostMaps) Clone() (HostMaps, error) {
	var c HostMaps
	to := c.each()
	for i, from := range m.each() {
		dup, err := (*from).Clone()
		if err != nil {
			_ = c.Close()
			return HostMaps{}, fmt.Errorf("duplicate the descriptor of a host map: %w", err)
		}
		*to[i] = dup
	}
	return c, nil
}

// Close closes the descriptors. A map lives on while it is pinned, open elsewhere, or used by a program.
func (m HostMaps) Close() error {
	var err error
	for _, part := range m.each() {
		if *part != nil {
			err = errors.Join(err, (*part).Close())
		}
	}
	return err
}

func (m *HostMaps) each() [3]**ebpf.Map {
	return [3]**ebpf.Map{&m.Buckets4, &m.Buckets6, &m.Overflow}
}
