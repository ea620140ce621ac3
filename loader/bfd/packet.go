package bfd

import (
	"errors"
	"fmt"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

// decode reads a control packet and refuses what RFC 5880, section 6.8.6 refuses before a session is looked for.
func decode(data []byte) (*layers.BFD, error) {
	p := &layers.BFD{}
	if err := p.DecodeFromBytes(data, gopacket.NilDecodeFeedback); err != nil {
		return nil, err
	}
	unsure := p.State != layers.BFDStateDown && p.State != layers.BFDStateAdminDown
	switch {
	case p.Version != 1:
		return nil, fmt.Errorf("version %d", p.Version)
	case p.DetectMultiplier == 0:
		return nil, errors.New("detection multiplier 0")
	case p.Multipoint:
		return nil, errors.New("multipoint bit")
	case p.MyDiscriminator == 0:
		return nil, errors.New("no discriminator")
	case p.YourDiscriminator == 0 && unsure:
		return nil, fmt.Errorf("state %v without our discriminator", p.State)
	case p.AuthPresent && p.AuthHeader == nil:
		return nil, errors.New("no authentication section")
	}
	return p, nil
}

// encode writes a packet, signed where the session is authenticated.
func encode(p layers.BFD, auth *authenticator) ([]byte, error) {
	auth.prepare(&p)
	buffer := gopacket.NewSerializeBuffer()
	if err := p.SerializeTo(buffer, gopacket.SerializeOptions{}); err != nil {
		return nil, err
	}
	data := buffer.Bytes()
	auth.sign(data)
	return data, nil
}
