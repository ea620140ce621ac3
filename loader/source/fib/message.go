package fib

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"roam/loader/route"
)

// message is one route as the kernel describes it (rtnetlink(7)): integers in host order, addresses in wire order.
type message struct {
	family  uint8
	kind    uint8  // RTN_UNICAST …
	flags   uint32 // RTM_F_CLONED, RTNH_F_DEAD …
	tos     uint8
	sourced bool // for some source addresses only
	table   uint32
	metric  uint32
	prefix  netip.Prefix
	object  uint32 // nexthop object, 0 for none
	hops    []hop
}

// hop is one next hop: an address, or none where packets go out of an interface as they are.
type hop struct {
	addr   netip.Addr
	weight uint32 // 1 is one share; 0: the only one
	dead   bool
	encap  bool   // behind an encapsulation that is not understood
	id     uint64 // of a tunnel, 0 where it names none
	link   int32  // interface index, 0 where the message names none
	onlink bool   // the address is taken for a neighbour, whatever the interface's own addresses are
}

// nexthop is a nexthop object (ip-nexthop(8)): hops of its own, or a group of others.
type nexthop struct {
	hops      []hop
	blackhole bool
	group     []member
}

type member struct {
	id     uint32
	weight uint32
}

func (n nexthop) equal(o nexthop) bool {
	return n.blackhole == o.blackhole && slices.Equal(n.hops, o.hops) && slices.Equal(n.group, o.group)
}

// contains tells whether a group has one of the objects for a member.
func (n nexthop) contains(ids map[uint32]struct{}) bool {
	return slices.ContainsFunc(n.group, func(m member) bool { _, ok := ids[m.id]; return ok })
}

var errMalformed = errors.New("malformed netlink message")

// Attributes that x/sys does not name.
const (
	rtaNexthopID  = 30
	lwtunnelIP    = 2 // enum lwtunnel_encap_types
	lwtunnelIP6   = 4
	lwtunnelIPID  = 1 // enum lwtunnel_ip_t and lwtunnel_ip6_t
	lwtunnelIPDst = 2

	attrTypeMask = 0x3fff // without NLA_F_NESTED and NLA_F_NET_BYTEORDER
)

// attributes calls f for each attribute in b.
func attributes(b []byte, f func(kind uint16, value []byte) error) error {
	for len(b) >= unix.SizeofRtAttr {
		n := int(binary.NativeEndian.Uint16(b))
		if n < unix.SizeofRtAttr || n > len(b) {
			return errMalformed
		}
		if err := f(binary.NativeEndian.Uint16(b[2:])&attrTypeMask, b[unix.SizeofRtAttr:n]); err != nil {
			return err
		}
		b = b[min((n+3)&^3, len(b)):]
	}
	return nil
}

func decodeRoute(b []byte) (message, error) {
	if len(b) < unix.SizeofRtMsg {
		return message{}, errMalformed
	}
	m := message{
		family: b[0], sourced: b[2] != 0, tos: b[3], table: uint32(b[4]), kind: b[7],
		flags: binary.NativeEndian.Uint32(b[8:]),
	}
	length := int(b[1])
	addr := netip.IPv4Unspecified()
	if m.family == unix.AF_INET6 {
		addr = netip.IPv6Unspecified()
	}
	only := hop{dead: m.flags&unix.RTNH_F_DEAD != 0, onlink: m.flags&unix.RTNH_F_ONLINK != 0}
	gateway := false
	var encap lwtunnel
	err := attributes(b[unix.SizeofRtMsg:], func(kind uint16, v []byte) error {
		switch kind {
		case unix.RTA_DST:
			return address(v, &addr)
		case unix.RTA_GATEWAY:
			gateway = true
			return address(v, &only.addr)
		case unix.RTA_VIA:
			gateway = true
			return viaAddress(v, &only.addr)
		case unix.RTA_OIF:
			return index(v, &only.link)
		case unix.RTA_TABLE:
			return number(v, &m.table)
		case unix.RTA_PRIORITY:
			return number(v, &m.metric)
		case rtaNexthopID:
			return number(v, &m.object)
		case unix.RTA_MULTIPATH:
			return m.multipath(v)
		case unix.RTA_ENCAP_TYPE:
			return encap.kind(v)
		case unix.RTA_ENCAP:
			encap.value = v
		}
		return nil
	})
	if err != nil {
		return message{}, err
	}
	if err := encap.complete(&only); err != nil {
		return message{}, err
	}
	if m.hops == nil && (gateway || encap.set || m.object == 0) {
		m.hops = []hop{only}
	}
	m.prefix = netip.PrefixFrom(addr, length)
	if !m.prefix.IsValid() || addr.Is6() != (m.family == unix.AF_INET6) {
		return message{}, errMalformed
	}
	m.prefix = m.prefix.Masked()
	return m, nil
}

// multipath reads a chain of struct rtnexthop, each with attributes of its own.
func (m *message) multipath(b []byte) error {
	for len(b) >= unix.SizeofRtNexthop {
		n := int(binary.NativeEndian.Uint16(b))
		if n < unix.SizeofRtNexthop || n > len(b) {
			return errMalformed
		}
		h := hop{
			dead: b[2]&unix.RTNH_F_DEAD != 0, onlink: b[2]&unix.RTNH_F_ONLINK != 0, weight: uint32(b[3]) + 1,
			link: int32(binary.NativeEndian.Uint32(b[4:])),
		}
		var encap lwtunnel
		err := attributes(b[unix.SizeofRtNexthop:n], func(kind uint16, v []byte) error {
			switch kind {
			case unix.RTA_GATEWAY:
				return address(v, &h.addr)
			case unix.RTA_VIA:
				return viaAddress(v, &h.addr)
			case unix.RTA_ENCAP_TYPE:
				return encap.kind(v)
			case unix.RTA_ENCAP:
				encap.value = v
			}
			return nil
		})
		if err != nil {
			return err
		}
		if err := encap.complete(&h); err != nil {
			return err
		}
		m.hops = append(m.hops, h)
		b = b[min((n+3)&^3, len(b)):]
	}
	return nil
}

// decodeNexthop reads struct nhmsg and its attributes (linux/nexthop.h).
func decodeNexthop(b []byte) (id uint32, n nexthop, err error) {
	if len(b) < unix.SizeofNhmsg {
		return 0, nexthop{}, errMalformed
	}
	flags := binary.NativeEndian.Uint32(b[4:])
	only := hop{dead: flags&unix.RTNH_F_DEAD != 0, onlink: flags&unix.RTNH_F_ONLINK != 0}
	var encap lwtunnel
	err = attributes(b[unix.SizeofNhmsg:], func(kind uint16, v []byte) error {
		switch kind {
		case unix.NHA_ID:
			return number(v, &id)
		case unix.NHA_OIF:
			return index(v, &only.link)
		case unix.NHA_BLACKHOLE:
			n.blackhole = true
		case unix.NHA_GATEWAY:
			return address(v, &only.addr)
		case unix.NHA_ENCAP_TYPE:
			return encap.kind(v)
		case unix.NHA_ENCAP:
			encap.value = v
		case unix.NHA_GROUP:
			for ; len(v) >= unix.SizeofNexthopGrp; v = v[unix.SizeofNexthopGrp:] {
				n.group = append(n.group, member{
					id:     binary.NativeEndian.Uint32(v),
					weight: uint32(v[4]) + uint32(v[5])<<8 + 1, // one less than the weight; high byte from Linux 6.12
				})
			}
		}
		return nil
	})
	if err == nil {
		err = encap.complete(&only)
	}
	if n.group == nil && !n.blackhole {
		n.hops = []hop{only}
	}
	return id, n, err
}

func decodeLink(b []byte) (index int32, flags uint32, ok bool) {
	if len(b) < unix.SizeofIfInfomsg {
		return 0, 0, false
	}
	return int32(binary.NativeEndian.Uint32(b[4:])), binary.NativeEndian.Uint32(b[8:]), true
}

// lwtunnel is a light-weight tunnel on a next hop; of one that carries IP in IP the far end is the locator.
type lwtunnel struct {
	set   bool
	typ   uint16
	value []byte
}

func (l *lwtunnel) kind(v []byte) error {
	if len(v) < 2 {
		return errMalformed
	}
	l.set, l.typ = true, binary.NativeEndian.Uint16(v)
	return nil
}

func (l *lwtunnel) complete(h *hop) error {
	if !l.set || l.typ == nl.LWTUNNEL_ENCAP_NONE {
		return nil
	}
	if h.encap = l.typ != lwtunnelIP && l.typ != lwtunnelIP6; h.encap {
		return nil
	}
	return attributes(l.value, func(kind uint16, v []byte) error {
		switch {
		case kind == lwtunnelIPDst:
			return address(v, &h.addr)
		case kind == lwtunnelIPID && len(v) == 8:
			h.id = binary.BigEndian.Uint64(v)
		}
		return nil
	})
}

// decodeNeighbor reads struct ndmsg and its attributes. The MAC is zero where no routing daemon has told the kernel one.
func decodeNeighbor(b []byte) (n neighbor, mac route.MAC, err error) {
	if len(b) < unix.SizeofNdMsg {
		return n, mac, errMalformed
	}
	n.link = int32(binary.NativeEndian.Uint32(b[4:]))
	told := b[10]&unix.NTF_EXT_LEARNED != 0
	err = attributes(b[unix.SizeofNdMsg:], func(kind uint16, v []byte) error {
		switch {
		case kind == unix.NDA_DST:
			return address(v, &n.addr)
		case kind == unix.NDA_LLADDR && told && len(v) == len(mac):
			mac = route.MAC(v)
		}
		return nil
	})
	return n, mac, err
}

func address(v []byte, to *netip.Addr) error {
	a, ok := netip.AddrFromSlice(v)
	if !ok {
		return errMalformed
	}
	*to = a
	return nil
}

// viaAddress reads struct rtvia: a family and an address of it.
func viaAddress(v []byte, to *netip.Addr) error {
	if len(v) < 2 {
		return errMalformed
	}
	return address(v[2:], to)
}

func index(v []byte, to *int32) error {
	var n uint32
	err := number(v, &n)
	*to = int32(n)
	return err
}

func number(v []byte, to *uint32) error {
	if len(v) < 4 {
		return errMalformed
	}
	*to = binary.NativeEndian.Uint32(v)
	return nil
}
