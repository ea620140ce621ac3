package api

import (
	"bufio"
	"encoding/json"
	"net/http"
	"time"
)

// stream is an answer of many lines, sent as they come. A client that takes nothing for a while is given up, so
// that it cannot hold what the lines are made from.
type stream struct {
	http.ResponseWriter
	buf *bufio.Writer
}

func newStream(w http.ResponseWriter, mediaType string) *stream {
	w.Header().Set("Content-Type", mediaType)
	return &stream{w, bufio.NewWriterSize(deadlineWriter{w, http.NewResponseController(w)}, 64<<10)}
}

// line sends a value as one line of JSON.
func (s *stream) line(value any) error {
	b, err := json.Marshal(value)
	if err != nil {
		return err
	}
	_, err = s.buf.Write(append(b, '\n'))
	return err
}

func (s *stream) flush() error {
	if err := s.buf.Flush(); err != nil {
		return err
	}
	return http.NewResponseController(s.ResponseWriter).Flush()
}

type deadlineWriter struct {
	http.ResponseWriter
	rc *http.ResponseController
}

func (w deadlineWriter) Write(b []byte) (int, error) {
	_ = w.rc.SetWriteDeadline(time.Now().Add(stallTimeout)) // a recorder in a test has none
	return w.ResponseWriter.Write(b)
}
