package maps

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
)

// Objects is one loaded program and the maps it works on.
type Objects struct {
	datapathMaps
	Program *ebpf.Program // the packet walk
	Accept  *ebpf.Program // for interfaces where a pass needs help, see bpf/accept.h
}

// Options say how a program is loaded.
type Options struct {
	Hosts HostMaps             // the tables it looks up in; their headers set its seeds and sizes
	Reuse map[string]*ebpf.Map // maps by name that it shares with an earlier program, for upgrade and growth
	Dry   bool                 // a dry run: leaves a WalkReport behind, for explaining
}

// Load creates the maps that are not given and loads the program over all of them. Maps given in o stay owned by the
// caller; the Objects hold clones. A verifier refusal comes back as *ebpf.VerifierError.
func Load(o Options) (*Objects, error) {
	spec, err := loadDatapath()
	if err != nil {
		return nil, fmt.Errorf("read the embedded program: %w", err)
	}
	replace, err := o.Hosts.Configure(spec)
	if err != nil {
		return nil, err
	}
	for name, m := range o.Reuse {
		if _, host := replace[name]; !host {
			replace[name] = m
		}
	}
	if err := spec.Variables["dry"].Set(o.Dry); err != nil {
		return nil, fmt.Errorf("set constant dry: %w", err)
	}
	var loaded struct {
		datapathMaps
		Program *ebpf.Program `ebpf:"datapath"`
		Accept  *ebpf.Program `ebpf:"accept"`
	}
	err = spec.LoadAndAssign(&loaded, &ebpf.CollectionOptions{MapReplacements: replace})
	if err != nil {
		return nil, fmt.Errorf("load the data path: %w", err)
	}
	return &Objects{datapathMaps: loaded.datapathMaps, Program: loaded.Program, Accept: loaded.Accept}, nil
}

// All returns every map by its name in the program, for pinning and reuse.
func (o *Objects) All() map[string]*ebpf.Map {
	return map[string]*ebpf.Map{
		datapathMapPorts: o.Ports, datapathMapSegments: o.Segments, datapathMapMacs: o.Macs,
		datapathMapHosts4: o.Hosts4, datapathMapHosts6: o.Hosts6, datapathMapRecords6: o.Records6,
		datapathMapHostOverflow: o.HostOverflow, datapathMapPrefixes4: o.Prefixes4, datapathMapPrefixes6: o.Prefixes6,
		datapathMapNexthops: o.Nexthops, datapathMapSets: o.Sets, datapathMapAdjacencies: o.Adjacencies,
		datapathMapLocals: o.Locals, datapathMapLocators: o.Locators, datapathMapTxPorts: o.TxPorts,
		datapathMapCounters: o.Counters, datapathMapLocatorCounters: o.LocatorCounters, datapathMapReport: o.Report,
	}
}

// HostMaps returns the host tables among the maps.
func (o *Objects) HostMaps() HostMaps {
	return HostMaps{Buckets4: o.Hosts4, Buckets6: o.Hosts6, Records6: o.Records6, Overflow: o.HostOverflow}
}

// Close lets go of the program and the maps; what is attached or pinned stays.
func (o *Objects) Close() error {
	return errors.Join(o.datapathMaps.Close(), o.Program.Close(), o.Accept.Close())
}
