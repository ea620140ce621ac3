package main

import (
	"fmt"
	"io"
	"runtime"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"roam/loader/api"
)

// packetFile is a capture in pcapng (draft-ietf-opsawg-pcapng): an interface for each port, and each packet twice, as it came and as it
// went, with a comment that says which of both it is and what happened. Of what was dropped there is no second one.
type packetFile struct {
	w     *pcapgo.NgWriter
	ports map[string]int // interface by port
	lost  uint64
}

func newPacketFile(out io.Writer, s api.Status) (*packetFile, error) {
	f := &packetFile{ports: map[string]int{}}
	options := pcapgo.NgWriterOptions{SectionInfo: pcapgo.NgSectionInfo{
		Hardware: runtime.GOARCH, OS: runtime.GOOS, Application: "roamctl " + version, Comment: fmt.Sprintf("gateway of site %s, roamd %s", s.Site, s.Version),
	}}
	for _, p := range s.Ports {
		name := p.Interface
		if p.VLAN != 0 {
			name += fmt.Sprintf(".%d", p.VLAN)
		}
		if _, known := f.ports[name]; known {
			continue
		}
		if f.w == nil {
			w, err := pcapgo.NewNgWriterInterface(out, port(name), options)
			if err != nil {
				return nil, fmt.Errorf("write the capture: %w", err)
			}
			f.w, f.ports[name] = w, 0
		} else if _, err := f.port(name); err != nil {
			return nil, err
		}
	}
	if f.w == nil {
		return nil, fmt.Errorf("roamd has no port that packets could come in by: roamctl status")
	}
	return f, f.flush()
}

func port(name string) pcapgo.NgInterface {
	return pcapgo.NgInterface{Name: name, OS: runtime.GOOS, LinkType: layers.LinkTypeEthernet, SnapLength: wholeFrame, TimestampResolution: 9}
}

// port is the number of a port's interface in the file.
func (f *packetFile) port(name string) (int, error) {
	if n, ok := f.ports[name]; ok {
		return n, nil
	}
	n, err := f.w.AddInterface(port(name))
	if err != nil {
		return 0, fmt.Errorf("write the capture: %w", err)
	}
	f.ports[name] = n
	return n, nil
}

// write adds a packet: it is in the file when write returns.
func (f *packetFile) write(p api.TracedPacket) error {
	err := f.frame(p, "before", p.In, p.Before, p.Length, pcapgo.NgEpbFlagDirectionInbound)
	if err == nil && p.Verdict != "dropped" {
		out, direction := p.Out, pcapgo.NgEpbFlagDirectionOutbound
		if out == "" { // the kernel gets it as if the port had received it
			out, direction = p.In, pcapgo.NgEpbFlagDirectionInbound
		}
		err = f.frame(p, "after", out, p.After, p.LengthAfter, direction)
	}
	if err != nil {
		return err
	}
	return f.flush()
}

func (f *packetFile) frame(p api.TracedPacket, which, at string, data []byte, length int, direction pcapgo.NgEpbFlag) error {
	n, err := f.port(at)
	if err != nil {
		return err
	}
	options := pcapgo.NgPacketOptions{Comments: []string{comment(p, which)}, Flags: &pcapgo.NgEpbFlags{Direction: direction}}
	if lost := p.Lost - f.lost; lost > 0 {
		f.lost, options.DropCount = p.Lost, &lost
	}
	err = f.w.WritePacketWithOptions(gopacket.CaptureInfo{
		Timestamp: p.Time, CaptureLength: len(data), Length: max(length, len(data)), InterfaceIndex: n,
	}, data, options)
	if err != nil {
		return fmt.Errorf("write the capture: %w", err)
	}
	return nil
}

func (f *packetFile) flush() error {
	if err := f.w.Flush(); err != nil {
		return fmt.Errorf("write the capture: %w", err)
	}
	return nil
}

// comment is what Wireshark shows beside a packet.
func comment(p api.TracedPacket, which string) string {
	text := which + ": " + p.Reason + ", in " + p.In
	if p.Out != "" {
		text += ", out " + p.Out
	}
	if p.Tenant != "" {
		text += ", tenant " + p.Tenant
	}
	return text + tunnelText(p)
}
