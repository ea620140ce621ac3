package api

import (
	"errors"
	"math"
	"net/http"
)

// maxPing is how long anybody waits for one answer, in seconds.
const maxPing = 60

func (s *Server) ping(w http.ResponseWriter, r *http.Request) error {
	if _, err := query(r); err != nil {
		return err
	}
	var request PingRequest
	if err := body(w, r, &request); err != nil {
		return err
	}
	switch {
	case !request.Locator.IsValid():
		return wrong(errors.New("a locator is needed"), "roamctl site list shows those that are configured")
	case request.Size < 0 || request.Size > math.MaxUint16:
		return wrong(errors.New("no packet has that size"), "give the bytes of an IP packet, 0 to 65535")
	case !(request.Timeout >= 0 && request.Timeout <= maxPing):
		return wrong(errors.New("nobody waits that long"), "give a timeout of 0 to 60 seconds")
	}
	if request.Timeout == 0 {
		request.Timeout = 1
	}
	answer, err := s.backend.Ping(r.Context(), request)
	if err != nil {
		return err
	}
	return reply(w, answer)
}
