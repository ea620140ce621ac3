package bgp

import (
	"fmt"
	"reflect"
	"sync"
	"unsafe"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
	"github.com/osrg/gobgp/v4/pkg/server"
)

// macIndex is what the library remembers of MACs in its common table. Every received route of type 2 adds an entry there, and none
// of those that our import policy keeps out is ever taken out again: some 300 bytes for each UPDATE of each host, for
// good (GoBGP 4.8.0, internal/pkg/table/table.go: update inserts after deleteDest has cleaned up). Our own routes are not
// in it (see community), so all of it is refuse. The library has no way to empty it; this reaches for the map by its name.
type macIndex struct {
	mu      *sync.RWMutex
	entries reflect.Value
}

func macIndexOf(s *server.BgpServer) (m macIndex, err error) {
	defer func() {
		if r := recover(); r != nil { // reflect panics on what is not as expected
			err = fmt.Errorf("find the library's index of MACs: %v", r)
		}
	}()
	tables := field(reflect.ValueOf(s).Elem(), "globalRib").Elem()
	evpn := field(tables, "tables").MapIndex(reflect.ValueOf(bgp.RF_EVPN))
	index := field(evpn.Elem(), "macIndex").Elem()
	return macIndex{mu: field(index, "mu").Interface().(*sync.RWMutex), entries: field(index, "mp")}, nil
}

// field is a field of an addressable struct, as if it were exported.
func field(v reflect.Value, name string) reflect.Value {
	f := v.FieldByName(name)
	return reflect.NewAt(f.Type(), unsafe.Pointer(f.UnsafeAddr())).Elem()
}

// len counts the entries: several for one MAC.
func (m macIndex) len() (n int) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	for i := m.entries.MapRange(); i.Next(); {
		n += i.Value().Len()
	}
	return n
}

func (m macIndex) clear() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.entries.Set(reflect.MakeMap(m.entries.Type())) // a map that was cleared keeps its size
}
