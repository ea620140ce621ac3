package config

import "fmt"

// Defaults of the data path's choices: two hundred messages a second are a flood, and one a second starves traceroute.
const (
	defaultICMPRate  = 10
	defaultICMPBurst = 20
	maxICMP          = 1_000_000
)

func datapath(v value) Datapath {
	f := v.mapping("mode", "hosts", "pin", "source_check", "mss_clamp", "icmp", "frags", "shadow")
	icmp := f.get("icmp").mapping("rate", "burst")
	return Datapath{
		Mode:        one(f.get("mode"), ModeNative, ModeNative, ModeGeneric),
		Hosts:       uint32(f.get("hosts").count(DefaultHosts, 1, maxHosts)),
		Pin:         f.get("pin").file(DefaultPin),
		SourceCheck: one(f.get("source_check"), SourceLoose, SourceLoose, SourceStrict, SourceOff),
		ClampMSS:    f.get("mss_clamp").boolean(true),
		ICMP: ICMP{
			Rate:  uint32(icmp.get("rate").number(defaultICMPRate, 0, maxICMP)),
			Burst: uint32(icmp.get("burst").number(defaultICMPBurst, 1, maxICMP)),
		},
		Frags:  one(f.get("frags"), FragsAuto, FragsAuto, FragsOff),
		Shadow: f.get("shadow").boolean(false),
	}
}

// dscp reads a code point, or copy.
func (v value) dscp() int {
	if s, ok := v.text(); !ok || s == "copy" {
		return CopyDSCP
	}
	return int(v.number(0, 0, 63))
}

// tunnelPorts reads the ports on which tunnels arrive. Two encapsulations on one could not be told apart.
func tunnelPorts(v value) TunnelPorts {
	f := v.mapping("vxlan", "vxlan_gpe", "geneve", "gue", "lisp")
	port := func(key string, standard uint64) uint16 {
		n := f.get(key).number(standard, 1, 65535)
		at := f.get(key)
		if at.absent() {
			at = v
		}
		if !v.absent() {
			at.unique("tunnel port", fmt.Sprint(n))
		}
		return uint16(n)
	}
	return TunnelPorts{
		VXLAN: port("vxlan", 4789), VXLANGPE: port("vxlan_gpe", 4790), Geneve: port("geneve", 6081),
		GUE: port("gue", 6080), LISP: port("lisp", 4341),
	}
}
