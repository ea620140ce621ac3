// Package ether is for what speaks on a LAN by frames of its own.
package ether

import (
	"context"
	"fmt"
	"net"

	"github.com/mdlayher/packet"
)

const (
	// TypeIPv6 is the EtherType of IPv6 (RFC 2464, section 3).
	TypeIPv6 = 0x86dd

	protoICMPv6 = 58
	longest     = 2048 // of what is heard: nothing that is spoken here needs more than an Ethernet frame
)

// Interface finds one with a MAC address.
func Interface(name string) (*net.Interface, error) {
	nic, err := net.InterfaceByName(name)
	if err == nil && len(nic.HardwareAddr) != 6 {
		err = fmt.Errorf("%s is no Ethernet: it has no MAC address", name)
	}
	return nic, err
}

// Hear passes on what parse understands of the frames that come to conn, until that fails or ctx ends, which closes it.
func Hear[T any](ctx context.Context, conn *packet.Conn, parse func(frame []byte) (T, bool), heard chan<- T) error {
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	frame := make([]byte, longest)
	for {
		n, _, err := conn.ReadFrom(frame)
		if err != nil {
			return err
		}
		t, ok := parse(frame[:n])
		if !ok {
			continue
		}
		select {
		case heard <- t:
		case <-ctx.Done():
			return nil
		}
	}
}

// ChecksumICMPv6 is that of RFC 4443, section 2.3, in host byte order; addresses are the source's and the destination's, 32 bytes. Over a message
// that holds its own it is 0.
func ChecksumICMPv6(addresses, message []byte) uint16 {
	sum := uint32(len(message)) + protoICMPv6
	for _, b := range [][]byte{addresses, message} {
		for i, c := range b {
			if i%2 == 0 {
				sum += uint32(c) << 8
			} else {
				sum += uint32(c)
			}
		}
	}
	sum = sum&0xffff + sum>>16
	return ^uint16(sum&0xffff + sum>>16)
}
