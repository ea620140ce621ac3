package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"unsafe"

	"github.com/cilium/ebpf"

	"roam/maps/bench"
)

// peerSpare is room beside the hosts, for locators and tenants.
const peerSpare = 64

// newPeers creates the maps that take the table's place in the same walk, with all that is in the table, or all that is IPv4.
func (g *gateway) newPeers(s bench.Structure, v6 bool) (map[string]*ebpf.Map, error) {
	spec, err := bench.Load(s)
	if err != nil {
		return nil, err
	}
	peers := map[string]*ebpf.Map{}
	names := []string{bench.Peer4}
	if v6 {
		names = append(names, bench.Peer6)
	}
	for _, name := range names {
		part := spec.Maps[name]
		part.MaxEntries = uint32(g.hosts + peerSpare)
		m, err := ebpf.NewMap(part)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("create the %s of %d hosts: %w", s, g.hosts, err), closeAll(peers))
		}
		peers[name] = m
	}
	if err := g.fillPeers(s, peers); err != nil {
		return nil, errors.Join(err, closeAll(peers))
	}
	return peers, nil
}

func closeAll(peers map[string]*ebpf.Map) error {
	var err error
	for _, m := range peers {
		err = errors.Join(err, m.Close())
	}
	return err
}

// fillPeers writes in batches. The keys of both structures are a space and an address, the trie's behind a length.
func (g *gateway) fillPeers(s bench.Structure, peers map[string]*ebpf.Map) error {
	v4 := batch{to: peers[bench.Peer4], trie: s == bench.Trie}
	v6 := batch{to: peers[bench.Peer6], trie: s == bench.Trie}
	var err error
	g.table.Each(func(space uint16, addr netip.Addr, value uint32) bool {
		switch {
		case addr.Is4():
			err = v4.add(space, addr, value)
		case v6.to != nil:
			err = v6.add(space, addr, value)
		}
		return err == nil
	})
	return errors.Join(err, v4.flush(), v6.flush())
}

// batch collects entries for one batched update.
type batch struct {
	to     *ebpf.Map
	trie   bool
	keys   []byte
	values []uint32
}

const batchSize = 1 << 16

func (b *batch) add(space uint16, addr netip.Addr, value uint32) error {
	if b.trie {
		b.keys = binary.NativeEndian.AppendUint32(b.keys, uint32(32+addr.BitLen()))
	}
	b.keys = binary.NativeEndian.AppendUint32(b.keys, uint32(space))
	if a := addr.As16(); addr.Is4() {
		b.keys = append(b.keys, a[12:]...)
	} else {
		b.keys = append(b.keys, a[:]...)
	}
	b.values = append(b.values, value)
	if len(b.values) < batchSize {
		return nil
	}
	return b.flush()
}

func (b *batch) flush() error {
	if len(b.values) == 0 {
		return nil
	}
	size := len(b.keys) / len(b.values)
	var err error
	switch size { // the library wants keys of a fixed size
	case 8:
		_, err = b.to.BatchUpdate(chunk[[8]byte](b.keys), b.values, nil)
	case 12:
		_, err = b.to.BatchUpdate(chunk[[12]byte](b.keys), b.values, nil)
	case 20:
		_, err = b.to.BatchUpdate(chunk[[20]byte](b.keys), b.values, nil)
	case 24:
		_, err = b.to.BatchUpdate(chunk[[24]byte](b.keys), b.values, nil)
	}
	b.keys, b.values = b.keys[:0], b.values[:0]
	if err != nil {
		return fmt.Errorf("fill %s: %w", b.to, err)
	}
	return nil
}

// chunk views bytes as keys.
func chunk[K [8]byte | [12]byte | [20]byte | [24]byte](b []byte) []K {
	return unsafe.Slice((*K)(unsafe.Pointer(&b[0])), len(b)/len(*new(K)))
}
