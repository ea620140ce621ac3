// Package lan keeps the switches of access LANs aware of the gateway.
//
// A switch forgets a MAC that it has not seen as a source for a while, 300 s by default, and then floods what is sent to it. Frames that the
// gateway forwards carry the port's own MAC, so the shared gateway MAC and those of gateways that stood here before would be
// forgotten. Each is the source of one small frame now and then, of a kind that no host reads.
//
// The other way round a switch believes for as long that a host is where it last spoke. Of one that lives elsewhere now the switch at its old
// rack may not know that its cable is gone, and drops what neighbours still send to its MAC. One frame from that MAC turns it to the gateway. An address
// that moved may leave its MAC behind, as a virtual one does: so neighbours are told that it is the gateway's, one announcement for all of them.
//
// It is for one gateway on a LAN, the designated one: two would have the switches move the MAC from one port to the other.
package lan

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/mdlayher/packet"

	"roam/loader/route"
)

// Link is an access port, and the MACs that switches behind it should know to be there.
type Link struct {
	Interface string // untagged, or the VLAN device
	MACs      []route.MAC
}

// Interval is how often each MAC is shown: well below the ageing time of switches, of which some use 120 s and most 300.
const Interval = 60 * time.Second

const (
	experimental = 0x88b5 // IEEE 802, Local Experimental EtherType 1
	frameLen     = 60     // the least that Ethernet carries, without its checksum
)

// Refresher shows the MACs of the links that it was last given. Safe for concurrent use.
type Refresher struct {
	log *slog.Logger

	mu      sync.Mutex
	links   []Link
	left    map[string]map[departure]struct{} // by interface: what has left, to be shown once
	changed chan struct{}
	leaves  chan struct{}
	failed  map[string]string // by interface, so that a failure is told once

	conns map[string]*packet.Conn // by interface, of Run's goroutine
}

// New makes a Refresher without links.
func New(log *slog.Logger) *Refresher {
	return &Refresher{
		log: log, left: map[string]map[departure]struct{}{}, changed: make(chan struct{}, 1), leaves: make(chan struct{}, 1),
		failed: map[string]string{}, conns: map[string]*packet.Conn{},
	}
}

func (r *Refresher) String() string { return "switch tables" }

// Set replaces the links, and shows their MACs at once. Equal links change nothing.
func (r *Refresher) Set(links []Link) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if reflect.DeepEqual(r.links, links) {
		return
	}
	r.links = links
	r.Show()
}

// Show shows the MACs of all links at once.
func (r *Refresher) Show() {
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

// again is how soon MACs are shown once more that were shown for a reason: whoever had them before may have spoken last.
const again = time.Second

// departure is a station that is not behind an interface any more; with an address, one that moved and is to be reached by this MAC.
type departure struct {
	mac  route.MAC
	addr netip.Addr
}

func (d departure) frame() []byte {
	switch {
	case d.addr.Is4():
		return arpAnnouncement(d.mac, d.addr)
	case d.addr.Is6():
		return ndAnnouncement(d.mac, d.addr)
	}
	return frame(d.mac)
}

// Left has switches send to the gateway what is for a station that is not behind this interface any more, if it is one of the links: one
// frame, soon.
func (r *Refresher) Left(link string, mac route.MAC) { r.leave(link, departure{mac: mac}) }

// Moved has neighbours send to the gateway, whose MAC this is, what is for an address that lives at another site now: one announcement, soon.
func (r *Refresher) Moved(link string, mac route.MAC, addr netip.Addr) {
	r.leave(link, departure{mac, addr})
}

func (r *Refresher) leave(link string, d departure) {
	r.mu.Lock()
	if r.left[link] == nil {
		r.left[link] = map[departure]struct{}{}
	}
	r.left[link][d] = struct{}{}
	r.mu.Unlock()
	select {
	case r.leaves <- struct{}{}:
	default:
	}
}

// Back says that a station is there after all: what Left asked for is not done any more, if it has not been.
func (r *Refresher) Back(link string, mac route.MAC) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.left[link], departure{mac: mac})
}

// Run works until ctx ends.
func (r *Refresher) Run(ctx context.Context) error {
	tick := time.NewTicker(Interval)
	defer tick.Stop()
	soon := time.NewTimer(again)
	defer soon.Stop()
	defer r.hangUp()
	r.show()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.leaves:
			r.showLeft()
			continue
		case <-tick.C:
		case <-soon.C:
		case <-r.changed:
			soon.Reset(again)
		}
		r.show()
	}
}

// burst is how many departures are shown a millisecond: more at once a switch's port would lose.
const burst = 100

// showLeft shows what has left, a burst of each link in turn.
func (r *Refresher) showLeft() {
	for more := true; more; time.Sleep(time.Millisecond) {
		more = false
		r.mu.Lock()
		frames := make(map[string][][]byte, len(r.left))
		for name, list := range r.left {
			ours := slices.ContainsFunc(r.links, func(l Link) bool { return l.Interface == name })
			n := 0
			for d := range list {
				delete(list, d)
				if ours {
					frames[name] = append(frames[name], d.frame())
				}
				if n++; n > burst {
					break
				}
			}
			more = more || len(list) > 0
		}
		r.mu.Unlock()
		for name, list := range frames {
			r.send(name, list)
		}
	}
}

// show opens every socket anew: interfaces come, go and get other names.
func (r *Refresher) show() {
	r.hangUp()
	r.mu.Lock()
	links := r.links
	r.mu.Unlock()
	for _, l := range links {
		var frames [][]byte
		for _, mac := range l.MACs {
			frames = append(frames, frame(mac))
		}
		r.send(l.Interface, frames)
	}
}

// send sends frames, or says why it cannot, once for each reason.
func (r *Refresher) send(link string, frames [][]byte) {
	err := r.sendOn(link, frames)
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != "" && r.failed[link] != text {
		r.log.Warn("switches are not told where the gateway is", "interface", link, "error", err)
	}
	r.failed[link] = text
}

// sendOn keeps the socket for the next stations: to open one takes longer than all else about a frame, and to close it longer still.
func (r *Refresher) sendOn(link string, frames [][]byte) error {
	if r.conns[link] != nil && r.write(link, frames) == nil {
		return nil
	}
	nic, err := net.InterfaceByName(link)
	if err != nil {
		return err
	}
	if r.conns[link], err = packet.Listen(nic, packet.Raw, 0, nil); err != nil { // protocol 0 hears nothing
		delete(r.conns, link)
		return err
	}
	return r.write(link, frames)
}

// write sends frames by a link's socket, which it gives up when that fails: the interface went down, or is another by now.
func (r *Refresher) write(link string, frames [][]byte) (err error) {
	conn := r.conns[link]
	for _, b := range frames {
		_, e := conn.WriteTo(b, &packet.Addr{HardwareAddr: b[:6]})
		err = errors.Join(err, e)
	}
	if err != nil {
		delete(r.conns, link)
		err = errors.Join(err, conn.Close())
	}
	return err
}

func (r *Refresher) hangUp() {
	for _, conn := range r.conns {
		conn.Close()
	}
	clear(r.conns)
}

var broadcast = route.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// frame is flooded, so that every switch of the LAN learns.
func frame(source route.MAC) []byte {
	b := make([]byte, 0, frameLen)
	b = append(append(b, broadcast[:]...), source[:]...)
	b = append(b, experimental>>8, experimental&0xff)
	return b[:frameLen]
}
