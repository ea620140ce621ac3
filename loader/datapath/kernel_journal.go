package datapath

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// journal remembers what was changed in the kernel, in a pinned map: it lives exactly as long as the pins do, which is as long
// as the settings do, needs no folder of its own, and survives the process being killed between any two steps.
type journal struct {
	path string
	m    *ebpf.Map // nil until it is needed
}

// change is one entry: what was there, and what was put in its place.
type change struct{ was, set string }

type (
	journalKey   [128]byte // a setting's String
	journalValue [2][64]byte
)

const (
	journalEntries = 16384
	journalHome    = "namespace" // the entry that says which network namespace the others speak of
)

// ErrNamespace says that settings were changed in another network namespace than the one we are in.
var ErrNamespace = errors.New("it belongs to another network namespace")

func (j *journal) open(create bool) error {
	if j.m != nil {
		return nil
	}
	m, err := ebpf.LoadPinnedMap(j.path, nil)
	if errors.Is(err, fs.ErrNotExist) {
		if !create {
			return nil
		}
		m, err = j.create()
	}
	if err != nil {
		return fmt.Errorf("open the record of kernel settings: %w", err)
	}
	if err := j.check(m); err != nil {
		_ = m.Close()
		return err
	}
	j.m = m
	return nil
}

func (j *journal) create() (*ebpf.Map, error) {
	m, err := ebpf.NewMap(&ebpf.MapSpec{
		Name: "roam_settings", Type: ebpf.Hash, KeySize: 128, ValueSize: 128, MaxEntries: journalEntries,
		Flags: unix.BPF_F_NO_PREALLOC,
	})
	if err != nil {
		return nil, err
	}
	home, err := namespaceID()
	if err == nil {
		err = put(m, journalHome, change{set: home})
	}
	if err == nil {
		err = m.Pin(j.path)
	}
	if err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

// check refuses a map that is no journal, and one that speaks of another network namespace: the same names mean other
// things here.
func (j *journal) check(m *ebpf.Map) error {
	if m.Type() != ebpf.Hash || m.KeySize() != uint32(len(journalKey{})) || m.ValueSize() != 128 {
		return fmt.Errorf("%w: %s is no record of kernel settings that this version reads: restore them by hand and remove it",
			ErrLayout, j.path)
	}
	var k journalKey
	var v journalValue
	copy(k[:], journalHome)
	if err := m.Lookup(k, &v); err != nil {
		return fmt.Errorf("read which network namespace the record of kernel settings belongs to: %w", err)
	}
	here, err := namespaceID()
	if err == nil && text(v[1][:]) != here {
		err = fmt.Errorf("the record of kernel settings at %s: %w: run roamd there, or remove the record", j.path, ErrNamespace)
	}
	return err
}

// namespaceID identifies the network namespace of the calling thread as long as that exists.
func namespaceID() (string, error) {
	id, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		return "", fmt.Errorf("identify the network namespace: %w", err)
	}
	return id, nil
}

func (j *journal) write(key string, c change) error {
	if err := j.open(true); err != nil {
		return err
	}
	return put(j.m, key, c)
}

func put(m *ebpf.Map, key string, c change) error {
	var k journalKey
	var v journalValue
	if len(key) >= len(k) || len(c.was) >= len(v[0]) || len(c.set) >= len(v[1]) {
		return fmt.Errorf("record kernel setting %s: it is too long", key)
	}
	copy(k[:], key)
	copy(v[0][:], c.was)
	copy(v[1][:], c.set)
	if err := m.Put(k, v); err != nil {
		return fmt.Errorf("record kernel setting %s: %w", key, err)
	}
	return nil
}

func (j *journal) forget(key string) error {
	var k journalKey
	copy(k[:], key)
	if err := j.m.Delete(k); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("forget kernel setting %s: %w", key, err)
	}
	return nil
}

func (j *journal) read() (map[string]change, error) {
	changes := make(map[string]change)
	if err := j.open(false); err != nil || j.m == nil {
		return changes, err
	}
	var k journalKey
	var v journalValue
	entries := j.m.Iterate()
	for entries.Next(&k, &v) {
		changes[text(k[:])] = change{was: text(v[0][:]), set: text(v[1][:])}
	}
	delete(changes, journalHome)
	if err := entries.Err(); err != nil {
		return nil, fmt.Errorf("read the record of kernel settings: %w", err)
	}
	return changes, nil
}

func text(b []byte) string {
	head, _, _ := bytes.Cut(b, []byte{0})
	return string(head)
}

// remove unpins the record: what it holds has been undone.
func (j *journal) remove() error {
	if err := j.close(); err != nil {
		return err
	}
	if err := os.Remove(j.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the record of kernel settings: %w", err)
	}
	return nil
}

func (j *journal) close() error {
	m := j.m
	j.m = nil
	if m == nil {
		return nil
	}
	return m.Close()
}
