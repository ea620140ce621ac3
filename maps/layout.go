package maps

import (
	"fmt"

	"github.com/cilium/ebpf"
)

// Layout returns the definition of every map of the embedded program by its name, to compare with maps that are already
// there. MaxEntries is 0 for the maps of the host table, which each table chooses for itself.
func Layout() (map[string]*ebpf.MapSpec, error) {
	spec, err := loadDatapath()
	if err != nil {
		return nil, fmt.Errorf("read the embedded program: %w", err)
	}
	layout := make(map[string]*ebpf.MapSpec)
	for name := range new(Objects).All() {
		layout[name] = spec.Maps[name]
	}
	for _, name := range []string{datapathMapHosts4, datapathMapHosts6} {
		layout[name].MaxEntries = 0
	}
	return layout, nil
}
