package lab

import (
	"encoding/base64"
	"fmt"
	"net"
	"regexp"
	"strconv"
	"time"
)

// shell is the far end of lab/init.sh: scripts go to a guest over a serial line, what they print and their exit status
// come back. A script is one line of a mark and base64; the mark ends the answer.
type shell struct {
	conn net.Conn
	sent int
}

func dialShell(socket string) (shell, error) {
	conn, err := net.Dial("unix", socket)
	return shell{conn: conn}, err
}

func (s *shell) close() { _ = s.conn.Close() }

// run returns an error only where there is no answer; the shell is of no use then.
func (s *shell) run(limit time.Duration, script string) (out string, status int, err error) {
	if err := s.conn.SetDeadline(time.Now().Add(limit)); err != nil {
		return "", 0, err
	}
	s.sent++
	mark := fmt.Sprintf("end-of-script-%d", s.sent)
	if _, err := fmt.Fprintf(s.conn, "%s %s\n", mark, base64.StdEncoding.EncodeToString([]byte(script))); err != nil {
		return "", 0, err
	}
	end := regexp.MustCompile(mark + ` ([0-9]+)\n$`)
	var all []byte
	for buffer := make([]byte, 4096); ; {
		n, err := s.conn.Read(buffer)
		all = append(all, buffer[:n]...)
		if m := end.FindSubmatchIndex(all); m != nil {
			status, err = strconv.Atoi(string(all[m[2]:m[3]]))
			return string(all[:m[0]]), status, err
		}
		if err != nil {
			return string(all), 0, fmt.Errorf("wait for the end of a script: %w", err)
		}
	}
}
