package datapath

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// pathMTUs is what routers of the underlay said of the ways to locators: "fragmentation needed" (RFC 1191) and "packet too big"
// (RFC 8201) about tunnel packets of ours. The kernel does not learn from them, as the packets were not its own.
//
// A word counts only if it quotes a packet from a tunnel end of ours to one that we send to, and lowers what is believed. It is
// forgotten after pathMTUAge, when the way may have changed; what is still too large is reported again.
//
// Safe for concurrent use.
type pathMTUs struct {
	now func() time.Time

	mu      sync.Mutex
	lowered map[netip.Addr]pathMTU
}

type pathMTU struct {
	mtu   int // of the underlay
	until time.Time
}

const (
	pathMTUAge = 10 * time.Minute // RFC 1191, section 6.3; RFC 8201, section 4
	leastMTU4  = 576              // RFC 791: every host takes that; RFC 1191 allows 68, which only an attacker would mean
	leastMTU6  = 1280             // RFC 8200, section 5
)

func newPathMTUs() *pathMTUs {
	return &pathMTUs{now: time.Now, lowered: map[netip.Addr]pathMTU{}}
}

// limit is what fits on the way to a locator where the interface and its route say mtu.
func (m *pathMTUs) limit(locator netip.Addr, mtu int) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	p, ok := m.lowered[locator]
	if ok && m.now().After(p.until) {
		delete(m.lowered, locator)
		return mtu
	}
	if ok {
		return min(mtu, p.mtu)
	}
	return mtu
}

// lower believes a router, and reports whether that changed anything.
func (m *pathMTUs) lower(locator netip.Addr, mtu int) bool {
	least := leastMTU6
	if locator.Is4() {
		least = leastMTU4
	}
	if mtu < least {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	p, ok := m.lowered[locator]
	if ok && mtu > p.mtu && m.now().Before(p.until) {
		return false
	}
	m.lowered[locator] = pathMTU{mtu: mtu, until: m.now().Add(pathMTUAge)}
	return !ok || mtu != p.mtu
}

// forget takes back what was said of the way to a locator, and reports whether anything was.
func (m *pathMTUs) forget(locator netip.Addr) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.lowered[locator]
	delete(m.lowered, locator)
	return ok
}

// tooBig is one router's word: the packet from local to remote was larger than mtu.
type tooBig struct {
	local, remote netip.Addr
	mtu           int
}

const (
	icmpUnreachable = 3
	icmpFragNeeded  = 4
	icmp6TooBig     = 2
	icmpQuote       = 8 // of the message in front of the quoted packet
)

// parseTooBig4 reads an ICMP message; false is every other, and one that is damaged.
func parseTooBig4(b []byte) (tooBig, bool) {
	if len(b) < icmpQuote+ipv4Len || b[0] != icmpUnreachable || b[1] != icmpFragNeeded || folded(b) != 0xffff {
		return tooBig{}, false
	}
	ip := b[icmpQuote:]
	if ip[0]>>4 != 4 || !carriesTunnel(ip[9]) {
		return tooBig{}, false
	}
	local, remote := netip.AddrFrom4([4]byte(ip[12:16])), netip.AddrFrom4([4]byte(ip[16:20]))
	return tooBig{local, remote, int(binary.BigEndian.Uint16(b[6:]))}, true
}

// parseTooBig6 reads an ICMPv6 message, whose checksum the kernel has seen.
func parseTooBig6(b []byte) (tooBig, bool) {
	if len(b) < icmpQuote+ipv6Len || b[0] != icmp6TooBig {
		return tooBig{}, false
	}
	ip := b[icmpQuote:]
	if ip[0]>>4 != 6 || !carriesTunnel(ip[6]) {
		return tooBig{}, false
	}
	local, remote := netip.AddrFrom16([16]byte(ip[8:24])), netip.AddrFrom16([16]byte(ip[24:40]))
	return tooBig{local, remote, int(min(binary.BigEndian.Uint32(b[4:]), 0xffff))}, true
}

// folded is the Internet checksum over b, itself included: 0xffff where it is right.
func folded(b []byte) uint32 {
	s := sum(append(append([]byte(nil), b...), make([]byte, len(b)&1)...))
	s = s&0xffff + s>>16
	return s&0xffff + s>>16
}

func carriesTunnel(proto byte) bool {
	return proto == protoUDP || proto == protoGRE || proto == protoIPv4 || proto == protoIPv6
}

// listen hears what routers say until ctx ends. Where a family cannot be heard it says so; the other goes on.
func (m *pathMTUs) listen(ctx context.Context, heard func(from netip.Addr, word tooBig), failed func(error)) {
	var readers sync.WaitGroup
	for _, family := range []struct {
		network string
		parse   func([]byte) (tooBig, bool)
		filter  func(fd int) error
	}{{"ip4:icmp", parseTooBig4, onlyUnreachable}, {"ip6:ipv6-icmp", parseTooBig6, onlyTooBig}} {
		conn, err := net.ListenPacket(family.network, "")
		if err != nil {
			failed(fmt.Errorf("hear what routers say of packet sizes: %w", err))
			continue
		}
		if err := control(conn.(*net.IPConn), family.filter); err != nil {
			failed(fmt.Errorf("filter what routers say: %w", err)) // more to read, nothing worse
		}
		stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
		readers.Go(func() {
			defer stop()
			b := make([]byte, 2048)
			for {
				n, from, err := conn.ReadFrom(b)
				if ctx.Err() != nil {
					return
				}
				if err != nil {
					failed(fmt.Errorf("hear what routers say of packet sizes: %w", err))
					return
				}
				if word, ok := family.parse(b[:n]); ok {
					router, _ := netip.AddrFromSlice(from.(*net.IPAddr).IP)
					heard(router.Unmap(), word)
				}
			}
		})
	}
	readers.Wait()
}

func control(conn *net.IPConn, set func(fd int) error) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = set(int(fd)) }); err != nil {
		return err
	}
	return failed
}

// Socket filters of raw(7) and icmpv6(7): a set bit blocks a type.
func onlyUnreachable(fd int) error {
	const icmpFilter = 1
	return unix.SetsockoptInt(fd, unix.SOL_RAW, icmpFilter, ^(1 << icmpUnreachable))
}

func onlyTooBig(fd int) error {
	var f unix.ICMPv6Filter
	for i := range f.Data {
		f.Data[i] = 0xffffffff
	}
	f.Data[0] &^= 1 << icmp6TooBig
	return unix.SetsockoptICMPv6Filter(fd, unix.SOL_ICMPV6, unix.ICMPV6_FILTER, &f)
}

// hearTooBig takes a router's word if it is about a packet of ours.
func (g *Gateway) hearTooBig(from netip.Addr, word tooBig) {
	g.mu.Lock()
	ours := g.table.own[word.local]
	g.mu.Unlock()
	state, known := g.underlay.state(word.remote)
	if !ours || !known || !state.Up {
		return
	}
	if word.mtu < state.pathMTU && g.paths.lower(word.remote, word.mtu) {
		g.log.Info("the underlay carries less to a locator", "locator", word.remote, "mtu", word.mtu, "says", from)
		g.underlay.kick()
	}
}
