package datapath

import (
	"encoding/binary"
	"fmt"
	"strconv"

	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Facts are what an interface and its driver say about themselves. What they do not say is zero.
type Facts struct {
	Name      string
	Index     int
	Driver    string
	MTU       int
	MTULimit  int // the largest MTU for native XDP without fragments, 0 where not known
	RxQueues  int
	TxQueues  int
	MaxQueues int  // of combined ones, 0 where not known
	Up        bool // administratively
	Carrier   bool

	Program uint32 // id of the XDP program on it, 0 for none
	Mode    Mode   // of that program

	FeaturesKnown bool     // since Linux 6.3
	Features      Features // what the driver offers

	StripsVLAN bool            // takes 802.1Q tags out of the frame before XDP sees it
	Offloads   map[string]bool // as `ethtool -k` names them
}

// Features are the bits of the kernel's netdev family (enum netdev_xdp_act in linux/netdev.h).
type Features uint64

// The features that matter here.
const (
	FeatureBasic    Features = 1 << 0 // native XDP
	FeatureRedirect Features = 1 << 1 // may redirect to others
	FeatureTransmit Features = 1 << 2 // takes what others redirect to it
	FeatureFrags    Features = 1 << 5 // frames over one page
)

// FactsOf looks at an interface. What only some kernels or drivers tell is left out where they do not.
func FactsOf(name string) (Facts, error) {
	f := Facts{Name: name}
	l, err := netlink.LinkByName(name)
	if err != nil {
		return f, fmt.Errorf("look at interface %s: %w", name, err)
	}
	a := l.Attrs()
	f.Index, f.MTU, f.RxQueues, f.TxQueues = a.Index, a.MTU, a.NumRxQueues, a.NumTxQueues
	f.Up, f.Carrier = a.RawFlags&unix.IFF_UP != 0, a.OperState == netlink.OperUp
	if a.Xdp != nil && a.Xdp.Attached {
		f.Program, f.Mode = a.Xdp.ProgId, modeOf(a.Xdp)
	}
	f.askDriver()
	f.Features, f.FeaturesKnown = xdpFeatures(a.Index)
	return f, nil
}

func (f *Facts) askDriver() {
	e, err := ethtool.NewEthtool()
	if err != nil {
		return
	}
	defer e.Close()
	f.Driver, _ = e.DriverName(f.Name)
	f.MTULimit = drivers[f.Driver].mtu
	c, err := e.GetChannels(f.Name)
	if err == nil {
		f.MaxQueues = int(c.MaxCombined)
	}
	if err == nil && c.RxCount+c.TxCount+c.CombinedCount > 0 {
		f.RxQueues, f.TxQueues = int(c.RxCount+c.CombinedCount), int(c.TxCount+c.CombinedCount)
	}
	f.Offloads, _ = e.Features(f.Name)
	f.StripsVLAN = f.Offloads["rx-vlan-hw-parse"]
}

// The part of linux/netdev.h that we speak.
const (
	netdevFamily       = "netdev"
	netdevCmdDevGet    = 1
	netdevAttrIndex    = 1
	netdevAttrFeatures = 3
)

// genericHeader is a generic netlink header: command, version, and two bytes that this family wants to be zero. The
// library's own leaves those to chance.
type genericHeader [4]byte

func (h genericHeader) Len() int          { return len(h) }
func (h genericHeader) Serialize() []byte { return h[:] }

// xdpFeatures asks what a driver offers; ok is false where the kernel does not tell.
func xdpFeatures(index int) (features Features, ok bool) {
	family, err := netlink.GenlFamilyGet(netdevFamily)
	if err != nil {
		return 0, false
	}
	request := nl.NewNetlinkRequest(int(family.ID), 0)
	request.AddData(genericHeader{netdevCmdDevGet, uint8(family.Version)})
	request.AddData(nl.NewRtAttr(netdevAttrIndex, nl.Uint32Attr(uint32(index))))
	replies, err := request.Execute(unix.NETLINK_GENERIC, 0)
	if err != nil {
		return 0, false
	}
	for _, reply := range replies {
		attrs, err := nl.ParseRouteAttr(reply[nl.SizeofGenlmsg:])
		if err != nil {
			return 0, false
		}
		for _, a := range attrs {
			if a.Attr.Type == netdevAttrFeatures && len(a.Value) >= 8 {
				return Features(binary.NativeEndian.Uint64(a.Value)), true
			}
		}
	}
	return 0, false
}

// SeesTags returns why a port with VLANs cannot work on the interface, or nil. A card that takes the tags out of frames hides
// from XDP to which VLAN they belong, and they would be taken for untagged ones. (A veth end does so only if the other end
// leaves the tag out of the frame, which cannot be seen from here: Doctor mentions it.)
func (f Facts) SeesTags() error {
	if !f.StripsVLAN || f.Driver == "veth" {
		return nil
	}
	return fmt.Errorf("%s takes 802.1Q tags out of the frame before XDP sees it: turn that off with `ethtool -K %s rxvlan off`",
		f.Name, f.Name)
}

// String is one line for people.
func (f Facts) String() string {
	s := f.Name + ": driver " + orUnknown(f.Driver) + ", MTU " + strconv.Itoa(f.MTU) +
		", queues " + strconv.Itoa(f.RxQueues) + " rx " + strconv.Itoa(f.TxQueues) + " tx"
	if f.Program != 0 {
		s += fmt.Sprintf(", XDP program %d in %s mode", f.Program, f.Mode)
	}
	return s
}
