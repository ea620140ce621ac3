package main

import (
	"encoding/binary"
	"errors"
)

// The two capture formats, as far as their first packet: pcap (draft-ietf-opsawg-pcap) has a file header that
// tells byte order and link type, then records; pcapng (draft-ietf-opsawg-pcapng) is blocks that each end with
// their length again.

const (
	linkEthernet = 1

	pcapMicro  = 0xa1b2c3d4
	pcapNano   = 0xa1b23c4d
	ngSection  = 0x0a0d0d0a
	ngOrder    = 0x1a2b3c4d
	ngLink     = 1
	ngSimple   = 3
	ngEnhanced = 6
)

var (
	errCut  = errors.New("the capture ends before its first packet does")
	errLink = errors.New("the capture is not of Ethernet frames")
)

// firstOfCapture returns the first packet of a capture, and whether data is one.
func firstOfCapture(data []byte) (frame []byte, isCapture bool, err error) {
	if len(data) < 12 {
		return nil, false, nil
	}
	if binary.LittleEndian.Uint32(data) == ngSection { // reads the same in both orders
		for _, order := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
			if order.Uint32(data[8:]) == ngOrder {
				frame, err = firstOfNG(data, order)
				return frame, true, err
			}
		}
	}
	for _, order := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		if magic := order.Uint32(data); magic == pcapMicro || magic == pcapNano {
			frame, err = firstOfPcap(data, order)
			return frame, true, err
		}
	}
	return nil, false, nil
}

func firstOfPcap(data []byte, order binary.ByteOrder) ([]byte, error) {
	const fileHeader, recordHeader = 24, 16
	if len(data) < fileHeader+recordHeader {
		return nil, errCut
	}
	if order.Uint32(data[20:])&0xffff != linkEthernet {
		return nil, errLink
	}
	return slice(data[fileHeader+recordHeader:], order.Uint32(data[fileHeader+8:]))
}

func firstOfNG(data []byte, order binary.ByteOrder) ([]byte, error) {
	for len(data) >= 12 {
		kind, size := order.Uint32(data), order.Uint32(data[4:])
		if size < 12 || uint64(size) > uint64(len(data)) {
			return nil, errCut
		}
		body := data[8 : size-4]
		switch kind {
		case ngLink:
			if len(body) < 2 || order.Uint16(body) != linkEthernet {
				return nil, errLink
			}
		case ngEnhanced:
			if len(body) < 20 {
				return nil, errCut
			}
			return slice(body[20:], order.Uint32(body[12:]))
		case ngSimple:
			if len(body) < 4 {
				return nil, errCut
			}
			return slice(body[4:], min(order.Uint32(body), uint32(len(body)-4)))
		}
		data = data[size:]
	}
	return nil, errCut
}

func slice(data []byte, n uint32) ([]byte, error) {
	if uint64(n) > uint64(len(data)) || n == 0 {
		return nil, errCut
	}
	return data[:n], nil
}
