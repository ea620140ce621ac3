package api

import (
	"errors"
	"net/http"
	"strconv"
	"strings"

	"roam/loader/route"
)

func (s *Server) explain(w http.ResponseWriter, r *http.Request) error {
	if _, err := query(r); err != nil {
		return err
	}
	var request ExplainRequest
	if err := body(w, r, &request); err != nil {
		return err
	}
	if err := request.check(); err != nil {
		return wrong(err, "give a source and a destination, or a packet")
	}
	if _, err := (&resolver{names: s.backend.Names}).tenant(request.Tenant); err != nil {
		return err
	}
	explanation, err := s.backend.Explain(r.Context(), request)
	if err != nil {
		return err
	}
	return reply(w, explanation)
}

// maxFrame is the largest frame that any port of the data path takes.
const maxFrame = 9216 + 18

func (r *ExplainRequest) check() error {
	if len(r.Packet) > 0 {
		switch {
		case r.Source.IsValid() || r.Destination.IsValid() || r.Protocol != "" || r.Port != 0:
			return errors.New("both a packet and fields of one are given")
		case len(r.Packet) > maxFrame:
			return errors.New("the packet is longer than any port takes")
		case len(r.Packet) < 14:
			return errors.New("the packet is shorter than an Ethernet header")
		}
		return nil
	}
	switch {
	case !r.Source.IsValid() || !r.Destination.IsValid():
		return errors.New("a source and a destination are needed")
	case r.Source.Is4() != r.Destination.Is4():
		return errors.New("source and destination are of different families")
	}
	if err := errors.Join(route.ValidHost(r.Source), route.ValidHost(r.Destination)); err != nil {
		return err
	}
	switch strings.ToLower(r.Protocol) {
	case "", "icmp":
		if r.Port != 0 {
			return errors.New("icmp has no ports: give protocol tcp or udp")
		}
	case "tcp", "udp":
	default:
		if _, err := strconv.ParseUint(r.Protocol, 10, 8); err != nil {
			return errors.New("protocol is icmp, tcp, udp or a number from 0 to 255")
		}
	}
	return nil
}
