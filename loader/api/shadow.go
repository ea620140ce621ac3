package api

import (
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
)

// ShadowReport answers GET /v1/shadow: what a gateway in shadow mode has seen since it started. Lists are bounded; what was left out is
// counted.
type ShadowReport struct {
	Seconds   float64           `json:"seconds"`   // since the start
	Here      uint64            `json:"here"`      // hosts that it has learned, and would announce
	Seen      uint64            `json:"seen"`      // hosts that sent something
	MTU       int               `json:"mtu"`       // of the narrowest tunnel, 0 where none is known
	Obstacles List[ShadowHost]  `json:"obstacles"` // hosts that send what a router in the way ends, the busiest first
	Groups    List[ShadowGroup] `json:"groups"`    // who should move together, the busiest first
	Cut       ShadowCut         `json:"cut"`
}

// ShadowHost is a host that sends what does not survive a routed move.
type ShadowHost struct {
	Address netip.Addr       `json:"address"` // "" for a station whose address nobody has seen
	MAC     string           `json:"mac"`
	Tenant  string           `json:"tenant"`
	Port    string           `json:"port"`
	Packets uint64           `json:"packets"` // in all
	Largest uint32           `json:"largest"` // packet, but of TCP, which is told what fits
	Sends   List[ShadowSign] `json:"sends"`
}

// ShadowSign is a kind of packets: multicast, broadcast, dhcp, ttl_1, ttl_255, virtual_mac, or too_big, of which the number is not known.
type ShadowSign struct {
	Kind    string `json:"kind"`
	Packets uint64 `json:"packets,omitempty"`
}

// ShadowGroup is hosts that talk to each other.
type ShadowGroup struct {
	Tenant  string           `json:"tenant"`
	Hosts   List[netip.Addr] `json:"hosts"`
	Packets uint64           `json:"packets"` // between them
	Bytes   uint64           `json:"bytes"`
}

// ShadowCut is what the report does not show.
type ShadowCut struct {
	Pairs     uint64       `json:"pairs"` // of hosts that are in different groups, because one would be too large
	Bytes     uint64       `json:"bytes"` // between these
	Obstacles uint64       `json:"obstacles"`
	Groups    uint64       `json:"groups"`
	Full      List[string] `json:"full"` // tables that are full, so that hosts or pairs of long ago are forgotten
}

// DefaultGroup is how many hosts move together at most, unless one says otherwise.
const DefaultGroup = 32

const maxGroup = 10_000

func (s *Server) shadow(w http.ResponseWriter, r *http.Request) error {
	values, err := query(r, "group")
	if err != nil {
		return err
	}
	size := DefaultGroup
	if text := values.Get("group"); text != "" {
		if size, err = strconv.Atoi(text); err != nil || size < 1 || size > maxGroup {
			return wrong(fmt.Errorf("group=%.20q is no number from 1 to %d", text, maxGroup), "")
		}
	}
	report, err := s.backend.Shadow(r.Context(), size)
	if err != nil {
		return err
	}
	return reply(w, report)
}
