package maps

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"syscall"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"
)

// SightKind is by what sign a host showed itself, or was missed: enum sight_kind of bpf/abi.h.
type SightKind uint8

// The signs.
const (
	SightARPRequest  = SightKind(datapathSightKindSIGHT_ARP_REQUEST)
	SightARPReply    = SightKind(datapathSightKindSIGHT_ARP_REPLY)
	SightARPAnnounce = SightKind(datapathSightKindSIGHT_ARP_ANNOUNCE)
	SightARPProbe    = SightKind(datapathSightKindSIGHT_ARP_PROBE)
	SightNDSolicit   = SightKind(datapathSightKindSIGHT_ND_SOLICIT)
	SightNDAdvert    = SightKind(datapathSightKindSIGHT_ND_ADVERT)
	SightNDDAD       = SightKind(datapathSightKindSIGHT_ND_DAD)
	SightRARP        = SightKind(datapathSightKindSIGHT_RARP)
	SightData        = SightKind(datapathSightKindSIGHT_DATA)
	SightWanted      = SightKind(datapathSightKindSIGHT_WANTED)
	SightFirst       = SightKind(datapathSightKindSIGHT_FIRST) // no sign of a host: the first packet to one that moved
)

var sightNames = map[SightKind]string{
	SightARPRequest: "arp_request", SightARPReply: "arp_reply", SightARPAnnounce: "arp_announce", SightARPProbe: "arp_probe",
	SightNDSolicit: "nd_solicit", SightNDAdvert: "nd_advert", SightNDDAD: "nd_dad", SightRARP: "rarp", SightData: "data",
	SightWanted: "wanted", SightFirst: "first",
}

func (k SightKind) String() string {
	if name, ok := sightNames[k]; ok {
		return name
	}
	return fmt.Sprintf("sign %d", uint8(k))
}

// Sighting is a host that showed itself on an access port, or an address that somebody misses. A hint, not a proof.
type Sighting struct {
	Kind   SightKind
	Tenant uint16
	Port   uint16        // slot; of a wanted host, and of a first packet, where the packet came in
	MAC    [6]byte       // zero of a wanted host, and of a first packet
	Addr   netip.Addr    // not valid for SightRARP
	When   time.Duration // since boot, CLOCK_MONOTONIC
}

// Sightings reads the ring that the data path fills. While nobody reads, the ring keeps the oldest and counts the others as lost. One
// reader at a time.
//
// The ring's reader would wait in a system call, and whatever it had woken would wait with it: the runtime takes a processor from a thread in
// a system call when it comes to it, which in a process with little to do is after 10 ms. So the runtime's own poller waits, on a copy of the descriptor.
type Sightings struct {
	ring *ringbuf.Reader
	file *os.File
	news syscall.RawConn // of file
}

// OpenSightings reads the ring of o.
func OpenSightings(o *Objects) (*Sightings, error) {
	s, err := openSightings(o.Sightings)
	if err != nil {
		return nil, fmt.Errorf("read the ring of sightings: %w", err)
	}
	return s, nil
}

func openSightings(m *ebpf.Map) (*Sightings, error) {
	fd, err := unix.FcntlInt(uintptr(m.FD()), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("copy the descriptor: %w", err)
	}
	_ = unix.SetNonblock(fd, true) // tells the runtime that it may poll; fails for no descriptor that is open
	s := &Sightings{file: os.NewFile(uintptr(fd), "sightings")}
	if s.news, err = s.file.SyscallConn(); err == nil {
		s.ring, err = ringbuf.NewReader(m)
	}
	if err != nil {
		return nil, errors.Join(err, s.file.Close())
	}
	s.ring.SetDeadline(time.Unix(1, 0)) // it is past: what is not there yet is not waited for
	return s, nil
}

// Read waits for the next sighting; os.ErrClosed after Close.
func (s *Sightings) Read() (Sighting, error) {
	var record ringbuf.Record
	var err error
	closed := s.news.Read(func(uintptr) (done bool) {
		record, err = s.ring.Read()
		return !errors.Is(err, os.ErrDeadlineExceeded)
	})
	if closed != nil || errors.Is(err, ringbuf.ErrClosed) {
		return Sighting{}, os.ErrClosed
	}
	if err != nil {
		return Sighting{}, fmt.Errorf("read the ring of sightings: %w", err)
	}
	return decodeSighting(record.RawSample)
}

// Close ends a Read that waits. Safe from any goroutine.
func (s *Sightings) Close() error { return errors.Join(s.file.Close(), s.ring.Close()) }

func decodeSighting(raw []byte) (Sighting, error) {
	var in datapathSighting
	if len(raw) != int(unsafe.Sizeof(in)) {
		return Sighting{}, fmt.Errorf("a sighting of %d bytes, this program expects %d", len(raw), unsafe.Sizeof(in))
	}
	if _, err := binary.Decode(raw, binary.NativeEndian, &in); err != nil {
		return Sighting{}, err
	}
	out := Sighting{
		Kind: SightKind(in.Kind), Tenant: in.Tenant, Port: in.Port, MAC: in.Mac, When: time.Duration(in.When),
	}
	if out.Kind != SightRARP {
		out.Addr = fromWire(in.Addr)
	}
	return out, nil
}

// SightCount is how many sightings there were of a kind since the data path was made.
type SightCount struct {
	Kind  string // "lost" for those that found the ring full
	Count uint64
}

// ReadSightCounters returns the counts of every kind. Safe for concurrent use, also on a read-only pinned map.
func ReadSightCounters(m *ebpf.Map) ([]SightCount, error) {
	sums, err := readPerCPU(m)
	if err != nil {
		return nil, err
	}
	out := []SightCount{{"lost", sums[0].Packets}}
	for kind := SightARPRequest; int(kind) < len(sums); kind++ {
		out = append(out, SightCount{kind.String(), sums[kind].Packets})
	}
	return out, nil
}
