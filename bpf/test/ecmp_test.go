package bpftest

import (
	"encoding/binary"
	"testing"

	"github.com/gopacket/gopacket/layers"
)

// path is what the flow hash decides about a packet: the member of a set, the outer source port, the flow label.
type path struct {
	locator uint16
	source  uint16
	label   uint32
}

func (w *world) pathOf(t *testing.T, in frame) path {
	t.Helper()
	action, out, err := w.run(in.bytes())
	if err != nil || action != xdpRedirect {
		t.Fatalf("%s: %v", actionName(action), err)
	}
	tun := tunnelTo(v4, 0)
	p := path{locator: locatorB4}
	if out[12] == 0x86 {
		tun = tunnelTo(v6, 0)
		p.locator = locatorB6
	}
	p.source, p.label = flowFields(t, tun, out)
	return p
}

// A flow keeps its path, whatever else in its packets changes.
func TestFlowKeepsPath(t *testing.T) {
	w := site(t, onLAN)
	everyFamily(t, func(t *testing.T, f family) {
		for port := range uint16(50) {
			base := w.base(f, atBoth)
			base.ip.payload = udp(base.ip.src, base.ip.dst, 1000+port, 53, counting(9), true)
			first := w.pathOf(t, base)
			for _, change := range []func(*packet){
				func(p *packet) { p.ttl = 9 },
				func(p *packet) { p.tos = 0xff },
				func(p *packet) { p.id++ },
				func(p *packet) { p.label++ },
				func(p *packet) { p.payload = udp(p.src, p.dst, 1000+port, 53, counting(999), true) },
				func(p *packet) { p.options = []layers.IPv4Option{{OptionType: 1}, {OptionType: 1}} },
				func(p *packet) { p.extensions = []extension{hopByHop, destination} },
				func(p *packet) { p.extensions = []extension{atomicPart} },
			} {
				in := base
				change(&in.ip)
				if got := w.pathOf(t, in); got != first {
					t.Errorf("port %d: %v, then %v", port, first, got)
				}
			}
		}
	})
}

// Every fragment of a datagram takes one path, which its addresses decide.
func TestFragmentsTakeOnePath(t *testing.T) {
	w := site(t, onLAN)
	everyFamily(t, func(t *testing.T, f family) {
		var first path
		for i := range 100 {
			in := w.base(f, atBoth)
			in.ip.id = uint16(i)
			in.ip.payload = udp(in.ip.src, in.ip.dst, uint16(i), uint16(i*3), counting(64), true)
			switch i % 3 {
			case 0:
				in.ip.flags, in.ip.extensions = layers.IPv4MoreFragments, []extension{firstPart}
			case 1:
				in.ip.offset, in.ip.extensions = 8, []extension{laterPart}
			case 2:
				in.ip.offset, in.ip.flags = 3, layers.IPv4MoreFragments
				in.ip.extensions = []extension{hopByHop, laterPart}
			}
			got := w.pathOf(t, in)
			if i == 0 {
				first = got
			}
			if got != first {
				t.Errorf("fragment %d: %v, the first %v", i, got, first)
			}
		}
	})
}

// Different flows spread over members and ports, whatever tells them apart.
func TestFlowsSpread(t *testing.T) {
	const flows = 4096
	w := site(t, onLAN)
	everyFamily(t, func(t *testing.T, f family) {
		for what, change := range map[string]func(p *packet, i int){
			"source port":      func(p *packet, i int) { p.payload = udp(p.src, p.dst, uint16(i), 53, nil, true) },
			"destination port": func(p *packet, i int) { p.payload = tcp(p.src, p.dst, 53, uint16(i), nil) },
			"source address": func(p *packet, i int) {
				a := p.src.AsSlice()
				binary.BigEndian.PutUint16(a[len(a)-2:], uint16(i))
				p.src = addrFrom(a)
				p.proto, p.payload = 99, nil
			},
		} {
			t.Run(what, func(t *testing.T) {
				members, sources := map[uint16]int{}, map[uint16]int{}
				for i := range flows {
					in := w.base(f, atBoth)
					change(&in.ip, i)
					p := w.pathOf(t, in)
					members[p.locator]++
					sources[p.source]++
				}
				if n := members[locatorB4]; n < flows*4/10 || n > flows*6/10 {
					t.Errorf("members of a half-and-half set: %v", members)
				}
				if len(sources) < flows*2/3 { // of 16384 ports a perfect hash would use 3624
					t.Errorf("%d flows use %d source ports", flows, len(sources))
				}
			})
		}
	})
}

// Protocols without ports hash on addresses: what follows is not read as ports.
func TestNoPorts(t *testing.T) {
	w := site(t, onLAN)
	everyFamily(t, func(t *testing.T, f family) {
		for _, proto := range []uint8{1, 2, 47, 50, 51, 58, 59, 89, 99, 255} {
			var first path
			for i := range 8 {
				in := w.base(f, atBoth)
				in.ip.proto, in.ip.payload = proto, []byte{200, byte(i), byte(i * 3), byte(i), 1, 2, 3, 4}
				got := w.pathOf(t, in)
				if i == 0 {
					first = got
				}
				if got != first {
					t.Errorf("protocol %d: %v, then %v", proto, first, got)
				}
			}
		}
		for _, proto := range []uint8{6, 17, 33, 132, 136} {
			seen := map[path]bool{}
			for i := range 8 {
				in := w.base(f, atBoth)
				in.ip.proto, in.ip.payload = proto, []byte{200, byte(i), byte(i * 3), byte(i), 1, 2, 3, 4}
				seen[w.pathOf(t, in)] = true
			}
			if len(seen) < 7 {
				t.Errorf("protocol %d: 8 flows take %d paths", proto, len(seen))
			}
		}
	})
}

// Behind headers too long or too many to follow, the addresses must do; all of it is forwarded the same way.
func TestTooDeep(t *testing.T) {
	w := site(t, onLAN)
	bare := w.base(v6, atBoth)
	bare.ip.proto, bare.ip.payload = 99, nil
	first := w.pathOf(t, bare)
	for _, chain := range [][]extension{
		{long},
		{long, hopByHop},
		{hopByHop, destination, destination, destination, destination, destination, destination},
	} {
		for i := range uint16(4) {
			in := w.base(v6, atBoth)
			in.ip.payload = udp(in.ip.src, in.ip.dst, 1000+i, 53, counting(9), true)
			in.ip.extensions = chain
			if got := w.pathOf(t, in); got != first {
				t.Errorf("%d headers, port %d: %v, addresses alone %v", len(chain), 1000+i, got, first)
			}
		}
	}
	in := w.base(v6, atBoth) // a header that says it is longer than the packet
	in.ip.proto, in.ip.payload = 60, append([]byte{17, 9}, counting(30)...)
	if got := w.pathOf(t, in); got != first {
		t.Errorf("a header beyond the packet: %v, addresses alone %v", got, first)
	}
}
