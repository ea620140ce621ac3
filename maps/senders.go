package maps

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// Senders tells when a host was last heard to send, from the words by which the data path knows whom it has looked up (seen_lately in
// bpf/sight.h). It writes them anyway, so that knowing costs it nothing; the price is that they count in jiffies, of which user space knows
// neither the number nor the length: a program of two instructions is asked for the one, and two looks at it give the other.
//
// Safe for concurrent use.
type Senders struct {
	jiffies *ebpf.Program
	first   uint32
	opened  time.Time
}

const (
	moment  = 16      // jiffies
	moments = 1 << 20 // that a word tells apart: 18 hours at 250 Hz

	leastWatch = time.Second // to know how long a jiffy is
)

// OpenSenders begins to watch the clock: Last knows nothing for a second.
func OpenSenders() (*Senders, error) {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "jiffies", Type: ebpf.SocketFilter, License: "BSD",
		Instructions: asm.Instructions{asm.FnJiffies64.Call(), asm.Return()},
	})
	if err != nil {
		return nil, fmt.Errorf("read the kernel's jiffies: %w", err)
	}
	s := &Senders{jiffies: p}
	if s.first, s.opened, err = s.look(); err != nil {
		_ = p.Close()
		return nil, err
	}
	return s, nil
}

// Close lets go of the clock.
func (s *Senders) Close() error { return s.jiffies.Close() }

// look returns the low half of the kernel's jiffies, and when that was.
func (s *Senders) look() (uint32, time.Time, error) {
	n, _, err := s.jiffies.Test(make([]byte, 14)) // the kernel wants an Ethernet header's length
	if err != nil {
		return 0, time.Time{}, fmt.Errorf("read the kernel's jiffies: %w", err)
	}
	return n, time.Now(), nil
}

// Last is when an address last sent a packet on an access port, within eight jiffies; false if that is not known: another sender's word has
// taken the place of its own, or it was hours ago.
func (s *Senders) Last(o *Objects, space uint16, addr netip.Addr) (time.Time, bool, error) {
	hash, err := senderHash(o, space, addr)
	if err != nil {
		return time.Time{}, false, err
	}
	var word uint64
	if err := o.Seen.Lookup(uint32(hash>>32)%o.Seen.MaxEntries(), &word); err != nil {
		return time.Time{}, false, fmt.Errorf("read who was looked up: %w", err)
	}
	now, at, err := s.look()
	if err != nil || word>>20 != hash&(1<<44-1) || at.Sub(s.opened) < leastWatch {
		return time.Time{}, false, err
	}
	jiffy := float64(at.Sub(s.opened)) / float64(now-s.first)
	ago := (now/moment - uint32(word)) % moments
	return at.Add(-time.Duration(max(0, float64(ago*moment+now%moment)-moment/2) * jiffy)), true, nil
}

// senderHash is what the data path makes of a sender: see seen_lately.
func senderHash(o *Objects, space uint16, addr netip.Addr) (uint64, error) {
	who := uint64(space) << 32
	if addr.Is4() {
		a := addr.As4()
		return (who | uint64(binary.BigEndian.Uint32(a[:]))) * mix1, nil
	}
	h, err := readHeader6(o.Hosts6)
	if err != nil {
		return 0, err
	}
	a := addr.As16()
	who = who<<20 ^ binary.NativeEndian.Uint64(a[:8])
	who = (who+h.Seed[0])*(h.Seed[1]|1) + binary.NativeEndian.Uint64(a[8:])
	return (who ^ who>>32) * mix1, nil
}
