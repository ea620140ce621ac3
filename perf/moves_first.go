package main

import (
	"encoding/binary"
	"fmt"
	"net"
	"time"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"roam/lab"
)

// gate sees the frames of one host that leave a rack for the LAN, where the gateway is: the first of them is the host's first sign at its new
// site. Until then nobody can know of it, and what is lost is the host's own pause. The kernel stamps the frames; they are read later, so that
// looking costs the move nothing.
type gate struct{ fd int }

const packetOutgoing = 4 // sll_pkttype, packet(7)

// openGate looks at a port of a namespace from now on; mac is the host's.
func openGate(at *lab.Namespace, port string, mac net.HardwareAddr) (g gate, err error) {
	program, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadExtension{Num: bpf.ExtType},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: packetOutgoing, SkipFalse: 5},
		bpf.LoadAbsolute{Off: 6, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: binary.BigEndian.Uint32(mac), SkipFalse: 3},
		bpf.LoadAbsolute{Off: 10, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(binary.BigEndian.Uint16(mac[4:])), SkipFalse: 1},
		bpf.RetConstant{Val: 64},
		bpf.RetConstant{Val: 0},
	})
	if err != nil {
		return g, err
	}
	filter := make([]unix.SockFilter, len(program))
	for i, in := range program {
		filter[i] = unix.SockFilter{Code: in.Op, Jt: in.Jt, Jf: in.Jf, K: in.K}
	}
	err = at.Do(func() error {
		nic, err := net.InterfaceByName(port)
		if err != nil {
			return err
		}
		if g.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		err = unix.SetsockoptInt(g.fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1)
		if err == nil {
			err = unix.SetsockoptSockFprog(g.fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(filter)), Filter: unsafe.SliceData(filter)})
		}
		if err == nil {
			err = unix.Bind(g.fd, &unix.SockaddrLinklayer{Protocol: unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8, Ifindex: nic.Index})
		}
		if err != nil {
			unix.Close(g.fd)
		}
		return err
	})
	if err != nil {
		return g, fmt.Errorf("look at %s: %w", port, err)
	}
	return g, nil
}

// first is when the first frame passed, and ends the looking; false for none.
func (g gate) first() (time.Time, bool) {
	defer unix.Close(g.fd)
	frame, control := make([]byte, 64), make([]byte, 128)
	_, n, _, _, err := unix.Recvmsg(g.fd, frame, control, unix.MSG_DONTWAIT)
	if err != nil {
		return time.Time{}, false
	}
	messages, err := unix.ParseSocketControlMessage(control[:n])
	if err != nil {
		return time.Time{}, false
	}
	for _, m := range messages {
		if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SO_TIMESTAMPNS && len(m.Data) >= 16 {
			return time.Unix(int64(binary.NativeEndian.Uint64(m.Data)), int64(binary.NativeEndian.Uint64(m.Data[8:]))), true
		}
	}
	return time.Time{}, false
}
