package designate

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"time"

	"golang.org/x/net/bpf"

	"roam/loader/route"
)

// Note is what a hello tells people, and what a misconfiguration shows by.
type Note struct {
	Site       string
	Address    netip.Addr // of this gateway alone on the segment, not valid where it has none
	GatewayMAC route.MAC  // that all share
}

// A hello, behind the Ethernet header; big endian. No switch keeps a group address of this kind to itself, and no host reads it.
//
//	 0  magic "ROAM"
//	 4  version 1
//	 5  flags: bit 0, designated
//	 6  rank
//	 7  priority
//	 8  VNI of the tenant, 32 bits: what is of another one on this LAN is another segment's
//	12  hold time in ms, 16 bits
//	14  length of the site's name
//	15  0
//	16  gateway MAC
//	22  own address, 16 bytes, IPv4 as ::ffff:a.b.c.d, :: for none
//	38  the site's name
//
// Who says it is the source address of the frame.
const (
	etherType = 0x88b5 // IEEE 802, Local Experimental EtherType 1
	magic     = 0x524f414d
	version   = 1

	flagDesignated = 1

	header    = 14
	fixed     = 38
	least     = 60 // bytes that Ethernet carries, without its checksum
	longest   = header + fixed + 255
	maxHoldMS = 0xffff
)

var (
	everyGateway = route.MAC{0x03, 'R', 'O', 'A', 'M', 0x01}

	errNoHello = errors.New("not a hello for this segment")
)

// frame is a hello as it travels. A site's name has at most 63 bytes.
func (h *Hello) frame(vni uint32) []byte {
	b := make([]byte, 0, longest)
	b = append(append(b, everyGateway[:]...), h.MAC[:]...)
	b = binary.BigEndian.AppendUint16(b, etherType)
	b = binary.BigEndian.AppendUint32(b, magic)
	flags := byte(0)
	if h.Designated {
		flags |= flagDesignated
	}
	b = append(b, version, flags, byte(h.Rank), h.Priority)
	b = binary.BigEndian.AppendUint32(b, vni)
	b = binary.BigEndian.AppendUint16(b, uint16(min(h.Hold.Milliseconds(), maxHoldMS)))
	b = append(b, byte(len(h.Note.Site)), 0)
	b = append(b, h.Note.GatewayMAC[:]...)
	address := netip.IPv6Unspecified().As16()
	if h.Note.Address.IsValid() {
		address = h.Note.Address.As16()
	}
	b = append(append(b, address[:]...), h.Note.Site...)
	return append(b, make([]byte, max(0, least-len(b)))...)
}

// parse reads a frame.
func parse(b []byte, vni uint32) (h Hello, err error) {
	if len(b) < header+fixed || binary.BigEndian.Uint16(b[12:]) != etherType || b[6]&1 != 0 {
		return h, errNoHello
	}
	h.MAC = route.MAC(b[6:12])
	b = b[header:]
	site := int(b[14])
	switch {
	case binary.BigEndian.Uint32(b) != magic, b[4] != version, binary.BigEndian.Uint32(b[8:]) != vni, len(b) < fixed+site:
		return h, errNoHello
	}
	h.Designated, h.Rank, h.Priority = b[5]&flagDesignated != 0, Rank(b[6]), b[7]
	h.Hold = time.Duration(binary.BigEndian.Uint16(b[12:])) * time.Millisecond
	h.Note = Note{Site: string(b[fixed : fixed+site]), GatewayMAC: route.MAC(b[16:22])}
	if a := netip.AddrFrom16([16]byte(b[22:])).Unmap(); !a.IsUnspecified() {
		h.Note.Address = a
	}
	if h.Hold == 0 || h.Rank > Ready {
		return h, errNoHello
	}
	return h, nil
}

// hellos lets frames in that begin with the magic.
var hellos = func() []bpf.RawInstruction {
	program, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: header, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: magic, SkipFalse: 1},
		bpf.RetConstant{Val: longest},
		bpf.RetConstant{Val: 0},
	})
	if err != nil {
		panic(err) // it is a constant
	}
	return program
}()
