package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"roam/lab"
)

// wire sends packets to hosts, and sees in which tunnels they come out: what the data path does, whatever its control plane says.
//
// Go is kept out of what is measured. Packets leave at a steady pace from a thread that the kernel wakes by its clock, before others: a goroutine
// that sleeps for 100 µs may wake after a millisecond. They are looked at where they arrive, in the kernel, by a filter that notes when the first one
// came out of another tunnel and lets none through: nobody has to wake for a time to be taken. So what is measured is too long by one pace at the
// most, and by the packet's own way.
type wire struct {
	from    int // UDP socket of who asks, -1 before ask
	capture int // packet socket at the other end, for its filter alone
	filter  *ebpf.Program
	seen    *ebpf.Map // IPv4 address of a host, as it is in packets: sighting
}

// sighting is the last tunnel that a packet to a host came out of.
type sighting struct {
	Locator [4]byte
	_       uint32
	First   int64 // ns of the monotonic clock: since then, without another between
}

const (
	pace      = 100 * time.Microsecond // of packets to one host
	burst     = 128                    // packets at once, to many: a cable's end queues 256
	burstRest = 100 * time.Microsecond // from one to the next
	longRest  = 5 * time.Millisecond   // after a second: nobody needs a rate of 600,000 to wait for
)

// openWire watches what arrives at a namespace's wan0.
func openWire(at *lab.Namespace) (w *wire, err error) {
	runtime.GOMAXPROCS(runtime.NumCPU() + 1) // the thread that sends holds on to one
	w = &wire{from: -1, capture: -1}
	defer func() {
		if err != nil {
			w.close()
		}
	}()
	w.seen, err = ebpf.NewMap(&ebpf.MapSpec{Name: "seen", Type: ebpf.Hash, KeySize: 4, ValueSize: 16, MaxEntries: 1 << 16})
	if err != nil {
		return nil, fmt.Errorf("capture: %w", err)
	}
	w.filter, err = ebpf.NewProgram(&ebpf.ProgramSpec{Name: "note", Type: ebpf.SocketFilter, License: "GPL", Instructions: note(w.seen)})
	if err != nil {
		return nil, fmt.Errorf("capture: %w", err)
	}
	err = at.Do(func() error {
		link, err := net.InterfaceByName("wan0")
		if err != nil {
			return err
		}
		if w.capture, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		if err := unix.SetsockoptInt(w.capture, unix.SOL_SOCKET, unix.SO_ATTACH_BPF, w.filter.FD()); err != nil {
			return err
		}
		ip := binary.NativeEndian.Uint16([]byte{unix.ETH_P_IP >> 8, unix.ETH_P_IP & 0xff})
		return unix.Bind(w.capture, &unix.SockaddrLinklayer{Protocol: ip, Ifindex: link.Index})
	})
	if err != nil {
		return nil, fmt.Errorf("capture: %w", err)
	}
	return w, nil
}

// note is the filter. It takes the tunnel packets that arrive: Ethernet, IPv4, UDP, VXLAN, Ethernet, IPv4.
func note(seen *ebpf.Map) asm.Instructions {
	const outer, tunnel, inner = 14, 14 + 20, 14 + 20 + 8 + 8 + 14
	is := func(offset int32, size asm.Size, value int32) asm.Instructions {
		return asm.Instructions{asm.LoadAbs(offset, size), asm.JNE.Imm(asm.R0, value, "out")}
	}
	program := asm.Instructions{asm.Mov.Reg(asm.R6, asm.R1)}
	program = append(program, is(outer, asm.Byte, 0x45)...)
	program = append(program, is(outer+9, asm.Byte, unix.IPPROTO_UDP)...)
	program = append(program, is(tunnel+2, asm.Half, 4789)...)
	program = append(program, is(inner, asm.Byte, 0x45)...)
	return append(program,
		asm.LoadAbs(outer+16, asm.Word),
		asm.HostTo(asm.BE, asm.R0, asm.Word),
		asm.Mov.Reg(asm.R7, asm.R0),
		asm.LoadAbs(inner+16, asm.Word),
		asm.HostTo(asm.BE, asm.R0, asm.Word),
		asm.StoreMem(asm.RFP, -4, asm.R0, asm.Word),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -4),
		asm.LoadMapPtr(asm.R1, seen.FD()),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "other"),
		asm.LoadMem(asm.R1, asm.R0, 0, asm.Word),
		asm.JEq.Reg(asm.R1, asm.R7, "out"),
		asm.FnKtimeGetNs.Call().WithSymbol("other"),
		asm.StoreMem(asm.RFP, -16, asm.R0, asm.DWord),
		asm.StoreMem(asm.RFP, -24, asm.R7, asm.DWord),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -4),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, -24),
		asm.Mov.Imm(asm.R4, 0),
		asm.LoadMapPtr(asm.R1, seen.FD()),
		asm.FnMapUpdateElem.Call(),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("out"),
		asm.Return(),
	)
}

func (w *wire) close() {
	_ = closeSocket(w.capture)
	_ = closeSocket(w.from)
	_ = w.filter.Close() // nil where there is none
	_ = w.seen.Close()
}

func closeSocket(fd int) error {
	if fd < 0 {
		return nil
	}
	return unix.Close(fd)
}

// ask has a host send what follows, and forgets what was seen of another's packets.
func (w *wire) ask(from *lab.Host) error {
	_ = closeSocket(w.from)
	var known []netip.Addr
	var host [4]byte
	var was sighting
	for each := w.seen.Iterate(); each.Next(&host, &was); {
		known = append(known, netip.AddrFrom4(host))
	}
	for _, h := range known {
		if err := w.seen.Delete(h.As4()); err != nil {
			return fmt.Errorf("forget what was seen: %w", err)
		}
	}
	return from.Do(func() (err error) {
		w.from, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		return err
	})
}

// timed does something, while packets to all of the hosts are sent, and returns how many seconds after its beginning they come out of tunnels to a
// locator.
func (w *wire) timed(hosts []netip.Addr, locator netip.Addr, do func() error) (float64, error) {
	p := &prober{wire: w, left: hosts, locator: locator, begun: make(chan struct{}), ended: make(chan error, 1)}
	go p.run()
	<-p.begun
	start := monotonic()
	if err := do(); err != nil {
		p.stop.Store(true)
		return 0, errors.Join(err, <-p.ended)
	}
	err := <-p.ended
	return float64(p.last-start) / 1e9, err
}

// prober sends to hosts until all of them are behind a locator.
type prober struct {
	*wire
	left    []netip.Addr
	locator netip.Addr
	last    int64         // when the last of those that have left came out right
	begun   chan struct{} // closed when the first packets are under way
	ended   chan error
	stop    atomic.Bool
}

// run has a thread of its own, and gives it back: processes of the lab end with the thread that started them. Who sends to one host goes before
// others, and needs a fifth of a processor; who sends to many would leave them nothing.
func (p *prober) run() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	begin := sync.OnceFunc(func() { close(p.begun) })
	defer begin()
	rest := burstRest
	if len(p.left) == 1 {
		rest = pace
		if err := prompt(0); err != nil {
			p.ended <- err
			return
		}
	}
	err := p.probe(rest, begin)
	p.ended <- errors.Join(err, ordinary(0))
}

func (p *prober) probe(rest time.Duration, begin func()) error {
	start := monotonic()
	for next := start; len(p.left) > 0 && !p.stop.Load(); {
		if err := p.send(p.left[:min(burst, len(p.left))]); err != nil {
			return err
		}
		begin()
		if err := p.look(); err != nil {
			return err
		}
		now := monotonic()
		switch since := time.Duration(now - start); {
		case since > bgpLimit:
			return fmt.Errorf("%d hosts, among them %s, are not behind %s within %v", len(p.left), p.left[:min(1, len(p.left))], p.locator, bgpLimit)
		case since > time.Second:
			time.Sleep(longRest)
		case rest != pace:
			time.Sleep(rest)
		default:
			next = max(next+int64(pace), now+int64(pace)/2)
			sleepUntil(next)
		}
	}
	return nil
}

// look takes out who is where he should be.
func (p *prober) look() error {
	for len(p.left) > 0 {
		var s sighting
		err := p.seen.Lookup(p.left[0].As4(), &s)
		switch {
		case errors.Is(err, ebpf.ErrKeyNotExist):
			return nil
		case err != nil:
			return fmt.Errorf("read what was seen: %w", err)
		case s.Locator != p.locator.As4():
			return nil
		}
		p.last = max(p.last, s.First)
		p.left = p.left[1:]
	}
	return nil
}

func monotonic() int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		panic("read the monotonic clock: " + err.Error()) // every kernel has it
	}
	return t.Nano()
}

// sleepUntil waits in the kernel, without a word to Go's scheduler: that would give the place of this thread away, and who comes back waits for one. It may
// return early.
func sleepUntil(at int64) {
	t := unix.NsecToTimespec(at)
	_, _, _ = unix.RawSyscall6(unix.SYS_CLOCK_NANOSLEEP, unix.CLOCK_MONOTONIC, unix.TIMER_ABSTIME, uintptr(unsafe.Pointer(&t)), 0, 0, 0)
}

// send sends a packet to each host.
func (w *wire) send(hosts []netip.Addr) error {
	for _, h := range hosts {
		err := unix.Sendto(w.from, []byte("roam"), 0, &unix.SockaddrInet4{Port: 9, Addr: h.As4()})
		if err != nil && !errors.Is(err, unix.EHOSTUNREACH) && !errors.Is(err, unix.ENETUNREACH) && !errors.Is(err, unix.ECONNREFUSED) {
			return fmt.Errorf("send to %s: %w", h, err)
		}
	}
	return nil
}
