package lab

import (
	"net"

	"github.com/mdlayher/packet"
)

// Inject sends a frame, as it is, out of an interface.
func (n *Namespace) Inject(link string, frame []byte) {
	n.lab.Helper()
	n.lab.must(n.Do(func() error {
		nic, err := net.InterfaceByName(link)
		if err != nil {
			return err
		}
		conn, err := packet.Listen(nic, packet.Raw, 0, nil) // protocol 0 hears nothing
		if err != nil {
			return err
		}
		defer conn.Close()
		_, err = conn.WriteTo(frame, &packet.Addr{HardwareAddr: frame[:6]})
		return err
	}), "send a frame out of %s:%s", n.Name, link)
}
