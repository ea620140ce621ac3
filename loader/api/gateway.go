package api

import "net/http"

// drain takes this gateway out of service, or puts it back.
func (s *Server) drain(w http.ResponseWriter, r *http.Request) error {
	if _, err := query(r); err != nil {
		return err
	}
	var d Drain
	if err := body(w, r, &d); err != nil {
		return err
	}
	s.backend.Drain(d.Drained)
	return reply(w, d)
}
