package maps

import (
	"errors"
	"fmt"
	"maps"
	"os"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Objects is one loaded program and the maps it works on.
type Objects struct {
	datapathMaps
	Program *ebpf.Program // what is attached: the packet walk, or what goes over to it while somebody traces
	Walk    *ebpf.Program // the packet walk; the same one unless somebody traces
	ICMP    *ebpf.Program // what the walk goes over to, through map programs
	Accept  *ebpf.Program // for interfaces where a pass needs help, see bpf/accept.h
}

// Options say how a program is loaded.
type Options struct {
	Hosts HostMaps             // the tables it looks up in; their headers set its seeds and sizes
	Reuse map[string]*ebpf.Map // maps by name that it shares with an earlier program, for upgrade and growth
	Dry   bool                 // a dry run: leaves a WalkReport behind, for explaining
	Trace bool                 // leaves events behind for those whose filters are set; see trace.go
	Tune  Tune                 // zero: DefaultTune
	Stats bool                 // keeps what the verifier says of its work, in VerifierLog of the programs
}

// Tune are the load-time constants of bpf/config.h that an operator may choose. Comparable.
type Tune struct {
	SourceCheck uint8  // SourceOff, SourceLoose or SourceStrict
	OuterDSCP   uint8  // 0 to 63, or DSCPCopy
	ClampMSS    bool   // tell TCP at its start what fits into the tunnel
	KeepTTL     bool   // some tenant has TenantKeepTTL
	Egress      bool   // some host has a policy of egress (SpaceEgress)
	Bridging    bool   // some VNI is a segment's (VNISegment)
	Frags       bool   // frames longer than a page: Linux 5.18
	ICMPRate    uint32 // errors a second to one sender, 0 for none
	ICMPBurst   uint32 // and at once
	Sightings   uint32 // a second of one host, 0 for none
	Probes      uint32 // answered a second, of one locator's, 0 for none
	Shadow      bool   // passes every frame as it came, and notes what it would do and who talks to whom
	Ports       TunnelPorts
}

// TunnelPorts are the UDP ports on which tunnels arrive.
type TunnelPorts struct{ VXLAN, VXLANGPE, Geneve, GUE, LISP uint16 }

// DefaultTune is what serves.
var DefaultTune = Tune{
	SourceCheck: SourceLoose, OuterDSCP: DSCPCopy, ClampMSS: true, ICMPRate: 10, ICMPBurst: 20, Sightings: 10, Probes: 200,
	Ports: TunnelPorts{VXLAN: 4789, VXLANGPE: 4790, Geneve: 6081, GUE: 6080, LISP: 4341},
}

func (t Tune) constants() map[string]any {
	return map[string]any{
		"source_check": t.SourceCheck, "outer_dscp": t.OuterDSCP, "mss_clamp": t.ClampMSS, "keep_ttl": t.KeepTTL, "bridging": t.Bridging,
		"egress_policy": t.Egress,
		"frags":         t.Frags, "icmp_rate": t.ICMPRate, "icmp_burst": t.ICMPBurst, "sight_rate": t.Sightings, "probe_rate": t.Probes, "shadow": t.Shadow,
		"vxlan_port": t.Ports.VXLAN, "vxlan_gpe_port": t.Ports.VXLANGPE, "geneve_port": t.Ports.Geneve,
		"gue_port": t.Ports.GUE, "lisp_port": t.Ports.LISP,
	}
}

// Set enters the constants into a program that is to be loaded: the data path, or one that contains it.
func (t Tune) Set(spec *ebpf.CollectionSpec) error {
	for name, value := range t.constants() {
		if err := spec.Variables[name].Set(value); err != nil {
			return fmt.Errorf("set constant %s: %w", name, err)
		}
	}
	return nil
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
	if o.Tune == (Tune{}) {
		o.Tune = DefaultTune
	}
	if err := o.Tune.Set(spec); err != nil {
		return nil, err
	}
	if o.Dry {
		for name, value := range map[string]any{"run": uint8(datapathRunModeRUN_DRY), "sight_rate": uint32(0)} {
			if err := spec.Variables[name].Set(value); err != nil {
				return nil, fmt.Errorf("set constant %s: %w", name, err)
			}
		}
	}
	if o.Tune.Frags {
		for _, name := range []string{"datapath", "icmp", "traced"} {
			spec.Programs[name].Flags |= unix.BPF_F_XDP_HAS_FRAGS
		}
	}
	if o.Tune.Shadow {
		spec.Maps[datapathMapShadowHosts].MaxEntries = uint32(datapathLimitsSHADOW_HOSTS)
		spec.Maps[datapathMapShadowPairs].MaxEntries = uint32(datapathLimitsSHADOW_PAIRS)
	}
	spec.Maps[datapathMapTraceRing].MaxEntries = uint32(os.Getpagesize()) // the least there is
	var loaded struct {
		loadedObjects
		Traced *ebpf.Program `ebpf:"traced"`
	}
	var into any = &loaded.loadedObjects
	if o.Trace {
		if err := Trace(spec); err != nil {
			return nil, err
		}
		into = &loaded
	}
	options := ebpf.CollectionOptions{MapReplacements: replace}
	if o.Stats {
		options.Programs.LogLevel = ebpf.LogLevelStats
	}
	if err := spec.LoadAndAssign(into, &options); err != nil {
		return nil, fmt.Errorf("load the data path: %w", err)
	}
	out := &Objects{datapathMaps: loaded.datapathMaps, Program: loaded.Walk, Walk: loaded.Walk, ICMP: loaded.ICMP, Accept: loaded.Accept}
	if o.Trace {
		out.Program = loaded.Traced
	}
	return out, nil
}

type loadedObjects struct {
	datapathMaps
	Walk   *ebpf.Program `ebpf:"datapath"`
	ICMP   *ebpf.Program `ebpf:"icmp"`
	Accept *ebpf.Program `ebpf:"accept"`
}

// Pins returns what must be pinned besides the program: the maps, in shadow mode its own, too, and the array that holds the program's other half, which
// empties when nobody has it open or pinned.
func (o *Objects) Pins() map[string]*ebpf.Map {
	pins := o.All()
	pins[datapathMapPrograms] = o.Programs
	if o.Shadow() {
		maps.Copy(pins, o.ShadowMaps())
	}
	return pins
}

// All returns every map that programs share, by its name in the program, for reuse.
func (o *Objects) All() map[string]*ebpf.Map {
	return map[string]*ebpf.Map{
		datapathMapPorts: o.Ports, datapathMapSegments: o.Segments, datapathMapTenants: o.Tenants, datapathMapMacs: o.Macs,
		datapathMapHosts4: o.Hosts4, datapathMapHosts6: o.Hosts6,
		datapathMapHostOverflow: o.HostOverflow, datapathMapPrefixes4: o.Prefixes4, datapathMapPrefixes6: o.Prefixes6,
		datapathMapNexthops: o.Nexthops, datapathMapSets: o.Sets, datapathMapAdjacencies: o.Adjacencies,
		datapathMapLocals: o.Locals, datapathMapLocators: o.Locators, datapathMapTxPorts: o.TxPorts,
		datapathMapCounters: o.Counters, datapathMapLocatorCounters: o.LocatorCounters, datapathMapReport: o.Report,
		datapathMapComplaints: o.Complaints, datapathMapIcmpSources: o.IcmpSources, datapathMapSeen: o.Seen,
		datapathMapSightBudgets: o.SightBudgets, datapathMapSightings: o.Sightings, datapathMapSightCounters: o.SightCounters,
	}
}

// HostMaps returns the host tables among the maps.
func (o *Objects) HostMaps() HostMaps {
	return HostMaps{Buckets4: o.Hosts4, Buckets6: o.Hosts6, Overflow: o.HostOverflow}
}

// Close lets go of the program and the maps; what is attached or pinned stays.
func (o *Objects) Close() error {
	return errors.Join(o.datapathMaps.Close(), o.ClosePrograms())
}

// TakePrograms has o hold the programs of another instance, and the array by which they find each other.
func (o *Objects) TakePrograms(from *Objects) {
	o.Program, o.Walk, o.ICMP, o.Accept, o.Programs = from.Program, from.Walk, from.ICMP, from.Accept, from.Programs
}

// ClosePrograms lets go of the programs alone.
func (o *Objects) ClosePrograms() error {
	err := errors.Join(o.Walk.Close(), o.ICMP.Close(), o.Accept.Close())
	if o.Traced() {
		err = errors.Join(err, o.Program.Close())
	}
	return err
}
