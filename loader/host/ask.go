package host

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"roam/loader/route"
)

// asker asks one station whether it has an address, and hears what it answers: an ARP request or a neighbour solicitation to
// nobody but that station, from the gateway's own address (a request from 0.0.0.0 would be taken for a search for duplicates). The kernel asks
// everybody, keeps whoever answers first, and takes seconds to give up.
//
// Its sockets belong to the namespace of the thread that asks. One goroutine calls ask and close.
type asker struct {
	log     *slog.Logger
	answers chan heard
	end     chan struct{}
	conns   map[int]*conns // by interface index
}

// answer is that a station says it has an address.
type answer struct {
	entry
	mac route.MAC
}

// heard is an answer, when it came, and whether it is one to a question rather than an announcement.
type heard struct {
	answer
	at        time.Time
	solicited bool
}

type conns struct {
	arp, nd *packet.Conn
	mac     net.HardwareAddr
}

var errNoOwnAddress = errors.New("the gateway has no own address of this family on the segment to ask from")

func newAsker(log *slog.Logger) *asker {
	return &asker{log: log, answers: make(chan heard, queue), end: make(chan struct{}), conns: make(map[int]*conns)}
}

func (a *asker) close() {
	close(a.end)
	for link := range a.conns {
		a.drop(link)
	}
}

// broadcast for a holder asks everybody.
var broadcast = route.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// ask sends one question. An error says that there will be no answer.
func (a *asker) ask(p *port, e entry, holder route.MAC) error {
	i := slices.IndexFunc(p.Own, func(own netip.Addr) bool { return own.Is4() == e.addr.Is4() && !own.IsLinkLocalUnicast() })
	if i < 0 {
		return errNoOwnAddress
	}
	c, err := a.on(e.link)
	if err != nil {
		return err
	}
	conn, frame := c.arp, arpQuestion
	if e.addr.Is6() {
		conn, frame = c.nd, ndQuestion
	}
	if _, err = conn.WriteTo(frame(c.mac, holder, p.Own[i], e.addr), &packet.Addr{HardwareAddr: holder[:]}); err != nil {
		a.drop(e.link) // the interface went down or changed: the next question opens it anew
	}
	return err
}

// on returns the sockets of an interface.
func (a *asker) on(link int) (*conns, error) {
	if c, ok := a.conns[link]; ok {
		return c, nil
	}
	nic, err := net.InterfaceByIndex(link)
	if err != nil {
		return nil, fmt.Errorf("interface %d: %w", link, err)
	}
	c := &conns{mac: nic.HardwareAddr}
	if c.arp, err = listen(nic, unix.ETH_P_ARP, arpOp, arpReply); err != nil {
		return nil, err
	}
	if c.nd, err = listen(nic, unix.ETH_P_IPV6, ndType, ndAdvert); err != nil {
		c.arp.Close()
		return nil, err
	}
	a.conns[link] = c
	go a.hear(link, c.arp, arpAnswer)
	go a.hear(link, c.nd, ndAnswer)
	return c, nil
}

func (a *asker) drop(link int) {
	c := a.conns[link]
	delete(a.conns, link)
	c.arp.Close()
	c.nd.Close()
}

func (a *asker) hear(link int, conn *packet.Conn, decode func([]byte) (answer heard, ok bool)) {
	b := make([]byte, 128) // of longer frames the rest is of no interest
	for {
		n, _, err := conn.ReadFrom(b)
		if err != nil {
			return
		}
		h, ok := decode(b[:n])
		if !ok {
			continue
		}
		h.link, h.at = link, time.Now()
		select {
		case a.answers <- h:
		case <-a.end:
			return
		}
	}
}

// Where the frames have what is looked at, counted from the Ethernet header.
const (
	ethernet = 14
	arpOp    = ethernet + 7 // its low byte
	arpReply = 2
	arpLen   = ethernet + 28
	ndType   = ethernet + 40
	ndAdvert = 136
	ndLen    = ndType + 24
	ndOption = 2 // target link-layer address

	ndSolicited = 0x40 // of the flags
)

// listen opens a socket that hears frames with this byte at this offset only; of IPv6 only ICMPv6.
func listen(nic *net.Interface, protocol, offset int, value uint32) (*packet.Conn, error) {
	program := []bpf.Instruction{
		bpf.LoadAbsolute{Off: uint32(offset), Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: value, SkipFalse: 1},
		bpf.RetConstant{Val: 128},
		bpf.RetConstant{Val: 0},
	}
	if protocol == unix.ETH_P_IPV6 {
		program = append([]bpf.Instruction{
			bpf.LoadAbsolute{Off: ethernet + 6, Size: 1},
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.IPPROTO_ICMPV6, SkipFalse: 3},
		}, program...)
	}
	raw, err := bpf.Assemble(program)
	if err != nil {
		return nil, err
	}
	return packet.Listen(nic, packet.Raw, protocol, &packet.Config{Filter: raw})
}

// arpQuestion is an ARP request (RFC 826) to one station.
func arpQuestion(ours net.HardwareAddr, holder route.MAC, own, addr netip.Addr) []byte {
	b := append(append(make([]byte, 0, 60), holder[:]...), ours...)
	b = append(b, 0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1)
	b = append(append(b, ours...), own.AsSlice()...)
	b = append(append(b, make([]byte, 6)...), addr.AsSlice()...)
	return b[:60] // the least that Ethernet carries
}

func arpAnswer(b []byte) (h heard, ok bool) {
	if len(b) < arpLen || binary.BigEndian.Uint32(b[ethernet:]) != 0x0001_0800 {
		return h, false
	}
	h.addr, h.mac = netip.AddrFrom4([4]byte(b[ethernet+14:])), route.MAC(b[ethernet+8:ethernet+14])
	h.solicited = h.addr != netip.AddrFrom4([4]byte(b[ethernet+24:]))
	return h, true
}

// ndQuestion is a neighbour solicitation to one station, as when its reachability is confirmed, or to the group of all that may have the
// address (RFC 4861, section 7.2.2; RFC 4291, section 2.7.1).
func ndQuestion(ours net.HardwareAddr, holder route.MAC, own, addr netip.Addr) []byte {
	to := addr
	if holder == broadcast {
		low := addr.As16()
		group := [16]byte{0xff, 2, 11: 1, 12: 0xff, 13: low[13], 14: low[14], 15: low[15]}
		to, holder = netip.AddrFrom16(group), route.MAC{0x33, 0x33, 0xff, low[13], low[14], low[15]}
	}
	body := append(make([]byte, 4, 28), addr.AsSlice()...)
	body = append(append(body, 1, 1), ours...) // source link-layer address
	message := icmp.Message{Type: ipv6.ICMPTypeNeighborSolicitation, Body: &icmp.RawBody{Data: body}}
	text, _ := message.Marshal(icmp.IPv6PseudoHeader(own.AsSlice(), to.AsSlice())) // fails for bodies it has to make itself
	b := append(append(make([]byte, 0, ethernet+40+len(text)), holder[:]...), ours...)
	b = append(b, 0x86, 0xdd, 0x60, 0, 0, 0, 0, byte(len(text)), unix.IPPROTO_ICMPV6, 255)
	b = append(append(b, own.AsSlice()...), to.AsSlice()...)
	return append(b, text...)
}

func ndAnswer(b []byte) (h heard, ok bool) {
	if len(b) < ndLen || b[ethernet+7] != 255 {
		return h, false
	}
	h.addr, h.mac = netip.AddrFrom16([16]byte(b[ndType+8:])), route.MAC(b[6:12])
	if len(b) >= ndLen+8 && b[ndLen] == ndOption && b[ndLen+1] == 1 {
		h.mac = route.MAC(b[ndLen+2 : ndLen+8])
	}
	h.solicited = b[ndType+4]&ndSolicited != 0
	return h, true
}
