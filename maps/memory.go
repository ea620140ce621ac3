package maps

import (
	"fmt"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// memory is an mmapable array of T as its writer sees it. The program reads it while we write: what it may read
// is stored in aligned words, and a longer record is written only while nothing names it.
type memory[T any] struct {
	entries []T
	bytes   []byte
}

func mapArray[T any](m *ebpf.Map) (*memory[T], error) {
	var zero T
	size := int(unsafe.Sizeof(zero))
	if int(m.ValueSize()) != size {
		return nil, fmt.Errorf("map %s holds values of %d bytes, this program expects %d", m, m.ValueSize(), size)
	}
	if size%8 != 0 {
		return nil, fmt.Errorf("map %s holds values of %d bytes: the kernel lays them out in eights, pad them in bpf/abi.h", m, size)
	}
	entries := int(m.MaxEntries())
	length := (entries*size + unix.Getpagesize() - 1) / unix.Getpagesize() * unix.Getpagesize()
	bytes, err := unix.Mmap(m.FD(), 0, length, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map %s into memory: %w", m, err)
	}
	return &memory[T]{entries: unsafe.Slice((*T)(unsafe.Pointer(&bytes[0])), entries), bytes: bytes}, nil
}

func (a *memory[T]) close() error {
	if a.bytes == nil {
		return nil
	}
	err := unix.Munmap(a.bytes)
	a.bytes, a.entries = nil, nil
	return err
}

// word returns the entry as the one aligned 64-bit word it is.
func (a *memory[T]) word(i uint32) *uint64 {
	return (*uint64)(unsafe.Pointer(&a.entries[i]))
}

func (a *memory[T]) store(i uint32, v uint64) { atomic.StoreUint64(a.word(i), v) }
func (a *memory[T]) load(i uint32) uint64     { return atomic.LoadUint64(a.word(i)) }
