// Package bpftest runs the real program on packets, unpinned and unattached, and compares all that it does: verdict, bytes,
// and every counter. Golden packets (one file per header of bpf/) are a base and one mutation each; the model is the same
// rules once more in naive Go, compared over random packets.
//
// The kernel's test run has one ingress, the loopback interface of the namespace, which is interface 1 everywhere. So each
// world puts the port under test there; the others have interface numbers that do not exist, which no test run notices:
// a redirect only needs an entry in the device map.
package bpftest

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"roam/maps"
)

const loopback = 1

// world is a loaded program and what its maps hold.
type world struct {
	*tables
	objects *maps.Objects
	hosts4  maps.HostMaps
	grace   *maps.Grace
	writer  *maps.Hosts
	slots   *maps.PortTable
	tries   *maps.PrefixTable

	slot uint16 // of the port under test
	meta []byte // poison in front of the packet

	t        testing.TB // whose frames are being counted
	start    counts     // the counters when that began, nil when nobody counts
	owed     counts     // what must have moved since
	perCPU   []maps.Counter
	counting map[uint16]bool // slots that have or had a port, and 0
	fuzzed   bool            // FuzzWalk settles now and then, not after every frame
	twin     *twin           // a traced instance that gets every checked frame too, or nil
	shade    *shade          // and one in shadow mode
}

// newWorld loads the program over empty tables for some hundred hosts.
func newWorld(t testing.TB) *world {
	t.Helper()
	w, err := loadWorld(talkative, false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.close)
	return w
}

// talkative is the default, but that errors to senders and answers to probes are as good as unlimited.
var talkative = func() maps.Tune {
	tune := maps.DefaultTune
	tune.ICMPBurst, tune.Probes = 1<<30, 1<<30
	return tune
}()

// haveFrags says whether this kernel takes a program for frames of several pieces.
var haveFrags = sync.OnceValue(func() bool {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.XDP, License: "BSD", Flags: unix.BPF_F_XDP_HAS_FRAGS,
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, xdpPass), asm.Return()},
	})
	if err == nil {
		_ = p.Close()
	}
	return err == nil
})

func loadWorld(tune maps.Tune, dry bool) (*world, error) {
	tune.Frags = tune.Frags && haveFrags()
	hosts, err := maps.CreateHostMaps(512)
	if err != nil {
		return nil, err
	}
	objects, err := maps.Load(maps.Options{Hosts: hosts, Dry: dry, Tune: tune})
	if err != nil {
		return nil, fmt.Errorf("%+w", err)
	}
	w := &world{tables: newTables(), objects: objects, hosts4: hosts, tries: maps.OpenPrefixes(objects), counting: map[uint16]bool{0: true}}
	w.tune = tune
	if w.grace, err = maps.NewGrace(); err != nil {
		return nil, err
	}
	if w.writer, err = maps.OpenHosts(hosts, w.grace); err != nil {
		return nil, err
	}
	if w.slots, err = maps.OpenPorts(objects); err != nil {
		return nil, err
	}
	for id, kind := range map[uint32]uint8{
		maps.IDGateway: maps.KindGateway, maps.IDOwn: maps.KindOwn,
		maps.IDKernel: maps.KindKernel, maps.IDBlackhole: maps.KindBlackhole,
	} {
		w.nexthop(id, maps.Nexthop{Kind: kind})
	}
	w.meta = slices.Repeat([]byte{0xa5}, metadataRoom(objects.Program))
	return w, nil
}

func (w *world) close() {
	_ = w.slots.Close()
	_ = w.writer.Close()
	_ = w.grace.Close()
	_ = w.objects.Close()
	_ = w.hosts4.Close()
}

// put writes a value into a map, and panics: a test that cannot write its tables is broken.
func put(m *ebpf.Map, key, value any) {
	if err := m.Put(key, value); err != nil {
		panic(fmt.Sprintf("write %s: %v", m, err))
	}
}

// port enters a port and returns its slot. With device, packets can leave by it.
func (w *world) port(p maps.Port, device bool) uint16 {
	if p.Vlan != 0 && p.TagProto == 0 {
		p.TagProto = inMemory(0x8100)
	}
	slot, err := w.slots.Put(p)
	if err != nil {
		panic(err)
	}
	w.ports[slot], w.counting[slot] = p, true
	if device {
		put(w.objects.TxPorts, uint32(slot), uint32(loopback))
		w.devices[slot] = true
	}
	return slot
}

func (w *world) tenant(n uint16, t maps.Tenant) {
	put(w.objects.Tenants, uint32(n), t)
	w.tenants[n] = t
}

// locator makes an address a tunnel end that is known.
func (w *world) locator(n uint16, l maps.Locator, a netip.Addr) {
	l.Addr, l.Used, l.Number = wire(a), 1, n
	put(w.objects.Locators, uint32(n), l)
	w.locators[n] = l
	w.host(maps.SpaceLocator, a, uint32(n))
}

func (w *world) segment(index uint16, s maps.Segment) {
	if err := w.slots.PutSegment(index, s); err != nil {
		panic(err)
	}
	w.segments[index] = s
}

func (w *world) host(space uint16, addr netip.Addr, value uint32) {
	if err := w.writer.Put(space, addr, value); err != nil {
		panic(err)
	}
	w.hosts[host{space, addr}] = value
}

func (w *world) vni(vni uint32, tenant uint16) {
	w.host(maps.SpaceVNI, netip.AddrFrom4([4]byte{byte(vni >> 24), byte(vni >> 16), byte(vni >> 8), byte(vni)}), uint32(tenant))
}

func (w *world) prefix(tenant uint16, p netip.Prefix, id uint32) {
	if err := w.tries.Put(tenant, p, id); err != nil {
		panic(err)
	}
	w.prefixes[prefix{tenant, p}] = id
}

func (w *world) noPrefix(tenant uint16, p netip.Prefix) {
	if err := w.tries.Delete(tenant, p); err != nil {
		panic(err)
	}
	delete(w.prefixes, prefix{tenant, p})
}

func (w *world) nexthop(id uint32, n maps.Nexthop) {
	put(w.objects.Nexthops, id, n)
	w.nexthops[id] = n
}

func (w *world) adjacency(id uint32, flags uint8, t tunnel) {
	put(w.objects.Adjacencies, id, t.adjacency())
	w.adjacencies[id] = t
	w.nexthop(id, maps.Nexthop{Kind: maps.KindAdjacency, Flags: flags, Index: id})
}

func (w *world) set(id uint32, flags uint8, members ...uint32) {
	var s maps.Set
	for i := range s.Member {
		s.Member[i] = members[i%len(members)]
	}
	put(w.objects.Sets, id, s)
	w.sets[id] = s
	w.nexthop(id, maps.Nexthop{Kind: maps.KindSet, Flags: flags, Index: id})
}

func (w *world) local(id uint32, m mac, port uint16) {
	l := maps.Local{Mac: m, Port: port}
	put(w.objects.Locals, id, l)
	w.locals[id] = l
	w.nexthop(id, maps.Nexthop{Kind: maps.KindLocal, Index: id})
}

// station says what is known of a MAC on a segment.
func (w *world) station(segment uint16, m mac, kind uint32) {
	key := maps.MACKey{Mac: m, Segment: segment}
	put(w.objects.Macs, key, kind)
	w.macs[key] = kind
}

// xdpMd is struct xdp_md. Data is the length of the metadata that lies in front of the packet.
type xdpMd struct {
	Data, DataEnd, DataMeta, IngressIfindex, RxQueueIndex, EgressIfindex uint32
}

// run sends one frame through the program.
func (w *world) run(in []byte) (action uint32, out []byte, err error) {
	w.settle()
	return run(w.objects.Program, w.meta, in)
}

func run(prog *ebpf.Program, meta, in []byte) (action uint32, out []byte, err error) {
	data := append(append(make([]byte, 0, len(meta)+len(in)), meta...), in...)
	opts := ebpf.RunOptions{Data: data, DataOut: make([]byte, len(data)+maps.HeaderMax+256)}
	var after xdpMd
	if len(meta) > 0 {
		opts.Context = xdpMd{Data: uint32(len(meta)), DataEnd: uint32(len(data)), IngressIfindex: loopback}
		opts.ContextOut = &after
	}
	action, err = prog.Run(&opts)
	if err != nil {
		return 0, nil, fmt.Errorf("run a frame of %d bytes: %w", len(in), err)
	}
	return action, opts.DataOut[after.Data:], nil
}

// metadataRoom is how many bytes of metadata this kernel lets a test put in front of a packet. They are what the
// program finds there when it makes room for a header: the test runner itself clears the headroom, drivers do not.
func metadataRoom(prog *ebpf.Program) int {
	probe := make([]byte, 64)
	// It is taken from the 256 bytes that the runner leaves, as which a driver leaves at least 192; the kernel needs 40.
	for _, n := range []int{96, 32} {
		if _, _, err := run(prog, make([]byte, n), probe); err == nil {
			return n
		}
	}
	return 0
}

// counts is every counter that is not zero, by a name such as "port 17 drop_ttl" or "locator 3".
type counts map[string]maps.Counter

func (w *world) counts() (counts, error) {
	if !countsAtOnce() {
		return w.countsInTurn()
	}
	list, err := maps.ReadCounters(w.objects.Counters)
	if err != nil {
		return nil, err
	}
	c := counts{}
	for _, p := range list {
		c[countName(p.Slot, maps.ReasonName(p.Reason))] = p.Counter
	}
	locators, err := maps.ReadLocatorCounters(w.objects.LocatorCounters)
	if err != nil {
		return nil, err
	}
	for i, l := range locators {
		if l != (maps.Counter{}) {
			c[locatorName(uint16(i))] = l
		}
	}
	return c, nil
}

func countName(slot uint16, reason string) string { return fmt.Sprintf("port %d %s", slot, reason) }
func locatorName(n uint16) string                 { return fmt.Sprintf("locator %d", n) }

// since is what moved.
func (c counts) since(before counts) counts {
	moved := counts{}
	for name, n := range c {
		d := maps.Counter{Packets: n.Packets - before[name].Packets, Bytes: n.Bytes - before[name].Bytes}
		if d != (maps.Counter{}) {
			moved[name] = d
		}
	}
	return moved
}

func (c counts) add(name string, packets, bytes int) {
	n := c[name]
	n.Packets += uint64(packets)
	n.Bytes += uint64(bytes)
	c[name] = n
}

func (c counts) String() string {
	var s []string
	for name, n := range c {
		s = append(s, fmt.Sprintf("%s: %d packets, %d bytes", name, n.Packets, n.Bytes))
	}
	slices.Sort(s)
	return strings.Join(s, "; ")
}

// reasonsPerPort is the number of counters that a port has: REASONS of bpf/abi.h.
const reasonsPerPort = 96

var reasonNumbers = sync.OnceValue(func() map[string]uint32 {
	names, err := maps.ReasonNames()
	if err != nil {
		panic(err)
	}
	numbers := map[string]uint32{}
	for i, n := range names {
		numbers[n] = uint32(i)
	}
	return numbers
})

func reasonNumber(t testing.TB, name string) uint32 {
	t.Helper()
	n, ok := reasonNumbers()[name]
	if !ok {
		t.Fatalf("there is no reason %q", name)
	}
	return n
}
