package bpftest

import (
	"encoding/binary"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

// encapsulation is a way to carry a packet to a locator. Its headers are made here by gopacket's layers, where there are
// such, and by hand from the document named where there are none; the model (model_tunnel_test.go) makes them once more.
type encapsulation int

const (
	encVXLAN encapsulation = iota
	encGPE
	encGeneve
	encGeneveEthernet
	encGRE
	encGREKey
	encIP
	encGUE
	encLISP
	encapsulations
)

var encapsulationNames = [encapsulations]string{
	"VXLAN", "VXLAN-GPE", "Geneve", "Geneve, Ethernet", "GRE", "GRE, key", "IP in IP", "GUE", "LISP",
}

func (e encapsulation) String() string { return encapsulationNames[e] }

func everyEncapsulation() (list []encapsulation) {
	for e := range encapsulations {
		list = append(list, e)
	}
	return list
}

// udpPort is where the encapsulation arrives, 0 for one without UDP.
func (e encapsulation) udpPort() uint16 {
	return [encapsulations]uint16{encVXLAN: 4789, encGPE: 4790, encGeneve: 6081, encGeneveEthernet: 6081, encGUE: 6080, encLISP: 4341}[e]
}

// hasVNI says whether a header field names the tenant.
func (e encapsulation) hasVNI() bool { return e != encGRE && e != encIP && e != encGUE }

// protocol is the outer IP header's, over a packet of this family.
func (e encapsulation) protocol(inner family) uint8 {
	switch {
	case e.udpPort() != 0:
		return 17
	case e == encIP:
		return inner.protocol()
	}
	return 47
}

func (f family) protocol() uint8   { return [...]uint8{4, 41}[f] }
func (f family) ethertype() uint16 { return [...]uint16{0x0800, 0x86dd}[f] }
func (f family) header() int       { return [...]int{20, 40}[f] }

func familyOf(ethertype uint16) family {
	if ethertype == 0x86dd {
		return v6
	}
	return v4
}

// kindAt is where the field that tells IPv4 from IPv6 inside lies, counted from the end of the headers, and its size.
// The sizes are 0 where nothing tells but the packet itself.
func (e encapsulation) kindAt() (back, size int) {
	switch e {
	case encVXLAN, encGeneveEthernet:
		return 2, 2
	case encGPE:
		return 5, 1
	case encGeneve:
		return 6, 2
	case encGRE:
		return 2, 2
	case encGREKey:
		return 6, 2
	case encGUE:
		return 3, 1
	}
	return 0, 0
}

// shim is everything between the outer IP or UDP header and the packet inside.
func (e encapsulation) shim(vni uint32, dst, src mac, inner family) []byte {
	kind := inner.ethertype()
	switch e {
	case encVXLAN:
		return vxlan(vni, dst, src, nil, kind)
	case encGPE: // draft-ietf-nvo3-vxlan-gpe, section 3
		return binary.BigEndian.AppendUint32([]byte{0x0c, 0, 0, byte(1 + inner)}, vni<<8)
	case encGeneve:
		return serialize(gopacket.SerializeOptions{}, &layers.Geneve{Protocol: layers.EthernetType(kind), VNI: vni})
	case encGeneveEthernet:
		b := serialize(gopacket.SerializeOptions{}, &layers.Geneve{Protocol: 0x6558, VNI: vni})
		return append(b, ethernetHeader(dst, src, kind)...)
	case encGRE:
		return serialize(gopacket.SerializeOptions{}, &layers.GRE{Protocol: layers.EthernetType(kind)})
	case encGREKey:
		return serialize(gopacket.SerializeOptions{}, &layers.GRE{Protocol: layers.EthernetType(kind), KeyPresent: true, Key: vni})
	case encGUE:
		return serialize(gopacket.SerializeOptions{}, &layers.AGUEVar0{Protocol: layers.IPProtocol(inner.protocol())})
	case encLISP: // RFC 9300, section 5.1: I, no nonce
		return binary.BigEndian.AppendUint32([]byte{0x08, 0, 0, 0}, vni<<8)
	}
	return nil
}

// vxlan makes VXLAN's header, inner Ethernet header and content.
func vxlan(vni uint32, dst, src mac, inner []byte, ethertype uint16) []byte {
	b := serialize(gopacket.SerializeOptions{}, &layers.VXLAN{ValidIDFlag: true, VNI: vni})
	b = append(b, ethernetHeader(dst, src, ethertype)...)
	return append(b, inner...)
}

// around is what must leave for the tunnel: every header of it made by gopacket, every length and checksum anew.
func (t tunnel) around(inner []byte, ethertype uint16, tos, ttl uint8, source uint16, label uint32) []byte {
	f := familyOf(ethertype)
	body := append(t.enc.shim(t.vni, t.innerDst, t.innerSrc, f), inner...)
	if port := t.udpPort(); port != 0 {
		body = udp(t.local, t.remote, source, port, body, t.checksum)
	}
	fix := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	outer := serialize(fix, outerIP(t, t.enc.protocol(f), tos, ttl, label), gopacket.Payload(body))
	return append(ethernetHeader(t.dst, t.src, t.family().ethertype()), outer...)
}
